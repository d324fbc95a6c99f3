//! `tidewire check`: what is in force, or what is wrong.

use crate::config::{self, Flags, Sources};

/// Reads the configuration as `serve` would and prints it.
pub(crate) fn run(flags: Flags) -> anyhow::Result<()> {
    let loaded = config::load(&Sources::of_process(flags))?;
    print(&loaded.to_toml())
}

/// Prints a text that ends with a line break.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    super::line(text.trim_end()).map(drop)
}

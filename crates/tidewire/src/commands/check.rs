//! `tidewire check`: what is in force, or what is wrong.

use std::sync::Arc;

use crate::auth;
use crate::config::{self, Flags, Sources};

/// Reads the configuration as `serve` would and prints it.
pub(crate) fn run(flags: Flags) -> anyhow::Result<()> {
    let loaded = config::load(&Sources::of_process(flags))?;
    auth::build(&loaded.config, &Arc::new(loaded.config.namespace_rules()))?;
    print(&loaded.to_toml())
}

/// Prints a text that ends with a line break.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    super::line(text.trim_end()).map(drop)
}

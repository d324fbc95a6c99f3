//! `tidewire check`: what is in force, or what is wrong.

use std::io::Write as _;
use std::sync::Arc;

use anyhow::Context as _;

use crate::config::{self, Flags, Sources};
use crate::{auth, serve, tls};

/// Reads the configuration as `serve` would and prints it.
pub(crate) fn run(flags: Flags) -> anyhow::Result<()> {
    let loaded = config::load(&Sources::of_process(flags))?;
    let decides = auth::build(&loaded.config, &Arc::new(loaded.config.namespace_rules()))?;
    let certificates = tls::build(&loaded.config)?;
    if let Some(settings) = serve::redis(&loaded.config) {
        settings.check().context("broker")?;
    }
    let of_tls = tls::warnings(&loaded.config, certificates.as_deref());
    let files = loaded.file_warning().into_iter();
    for warning in files.chain(decides.warnings).chain(of_tls) {
        // Nobody may be there to read it.
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
    print(&loaded.to_toml())
}

/// Prints a text that ends with a line break.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    super::line(text.trim_end()).map(drop)
}

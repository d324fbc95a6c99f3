//! The configuration: one typed structure ([`Config`]) that knows its keys, their defaults, their
//! bounds and what they are for.
//!
//! Everything follows from one walk over that structure ([`Config::walk`]): reading the sources
//! ([`read`]), printing what is in force ([`dump`]) and the page `docs/configuration.md`
//! ([`reference()`]). So a key cannot exist without a line in the page, nor the other way round.
//! The commands call [`load`]; nothing here opens a socket or looks at the process's environment
//! but [`Sources::of_process`].

mod auth;
mod credentials;
mod dump;
mod error;
mod hooks;
mod model;
mod origin;
mod read;
mod reference;
mod rules;
mod setting;
mod source;
mod tls;
mod values;
mod walk;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub(crate) use credentials::{OneLine, read_api_keys_file};
pub(crate) use error::ConfigError;
pub(crate) use model::{Config, Log};
pub(crate) use origin::Origin;
pub(crate) use reference::reference;
pub(crate) use source::{Flags, Sources};
pub(crate) use values::{AfterRestart, Endpoint, LogFormat};
use walk::Path;

use tidewire_gateway::files::{self, Holds};

/// A configuration that may be served, and where each of its values that is no default came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The values in force.
    pub(crate) config: Config,
    /// Per key that some source gave: the source that won.
    origins: BTreeMap<Path, Origin>,
    /// The file that was read.
    file: Option<PathBuf>,
}

impl Loaded {
    /// The values in force as a TOML file, each with its origin; secrets are left out.
    pub(crate) fn to_toml(&self) -> String {
        dump::dump(&self.config, &self.origins)
    }

    /// What an operator should mend about the file's permissions.
    pub(crate) fn file_warning(&self) -> Option<String> {
        let path = self.file.as_ref()?;
        let name = format!("the configuration file {}", path.display());
        let secret = dump::file_holds_secrets(&self.config, &self.origins);
        files::warning(&name, path, if secret { Holds::Secrets } else { Holds::Rules })
    }
}

/// Reads, merges and checks the sources. Every problem found is in the error, not only the first;
/// contradictions between keys are looked for once each key is good on its own.
pub(crate) fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut entries = source::gather(sources)?;
    let file = entries.file.take();
    let (config, origins) = read::read(entries)?;
    rules::check(&config, &origins)?;
    Ok(Loaded { config, origins, file })
}

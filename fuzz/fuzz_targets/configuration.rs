//! Any text as the configuration's file and environment, and as the file of API keys: never a panic,
//! an error names at least one problem, and what is shown of a configuration is itself a file that
//! says the same.

#![no_main]

// The configuration is the binary's own, and stays private to it.
#[allow(dead_code, unused_imports)]
#[path = "../../crates/tidewire/src/config/mod.rs"]
mod config;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use config::{Flags, Sources};
use libfuzzer_sys::fuzz_target;

/// The file that is read, in memory where there is such a place.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let shared = Path::new("/dev/shm");
    let folder = if shared.is_dir() { shared.into() } else { std::env::temp_dir() };
    folder.join(format!("tidewire-fuzz-{}.toml", std::process::id()))
});

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = config::read_api_keys_file(text);
    // Lines that begin with `$` are variables, the others are the file.
    let (variables, lines): (Vec<_>, Vec<_>) =
        text.split_inclusive('\n').partition(|line| line.starts_with('$'));
    let environment = variables.iter().filter_map(|line| {
        let (name, value) = line.trim_end().strip_prefix('$')?.split_once('=')?;
        Some((OsString::from(format!("TIDEWIRE_{name}")), OsString::from(value)))
    });
    // It would be another file of this machine.
    let environment = environment.filter(|(name, _)| name != "TIDEWIRE_CONFIG").collect();
    std::fs::write(&*FILE, lines.concat()).unwrap();
    let flags = Flags { config: Some(FILE.clone()), ..Flags::default() };
    match config::load(&Sources { flags, environment }) {
        Ok(loaded) => again(&loaded.to_toml()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// What is in force, written as a file, is in force once more.
fn again(dump: &str) {
    std::fs::write(&*FILE, dump).unwrap();
    let flags = Flags { config: Some(FILE.clone()), ..Flags::default() };
    if let Ok(loaded) = config::load(&Sources { flags, environment: Vec::new() }) {
        let keys = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(keys(&loaded.to_toml()), keys(dump));
    }
}

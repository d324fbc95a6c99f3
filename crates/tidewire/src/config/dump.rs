//! The configuration in force, as a file that could be read again (but for redacted secrets).

use std::collections::BTreeMap;

use super::credentials::REDACTED;
use super::model::Config;
use super::origin::Origin;
use super::setting::Setting;
use super::walk::{Path, Visitor};

/// Every key with its value; behind what is no default, where it came from.
pub(super) fn dump(config: &Config, origins: &BTreeMap<Path, Origin>) -> String {
    let mut dump = Dump { origins, table: Path::default(), out: String::new() };
    config.clone().walk(&mut dump);
    dump.out
}

/// Whether the file gives anything that is redacted where it is shown.
pub(super) fn file_holds_secrets(config: &Config, origins: &BTreeMap<Path, Origin>) -> bool {
    let mut look = Look { origins, table: Path::default(), found: false };
    config.clone().walk(&mut look);
    look.found
}

struct Look<'a> {
    origins: &'a BTreeMap<Path, Origin>,
    table: Path,
    found: bool,
}

impl Visitor for Look<'_> {
    fn table(&mut self, path: Path, _about: &'static str) {
        self.table = path;
    }

    fn key(&mut self, name: &'static str, _about: &'static str, setting: &mut dyn Setting) {
        let origin = self.origins.get(&self.table.child(name));
        let is_redacted = || setting.show().is_some_and(|shown| shown.contains(REDACTED));
        self.found |= matches!(origin, Some(Origin::File { .. })) && is_redacted();
    }
}

struct Dump<'a> {
    origins: &'a BTreeMap<Path, Origin>,
    table: Path,
    out: String,
}

impl Visitor for Dump<'_> {
    fn table(&mut self, path: Path, _about: &'static str) {
        if !path.is_root() {
            self.out.push_str(&format!("\n[{path}]\n"));
        }
        self.table = path;
    }

    fn key(&mut self, name: &'static str, _about: &'static str, setting: &mut dyn Setting) {
        let line = match setting.show() {
            Some(value) => format!("{name} = {value}"),
            None => format!("# {name} is not set"),
        };
        self.out.push_str(&line);
        if let Some(origin) = self.origins.get(&self.table.child(name)) {
            self.out.push_str(&format!("  # {origin}"));
        }
        self.out.push('\n');
    }
}

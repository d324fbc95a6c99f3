//! Fills the structure from what the sources say, and finds what no key is for.

use std::collections::BTreeMap;

use tidewire_protocol::Channel;

use super::error::{ConfigError, Problem};
use super::model::Config;
use super::origin::Origin;
use super::setting::Setting;
use super::source::{Entries, Entry};
use super::walk::{Path, Visitor};

/// The configuration that the entries make of the defaults, and per key given where it came from.
pub(super) fn read(entries: Entries) -> Result<(Config, BTreeMap<Path, Origin>), ConfigError> {
    let mut config = Config::default();
    let mut reader = Reader { entries, ..Reader::default() };
    config.walk(&mut reader);
    reader.report_unknown();
    ConfigError::unless_empty(reader.problems)?;
    Ok((config, reader.origins))
}

#[derive(Default)]
struct Reader {
    /// What no key has taken yet.
    entries: Entries,
    table: Path,
    known: Vec<Path>,
    origins: BTreeMap<Path, Origin>,
    problems: Vec<Problem>,
}

impl Visitor for Reader {
    fn table(&mut self, path: Path, _about: &'static str) {
        self.entries.tables.remove(&path);
        self.table = path;
    }

    fn key(&mut self, name: &'static str, _about: &'static str, setting: &mut dyn Setting) {
        let path = self.table.child(name);
        self.known.push(path.clone());
        let Some(Entry { given, shown, origin }) = self.entries.keys.remove(&path) else { return };
        match setting.set(&given) {
            Ok(()) => {
                self.origins.insert(path, origin);
            }
            Err(text) => self.problems.push(Problem {
                subject: path.to_string(),
                given: (!setting.secret()).then_some(shown),
                text,
                origin: Some(origin),
            }),
        }
    }

    fn more_namespaces(&mut self) -> Vec<String> {
        let root = Path::new(["namespaces"]);
        self.entries.tables.remove(&root);
        let tables = self.entries.tables.keys();
        let keys = self.entries.keys.keys().filter(|path| path.names().len() > 2);
        let mut names: Vec<String> = tables
            .chain(keys)
            .filter_map(|path| match path.names() {
                [first, name, ..] if first == "namespaces" => Some(name.clone()),
                _ => None,
            })
            .collect();
        names.sort();
        names.dedup();
        names.retain(|name| self.is_namespace(name));
        names
    }
}

impl Reader {
    /// Whether channels can be in a namespace of this name; else says so, once for all its keys.
    fn is_namespace(&mut self, name: &str) -> bool {
        let Err(text) = check_namespace(name) else { return true };
        let path = Path::new(["namespaces", name]);
        let below = |other: &Path| other.names().starts_with(path.names());
        let mut origin = self.entries.tables.remove(&path);
        self.entries.keys.retain(|other, entry| {
            if below(other) {
                origin.get_or_insert_with(|| entry.origin.clone());
            }
            !below(other)
        });
        self.problems.push(Problem { subject: path.to_string(), given: None, text, origin });
        false
    }

    fn report_unknown(&mut self) {
        let keys = std::mem::take(&mut self.entries.keys);
        // A table that nobody knows is told by its keys, unless it has none.
        let mut tables = std::mem::take(&mut self.entries.tables);
        tables.retain(|path, _| !keys.keys().any(|key| key.names().starts_with(path.names())));
        let unknown = keys.into_iter().map(|(path, entry)| (path, entry.origin)).chain(tables);
        for (path, origin) in unknown {
            let subject = match &origin {
                Origin::Variable(name) => name.clone(),
                _ => path.to_string(),
            };
            let text = self.explain(&path, matches!(origin, Origin::Variable(_)));
            let origin = (!matches!(origin, Origin::Variable(_))).then_some(origin);
            self.problems.push(Problem { subject, given: None, text, origin });
        }
    }

    /// What to say about a key that does not exist.
    fn explain(&self, path: &Path, variable: bool) -> String {
        let below: Vec<_> =
            self.known.iter().filter(|key| key.names().starts_with(path.names())).collect();
        if !below.is_empty() {
            let keys: Vec<_> = below.iter().map(ToString::to_string).collect();
            return format!("is a table, not a value; its keys are {}", keys.join(", "));
        }
        match nearest(path, &self.known) {
            Some(key) if variable => {
                format!("there is no such key; did you mean {} ({key})?", key.variable())
            }
            Some(key) => format!("there is no such key; did you mean {key}?"),
            None if variable => "there is no such key; every variable that begins with TIDEWIRE_ \
                must name one (docs/configuration.md lists them)"
                .to_owned(),
            None => "there is no such key (docs/configuration.md lists them)".to_owned(),
        }
    }
}

/// The key that was probably meant: the likest of all, or the one of the same name in another table.
fn nearest<'a>(path: &Path, known: &'a [Path]) -> Option<&'a Path> {
    const LIKE: f64 = 0.7;
    let flat = |path: &Path| path.names().join("_");
    let like = |key: &&Path| {
        let whole = strsim::normalized_damerau_levenshtein(&flat(path), &flat(key));
        let same_name = key.names().last() == path.names().last();
        if same_name { whole.max(LIKE) } else { whole }
    };
    let best = known.iter().max_by(|a, b| like(a).total_cmp(&like(b)))?;
    (like(&best) >= LIKE).then_some(best)
}

/// A namespace is the part of a channel's name before the first `:`, so it is one if a channel can
/// be in it.
fn check_namespace(name: &str) -> Result<(), String> {
    if name.contains(':') {
        return Err("is no name of a namespace: a namespace ends before the first `:`".to_owned());
    }
    Channel::check(&format!("{name}:x")).map_err(|error| {
        format!("is no name of a namespace, because no channel can be in it: {error}")
    })
}

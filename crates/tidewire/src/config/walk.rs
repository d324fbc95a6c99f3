//! The walk over the configuration's structure: what the structure tells, and to whom.

use std::fmt;

use super::setting::Setting;

/// What is done at each key. The reader fills the setting, the dump and the page show it.
pub(super) trait Visitor {
    /// The keys that follow stand in this table.
    fn table(&mut self, path: Path, about: &'static str);

    /// One key of the present table. `about` is one or two sentences for the page.
    fn key(&mut self, name: &'static str, about: &'static str, setting: &mut dyn Setting);

    /// The namespaces that are to get a table besides those which the structure has.
    fn more_namespaces(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// The place of a key or table: the names on the way to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(Vec<String>);

impl Path {
    /// The place with these names on the way to it.
    pub(super) fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// A place below this one.
    pub(super) fn child(&self, name: &str) -> Self {
        let mut names = self.0.clone();
        names.push(name.to_owned());
        Self(names)
    }

    /// The names on the way.
    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether it is the top of the file.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The environment variable that gives this key.
    pub(super) fn variable(&self) -> String {
        format!("TIDEWIRE_{}", self.0.join("__").to_uppercase())
    }
}

/// As TOML writes a dotted key.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            if !name.is_empty() && name.bytes().all(bare) {
                f.write_str(name)?;
            } else {
                f.write_str(&super::setting::quoted(name))?;
            }
        }
        Ok(())
    }
}

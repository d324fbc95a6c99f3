//! What the sources give: the file, the environment and the flags, as one map from key to value.
//!
//! A later source replaces an earlier one, key by key. Nothing is judged here but the form.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Problem};
use super::origin::Origin;
use super::setting::{Given, quoted};
use super::walk::Path;

/// The flags that set something. Never `Debug`, nor are the other sources: they hold secrets.
#[derive(Default, clap::Args)]
pub(crate) struct Flags {
    /// The configuration file (TOML); else the one that TIDEWIRE_CONFIG names, else none
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,
    /// Where clients connect, host:port
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Where metrics and health are served, host:port
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<String>,
    /// The Redis that joins the nodes, redis://host:port (rediss:// for TLS); else the broker is embedded
    #[arg(long, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// The certificate with which clients are served over TLS, a PEM file; with --tls-key
    #[arg(long, value_name = "PATH")]
    pub(crate) tls_certificate: Option<String>,
    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "PATH")]
    pub(crate) tls_key: Option<String>,
}

/// Everything that a configuration is read from.
#[derive(Default)]
pub(crate) struct Sources {
    /// The flags; they count most.
    pub(crate) flags: Flags,
    /// The environment variables, whatever their names.
    pub(crate) environment: Vec<(OsString, OsString)>,
}

impl Sources {
    /// These flags and the environment of the process.
    pub(crate) fn of_process(flags: Flags) -> Self {
        Self { flags, environment: std::env::vars_os().collect() }
    }
}

/// What one source says about one key.
pub(super) struct Entry {
    pub(super) given: Given,
    /// As it was written, for messages.
    pub(super) shown: String,
    pub(super) origin: Origin,
}

/// What all sources say.
#[derive(Default)]
pub(super) struct Entries {
    /// Per key the value that counts.
    pub(super) keys: BTreeMap<Path, Entry>,
    /// The tables that the file has.
    pub(super) tables: BTreeMap<Path, Origin>,
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
}

/// Reads the file, then the environment, then the flags.
pub(super) fn gather(sources: &Sources) -> Result<Entries, ConfigError> {
    let mut entries = Entries::default();
    let variables = variables(sources)?;
    let named = variables.iter().find(|(name, _)| name == CONFIG).map(|(_, path)| path.into());
    if let Some(path) = sources.flags.config.clone().or(named) {
        read_file(path, &mut entries)?;
    }
    for (name, value) in variables.into_iter().filter(|(name, _)| name != CONFIG) {
        let origin = Origin::Variable(name.clone());
        entries.put(path_of_variable(&name), value, origin);
    }
    let flags = [
        ("listen", "--listen", &sources.flags.listen),
        ("admin", "--admin", &sources.flags.admin),
        ("broker.url", "--redis", &sources.flags.redis),
        ("tls.certificate_file", "--tls-certificate", &sources.flags.tls_certificate),
        ("tls.key_file", "--tls-key", &sources.flags.tls_key),
    ];
    for (key, flag, value) in flags {
        if let Some(value) = value {
            entries.put(Path::new(key.split('.')), value.clone(), Origin::Flag(flag));
        }
    }
    Ok(entries)
}

const CONFIG: &str = "TIDEWIRE_CONFIG";
const PREFIX: &str = "TIDEWIRE_";

impl Entries {
    fn put(&mut self, path: Path, text: String, origin: Origin) {
        let shown = clipped(&quoted(&text));
        self.keys.insert(path, Entry { given: Given::Raw(text), shown, origin });
    }
}

/// The variables that are ours, sorted by name so that messages are the same every time. An empty
/// one counts as not set, because compose files pass `${X:-}` on.
fn variables(sources: &Sources) -> Result<Vec<(String, String)>, ConfigError> {
    let mut ours = Vec::new();
    let mut problems = Vec::new();
    for (name, value) in &sources.environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        match value.to_str() {
            Some("") => {}
            Some(value) if set_by_orchestrator(name, value) => {}
            Some(value) => ours.push((name.to_owned(), value.to_owned())),
            None => problems.push(Problem {
                subject: name.to_owned(),
                given: None,
                text: "must be UTF-8".to_owned(),
                origin: None,
            }),
        }
    }
    ConfigError::unless_empty(problems)?;
    ours.sort();
    Ok(ours)
}

/// Kubernetes (and Docker's links) put variables into every container for each service that is
/// there: for one that is called `tidewire`, `TIDEWIRE_SERVICE_HOST`, `TIDEWIRE_PORT=tcp://…` and
/// so on. Nobody wrote them, so they are no mistake.
fn set_by_orchestrator(name: &str, value: &str) -> bool {
    let address = value.starts_with("tcp://") || value.starts_with("udp://");
    let of_port = name.rsplit_once("_PORT_").is_some_and(|(_, rest)| {
        let number = rest.split('_').next().unwrap_or_default();
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    });
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && address)
        || of_port
}

/// `TIDEWIRE_BROKER__URL` is `broker.url`. In `TIDEWIRE_NAMESPACES__A__B__LOG` the namespace is
/// all that stands in the middle, `a__b`.
fn path_of_variable(name: &str) -> Path {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
    let parts: Vec<_> = rest.split("__").collect();
    match parts.as_slice() {
        ["namespaces", middle @ .., key] if !middle.is_empty() => {
            Path::new(["namespaces", &middle.join("__"), key])
        }
        parts => Path::new(parts.iter().copied()),
    }
}

fn read_file(path: PathBuf, entries: &mut Entries) -> Result<(), ConfigError> {
    let wrong = |text: String| Problem {
        subject: path.display().to_string(),
        given: None,
        text,
        origin: None,
    };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let file = File { text: &text, path: Arc::new(path.clone()) };
    let root = DeTable::parse(&text).map_err(|error| {
        // Without the excerpt that the error's own text has: the line may hold a password.
        let place = error.span().map_or_else(String::new, |span| file.place(span.start));
        wrong(format!("is no TOML: {place}{}", error.message().trim_end().replace('\n', "; ")))
    })?;
    file.flatten(&Path::default(), root.get_ref(), entries);
    entries.file = Some(path);
    Ok(())
}

struct File<'a> {
    text: &'a str,
    path: Arc<PathBuf>,
}

impl File<'_> {
    fn flatten(&self, at: &Path, table: &DeTable<'_>, entries: &mut Entries) {
        for (name, value) in table {
            let path = at.child(name.get_ref());
            let origin = self.origin(name.span().start);
            if let DeValue::Table(inner) = value.get_ref() {
                entries.tables.insert(path.clone(), origin);
                self.flatten(&path, inner, entries);
            } else {
                let shown = self.text.get(value.span()).map(clipped).unwrap_or_default();
                entries.keys.insert(path, Entry { given: given(value), shown, origin });
            }
        }
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File { path: self.path.clone(), line: self.line(at) }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|b| *b == b'\n').count()
    }

    fn place(&self, at: usize) -> String {
        let start = self.text.get(..at).and_then(|head| head.rfind('\n')).map_or(0, |i| i + 1);
        let column = self.text.get(start..at).map_or(1, |head| 1 + head.chars().count());
        format!("line {}, column {column}: ", self.line(at))
    }
}

pub(super) fn given(value: &Spanned<DeValue<'_>>) -> Given {
    match value.get_ref() {
        DeValue::String(text) => Given::Text(text.clone().into_owned()),
        DeValue::Integer(n) => Given::Integer(i64::from_str_radix(n.as_str(), n.radix()).ok()),
        DeValue::Boolean(b) => Given::Bool(*b),
        DeValue::Array(items) => Given::List(items.iter().map(given).collect()),
        DeValue::Table(table) => Given::Table(
            table.iter().map(|(name, value)| (name.get_ref().to_string(), given(value))).collect(),
        ),
        _ => Given::Other,
    }
}

/// One line and not a page of it.
fn clipped(text: &str) -> String {
    const MOST: usize = 100;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

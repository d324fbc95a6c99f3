//! The function library in Redis: its source with this node's rules in it, and the care that it is
//! there.
//!
//! The broker calls [`Library::ensure`] whenever a link comes up, every [`CHECK`], and when a publish
//! finds it gone. A node replaces only an older one; what a newer one decides, holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::RedisError;
use redis::aio::ConnectionLike;
use thiserror::Error;
use tidewire_protocol::{NamespaceRules, Namespaces};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::control::Control;
use crate::names::Names;
use crate::settings::{AfterRestart, Settings};
use crate::wire::reason;

/// The source, in the order in which its parts build on each other: Redis knows one library as one text.
const TEMPLATE: &str = concat!(
    include_str!("lua/base.lua"),
    include_str!("lua/names.lua"),
    include_str!("lua/places.lua"),
    include_str!("lua/bodies.lua"),
    include_str!("lua/publish.lua"),
    include_str!("lua/read.lua"),
    include_str!("lua/claims.lua"),
    include_str!("lua/functions.lua"),
);
/// The version of the code, and of what it keeps: to be raised with every change, so that older nodes
/// leave it alone and newer ones replace it.
const FORMAT: u64 = 9;
/// How often a node looks whether the library is there.
const CHECK: Duration = Duration::from_secs(30);
/// How often after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is tried again when others load theirs at the same moment.
const ATTEMPTS: usize = 5;

/// Why the library is not there.
#[derive(Debug, Error)]
pub(crate) enum LibraryError {
    #[error("Redis does not answer")]
    Silent,
    #[error("{}", reason(.0.to_string().as_bytes()))]
    Redis(#[from] RedisError),
    #[error("no connection: {0}")]
    Pool(String),
    #[error("Redis has a library {0} that is not of this prefix or not Tidewire's")]
    Foreign(String),
    #[error("others keep on loading theirs")]
    Contended,
}

/// The library of this node.
pub(crate) struct Library {
    names: Names,
    name: String,
    source: String,
    version: Version,
    digest: String,
    /// What is in force is not this node's.
    differs: AtomicBool,
    /// What was said last about it, so that it is said once.
    said: Mutex<Option<String>>,
    lost: Notify,
}

/// Older ones are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    format: u64,
    revision: u64,
}

/// What a library says about itself.
#[derive(Debug)]
struct About {
    version: Version,
    digest: String,
}

impl Library {
    pub(crate) fn new(settings: &Settings, names: Names) -> Self {
        let version = Version { format: FORMAT, revision: settings.revision };
        let code = render(settings, &names);
        // Without the revision: a new one of the same rules decides nothing else.
        let digest = sha1_smol::Sha1::from(&code).digest().to_string();
        let source =
            code.replace("@revision@", &version.revision.to_string()).replace("@digest@", &digest);
        Self {
            name: names.library(),
            names,
            source,
            version,
            digest,
            differs: AtomicBool::new(false),
            said: Mutex::default(),
            lost: Notify::new(),
        }
    }

    /// The name of one of its functions.
    pub(crate) fn function(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    /// Whether rules are in force that are not this node's.
    pub(crate) fn differs(&self) -> bool {
        self.differs.load(Ordering::Relaxed)
    }

    /// Redis does not know it any more.
    pub(crate) fn lost(&self) {
        self.lost.notify_one();
    }

    /// Looks after it for ever.
    pub(crate) async fn keep(&self, control: &Control) {
        let mut pause = CHECK;
        loop {
            // Either says that it is time.
            let _ = timeout(pause, self.lost.notified()).await;
            pause = if self.ensure(control).await { CHECK } else { RETRY };
        }
    }

    /// Sees to it that it is there, and says once if it cannot be.
    pub(crate) async fn ensure(&self, control: &Control) -> bool {
        let outcome = match timeout(control.patience(), self.try_ensure(control)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(LibraryError::Silent),
        };
        let (is_there, said) = match outcome {
            Ok(About { version, digest }) => {
                let differs = digest != self.digest;
                self.differs.store(differs, Ordering::Relaxed);
                let what = format!("format {}, revision {}", version.format, version.revision);
                (true, differs.then_some(what))
            }
            Err(error) => (false, Some(error.to_string())),
        };
        let mut before = self.said.lock();
        if *before != said {
            let mine = self.version;
            match &said {
                None => tracing::info!(library = self.name, "the function library is in force"),
                Some(theirs) if is_there => tracing::warn!(
                    library = self.name,
                    theirs,
                    mine = format!("format {}, revision {}", mine.format, mine.revision),
                    "the function library in Redis has other rules than this node; its rules hold"
                ),
                Some(why) => tracing::warn!(
                    library = self.name,
                    why,
                    "the function library cannot be loaded; nothing can be stored without it"
                ),
            }
            *before = said;
        }
        is_there
    }

    /// What is in force in the end.
    async fn try_ensure(&self, control: &Control) -> Result<About, LibraryError> {
        let mut connection =
            control.get().await.map_err(|error| LibraryError::Pool(error.to_string()))?;
        for _ in 0..ATTEMPTS {
            let watch = redis::cmd("WATCH").arg(self.names.library_lock()).to_owned();
            watch.exec_async(&mut *connection).await?;
            match self.about(&mut *connection).await? {
                Some(about) if about.version >= self.version => return Ok(about),
                _ => {}
            }
            // Whoever loads one writes the key, so that the other one looks again.
            let loaded: Option<(String,)> = redis::pipe()
                .atomic()
                .cmd("SET")
                .arg(self.names.library_lock())
                .arg(format!("{} {}", self.version.format, self.version.revision))
                .ignore()
                .cmd("FUNCTION")
                .arg("LOAD")
                .arg("REPLACE")
                .arg(&self.source)
                .query_async(&mut *connection)
                .await?;
            if loaded.is_some() {
                tracing::info!(library = self.name, "the function library was loaded into Redis");
                return Ok(About { version: self.version, digest: self.digest.clone() });
            }
        }
        Err(LibraryError::Contended)
    }

    async fn about<C: ConnectionLike>(
        &self,
        connection: &mut C,
    ) -> Result<Option<About>, LibraryError> {
        let about = redis::cmd("FCALL_RO")
            .arg(self.function("about"))
            .arg(0)
            .query_async::<(String, u64, u64, String)>(connection)
            .await;
        match about {
            Ok((prefix, format, revision, digest)) if prefix == self.names.prefix() => {
                Ok(Some(About { version: Version { format, revision }, digest }))
            }
            Ok(_) => Err(LibraryError::Foreign(self.name.clone())),
            Err(error) if is_not_found(&error.to_string()) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an error of Redis says that there is no such function.
pub(crate) fn is_not_found(error: &str) -> bool {
    error.contains("Function not found")
}

/// The source with names and rules in it, but neither revision nor digest.
fn render(settings: &Settings, names: &Names) -> String {
    TEMPLATE
        .replace("@library@", &names.library())
        .replace("@prefix@", &settings.prefix)
        .replace("@format@", &FORMAT.to_string())
        .replace("@body_bytes@", &settings.message_bytes.to_string())
        .replace("@frame_bytes@", &settings.frame_bytes().to_string())
        .replace("@dedupe_ms@", &settings.dedupe_ttl.as_millis().to_string())
        .replace("@trusts@", trusts(settings.after_restart))
        .replace("@default@", &rules(settings.namespaces.rules(0)))
        .replace("@named@", &named(&settings.namespaces))
}

const fn trusts(after_restart: AfterRestart) -> &'static str {
    match after_restart {
        AfterRestart::Gap => "false",
        AfterRestart::Trust => "true",
    }
}

/// `{ size, ttl in ms }`.
fn rules(rules: &NamespaceRules) -> String {
    format!("{{ {}, {} }}", rules.history_size, rules.history_ttl.as_millis())
}

/// The named namespaces' rules, in an order that all nodes share.
fn named(namespaces: &Namespaces) -> String {
    let mut lines: Vec<_> = namespaces
        .names()
        .enumerate()
        .skip(1)
        .map(|(n, name)| format!("  [{}] = {},\n", quoted(name), rules(namespaces.rules(n))))
        .collect();
    lines.sort_unstable();
    format!("{{\n{}}}", lines.concat())
}

/// A text in Lua: what is neither letter nor digit as a number.
fn quoted(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("\\{other:03}"),
    };
    format!("'{}'", text.bytes().map(byte).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn library(change: impl FnOnce(&mut Settings)) -> Library {
        let mut settings = Settings::new("redis://h");
        change(&mut settings);
        let names = Names::new(&settings.prefix);
        Library::new(&settings, names)
    }

    #[test]
    fn nothing_is_left_between_at_signs() {
        let source = library(|settings| settings.prefix = "my-app".into()).source;
        assert!(!source.contains('@'), "{source}");
        assert!(source.starts_with("#!lua name=my_app\n"));
        assert!(source.contains("PREFIX = 'my-app:'"));
    }

    #[test]
    fn the_digest_is_that_of_the_rules() {
        let plain = library(|_| {});
        assert_eq!(plain.digest, library(|settings| settings.revision = 7).digest);
        assert_ne!(plain.digest, library(|settings| settings.message_bytes = 7).digest);
        let trusting = library(|settings| settings.after_restart = AfterRestart::Trust);
        assert_ne!(plain.digest, trusting.digest);
        let namespaces = |names: [&str; 2]| {
            let named = names.map(|name| (name.to_owned(), NamespaceRules::live()));
            Arc::new(Namespaces::new(NamespaceRules::default(), named))
        };
        let one = library(|settings| settings.namespaces = namespaces(["a", "b"]));
        let other = library(|settings| settings.namespaces = namespaces(["b", "a"]));
        assert_ne!(plain.digest, one.digest);
        assert_eq!(one.digest, other.digest);
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        assert_eq!(quoted("room-1_A"), "'room-1_A'");
        assert_eq!(quoted("a'\n\\"), "'a\\039\\010\\092'");
    }
}

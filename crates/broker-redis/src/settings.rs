//! What the broker can be told, and what is refused at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use secrecy::{ExposeSecret, SecretString};
use socket2::TcpKeepalive;
use thiserror::Error;
use tidewire_protocol::Namespaces;

use crate::tls::Tls;

/// What the broker can be told. [`Settings::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `redis://[user:password@]host[:port][/0]`, or `rediss://` for TLS.
    pub url: SecretString,
    /// With TLS: a PEM file with those who may have signed the server's certificate. Absent: whom the
    /// system trusts.
    pub ca_file: Option<PathBuf>,
    /// With TLS: what to show of oneself (PEM), with its key.
    pub certificate_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub key_file: Option<PathBuf>,
    /// What all names in Redis begin with: `[a-z0-9_-]{1,32}`. `tidewire`.
    pub prefix: String,
    /// How many Pub/Sub connections, at least 1; channels are spread over them. 2.
    pub links: usize,
    /// How many connections publish, at least 1; a channel uses one of them. 2.
    pub publishers: usize,
    /// By then a publish has been answered, whatever happens. 2 s.
    pub publish_timeout: Duration,
    /// So many replicas must have a stored message before it is acknowledged (`WAIT`). 0.
    pub wait_replicas: u32,
    /// How long Redis waits for them, at most half of `publish_timeout`. 1 s.
    pub wait_timeout: Duration,
    /// What a restart or a failover of Redis means for stored channels. [`AfterRestart::Gap`].
    pub after_restart: AfterRestart,
    /// How long it takes to compare the last ids of all quiet channels with Redis once. 30 s.
    pub compare_interval: Duration,
    /// How often a quiet link is tested by a message to itself. 1 s.
    pub echo_interval: Duration,
    /// By then it must have come back, and any command on a link must have been answered. 3 s.
    pub echo_timeout: Duration,
    /// By then a connection stands, logged in and found to be a master's. 3 s.
    pub connect_timeout: Duration,
    /// The largest payload, and the largest body of a plain `PUBLISH`. 64 KiB.
    pub message_bytes: usize,
    /// Which channels are stored, and how. The defaults.
    pub namespaces: Arc<Namespaces>,
    /// For how long a messageId is remembered. 5 min.
    pub dedupe_ttl: Duration,
    /// Which version of the rules these are: nodes replace a function library with an older one. 0.
    pub revision: u64,
}

/// What a restart or a failover of Redis means for stored channels. The function library carries it,
/// so that it is the same for all nodes: as with all of its rules, the newest revision's holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterRestart {
    /// Something acknowledged may be lost, which leaves no trace: one gap on each of them.
    #[default]
    Gap,
    /// Redis is run such that nothing acknowledged can be lost: ids and links alone decide.
    Trust,
}

impl Settings {
    /// Whether they can work, as far as can be told without connecting; reads the files.
    ///
    /// # Errors
    /// Says what cannot.
    pub fn check(&self) -> Result<(), SettingsError> {
        Target::new(self).map(drop)
    }

    /// The defaults, for this Redis.
    #[must_use]
    pub fn new(url: impl Into<SecretString>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            certificate_file: None,
            key_file: None,
            prefix: "tidewire".into(),
            links: 2,
            publishers: 2,
            publish_timeout: Duration::from_secs(2),
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
            after_restart: AfterRestart::Gap,
            compare_interval: Duration::from_secs(30),
            echo_interval: Duration::from_secs(1),
            echo_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(3),
            message_bytes: 64 << 10,
            namespaces: Arc::default(),
            dedupe_ttl: Duration::from_secs(300),
            revision: 0,
        }
    }

    /// The most bytes of one frame: the escapes of JSON make up to six bytes of one when a text
    /// becomes a payload, and the longest user of an envelope has 64 KiB.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.message_bytes.saturating_mul(6).saturating_add(128 << 10)
    }
}

/// Settings that cannot work. None of its texts holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Not of the form.
    #[error(
        "the URL must be redis://[user:password@]host[:port], or rediss:// for TLS, special characters of the \
        password percent-encoded"
    )]
    Url,
    /// A socket file.
    #[error("only redis:// and rediss:// over TCP are available")]
    Transport,
    /// A file for TLS cannot be used.
    #[error("TLS to Redis: {0}")]
    Tls(String),
    /// Pub/Sub knows no databases, so that two deployments would hear each other.
    #[error(
        "only database 0 can be used, because Redis's Pub/Sub knows no databases; tell \
        deployments apart by the prefix"
    )]
    Database,
    /// Not of the form.
    #[error("the prefix must be 1 to 32 of a-z, 0-9, '_' and '-'")]
    Prefix,
    /// Zero.
    #[error("at least one link and one publisher are needed")]
    Zero,
    /// A time that is zero, or an echo that would be missed before the next is sent.
    #[error("times must be more than zero, and echo_timeout more than echo_interval")]
    Times,
    /// Replicas that answer in time would be waited for in vain.
    #[error("wait_timeout must be from 250 ms to half of publish_timeout")]
    Wait,
}

/// The Redis to connect to. Its `Debug` shows neither user nor password.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// How to speak TLS with it, if it is to be.
    pub(crate) tls: Option<Tls>,
    /// For [`crate::pool`]: has user and password.
    pub(crate) info: ConnectionInfo,
}

impl Target {
    pub(crate) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let prefix = settings.prefix.as_bytes();
        if !(1..=32).contains(&prefix.len()) || !prefix.iter().copied().all(good) {
            return Err(SettingsError::Prefix);
        }
        if settings.links == 0 || settings.publishers == 0 {
            return Err(SettingsError::Zero);
        }
        let times = [
            settings.publish_timeout,
            settings.echo_interval,
            settings.connect_timeout,
            settings.compare_interval,
        ];
        let too_short = settings.dedupe_ttl < Duration::from_millis(1);
        if too_short
            || times.iter().any(Duration::is_zero)
            || settings.echo_timeout <= settings.echo_interval
        {
            return Err(SettingsError::Times);
        }
        let (wait, most) = (settings.wait_timeout, settings.publish_timeout / 2);
        if settings.wait_replicas > 0 && (wait < Duration::from_millis(250) || wait > most) {
            return Err(SettingsError::Wait);
        }
        // The crate's own error could quote the URL; its TLS is not ours, and its `#insecure` is none.
        let url = settings.url.expose_secret();
        let (url, secure) = match url.strip_prefix("rediss://") {
            Some(rest) => (SecretString::from(format!("redis://{rest}")), true),
            None => (SecretString::from(url), false),
        };
        if url.expose_secret().contains('#') {
            return Err(SettingsError::Url);
        }
        let info = url.expose_secret().into_connection_info();
        let info = info.map_err(|_| SettingsError::Url)?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(SettingsError::Transport);
        };
        if info.redis_settings().db() != 0 {
            return Err(SettingsError::Database);
        }
        let (host, port) = (host.clone(), *port);
        let tls = secure.then(|| Tls::new(settings, &host)).transpose()?;
        Ok(Self { host, port, tls, info })
    }

    pub(crate) fn user(&self) -> Option<&str> {
        self.info.redis_settings().username()
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.info.redis_settings().password()
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({}:{})", self.host, self.port)
    }
}

/// The first probe after 10 s of silence, three of them 3 s apart: for what the echo does not see,
/// such as the connections of the pool.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(3))
        .with_retries(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, SettingsError> {
        Target::new(&Settings::new(url))
    }

    #[test]
    fn urls() {
        let all = target("redis://bob:p%40ss@redis.example:7000/0").unwrap();
        assert_eq!((all.host.as_str(), all.port), ("redis.example", 7000));
        assert_eq!((all.user(), all.password()), (Some("bob"), Some("p@ss")));
        assert_eq!(target("redis://127.0.0.1").unwrap().port, 6379);
        assert_eq!(target("redis://[::1]:7000").unwrap().host, "::1");
        assert_eq!(target("redis://h/1").unwrap_err(), SettingsError::Database);
        assert_eq!(target("redis+unix:///tmp/x").unwrap_err(), SettingsError::Transport);
        assert_eq!(target("http://h").unwrap_err(), SettingsError::Url);
        assert_eq!(target("").unwrap_err(), SettingsError::Url);
    }

    #[test]
    fn bounds() {
        let check = |change: fn(&mut Settings)| {
            let mut settings = Settings::new("redis://h");
            change(&mut settings);
            Target::new(&settings).unwrap_err()
        };
        assert_eq!(check(|s| s.prefix = "a{b".into()), SettingsError::Prefix);
        assert_eq!(check(|s| s.prefix = String::new()), SettingsError::Prefix);
        assert_eq!(check(|s| s.links = 0), SettingsError::Zero);
        assert_eq!(
            check(|s| (s.wait_replicas, s.wait_timeout) = (1, s.publish_timeout)),
            SettingsError::Wait
        );
        assert_eq!(check(|s| s.echo_timeout = s.echo_interval), SettingsError::Times);
    }

    #[test]
    fn secrets_do_not_show() {
        let settings = Settings::new("redis://bob:hunter2@h");
        let target = Target::new(&settings).unwrap();
        let shown = format!("{settings:?} {target:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

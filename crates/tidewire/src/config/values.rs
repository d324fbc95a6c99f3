//! The values of the configuration that are written as text and mean more than text.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use tidewire_gateway::ForwardedHeader;
use tracing_subscriber::EnvFilter;

use tidewire_protocol::WhenSlow;

use super::setting::Word;

/// Where to listen: a host name or address, and a port. Names are resolved at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// On the loopback address.
    pub(super) fn loopback(port: u16) -> Self {
        Self { host: "127.0.0.1".to_owned(), port }
    }

    /// The port; 0 lets the system choose.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is certain that nobody beyond this machine reaches it: a loopback address, or
    /// `localhost` (which [`Self::resolve`] takes as a loopback address or not at all). Any other
    /// name may resolve to anything tomorrow.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host.parse().map_or(self.is_localhost(), |ip: IpAddr| ip.to_canonical().is_loopback())
    }

    fn is_localhost(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
    }

    /// The address to bind: the first that the name has.
    pub(crate) async fn resolve(&self) -> io::Result<SocketAddr> {
        let mut found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let usable = |a: &SocketAddr| !self.is_localhost() || a.ip().is_loopback();
        found.find(usable).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{} has no usable address", self.host))
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<Ipv6Addr>() {
            Ok(ip) => write!(f, "[{ip}]:{}", self.port),
            Err(_) => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl Word for Endpoint {
    const ALLOWED: &'static str = "`host:port`, `[::1]:port` for IPv6";

    fn read(text: &str) -> Result<Self, String> {
        let wrong =
            || "must be host:port, such as 127.0.0.1:8000, [::1]:8000, localhost:8000".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        // `parse` alone would take "+8000".
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if is_host(host) => host.to_owned(),
            None => return Err(wrong()),
        };
        Ok(Self { host, port })
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// An IPv4 address or a name of labels; what looks like an address must be one.
fn is_host(host: &str) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    if host.is_empty() || host.len() > 253 || !host.bytes().all(name) {
        return false;
    }
    let looks_like_ip = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    !looks_like_ip || host.parse::<IpAddr>().is_ok()
}

/// Where Redis is, with its credentials. Shown (also by `Debug`) without the password.
#[derive(Clone)]
pub(crate) struct BrokerUrl {
    whole: SecretString,
    shown: String,
}

impl BrokerUrl {
    /// Whether it is reached over TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.shown.starts_with("rediss:")
    }

    /// With the password, for the Redis client alone.
    pub(crate) fn expose(&self) -> &str {
        self.whole.expose_secret()
    }
}

/// Without the password.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({})", self.shown)
    }
}

impl Word for BrokerUrl {
    const ALLOWED: &'static str = "`redis://[user:password@]host[:port][/0]`, `rediss://…` for TLS";
    const SECRET: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        const FORM: &str = "must be redis://[user:password@]host[:port], or rediss:// \
            for TLS (special characters of the password percent-encoded)";
        let mut url = Url::parse(text).map_err(|_| FORM.to_owned())?;
        let has_host = url.host_str().is_some_and(|host| !host.is_empty());
        let has_more = url.query().is_some() || url.fragment().is_some();
        if !matches!(url.scheme(), "redis" | "rediss") || !has_host || has_more {
            return Err(FORM.to_owned());
        }
        match url.path() {
            "" | "/" | "/0" => {}
            _ => {
                return Err("only database 0 can be used, because Redis's Pub/Sub knows no \
                    databases; tell deployments apart by broker.prefix"
                    .to_owned());
            }
        }
        let whole = SecretString::from(text.to_owned());
        if url.password().is_some() {
            url.set_password(Some(super::credentials::REDACTED)).map_err(|()| FORM.to_owned())?;
        }
        Ok(Self { whole, shown: url.to_string() })
    }

    fn show(&self) -> String {
        self.shown.clone()
    }
}

/// What all names in Redis begin with: `[a-z0-9_-]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// The prefix without the colon.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("tidewire".to_owned())
    }
}

impl Word for Prefix {
    const ALLOWED: &'static str = "1 to 32 of `a-z`, `0-9`, `_`, `-`";

    fn read(text: &str) -> Result<Self, String> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 32 of a-z, 0-9, _ and -".to_owned())
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// What a restart of Redis means for stored channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum AfterRestart {
    /// One gap.
    #[default]
    Gap,
    /// Nothing, if ids and links fit.
    Trust,
}

impl Word for AfterRestart {
    const ALLOWED: &'static str = "`gap`, `trust`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "gap" => Ok(Self::Gap),
            "trust" => Ok(Self::Trust),
            _ => Err("must be \"gap\" or \"trust\"".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Gap => "gap",
            Self::Trust => "trust",
        }
        .to_owned()
    }
}

/// Who is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AuthMode {
    /// Everyone who can connect.
    Open,
    /// Who shows a credential.
    Required,
}

impl Word for WhenSlow {
    const ALLOWED: &'static str = "\"close\" or \"drop_oldest\"";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "close" => Ok(Self::Close),
            "drop_oldest" => Ok(Self::DropOldest),
            _ => Err(format!("must be {}", Self::ALLOWED)),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Close => "close",
            Self::DropOldest => "drop_oldest",
        }
        .to_owned()
    }
}

impl Word for AuthMode {
    const ALLOWED: &'static str = "`open`, `required`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "open" => Ok(Self::Open),
            "required" => Ok(Self::Required),
            _ => Err("must be \"open\" or \"required\"".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Open => "open",
            Self::Required => "required",
        }
        .to_owned()
    }
}

/// A network, `address/bits`, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network(IpNet);

impl Network {
    /// The network.
    pub(crate) fn get(&self) -> IpNet {
        self.0
    }
}

/// An IPv4 network that is written as IPv6 (`::ffff:10.0.0.0/104`) as what it is: addresses are compared
/// in their own form.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().filter(|_| v6.prefix_len() >= 96);
    mapped.and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - 96).ok()).map_or(network, IpNet::V4)
}

impl Word for Network {
    const ALLOWED: &'static str = "networks, `address/bits`, or addresses";

    fn read(text: &str) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| "must be such as 172.16.0.0/12 or ::1".to_owned())?;
        let network = canonical(network.trunc());
        // The largest private networks are 10.0.0.0/8 and fc00::/7.
        let widest = if network.addr().is_ipv4() { 8 } else { 7 };
        if network.prefix_len() < widest {
            return Err("is (much of) the whole internet; name the proxies' network".to_owned());
        }
        Ok(Self(network))
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

impl Word for ForwardedHeader {
    const ALLOWED: &'static str = "`x-forwarded-for`, `forwarded`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err("must be \"x-forwarded-for\" or \"forwarded\"".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
        }
        .to_owned()
    }
}

/// An origin as a browser's `Origin` header writes it (RFC 6454, section 6.2): scheme, host and,
/// unless it is the scheme's own, port; lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebOrigin(String);

impl WebOrigin {
    /// To be compared with the header byte by byte.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Word for WebOrigin {
    const ALLOWED: &'static str = "origins, `scheme://host[:port]`";

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            "must be scheme://host[:port] without a path, such as https://app.example".to_owned()
        };
        if text.contains('*') {
            return Err("wildcards are not possible; list each origin".to_owned());
        }
        let url = Url::parse(text).map_err(|_| wrong())?;
        let bare = url.username().is_empty() && url.password().is_none();
        let ends =
            matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let host =
            url.host_str().filter(|host| !host.is_empty() && bare && ends && !text.ends_with('/'));
        let host = host.ok_or_else(wrong)?.to_lowercase();
        Ok(Self(match url.port() {
            Some(port) => format!("{}://{host}:{port}", url.scheme()),
            None => format!("{}://{host}", url.scheme()),
        }))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Which log lines are written: a level, or a list of `target=level`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogLevel(String);

impl LogLevel {
    /// The filter; it was parsed before, so the fallback is never needed.
    pub(crate) fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse(&self.0).unwrap_or_else(|_| EnvFilter::new("info"))
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl Word for LogLevel {
    const ALLOWED: &'static str = "`off`, `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,tidewire_hub=debug`";

    fn read(text: &str) -> Result<Self, String> {
        let level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        // The filter's grammar takes any lone word for the name of a target, so that a mistyped
        // level would silence everything.
        let lone = |part: &str| !part.contains(['=', '[', ':']) && !level(part.trim());
        let parses = EnvFilter::builder().parse(text).is_ok();
        if text.is_empty() || !parses || text.split(',').any(lone) {
            return Err("must be off, error, warn, info, debug, trace or a filter such as \
                \"info,tidewire_hub=debug\""
                .to_owned());
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl Word for LogFormat {
    const ALLOWED: &'static str = "`auto`, `text`, `json`";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be \"auto\", \"text\" or \"json\"".to_owned()),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
        .to_owned()
    }
}

//! Addresses: where subscribers connect and where messages are published.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, bail, ensure};

/// What is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `ws:`; a subscriber's messages come as WebSocket frames.
    WebSocket,
    /// `http:`; a subscriber's messages come as Server-Sent Events, a publish is a POST.
    Http,
    /// `redis:`; publishing only, the path is the name of the Pub/Sub channel.
    Redis,
}

impl Scheme {
    /// The name in reports, where it says how messages are received.
    pub(crate) const fn transport(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Http => "sse",
            Self::Redis => "redis",
        }
    }

    /// The name in reports, where it says how messages are published.
    pub(crate) const fn publishing(self) -> &'static str {
        match self {
            Self::Http => "http",
            other => other.transport(),
        }
    }
}

/// One address, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) address: SocketAddr,
    /// Host and port as they were written, for `Host`.
    pub(crate) authority: String,
    /// With the query; at least `/`.
    pub(crate) path: String,
}

impl Target {
    /// Reads a URL in which `{channel}` stands for the channel.
    pub(crate) fn parse(template: &str, channel: &str) -> anyhow::Result<Self> {
        let url = template.replace("{channel}", channel);
        let (scheme, rest) = url.split_once("://").context("a URL is needed, with its scheme")?;
        let scheme = match scheme {
            "ws" => Scheme::WebSocket,
            "http" => Scheme::Http,
            "redis" => Scheme::Redis,
            other => bail!("{other}: is not spoken here; ws:, http: and redis: are (without TLS)"),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        ensure!(!authority.contains('@'), "no user and password can be given");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let address = resolve(authority, scheme).with_context(|| format!("no address: {url}"))?;
        Ok(Self { scheme, address, authority: authority.to_owned(), path })
    }
}

fn resolve(authority: &str, scheme: Scheme) -> anyhow::Result<SocketAddr> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if scheme == Scheme::Redis { 6379 } else { 80 };
    let mut found = if has_port {
        authority.to_socket_addrs()?
    } else {
        format!("{authority}:{port}").to_socket_addrs()?
    };
    found.next().context("the name has no address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let target = Target::parse("ws://127.0.0.1:8000/v1/ws?channel={channel}", "a:1").unwrap();
        assert_eq!(target.scheme, Scheme::WebSocket);
        assert_eq!(target.address, "127.0.0.1:8000".parse().unwrap());
        assert_eq!(target.authority, "127.0.0.1:8000");
        assert_eq!(target.path, "/v1/ws?channel=a:1");
        let target = Target::parse("redis://127.0.0.1/tidewire:{channel}", "a").unwrap();
        assert_eq!(target.address.port(), 6379);
        assert_eq!(target.path, "/tidewire:a");
        assert_eq!(Target::parse("http://[::1]:80?a", "a").unwrap().path, "/?a");
    }

    #[test]
    fn what_cannot_be_measured() {
        for url in ["127.0.0.1:8000", "wss://127.0.0.1/", "redis://a:b@127.0.0.1/", "ws:///"] {
            assert!(Target::parse(url, "a").is_err(), "{url}");
        }
    }
}

//! The gateway's metrics, as handles that are kept.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tidewire_hub::Transport;
use tidewire_protocol::{Code, Namespaces};

/// Why a session ended, as operators count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The client closed it.
    Client,
    /// The connection broke without a word.
    Lost,
    /// The client did not read as fast as it was written to.
    Slow,
    /// The client did not answer any more.
    TimedOut,
    /// The client broke the protocol.
    Protocol,
    /// The client sent a message over the limit.
    TooBig,
    /// The client made too many errors.
    Abuse,
    /// Its login ended.
    Expired,
    /// It did not log in where it must.
    Unauthorized,
    /// Its user has too many streams.
    TooMany,
    /// The application does not let it in.
    Forbidden,
    /// The application did not say whether it lets it in.
    Unavailable,
    /// The node stopped.
    Shutdown,
}

impl Reason {
    const ALL: [Self; 13] = [
        Self::Client,
        Self::Lost,
        Self::Slow,
        Self::TimedOut,
        Self::Protocol,
        Self::TooBig,
        Self::Abuse,
        Self::Expired,
        Self::Unauthorized,
        Self::TooMany,
        Self::Forbidden,
        Self::Unavailable,
        Self::Shutdown,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Lost => "lost",
            Self::Slow => "slow",
            Self::TimedOut => "timeout",
            Self::Protocol => "protocol",
            Self::TooBig => "too_big",
            Self::Abuse => "abuse",
            Self::Expired => "expired",
            Self::Unauthorized => "unauthorized",
            Self::TooMany => "too_many",
            Self::Forbidden => "forbidden",
            Self::Unavailable => "unavailable",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Why a connection or handshake was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head did not come in time.
    HeadTimeout,
    /// No valid WebSocket handshake.
    Handshake,
    /// Too many connections.
    Limit,
    /// The system gave no socket.
    Accept,
    /// The node is stopping.
    Draining,
    /// A foreign origin or host.
    Origin,
    /// The handshake of TLS failed.
    Tls,
    /// The handshake of TLS did not end in time.
    TlsTimeout,
}

impl Refusal {
    const ALL: [Self; 8] = [
        Self::HeadTimeout,
        Self::Handshake,
        Self::Limit,
        Self::Accept,
        Self::Draining,
        Self::Origin,
        Self::Tls,
        Self::TlsTimeout,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head_timeout",
            Self::Handshake => "handshake",
            Self::Limit => "limit",
            Self::Accept => "accept",
            Self::Draining => "draining",
            Self::Origin => "origin",
            Self::Tls => "tls",
            Self::TlsTimeout => "tls_timeout",
        }
    }
}

/// A limit that a client ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Connections of the node.
    Connections,
    /// Connections of one address.
    ConnectionsPerAddress,
    /// Streams of one user.
    ConnectionsPerUser,
    /// New connections of one address.
    HandshakesPerSecond,
    /// Failed logins of one address.
    FailedLoginsPerMinute,
    /// Messages of one user.
    PublishesPerUser,
    /// Messages of one namespace.
    PublishesPerSecond,
    /// What waits for all clients together.
    OutboxTotal,
    /// Subscriptions of one session.
    SubscriptionsPerSession,
    /// Frames of one session.
    FramesPerSecond,
    /// Bytes of one session.
    BytesPerSecond,
}

impl Limit {
    const ALL: [Self; 11] = [
        Self::Connections,
        Self::ConnectionsPerAddress,
        Self::ConnectionsPerUser,
        Self::HandshakesPerSecond,
        Self::FailedLoginsPerMinute,
        Self::PublishesPerUser,
        Self::PublishesPerSecond,
        Self::OutboxTotal,
        Self::SubscriptionsPerSession,
        Self::FramesPerSecond,
        Self::BytesPerSecond,
    ];

    /// As the configuration calls it.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::ConnectionsPerUser => "connections_per_user",
            Self::HandshakesPerSecond => "handshakes_per_second",
            Self::FailedLoginsPerMinute => "failed_logins_per_minute",
            Self::PublishesPerUser => "publishes_per_user",
            Self::PublishesPerSecond => "publishes_per_second",
            Self::OutboxTotal => "outbox_total",
            Self::SubscriptionsPerSession => "subscriptions_per_session",
            Self::FramesPerSecond => "frames_per_second",
            Self::BytesPerSecond => "bytes_per_second",
        }
    }
}

/// How a message was published here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Over HTTP.
    Http,
    /// By a session.
    WebSocket,
}

/// One set for the node.
pub(crate) struct Metrics {
    transports: [PerTransport; 3],
    refused: [Counter; Refusal::ALL.len()],
    errors: Vec<Counter>,
    limited: [Counter; Limit::ALL.len()],
    /// Of who is not limited by address, and of who is.
    failed_logins: [Counter; 2],
    /// By source, then by the namespace's number.
    messages_in: [Vec<Counter>; 2],
    publish: Histogram,
}

struct PerTransport {
    open: Gauge,
    opened: Counter,
    closed: [Counter; Reason::ALL.len()],
}

impl Metrics {
    pub(crate) fn new(namespaces: &Namespaces) -> Self {
        let messages_in = ["http", "websocket"].map(|source| {
            let of = |name: &str| {
                let name = name.to_owned();
                counter!("tidewire_messages_in_total", "source" => source, "namespace" => name)
            };
            namespaces.names().map(of).collect()
        });
        Self {
            transports: Transport::ALL.map(PerTransport::new),
            refused: Refusal::ALL.map(
                |reason| counter!("tidewire_handshakes_refused_total", "reason" => reason.as_str()),
            ),
            errors: Code::ALL
                .iter()
                .map(|code| counter!("tidewire_errors_total", "code" => code.as_str()))
                .collect(),
            limited: Limit::ALL
                .map(|limit| counter!("tidewire_limited_total", "limit" => limit.as_str())),
            failed_logins: ["uncounted", "counted"]
                .map(|address| counter!("tidewire_failed_logins_total", "address" => address)),
            messages_in,
            publish: histogram!("tidewire_publish_seconds"),
        }
    }

    pub(crate) fn opened(&self, transport: Transport) {
        let of = &self.transports[transport as usize];
        of.open.increment(1);
        of.opened.increment(1);
    }

    pub(crate) fn closed(&self, transport: Transport, reason: Reason) {
        let of = &self.transports[transport as usize];
        of.open.decrement(1);
        of.closed[reason as usize].increment(1);
    }

    pub(crate) fn refused(&self, reason: Refusal) {
        self.refused[reason as usize].increment(1);
    }

    pub(crate) fn error(&self, code: Code) {
        self.errors[code.index()].increment(1);
    }

    pub(crate) fn limited(&self, limit: Limit) {
        self.limited[limit as usize].increment(1);
    }

    /// A credential that was refused; whether it counts against its address.
    pub(crate) fn failed_login(&self, counts: bool) {
        self.failed_logins[usize::from(counts)].increment(1);
    }

    pub(crate) fn published(&self, source: Source, namespace: usize, took: Duration) {
        self.messages_in[source as usize][namespace].increment(1);
        self.publish.record(took);
    }
}

impl PerTransport {
    fn new(transport: Transport) -> Self {
        let transport = transport.as_str();
        Self {
            open: gauge!("tidewire_connections", "transport" => transport),
            opened: counter!("tidewire_connections_opened_total", "transport" => transport),
            closed: Reason::ALL.map(|reason| {
                counter!(
                    "tidewire_connections_closed_total",
                    "transport" => transport,
                    "reason" => reason.as_str()
                )
            }),
        }
    }
}

//! What can be set about connections. The binary makes it from the configuration.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tidewire_auth::{Authenticator, Policy};
use tidewire_hub::{OutboxLimits, WindowLimits};
use tidewire_protocol::Namespaces;

use crate::address::{AddressLimits, AddressRate};
use crate::hooks::HookSettings;
use crate::jwks::JwksSettings;
use crate::origin::Origins;
use crate::tls::Certificates;

/// How connections are treated. The defaults are those of the protocol's bounds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Threads that own connections; at least 1.
    pub lanes: usize,
    /// Sockets that may be open at a time; further ones are answered 503 and closed.
    pub connections: usize,
    /// Handshakes that are worked on at a time; at least 1.
    pub handshakes: usize,
    /// What one address may have.
    pub addresses: AddressLimits,
    /// Streams and polls of one user at a time. Absent: no limit. The same for the next ones.
    pub connections_per_user: Option<usize>,
    /// New connections of one address in a second, or behind a trusted proxy new streams.
    pub handshakes_per_second: Option<AddressRate>,
    /// Logins of one address in a minute that came to nothing.
    pub failed_logins_per_minute: Option<AddressRate>,
    /// Messages of one user in a second.
    pub publishes_per_user: Option<u32>,
    /// Messages of all users of a namespace in a second, by its name.
    pub namespace_publishes: HashMap<String, u32>,
    /// Bytes that may wait for all slow clients together.
    pub outbox_total: Option<usize>,
    /// Frames of one WebSocket in a second; 0: no limit.
    pub frames_per_second: u32,
    /// Bytes of messages of one WebSocket in a second; 0: no limit. At least the largest message.
    pub bytes_per_second: u32,
    /// Channels that one session may be subscribed to.
    pub subscriptions_per_session: usize,
    /// The most bytes of a client's frame, of a message and of an HTTP body.
    pub message_bytes: usize,
    /// Messages from so many bytes on are compressed for WebSocket clients that offer it. Not set:
    /// compression is not agreed on.
    pub compress_from: Option<usize>,
    /// What may wait for a client before it counts as slow.
    pub outbox: OutboxLimits,
    /// Publishes of one session that wait for the broker at a time; it is not read from beyond.
    pub publishes_in_flight: usize,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// From the end of a request's head to the end of its body.
    pub body_timeout: Duration,
    /// How long an HTTP connection may be idle between requests. Longer than any proxy keeps its
    /// own idle connections, so that it is the proxy that closes: a request sent into a closing
    /// connection is lost.
    pub idle_timeout: Duration,
    /// How long a WebSocket client waits for the broker to confirm a subscription.
    pub subscribe_timeout: Duration,
    /// Between two pings of a WebSocket.
    pub websocket_heartbeat: Duration,
    /// From a ping to its pong.
    pub pong_timeout: Duration,
    /// Between two heartbeats of an event stream.
    pub sse_heartbeat: Duration,
    /// How long a channel stays subscribed at the broker after its last subscriber left.
    pub linger: Duration,
    /// Over which sessions are spread when the node stops.
    pub drain: Duration,
    /// The listener speaks TLS with this. Absent: it does not.
    pub tls: Option<Arc<Certificates>>,
    /// Which origins and hosts are served.
    pub origins: Origins,
    /// What a node holds in memory of a stored channel that somebody here is subscribed to.
    pub window: WindowLimits,
    /// What all these windows together may hold, in bytes.
    pub window_bytes: usize,
    /// The namespaces' rules.
    pub namespaces: Arc<Namespaces>,
    /// Tells who a client is.
    pub authenticator: Arc<Authenticator>,
    /// What clients may do; of the same namespaces. Absent: everything.
    pub policy: Option<Policy>,
    /// Where the authenticator's further keys come from.
    pub jwks: Option<JwksSettings>,
    /// From a WebSocket's handshake to its login, where nobody has logged in with that.
    pub login_timeout: Duration,
    /// Where the application is asked.
    pub hooks: HookSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lanes: std::thread::available_parallelism().map_or(1, usize::from),
            connections: 10_000,
            handshakes: 64,
            addresses: AddressLimits::default(),
            connections_per_user: None,
            handshakes_per_second: None,
            failed_logins_per_minute: None,
            publishes_per_user: None,
            namespace_publishes: HashMap::new(),
            outbox_total: None,
            frames_per_second: 0,
            bytes_per_second: 0,
            subscriptions_per_session: 128,
            message_bytes: 64 << 10,
            compress_from: None,
            outbox: OutboxLimits { bytes: 1 << 20, messages: 1_024 },
            publishes_in_flight: 64,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            subscribe_timeout: Duration::from_secs(10),
            websocket_heartbeat: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            sse_heartbeat: Duration::from_secs(15),
            linger: Duration::from_secs(5),
            drain: Duration::from_secs(15),
            tls: None,
            origins: Origins::default(),
            window: WindowLimits { messages: 1_000, bytes: 4 << 20 },
            window_bytes: 64 << 20,
            namespaces: Arc::default(),
            authenticator: Arc::new(Authenticator::open()),
            policy: None,
            jwks: None,
            login_timeout: Duration::from_secs(10),
            hooks: HookSettings::default(),
        }
    }
}

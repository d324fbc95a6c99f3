//! The structure itself: every key with its type, its default, its bounds and what it is for.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewire_auth::Access;
use tidewire_gateway::{AddressLimits, AddressRate, ForwardedHeader};
use tidewire_protocol::{NamespaceRules, Namespaces, WhenSlow};

use super::auth::Auth;
use super::credentials::{EventName, OneLine};
use super::hooks::Hooks;
use super::setting::{Many, Maybe, MaybeSize, Number, Size, Switch, Text, Time};
use super::tls::Tls;
use super::values::{AfterRestart, BrokerUrl, Endpoint, LogFormat, LogLevel, Network, Prefix};
use super::walk::{Path, Visitor};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const CONNECTIONS_PER_ADDRESS: usize = 100;
const FRAMES_PER_SECOND: u32 = 100;
const BYTES_PER_SECOND: u32 = 1 << 20;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything that can be set. What the keys mean is told in [`Config::walk`] and so in
/// `docs/configuration.md`; the comments here only give units.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: Endpoint,
    pub(crate) admin: Endpoint,
    pub(crate) admin_open: bool,
    pub(crate) demo: bool,
    pub(crate) revision: u32,
    /// Absent: one per core, see [`Config::lane_count`].
    pub(crate) lanes: Option<usize>,
    pub(crate) tls: Tls,
    pub(crate) broker: Broker,
    pub(crate) auth: Auth,
    pub(crate) hooks: Hooks,
    pub(crate) limits: Limits,
    pub(crate) compression: Compression,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) drain: Drain,
    pub(crate) log: Log,
    /// By name; `default` may be among them, else the defaults of [`Namespace`] are its rules.
    pub(crate) namespaces: BTreeMap<String, Namespace>,
}

/// `[broker]`
#[derive(Clone, Debug)]
pub(crate) struct Broker {
    /// Absent: the embedded broker.
    pub(crate) url: Option<BrokerUrl>,
    /// The three of TLS to Redis.
    pub(crate) redis_ca_file: Option<OneLine>,
    pub(crate) redis_certificate_file: Option<OneLine>,
    pub(crate) redis_key_file: Option<OneLine>,
    pub(crate) prefix: Prefix,
    pub(crate) links: usize,
    pub(crate) publishers: usize,
    pub(crate) dedupe_ttl: Duration,
    pub(crate) wait_replicas: u32,
    pub(crate) wait_timeout: Duration,
    pub(crate) after_restart: AfterRestart,
    pub(crate) linger: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) echo_interval: Duration,
    pub(crate) echo_timeout: Duration,
    pub(crate) compare_interval: Duration,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// Absent: as many as the limit of open files allows.
    pub(crate) connections: Option<usize>,
    pub(crate) handshakes: usize,
    /// Absent: see [`Config::address_limits`].
    pub(crate) connections_per_address: Option<usize>,
    /// Absent: no limit. The same for the next, but where logging in is required.
    pub(crate) connections_per_user: Option<usize>,
    pub(crate) handshakes_per_second: Option<u32>,
    pub(crate) failed_logins_per_minute: Option<u32>,
    pub(crate) publishes_per_user: Option<u32>,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) forwarded_header: ForwardedHeader,
    /// Absent: 100 where logging in is required, else none. The same for the next.
    pub(crate) frames_per_second: Option<u32>,
    pub(crate) bytes_per_second: Option<usize>,
    pub(crate) subscriptions_per_session: usize,
    pub(crate) publishes_in_flight: usize,
    pub(crate) frame_bytes: usize,
    pub(crate) outbox_bytes: usize,
    pub(crate) outbox_messages: usize,
    /// Absent: no limit.
    pub(crate) outbox_total: Option<usize>,
    pub(crate) window_bytes: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) body_timeout: Duration,
}

/// `[compression]`
#[derive(Clone, Debug)]
pub(crate) struct Compression {
    pub(crate) websocket: bool,
    /// In bytes.
    pub(crate) threshold: usize,
}

/// `[heartbeat]`
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    pub(crate) websocket: Duration,
    pub(crate) pong: Duration,
    pub(crate) sse: Duration,
}

/// `[drain]`
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    pub(crate) time: Duration,
}

/// `[log]`
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) level: LogLevel,
    pub(crate) format: LogFormat,
}

/// `[namespaces.NAME]`
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub(crate) history_size: usize,
    pub(crate) history_ttl: Duration,
    /// Zero: everything is delivered.
    pub(crate) conflate: Duration,
    pub(crate) log: bool,
    pub(crate) when_slow: WhenSlow,
    /// Absent: `anyone` in open mode, else `granted`.
    pub(crate) subscribe: Option<Access>,
    /// The same.
    pub(crate) publish: Option<Access>,
    pub(crate) client_history: bool,
    pub(crate) events: Vec<EventName>,
    /// Absent: `limits.frame_bytes`.
    pub(crate) message_bytes: Option<u32>,
    pub(crate) hooks: bool,
    /// Absent: no limit.
    pub(crate) publishes_per_second: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Endpoint::loopback(8000),
            admin: Endpoint::loopback(8001),
            admin_open: false,
            demo: false,
            revision: 1,
            lanes: None,
            tls: Tls::default(),
            broker: Broker::default(),
            auth: Auth::default(),
            hooks: Hooks::default(),
            limits: Limits::default(),
            compression: Compression::default(),
            heartbeat: Heartbeat::default(),
            drain: Drain { time: 15 * SECOND },
            log: Log::default(),
            namespaces: BTreeMap::new(),
        }
    }
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: None,
            redis_ca_file: None,
            redis_certificate_file: None,
            redis_key_file: None,
            prefix: Prefix::default(),
            links: 2,
            publishers: 2,
            dedupe_ttl: 5 * MINUTE,
            wait_replicas: 0,
            wait_timeout: SECOND,
            after_restart: AfterRestart::default(),
            linger: 5 * SECOND,
            publish_timeout: 2 * SECOND,
            echo_interval: SECOND,
            echo_timeout: 3 * SECOND,
            compare_interval: 30 * SECOND,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            handshakes: 64,
            connections_per_address: None,
            connections_per_user: None,
            handshakes_per_second: None,
            failed_logins_per_minute: None,
            publishes_per_user: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            frames_per_second: None,
            bytes_per_second: None,
            subscriptions_per_session: 128,
            publishes_in_flight: 64,
            frame_bytes: 64 * KIB,
            outbox_bytes: MIB,
            outbox_messages: 1024,
            outbox_total: None,
            window_bytes: 64 * MIB,
            head_timeout: 10 * SECOND,
            body_timeout: 10 * SECOND,
        }
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self { websocket: false, threshold: 512 }
    }
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { websocket: 25 * SECOND, pong: 10 * SECOND, sse: 15 * SECOND }
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            history_size: 100,
            history_ttl: 5 * MINUTE,
            conflate: Duration::ZERO,
            log: false,
            when_slow: WhenSlow::Close,
            subscribe: None,
            publish: None,
            client_history: true,
            events: Vec::new(),
            message_bytes: None,
            hooks: true,
            publishes_per_second: None,
        }
    }
}

impl Config {
    /// How many lane threads to start.
    pub(crate) fn lane_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.lanes.unwrap_or_else(cores)
    }

    /// What one address may have: what is set; else 100 connections for an address of the internet
    /// where logging in is required. A proxy on a private address that nobody has named must not
    /// hold all clients together to a hundred.
    pub(crate) fn address_limits(&self) -> AddressLimits {
        let limits = &self.limits;
        let given = limits.connections_per_address;
        let default = (!self.auth.is_open()).then_some(CONNECTIONS_PER_ADDRESS);
        AddressLimits {
            connections: given.or(default),
            public_only: given.is_none(),
            trusted_proxies: limits.trusted_proxies.iter().map(Network::get).collect(),
            header: limits.forwarded_header,
        }
    }

    /// What is given, else this where logging in is required; 0 is no limit.
    pub(crate) fn or_required<T: Default + PartialEq>(
        &self,
        given: Option<T>,
        required: T,
    ) -> Option<T> {
        let default = (!self.auth.is_open()).then_some(required);
        given.or(default).filter(|limit| *limit != T::default())
    }

    /// The same for each address; by default for those of the internet alone.
    pub(crate) fn address_rate(&self, given: Option<u32>, required: u32) -> Option<AddressRate> {
        let rate = self.or_required(given, required)?;
        Some(AddressRate { rate, public_only: given.is_none() })
    }

    /// Frames and bytes that one WebSocket may send in a second; 0: no limit.
    pub(crate) fn rates(&self) -> (u32, u32) {
        let required = |rate: u32| if self.auth.is_open() { 0 } else { rate };
        let bytes = self.limits.bytes_per_second.map(|b| u32::try_from(b).unwrap_or(u32::MAX));
        (
            self.limits.frames_per_second.unwrap_or(required(FRAMES_PER_SECOND)),
            bytes.unwrap_or(required(
                BYTES_PER_SECOND.max(u32::try_from(self.limits.frame_bytes).unwrap_or(u32::MAX)),
            )),
        )
    }

    /// The namespaces' rules as the rest of the gateway takes them.
    pub(crate) fn namespace_rules(&self) -> Namespaces {
        let rules = |namespace: &Namespace| NamespaceRules {
            history_size: namespace.history_size,
            history_ttl: namespace.history_ttl,
            conflate: Some(namespace.conflate).filter(|length| !length.is_zero()),
            log: namespace.log,
            when_slow: namespace.when_slow,
        };
        let default = self.namespaces.get("default").map(rules).unwrap_or_default();
        let named = self.namespaces.iter().filter(|(name, _)| *name != "default");
        Namespaces::new(default, named.map(|(name, namespace)| (name.clone(), rules(namespace))))
    }

    /// Tells the visitor every table and key, in the order of the page.
    pub(super) fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::default(), "The top of the file, before the first table.");
        v.key("listen", "Where clients connect. Host names are resolved at the start; `localhost` is taken as a loopback address only; port 0 lets the system choose.", &mut Text(&mut self.listen));
        v.key("admin", "Where `/metrics`, `/healthz` and `/readyz` are served. Not for the public, so it must be a loopback address unless `admin_open` is set.", &mut Text(&mut self.admin));
        v.key("admin_open", "Allows `admin` to be another address than loopback: for a network that only operators reach.", &mut Switch(&mut self.admin_open));
        v.key("demo", "Adds `POST /crash` to the admin listener, which ends the process at once, as a fault would: no drain, no word to clients. For demonstrations and tests, where something starts it again.", &mut Switch(&mut self.demo));
        v.key("revision", "The number of this configuration. Raise it with each change that all nodes are to follow; where nodes share something, one with a higher number replaces what one with a lower number left.", &mut Number(&mut self.revision, 1..=u32::MAX));
        v.key("lanes", "How many threads serve connections; each connection lives on one of them. Not set: one per core.", &mut Number(&mut self.lanes, 1..=1024));
        self.tls.walk(v);
        self.broker.walk(v);
        self.auth.walk(v);
        self.hooks.walk(v);
        self.limits.walk(v);
        self.compression.walk(v);
        self.heartbeat.walk(v);
        v.table(Path::new(["drain"]), "How the node stops.");
        v.key("time", "When the node is told to stop, its sessions are sent away evenly over this time, so that their reconnects do not arrive all at once.", &mut Time(&mut self.drain.time, Duration::ZERO..=10 * MINUTE));
        self.log.walk(v);
        for name in v.more_namespaces() {
            self.namespaces.entry(name).or_default();
        }
        for (name, rules) in &mut self.namespaces {
            rules.walk(name, v);
        }
    }
}

impl Broker {
    fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::new(["broker"]), "What carries messages from node to node.");
        v.key("url", "The Redis (or Valkey) that joins the nodes. Not set: the broker is embedded, and the node is alone. The password never shows in logs or dumps; give it in the environment rather than by the flag, which every process list shows. Only database 0 can be used, because Pub/Sub knows no databases. `rediss://` speaks TLS.", &mut Maybe(&mut self.url));
        v.key("redis_ca_file", "With `rediss://`: a PEM file with the authorities that may have signed the server's certificate. Not set: those that the system trusts. This file and the next two are read at the start.", &mut Maybe(&mut self.redis_ca_file));
        v.key("redis_certificate_file", "With `rediss://`: a PEM file with the certificate that the node shows, where the server asks for one (`tls-auth-clients`).", &mut Maybe(&mut self.redis_certificate_file));
        v.key(
            "redis_key_file",
            "A PEM file with its private key, without a password.",
            &mut Maybe(&mut self.redis_key_file),
        );
        v.key("prefix", "What the names of all channels and keys in Redis begin with: `tidewire:news`. Tells deployments on one Redis apart.", &mut Text(&mut self.prefix));
        v.key("links", "How many Pub/Sub connections to Redis; channels are spread over them. More than one lets reading use more than one core.", &mut Number(&mut self.links, 1..=16));
        v.key(
            "publishers",
            "How many connections to Redis carry what this node publishes.",
            &mut Number(&mut self.publishers, 1..=16),
        );
        v.key("dedupe_ttl", "For how long a `messageId` that was published is remembered, so that sending it again delivers nothing twice. On stored channels.", &mut Time(&mut self.dedupe_ttl, SECOND..=DAY));
        v.key(
            "wait_replicas",
            "How many replicas of Redis must have a message on a stored channel before it is acknowledged. With too few of them publishes end as `timeout`. It narrows what a failover can lose and does not exclude it.",
            &mut Number(&mut self.wait_replicas, 0..=16),
        );
        v.key(
            "wait_timeout",
            "How long Redis waits for them. With `wait_replicas`; at most half of `publish_timeout`.",
            &mut Time(&mut self.wait_timeout, 250 * MS..=30 * SECOND),
        );
        v.key("after_restart", "What a restart or a failover of Redis means for stored channels. `gap`: something that was acknowledged may be lost without a trace, so every subscriber is told a gap, once. `trust`: Redis is run such that this cannot be (`appendfsync always`, `wait_replicas` with a failover that promotes none but a replica that has it all, `noeviction`); clients then go on where they were, if the messages' ids and links say so. A flush is a gap in any case. It is in force on all nodes alike: raise `revision` with it.", &mut Text(&mut self.after_restart));
        v.key(
            "linger",
            "For how long a node stays subscribed to a channel after its last subscriber has gone.",
            &mut Time(&mut self.linger, Duration::ZERO..=10 * MINUTE),
        );
        v.key(
            "publish_timeout",
            "A publish that Redis has not confirmed by then fails.",
            &mut Time(&mut self.publish_timeout, 100 * MS..=MINUTE),
        );
        v.key(
            "echo_interval",
            "How often a quiet Pub/Sub connection is tested by a message to itself.",
            &mut Time(&mut self.echo_interval, 50 * MS..=MINUTE),
        );
        v.key("echo_timeout", "A Pub/Sub connection that has heard nothing for so long counts as dead and is made anew. Must be more than `echo_interval`.", &mut Time(&mut self.echo_timeout, 100 * MS..=5 * MINUTE));
        v.key("compare_interval", "How long the node takes to compare the last ids of its quiet stored channels with Redis's, once through all of them: so a message that got lost on the way, or a flush, is noticed although nothing more is published.", &mut Time(&mut self.compare_interval, SECOND..=HOUR));
    }
}

impl Limits {
    fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::new(["limits"]), "What one client, and all together, may take.");
        v.key("connections", "How many connections the node holds at most; over HTTP/2 each event stream or poll beyond a connection's first counts as one. Not set: the limit of open files (`ulimit -n`) less 128, or half of it if that is more.", &mut Number(&mut self.connections, 1..=10_000_000));
        v.key("handshakes", "How many new connections are worked on at a time; the others wait in the kernel's queue, whose length is `net.core.somaxconn`. When all clients come back at once, a smaller number is kinder to those who are connected.", &mut Number(&mut self.handshakes, 1..=100_000));
        v.key("connections_per_address", "How many connections one address may have (of IPv6: one /64); one more is answered 429. Over HTTP/2 each event stream or poll beyond a connection's first counts as one. Behind a proxy that is trusted, how many streams. Not set: 100 for addresses of the internet where logging in is required; no limit in open mode.", &mut Number(&mut self.connections_per_address, 1..=10_000_000));
        v.key("connections_per_user", "How many WebSockets, event streams and polls one user may have; those who are counted are asked whether they are there, the dead give way, and one more than that is answered 429, or closed with 4102 (4004 where it is not known that all are alive). With Redis on all nodes together, within seconds: there the newest are closed. Not set: 100 where logging in is required; no limit in open mode. 0: no limit; the same for the next three.", &mut Number(&mut self.connections_per_user, 0..=10_000_000));
        v.key("handshakes_per_second", "How many new connections one address may make in a second, with a burst of twice that; one more is answered 429. Behind a proxy that is trusted, how many streams. Not set: 100 for addresses of the internet where logging in is required; no limit in open mode.", &mut Number(&mut self.handshakes_per_second, 0..=1_000_000));
        v.key("failed_logins_per_minute", "How many logins of one address may fail in a minute, with a burst of twice that; then the address's next ones are answered 429 without a look. Tokens that have expired do not count. Not set: 60 for addresses of the internet where logging in is required; no limit in open mode.", &mut Number(&mut self.failed_logins_per_minute, 0..=1_000_000));
        v.key("publishes_per_user", "How many messages one user may publish through a node in a second, over all connections, with a burst of twice that. One more is answered with `too_fast`. Not set: 200 where logging in is required; no limit in open mode.", &mut Number(&mut self.publishes_per_user, 0..=1_000_000));
        v.key("trusted_proxies", "The networks of the proxies in front, such as `172.16.0.0/12`: what they say about where a client is, is believed; what anybody else says is not.", &mut Many(&mut self.trusted_proxies));
        v.key("forwarded_header", "The header in which they say it. The other one, which a client may have written, is not looked at.", &mut Text(&mut self.forwarded_header));
        v.key("frames_per_second", "How many frames one WebSocket may send in a second (pings, pongs and the parts of a message are frames, too), with a burst of twice that. One more is answered with `too_fast` and not acted on; ten such errors in ten seconds end the session. 0: no limit. Not set: 100 where logging in is required; no limit in open mode.", &mut Number(&mut self.frames_per_second, 0..=1_000_000));
        v.key("bytes_per_second", "How many bytes of messages, in the same way; a compressed one counts as long as it is uncompressed. Must be at least `frame_bytes`. Not set: 1 MiB (or `frame_bytes`, if that is more) where logging in is required; no limit in open mode.", &mut MaybeSize(&mut self.bytes_per_second, KIB..=1024 * MIB));
        v.key(
            "subscriptions_per_session",
            "How many channels one session may be subscribed to.",
            &mut Number(&mut self.subscriptions_per_session, 1..=100_000),
        );
        v.key(
            "publishes_in_flight",
            "How many publishes of one session may wait for the broker at a time.",
            &mut Number(&mut self.publishes_in_flight, 1..=10_000),
        );
        v.key(
            "frame_bytes",
            "The largest frame, message and HTTP body that is taken.",
            &mut Size(&mut self.frame_bytes, KIB..=16 * MIB),
        );
        v.key("outbox_bytes", "How many bytes may wait for one slow client. Over it the session is closed as `slow`. Must be at least twice `frame_bytes`.", &mut Size(&mut self.outbox_bytes, 2 * KIB..=256 * MIB));
        v.key(
            "outbox_messages",
            "How many messages may wait for one slow client.",
            &mut Number(&mut self.outbox_messages, 16..=1_000_000),
        );
        v.key("outbox_total", "How many bytes may wait for all slow clients of the node together: messages, over TLS what of them is encrypted already, and answers over HTTP that are not read; looked at four times a second. Over it, those for whom most waits are closed (sessions as `slow`) until it fits. Bytes that many wait for are counted for each, though they are held once. Not set: no limit but each client's own.", &mut MaybeSize(&mut self.outbox_total, MIB..=1024 * GIB));
        v.key("window_bytes", "How many bytes the node holds in memory of all stored channels that its clients are subscribed to, so that who comes back is answered without reading from Redis. Over it the largest let their oldest messages go.", &mut Size(&mut self.window_bytes, 64 * KIB..=64 * GIB));
        v.key(
            "head_timeout",
            "By then a connection must have sent the head of its request (of a WebSocket: its handshake).",
            &mut Time(&mut self.head_timeout, 100 * MS..=5 * MINUTE),
        );
        v.key(
            "body_timeout",
            "By then the body of a request must be there.",
            &mut Time(&mut self.body_timeout, 100 * MS..=5 * MINUTE),
        );
    }
}

impl Compression {
    fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::new(["compression"]), "Fewer bytes for clients that offer it.");
        v.key("websocket", "Agrees to `permessage-deflate`, and compresses messages once for all subscribers of the node. It saves more than half of the bytes of longer JSON and costs the CPU time of some further deliveries per message, so it pays where a message has many subscribers or bytes are dear.", &mut Switch(&mut self.websocket));
        v.key(
            "threshold",
            "Messages from this size on are compressed, if that makes them smaller.",
            &mut Size(&mut self.threshold, 64..=16 * MIB),
        );
    }
}

impl Heartbeat {
    fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(
            Path::new(["heartbeat"]),
            "Signs of life, kept to whole seconds. Keep them below the idle time-outs of the proxies on the way.",
        );
        v.key(
            "websocket",
            "How often a WebSocket is pinged.",
            &mut Time(&mut self.websocket, SECOND..=HOUR),
        );
        v.key("pong", "A WebSocket that has not answered a ping by then is closed as `timeout`. Must be less than `websocket`.", &mut Time(&mut self.pong, SECOND..=HOUR));
        v.key(
            "sse",
            "How often a comment is written to a quiet Server-Sent Events stream.",
            &mut Time(&mut self.sse, SECOND..=HOUR),
        );
    }
}

impl Log {
    fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::new(["log"]), "What is written to standard error.");
        v.key("level", "Which lines are written.", &mut Text(&mut self.level));
        v.key(
            "format",
            "How they look. `auto`: text on a terminal, else JSON.",
            &mut Text(&mut self.format),
        );
    }
}

impl Namespace {
    fn walk(&mut self, name: &str, v: &mut dyn Visitor) {
        v.table(
            Path::new(["namespaces", name]),
            "The rules of the channels whose name begins with `NAME:`. The table `default` has \
            the rules of all other channels.",
        );
        v.key(
            "history_size",
            "How many messages are kept per channel, so that clients can resume. 0: its channels are \
            live, nothing is kept.",
            &mut Number(&mut self.history_size, 0..=10_000),
        );
        v.key(
            "history_ttl",
            "For how long they are kept after the last one.",
            &mut Time(&mut self.history_ttl, SECOND..=30 * DAY),
        );
        v.key("conflate", "Live channels only (`history_size = 0`): of the messages of one event that come within so long, the newest alone is delivered, at the end of that time; the first after a pause at once. For state of which only the last counts, such as `50ms` for positions or prices. 0s: every message is delivered.", &mut Time(&mut self.conflate, Duration::ZERO..=10 * SECOND));
        v.key("when_slow", "What becomes of a subscriber that does not read as fast as it is written to. `close`: its session is closed as `slow`, and may come back and resume. `drop_oldest`: it loses the oldest messages of the namespace that wait for it, and is told with a `gap`; only where nothing is kept (`history_size = 0`).", &mut Text(&mut self.when_slow));
        v.key("log", "Logs every message of the namespace at level `info`. For finding a fault; payloads are not logged.", &mut Switch(&mut self.log));
        v.key("subscribe", "Who may subscribe: `anyone`; `user`, everyone who has logged in; `granted`, whose token grants it; `nobody`, no user. An API key is not bound by this but by its own patterns. Not set: `anyone` in open mode, else `granted`.", &mut Maybe(&mut self.subscribe));
        v.key("publish", "Who may publish, in the same way.", &mut Maybe(&mut self.publish));
        v.key("client_history", "Whether who may subscribe may also read what is kept from before: pages of history and `rewind`. To resume from one's own cursor is always possible; a cursor from which nothing goes on is then answered with a gap and what comes from now on. It is no border against who guesses: whoever names the cursor of a message that is kept gets what follows it. What a user must not read at all belongs into a channel that they may not subscribe to.", &mut Switch(&mut self.client_history));
        v.key(
            "events",
            "The names of events that may be published over HTTP and WebSocket. Empty: any.",
            &mut Many(&mut self.events),
        );
        v.key(
            "message_bytes",
            "The most bytes of a payload, if less than `limits.frame_bytes`.",
            &mut Number(&mut self.message_bytes, 1..=16 << 20),
        );
        v.key("publishes_per_second", "How many messages clients may publish through a node in a second to all channels of the namespace together, with a burst of twice that. One more is answered with `too_fast`. Those of backends with an API key pass. Not set: no limit.", &mut Number(&mut self.publishes_per_second, 1..=10_000_000));
        v.key("hooks", "Whether the hooks `subscribe` and `publish` are asked about the namespace's channels. For those where the rules say enough, or where a message must not wait for an answer.", &mut Switch(&mut self.hooks));
    }
}

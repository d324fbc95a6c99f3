//! `tidewire serve`: one node from its start to its end.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use secrecy::ExposeSecret;
use tidewire_broker::{Broker, MemoryBroker};
use tidewire_broker_redis::RedisBroker;
use tidewire_gateway::{Gateway, HookSecret, HookSettings, Origins, Settings};
use tidewire_hub::OutboxLimits;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{AfterRestart, Config, Endpoint, Loaded, OneLine};
use crate::{admin, auth, banner, open_files, pages, telemetry, tls};

/// How long requests to the admin listener may take at the end.
const ADMIN_GRACE: Duration = Duration::from_secs(2);

/// Connections that may wait to be accepted. The kernel cuts it down to `net.core.somaxconn`, which
/// is the operator's to set; beyond that a client's SYN is dropped, and comes again a second later.
const BACKLOG: u32 = 65_535;

/// Runs a node with this configuration until it is told to stop.
pub(crate) async fn run(loaded: Loaded) -> anyhow::Result<()> {
    // Before anybody can connect: until then a signal ends the process without a word to clients.
    let mut signals = Signals::listen(loaded.config.tls.is_on())?;
    telemetry::init_logs(&loaded.config.log)?;
    if let Some(warning) = loaded.file_warning() {
        tracing::warn!("{warning}");
    }
    let config = loaded.config;
    let metrics = telemetry::install_metrics()?;
    let files = open_files::raise();
    let connections = config.limits.connections.unwrap_or_else(|| open_files::connections(files));

    let listen = bind("listen", &config.listen).await?;
    let admin = bind("admin", &config.admin).await?;
    let (at, admin_at) = (listen.local_addr()?, admin.local_addr()?);
    let stop = CancellationToken::new();
    tokio::spawn(telemetry::upkeep(metrics.clone(), stop.clone()));

    let settings = settings(&config, connections)?;
    let gateway =
        Gateway::start(listen, broker(&config)?, pages::router(config.auth.is_open()), settings)?;
    let drain = Arc::new(Notify::new());
    let router = admin::router(metrics, Arc::new(gateway.readiness()), drain.clone(), config.demo);
    let is_near = admin_at.ip().to_canonical().is_loopback();
    let router = if is_near { admin::on_loopback(router) } else { router };
    let admin = tokio::spawn(admin::serve(admin, router, stop.clone()));

    let broker =
        config.broker.url.as_ref().map_or_else(|| "embedded".to_owned(), ToString::to_string);
    tracing::info!(listen = %at, admin = %admin_at, broker, files, connections, "serving");
    if config.demo {
        tracing::warn!(admin = %admin_at, "demo = true: whoever reaches the admin listener can crash this node");
    }
    // Nobody may be there to read it, which is no reason not to serve.
    let login = match (config.auth.is_open(), config.auth.jwt.secret.is_empty()) {
        (true, _) => banner::Login::None,
        (false, false) => banner::Login::Secret,
        (false, true) => banner::Login::Elsewhere,
    };
    let scheme = if config.tls.is_on() { "https" } else { "http" };
    let banner = banner::banner(scheme, at, admin_at, &broker, login);
    let _ = std::io::stdout().write_all(banner.as_bytes());

    until_told_to_stop(&gateway, &mut signals, &drain).await;
    gateway.stop().await;
    stop.cancel();
    // An operator's request that does not end does not hold up the end.
    let _ = tokio::time::timeout(ADMIN_GRACE, admin).await;
    tracing::info!("stopped");
    Ok(())
}

/// The signals that tell a node to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Only where there is something to be read again; else SIGHUP ends the process, as it always does.
    hangup: Option<Signal>,
}

impl Signals {
    /// From now on they end nothing by themselves; what comes before [`Signals::told`] is kept.
    fn listen(reloads: bool) -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let hangup = reloads.then(|| signal(SignalKind::hangup())).transpose()?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())?, hangup })
    }

    /// Waits for the next one that says so. At SIGHUP the certificate is read again.
    async fn told(&mut self, gateway: &Gateway) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                () = hung_up(&mut self.hangup) => gateway.reload_certificate(),
            }
        }
    }
}

/// Waits for a SIGHUP; for ever where nobody listens.
async fn hung_up(signal: &mut Option<Signal>) {
    if let Some(signal) = signal {
        // None: there will be no more, as the runtime is ending.
        if signal.recv().await.is_some() {
            return;
        }
    }
    std::future::pending().await
}

/// Waits for the first SIGTERM, SIGINT or `POST /drain`, then until all sessions are gone or a second one comes.
async fn until_told_to_stop(gateway: &Gateway, signals: &mut Signals, drain: &Notify) {
    let mut told = async || {
        tokio::select! {
            by = signals.told(gateway) => by,
            () = drain.notified() => "POST /drain",
        }
    };
    let by = told().await;
    tracing::info!(by, sessions = gateway.sessions(), "stopping; a second signal ends it at once");
    tokio::select! {
        () = gateway.drain() => {}
        by = told() => tracing::warn!(by, sessions = gateway.sessions(), "stopping at once"),
    }
}

fn broker(config: &Config) -> anyhow::Result<Arc<dyn Broker>> {
    let Some(settings) = redis(config) else {
        let namespaces = Arc::new(config.namespace_rules());
        return Ok(Arc::new(MemoryBroker::new(namespaces, config.broker.dedupe_ttl)));
    };
    Ok(Arc::new(RedisBroker::new(settings).context("broker")?))
}

/// How Redis is to be used, if it is.
pub(crate) fn redis(config: &Config) -> Option<tidewire_broker_redis::Settings> {
    let url = config.broker.url.as_ref()?;
    let file = |file: &Option<OneLine>| file.as_ref().map(|file| file.as_str().into());
    Some(tidewire_broker_redis::Settings {
        ca_file: file(&config.broker.redis_ca_file),
        certificate_file: file(&config.broker.redis_certificate_file),
        key_file: file(&config.broker.redis_key_file),
        prefix: config.broker.prefix.as_str().to_owned(),
        links: config.broker.links,
        publishers: config.broker.publishers,
        publish_timeout: config.broker.publish_timeout,
        wait_replicas: config.broker.wait_replicas,
        wait_timeout: config.broker.wait_timeout,
        after_restart: match config.broker.after_restart {
            AfterRestart::Gap => tidewire_broker_redis::AfterRestart::Gap,
            AfterRestart::Trust => tidewire_broker_redis::AfterRestart::Trust,
        },
        compare_interval: config.broker.compare_interval,
        echo_interval: config.broker.echo_interval,
        echo_timeout: config.broker.echo_timeout,
        message_bytes: config.limits.frame_bytes,
        namespaces: Arc::new(config.namespace_rules()),
        dedupe_ttl: config.broker.dedupe_ttl,
        revision: config.revision.into(),
        ..tidewire_broker_redis::Settings::new(url.expose())
    })
}

fn settings(config: &Config, connections: usize) -> anyhow::Result<Settings> {
    let Config { limits, heartbeat, compression, .. } = config;
    let origins = Origins {
        allowed: config.auth.allowed_origins.iter().map(|one| one.as_str().to_owned()).collect(),
        // Who must log in is not let in by where a page is from.
        loopback: config.listen.is_loopback() && config.auth.is_open(),
        https: config.tls.is_on(),
        direct_only: config.auth.is_open() && config.auth.mode.is_none(),
    };
    let (frames_per_second, bytes_per_second) = config.rates();
    let namespaces = Arc::new(config.namespace_rules());
    let decides = auth::build(config, &namespaces)?;
    let certificates = tls::build(config)?;
    let of_tls = tls::warnings(config, certificates.as_deref());
    for warning in decides.warnings.iter().chain(&of_tls) {
        tracing::warn!("{warning}");
    }
    Ok(Settings {
        lanes: config.lane_count(),
        connections,
        handshakes: limits.handshakes,
        addresses: config.address_limits(),
        connections_per_user: config.or_required(limits.connections_per_user, 100),
        handshakes_per_second: config.address_rate(limits.handshakes_per_second, 100),
        failed_logins_per_minute: config.address_rate(limits.failed_logins_per_minute, 60),
        publishes_per_user: config.or_required(limits.publishes_per_user, 200),
        namespace_publishes: config
            .namespaces
            .iter()
            .filter_map(|(name, namespace)| Some((name.clone(), namespace.publishes_per_second?)))
            .collect(),
        outbox_total: limits.outbox_total,
        frames_per_second,
        bytes_per_second,
        subscriptions_per_session: limits.subscriptions_per_session,
        message_bytes: limits.frame_bytes,
        compress_from: compression.websocket.then_some(compression.threshold),
        outbox: OutboxLimits { bytes: limits.outbox_bytes, messages: limits.outbox_messages },
        publishes_in_flight: limits.publishes_in_flight,
        window_bytes: limits.window_bytes,
        head_timeout: limits.head_timeout,
        body_timeout: limits.body_timeout,
        websocket_heartbeat: heartbeat.websocket,
        pong_timeout: heartbeat.pong,
        sse_heartbeat: heartbeat.sse,
        linger: config.broker.linger,
        drain: config.drain.time,
        tls: certificates,
        origins,
        namespaces,
        authenticator: decides.authenticator,
        policy: Some(decides.policy),
        jwks: decides.jwks,
        login_timeout: config.auth.login_timeout,
        hooks: hooks(config),
        ..Settings::default()
    })
}

fn hooks(config: &Config) -> HookSettings {
    let hooks = &config.hooks;
    let without = config.namespaces.iter().filter(|(_, namespace)| !namespace.hooks);
    HookSettings {
        urls: hooks.urls.each_ref().map(|url| url.as_ref().map(|url| url.as_str().to_owned())),
        without: without.map(|(name, _)| name.clone()).collect(),
        timeout: hooks.timeout,
        concurrency: hooks.concurrency,
        secrets: hooks
            .secret
            .iter()
            .map(|secret| HookSecret::new(secret.expose_secret().as_bytes()))
            .collect(),
    }
}

async fn bind(key: &str, endpoint: &Endpoint) -> anyhow::Result<TcpListener> {
    let address = endpoint.resolve().await.with_context(|| format!("{key} = {endpoint}"))?;
    listen(address).with_context(|| format!("{key} = {endpoint}"))
}

/// As [`TcpListener::bind`], but with a queue that takes a crowd.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port whose old connections are not quite forgotten can be had again at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

//! `tidewire serve`: one node from its start to its end.

use std::io::Write;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tidewire_broker::{Broker, MemoryBroker};
use tidewire_broker_redis::RedisBroker;
use tidewire_gateway::{Gateway, Origins, Settings};
use tidewire_hub::OutboxLimits;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Endpoint};
use crate::{admin, banner, open_files, pages, telemetry};

/// How long requests to the admin listener may take at the end.
const ADMIN_GRACE: Duration = Duration::from_secs(2);

/// Runs a node with this configuration until it is told to stop.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    telemetry::init_logs(&config.log)?;
    let metrics = telemetry::install_metrics()?;
    let files = open_files::raise();
    let connections = config.limits.connections.unwrap_or_else(|| open_files::connections(files));

    let listen = bind("listen", &config.listen).await?;
    let admin = bind("admin", &config.admin).await?;
    let (at, admin_at) = (listen.local_addr()?, admin.local_addr()?);
    let stop = CancellationToken::new();
    tokio::spawn(telemetry::upkeep(metrics.clone(), stop.clone()));

    let settings = settings(&config, connections);
    let gateway = Gateway::start(listen, broker(&config)?, pages::router(), settings)?;
    let drain = Arc::new(Notify::new());
    let router = admin::router(metrics, Arc::new(gateway.readiness()), drain.clone());
    let admin = tokio::spawn(admin::serve(admin, router, stop.clone()));

    let broker =
        config.broker.url.as_ref().map_or_else(|| "embedded".to_owned(), ToString::to_string);
    tracing::info!(listen = %at, admin = %admin_at, broker, files, connections, "serving");
    // Nobody may be there to read it, which is no reason not to serve.
    let _ = std::io::stdout().write_all(banner::banner(at, admin_at, &broker).as_bytes());

    until_told_to_stop(&gateway, &drain).await?;
    gateway.stop().await;
    stop.cancel();
    // An operator's request that does not end does not hold up the end.
    let _ = tokio::time::timeout(ADMIN_GRACE, admin).await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits for the first SIGTERM, SIGINT or `POST /drain`, then until all sessions are gone or a second one comes.
async fn until_told_to_stop(gateway: &Gateway, drain: &Notify) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            () = drain.notified() => "POST /drain",
        }
    };
    let by = told().await;
    tracing::info!(by, sessions = gateway.sessions(), "stopping; a second signal ends it at once");
    tokio::select! {
        () = gateway.drain() => {}
        by = told() => tracing::warn!(by, sessions = gateway.sessions(), "stopping at once"),
    }
    Ok(())
}

fn broker(config: &Config) -> anyhow::Result<Arc<dyn Broker>> {
    let namespaces = Arc::new(config.namespace_rules());
    let Some(url) = &config.broker.url else {
        return Ok(Arc::new(MemoryBroker::new(namespaces, config.broker.dedupe_ttl)));
    };
    let settings = tidewire_broker_redis::Settings {
        prefix: config.broker.prefix.as_str().to_owned(),
        links: config.broker.links,
        publishers: config.broker.publishers,
        publish_timeout: config.broker.publish_timeout,
        echo_interval: config.broker.echo_interval,
        echo_timeout: config.broker.echo_timeout,
        message_bytes: config.limits.frame_bytes,
        namespaces,
        dedupe_ttl: config.broker.dedupe_ttl,
        revision: config.revision.into(),
        ..tidewire_broker_redis::Settings::new(url.expose())
    };
    Ok(Arc::new(RedisBroker::new(settings).context("broker")?))
}

fn settings(config: &Config, connections: usize) -> Settings {
    let Config { limits, heartbeat, .. } = config;
    let origins = Origins {
        allowed: config.auth.allowed_origins.iter().map(|one| one.as_str().to_owned()).collect(),
        loopback: config.listen.is_loopback(),
    };
    let threshold = u32::try_from(config.compression.threshold).ok().and_then(NonZeroU32::new);
    Settings {
        lanes: config.lane_count(),
        connections,
        subscriptions_per_session: limits.subscriptions_per_session,
        message_bytes: limits.frame_bytes,
        compress_from: threshold.filter(|_| config.compression.websocket),
        outbox: OutboxLimits { bytes: limits.outbox_bytes, messages: limits.outbox_messages },
        publishes_in_flight: limits.publishes_in_flight,
        head_timeout: limits.head_timeout,
        body_timeout: limits.body_timeout,
        websocket_heartbeat: heartbeat.websocket,
        pong_timeout: heartbeat.pong,
        sse_heartbeat: heartbeat.sse,
        linger: config.broker.linger,
        drain: config.drain.time,
        origins,
        namespaces: Arc::new(config.namespace_rules()),
        ..Settings::default()
    }
}

async fn bind(key: &str, endpoint: &Endpoint) -> anyhow::Result<TcpListener> {
    let address = endpoint.resolve().await.with_context(|| format!("{key} = {endpoint}"))?;
    TcpListener::bind(address).await.with_context(|| format!("{key} = {endpoint}"))
}

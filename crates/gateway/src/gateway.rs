//! The running gateway: lanes, listener and broker, from start to drain.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use thiserror::Error;
use tidewire_auth::Policy;
use tidewire_broker::{Broker, Vital};
use tidewire_hub::{HubSettings, LaneSettings, Lanes};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::auth::Auth;
use crate::hooks::Hooks;
use crate::jwks::Renewal;
use crate::settings::Settings;
use crate::{http, listen, pressure, sharing};

/// How long after the drain time the last sessions may take.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// How long what is asked in the last moment may take: as long as a publish, by default.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// A gateway that serves clients.
pub struct Gateway {
    app: Arc<App>,
    lanes: Lanes,
    address: SocketAddr,
    accepting: JoinHandle<()>,
    /// What else goes on until the end.
    tasks: Vec<JoinHandle<()>>,
}

/// Why a gateway does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The system gives no thread, event queue or listener.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// The keys that verify tokens cannot be fetched from there.
    #[error("auth.jwt.jwks_url: {0}")]
    Jwks(String),
    /// A hook cannot be asked there.
    #[error("{0}")]
    Hooks(String),
}

impl Gateway {
    /// Starts to serve clients on the listener. `pages` answers what is not under `/v1`.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        listener: TcpListener,
        broker: Arc<dyn Broker>,
        pages: Router,
        settings: Settings,
    ) -> Result<Self, StartError> {
        let address = listener.local_addr()?;
        let hub = HubSettings {
            linger: settings.linger,
            namespaces: settings.namespaces.clone(),
            window: settings.window,
            window_bytes: settings.window_bytes,
        };
        let lane = LaneSettings {
            websocket_heartbeat: whole_seconds(settings.websocket_heartbeat),
            websocket_grace: whole_seconds(settings.pong_timeout),
            sse_heartbeat: whole_seconds(settings.sse_heartbeat),
            // Where compression is not agreed on, nobody asks.
            compress_from: settings.compress_from.unwrap_or(usize::MAX),
        };
        let lanes = Lanes::start(settings.lanes, broker.clone(), hub, lane)?;
        {
            // The broker's links live on a lane's thread: what they read, the lane writes at once.
            let _lane = lanes.handles().first().map(|lane| lane.runtime().enter());
            broker.start(lanes.hub().clone());
        }
        let renewal = settings.jwks.as_ref().map(|jwks| Renewal::new(jwks).map(Arc::new));
        let renewal = renewal.transpose().map_err(StartError::Jwks)?;
        let policy = settings.policy.clone();
        let policy = policy.unwrap_or_else(|| Policy::open(settings.namespaces.clone()));
        let authenticator = settings.authenticator.clone();
        let auth = Auth::new(authenticator.clone(), policy, renewal.clone());
        let (runtime, value_bytes) = (Handle::current(), settings.message_bytes);
        let hooks = Hooks::new(&settings.hooks, &settings.namespaces, value_bytes, runtime);
        let hooks = hooks.map_err(StartError::Hooks)?;
        let app = Arc::new(App::new(settings, lanes.hub().clone(), broker, auth, hooks));
        let renewing = renewal.map(|renewal| {
            tokio::spawn(Vital::task("renewal of keys", renewal.run(authenticator)))
        });
        let bounding = app.settings.outbox_total.map(|most| {
            let keep = pressure::keep(app.clone(), lanes.handles().to_vec(), most);
            tokio::spawn(Vital::task("bound of outboxes", keep))
        });
        let share = sharing::keep(app.clone(), lanes.handles().to_vec());
        let sharing = tokio::spawn(Vital::task("count of users' streams", share));
        let watching = app.settings.tls.clone().map(|certificates| {
            tokio::spawn(Vital::task("watch of certificates", certificates.watch()))
        });
        let router = http::router(&app, pages);
        let accept = listen::accept(listener, app.clone(), lanes.handles().to_vec(), router);
        let hub = lanes.hub().clone();
        let sweep = async move {
            let mut seconds = tokio::time::interval(Duration::from_secs(1));
            loop {
                seconds.tick().await;
                hub.sweep();
            }
        };
        let accepting = tokio::spawn(Vital::task("listener", accept));
        let sweeping = tokio::spawn(Vital::task("hub's sweep", sweep));
        let tasks = [Some(sweeping), Some(sharing), renewing, bounding, watching];
        let tasks = tasks.into_iter().flatten().collect();
        Ok(Self { app, lanes, address, accepting, tasks })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells whether it can do its job now, from any thread; else the reason.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let app = self.app.clone();
        move || {
            if app.is_draining() {
                return Err("this node is stopping".to_owned());
            }
            app.auth.ready()?;
            app.broker.ready()
        }
    }

    /// Stops in an orderly way: new streams are refused, each session is told when to come back,
    /// evenly spread over the drain time, and ended then. Publishes are served meanwhile. Resolves
    /// when no session is left and what was asked is answered, at the latest 5 s after the drain
    /// time.
    pub async fn drain(&self) {
        self.app.begin_drain();
        let time = self.app.settings.drain;
        for lane in self.lanes.handles() {
            lane.run(move |lane| lane.drain(time));
        }
        let done = async {
            self.lanes.empty().await;
            // Who comes now finds another node, before it has sent anything.
            self.accepting.abort();
            self.app.requests.close();
            self.app.http2.close();
            let last = async {
                self.app.requests.wait().await;
                // Each has been told, and said that it has heard.
                self.app.http2.wait().await;
            };
            let _ = tokio::time::timeout(LAST_ANSWERS, last).await;
        };
        // Out of time, the rest is ended with the lanes.
        let _ = tokio::time::timeout(time + DRAIN_GRACE, done).await;
    }

    /// Has the certificate read again, if there is TLS; it does not wait for that. One that cannot be used
    /// is logged, and the old one stays.
    pub fn reload_certificate(&self) {
        if let Some(certificates) = &self.app.settings.tls {
            certificates.reload_soon();
        }
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.lanes.sessions()
    }

    /// Ends everything now: the listener, all connections, the broker.
    pub async fn stop(self) {
        self.accepting.abort();
        for task in &self.tasks {
            task.abort();
        }
        self.app.broker.close().await;
        let lanes = self.lanes;
        // The lanes end within a turn; waiting for their threads must not block this one.
        let _ = tokio::task::spawn_blocking(move || lanes.stop()).await;
    }
}

/// At least one: the sweep passes once a second.
fn whole_seconds(time: Duration) -> usize {
    usize::try_from(time.as_secs()).unwrap_or(usize::MAX).max(1)
}

//! What all parts of a round share: where everything is, what phase it is in, the history.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::history::{History, MessageNo};
use crate::http::{self, CONNECT};
use crate::plan::Plan;

/// How far a round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Faults happen, messages are published, readers come and go.
    Storm,
    /// Nothing happens any more but what was begun; readers stay.
    Calm,
    /// Everybody leaves.
    Over,
}

/// Readers are paused by thirds.
pub(crate) const THIRDS: usize = 3;

/// What all parts share.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) history: History,
    /// Where clients reach each node.
    pub(crate) fronts: Vec<SocketAddr>,
    pub(crate) redis: SocketAddr,
    pub(crate) phase: watch::Sender<Phase>,
    /// The third of the readers that does not read now.
    pub(crate) paused: watch::Sender<Option<usize>>,
    messages: AtomicU64,
    /// Sessions that began lately: some messages are not meant for one of them.
    sessions: Mutex<VecDeque<String>>,
}

/// So many sessions are remembered.
const SESSIONS: usize = 48;

impl Shared {
    pub(crate) fn new(plan: Plan, fronts: Vec<SocketAddr>, redis: SocketAddr) -> Self {
        Self {
            plan,
            history: History::default(),
            fronts,
            redis,
            phase: watch::Sender::new(Phase::Storm),
            paused: watch::Sender::new(None),
            messages: AtomicU64::new(1),
            sessions: Mutex::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The number of a new message.
    pub(crate) fn next_message(&self) -> MessageNo {
        self.messages.fetch_add(1, Ordering::Relaxed)
    }

    /// A session has begun.
    pub(crate) fn met(&self, session: &str) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.truncate(SESSIONS - 1);
        sessions.push_front(session.to_owned());
    }

    /// One of the sessions that began lately.
    pub(crate) fn some_session(&self, rng: &mut fastrand::Rng) -> Option<String> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        rng.choice(sessions.iter()).cloned()
    }

    /// Returns when the phase is this one or a later one.
    pub(crate) async fn reached(&self, phase: Phase) {
        // The sender is in `self`.
        let _ = self.phase.subscribe().wait_for(|now| *now >= phase).await;
    }

    /// Sleeps, unless the round ends before.
    pub(crate) async fn sleep(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.reached(Phase::Over)).await;
    }

    /// A connection to Redis itself, past the links that are broken.
    pub(crate) async fn redis(&self, patience: Duration) -> anyhow::Result<MultiplexedConnection> {
        client(self.redis, patience).await
    }
}

/// A connection to a Redis.
pub(crate) async fn client(
    addr: SocketAddr,
    patience: Duration,
) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://{addr}"))?;
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(patience));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

/// An open WebSocket.
pub(crate) type WebSocket = WebSocketStream<TcpStream>;

/// Opens a WebSocket.
pub(crate) async fn connect(addr: SocketAddr, path: &str) -> anyhow::Result<WebSocket> {
    let request = format!("ws://{addr}{path}").into_client_request()?;
    let open = async {
        let stream = http::connect(addr).await?;
        anyhow::Ok(client_async(request, stream).await?.0)
    };
    tokio::time::timeout(CONNECT + CONNECT, open).await?
}

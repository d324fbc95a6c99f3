//! The Pub/Sub links: each a connection of its own and one task that owns it, mends it for ever,
//! and tells the node what it must know.

mod book;
mod echo;
mod session;
#[cfg(test)]
mod tests;
pub(crate) mod wishes;

use std::io;
use std::sync::Arc;

use metrics::{Gauge, Histogram};
use thiserror::Error;
use tokio::time::{Instant, sleep};

use crate::Shared;
use crate::delivery::Delivery;
use crate::resp::ProtocolError;
use crate::status::{Backoff, Status};
use crate::wire::{self, ConnectError};
use book::{Book, Tell};
use session::Session;
use wishes::Wishes;

/// What others share with a link's task.
pub(crate) struct Link {
    pub(crate) wishes: Wishes,
    pub(crate) status: Status,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self { wishes: Wishes::default(), status: Status::new() }
    }
}

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub(crate) enum Break {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection broke: {0}")]
    Closed(#[from] io::Error),
    #[error("Redis does not answer on the link")]
    Silent,
    #[error("the link does not hear itself")]
    Deaf,
    #[error("nobody hears the link's own name where this node publishes")]
    Elsewhere,
    #[error("the server has become a read-only replica")]
    Replica,
    #[error("the connection is not to the server that answers")]
    OtherServer,
    /// It was a replica for a while; what was published meanwhile went to another master.
    #[error("the server has begun a new replication history")]
    Reborn,
    #[error("Redis counts {counted} subscriptions on the link instead of {due}")]
    Subscriptions { due: usize, counted: i64 },
    #[error("Redis refuses: {0}")]
    Refused(String),
    #[error("the server's answers do not fit: {0}")]
    Confusion(&'static str),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl Break {
    /// For the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Closed(_) => "closed",
            Self::Silent => "silent",
            Self::Deaf | Self::Elsewhere => "echo",
            Self::Replica | Self::OtherServer | Self::Reborn => "server",
            Self::Subscriptions { .. } => "subscriptions",
            Self::Refused(_) => "refused",
            Self::Confusion(_) | Self::Protocol(_) => "protocol",
        }
    }
}

/// A link's task.
pub(crate) struct LinkTask {
    pub(crate) number: usize,
    pub(crate) link: Arc<Link>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) delivery: Delivery,
    metrics: Metrics,
}

struct Metrics {
    up: Gauge,
    subscriptions: Gauge,
    echo: Histogram,
}

impl LinkTask {
    pub(crate) fn new(
        number: usize,
        link: Arc<Link>,
        shared: Arc<Shared>,
        delivery: Delivery,
    ) -> Self {
        let label = number.to_string();
        let metrics = Metrics {
            up: metrics::gauge!("tidewire_broker_link_up", "link" => label.clone()),
            subscriptions: metrics::gauge!("tidewire_broker_subscriptions", "link" => label),
            echo: metrics::histogram!("tidewire_broker_echo_seconds"),
        };
        metrics.up.set(0);
        Self { number, link, shared, delivery, metrics }
    }

    /// Links up again and again; ends only when it is dropped.
    pub(crate) async fn run(self) {
        let mut book = Book::default();
        let mut backoff = Backoff::default();
        let mut down_since = Instant::now();
        let mut reported = false;
        loop {
            let (broken, was_up) = match self.session(&mut book, &mut backoff, down_since).await {
                Ok(never) => match never {},
                Err(broken) => broken,
            };
            book.believed().for_each(|channel| self.delivery.events.broken(channel));
            book.lost();
            self.metrics.up.set(0);
            self.metrics.subscriptions.set(0);
            if was_up {
                down_since = Instant::now();
                reported = false;
                metrics::counter!("tidewire_broker_link_breaks_total", "reason" => broken.label())
                    .increment(1);
            }
            self.report_down(&broken, &mut reported);
            if matches!(broken, Break::Elsewhere | Break::Replica | Break::OtherServer) {
                // The publishers may be where the link was.
                self.shared.publishers.renew();
            }
            sleep(backoff.failed()).await;
        }
    }

    /// One line per break; how the attempts to mend it fail is told by the status.
    fn report_down(&self, broken: &Break, reported: &mut bool) {
        let why = broken.to_string();
        if std::mem::replace(reported, true) {
            tracing::debug!(link = self.number, why, "the link to Redis is still down");
        } else {
            tracing::warn!(link = self.number, why, "the link to Redis is down");
        }
        self.link.status.down(why);
    }

    /// One connection, from its making to its end; the flag tells whether it was up in between.
    async fn session(
        &self,
        book: &mut Book,
        backoff: &mut Backoff,
        down_since: Instant,
    ) -> Result<std::convert::Infallible, (Break, bool)> {
        let Shared { target, settings, .. } = &*self.shared;
        let name = format!("{}-link-{}", settings.prefix, self.number);
        let connected = wire::connect(target, settings, &name).await;
        let (mut wire, hello) = connected.map_err(|error| (error.into(), false))?;
        self.shared.meet(&mut wire, &hello.server).await.map_err(|error| (error.into(), false))?;
        backoff.connected();
        let mut session = Session::new(self, book, wire, hello, down_since);
        let broken = match session.run().await {
            Ok(never) => match never {},
            Err(broken) => broken,
        };
        Err((broken, session.was_up()))
    }

    /// Tells the node.
    fn tell(&self, tell: &mut Vec<Tell>) {
        let events = &self.delivery.events;
        for told in tell.drain(..) {
            match told {
                Tell::Subscribed(channel) => events.subscribed(&channel),
                Tell::Gap(channel) => events.gap(&channel),
                Tell::Refused(channel, reason) => {
                    tracing::warn!(%channel, reason, "Redis refuses a subscription");
                    events.refused(&channel, &reason);
                }
            }
        }
    }
}

//! The broker on Redis (or Valkey): Pub/Sub links that are never deaf, and pipelined publishing.
//!
//! The binary makes one and gives it to the hub. It knows nothing of clients. `docs/redis.md` tells
//! what it puts into Redis and what it asks of it.

mod control;
mod delivery;
mod link;
mod names;
mod publish;
mod resp;
mod server;
mod settings;
mod status;
mod wire;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire_broker::{Broker, Confirmation, Events, Receipt, Vital};
use tidewire_protocol::{Channel, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use control::Control;
use delivery::{Delivery, Refusals};
use link::{Link, LinkTask};
use names::Names;
use publish::{Jobs, PublisherTask, Publishers};
use settings::Target;
use wire::{Answer, ConnectError, Wire};

pub use server::Incarnation;
pub use settings::{Settings, SettingsError};

/// The broker on Redis.
pub struct RedisBroker {
    links: Vec<Arc<Link>>,
    spread: RandomState,
    shared: Arc<Shared>,
    /// What the publishers' tasks read, until they are started.
    jobs: Mutex<Vec<Jobs>>,
    tasks: TaskTracker,
    cancelled: CancellationToken,
}

/// What the tasks share.
pub(crate) struct Shared {
    target: Target,
    settings: Arc<Settings>,
    names: Names,
    control: Control,
    publishers: Publishers,
    incarnation: Mutex<Option<Incarnation>>,
}

impl RedisBroker {
    /// Checks the settings; connects to nothing yet. The metrics' recorder must be installed
    /// before.
    ///
    /// # Errors
    /// Says what cannot work.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let target = Target::new(&settings)?;
        let settings = Arc::new(settings);
        let names = Names::new(&settings.prefix);
        // The pool connects when it is used; it has nothing else to refuse than the URL.
        let control = Control::new(&target, &settings).map_err(|_| SettingsError::Url)?;
        let (publishers, jobs) = Publishers::new(&settings, names.clone());
        let links = (0..settings.links).map(|_| Arc::new(Link::new())).collect();
        let incarnation = Mutex::default();
        let shared = Shared { target, settings, names, control, publishers, incarnation };
        Ok(Self {
            links,
            spread: RandomState::new(),
            shared: Arc::new(shared),
            jobs: Mutex::new(jobs),
            tasks: TaskTracker::new(),
            cancelled: CancellationToken::new(),
        })
    }

    /// Which life of the stored data the links found last; none before the first link is up, and
    /// where Redis lets nothing be written.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        *self.shared.incarnation.lock()
    }

    fn link(&self, channel: &Channel) -> &Link {
        // Which link it is must not change while the process runs, and nobody may guess it.
        &self.links[self.spread.hash_one(channel.as_str()) as usize % self.links.len()]
    }
}

#[async_trait]
impl Broker for RedisBroker {
    /// # Panics
    /// Outside a tokio runtime.
    fn start(&self, events: Arc<dyn Events>) {
        let Shared { target, settings, names, .. } = &*self.shared;
        for (number, jobs) in std::mem::take(&mut *self.jobs.lock()).into_iter().enumerate() {
            let task = PublisherTask::new(number, jobs, target.clone(), settings.clone());
            self.tasks.spawn(Vital::task("publisher", task.run(self.cancelled.clone())));
        }
        let delivery = Delivery {
            names: names.clone(),
            events,
            refusals: Arc::new(Refusals::new()),
            message_bytes: settings.message_bytes,
        };
        for (number, link) in self.links.iter().enumerate() {
            let task = LinkTask::new(number, link.clone(), self.shared.clone(), delivery.clone());
            let cancelled = self.cancelled.clone();
            self.tasks.spawn(async move {
                cancelled.run_until_cancelled(Vital::task("link", task.run())).await;
            });
        }
    }

    fn subscribe(&self, channel: &Channel) -> Confirmation {
        self.link(channel).wishes.note(channel, true);
        Confirmation::Later
    }

    fn unsubscribe(&self, channel: &Channel) {
        self.link(channel).wishes.note(channel, false);
    }

    fn publish(&self, channel: Channel, message: Message) -> Receipt {
        self.shared.publishers.publish(&channel, &message)
    }

    fn ready(&self) -> Result<(), String> {
        for (number, link) in self.links.iter().enumerate() {
            link.status.get().map_err(|why| format!("Pub/Sub link {number}: {why}"))?;
        }
        self.shared.publishers.ready()
    }

    async fn close(&self) {
        self.cancelled.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.shared.control.close();
        for link in &self.links {
            link.status.down("the broker is closed".into());
        }
    }
}

impl Shared {
    /// Makes acquaintance with the server at the other end of a new link: which life of the stored
    /// data this is.
    async fn meet(&self, wire: &mut Wire, server: &server::Server) -> Result<(), ConnectError> {
        let epoch = match self.epoch(wire).await? {
            Ok(epoch) => epoch,
            Err(error) if error.starts_with("LOADING") => {
                return Err(ConnectError::Refused(error));
            }
            Err(error) => {
                // Live channels do without.
                tracing::warn!(error, "the epoch's key in Redis can be neither read nor written");
                *self.incarnation.lock() = None;
                return Ok(());
            }
        };
        let now = Incarnation::new(server, &epoch);
        let before = self.incarnation.lock().replace(now);
        if let Some(before) = before.filter(|&before| before != now) {
            tracing::info!(%before, %now, "the stored data in Redis began a new life");
        }
        Ok(())
    }

    /// The random text under the epoch's key, made if it is not there; or why not.
    async fn epoch(&self, wire: &mut Wire) -> Result<Result<String, String>, ConnectError> {
        let key = self.names.epoch();
        let get: &[&[u8]] = &[b"GET", key.as_bytes()];
        match wire.ask(&[get]).await?.pop() {
            Some(Answer::Text(epoch)) => return Ok(Ok(epoch)),
            Some(Answer::Error(error)) => return Ok(Err(error)),
            _ => {}
        }
        let fresh = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let set: &[&[u8]] = &[b"SET", key.as_bytes(), fresh.as_bytes(), b"NX"];
        let answers = wire.ask(&[set, get]).await?;
        Ok(match <[Answer; 2]>::try_from(answers) {
            Ok([_, Answer::Text(epoch)]) => Ok(epoch),
            Ok([Answer::Error(error), _] | [_, Answer::Error(error)]) => Err(error),
            _ => Err("an unexpected answer".into()),
        })
    }
}

//! The broker on Redis (or Valkey): Pub/Sub links that are never deaf, and pipelined publishing.
//!
//! The binary makes one and gives it to the hub. It knows nothing of clients. `docs/redis.md` tells
//! what it puts into Redis and what it asks of it.

mod compare;
mod control;
mod delivery;
mod history;
mod library;
mod link;
mod names;
mod pool;
mod publish;
mod resp;
mod server;
mod settings;
mod shares;
mod status;
mod stored;
mod stream;
mod tls;
mod wire;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire_broker::{
    Broker, ClaimReceipt, Claims, Confirmation, Events, Publisher, Query, ReadReceipt, Reading,
    Receipt, Vital,
};
use tidewire_protocol::{Channel, Incarnation, Message};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use compare::Compare;
use control::Control;
use delivery::{Delivery, Refusals};
use history::{History, HistoryError};
use library::Library;
use link::{Link, LinkTask};
use names::Names;
use publish::{Jobs, PublisherTask, Publishers};
use settings::Target;
use shares::Shares;
use wire::{Answer, ConnectError, Wire};

pub use settings::{AfterRestart, Settings, SettingsError};

/// How long [`Broker::close`] waits for its tasks.
const CLOSE: Duration = Duration::from_secs(2);

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
    history: History,
    library: Arc<Library>,
    shares: Shares,
    refusals: Arc<Refusals>,
    incarnation: Mutex<Option<Incarnation>>,
    /// The policy by which Redis may evict keys, as it was told last.
    evicting: Mutex<Option<String>>,
}

impl RedisBroker {
    /// Checks the settings; connects to nothing yet. The metrics' recorder must be installed
    /// before. The connections for questions will belong to the runtime that this is called in,
    /// if it is in one, else to that of who asks.
    ///
    /// # Errors
    /// Says what cannot work.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let target = Target::new(&settings)?;
        let settings = Arc::new(settings);
        let names = Names::new(&settings.prefix);
        // The pools connect when they are used.
        let control = Control::new(&target, &settings);
        let history = History::new(&target, &settings, names.clone());
        let library = Arc::new(Library::new(&settings, names.clone()));
        let (publishers, jobs) = Publishers::new(&settings, names.clone(), &library);
        let links = (0..settings.links).map(|_| Arc::new(Link::new())).collect();
        let incarnation = Mutex::default();
        let refusals = Arc::new(Refusals::new());
        let shares = Shares::new(&library);
        let shared = Shared {
            target,
            settings,
            names,
            control,
            publishers,
            history,
            library,
            shares,
            refusals,
            incarnation,
            evicting: Mutex::default(),
        };
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
            refusals: self.shared.refusals.clone(),
            message_bytes: settings.message_bytes,
        };
        let (shared, cancelled) = (self.shared.clone(), self.cancelled.clone());
        self.tasks.spawn(async move {
            let keep = shared.library.keep(&shared.control);
            cancelled.run_until_cancelled(Vital::task("function library", keep)).await;
        });
        let (shared, cancelled) = (self.shared.clone(), self.cancelled.clone());
        self.tasks.spawn(async move {
            let watch = Vital::task("look for eviction", shared.watch_for_eviction());
            cancelled.run_until_cancelled(watch).await;
        });
        let compare = Compare {
            control: self.shared.control.clone(),
            names: names.clone(),
            events: delivery.events.clone(),
            every: settings.compare_interval,
        };
        let cancelled = self.cancelled.clone();
        self.tasks.spawn(async move {
            cancelled.run_until_cancelled(Vital::task("comparison", compare.run())).await;
        });
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

    fn publish(&self, channel: Channel, message: Message, publisher: Publisher) -> Receipt {
        let Shared { publishers, settings, library, .. } = &*self.shared;
        // On a live channel PUBLISH does the same for a third of the cost, also when Redis is full.
        // Where other rules are in force, only the function knows them.
        if library.differs() || settings.namespaces.of(&channel).is_stored() {
            publishers.store(&channel, &message, &publisher)
        } else {
            publishers.live(&channel, &message)
        }
    }

    fn read(&self, channel: &Channel, query: Query) -> ReadReceipt {
        let (shared, channel) = (self.shared.clone(), channel.clone());
        Box::pin(async move { Ok(shared.read(&channel, query).await?) })
    }

    fn claim(&self, claims: Claims) -> Option<ClaimReceipt> {
        let shared = self.shared.clone();
        Some(Box::pin(async move {
            shared.shares.claim(&claims, &shared.control, &shared.library).await
        }))
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
        // Each ends where it next waits; unless its thread does not come to that.
        if timeout(CLOSE, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                "tasks of the broker do not end; it is closed without them"
            );
        }
        self.shared.control.close();
        self.shared.history.close();
        for link in &self.links {
            link.status.down("the broker is closed".into());
        }
    }
}

impl Shared {
    /// Makes acquaintance with the server at the other end of a new link: which life of the stored
    /// data this is, and whether the function library is there.
    async fn meet(&self, wire: &mut Wire, server: &server::Server) -> Result<(), ConnectError> {
        self.know(wire, server).await?;
        self.look_for_eviction(wire).await?;
        // Without it live channels work.
        self.library.ensure(&self.control).await;
        Ok(())
    }

    async fn know(&self, wire: &mut Wire, server: &server::Server) -> Result<(), ConnectError> {
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
        let now = server::incarnation(server, &epoch, self.settings.after_restart);
        let before = self.incarnation.lock().replace(now);
        if let Some(before) = before.filter(|&before| before != now) {
            tracing::info!(%before, %now, "the stored data in Redis began a new life");
        }
        Ok(())
    }

    /// Looks whether Redis may throw away what is stored. `INFO` tells it, which nodes need anyway;
    /// `CONFIG` is often forbidden.
    async fn look_for_eviction(&self, wire: &mut Wire) -> Result<(), ConnectError> {
        let info: &[&[u8]] = &[b"INFO", b"memory"];
        if let Some(Answer::Text(memory)) = wire.ask(&[info]).await?.pop() {
            self.note_eviction(&memory);
        }
        Ok(())
    }

    /// Looks again for ever: the policy may be changed while everything runs.
    async fn watch_for_eviction(&self) {
        loop {
            tokio::time::sleep(self.settings.compare_interval).await;
            // That Redis is away is told by the links.
            if let Ok(Ok(memory)) = timeout(self.control.patience(), self.control.memory()).await {
                self.note_eviction(&memory);
            }
        }
    }

    /// Warns, once for each change, if Redis may throw away what is stored.
    fn note_eviction(&self, memory: &str) {
        let policy = server::evicting(memory).map(str::to_owned);
        metrics::gauge!("tidewire_broker_may_evict").set(if policy.is_some() { 1 } else { 0 });
        let before = std::mem::replace(&mut *self.evicting.lock(), policy.clone());
        if let Some(policy) = policy.filter(|policy| before.as_ref() != Some(policy)) {
            tracing::warn!(
                policy,
                "by its maxmemory-policy Redis may evict stored messages, last ids and messageIds: \
                gaps, and retries that are stored twice; noeviction keeps the promises"
            );
        }
    }

    /// Reads a channel. What was lost with the data is made again, once.
    async fn read(&self, channel: &Channel, query: Query) -> Result<Reading, HistoryError> {
        let outcome = self.history.read(channel, query, &self.refusals).await;
        match &outcome {
            Err(error) if error.is_not_found() => {
                if !self.library.ensure(&self.control).await {
                    return outcome;
                }
            }
            Err(error) if error.is_no_epoch() => self.history.begin_epoch(&fresh_epoch()).await?,
            _ => return outcome,
        }
        self.history.read(channel, query, &self.refusals).await
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
        let fresh = fresh_epoch();
        let set: &[&[u8]] = &[b"SET", key.as_bytes(), fresh.as_bytes(), b"NX"];
        let answers = wire.ask(&[set, get]).await?;
        Ok(match <[Answer; 2]>::try_from(answers) {
            Ok([_, Answer::Text(epoch)]) => Ok(epoch),
            Ok([Answer::Error(error), _] | [_, Answer::Error(error)]) => Err(error),
            _ => Err("an unexpected answer".into()),
        })
    }
}

/// What tells one life of the data from the next.
fn fresh_epoch() -> String {
    format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

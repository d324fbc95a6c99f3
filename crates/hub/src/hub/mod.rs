//! Which lanes want which channel.
//!
//! A table under a few locks, each held for some nanoseconds and never over an `.await`: who
//! publishes or reads from the broker looks a channel up and puts the message into the queue of
//! each lane that has subscribers. The decision to subscribe or unsubscribe at the broker is taken
//! under the same lock, so that wishes reach it in the order in which they were decided.

mod budget;
mod conflate;
mod events;
mod idle;
mod listing;
mod reads;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tidewire_broker::{Broker, Confirmation};
use tidewire_protocol::{Channel, Namespaces, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::inbox::{ChannelKey, Inbox, Op, Ticket};
use crate::metrics::Metrics;
use crate::stored::{Start, StoredChannel};
use crate::window::WindowLimits;
use budget::Budget;
use conflate::{Interval, Intervals};
pub use listing::Listed;

/// Enough that two threads seldom meet; each costs an empty map.
const SHARDS: usize = 64;
/// Channels of a shard that may linger without a subscriber.
const MAX_IDLE: usize = 256;

/// How the hub works.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// How long a channel stays subscribed at the broker after its last subscriber left: page
    /// reloads should not cost two commands.
    pub linger: Duration,
    /// The namespaces' rules.
    pub namespaces: Arc<Namespaces>,
    /// What the window of a channel may hold.
    pub window: WindowLimits,
    /// What all windows together may hold, in bytes.
    pub window_bytes: usize,
}

/// Knows which lanes want which channel.
pub struct Hub {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    next_key: AtomicU64,
    lanes: Box<[Arc<Inbox>]>,
    room: Arc<Notify>,
    broker: Arc<dyn Broker>,
    settings: HubSettings,
    budget: Budget,
    intervals: Intervals,
    pub(crate) metrics: Metrics,
    /// For the reads, which outlast the call that begins them.
    me: Weak<Self>,
    runtime: Handle,
}

#[derive(Default)]
struct Shard {
    channels: HashMap<Channel, Entry>,
    /// Channels that lost their last subscriber, oldest first, each at most once.
    idle: VecDeque<(Instant, Channel)>,
}

struct Entry {
    channel: Channel,
    key: ChannelKey,
    /// The broker has confirmed it.
    confirmed: bool,
    /// Subscriptions that wait for the confirmation.
    waiting: HashSet<(usize, Ticket)>,
    /// How many subscriptions each lane has, waiting ones included; none has 0.
    lanes: SmallVec<[(usize, usize); 2]>,
    idle_since: Option<Instant>,
    /// It stands in the shard's list of idle channels.
    listed_idle: bool,
    /// Its window, on a stored channel.
    stored: Option<Box<StoredChannel>>,
    /// The interval under way, on a live channel that is conflated.
    interval: Option<Box<Interval>>,
    /// What of the budget its window has.
    weighed: usize,
}

impl Hub {
    pub(crate) fn new(
        broker: Arc<dyn Broker>,
        lanes: Box<[Arc<Inbox>]>,
        room: Arc<Notify>,
        settings: HubSettings,
    ) -> Arc<Self> {
        let metrics = Metrics::new(settings.namespaces.names());
        let runtime = Handle::current();
        Arc::new_cyclic(|me| Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            next_key: AtomicU64::new(0),
            lanes,
            room,
            broker,
            budget: Budget::new(settings.window_bytes),
            intervals: Intervals::new(&settings.namespaces, me, &runtime),
            settings,
            metrics,
            me: me.clone(),
            runtime,
        })
    }

    /// Subscribes for a lane; the lane is told [`Op::Start`] when it holds. Gives the channel's
    /// number.
    pub(crate) fn subscribe(
        &self,
        lane: usize,
        ticket: Ticket,
        channel: &Channel,
        start: Start,
    ) -> ChannelKey {
        self.metrics.subscriptions.increment(1);
        let mut shard = self.shard(channel.as_str()).lock();
        let entry = match shard.channels.get_mut(channel) {
            Some(entry) => entry,
            None => {
                let key = ChannelKey(self.next_key.fetch_add(1, Ordering::Relaxed));
                let rules = self.settings.namespaces.of(channel);
                let stored = rules
                    .is_stored()
                    .then(|| StoredChannel::new(channel.clone(), rules, self.settings.window));
                let confirmed = self.broker.subscribe(channel) == Confirmation::Now;
                self.metrics.channels.increment(1);
                let entry = Entry::new(channel.clone(), key, stored.map(Box::new));
                let entry = shard.channels.entry(channel.clone()).or_insert(entry);
                if confirmed {
                    self.confirm(channel, entry);
                }
                entry
            }
        };
        entry.idle_since = None;
        match entry.lanes.iter_mut().find(|(id, _)| *id == lane) {
            Some((_, count)) => *count += 1,
            None => entry.lanes.push((lane, 1)),
        }
        match &mut entry.stored {
            Some(stored) => {
                let mut actions = Vec::new();
                stored.ask(lane, ticket, start, now(), &mut actions);
                self.perform(channel, entry, actions);
            }
            None if entry.confirmed => {
                self.lanes[lane].push(Op::Start(entry.key, ticket, None));
            }
            None => {
                entry.waiting.insert((lane, ticket));
            }
        }
        entry.key
    }

    /// Whether a slow subscriber of the channel loses its oldest messages.
    pub(crate) fn may_drop(&self, channel: &Channel) -> bool {
        self.settings.namespaces.of(channel).may_drop()
    }

    /// Takes a lane's subscription back.
    pub(crate) fn unsubscribe(
        &self,
        lane: usize,
        ticket: Ticket,
        channel: &Channel,
        key: ChannelKey,
    ) {
        let mut guard = self.shard(channel.as_str()).lock();
        let shard = &mut *guard;
        // Another number: the channel was refused, and came anew since.
        let Some(entry) = shard.channels.get_mut(channel).filter(|entry| entry.key == key) else {
            return;
        };
        self.metrics.subscriptions.decrement(1);
        entry.waiting.remove(&(lane, ticket));
        if let Some(stored) = &mut entry.stored {
            stored.cancel(lane, ticket);
        }
        if let Some(at) = entry.lanes.iter().position(|(id, _)| *id == lane) {
            entry.lanes[at].1 -= 1;
            if entry.lanes[at].1 == 0 {
                entry.lanes.swap_remove(at);
            }
        }
        if entry.lanes.is_empty() {
            let now = Instant::now();
            entry.idle_since = Some(now);
            if !std::mem::replace(&mut entry.listed_idle, true) {
                shard.idle.push_back((now, channel.clone()));
            }
            // Whoever comes and goes through many names must not fill the memory with them.
            while shard.idle.len() > MAX_IDLE {
                self.let_go_of_oldest(shard, now);
            }
        }
    }

    fn shard(&self, channel: &str) -> &Mutex<Shard> {
        // A keyed hash: clients choose the names. SHARDS is a power of two.
        &self.shards[self.hasher.hash_one(channel) as usize % SHARDS]
    }

    /// The broker has confirmed the channel: subscriptions that waited for it begin.
    fn confirm(&self, channel: &Channel, entry: &mut Entry) {
        entry.confirmed = true;
        for (lane, ticket) in std::mem::take(&mut entry.waiting) {
            self.lanes[lane].push(Op::Start(entry.key, ticket, None));
        }
        if let Some(stored) = &mut entry.stored {
            let mut actions = Vec::new();
            stored.linked(&mut actions);
            self.perform(channel, entry, actions);
        }
    }

    fn to_lanes(&self, entry: &Entry, op: impl Fn() -> Op) {
        for (lane, _) in &entry.lanes {
            self.lanes[*lane].push(op());
        }
    }
}

/// This machine's clock, in ms since 1970.
fn now() -> u64 {
    Timestamp::now().as_millis()
}

impl Entry {
    fn new(channel: Channel, key: ChannelKey, stored: Option<Box<StoredChannel>>) -> Self {
        Self {
            channel,
            key,
            stored,
            interval: None,
            weighed: 0,
            confirmed: false,
            waiting: HashSet::new(),
            lanes: SmallVec::new(),
            idle_since: None,
            listed_idle: false,
        }
    }
}

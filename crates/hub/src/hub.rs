//! Which lanes want which channel.
//!
//! A table under a few locks, each held for some nanoseconds and never over an `.await`: who
//! publishes or reads from the broker looks a channel up and puts the message into the queue of
//! each lane that has subscribers. The decision to subscribe or unsubscribe at the broker is taken
//! under the same lock, so that wishes reach it in the order in which they were decided.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tidewire_broker::{Broker, Confirmation, Events, Origin, Query, Reading};
use tidewire_protocol::{Channel, Cursor, Message, Namespaces, Timestamp};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::conflate::{Interval, Intervals};
use crate::inbox::{ChannelKey, Inbox, Op, Ticket};
use crate::metrics::Metrics;
use crate::stored::{Action, Start, StoredChannel};
use crate::window::WindowLimits;
use crate::wire::Encoded;

/// Enough that two threads seldom meet; each costs an empty map.
const SHARDS: usize = 64;
/// The first wait after a read that failed, and the longest.
const READ_BACKOFF: Duration = Duration::from_millis(50);
const MAX_READ_BACKOFF: Duration = Duration::from_secs(1);
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
}

/// A channel with subscribers, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name.
    pub channel: Channel,
    /// Its subscriptions on this node.
    pub subscribers: usize,
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

    /// Lets a subscription that has only begun go on from a place.
    pub(crate) fn go_on(
        &self,
        lane: usize,
        ticket: Ticket,
        channel: &Channel,
        key: ChannelKey,
        from: Cursor,
    ) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.get_mut(channel).filter(|entry| entry.key == key) else {
            return;
        };
        if let Some(stored) = &mut entry.stored {
            let mut actions = Vec::new();
            stored.ask(lane, ticket, Start::After(from), now(), &mut actions);
            self.perform(channel, entry, actions);
        }
    }

    fn perform(&self, channel: &Channel, entry: &Entry, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Deliver(message) => {
                    self.to_lanes(entry, || Op::Deliver(entry.key, message.clone()));
                }
                Action::Gap(gap) => self.to_lanes(entry, || Op::Gap(entry.key, Some(gap))),
                Action::Start(lane, ticket, begin) => {
                    self.lanes[lane].push(Op::Start(entry.key, ticket, Some(Box::new(begin))));
                }
                Action::Read(query, number) => self.read(channel, entry.key, query, number),
            }
        }
    }

    /// Reads in the background, again and again until it succeeds or nobody wants it any more.
    fn read(&self, channel: &Channel, key: ChannelKey, query: Query, number: u64) {
        let (me, broker, channel) = (self.me.clone(), self.broker.clone(), channel.clone());
        let read = async move {
            let mut failures = 0;
            loop {
                let result = broker.read(&channel, query).await;
                let Some(hub) = me.upgrade() else { return };
                match result {
                    Ok(reading) => return hub.has_read(&channel, key, number, &reading),
                    Err(error) if hub.awaits(&channel, key, number) => {
                        failures += 1;
                        if failures == 1 {
                            tracing::warn!(%channel, %error, "a stored channel is not read yet");
                        }
                    }
                    Err(_) => return,
                }
                drop(hub);
                let most = READ_BACKOFF.saturating_mul(1 << failures.min(5)).min(MAX_READ_BACKOFF);
                tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
            }
        };
        // It ends with its channel, or with the broker, whose reads then fail and nobody awaits.
        self.runtime.spawn(read);
    }

    fn has_read(&self, channel: &Channel, key: ChannelKey, number: u64, reading: &Reading) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.get_mut(channel).filter(|entry| entry.key == key) else {
            return;
        };
        if let Some(stored) = &mut entry.stored {
            let mut actions = Vec::new();
            stored.has_read(number, reading, now(), &mut actions);
            self.perform(channel, entry, actions);
        }
    }

    fn awaits(&self, channel: &Channel, key: ChannelKey, number: u64) -> bool {
        let shard = self.shard(channel.as_str()).lock();
        let entry = shard.channels.get(channel).filter(|entry| entry.key == key);
        entry.and_then(|entry| entry.stored.as_ref()).is_some_and(|stored| stored.awaits(number))
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

    /// Lets go of channels that lingered long enough; called about once a second.
    pub fn sweep(&self) {
        let Some(before) = Instant::now().checked_sub(self.settings.linger) else { return };
        for shard in &self.shards {
            let mut guard = shard.lock();
            let shard = &mut *guard;
            while shard.idle.front().is_some_and(|(since, _)| *since <= before) {
                self.let_go_of_oldest(shard, before);
            }
            if shard.channels.capacity() > 4 * shard.channels.len().max(64) {
                shard.channels.shrink_to_fit();
                shard.idle.shrink_to_fit();
            }
        }
    }

    /// Lets go of the channel at the head of the idle ones, if it has had no subscriber since.
    fn let_go_of_oldest(&self, shard: &mut Shard, before: Instant) {
        let Some((_, channel)) = shard.idle.pop_front() else { return };
        let Some(entry) = shard.channels.get_mut(&channel) else { return };
        entry.listed_idle = false;
        match entry.idle_since {
            Some(since) if since <= before => {
                shard.channels.remove(&channel);
                self.broker.unsubscribe(&channel);
                self.metrics.channels.decrement(1);
            }
            // It had subscribers in between.
            Some(since) => {
                entry.listed_idle = true;
                shard.idle.push_back((since, channel));
            }
            None => {}
        }
    }

    /// The channels of this node that have subscribers and begin with `prefix`, by name: the first
    /// `limit` after `after`.
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> Vec<Listed> {
        // The first ones by name; the largest of them on top, to be replaced by smaller ones.
        let mut found = BinaryHeap::new();
        for shard in &self.shards {
            let shard = shard.lock();
            for (channel, entry) in &shard.channels {
                let name = channel.as_str();
                if name.starts_with(prefix) && name > after && !entry.lanes.is_empty() {
                    let subscribers = entry.lanes.iter().map(|(_, count)| count).sum();
                    found.push(Listed { channel: channel.clone(), subscribers });
                    if found.len() > limit {
                        found.pop();
                    }
                }
            }
        }
        found.into_sorted_vec()
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

    /// Delivers a message of a live channel, now or at the end of its interval.
    fn live(&self, namespace: usize, entry: &mut Entry, message: Arc<Encoded>) {
        if !self.intervals.has(namespace) {
            return self.to_lanes(entry, || Op::Deliver(entry.key, message.clone()));
        }
        let Some(interval) = &mut entry.interval else {
            entry.interval = Some(Box::default());
            self.intervals.begin(namespace, &entry.channel, entry.key);
            return self.to_lanes(entry, || Op::Deliver(entry.key, message.clone()));
        };
        if interval.put(message) {
            self.metrics.superseded[namespace].increment(1);
        }
        if interval.is_full() {
            self.flush(entry);
        }
    }

    /// A channel's interval is over. With something to deliver, the next one begins.
    pub(crate) fn interval_ends(&self, channel: &Channel, key: ChannelKey) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.get_mut(channel).filter(|entry| entry.key == key) else {
            return;
        };
        if self.flush(entry) {
            self.intervals.begin(self.settings.namespaces.index(channel), channel, key);
        } else {
            entry.interval = None;
        }
    }

    /// Delivers what waits in the channel's interval; false if nothing does.
    fn flush(&self, entry: &mut Entry) -> bool {
        let waiting = entry.interval.as_mut().map(|it| it.take()).unwrap_or_default();
        for message in &waiting {
            self.to_lanes(entry, || Op::Deliver(entry.key, message.clone()));
        }
        !waiting.is_empty()
    }

    fn to_lanes(&self, entry: &Entry, op: impl Fn() -> Op) {
        for (lane, _) in &entry.lanes {
            self.lanes[*lane].push(op());
        }
    }

    fn log(&self, channel: &Channel, message: &Message) {
        tracing::info!(
            target: "tidewire::messages",
            %channel,
            event = message.event.as_str(),
            message_id = message.message_id.as_ref().map(tidewire_protocol::MessageId::as_str),
            bytes = message.payload.len(),
            "message"
        );
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
            confirmed: false,
            waiting: HashSet::new(),
            lanes: SmallVec::new(),
            idle_since: None,
            listed_idle: false,
        }
    }
}

#[async_trait]
impl Events for Hub {
    fn subscribed(&self, channel: &Channel) {
        let mut shard = self.shard(channel.as_str()).lock();
        if let Some(entry) = shard.channels.get_mut(channel) {
            self.confirm(channel, entry);
        }
    }

    fn refused(&self, channel: &Channel, reason: &str) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.remove(channel) else { return };
        tracing::warn!(%channel, reason, "the broker refuses a channel");
        self.metrics.channels.decrement(1);
        let subscriptions: usize = entry.lanes.iter().map(|(_, count)| count).sum();
        self.metrics.subscriptions.decrement(subscriptions as f64);
        self.to_lanes(&entry, || Op::Refuse(entry.key));
    }

    fn message(&self, channel: &str, message: Message, origin: Origin) {
        self.metrics.received.increment(1);
        let mut shard = self.shard(channel).lock();
        let Some(entry) = shard.channels.get_mut(channel) else { return };
        let channel = &entry.channel.clone();
        let namespace = self.settings.namespaces.index(channel);
        if origin == Origin::Direct {
            self.metrics.direct[namespace].increment(1);
        }
        if self.settings.namespaces.rules(namespace).log {
            self.log(channel, &message);
        }
        let is_stored = message.stored.is_some();
        let message = Arc::new(Encoded::new(channel.clone(), message));
        if !is_stored && entry.stored.is_none() {
            return self.live(namespace, entry, message);
        }
        // What comes with a place is handled as stored, whatever this node's rules say.
        let rules = self.settings.namespaces.rules(namespace);
        let new = || Box::new(StoredChannel::new(channel.clone(), rules, self.settings.window));
        let mut actions = Vec::new();
        let stored = entry.stored.get_or_insert_with(|| {
            let mut stored = new();
            stored.linked(&mut actions);
            stored
        });
        stored.announced(message, &mut actions);
        self.perform(channel, entry, actions);
    }

    fn broken(&self, channel: &Channel) {
        let mut shard = self.shard(channel.as_str()).lock();
        if let Some(entry) = shard.channels.get_mut(channel) {
            entry.confirmed = false;
            if let Some(stored) = &mut entry.stored {
                stored.broken();
            }
        }
    }

    fn gap(&self, channel: &Channel) {
        let mut shard = self.shard(channel.as_str()).lock();
        if let Some(entry) = shard.channels.get_mut(channel) {
            if entry.stored.is_none() {
                self.flush(entry);
                self.to_lanes(entry, || Op::Gap(entry.key, None));
            }
            // Who came while the link was down begins behind the gap, and misses nothing. A stored
            // channel is read, and tells of a gap only if there is one.
            self.confirm(channel, entry);
        }
    }

    fn has_room(&self) -> bool {
        self.lanes.iter().all(|lane| lane.has_room())
    }

    async fn room(&self) {
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            // Registers before looking, so that room made in between is not missed.
            freed.as_mut().enable();
            if self.has_room() {
                return;
            }
            freed.await;
        }
    }
}

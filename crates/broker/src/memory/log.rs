//! What the embedded broker keeps: messages, last ids, messageIds. All of it is bounded and goes
//! with the process.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_protocol::{
    Channel, EntryId, Incarnation, Message, MessageId, Namespaces, Payload, Stored, Timestamp,
};

use crate::reading::{FIRST_PLACE_MS, id_of};
use crate::{PublishError, Published, Publisher, Query, Reading};

/// The most messageIds that are remembered. Beyond, the oldest are forgotten early.
const MAX_REMEMBERED: usize = 1_000_000;
/// The most channels whose last id is known. Beyond, those without messages are forgotten; who
/// comes back to one is told of a gap.
const MAX_CHANNELS: usize = 1_000_000;

/// All that is kept.
pub(super) struct Logs {
    namespaces: Arc<Namespaces>,
    incarnation: Incarnation,
    channels: HashMap<Channel, Log>,
    remembered: HashMap<Key, Remembered>,
    /// In the order in which they are forgotten.
    forgetting: VecDeque<(Instant, Key)>,
    dedupe: Duration,
    /// Channels that were forgotten for want of room.
    evicted: u64,
    /// Hashes bodies: only within this process.
    hasher: RandomState,
}

struct Log {
    entries: VecDeque<Message>,
    top: EntryId,
    /// When the messages go.
    expires: Instant,
    /// When the last id goes.
    forgotten: Instant,
}

type Key = (Channel, Publisher, MessageId);

struct Remembered {
    body: u64,
    id: EntryId,
}

impl Logs {
    pub(super) fn new(namespaces: Arc<Namespaces>, dedupe: Duration) -> Self {
        let hasher = RandomState::new();
        Self {
            namespaces,
            incarnation: Incarnation::new(hasher.hash_one(Instant::now())),
            channels: HashMap::new(),
            remembered: HashMap::new(),
            forgetting: VecDeque::new(),
            dedupe,
            evicted: 0,
            hasher,
        }
    }

    /// Keeps a message, and says in it where it stands. On a live channel nothing is kept.
    pub(super) fn append(
        &mut self,
        channel: &Channel,
        message: &mut Message,
        publisher: &Publisher,
    ) -> Result<Published, PublishError> {
        let rules = self.namespaces.of(channel);
        message.stored = None;
        if !rules.is_stored() {
            return Ok(Published::default());
        }
        let (size, ttl) = (rules.history_size, rules.history_ttl);
        let body = self.hasher.hash_one(body_of(message));
        let key = message.message_id.clone().map(|id| (channel.clone(), publisher.clone(), id));
        if let Some(known) = key.as_ref().and_then(|key| self.remembered.get(key)) {
            if known.body != body {
                return Err(PublishError::Conflict);
            }
            return Ok(Published { place: Some((self.incarnation, known.id)), duplicate: true });
        }
        let now = Instant::now();
        let log = self.channels.entry(channel.clone()).or_insert_with(|| Log::new(now));
        let id = log.push(message, self.incarnation, size);
        log.expires = now + ttl;
        log.forgotten = now + Duration::from_millis(FIRST_PLACE_MS).max(ttl * 2);
        if let Some(key) = key {
            self.remembered.insert(key.clone(), Remembered { body, id });
            self.forgetting.push_back((now + self.dedupe, key));
            if self.forgetting.len() > MAX_REMEMBERED {
                self.forget_oldest();
            }
        }
        Ok(Published { place: Some((self.incarnation, id)), duplicate: false })
    }

    pub(super) fn read(&self, channel: &Channel, query: Query) -> Reading {
        let log = self.channels.get(channel);
        let now = Instant::now();
        let kept = log.filter(|log| log.expires > now).map(|log| &log.entries);
        let within = |entry: &&Message| {
            let id = id_of(entry);
            query.after.is_none_or(|after| id > Some(after))
                && query.before.is_none_or(|before| id < Some(before))
        };
        let all = kept.into_iter().flatten().filter(within);
        let mut room = Room { bytes: query.bytes, is_cut: false };
        let entries = if query.newest {
            let mut last: Vec<_> =
                all.rev().take(query.limit).take_while(|entry| room.has(entry)).cloned().collect();
            last.reverse();
            last
        } else {
            all.take(query.limit).take_while(|entry| room.has(entry)).cloned().collect()
        };
        Reading {
            incarnation: self.incarnation,
            top: log.map(|log| log.top),
            evicted: self.evicted,
            now: Timestamp::now().as_millis(),
            entries,
            is_cut: room.is_cut,
        }
    }

    /// Throws away what has expired.
    pub(super) fn sweep(&mut self) {
        let now = Instant::now();
        while self.forgetting.front().is_some_and(|(when, _)| *when <= now) {
            self.forget_oldest();
        }
        self.channels.retain(|_, log| {
            if log.expires <= now {
                log.entries = VecDeque::new();
            }
            log.forgotten > now
        });
        let over = self.channels.len().saturating_sub(MAX_CHANNELS);
        if over > 0 {
            let idle = self.channels.iter().filter(|(_, log)| log.entries.is_empty());
            let idle: Vec<_> = idle.take(over).map(|(channel, _)| channel.clone()).collect();
            for channel in idle {
                self.channels.remove(&channel);
                self.evicted += 1;
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.forgetting.pop_front() {
            self.remembered.remove(&key);
        }
    }
}

/// What is left of the bytes of a reading.
struct Room {
    bytes: Option<usize>,
    is_cut: bool,
}

impl Room {
    /// Whether one more entry is taken: also the first that does not fit.
    fn has(&mut self, entry: &Message) -> bool {
        let Some(left) = self.bytes else { return true };
        if self.is_cut {
            return false;
        }
        let rest = left.checked_sub(entry.payload.len());
        (self.bytes, self.is_cut) = (Some(rest.unwrap_or(0)), rest.is_none());
        true
    }
}

impl Log {
    fn new(now: Instant) -> Self {
        Self { entries: VecDeque::new(), top: EntryId::default(), expires: now, forgotten: now }
    }

    /// Appends with an id above the last one, whatever the clock does.
    fn push(&mut self, message: &mut Message, incarnation: Incarnation, size: usize) -> EntryId {
        let now = EntryId { ms: Timestamp::now().as_millis(), seq: 0 };
        let first = self.top == EntryId::default();
        let id = if now > self.top { now } else { EntryId { seq: self.top.seq + 1, ..self.top } };
        let prev = (!first).then_some(self.top);
        message.stored = Some(Stored { incarnation, id, prev });
        message.timestamp = Timestamp::from_millis(id.ms);
        self.top = id;
        if self.expires <= Instant::now() {
            self.entries.clear();
        }
        self.entries.push_back(message.clone());
        while self.entries.len() > size {
            self.entries.pop_front();
        }
        id
    }
}

/// What makes a body the same: not when it was sent or by which session.
fn body_of(message: &Message) -> (&str, bool, &[u8]) {
    let (binary, bytes) = match &message.payload {
        Payload::Json(bytes) => (false, bytes),
        Payload::Binary(bytes) => (true, bytes),
    };
    (message.event.as_str(), binary, bytes)
}

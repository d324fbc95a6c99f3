//! The window: the stretch of a stored channel that this node holds in memory.
//!
//! Pure: it is told what Redis announced and what a read showed, and says what follows. The hub
//! drives it under the channel's lock; the model test drives it through everything that can happen.
//!
//! Its messages are linked without a hole, from the place `base` before the first to the place
//! `last` of the last. A window proves that one can go on from a place; it never proves a gap.

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_broker::Reading;
use tidewire_protocol::{Channel, Cursor, EntryId, Incarnation, Message, Stored};

use crate::wire::Encoded;

/// What a window may hold.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of payload.
    pub bytes: usize,
}

/// What a message costs besides its payload, about: itself, its name and its place in the window.
const MESSAGE_OVERHEAD: usize = 768;

/// The stretch.
#[derive(Debug)]
pub struct Window {
    channel: Channel,
    incarnation: Incarnation,
    base: Cursor,
    last: Cursor,
    messages: VecDeque<Arc<Encoded>>,
    bytes: usize,
    limits: WindowLimits,
    /// Nothing older is kept anywhere.
    complete: bool,
}

/// What became of a message that was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It is the next one.
    Appended,
    /// It was here before.
    Known,
    /// It is not the next one: something was missed, or the data began a new life. A read decides.
    Unlinked,
}

/// What a read has brought.
#[derive(Debug)]
pub struct Repaired {
    /// Something is missing: the place from which, and the place from which it goes on.
    pub gap: Option<Gap>,
    /// What follows, in order.
    pub fresh: Vec<Arc<Encoded>>,
}

/// A hole that cannot be filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// The last place before it; none where there was no place.
    pub after: Option<Cursor>,
    /// The place from which it goes on.
    pub cursor: Option<Cursor>,
}

impl Window {
    /// A window over the end of what a read shows.
    #[must_use]
    pub fn load(channel: &Channel, reading: &Reading, asked: usize, limits: WindowLimits) -> Self {
        let present = reading.cursor(channel, reading.present());
        let mut window = Self {
            channel: channel.clone(),
            incarnation: reading.incarnation,
            base: present,
            last: present,
            messages: VecDeque::new(),
            bytes: 0,
            limits,
            complete: reading.entries.len() < asked,
        };
        let chain = last_chain(&reading.entries);
        window.complete &= chain.len() == reading.entries.len();
        window.start_before(chain, reading);
        for message in chain {
            window.push(Arc::new(Encoded::new(channel.clone(), message.clone())));
        }
        window
    }

    /// A window that begins with this message, whose places nobody had asked for.
    #[must_use]
    pub fn begin_with(message: &Arc<Encoded>, stored: Stored, limits: WindowLimits) -> Self {
        let channel = &message.channel;
        let before = stored.prev.unwrap_or(EntryId::before_first(stored.id.ms));
        let base = Cursor::new(channel, stored.incarnation, before);
        let mut window = Self {
            channel: channel.clone(),
            incarnation: stored.incarnation,
            base,
            last: base,
            messages: VecDeque::new(),
            bytes: 0,
            limits,
            complete: false,
        };
        window.push(message.clone());
        window
    }

    /// The place of the last message: whoever begins now begins here.
    #[must_use]
    pub const fn last(&self) -> Cursor {
        self.last
    }

    /// What it holds in memory, in bytes, about: payloads count twice, because most are also there in
    /// a form that clients get.
    #[must_use]
    pub fn weight(&self) -> usize {
        2 * self.bytes + MESSAGE_OVERHEAD * self.messages.len()
    }

    /// Lets go of the oldest messages until it weighs no more than this.
    pub fn trim(&mut self, weight: usize) {
        while self.weight() > weight && self.drop_first() {}
        if self.messages.capacity() > 4 * self.messages.len() {
            self.messages.shrink_to_fit();
        }
    }

    /// The life of the data that it belongs to.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Takes a message that was announced.
    pub fn offer(&mut self, message: &Arc<Encoded>) -> Offered {
        let Some(stored) = message.message.stored else { return Offered::Unlinked };
        if stored.incarnation != self.incarnation {
            return Offered::Unlinked;
        }
        if stored.id <= self.last.id {
            return Offered::Known;
        }
        // A first message after a place before the first goes through a read: only that knows
        // whether the channel was forgotten in between.
        if stored.prev != Some(self.last.id) {
            return Offered::Unlinked;
        }
        self.push(message.clone());
        Offered::Appended
    }

    /// Takes in a read that was begun after all that is here, asked for with `after` at or below
    /// the last place, and reaching the end of the channel.
    pub fn repair(&mut self, reading: &Reading) -> Repaired {
        use tidewire_broker::Verdict;
        let (goes_on, from) = match reading.judge(self.last) {
            Verdict::GoesOn(from) => (true, from),
            Verdict::Gap(from) => (false, from),
        };
        if goes_on {
            self.incarnation = reading.incarnation;
            let fresh = self.append(&reading.entries[from..]);
            return Repaired { gap: None, fresh };
        }
        let after = self.last;
        let chain = last_chain(&reading.entries[from..]);
        *self = Self {
            base: reading.cursor(&self.channel, reading.present()),
            last: reading.cursor(&self.channel, reading.present()),
            channel: self.channel.clone(),
            incarnation: reading.incarnation,
            messages: VecDeque::new(),
            bytes: 0,
            limits: self.limits,
            complete: false,
        };
        self.start_before(chain, reading);
        let cursor = self.base;
        let fresh = self.append(chain);
        Repaired { gap: Some(Gap { after: Some(after), cursor: Some(cursor) }), fresh }
    }

    /// The messages after a place, if this window proves that nothing else lies between.
    #[must_use]
    pub fn after(&self, cursor: Cursor) -> Option<impl Iterator<Item = &Arc<Encoded>>> {
        if cursor.channel != self.last.channel {
            return None;
        }
        let from = if cursor == self.last {
            self.messages.len()
        } else if cursor == self.base {
            0
        } else {
            let at = self.messages.partition_point(|message| id_of(message) < cursor.id);
            let held = self.messages.get(at)?;
            if id_of(held) != cursor.id || cursor.life != self.incarnation.tag() {
                return None;
            }
            at + 1
        };
        Some(self.messages.range(from..))
    }

    /// The messages that it holds with an id above this one.
    pub fn above(&self, id: EntryId) -> impl Iterator<Item = &Arc<Encoded>> {
        let from = self.messages.partition_point(|message| id_of(message) <= id);
        self.messages.range(from..)
    }

    /// The place before the first message that it holds.
    #[must_use]
    pub const fn base(&self) -> Cursor {
        self.base
    }

    /// The place before the last `count` messages, or those not older than `since` (ms since
    /// 1970); none if they may reach beyond what it holds.
    #[must_use]
    pub fn rewind(&self, count: usize, since: u64) -> Option<Cursor> {
        let young = self.messages.partition_point(|message| id_of(message).ms < since);
        let from = young.max(self.messages.len().saturating_sub(count));
        if from == 0 && self.messages.len() < count && !self.complete {
            return None;
        }
        Some(if from == 0 { self.base } else { self.place(&self.messages[from - 1]) })
    }

    fn place(&self, message: &Encoded) -> Cursor {
        Cursor::new(&self.channel, self.incarnation, id_of(message))
    }

    /// Sets the base before the first of these messages; without any it stays at the end.
    fn start_before(&mut self, chain: &[Message], reading: &Reading) {
        if let Some(first) = chain.first().and_then(|message| message.stored) {
            let before = first.prev.unwrap_or(EntryId::before_first(reading.now));
            self.base = reading.cursor(&self.channel, before);
            self.last = self.base;
        }
    }

    fn append(&mut self, messages: &[Message]) -> Vec<Arc<Encoded>> {
        let encode = |message: &Message| {
            let message = Arc::new(Encoded::new(self.channel.clone(), message.clone()));
            self.push(message.clone());
            message
        };
        messages.iter().map(encode).collect()
    }

    fn push(&mut self, message: Arc<Encoded>) {
        self.last = self.place(&message);
        self.bytes += message.message.payload.len();
        self.messages.push_back(message);
        while self.messages.len() > self.limits.messages || self.bytes > self.limits.bytes {
            self.drop_first();
        }
    }

    /// Lets go of the oldest message; false without one.
    fn drop_first(&mut self) -> bool {
        let Some(first) = self.messages.pop_front() else { return false };
        self.bytes -= first.message.payload.len();
        self.base = self.place(&first);
        self.complete = false;
        true
    }
}

fn id_of(message: &Encoded) -> EntryId {
    message.message.stored.map(|stored| stored.id).unwrap_or_default()
}

/// The longest end of the entries in which each names its predecessor.
pub(crate) fn last_chain(entries: &[Message]) -> &[Message] {
    let linked = |two: &[Message]| match (two[0].stored, two[1].stored) {
        (Some(one), Some(next)) => next.prev == Some(one.id),
        _ => false,
    };
    let from = entries.windows(2).rposition(|two| !linked(two)).map_or(0, |at| at + 1);
    &entries[from..]
}

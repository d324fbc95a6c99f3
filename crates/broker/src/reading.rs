//! What a stored channel keeps, as one atomic read shows it, and the rule that decides whether
//! one can go on from a place.

use thiserror::Error;
use tidewire_protocol::{Channel, Cursor, EntryId, Incarnation, Message};

/// What to read: entries between two places, both exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// Only those after it.
    pub after: Option<EntryId>,
    /// Only those before it.
    pub before: Option<EntryId>,
    /// At most so many, at least 1.
    pub limit: usize,
    /// The last so many of them, not the first.
    pub newest: bool,
    /// No more than so many bytes, and the entry with which they become more: a page of history need not
    /// be held whole where the entries are large. Absent: the count alone bounds it.
    pub bytes: Option<usize>,
}

impl Query {
    /// The first so many after a place.
    #[must_use]
    pub const fn after(id: EntryId, limit: usize) -> Self {
        Self { after: Some(id), before: None, limit, newest: false, bytes: None }
    }

    /// The last so many.
    #[must_use]
    pub const fn newest(limit: usize) -> Self {
        Self { after: None, before: None, limit, newest: true, bytes: None }
    }
}

/// What one read shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The life of the data.
    pub incarnation: Incarnation,
    /// The id of the channel's last message, as long as it is known: it outlives the messages.
    pub top: Option<EntryId>,
    /// Keys that the broker has thrown away for want of memory, so far; or another number that
    /// changes with them, and whenever they cannot be known to be the same.
    pub evicted: u64,
    /// The broker's time, in ms since 1970.
    pub now: u64,
    /// The entries, oldest first; each has [`Message::stored`].
    pub entries: Vec<Message>,
    /// Others were left out because of [`Query::bytes`]; there may be none.
    pub is_cut: bool,
}

/// Why there is no reading.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the history cannot be read: {0}")]
pub struct ReadError(pub String);

/// Whether one can go on from a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing lies between the place and the first entry after it (the one with this index in
    /// [`Reading::entries`]; their number if there is none).
    GoesOn(usize),
    /// Something does, or it cannot be known. The entries from this index on are what is kept
    /// after the place; none of them is, in another life of the data.
    Gap(usize),
}

/// The longest time for which a place before a channel's first message is good: the shortest that
/// the last id is kept, 30 days.
pub const FIRST_PLACE_MS: u64 = 30 * 24 * 3_600 * 1_000;

impl Reading {
    /// The rule of the contract. Holds only for a reading that was asked for with `after` at or
    /// below the place and reaches it.
    #[must_use]
    pub fn judge(&self, cursor: Cursor) -> Verdict {
        if !self.is_same_life(cursor) {
            return Verdict::Gap(self.entries.len());
        }
        let from = self.entries.partition_point(|entry| id_of(entry) <= Some(cursor.id));
        let after = &self.entries[from..];
        let whole = match after.first().and_then(|entry| entry.stored) {
            Some(first) if cursor.id.is_before_first() => {
                first.prev.is_none() && self.is_young(cursor.id)
            }
            Some(first) => first.prev == Some(cursor.id),
            None if cursor.id.is_before_first() => self.top.is_none() && self.is_young(cursor.id),
            None => self.top == Some(cursor.id),
        };
        let linked = after.windows(2).all(|two| follows(&two[0], &two[1]));
        if whole && linked { Verdict::GoesOn(from) } else { Verdict::Gap(from) }
    }

    /// The place at the end of the channel.
    #[must_use]
    pub fn present(&self) -> EntryId {
        let last = self.entries.last().and_then(id_of);
        self.top.max(last).unwrap_or(EntryId::before_first(self.now))
    }

    /// A place in the channel, as a client holds it.
    #[must_use]
    pub fn cursor(&self, channel: &Channel, id: EntryId) -> Cursor {
        let mut cursor = Cursor::new(channel, self.incarnation, id);
        if id.is_before_first() {
            cursor.life = self.first_life();
        }
        cursor
    }

    /// Whether a place is of the life of the data that the read shows.
    #[must_use]
    pub fn is_same_life(&self, cursor: Cursor) -> bool {
        let life =
            if cursor.id.is_before_first() { self.first_life() } else { self.incarnation.tag() };
        cursor.life == life
    }

    /// In a place before the first message the tag holds the evicted keys, too: a last id that was
    /// thrown away would look like a channel that never was.
    fn first_life(&self) -> u32 {
        self.incarnation.tag() ^ (self.evicted as u32 & 0x00ff_ffff)
    }

    fn is_young(&self, place: EntryId) -> bool {
        self.now.saturating_sub(place.seq) < FIRST_PLACE_MS
    }
}

/// The entry's id.
pub(crate) fn id_of(entry: &Message) -> Option<EntryId> {
    entry.stored.map(|stored| stored.id)
}

fn follows(one: &Message, next: &Message) -> bool {
    match (one.stored, next.stored) {
        (Some(one), Some(next)) => next.prev == Some(one.id),
        _ => false,
    }
}

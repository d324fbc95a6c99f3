//! The history of a round: everything that anybody did or saw, in the order in which it was told.
//!
//! Publishers, readers, the witness and the faults write it; the check reads it. It knows nothing
//! about what is allowed.

use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tidewire_protocol::{Cursor, EntryId};

use crate::plan::{ChannelNo, Plan};
use crate::schedule::Kind;

/// A message's number: its identity in the round, in its payload and its messageId.
pub(crate) type MessageNo = u64;
/// A reader's number.
pub(crate) type ReaderNo = usize;

/// How something is published or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Via {
    Http,
    WebSocket,
    Function,
    Sse,
    Poll,
}

impl Via {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "websocket",
            Self::Function => "fcall",
            Self::Sse => "sse",
            Self::Poll => "poll",
        }
    }
}

/// An entry of a stream, as the witness saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: EntryId,
    pub(crate) prev: Option<EntryId>,
    pub(crate) message: Option<MessageNo>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A fault begins, or ends.
    Fault { kind: Kind, node: usize, begins: bool },
    /// Something is wrong in itself, whatever else happened.
    Flaw { what: String },
    /// A message is about to be sent, for the how-manieth time.
    Attempt {
        message: MessageNo,
        channel: ChannelNo,
        publisher: usize,
        via: Via,
        attempt: u32,
        /// The session that shall not get it.
        exclude: Option<String>,
    },
    /// A publish was acknowledged.
    Ack { message: MessageNo, channel: ChannelNo, cursor: Option<Cursor>, duplicate: bool },
    /// A publish was not: `certain` if the answer says that it is not stored.
    Refused { message: MessageNo, channel: ChannelNo, certain: bool, why: String },
    /// A reader's session begins.
    Open { reader: ReaderNo, via: Via, node: usize },
    /// The session's id.
    Welcome { reader: ReaderNo, session: String },
    /// The session ends.
    Close { reader: ReaderNo, why: String },
    /// The session was asked for with an id that nobody can read.
    Garbage { reader: ReaderNo },
    /// A subscription begins.
    Start {
        reader: ReaderNo,
        channel: ChannelNo,
        asked: Option<Cursor>,
        place: Option<Cursor>,
        recovered: Option<bool>,
    },
    /// A subscription ends; its session goes on.
    Stop { reader: ReaderNo, channel: ChannelNo },
    /// A message was delivered.
    Message {
        reader: ReaderNo,
        channel: ChannelNo,
        place: Option<Cursor>,
        message: Option<MessageNo>,
    },
    /// A gap was told.
    Gap { reader: ReaderNo, channel: ChannelNo, after: Option<Cursor>, place: Option<Cursor> },
    /// The place moved without a message.
    Position { reader: ReaderNo, channel: ChannelNo, place: Cursor },
    /// The witness looked at a stored channel: the entries since its last look.
    Scan {
        channel: ChannelNo,
        /// When the look began, in ms since 1970.
        began: u64,
        life: u32,
        /// Entries may have been trimmed since the last look without being seen.
        hole: bool,
        entries: Vec<Entry>,
    },
    /// Redis has died, and this is what the replica has that takes its place, of a life: the ids on
    /// a stored channel.
    Heir { channel: ChannelNo, life: u32, entries: Vec<EntryId> },
    /// The last messages of all, which every reader must see or be told of.
    Final { channel: ChannelNo, message: MessageNo, cursor: Option<Cursor> },
}

/// An event and when it was told, in ms since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) at: u64,
    pub(crate) event: Event,
}

/// Where everybody writes.
#[derive(Default)]
pub(crate) struct History {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    records: Vec<Record>,
    /// The last message that each reader saw on each channel.
    seen: HashMap<(ReaderNo, ChannelNo), MessageNo>,
    /// Where each reader is on each stored channel.
    places: HashMap<(ReaderNo, ChannelNo), Cursor>,
}

/// Milliseconds since 1970, as Redis on this machine counts them.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl History {
    pub(crate) fn tell(&self, event: Event) {
        let mut inner = self.lock();
        if let Event::Message { reader, channel, message: Some(message), .. } = &event {
            inner.seen.insert((*reader, *channel), *message);
        }
        if let Event::Message { reader, channel, place: Some(place), .. }
        | Event::Gap { reader, channel, place: Some(place), .. }
        | Event::Position { reader, channel, place }
        | Event::Start { reader, channel, place: Some(place), .. } = &event
        {
            inner.places.insert((*reader, *channel), *place);
        }
        // Within the lock, so that the times rise.
        inner.records.push(Record { at: now(), event });
    }

    /// Whether the reader is at this message or beyond: it was sent it, or told that it may miss it.
    pub(crate) fn has_reached(
        &self,
        reader: ReaderNo,
        channel: ChannelNo,
        message: MessageNo,
        cursor: Option<Cursor>,
    ) -> bool {
        let inner = self.lock();
        let at = (reader, channel);
        match cursor {
            Some(last) => {
                let place = inner.places.get(&at);
                place.is_some_and(|place| place.life == last.life && place.id >= last.id)
            }
            None => inner.seen.get(&at).is_some_and(|seen| *seen >= message),
        }
    }

    /// Everything that was told.
    pub(crate) fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.lock().records)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A writer that panicked has left whole records.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a history as JSON lines.
pub(crate) fn write(path: &Path, plan: &Plan, records: &[Record]) -> io::Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for record in records {
        let mut line = to_json(plan, &record.event);
        line["at"] = record.at.into();
        writeln!(file, "{line}")?;
    }
    file.flush()
}

fn place(cursor: &Option<Cursor>) -> Value {
    cursor.map_or(Value::Null, |cursor| cursor.to_string().into())
}

fn to_json(plan: &Plan, event: &Event) -> Value {
    let name = |channel: &ChannelNo| plan.name(*channel);
    match event {
        Event::Fault { kind, node, begins } => {
            json!({"fault": kind.to_string(), "node": node, "begins": begins})
        }
        Event::Flaw { what } => json!({"flaw": what}),
        Event::Attempt { message, channel, publisher, via, attempt, exclude } => json!({
            "attempt": attempt, "message": message, "channel": name(channel),
            "publisher": publisher, "via": via.as_str(), "exclude": exclude,
        }),
        Event::Ack { message, channel, cursor, duplicate } => json!({
            "ack": message, "channel": name(channel), "cursor": place(cursor),
            "duplicate": duplicate,
        }),
        Event::Refused { message, channel, certain, why } => {
            json!({"refused": message, "channel": name(channel), "certain": certain, "why": why})
        }
        Event::Open { reader, via, node } => {
            json!({"open": via.as_str(), "reader": reader, "node": node})
        }
        Event::Welcome { reader, session } => json!({"welcome": session, "reader": reader}),
        Event::Garbage { reader } => json!({"garbage": true, "reader": reader}),
        Event::Close { reader, why } => json!({"close": why, "reader": reader}),
        Event::Start { reader, channel, asked, place: at, recovered } => json!({
            "start": name(channel), "reader": reader, "asked": place(asked), "cursor": place(at),
            "recovered": recovered,
        }),
        Event::Stop { reader, channel } => json!({"stop": name(channel), "reader": reader}),
        Event::Message { reader, channel, place: at, message } => json!({
            "message": message, "reader": reader, "channel": name(channel), "cursor": place(at),
        }),
        Event::Gap { reader, channel, after, place: at } => json!({
            "gap": name(channel), "reader": reader, "after": place(after), "cursor": place(at),
        }),
        Event::Position { reader, channel, place: at } => json!({
            "position": name(channel), "reader": reader, "cursor": at.to_string(),
        }),
        Event::Scan { channel, began, life, hole, entries } => {
            let entries: Vec<_> = entries
                .iter()
                .map(|entry| {
                    let prev = entry.prev.map(|prev| prev.to_string());
                    json!([entry.id.to_string(), prev, entry.message])
                })
                .collect();
            json!({"scan": name(channel), "began": began, "life": format!("{life:06x}"),
                "hole": hole, "entries": entries})
        }
        Event::Heir { channel, life, entries } => {
            let entries: Vec<_> = entries.iter().map(EntryId::to_string).collect();
            json!({"heir": name(channel), "life": format!("{life:06x}"), "entries": entries})
        }
        Event::Final { channel, message, cursor } => json!({
            "final": message, "channel": name(channel), "cursor": place(cursor),
        }),
    }
}

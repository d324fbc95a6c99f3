//! A stored channel on this node: its window, the reads that keep it whole, and those who wait.
//!
//! Pure, like the window: each call says what happened and notes in [`Action`]s what is to be done.
//! The hub calls it under the channel's lock, so that the actions of one channel are in order. At
//! most one read is under way for a channel, whatever the number of clients that wait for it.

mod begin;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidewire_broker::{Query, Reading, Verdict};
use tidewire_protocol::{Channel, Cursor, EntryId, NamespaceRules};

use crate::inbox::Ticket;
use crate::window::{Gap, Offered, Window, WindowLimits};
use crate::wire::Encoded;

/// Messages that wait for a read before they are left to the next one.
const MAX_HELD: usize = 4_096;
/// Redis trims by whole nodes of its tree, of 100 entries by default: so many more may be kept.
const TRIM_SLACK: usize = 200;

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Present,
    /// After this place.
    After(Cursor),
    /// After this place if nothing since is missing; else with a gap, and with what is published
    /// from now on. For who may not read what is kept: a place can be made up.
    OnlyAfter(Cursor),
    /// After a place that cannot be read any more: with a gap.
    Lost,
    /// With the last so many messages.
    Last(usize),
    /// With those not older than this, in ms since 1970.
    Since(u64),
}

/// How a subscription begins.
#[derive(Debug)]
pub struct Begin {
    /// The place before the first message that follows.
    pub place: Cursor,
    /// Whether it went on from the place that was asked for, if one was.
    pub recovered: Option<bool>,
    /// What must be told first.
    pub gap: Option<Gap>,
    /// What follows at once.
    pub backlog: Vec<Arc<Encoded>>,
}

/// Something to be done, in order.
#[derive(Debug)]
pub enum Action {
    /// Write this to all subscribers.
    Deliver(Arc<Encoded>),
    /// Tell all subscribers.
    Gap(Gap),
    /// Begin this subscription of this lane.
    Start(usize, Ticket, Begin),
    /// Read, and answer with this number.
    Read(Query, u64),
}

/// A stored channel's state.
#[derive(Debug)]
pub struct StoredChannel {
    channel: Channel,
    window: Option<Window>,
    phase: Phase,
    asks: HashMap<(usize, Ticket), Ask>,
    /// The number of the last read that was begun.
    read: u64,
    /// Its end was found to be the channel's since [`StoredChannel::quiet`] was asked.
    confirmed: bool,
    rules: Kept,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    messages: usize,
    ttl: Duration,
    window: WindowLimits,
}

#[derive(Debug)]
enum Phase {
    /// The channel is not subscribed: what is announced may have holes before it.
    Away,
    /// A read is under way; what is announced meanwhile waits.
    Reading {
        held: Vec<Arc<Encoded>>,
        /// So many of them did not link after the read before, either.
        carried: usize,
        overflow: bool,
    },
    /// The window's end is the channel's.
    Whole,
}

/// A subscription that waits.
#[derive(Debug, Clone, Copy)]
struct Ask {
    start: Start,
    /// It came after the read under way was begun, which therefore cannot prove a gap to it.
    late: bool,
}

impl StoredChannel {
    /// Nothing is known yet. `window` bounds what is held in memory.
    #[must_use]
    pub fn new(channel: Channel, rules: &NamespaceRules, window: WindowLimits) -> Self {
        let rules = Kept { messages: rules.history_size, ttl: rules.history_ttl, window };
        Self {
            channel,
            window: None,
            phase: Phase::Away,
            asks: HashMap::new(),
            read: 0,
            confirmed: false,
            rules,
        }
    }

    /// The channel is subscribed (again): what is announced from now on has no hole.
    pub fn linked(&mut self, actions: &mut Vec<Action>) {
        self.begin_read(actions);
    }

    /// The channel is not subscribed any more.
    pub fn broken(&mut self) {
        self.phase = Phase::Away;
    }

    /// Whether nobody waits and no read is under way.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        matches!(self.phase, Phase::Whole) && self.asks.is_empty()
    }

    /// The last id that is known, if nothing has confirmed it since this was last asked and no read is
    /// under way.
    pub fn quiet(&mut self) -> Option<EntryId> {
        let confirmed = std::mem::take(&mut self.confirmed);
        let window = self.window.as_ref().filter(|_| !confirmed && self.is_whole())?;
        Some(window.last().id)
    }

    /// The broker has another last id than this one, which [`StoredChannel::quiet`] told: a read
    /// decides, unless the channel went on since.
    pub fn doubted(&mut self, known: EntryId, actions: &mut Vec<Action>) {
        let is_there = self.window.as_ref().is_some_and(|window| window.last().id == known);
        if is_there && !self.confirmed && self.is_whole() {
            self.begin_read(actions);
        }
    }

    /// A message was announced: a stored one, or a live one, which takes its place among them.
    pub fn announced(&mut self, message: Arc<Encoded>, actions: &mut Vec<Action>) {
        let is_live = message.message.stored.is_none();
        match &mut self.phase {
            Phase::Away | Phase::Whole if is_live => actions.push(Action::Deliver(message)),
            Phase::Away => {}
            Phase::Reading { held, overflow, .. } => {
                if held.len() < MAX_HELD {
                    held.push(message);
                } else {
                    *overflow = true;
                }
            }
            Phase::Whole => match self.offer(&message) {
                Offered::Appended => {
                    self.confirmed = true;
                    actions.push(Action::Deliver(message));
                }
                Offered::Known => {}
                Offered::Unlinked => self.begin_read_with(vec![message], actions),
            },
        }
    }

    /// A subscription wants to begin.
    pub fn ask(
        &mut self,
        lane: usize,
        ticket: Ticket,
        start: Start,
        now: u64,
        actions: &mut Vec<Action>,
    ) {
        if matches!(self.phase, Phase::Whole) {
            if let Some(begin) = self.begin_by_window(start, now) {
                actions.push(Action::Start(lane, ticket, begin));
                return;
            }
            self.asks.insert((lane, ticket), Ask { start, late: false });
            self.begin_read(actions);
            return;
        }
        let late = matches!(self.phase, Phase::Reading { .. });
        self.asks.insert((lane, ticket), Ask { start, late });
    }

    /// A subscription does not want to begin any more.
    pub fn cancel(&mut self, lane: usize, ticket: Ticket) {
        self.asks.remove(&(lane, ticket));
    }

    /// A read has come; one that is not the last that was asked for is passed over.
    pub fn has_read(
        &mut self,
        number: u64,
        reading: &Reading,
        now: u64,
        actions: &mut Vec<Action>,
    ) {
        if !self.awaits(number) {
            return;
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Whole);
        let Phase::Reading { held, carried, overflow } = phase else { return };
        self.confirmed = true;
        let bridged = self.bridge(reading, &held);
        self.take_in(bridged.as_ref().unwrap_or(reading), actions);
        // Before what waited goes in: it could push out of a small window what the read showed.
        self.answer(reading, now, actions);
        let unlinked = self.take_in_held(held, carried, actions);
        if overflow || !unlinked.is_empty() || !self.asks.is_empty() {
            self.begin_read_with(unlinked, actions);
        }
    }

    /// Takes in what was announced while the read was under way. What does not link was published
    /// after the read, and something before it was missed: it waits for the next read, which shows
    /// both. One that does not link then, either, is no message of this channel.
    fn take_in_held(
        &mut self,
        held: Vec<Arc<Encoded>>,
        carried: usize,
        actions: &mut Vec<Action>,
    ) -> Vec<Arc<Encoded>> {
        let mut unlinked = Vec::new();
        for (n, message) in held.into_iter().enumerate() {
            if message.message.stored.is_none() {
                actions.push(Action::Deliver(message));
                continue;
            }
            match self.offer(&message) {
                Offered::Appended => actions.push(Action::Deliver(message)),
                Offered::Unlinked if n >= carried => unlinked.push(message),
                Offered::Known | Offered::Unlinked => {}
            }
        }
        unlinked
    }

    /// Whether a read of this number is still waited for.
    #[must_use]
    pub fn awaits(&self, number: u64) -> bool {
        matches!(self.phase, Phase::Reading { .. }) && self.read == number
    }

    /// What its window holds in memory, in bytes, about.
    #[must_use]
    pub fn window_weight(&self) -> usize {
        self.window.as_ref().map_or(0, Window::weight)
    }

    /// Lets the oldest part of the window go until it weighs no more than this. At any time: what a
    /// window does not hold is read.
    pub fn trim_window(&mut self, weight: usize) {
        if let Some(window) = &mut self.window {
            window.trim(weight);
        }
    }

    fn offer(&mut self, message: &Arc<Encoded>) -> Offered {
        self.window.as_mut().map_or(Offered::Unlinked, |window| window.offer(message))
    }

    fn begin_read(&mut self, actions: &mut Vec<Action>) {
        self.begin_read_with(Vec::new(), actions);
    }

    fn begin_read_with(&mut self, held: Vec<Arc<Encoded>>, actions: &mut Vec<Action>) {
        self.read += 1;
        let carried = held.len();
        self.phase = Phase::Reading { held, carried, overflow: false };
        for ask in self.asks.values_mut() {
            ask.late = false;
        }
        let limit = self.limit();
        let query = match &self.window {
            // A repair needs only what came since.
            Some(window) if self.asks.is_empty() => {
                Query { after: Some(window.last().id), newest: true, ..Query::newest(limit) }
            }
            _ => Query::newest(limit),
        };
        actions.push(Action::Read(query, self.read));
    }

    /// More than is ever kept, so that a read that shows fewer shows all.
    fn limit(&self) -> usize {
        self.rules.messages + TRIM_SLACK
    }

    fn take_in(&mut self, reading: &Reading, actions: &mut Vec<Action>) {
        match &mut self.window {
            None => {
                let limit = self.limit();
                let window = Window::load(&self.channel, reading, limit, self.rules.window);
                self.window = Some(window);
            }
            Some(window) => {
                let repaired = window.repair(reading);
                actions.extend(repaired.gap.map(Action::Gap));
                actions.extend(repaired.fresh.into_iter().map(Action::Deliver));
            }
        }
    }

    /// A read that came too late to show what was published meanwhile and is trimmed already, with
    /// what was announced put in: if that leads from the window's end to the channel's without a
    /// hole, nothing is missing.
    fn bridge(&self, reading: &Reading, held: &[Arc<Encoded>]) -> Option<Reading> {
        let last = self.window.as_ref()?.last();
        // Without a last id, or with one before the window's, the data itself went back.
        let top = reading.top.filter(|top| *top > last.id)?;
        if !reading.is_same_life(last) || matches!(reading.judge(last), Verdict::GoesOn(_)) {
            return None;
        }
        let announced = held.iter().map(|message| &message.message);
        let of_this_life = announced.chain(&reading.entries).filter_map(|message| {
            let stored = message.stored?;
            (stored.incarnation == reading.incarnation).then_some((stored, message))
        });
        let mut union = BTreeMap::new();
        for (stored, message) in of_this_life.filter(|(stored, _)| stored.id > last.id) {
            union.insert(stored.id, (stored, message));
        }
        let mut at = (!last.id.is_before_first()).then_some(last.id);
        let mut entries = Vec::new();
        for (id, (stored, message)) in union {
            if stored.prev != at {
                break;
            }
            at = Some(id);
            entries.push(message.clone());
        }
        if at < Some(top) {
            return None;
        }
        Some(Reading { top: at, entries, ..reading.clone() })
    }
}

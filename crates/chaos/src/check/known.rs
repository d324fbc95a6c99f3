//! What was stored, as far as anybody knows: from acks, deliveries and the witness together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Excluded, Included};

use tidewire_protocol::{Cursor, EntryId};

use super::{Rule, Verdict};
use crate::history::{Event, MessageNo, Record};
use crate::plan::{ChannelNo, Mode, Plan};

/// A channel in one life of the data.
type Life = (ChannelNo, u32);

/// What was stored.
#[derive(Default)]
pub(super) struct Known {
    entries: HashMap<Life, BTreeMap<EntryId, MessageNo>>,
    /// The lives of each channel.
    lives: HashMap<ChannelNo, HashSet<u32>>,
    /// Those that the witness saw, in their order. What others tell of a life may come late, when
    /// the next one has begun.
    witnessed: HashMap<ChannelNo, Vec<u32>>,
    stored: HashSet<MessageNo>,
}

impl Known {
    pub(super) fn gather(plan: &Plan, records: &[Record], verdict: &mut Verdict) -> Self {
        let mut known = Self::default();
        let mut sent: HashMap<MessageNo, ChannelNo> = HashMap::new();
        for (number, record) in records.iter().enumerate() {
            match &record.event {
                Event::Attempt { message, channel, .. } => {
                    sent.insert(*message, *channel);
                }
                Event::Ack { message, channel, cursor: Some(cursor), .. } => {
                    known.add(*channel, *cursor, *message, number, verdict);
                }
                Event::Message { channel, place, message, .. } => {
                    match message.filter(|message| sent.get(message) == Some(channel)) {
                        None => {
                            let name = plan.name(*channel);
                            let what = format!("{message:?} on {name} was never sent there");
                            verdict.note(Rule::Phantom, number, what);
                        }
                        Some(message) => {
                            if let Some(place) = place {
                                known.add(*channel, *place, message, number, verdict);
                            }
                        }
                    }
                }
                Event::Scan { channel, life, entries, .. } => {
                    let witnessed = known.witnessed.entry(*channel).or_default();
                    if !witnessed.contains(life) {
                        witnessed.push(*life);
                    }
                    for entry in entries {
                        let cursor = Cursor { id: entry.id, life: *life, channel: 0 };
                        match entry.message {
                            Some(message) => known.add(*channel, cursor, message, number, verdict),
                            None => {
                                let what = format!("the entry {} is nobody's message", entry.id);
                                verdict.note(Rule::Phantom, number, what);
                            }
                        }
                    }
                }
                _ => {}
            }
        }
        known.find_doubles(verdict);
        known.find_lives(plan, records, verdict);
        known
    }

    fn add(
        &mut self,
        channel: ChannelNo,
        place: Cursor,
        message: MessageNo,
        number: usize,
        verdict: &mut Verdict,
    ) {
        self.lives.entry(channel).or_default().insert(place.life);
        self.stored.insert(message);
        let entries = self.entries.entry((channel, place.life)).or_default();
        let first = *entries.entry(place.id).or_insert(message);
        if first != message {
            let what = format!("{} is the place of {first} and of {message}", place.id);
            verdict.note(Rule::Phantom, number, what);
        }
    }

    /// A message that is stored twice in one life.
    fn find_doubles(&self, verdict: &mut Verdict) {
        for entries in self.entries.values() {
            let mut places = HashMap::new();
            for (id, message) in entries {
                if let Some(first) = places.insert(message, id) {
                    let what = format!("message {message} is stored as {first} and as {id}");
                    verdict.note(Rule::Dedupe, 0, what);
                }
            }
        }
    }

    /// A life that no fault explains.
    fn find_lives(&self, plan: &Plan, records: &[Record], verdict: &mut Verdict) {
        let lives = |record: &Record| match record.event {
            Event::Fault { kind, begins: true, .. } => kind.lives(),
            _ => 0,
        };
        let explained = match plan.mode {
            Mode::Trust => 1,
            Mode::Usual | Mode::Standby => 1 + records.iter().map(lives).sum::<usize>(),
        };
        for (channel, lives) in &self.lives {
            if lives.len() > explained {
                let name = plan.name(*channel);
                let what = format!("{} lives of {name}, {explained} are explained", lives.len());
                verdict.note(Rule::NeedlessGap, 0, what);
            }
        }
    }

    /// Whether the message was stored at some time.
    pub(super) fn holds(&self, message: MessageNo) -> bool {
        self.stored.contains(&message)
    }

    /// The message at a place.
    pub(super) fn at(&self, channel: ChannelNo, place: Cursor) -> Option<MessageNo> {
        self.entries.get(&(channel, place.life))?.get(&place.id).copied()
    }

    /// The first message after one place and before another of the same life, of those that are
    /// owed.
    pub(super) fn between(
        &self,
        channel: ChannelNo,
        after: Cursor,
        before: EntryId,
        is_owed: impl Fn(MessageNo) -> bool,
    ) -> Option<(EntryId, MessageNo)> {
        if after.id >= before {
            return None;
        }
        let entries = self.entries.get(&(channel, after.life))?;
        let mut range = entries.range((Excluded(after.id), Excluded(before)));
        range.find(|(_, message)| is_owed(**message)).map(|(id, message)| (*id, *message))
    }

    /// How many messages were stored after a place until a time.
    pub(super) fn count_after(&self, channel: ChannelNo, after: Cursor, until: u64) -> usize {
        let until = EntryId { ms: until, seq: u64::MAX };
        let entries = self.entries.get(&(channel, after.life));
        match entries {
            Some(entries) if after.id < until => {
                entries.range((Excluded(after.id), Included(until))).count()
            }
            _ => 0,
        }
    }

    /// Whether the second life came after the first one.
    pub(super) fn follows(&self, channel: ChannelNo, one: u32, next: u32) -> bool {
        let lives = self.witnessed.get(&channel).map_or(&[][..], |lives| lives);
        let at = |life| lives.iter().position(|known| *known == life);
        // A life that the witness missed may be any.
        match (at(one), at(next)) {
            (Some(one), Some(next)) => one < next,
            _ => one != next,
        }
    }
}

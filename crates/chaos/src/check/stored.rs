//! The readers' side of stored channels: order, once, nothing lost silently, no needless gap.
//!
//! A reader's walk through a channel is a place that moves. Everything that it is told moves the
//! place, and nothing that is known to be stored may lie between where it was and where it is,
//! unless a gap said so.

use std::collections::{HashMap, HashSet};

use tidewire_protocol::{Cursor, EntryId};

use super::excluded::Excluded;
use super::known::Known;
use super::{Rule, Verdict};
use crate::history::{Event, MessageNo, ReaderNo, Record};
use crate::plan::{ChannelNo, Mode, Plan};

/// The clocks of readers and Redis are one; what is stored in the same instant may count or not.
const SLACK_MS: u64 = 5;

/// A reader on a channel.
#[derive(Default)]
struct Walk {
    place: Option<Cursor>,
    subscribed: bool,
    /// It was not recovered: this gap must come before anything else.
    owed: Option<Owed>,
}

#[derive(Clone, Copy)]
struct Owed {
    /// None after an id that could not be read.
    after: Option<Cursor>,
    place: Cursor,
}

pub(super) fn check(
    plan: &Plan,
    records: &[Record],
    known: &Known,
    excluded: &Excluded,
    verdict: &mut Verdict,
) {
    let mut walks: HashMap<(ReaderNo, ChannelNo), Walk> = HashMap::new();
    // Who came with an id that cannot be read.
    let mut unread: HashSet<ReaderNo> = HashSet::new();
    for (number, record) in records.iter().enumerate() {
        let (reader, channel) = match &record.event {
            Event::Start { reader, channel, .. }
            | Event::Stop { reader, channel }
            | Event::Message { reader, channel, .. }
            | Event::Gap { reader, channel, .. }
            | Event::Position { reader, channel, .. } => (*reader, *channel),
            Event::Garbage { reader } => {
                unread.insert(*reader);
                continue;
            }
            Event::Close { reader, .. } => {
                unread.remove(reader);
                let of = walks.iter_mut().filter(|((walker, _), _)| walker == reader);
                of.for_each(|(_, walk)| walk.end());
                continue;
            }
            _ => continue,
        };
        let Some(kept) = plan.channels[channel].kept else { continue };
        let walk = walks.entry((reader, channel)).or_default();
        let who = format!("reader {reader} on {}", plan.name(channel));
        let mut step = Step {
            plan,
            known,
            excluded,
            reader,
            channel,
            kept,
            number,
            at: record.at,
            verdict,
            who,
        };
        match &record.event {
            Event::Start { asked, place, recovered, .. } => {
                let asked = if unread.contains(&reader) { Asked::Garbage } else { (*asked).into() };
                step.start(walk, asked, *place, *recovered);
            }
            Event::Stop { .. } => walk.end(),
            Event::Message { place, .. } => step.message(walk, *place),
            Event::Gap { after, place, .. } => step.gap(walk, *after, *place),
            Event::Position { place, .. } => step.pass(walk, *place),
            _ => {}
        }
    }
    deaf(plan, records, known, &walks, verdict);
}

impl Walk {
    fn end(&mut self) {
        self.subscribed = false;
        self.owed = None;
    }
}

/// Whether these are two names of one place: before the first message every node has its own.
fn is_renamed(one: Cursor, other: Cursor) -> bool {
    let is_first = |cursor: Cursor| cursor.id.is_before_first();
    one != other && is_first(one) && is_first(other) && one.life == other.life
}

/// With what a subscription was asked for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Nothing,
    Place(Cursor),
    Garbage,
}

impl From<Option<Cursor>> for Asked {
    fn from(place: Option<Cursor>) -> Self {
        place.map_or(Self::Nothing, Self::Place)
    }
}

/// One step of a walk.
struct Step<'a> {
    plan: &'a Plan,
    known: &'a Known,
    excluded: &'a Excluded,
    reader: ReaderNo,
    channel: ChannelNo,
    kept: usize,
    number: usize,
    at: u64,
    verdict: &'a mut Verdict,
    who: String,
}

impl Step<'_> {
    fn note(&mut self, rule: Rule, what: &str) {
        self.verdict.note(rule, self.number, format!("{}: {what}", self.who));
    }

    fn start(
        &mut self,
        walk: &mut Walk,
        asked: Asked,
        place: Option<Cursor>,
        recovered: Option<bool>,
    ) {
        walk.subscribed = true;
        walk.owed = None;
        let Some(place) = place else {
            walk.place = match asked {
                Asked::Place(asked) => Some(asked),
                Asked::Nothing | Asked::Garbage => None,
            };
            return self.note(Rule::Start, "it begins without a place");
        };
        match (asked, recovered) {
            (Asked::Nothing, None) => {}
            (Asked::Place(asked), Some(true)) => {
                if place != asked && !is_renamed(asked, place) {
                    let what = format!("recovered, asked for {asked} and was put at {place}");
                    self.note(Rule::Start, &what);
                }
            }
            (Asked::Place(asked), Some(false)) => {
                walk.owed = Some(Owed { after: Some(asked), place });
            }
            (Asked::Garbage, Some(false)) => walk.owed = Some(Owed { after: None, place }),
            (asked, recovered) => {
                let what = format!("asked for {asked:?}, and recovered is {recovered:?}");
                self.note(Rule::Start, &what);
            }
        }
        walk.place = Some(place);
    }

    fn message(&mut self, walk: &mut Walk, place: Option<Cursor>) {
        match place {
            Some(place) => self.advance(walk, place),
            None => self.note(Rule::Phantom, "a message without a cursor"),
        }
    }

    /// The place moves without a message: the one that is there was not meant for the reader.
    fn pass(&mut self, walk: &mut Walk, next: Cursor) {
        let there = self.known.at(self.channel, next);
        if let Some(message) = there.filter(|message| self.excluded.is_owed(self.reader, *message))
        {
            self.note(Rule::SilentLoss, &format!("message {message} at {next} is passed over"));
        }
        // A poll does not tell where it begins, only where it ends.
        if walk.owed.is_none() && walk.place.is_some_and(|place| is_renamed(place, next)) {
            walk.place = Some(next);
            return;
        }
        self.advance(walk, next);
    }

    /// The place moves, and nothing else may lie between.
    fn advance(&mut self, walk: &mut Walk, next: Cursor) {
        if !walk.subscribed {
            self.note(Rule::Start, &format!("{next} comes without a subscription"));
        }
        if walk.owed.take().is_some() {
            let what = format!("{next} comes before the gap that 'recovered: false' announced");
            self.note(Rule::SilentLoss, &what);
        }
        let Some(place) = walk.place.replace(next) else { return };
        if next.life != place.life {
            let what = format!("{next} follows {place} in a new life without a gap");
            self.note(Rule::SilentLoss, &what);
        } else if next.id == place.id {
            self.note(Rule::Once, &format!("{next} comes twice"));
        } else if next.id < place.id {
            self.note(Rule::Order, &format!("{next} comes after {place}"));
        } else if let Some((id, message)) = self.missing(place, next) {
            let what = format!("message {message} at {id} is missing between {place} and {next}");
            self.note(Rule::SilentLoss, &what);
        }
    }

    /// What was owed to the reader between two places; what comes at the second one is not.
    fn missing(&self, place: Cursor, next: Cursor) -> Option<(EntryId, MessageNo)> {
        let is_owed = |message| self.excluded.is_owed(self.reader, message);
        self.known.between(self.channel, place, next.id, is_owed)
    }

    fn gap(&mut self, walk: &mut Walk, after: Option<Cursor>, next: Option<Cursor>) {
        if !walk.subscribed {
            self.note(Rule::Start, "a gap comes without a subscription");
        }
        let Some(next) = next else {
            walk.place = None;
            return self.note(Rule::GapPlaces, &format!("a gap after {after:?} to nowhere"));
        };
        let before = match walk.owed.take() {
            Some(owed) => {
                if owed.place != next && !self.is_merged(owed.place, next) {
                    let what = format!("it began at {}, and the gap leads to {next}", owed.place);
                    self.note(Rule::GapPlaces, &what);
                }
                owed.after
            }
            None => walk.place,
        };
        if before != after {
            let what = format!("a gap after {after:?}, where {before:?} was the last place");
            self.note(Rule::GapPlaces, &what);
        }
        if let Some(before) = before.or(after) {
            self.judge_need(before, next);
        }
        walk.place = Some(next);
    }

    /// Gaps that were not written yet merge: the first's beginning, the last's end.
    fn is_merged(&self, first: Cursor, last: Cursor) -> bool {
        if first.life == last.life {
            first.id < last.id
        } else {
            self.known.follows(self.channel, first.life, last.life)
        }
    }

    /// Whether the gap had to be told, and skips no more than it must.
    fn judge_need(&mut self, before: Cursor, next: Cursor) {
        if before.life != next.life {
            if !self.known.follows(self.channel, before.life, next.life) {
                let what = format!("a gap leads from {before} back to {next}, of an earlier life");
                self.note(Rule::Order, &what);
            } else if self.plan.mode == Mode::Trust {
                let what = format!("a gap leads from {before} to {next}, and nothing was lost");
                self.note(Rule::NeedlessGap, &what);
            }
            return;
        }
        if next.id < before.id {
            return self.note(Rule::Order, &format!("a gap leads from {before} back to {next}"));
        }
        let until = self.at + SLACK_MS;
        let newer = self.known.count_after(self.channel, before, until);
        if newer <= self.kept {
            let kept = self.kept;
            let what = format!("a gap after {before}: {newer} were stored since, {kept} are kept");
            return self.note(Rule::NeedlessGap, &what);
        }
        let spared = self.known.count_after(self.channel, next, until);
        if spared < self.kept {
            let kept = self.kept;
            let what = format!("a gap leads to {next}: {spared} came after it, {kept} are kept");
            self.note(Rule::NeedlessGap, &what);
        }
    }
}

/// Those who do not have the last message, nor were told.
fn deaf(
    plan: &Plan,
    records: &[Record],
    known: &Known,
    walks: &HashMap<(ReaderNo, ChannelNo), Walk>,
    verdict: &mut Verdict,
) {
    for (number, record) in records.iter().enumerate() {
        let Event::Final { channel, message, cursor: Some(last) } = &record.event else { continue };
        for ((reader, _), walk) in walks.iter().filter(|((_, walked), _)| walked == channel) {
            let Some(place) = walk.place else { continue };
            if place.life != last.life || place.id < last.id {
                let left = known.count_after(*channel, place, u64::MAX);
                let what = format!(
                    "reader {reader} on {} stays at {place}, without message {message} at {last} \
                     ({left} of its life are missing)",
                    plan.name(*channel)
                );
                verdict.note(Rule::Deaf, number, what);
            }
        }
    }
}

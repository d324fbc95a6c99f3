//! The publishers' side: acks, duplicates, and what is certainly not stored.

use std::collections::{HashMap, HashSet};

use tidewire_protocol::{Cursor, EntryId};

use super::known::Known;
use super::{Rule, Verdict};
use crate::history::{Event, MessageNo, Record};
use crate::plan::{ChannelNo, Plan};

pub(super) fn check(plan: &Plan, records: &[Record], known: &Known, verdict: &mut Verdict) {
    let mut messages: HashMap<MessageNo, Sent> = HashMap::new();
    for (number, record) in records.iter().enumerate() {
        match &record.event {
            Event::Attempt { message, .. } => messages.entry(*message).or_default().attempts += 1,
            Event::Refused { message, certain, .. } => {
                let sent = messages.entry(*message).or_default();
                sent.certain += u32::from(*certain);
                sent.last = number;
            }
            Event::Ack { message, channel, cursor, duplicate } => {
                let sent = messages.entry(*message).or_default();
                if plan.is_stored(*channel) != cursor.is_some() {
                    let name = plan.name(*channel);
                    let what = format!("the ack of {message} on {name} has the cursor {cursor:?}");
                    verdict.note(Rule::FalseAck, number, what);
                }
                // A single attempt cannot be the repetition of another.
                if *duplicate && sent.attempts == 1 {
                    let what = format!("message {message} was sent once and is a duplicate");
                    verdict.note(Rule::Dedupe, number, what);
                }
            }
            _ => {}
        }
    }
    for (message, sent) in &messages {
        if sent.attempts > 0 && sent.certain == sent.attempts && known.holds(*message) {
            let what = format!("message {message} was refused as certainly not stored, and is");
            verdict.note(Rule::CertainlyNot, sent.last, what);
        }
    }
    false_acks(records, verdict);
    lost_acks(plan, records, verdict);
}

#[derive(Default)]
struct Sent {
    attempts: u32,
    certain: u32,
    last: usize,
}

/// What the witness saw of a channel in one life.
#[derive(Default)]
struct Seen {
    entries: HashSet<EntryId>,
    /// Stretches of places in which it cannot have missed anything: after, until.
    sure: Vec<(EntryId, EntryId)>,
    newest: Option<EntryId>,
    /// When its last look began.
    last: u64,
}

/// Acks of messages that the witness did not see although it looked where they should be.
fn false_acks(records: &[Record], verdict: &mut Verdict) {
    let mut seen: HashMap<(ChannelNo, u32), Seen> = HashMap::new();
    for record in records {
        if let Event::Scan { channel, life, began, hole, entries } = &record.event {
            let seen = seen.entry((*channel, *life)).or_default();
            seen.last = *began;
            let (Some(first), Some(last)) = (entries.first(), entries.last()) else { continue };
            let from = if *hole { first.id } else { seen.newest.unwrap_or_default() };
            seen.sure.push((from, last.id));
            seen.newest = Some(last.id);
            seen.entries.extend(entries.iter().map(|entry| entry.id));
        }
    }
    for (number, record) in records.iter().enumerate() {
        let Event::Ack { message, channel, cursor: Some(cursor), .. } = &record.event else {
            continue;
        };
        let Some(seen) = seen.get(&(*channel, cursor.life)) else { continue };
        if !seen.entries.contains(&cursor.id) && seen.should_hold(*cursor, record.at) {
            let what = format!("message {message} was acked as {}, and is not there", cursor.id);
            verdict.note(Rule::FalseAck, number, what);
        }
    }
}

/// Acks of messages that the replica did not have which took over, of what it still kept.
fn lost_acks(plan: &Plan, records: &[Record], verdict: &mut Verdict) {
    let mut heirs: HashMap<(ChannelNo, u32), &[EntryId]> = HashMap::new();
    for record in records {
        if let Event::Heir { channel, life, entries } = &record.event {
            heirs.insert((*channel, *life), entries);
        }
    }
    for (number, record) in records.iter().enumerate() {
        let Event::Ack { message, channel, cursor: Some(cursor), .. } = &record.event else {
            continue;
        };
        let Some(entries) = heirs.get(&(*channel, cursor.life)) else { continue };
        let is_trimmed = entries.first().is_some_and(|first| cursor.id < *first);
        if !is_trimmed && entries.binary_search(&cursor.id).is_err() {
            let (id, name) = (cursor.id, plan.name(*channel));
            let what = format!("message {message} on {name} was acked as {id}, not on the replica");
            verdict.note(Rule::FalseAck, number, what);
        }
    }
}

impl Seen {
    /// Whether a place that was acked by then must have been seen.
    fn should_hold(&self, place: Cursor, acked: u64) -> bool {
        let within = |(from, to): &(EntryId, EntryId)| *from < place.id && place.id < *to;
        let beyond = self.newest.is_none_or(|newest| newest < place.id);
        self.sure.iter().any(within) || (beyond && self.last > acked)
    }
}

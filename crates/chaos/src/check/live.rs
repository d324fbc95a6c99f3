//! The readers' side of live channels: nothing twice, in order, and a loss within a session told.

use std::collections::{HashMap, HashSet};

use super::excluded::Excluded;
use super::{Rule, Verdict};
use crate::history::{Event, MessageNo, ReaderNo, Record};
use crate::plan::{ChannelNo, Plan};

/// A message of a live channel, as its publisher knows it. It is sent once, and the next one when
/// its outcome is known.
struct Sent {
    publisher: usize,
    /// Its number among the publisher's on this channel.
    turn: usize,
    acked: bool,
}

/// A session on a live channel.
#[derive(Default)]
struct Session {
    seen: HashSet<MessageNo>,
    /// The last message of each publisher, and whether a gap was told since.
    last: HashMap<usize, (usize, bool)>,
}

pub(super) fn check(plan: &Plan, records: &[Record], excluded: &Excluded, verdict: &mut Verdict) {
    let sent = gather(plan, records);
    // A publisher's acked messages by their turn.
    let mut acked: HashMap<(ChannelNo, usize), Vec<(usize, MessageNo)>> = HashMap::new();
    for ((channel, message), sent) in sent.iter().filter(|(_, sent)| sent.acked) {
        acked.entry((*channel, sent.publisher)).or_default().push((sent.turn, *message));
    }
    acked.values_mut().for_each(|turns| turns.sort_unstable());
    let mut sessions: HashMap<(ReaderNo, ChannelNo), Session> = HashMap::new();
    for (number, record) in records.iter().enumerate() {
        match &record.event {
            Event::Start { reader, channel, .. } | Event::Stop { reader, channel } => {
                sessions.remove(&(*reader, *channel));
            }
            Event::Gap { reader, channel, .. } => {
                if let Some(session) = sessions.get_mut(&(*reader, *channel)) {
                    session.last.values_mut().for_each(|(_, told)| *told = true);
                }
            }
            Event::Message { reader, channel, message: Some(message), .. } => {
                let Some(sent) = sent.get(&(*channel, *message)) else { continue };
                let session = sessions.entry((*reader, *channel)).or_default();
                let who = format!("reader {reader} on {}", plan.name(*channel));
                if !session.seen.insert(*message) {
                    let what = format!("{who}: message {message} comes twice");
                    verdict.note(Rule::Once, number, what);
                }
                // Its outcome was unknown to the publisher, who went on: it may come late.
                if !sent.acked {
                    continue;
                }
                let last = session.last.insert(sent.publisher, (sent.turn, false));
                let Some((last, told)) = last else { continue };
                if sent.turn < last {
                    let what = format!("{who}: message {message} comes after a later one");
                    verdict.note(Rule::Order, number, what);
                }
                let turns = &acked.get(&(*channel, sent.publisher)).map_or(&[][..], |all| all);
                let from = turns.partition_point(|(turn, _)| *turn <= last);
                let between = turns[from..].iter().take_while(|(turn, _)| *turn < sent.turn);
                let mut owed = between.filter(|(_, missed)| excluded.is_owed(*reader, *missed));
                let missed = owed.next();
                if let (Some((_, missed)), false) = (missed, told) {
                    let what = format!("{who}: message {missed} is missing before {message}");
                    verdict.note(Rule::SilentLoss, number, what);
                }
            }
            _ => {}
        }
    }
}

fn gather(plan: &Plan, records: &[Record]) -> HashMap<(ChannelNo, MessageNo), Sent> {
    let mut sent: HashMap<(ChannelNo, MessageNo), Sent> = HashMap::new();
    let mut turns: HashMap<(ChannelNo, usize), usize> = HashMap::new();
    for record in records {
        match &record.event {
            Event::Attempt { message, channel, publisher, .. } if !plan.is_stored(*channel) => {
                let turn = turns.entry((*channel, *publisher)).or_default();
                *turn += 1;
                let (publisher, turn) = (*publisher, *turn);
                sent.insert((*channel, *message), Sent { publisher, turn, acked: false });
            }
            Event::Ack { message, channel, .. } => {
                if let Some(sent) = sent.get_mut(&(*channel, *message)) {
                    sent.acked = true;
                }
            }
            _ => {}
        }
    }
    sent
}

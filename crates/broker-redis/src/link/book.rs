//! What one link should hold, what it was told to hold and what Redis confirmed: a state machine
//! without I/O.
//!
//! Redis answers the commands of a connection in order, and a channel's confirmation comes before
//! its first message. So whatever must be told before any message (a gap, that it is subscribed)
//! is told when the confirmation is read, and the messages need no buffer.

use std::collections::{HashMap, VecDeque};
use std::mem;

use bytes::BytesMut;
use tidewire_protocol::Channel;
use tokio::time::Instant;

use super::Break;
use crate::names::Names;
use crate::resp;
use crate::wire::reason;

/// The most channels in one command: its answers are some 30 KB.
const BATCH: usize = 512;
/// The most commands under way: enough to keep Redis busy, few enough that a wish is not stuck
/// behind many others.
const WINDOW: usize = 8;

/// What the node is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tell {
    Subscribed(Channel),
    Refused(Channel, String),
    Gap(Channel),
}

/// The channels of a link. It outlives the link's connections.
#[derive(Default)]
pub(super) struct Book {
    entries: HashMap<Channel, Entry>,
    /// Channels whose entry may have something to send.
    todo: VecDeque<Channel>,
    /// The halves of batches that were refused.
    halves: VecDeque<Vec<Channel>>,
    in_flight: VecDeque<Command>,
    /// How many subscriptions Redis has confirmed on this connection, the link's own included.
    held: usize,
    /// Rises with each command and confirmation.
    version: u64,
}

#[derive(Default)]
struct Entry {
    /// What the node wants.
    wanted: bool,
    /// What holds once Redis has done all that was sent.
    sent: bool,
    /// What Redis has confirmed.
    held: bool,
    /// How many commands about it are under way.
    pending: u32,
    /// That the present wish was fulfilled.
    told: bool,
    /// The link broke after that.
    gap: bool,
}

/// A command that is yet to be answered.
struct Command {
    sent_at: Instant,
    kind: Kind,
}

enum Kind {
    /// The subscription of the link to its own name.
    Own,
    Ping,
    Subscribe(VecDeque<Channel>),
    Unsubscribe(VecDeque<Channel>),
}

impl Book {
    /// Takes the last wish about a channel.
    pub(super) fn wish(&mut self, channel: Channel, wanted: bool, tell: &mut Vec<Tell>) {
        if !wanted && !self.entries.contains_key(&channel) {
            return;
        }
        let entry = self.entries.entry(channel.clone()).or_default();
        entry.wanted = wanted;
        entry.told = false;
        // A channel that was given up and is wanted again, before the wishes were taken, may have
        // been told as subscribed in between: its gap stays due.
        entry.gap &= wanted;
        if entry.wanted == entry.sent {
            entry.tell(&channel, tell);
            if entry.is_over() {
                self.entries.remove(&channel);
            }
        } else {
            self.todo.push_back(channel);
        }
    }

    /// A connection stands: everything is to be sent.
    pub(super) fn connected(&mut self) {
        self.todo = self.entries.keys().cloned().collect();
    }

    /// The channels that the node believes to be subscribed.
    pub(super) fn believed(&self) -> impl Iterator<Item = &Channel> {
        let believed = self.entries.iter().filter(|(_, entry)| entry.told && !entry.gap);
        believed.map(|(channel, _)| channel)
    }

    /// The connection is gone, and with it whatever was under way.
    pub(super) fn lost(&mut self) {
        self.entries.retain(|_, entry| {
            let gap = entry.gap || entry.told;
            *entry = Entry { wanted: entry.wanted, told: entry.told, gap, ..Entry::default() };
            entry.wanted
        });
        self.todo.clear();
        self.halves.clear();
        self.in_flight.clear();
        self.held = 0;
    }

    /// Writes the subscription to the link's own name. The first command of a connection.
    pub(super) fn send_own(&mut self, name: &str, out: &mut BytesMut) {
        resp::command(&[b"SUBSCRIBE", name.as_bytes()], out);
        self.sent(Kind::Own);
    }

    /// Writes a ping.
    pub(super) fn send_ping(&mut self, out: &mut BytesMut) {
        resp::command(&[b"PING"], out);
        self.sent(Kind::Ping);
    }

    /// Writes the next command; false when there is none, or too many are under way.
    pub(super) fn send_next(&mut self, names: &Names, out: &mut BytesMut) -> bool {
        if self.in_flight.len() >= WINDOW {
            return false;
        }
        let half = self.next_half();
        let (subscribe, batch) = if half.is_empty() { self.next_batch() } else { (true, half) };
        if batch.is_empty() {
            return false;
        }
        resp::begin(1 + batch.len(), out);
        resp::argument(&[if subscribe { b"SUBSCRIBE" } else { b"UNSUBSCRIBE" }], out);
        for channel in &batch {
            resp::argument(&names.parts(channel.as_str()), out);
        }
        self.sent(if subscribe { Kind::Subscribe(batch) } else { Kind::Unsubscribe(batch) });
        true
    }

    /// Half of a refused batch, as far as it still is to be subscribed.
    fn next_half(&mut self) -> VecDeque<Channel> {
        while let Some(half) = self.halves.pop_front() {
            let mut half = VecDeque::from(half);
            half.retain(|channel| {
                let entry = self.entries.get_mut(channel);
                entry.is_some_and(|entry| entry.wanted && entry.take())
            });
            if !half.is_empty() {
                return half;
            }
        }
        VecDeque::new()
    }

    /// What waits, as far as it goes into one command, and whether that subscribes.
    fn next_batch(&mut self) -> (bool, VecDeque<Channel>) {
        let mut batch = VecDeque::new();
        let mut subscribe = true;
        while batch.len() < BATCH {
            let Some(channel) = self.todo.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&channel) else { continue };
            if batch.is_empty() {
                subscribe = entry.wanted;
            } else if subscribe != entry.wanted && entry.wanted != entry.sent {
                self.todo.push_front(channel);
                break;
            }
            if entry.take() {
                batch.push_back(channel);
            }
        }
        (subscribe, batch)
    }

    /// Redis confirms. `count` is how many subscriptions it now counts.
    pub(super) fn confirmed(
        &mut self,
        subscribe: bool,
        channel: Option<&str>,
        count: i64,
        tell: &mut Vec<Tell>,
    ) -> Result<(), Break> {
        let front = self.in_flight.front_mut().map(|command| &mut command.kind);
        let expected = match (front, subscribe) {
            (Some(Kind::Own), true) => None,
            (Some(Kind::Subscribe(batch)), true) | (Some(Kind::Unsubscribe(batch)), false) => {
                batch.pop_front()
            }
            _ => return Err(Break::Confusion("a confirmation that is not due")),
        };
        if let Some(expected) = &expected {
            if channel != Some(expected.as_str()) {
                return Err(Break::Confusion("a confirmation of another channel"));
            }
            self.settle(expected, subscribe, tell);
        } else {
            self.held += 1;
        }
        if usize::try_from(count) != Ok(self.held) {
            return Err(Break::Subscriptions { due: self.held, counted: count });
        }
        self.version += 1;
        if self.in_flight.front().is_some_and(Command::is_answered) {
            self.in_flight.pop_front();
        }
        Ok(())
    }

    fn settle(&mut self, channel: &Channel, subscribe: bool, tell: &mut Vec<Tell>) {
        let Some(entry) = self.entries.get_mut(channel) else { return };
        match (entry.held, subscribe) {
            (false, true) => self.held += 1,
            (true, false) => self.held -= 1,
            _ => {}
        }
        entry.held = subscribe;
        entry.pending -= 1;
        entry.tell(channel, tell);
        if entry.is_over() {
            self.entries.remove(channel);
        }
    }

    /// Redis answers a ping.
    pub(super) fn pong(&mut self) -> Result<(), Break> {
        match self.in_flight.pop_front() {
            Some(Command { kind: Kind::Ping, .. }) => Ok(()),
            _ => Err(Break::Confusion("an answer to a ping that is not due")),
        }
    }

    /// Redis answers with an error: it has done nothing of the command.
    pub(super) fn error(&mut self, error: &[u8], tell: &mut Vec<Tell>) -> Result<(), Break> {
        let error = reason(error);
        // Other codes concern the server or the connection, not a channel.
        let of_channel = error.starts_with("NOPERM") || error.starts_with("ERR");
        match self.in_flight.pop_front() {
            Some(Command { kind: Kind::Subscribe(batch), .. }) if of_channel => {
                self.version += 1;
                self.refused(batch.into(), &error, tell);
                Ok(())
            }
            _ => Err(Break::Refused(error)),
        }
    }

    fn refused(&mut self, mut batch: Vec<Channel>, error: &str, tell: &mut Vec<Tell>) {
        let alone = batch.len() == 1;
        for channel in &batch {
            let Some(entry) = self.entries.get_mut(channel) else { continue };
            entry.pending -= 1;
            // If more was sent about it, the last of that decides.
            if entry.pending == 0 && !entry.held {
                entry.sent = false;
                if alone && entry.wanted {
                    tell.push(Tell::Refused(channel.clone(), error.to_owned()));
                    entry.wanted = false;
                }
                if entry.is_over() {
                    self.entries.remove(channel);
                }
            }
        }
        if !alone {
            let second = batch.split_off(batch.len() / 2);
            self.halves.extend([batch, second]);
        }
    }

    /// Since when the oldest command waits for its answer.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.in_flight.front().map(|command| command.sent_at)
    }

    /// Whether nothing is to be sent and nothing under way.
    pub(super) fn is_settled(&self) -> bool {
        self.todo.is_empty() && self.halves.is_empty() && self.in_flight.is_empty()
    }

    /// How many subscriptions Redis should count, the link's own included.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether more wishes may be taken: a link that is stuck leaves them where they coalesce.
    pub(super) fn takes_wishes(&self) -> bool {
        self.todo.is_empty()
    }

    /// Tells apart two looks at [`Book::held`] between which something changed; none while
    /// something is changing.
    pub(super) fn version(&self) -> Option<u64> {
        let quiet = self.in_flight.iter().all(|command| matches!(command.kind, Kind::Ping));
        quiet.then_some(self.version)
    }

    fn sent(&mut self, kind: Kind) {
        self.version += u64::from(!matches!(kind, Kind::Ping));
        self.in_flight.push_back(Command { sent_at: Instant::now(), kind });
    }
}

impl Entry {
    /// Whether something is to be sent, which counts as sent from now on.
    fn take(&mut self) -> bool {
        let due = self.wanted != self.sent;
        if due {
            self.sent = self.wanted;
            self.pending += 1;
        }
        due
    }

    /// Tells what is due, once all that was sent is confirmed.
    fn tell(&mut self, channel: &Channel, tell: &mut Vec<Tell>) {
        if !self.wanted || !self.held || self.pending > 0 {
            return;
        }
        if mem::take(&mut self.gap) {
            tell.push(Tell::Gap(channel.clone()));
        }
        if !mem::replace(&mut self.told, true) {
            tell.push(Tell::Subscribed(channel.clone()));
        }
    }

    fn is_over(&self) -> bool {
        !self.wanted && !self.sent && self.pending == 0
    }
}

impl Command {
    fn is_answered(&self) -> bool {
        match &self.kind {
            Kind::Own => true,
            Kind::Ping => false,
            Kind::Subscribe(batch) | Kind::Unsubscribe(batch) => batch.is_empty(),
        }
    }
}

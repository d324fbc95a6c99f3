//! How subscriptions begin on a lane.
//!
//! A few in each turn: when thousands come back at once, those who are there already get their
//! messages between the others' beginnings. What a stored channel publishes while a beginning waits
//! is kept for it, so that the order is the same as if it had not waited.

use std::rc::Rc;

use tidewire_protocol::Cursor;

use super::Lane;
use crate::fanout::{Batch, Tally};
use crate::inbox::{ChannelKey, Ticket};
use crate::session::Session;
use crate::stored::Begin;

/// Subscriptions that begin in one turn: some milliseconds, with a backlog for each.
pub(super) const STARTS_PER_TURN: usize = 64;

/// A beginning that waits.
pub(super) struct LateStart {
    key: ChannelKey,
    born: Ticket,
    ticket: Ticket,
    begin: Option<Box<Begin>>,
    from: usize,
}

impl Lane {
    /// Lets a subscription begin in a later turn.
    pub(super) fn start_later(&self, key: ChannelKey, ticket: Ticket, begin: Option<Box<Begin>>) {
        if let Some(here) = self.channels.borrow_mut().get_mut(&key) {
            let late = LateStart { key, born: here.born, ticket, begin, from: here.late.wait() };
            self.late.borrow_mut().push_back(late);
        }
    }

    /// Lets at most so many begin that have waited. To be called when all that was noted is
    /// delivered.
    pub(super) fn start_late(&self, most: usize) {
        for _ in 0..most {
            let Some(late) = self.late.borrow_mut().pop_front() else { return };
            let LateStart { key, born, ticket, mut begin, from } = late;
            let missed = match self.channels.borrow_mut().get_mut(&key) {
                Some(here) if here.born == born => here.late.end(from),
                // All have left since, and others have come.
                _ => continue,
            };
            match (&mut begin, missed) {
                (Some(begin), Some(missed)) => begin.backlog.extend(missed),
                // It asks again for what it has missed.
                (Some(_), None) => {
                    self.start(key, ticket, begin, true);
                    continue;
                }
                (None, _) => {}
            }
            self.start(key, ticket, begin, false);
        }
    }

    /// Begins a subscription; one that is `behind` only says where it is, and asks for the rest.
    pub(super) fn start(
        &self,
        key: ChannelKey,
        ticket: Ticket,
        begin: Option<Box<Begin>>,
        behind: bool,
    ) {
        let Some(pending) = self.pending.borrow_mut().remove(&ticket) else { return };
        let mut channels = self.channels.borrow_mut();
        let Some(here) = channels.get_mut(&key) else { return };
        let Some(member) = here.members.get_mut(pending.member, ticket) else { return };
        let told = std::mem::replace(&mut member.told, true);
        let (session, channel) = (member.session.clone(), here.channel.clone());
        drop(channels);
        if !told {
            session.subscribed(&channel, begin.as_deref());
        } else if let Some(gap) = begin.as_ref().and_then(|begin| begin.gap.as_ref()) {
            session.gap(&channel, Some(gap));
        }
        let Some(begin) = begin else { return self.activate(key, pending.member, ticket) };
        if behind || !session.takes_backlog() {
            return session.is_behind(&channel, begin.place);
        }
        match self.send_backlog(&session, &begin) {
            None => self.activate(key, pending.member, ticket),
            Some(place) => session.is_behind(&channel, place),
        }
    }

    fn activate(&self, key: ChannelKey, member: usize, ticket: Ticket) {
        let mut channels = self.channels.borrow_mut();
        let here = channels.get_mut(&key);
        if let Some(member) = here.and_then(|here| here.members.get_mut(member, ticket)) {
            member.active = true;
        }
    }

    /// Sends as much of a backlog as the outbox has room for, at least one message; gives the
    /// place that was reached, if there is more.
    fn send_backlog(&self, session: &Rc<dyn Session>, begin: &Begin) -> Option<Cursor> {
        let (bytes, messages) = session.outbox().room();
        let mut size = 0;
        let fits = begin.backlog.iter().take(messages).take_while(|message| {
            size += message.message.payload.len() + 256;
            size <= bytes
        });
        let (now, later) = begin.backlog.split_at(fits.count().max(1).min(begin.backlog.len()));
        if !now.is_empty() {
            let mut tally = Tally::default();
            let batch = Batch::new(now.to_vec(), false, self.settings.compress_from);
            batch.send(&**session, &mut tally);
            self.count_out(&tally);
        }
        later.first().and_then(|_| now.last()).and_then(|last| last.cursor())
    }
}

//! A channel's subscribers on one lane.
//!
//! Each has a slot, found without a search. After a crowd has left, those who stayed are moved
//! together and the memory is given back; who was moved is found by a small table that names only
//! those. The lane does that once a second, never while it writes to the channel's subscribers.

use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;
use tidewire_protocol::Channel;

use crate::inbox::Ticket;
use crate::session::Session;
use crate::wire::Encoded;

/// Fewer slots are not worth the work.
const MIN_SLOTS: usize = 64;
/// Messages that are kept for subscriptions whose beginning waits.
const MAX_MISSED: usize = 1_024;

/// A channel that somebody on the lane is subscribed to.
pub(crate) struct LaneChannel {
    pub(crate) channel: Channel,
    /// Tells it from one of the same number that was here before.
    pub(crate) born: Ticket,
    /// Its messages may be dropped out of a slow client's outbox.
    pub(crate) may_drop: bool,
    pub(crate) members: Members,
    /// Messages of this turn.
    pub(crate) turn: Vec<Arc<Encoded>>,
    /// Beginnings that wait for a later turn.
    pub(crate) late: Late,
}

/// One subscriber.
pub(crate) struct Member {
    pub(crate) session: Rc<dyn Session>,
    pub(crate) ticket: Ticket,
    /// What is published is written to it.
    pub(crate) active: bool,
    /// It was told that it is subscribed.
    pub(crate) told: bool,
}

/// The subscribers, in slots.
#[derive(Default)]
pub(crate) struct Members {
    slab: Slab<Member>,
    /// Where those are now that do not have the slot any more that they were given.
    moved: Option<Box<HashMap<Ticket, usize>>>,
    /// It is known to be sparse, and waits for the sweep.
    pub(crate) noted_sparse: bool,
}

impl Members {
    pub(crate) fn insert(&mut self, member: Member) -> usize {
        self.slab.insert(member)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// One past the last slot.
    pub(crate) fn end(&self) -> usize {
        self.slab.capacity()
    }

    /// Who is in a slot now.
    pub(crate) fn at(&self, slot: usize) -> Option<&Member> {
        self.slab.get(slot)
    }

    /// The subscriber with this ticket, which was once given this slot.
    pub(crate) fn get_mut(&mut self, slot: usize, ticket: Ticket) -> Option<&mut Member> {
        let slot = self.slot_of(slot, ticket)?;
        self.slab.get_mut(slot)
    }

    /// Takes it out.
    pub(crate) fn remove(&mut self, slot: usize, ticket: Ticket) -> Option<Member> {
        let slot = self.slot_of(slot, ticket)?;
        if let Some(moved) = &mut self.moved {
            moved.remove(&ticket);
        }
        self.slab.try_remove(slot)
    }

    fn slot_of(&self, slot: usize, ticket: Ticket) -> Option<usize> {
        match self.slab.get(slot) {
            Some(found) if found.ticket == ticket => Some(slot),
            _ => self.moved.as_ref()?.get(&ticket).copied(),
        }
    }

    /// Whether three quarters of the slots are free.
    pub(crate) fn is_sparse(&self) -> bool {
        self.slab.capacity() >= MIN_SLOTS && 4 * self.slab.len() < self.slab.capacity()
    }

    /// Moves the subscribers together, and gives back the memory of the free slots.
    pub(crate) fn compact(&mut self) {
        let mut moved = self.moved.take().unwrap_or_default();
        self.slab.compact(|member, _, to| {
            moved.insert(member.ticket, to);
            true
        });
        moved.shrink_to_fit();
        self.moved = (!moved.is_empty()).then_some(moved);
    }

    /// All of them, taken out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Member> {
        self.slab.drain()
    }
}

/// Subscriptions that begin in a later turn than they were to, and the stored messages that they
/// have missed since.
#[derive(Default)]
pub(crate) struct Late {
    waiting: usize,
    missed: Vec<Arc<Encoded>>,
    /// More was missed than is kept here.
    overflow: bool,
}

impl Late {
    /// One more waits; gives the place in what is missed from which on it is owed to it.
    pub(crate) fn wait(&mut self) -> usize {
        self.waiting += 1;
        self.missed.len()
    }

    /// A message comes, which those who wait miss.
    pub(crate) fn miss(&mut self, message: &Arc<Encoded>) {
        // A live one is owed only to who has been told that it is subscribed.
        if self.waiting == 0 || message.message.stored.is_none() {
            return;
        }
        if self.missed.len() < MAX_MISSED {
            self.missed.push(message.clone());
        } else {
            self.overflow = true;
        }
    }

    /// Something else happened that those who wait miss.
    pub(crate) fn miss_gap(&mut self) {
        self.overflow |= self.waiting > 0;
    }

    /// One waits no longer: what it has missed, or `None` when that is not known.
    pub(crate) fn end(&mut self, from: usize) -> Option<Vec<Arc<Encoded>>> {
        self.waiting = self.waiting.saturating_sub(1);
        let missed = match self.overflow {
            true => None,
            false => self.missed.get(from..).map(<[_]>::to_vec),
        };
        if self.waiting == 0 {
            *self = Self::default();
        }
        missed
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::{Code, Cursor, SessionId};

    use super::*;
    use crate::outbox::{Outbox, OutboxLimits, Sink};
    use crate::stored::Begin;
    use crate::sweep::Beat;
    use crate::window::Gap;
    use crate::wire::Form;

    struct Deaf(Outbox);

    impl Session for Deaf {
        fn id(&self) -> SessionId {
            SessionId::random()
        }
        fn form(&self) -> Form {
            Form::Json
        }
        fn outbox(&self) -> &Outbox {
            &self.0
        }
        fn subscribed(&self, _: &Channel, _: Option<&Begin>) {}
        fn refused(&self, _: &Channel, _: Code) {}
        fn gap(&self, _: &Channel, _: Option<&Gap>) {}
        fn takes_backlog(&self) -> bool {
            true
        }
        fn is_behind(&self, _: &Channel, _: Cursor) {}
        fn passed_over(&self, _: &Encoded) {}
        fn beat(&self, _: Beat) {}
        fn shutdown(&self, _: std::time::Duration) {}
        fn end(&self) {}
    }

    fn crowd(members: &mut Members, tickets: std::ops::Range<u64>) -> Vec<(usize, Ticket)> {
        let limits = OutboxLimits { bytes: 1, messages: 1 };
        let session: Rc<dyn Session> =
            Rc::new(Deaf(Outbox::new(Sink::Fetched, Form::Json, limits, false)));
        let insert = |ticket| {
            let (session, ticket) = (session.clone(), Ticket(ticket));
            (members.insert(Member { session, ticket, active: true, told: true }), ticket)
        };
        tickets.map(insert).collect()
    }

    #[test]
    fn who_stays_is_found_and_the_memory_of_the_others_is_given_back() {
        let mut members = Members::default();
        let mut all = crowd(&mut members, 0..10_000);
        for round in 0..3 {
            let stay = all.split_off(all.len() - 2_000 / (round + 1));
            for (slot, ticket) in all {
                assert_eq!(members.remove(slot, ticket).unwrap().ticket, ticket);
                assert!(members.remove(slot, ticket).is_none());
            }
            assert!(members.is_sparse());
            members.compact();
            assert!(members.end() <= 2 * stay.len() && !members.is_sparse());
            for (slot, ticket) in &stay {
                assert_eq!(members.get_mut(*slot, *ticket).unwrap().ticket, *ticket);
            }
            let met = (0..members.end()).filter(|slot| members.at(*slot).is_some()).count();
            assert_eq!(met, stay.len());
            all = stay;
            all.extend(crowd(
                &mut members,
                100_000 * (round as u64 + 1)..100_000 * (round as u64 + 1) + 8_000,
            ));
        }
        for (slot, ticket) in all {
            assert!(members.remove(slot, ticket).is_some());
        }
        assert!(members.is_empty() && members.moved.is_none_or(|moved| moved.is_empty()));
    }
}

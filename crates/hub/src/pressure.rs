//! What waits for the clients of a lane, all together, and the end of those for whom most does.
//!
//! Whoever bounds it for the node asks the lanes now and then; nothing is counted in between, so
//! that a message costs no more for it. Sessions are asked for their outboxes; what else a connection keeps
//! for its client, such as answers that nobody reads, it notes in its [`Unread`].

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tidewire_protocol::SessionId;

use crate::lane::Lane;
use crate::outbox::Failure;

/// What waits for one client.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// In bytes. What several clients wait for counts for each of them.
    pub bytes: usize,
    slot: usize,
    whose: Whose,
}

#[derive(Debug, Clone, Copy)]
enum Whose {
    Session(SessionId),
    Unread(u64),
}

impl Lane {
    /// The clients for whom anything waits.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waits> {
        let (sessions, unread) = (self.sessions.borrow(), self.unread.borrow());
        let sessions = sessions.iter().map(|(slot, session)| Waits {
            bytes: session.outbox().waits(),
            slot,
            whose: Whose::Session(session.id()),
        });
        let unread = unread.slab.iter().map(|(slot, notes)| Waits {
            bytes: if notes.given_up.get() { 0 } else { notes.bytes.get() },
            slot,
            whose: Whose::Unread(notes.number.get()),
        });
        sessions.chain(unread).filter(|waits| waits.bytes > 0).collect()
    }

    /// Ends a client's session as slow, or its connection, and drops what waits for it; false if it has
    /// ended meanwhile.
    pub fn give_up(&self, waits: &Waits) -> bool {
        match waits.whose {
            Whose::Session(id) => {
                let session = self.sessions.borrow().get(waits.slot).cloned();
                let Some(session) = session.filter(|session| session.id() == id) else {
                    return false;
                };
                session.outbox().fail(Failure::Slow);
                true
            }
            Whose::Unread(number) => {
                let notes = self.unread.borrow().slab.get(waits.slot).cloned();
                let Some(notes) = notes.filter(|notes| notes.number.get() == number) else {
                    return false;
                };
                notes.give_up()
            }
        }
    }
}

/// Those of a lane who have noted anything, by slots that stay.
#[derive(Default)]
pub(crate) struct AllUnread {
    slab: Slab<Rc<Notes>>,
    next: u64,
}

/// What is kept for a connection's client besides the outboxes of its sessions. The lane counts it until
/// this is dropped.
pub struct Unread {
    lane: Rc<Lane>,
    notes: Rc<Notes>,
    /// Known to the lane from the first bytes on: most connections never have any.
    slot: Cell<Option<usize>>,
}

#[derive(Default)]
struct Notes {
    bytes: Cell<usize>,
    /// Tells one from another that has its slot later.
    number: Cell<u64>,
    given_up: Cell<bool>,
    /// Of the connection's task.
    waker: Cell<Option<Waker>>,
}

impl Unread {
    /// Nothing yet.
    #[must_use]
    pub fn new(lane: &Rc<Lane>) -> Self {
        Self { lane: lane.clone(), notes: Rc::default(), slot: Cell::new(None) }
    }

    /// Something that waits for the client; it counts in what is kept as long as it lives.
    #[must_use]
    pub fn note(self: &Rc<Self>) -> UnreadNote {
        UnreadNote { unread: self.clone(), bytes: 0 }
    }

    /// Ready when the connection must end, because the node keeps too much for it. Else its task is woken
    /// then.
    pub fn poll_given_up(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_given_up() {
            return Poll::Ready(());
        }
        let waker = match self.notes.waker.take() {
            Some(waker) if waker.will_wake(cx.waker()) => waker,
            _ => cx.waker().clone(),
        };
        self.notes.waker.set(Some(waker));
        Poll::Pending
    }

    /// Whether the connection must end.
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.notes.given_up.get()
    }

    fn change(&self, before: usize, after: usize) {
        self.notes.bytes.set(self.notes.bytes.get() - before + after);
        if self.slot.get().is_none() {
            let mut all = self.lane.unread.borrow_mut();
            self.notes.number.set(all.next);
            all.next += 1;
            self.slot.set(Some(all.slab.insert(self.notes.clone())));
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.get() {
            self.lane.unread.borrow_mut().slab.remove(slot);
        }
    }
}

impl Notes {
    /// Has the connection end; false if it does already.
    fn give_up(&self) -> bool {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        !self.given_up.replace(true)
    }
}

/// Something that waits for a connection's client.
pub struct UnreadNote {
    unread: Rc<Unread>,
    bytes: usize,
}

impl UnreadNote {
    /// So many bytes of it wait now.
    pub fn set(&mut self, bytes: usize) {
        if self.bytes != bytes {
            self.unread.change(self.bytes, bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for UnreadNote {
    fn drop(&mut self) {
        self.set(0);
    }
}

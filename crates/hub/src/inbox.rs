//! What waits for a lane: one queue, in order, taken whole.
//!
//! Subscriptions, messages and gaps of a channel go through it one after the other, so that their
//! order needs no lock. It is bounded by asking first: a broker that finds no room waits before it
//! hands over more, and everything else in it belongs to a session that waits for it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::lane::Lane;
use crate::stored::Begin;
use crate::window::Gap;
use crate::wire::Encoded;

/// Messages that may wait for one lane before brokers are asked to wait. A lane that takes this
/// many in one turn writes them to each session in a few system calls; more would only make a
/// burst that no client's socket takes.
const ROOM_MESSAGES: usize = 512;
/// The same in bytes of payload.
const ROOM_BYTES: usize = 8 << 20;

/// A channel's number in this node; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelKey(pub(crate) u64);

/// A subscription's number in its lane; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// Work for a lane's thread.
pub(crate) type Work = Box<dyn FnOnce(&Rc<Lane>) + Send>;

/// One thing for a lane to do.
pub(crate) enum Op {
    /// Write this to the channel's subscribers.
    Deliver(ChannelKey, Arc<Encoded>),
    /// This subscription begins here; on a stored channel, like this.
    Start(ChannelKey, Ticket, Option<Box<Begin>>),
    /// Messages of the channel may be missing before what follows; on a stored one, these.
    Gap(ChannelKey, Option<Gap>),
    /// The channel cannot be had: end all its subscriptions.
    Refuse(ChannelKey),
    /// Do this on the lane's thread.
    Run(Work),
    /// End the thread.
    Stop,
}

/// The queue of one lane.
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    full: AtomicBool,
    room: Arc<Notify>,
}

#[derive(Default)]
struct Waiting {
    ops: Vec<Op>,
    messages: usize,
    bytes: usize,
}

impl Inbox {
    /// `room` is notified whenever a queue that was full has been taken.
    pub(crate) fn new(room: Arc<Notify>) -> Self {
        Self {
            waiting: Mutex::default(),
            arrived: Notify::new(),
            full: AtomicBool::new(false),
            room,
        }
    }

    /// Puts something at the end.
    pub(crate) fn push(&self, op: Op) {
        let mut waiting = self.waiting.lock();
        if let Op::Deliver(_, message) = &op {
            waiting.messages += 1;
            waiting.bytes += message.message.payload.len();
            if waiting.messages >= ROOM_MESSAGES || waiting.bytes >= ROOM_BYTES {
                self.full.store(true, Ordering::Relaxed);
            }
        }
        waiting.ops.push(op);
        let first = waiting.ops.len() == 1;
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
    }

    /// Whether more messages may come.
    pub(crate) fn has_room(&self) -> bool {
        !self.full.load(Ordering::Relaxed)
    }

    /// Waits until there is something, and takes all of it. `ops` must be empty; its memory serves
    /// the next turn.
    pub(crate) async fn take(&self, ops: &mut Vec<Op>) {
        while !self.try_take(ops) {
            self.arrived.notified().await;
        }
    }

    /// Takes all there is, if there is something. As [`Inbox::take`] else.
    pub(crate) fn try_take(&self, ops: &mut Vec<Op>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.ops.is_empty() {
            return false;
        }
        std::mem::swap(&mut waiting.ops, ops);
        waiting.messages = 0;
        waiting.bytes = 0;
        let was_full = self.full.swap(false, Ordering::Relaxed);
        drop(waiting);
        if was_full {
            self.room.notify_waiters();
        }
        true
    }
}

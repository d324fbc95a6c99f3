//! A lane: a thread that owns sessions and writes to them.
//!
//! A connection lives on one lane from its acceptance to its end, so that nothing of it is locked
//! or shared. A lane takes all that waits for it in one turn, and writes each channel's messages
//! of that turn at once.

mod delivery;
mod start;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use slab::Slab;
use tidewire_protocol::{Channel, Code, Cursor};

use crate::hub::Hub;
use crate::inbox::{ChannelKey, Inbox, Op, Ticket};
use crate::lanes::SessionCount;
use crate::members::{LaneChannel, Late, Member, Members};
use crate::pressure::AllUnread;
use crate::session::{Session, SessionSlot, Subscription};
use crate::socket::Socket;
use crate::stored::Start;
use start::{LateStart, STARTS_PER_TURN};

/// The shared buffer that sessions read into; none owns one while it is idle.
const SCRATCH_BYTES: usize = 64 << 10;

/// How a lane works. Its times are whole seconds.
#[derive(Debug, Clone, Copy)]
pub struct LaneSettings {
    /// Between two pings of a WebSocket.
    pub websocket_heartbeat: usize,
    /// From a ping to the check for its pong.
    pub websocket_grace: usize,
    /// Between two heartbeats of an event stream.
    pub sse_heartbeat: usize,
    /// Messages from so many bytes on are compressed for who agreed on that.
    pub compress_from: usize,
}

/// The lane. It never leaves its thread.
pub struct Lane {
    id: usize,
    hub: Arc<Hub>,
    settings: LaneSettings,
    count: Arc<SessionCount>,
    pub(crate) sessions: RefCell<Registry>,
    pub(crate) unread: RefCell<AllUnread>,
    channels: RefCell<HashMap<ChannelKey, LaneChannel>>,
    /// Subscriptions that have not begun yet.
    pending: RefCell<HashMap<Ticket, Pending>>,
    /// Beginnings that wait for a later turn, in order.
    late: RefCell<VecDeque<LateStart>>,
    /// Channels that a crowd has left.
    sparse: RefCell<Vec<ChannelKey>>,
    /// The channel whose subscribers are being written to.
    writing_to: Cell<Option<ChannelKey>>,
    next_ticket: Cell<u64>,
    scratch: RefCell<Box<[u8]>>,
}

/// The sessions, in slots that stay.
#[derive(Default)]
pub(crate) struct Registry {
    slab: Slab<Rc<dyn Session>>,
}

struct Pending {
    key: ChannelKey,
    member: usize,
    deadline: Option<Instant>,
}

impl Registry {
    /// One past the highest slot that was ever used at a time.
    pub(crate) fn end(&self) -> usize {
        self.slab.capacity()
    }

    /// All, with their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Rc<dyn Session>)> {
        self.slab.iter()
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Rc<dyn Session>> {
        self.slab.get(slot)
    }
}

impl Lane {
    pub(crate) fn new(
        id: usize,
        hub: Arc<Hub>,
        count: Arc<SessionCount>,
        settings: LaneSettings,
    ) -> Rc<Self> {
        Rc::new(Self {
            id,
            hub,
            settings,
            count,
            sessions: RefCell::default(),
            unread: RefCell::default(),
            channels: RefCell::default(),
            pending: RefCell::default(),
            late: RefCell::default(),
            sparse: RefCell::default(),
            writing_to: Cell::new(None),
            next_ticket: Cell::new(0),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into()),
        })
    }

    /// Takes a session in.
    pub fn attach(&self, session: Rc<dyn Session>) -> SessionSlot {
        self.count.add();
        SessionSlot(self.sessions.borrow_mut().slab.insert(session))
    }

    /// Lets a session go. Its subscriptions must be given back, too.
    #[allow(clippy::needless_pass_by_value, reason = "a slot is given back once")]
    pub fn detach(&self, slot: SessionSlot) {
        let session = self.sessions.borrow_mut().slab.remove(slot.0);
        let (outbox, metrics) = (session.outbox(), &self.hub.metrics);
        let transport = session.form().transport();
        metrics.dropped.add(transport, outbox.dropped().into());
        metrics.skipped.add(transport, outbox.take_skipped().into());
        self.count.remove();
    }

    /// The shared read buffer, for use up to the next `.await`.
    ///
    /// # Panics
    /// If it is in use already: nobody keeps it over an `.await`.
    pub fn scratch(&self) -> std::cell::RefMut<'_, Box<[u8]>> {
        self.scratch.borrow_mut()
    }

    /// Reads and forgets what a client sends, until it closes its side. Nothing of it is decrypted.
    pub async fn read_away(&self, socket: &Socket) {
        let tcp = socket.tcp();
        while poll_fn(|cx| tcp.poll_read_ready(cx)).await.is_ok() {
            match tcp.try_read(&mut self.scratch()) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Subscribes a session. [`Session::subscribed`] or [`Session::refused`] follows; the latter
    /// also when the broker has not answered within `patience`, if there is a limit.
    pub fn subscribe(
        &self,
        session: Rc<dyn Session>,
        channel: &Channel,
        start: Start,
        patience: Option<Duration>,
    ) -> Subscription {
        let ticket = Ticket(self.next_ticket.get());
        self.next_ticket.set(ticket.0 + 1);
        let key = self.hub.subscribe(self.id, ticket, channel, start);
        let mut channels = self.channels.borrow_mut();
        let here = channels.entry(key).or_insert_with(|| LaneChannel {
            channel: channel.clone(),
            may_drop: self.hub.may_drop(channel),
            born: ticket,
            members: Members::default(),
            turn: Vec::new(),
            late: Late::default(),
        });
        let member = here.members.insert(Member { session, ticket, active: false, told: false });
        let deadline = patience.map(|patience| Instant::now() + patience);
        self.pending.borrow_mut().insert(ticket, Pending { key, member, deadline });
        Subscription { channel: channel.clone(), key, member, ticket }
    }

    /// Lets a subscription that is behind go on from a place.
    pub fn go_on(&self, subscription: &Subscription, from: Cursor) {
        let Subscription { channel, key, member, ticket } = subscription;
        let pending = Pending { key: *key, member: *member, deadline: None };
        self.pending.borrow_mut().insert(*ticket, pending);
        self.hub.go_on(self.id, *ticket, channel, *key, from);
    }

    /// Ends a subscription; nothing of the channel follows.
    pub fn unsubscribe(&self, subscription: &Subscription) {
        let Subscription { channel, key, member, ticket } = subscription;
        self.remove(*key, *member, *ticket);
        self.hub.unsubscribe(self.id, *ticket, channel, *key);
    }

    fn remove(&self, key: ChannelKey, member: usize, ticket: Ticket) -> Option<Member> {
        self.pending.borrow_mut().remove(&ticket);
        let mut channels = self.channels.borrow_mut();
        let here = channels.get_mut(&key)?;
        let removed = here.members.remove(member, ticket)?;
        if here.members.is_empty() {
            channels.remove(&key);
        } else if here.members.is_sparse() && !here.members.noted_sparse {
            here.members.noted_sparse = true;
            self.sparse.borrow_mut().push(key);
        }
        Some(removed)
    }

    /// Gives back the memory of crowds that have left; called about once a second.
    pub(crate) fn compact(&self) {
        let mut channels = self.channels.borrow_mut();
        self.sparse.borrow_mut().retain(|key| {
            let Some(here) = channels.get_mut(key) else { return false };
            // Its subscribers are being counted through.
            if self.writing_to.get() == Some(*key) {
                return true;
            }
            here.members.noted_sparse = false;
            if here.members.is_sparse() {
                here.members.compact();
            }
            false
        });
        let mut pending = self.pending.borrow_mut();
        if channels.capacity() > 4 * channels.len().max(64) {
            channels.shrink_to_fit();
        }
        if pending.capacity() > 4 * pending.len().max(64) {
            pending.shrink_to_fit();
        }
    }

    /// Has the session in that slot look whether it may go on, if there is one.
    pub fn reconsider(&self, slot: usize) {
        let session = self.sessions.borrow().get(slot).cloned();
        if let Some(session) = session {
            session.reconsider();
        }
    }

    /// Its number among the node's lanes, which stand in [`crate::Lanes::handles`] in this order.
    #[must_use]
    pub const fn number(&self) -> usize {
        self.id
    }

    /// Tells each session when to come back, evenly spread over `time`, and ends it then.
    pub fn drain(self: &Rc<Self>, time: Duration) {
        let sessions: Vec<_> =
            self.sessions.borrow().slab.iter().map(|(_, session)| session.clone()).collect();
        let count = sessions.len().max(1) as u32;
        let start = tokio::time::Instant::now();
        let due: Vec<_> = (1..).map(|n| time * n / count).zip(sessions).collect();
        for (after, session) in &due {
            session.shutdown(*after);
        }
        tokio::task::spawn_local(async move {
            for (after, session) in due {
                tokio::time::sleep_until(start + after).await;
                session.end();
            }
        });
    }

    pub(crate) const fn settings(&self) -> &LaneSettings {
        &self.settings
    }

    /// The lane's work, until it is told to stop.
    pub(crate) async fn work(self: Rc<Self>, inbox: &Inbox) {
        let mut ops = Vec::new();
        let mut touched = Vec::new();
        loop {
            if self.late.borrow().is_empty() {
                inbox.take(&mut ops).await;
            } else {
                inbox.try_take(&mut ops);
            }
            let mut starts = STARTS_PER_TURN;
            for op in ops.drain(..) {
                match op {
                    Op::Deliver(key, message) => self.note(key, message, &mut touched),
                    Op::Start(key, ticket, begin) => {
                        if starts == 0 || !self.late.borrow().is_empty() {
                            self.start_later(key, ticket, begin);
                            continue;
                        }
                        starts -= 1;
                        self.deliver(key).await;
                        self.start(key, ticket, begin, false);
                    }
                    Op::Gap(key, gap) => {
                        self.deliver(key).await;
                        self.gap(key, gap).await;
                    }
                    Op::Refuse(key) => self.refuse(key),
                    Op::Run(work) => work(&self),
                    Op::Stop => return,
                }
            }
            for key in touched.drain(..) {
                self.deliver(key).await;
            }
            self.start_late(starts);
            // Under load the next turn is there already; the sessions' tasks get the thread first.
            tokio::task::yield_now().await;
        }
    }

    fn refuse(&self, key: ChannelKey) {
        let Some(mut here) = self.channels.borrow_mut().remove(&key) else { return };
        for member in here.members.drain() {
            self.pending.borrow_mut().remove(&member.ticket);
            member.session.refused(&here.channel, Code::Unavailable);
        }
    }

    /// Refuses subscriptions that the broker did not confirm in time.
    pub(crate) fn refuse_late(&self) {
        let now = Instant::now();
        let late: Vec<_> = {
            let pending = self.pending.borrow();
            let is_late = |p: &Pending| p.deadline.is_some_and(|deadline| deadline <= now);
            let late = pending.iter().filter(|(_, p)| is_late(p));
            late.map(|(ticket, p)| (*ticket, p.key, p.member)).collect()
        };
        for (ticket, key, member) in late {
            let channel = self.channels.borrow().get(&key).map(|here| here.channel.clone());
            if let (Some(channel), Some(member)) = (channel, self.remove(key, member, ticket)) {
                self.hub.unsubscribe(self.id, ticket, &channel, key);
                member.session.refused(&channel, Code::Unavailable);
            }
        }
    }
}

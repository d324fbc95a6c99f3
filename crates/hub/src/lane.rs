//! A lane: a thread that owns sessions and writes to them.
//!
//! A connection lives on one lane from its acceptance to its end, so that nothing of it is locked
//! or shared. A lane takes all that waits for it in one turn, and writes each channel's messages
//! of that turn at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use hashbrown::HashMap;
use slab::Slab;
use tidewire_protocol::{Channel, Code, Cursor, SessionId};
use tokio::net::TcpStream;

use crate::fanout::{Batch, Tally};
use crate::hub::Hub;
use crate::inbox::{ChannelKey, Inbox, Op, Ticket};
use crate::lanes::SessionCount;
use crate::outbox::Outbox;
use crate::stored::{Begin, Start};
use crate::sweep::Beat;
use crate::window::Gap;
use crate::wire::{Encoded, Form, Transport};

/// Sockets written to before others get the thread: some 2 ms.
const YIELD_AFTER: usize = 256;
/// The shared buffer that sessions read into; none owns one while it is idle.
const SCRATCH_BYTES: usize = 64 << 10;

/// Times of a lane, in whole seconds.
#[derive(Debug, Clone, Copy)]
pub struct LaneSettings {
    /// Between two pings of a WebSocket.
    pub websocket_heartbeat: usize,
    /// From a ping to the check for its pong.
    pub websocket_grace: usize,
    /// Between two heartbeats of an event stream.
    pub sse_heartbeat: usize,
}

/// A client's connection, as the lane sees it. Its methods are called on the lane's thread and, but
/// for [`Session::beat`], do not call the lane back.
pub trait Session {
    /// Its name.
    fn id(&self) -> SessionId;
    /// The bytes it wants.
    fn form(&self) -> Form;
    /// Where they go.
    fn outbox(&self) -> &Outbox;
    /// The subscription holds; what is sent from now on follows. On a stored channel with how it
    /// begins, whose backlog the lane sends.
    fn subscribed(&self, channel: &Channel, begin: Option<&Begin>);
    /// The subscription is at an end, or never began. The lane has forgotten it.
    fn refused(&self, channel: &Channel, code: Code);
    /// Messages may be missing here; on a stored channel, those between two places.
    fn gap(&self, channel: &Channel, gap: Option<&Gap>);
    /// Whether a backlog may be sent now; else it is behind, at the place where it begins.
    fn takes_backlog(&self) -> bool;
    /// The backlog did not fit into the outbox: the session goes on from this place with
    /// [`Lane::go_on`] once that is empty.
    fn is_behind(&self, channel: &Channel, place: Cursor);
    /// Whether it follows the place of each message that it is sent.
    fn tracks(&self) -> bool {
        false
    }
    /// A message is about to be sent to a session that tracks: what goes before it.
    fn before(&self, _message: &Encoded) -> Option<BytesMut> {
        None
    }
    /// A message that is not for it was left out.
    fn passed_over(&self, message: &Encoded);
    /// The sweep passes by.
    fn beat(&self, beat: Beat);
    /// The node stops: come back in so many milliseconds. The session is ended then by
    /// [`Session::end`].
    fn shutdown(&self, reconnect: Duration);
    /// The node stops now.
    fn end(&self);
}

/// A session's place in its lane.
#[derive(Debug)]
pub struct SessionSlot(usize);

/// A session's subscription to a channel.
#[derive(Debug)]
pub struct Subscription {
    /// The channel.
    pub channel: Channel,
    key: ChannelKey,
    member: usize,
    ticket: Ticket,
}

/// The lane. It never leaves its thread.
pub struct Lane {
    id: usize,
    hub: Arc<Hub>,
    settings: LaneSettings,
    count: Arc<SessionCount>,
    pub(crate) sessions: RefCell<Registry>,
    channels: RefCell<HashMap<ChannelKey, LaneChannel>>,
    /// Subscriptions that have not begun yet.
    pending: RefCell<HashMap<Ticket, Pending>>,
    next_ticket: Cell<u64>,
    scratch: RefCell<Box<[u8]>>,
}

/// The sessions, in slots that stay.
#[derive(Default)]
pub(crate) struct Registry {
    slab: Slab<Rc<dyn Session>>,
}

struct LaneChannel {
    channel: Channel,
    /// Its messages may be dropped out of a slow client's outbox.
    may_drop: bool,
    members: Slab<Member>,
    /// Messages of this turn.
    turn: Vec<Arc<Encoded>>,
}

struct Member {
    session: Rc<dyn Session>,
    ticket: Ticket,
    /// What is published is written to it.
    active: bool,
    /// It was told that it is subscribed.
    told: bool,
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
            channels: RefCell::default(),
            pending: RefCell::default(),
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

    /// Reads and forgets what a client sends, until it closes its side.
    pub async fn read_away(&self, socket: &TcpStream) {
        while poll_fn(|cx| socket.poll_read_ready(cx)).await.is_ok() {
            match socket.try_read(&mut self.scratch()) {
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
            members: Slab::new(),
            turn: Vec::new(),
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
        here.members.get(member).filter(|found| found.ticket == ticket)?;
        let removed = here.members.remove(member);
        if here.members.is_empty() {
            channels.remove(&key);
        }
        Some(removed)
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
            inbox.take(&mut ops).await;
            for op in ops.drain(..) {
                match op {
                    Op::Deliver(key, message) => self.note(key, message, &mut touched),
                    Op::Start(key, ticket, begin) => {
                        self.deliver(key).await;
                        self.start(key, ticket, begin);
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
            // Under load the next turn is there already; the sessions' tasks get the thread first.
            tokio::task::yield_now().await;
        }
    }

    /// Notes a message for the end of the turn.
    fn note(&self, key: ChannelKey, message: Arc<Encoded>, touched: &mut Vec<ChannelKey>) {
        if let Some(here) = self.channels.borrow_mut().get_mut(&key) {
            if here.turn.is_empty() {
                touched.push(key);
            }
            here.turn.push(message);
        }
    }

    /// Writes the turn's messages of a channel to its subscribers.
    async fn deliver(&self, key: ChannelKey) {
        let batch = match self.channels.borrow_mut().get_mut(&key) {
            Some(here) if !here.turn.is_empty() => {
                Batch::new(std::mem::take(&mut here.turn), here.may_drop)
            }
            _ => return,
        };
        let began = Instant::now();
        let mut tally = Tally::default();
        self.for_members(key, |session| batch.send(&**session, &mut tally)).await;
        self.account(&batch, &tally, began);
    }

    fn account(&self, batch: &Batch, tally: &Tally, began: Instant) {
        let metrics = &self.hub.metrics;
        self.count_out(tally);
        metrics.fanout.record(began.elapsed());
        for one in batch.messages() {
            metrics.delivery.record(one.message.timestamp.elapsed());
        }
    }

    fn count_out(&self, tally: &Tally) {
        let metrics = &self.hub.metrics;
        for transport in Transport::ALL {
            let of = transport as usize;
            metrics.messages_out.add(transport, tally.messages[of]);
            metrics.bytes_out.add(transport, tally.bytes[of]);
            metrics.skipped.add(transport, tally.skipped[of]);
        }
    }

    /// Calls `act` for every subscriber whose subscription has begun, giving the thread to others
    /// from time to time. Who leaves meanwhile is left out; slots stay where they are, and only
    /// this task begins subscriptions, so that nobody is met twice.
    async fn for_members(&self, key: ChannelKey, mut act: impl FnMut(&Rc<dyn Session>)) {
        let mut next = 0;
        loop {
            {
                let channels = self.channels.borrow();
                let Some(here) = channels.get(&key) else { return };
                let end = here.members.capacity().min(next + YIELD_AFTER);
                for member in (next..end).filter_map(|slot| here.members.get(slot)) {
                    if member.active {
                        act(&member.session);
                    }
                }
                if end == here.members.capacity() {
                    return;
                }
                next = end;
            }
            tokio::task::yield_now().await;
        }
    }

    fn start(&self, key: ChannelKey, ticket: Ticket, begin: Option<Box<Begin>>) {
        let Some(pending) = self.pending.borrow_mut().remove(&ticket) else { return };
        let mut channels = self.channels.borrow_mut();
        let Some(here) = channels.get_mut(&key) else { return };
        let Some(member) = here.members.get_mut(pending.member) else { return };
        let told = std::mem::replace(&mut member.told, true);
        let (session, channel) = (member.session.clone(), here.channel.clone());
        drop(channels);
        if !told {
            session.subscribed(&channel, begin.as_deref());
        } else if let Some(gap) = begin.as_ref().and_then(|begin| begin.gap.as_ref()) {
            session.gap(&channel, Some(gap));
        }
        let Some(begin) = begin else { return self.activate(key, pending.member) };
        if !session.takes_backlog() {
            return session.is_behind(&channel, begin.place);
        }
        match self.send_backlog(&session, &begin) {
            None => self.activate(key, pending.member),
            Some(place) => session.is_behind(&channel, place),
        }
    }

    fn activate(&self, key: ChannelKey, member: usize) {
        let mut channels = self.channels.borrow_mut();
        if let Some(member) = channels.get_mut(&key).and_then(|here| here.members.get_mut(member)) {
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
            let batch = Batch::new(now.to_vec(), false);
            batch.send(&**session, &mut tally);
            self.count_out(&tally);
        }
        later.first().and_then(|_| now.last()).and_then(|last| last.cursor())
    }

    async fn gap(&self, key: ChannelKey, gap: Option<Gap>) {
        let channel = self.channels.borrow().get(&key).map(|here| here.channel.clone());
        if let Some(channel) = channel {
            self.for_members(key, |session| session.gap(&channel, gap.as_ref())).await;
        }
    }

    fn refuse(&self, key: ChannelKey) {
        let Some(here) = self.channels.borrow_mut().remove(&key) else { return };
        for (_, member) in here.members {
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

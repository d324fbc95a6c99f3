//! A session: one client's connection, whatever its transport.
//!
//! It lives on its lane's thread. The lane calls it through [`tidewire_hub::Session`]; a task of
//! its own (`websocket`, `sse`) reads from the client and ends it. What differs between transports
//! is how a reply is written and what the client may say.

mod closing;
mod poll;
mod request;
mod sse;
mod websocket;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tidewire_hub::{
    Beat, Begin, Encoded, Failure, Form, Gap, Lane, Outbox, Progress, SessionSlot, Sink, Start,
    Subscription, Transport,
};
use tidewire_protocol::{
    Acked, Channel, Code, Cursor, FrameId, Reply, SessionId, StreamToken, WelcomeChannel, Welcomed,
    sse as events,
};
use tidewire_websocket as codec;

use crate::app::App;
use crate::metrics::Reason;
use crate::takeover::Takeover;
pub(crate) use closing::End;
pub(crate) use poll::Polled;
pub(crate) use sse::SessionBody;

/// A client's errors that end its session, and the seconds within which they do.
const MAX_ERRORS: u32 = 10;
const ERROR_SECONDS: u32 = 10;

/// One client's connection.
pub(crate) struct Session {
    id: SessionId,
    form: Form,
    app: Arc<App>,
    lane: Rc<Lane>,
    slot: Cell<Option<SessionSlot>>,
    outbox: Outbox,
    held: RefCell<Vec<Held>>,
    /// Channels of the address whose subscription is not decided yet; the welcome waits for them.
    undecided: Cell<u16>,
    /// Channels of the address that were refused before the welcome.
    denied: RefCell<Vec<(Channel, Code)>>,
    end: Cell<Option<End>>,
    in_flight: Cell<u16>,
    /// A ping was sent, and nothing has come since.
    unanswered: Cell<bool>,
    /// Read, but not acted on: too many publishes were waiting.
    unfed: RefCell<Vec<u8>>,
    /// When an unfinished message began, in the node's seconds.
    partial_since: Cell<Option<u32>>,
    /// What the outbox had done at the last heartbeat.
    progress: Cell<Progress>,
    /// When the client's errors began to be counted, and how many there are.
    errors: Cell<(u32, u32)>,
    /// The places of its stored channels, as the client of an event stream or a poll will hold
    /// them.
    places: RefCell<StreamToken>,
    /// Subscriptions whose backlog did not fit: they go on from here once the outbox is empty.
    behind: RefCell<Vec<(Channel, Cursor)>>,
    /// What a poll is told besides messages.
    gaps: RefCell<Vec<(Channel, Gap)>>,
}

/// A subscription and what it waits for.
struct Held {
    subscription: Subscription,
    state: State,
}

enum State {
    /// Named in the address; the broker has not confirmed it.
    Undecided,
    /// Named in the address and confirmed; the welcome will say so, and tell the gap behind it.
    Confirmed(Option<Cursor>, Option<bool>, Option<Gap>),
    /// Asked for by this frame.
    Asked(Option<FrameId>),
    /// Messages flow.
    Active,
}

impl Session {
    /// Makes a session and subscribes it to the channels of its address. Until all of them are
    /// decided, and the welcome is written, what is sent to it is held back.
    pub(crate) fn start(
        app: &Arc<App>,
        lane: &Rc<Lane>,
        sink: Sink,
        takeover: Takeover,
    ) -> Rc<Self> {
        let Takeover { form, channels, places, inflate: _, wait: _ } = takeover;
        let session = Rc::new(Self {
            id: SessionId::random(),
            form,
            app: app.clone(),
            lane: lane.clone(),
            slot: Cell::new(None),
            outbox: Outbox::new(sink, app.settings.outbox, true),
            // Of the right size at once: a vector that grows begins with room for four.
            held: RefCell::new(Vec::with_capacity(channels.len())),
            undecided: Cell::new(channels.len() as u16),
            denied: RefCell::default(),
            end: Cell::new(None),
            in_flight: Cell::new(0),
            unanswered: Cell::new(false),
            unfed: RefCell::default(),
            partial_since: Cell::new(None),
            progress: Cell::new(Progress { waiting: 0, written: 0 }),
            errors: Cell::new((0, 0)),
            places: RefCell::new(places),
            behind: RefCell::default(),
            gaps: RefCell::default(),
        });
        session.slot.set(Some(lane.attach(session.clone())));
        app.metrics.opened(form.transport());
        tracing::debug!(session = %session.id, transport = form.transport().as_str(), "opened");
        for (channel, start) in &channels {
            session.subscribe(channel, *start, State::Undecided);
        }
        if channels.is_empty() {
            session.welcome();
        }
        if app.is_draining() {
            // It came while the node's sessions were told: too late to be told with them.
            tidewire_hub::Session::shutdown(&*session, Duration::ZERO);
            session.finish(End::SHUTDOWN);
        }
        session
    }

    fn subscribe(self: &Rc<Self>, channel: &Channel, start: Start, state: State) {
        // An EventSource cannot be told "try again"; its stream waits, with heartbeats.
        let patience = match self.form.transport() {
            Transport::WebSocket | Transport::Poll => Some(self.app.settings.subscribe_timeout),
            Transport::Sse => None,
        };
        let subscription = self.lane.subscribe(self.clone(), channel, start, patience);
        self.held.borrow_mut().push(Held { subscription, state });
    }

    /// One more channel of the address is decided.
    fn decided(&self) {
        self.undecided.set(self.undecided.get() - 1);
        if self.undecided.get() == 0 {
            self.welcome();
        }
    }

    /// Writes the welcome, and lets go of what was held back for it.
    fn welcome(&self) {
        let (mut channels, mut gaps, mut has_id) = (Vec::new(), Vec::new(), true);
        for held in self.held.borrow_mut().iter_mut() {
            if let State::Confirmed(cursor, recovered, gap) = held.state {
                held.state = State::Active;
                let channel = held.subscription.channel.clone();
                match gap {
                    // Until the client has read of the gap, it stands before it.
                    Some(gap) => {
                        has_id &= gap.after.is_some();
                        self.moved_to(gap.after);
                        gaps.push((channel.clone(), gap));
                    }
                    None => self.moved_to(cursor),
                }
                channels.push(WelcomeChannel { channel, cursor, recovered });
            }
        }
        let settings = &self.app.settings;
        let heartbeat = match self.form.transport() {
            Transport::WebSocket => settings.websocket_heartbeat,
            Transport::Sse => settings.sse_heartbeat,
            Transport::Poll => {
                self.outbox.release(&Bytes::new());
                return gaps
                    .into_iter()
                    .for_each(|(channel, gap)| self.tell_gap(&channel, Some(gap)));
            }
        };
        let welcomed =
            Welcomed { session: self.id, heartbeat: heartbeat.as_secs(), channels: &channels };
        // Without an id, a client that held one nobody can read keeps it, and is told again.
        let mut first = if has_id { self.id_line() } else { Vec::new() };
        first.extend_from_slice(&self.encode(&Reply::Welcome(welcomed)));
        for (channel, code) in self.denied.take() {
            first.extend_from_slice(&self.encode(&Reply::Unsubscribed { channel: &channel, code }));
        }
        self.outbox.release(&first.into());
        gaps.into_iter().for_each(|(channel, gap)| self.tell_gap(&channel, Some(gap)));
    }

    fn encode(&self, reply: &Reply<'_>) -> Bytes {
        match self.form {
            Form::WebSocket(frames) => codec::encode_with(frames.kind(), 128, |out| {
                frames.subprotocol.write_reply(reply, out);
            }),
            Form::Sse(_) | Form::SseWithId(_) => {
                let mut out = Vec::new();
                events::write_control(reply, &mut out);
                out.into()
            }
            Form::Json => Bytes::new(),
        }
    }

    /// The line that sets the last id of an event stream's client; nothing where there is none.
    fn id_line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        let places = self.places.borrow();
        if self.form.transport() == Transport::Sse && !places.is_empty() {
            events::write_id(&places, &mut line);
        }
        line
    }

    /// Its client is now at this place.
    fn moved_to(&self, place: Option<Cursor>) {
        if let (Some(place), Transport::Sse | Transport::Poll) = (place, self.form.transport()) {
            self.places.borrow_mut().set(place);
        }
    }

    /// Lets subscriptions that are behind go on, once all that was sent is written.
    fn catch_up(&self) {
        let waits = self.undecided.get() > 0 || self.outbox.progress().waiting > 0;
        if waits || self.behind.borrow().is_empty() {
            return;
        }
        for (channel, place) in self.behind.take() {
            let held = self.held.borrow();
            if let Some(held) = held.iter().find(|held| held.subscription.channel == channel) {
                self.lane.go_on(&held.subscription, place);
            }
        }
    }

    fn reply(&self, reply: &Reply<'_>) {
        // Nothing follows a close frame.
        if self.end.get().is_some() {
            return;
        }
        self.outbox.send(&self.encode(reply), 0);
    }

    /// Ends the session; the first reason counts. Its task does the rest.
    fn finish(&self, end: End) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
            self.outbox.wake();
        }
    }

    /// How it ended, or failed, if it has.
    fn ended(&self) -> Option<End> {
        self.end.get().or_else(|| self.outbox.failure().map(End::of_failure))
    }

    /// Gives back everything that the lane and the hub hold of it. Called once, at its end.
    fn leave(&self, reason: Reason) {
        for held in self.held.take() {
            self.lane.unsubscribe(&held.subscription);
        }
        if let Some(slot) = self.slot.take() {
            self.lane.detach(slot);
            self.app.metrics.closed(self.form.transport(), reason);
            tracing::debug!(session = %self.id, ?reason, "closed");
        }
    }
}

impl tidewire_hub::Session for Session {
    fn id(&self) -> SessionId {
        self.id
    }

    fn form(&self) -> Form {
        self.form
    }

    fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    fn subscribed(&self, channel: &Channel, begin: Option<&Begin>) {
        let (cursor, recovered) = begin.map_or((None, None), |it| (Some(it.place), it.recovered));
        let gap = begin.and_then(|begin| begin.gap);
        let mut all = self.held.borrow_mut();
        let Some(held) = all.iter_mut().find(|held| held.subscription.channel == *channel) else {
            return;
        };
        match std::mem::replace(&mut held.state, State::Active) {
            State::Undecided => {
                held.state = State::Confirmed(cursor, recovered, gap);
                drop(all);
                self.decided();
            }
            State::Asked(id) => {
                drop(all);
                let acked = Acked { cursor, recovered, ..Acked::default() };
                self.reply(&Reply::Ack { id: id.as_ref(), acked });
                self.tell_gap(channel, gap);
            }
            State::Confirmed(..) | State::Active => {}
        }
    }

    fn refused(&self, channel: &Channel, code: Code) {
        let mut all = self.held.borrow_mut();
        let Some(at) = all.iter().position(|held| held.subscription.channel == *channel) else {
            return;
        };
        let held = all.swap_remove(at);
        drop(all);
        self.app.metrics.error(code);
        match held.state {
            State::Undecided => {
                self.denied.borrow_mut().push((channel.clone(), code));
                self.decided();
            }
            State::Asked(id) => {
                let message = "the broker has not confirmed the subscription; try again";
                self.reply(&Reply::Error { id: id.as_ref(), code, message, retry: Some(1_000) });
            }
            State::Confirmed(..) | State::Active => {
                self.reply(&Reply::Unsubscribed { channel, code });
            }
        }
    }

    fn gap(&self, channel: &Channel, gap: Option<&Gap>) {
        self.tell_gap(channel, Some(gap.copied().unwrap_or_default()));
    }

    fn takes_backlog(&self) -> bool {
        // Ids of an event stream name all its places, which are known once all are decided.
        self.undecided.get() == 0
    }

    fn is_behind(&self, channel: &Channel, place: Cursor) {
        self.behind.borrow_mut().push((channel.clone(), place));
        self.outbox.wake();
    }

    fn tracks(&self) -> bool {
        match self.form {
            Form::Sse(_) => !self.places.borrow().is_empty(),
            Form::Json => true,
            Form::WebSocket(_) | Form::SseWithId(_) => false,
        }
    }

    fn before(&self, message: &Encoded) -> Option<BytesMut> {
        let place = message.cursor()?;
        self.moved_to(Some(place));
        let line = self.id_line();
        (!line.is_empty()).then(|| BytesMut::from(&line[..]))
    }

    fn passed_over(&self, message: &Encoded) {
        let Some(cursor) = message.cursor() else { return };
        self.moved_to(Some(cursor));
        match self.form.transport() {
            Transport::WebSocket => {
                self.reply(&Reply::Position { channel: &message.channel, cursor });
            }
            // An id alone moves the client's last id and fires nothing (HTML standard, 9.2.6).
            Transport::Sse => {
                let mut line = self.id_line();
                line.push(b'\n');
                self.outbox.send(&line.into(), 0);
            }
            Transport::Poll => {}
        }
    }

    fn beat(&self, beat: Beat) {
        match self.form.transport() {
            Transport::WebSocket => self.beat_websocket(beat),
            Transport::Sse => self.beat_sse(beat),
            Transport::Poll => {}
        }
    }

    fn shutdown(&self, reconnect: Duration) {
        let millis = u64::try_from(reconnect.as_millis()).unwrap_or(u64::MAX);
        self.reply(&Reply::Shutdown { reconnect: millis });
        if self.form.transport() == Transport::Sse {
            // The stream ends when the client is due; it then comes back at once, but not all in
            // the same instant.
            let mut out = Vec::new();
            events::write_retry(fastrand::u64(50..500), &mut out);
            self.outbox.send(&out.into(), 0);
        }
    }

    fn end(&self) {
        self.finish(End::SHUTDOWN);
        // A stream that its client does not read is not polled, and would hold up the node's end.
        if self.outbox.socket().is_none() {
            self.leave(Reason::Shutdown);
        }
    }
}

impl Session {
    fn tell_gap(&self, channel: &Channel, gap: Option<Gap>) {
        let Some(gap) = gap else { return };
        self.moved_to(gap.cursor);
        if self.form == Form::Json {
            self.gaps.borrow_mut().push((channel.clone(), gap));
            return self.outbox.wake();
        }
        let Gap { after, cursor } = gap;
        let mut event = if cursor.is_some() { self.id_line() } else { Vec::new() };
        event.extend_from_slice(&self.encode(&Reply::Gap { channel, after, cursor }));
        self.outbox.send(&event.into(), 0);
    }
}

/// Held by a session's task: whatever ends the task, a panic too, the session leaves its lane.
struct Seat<'a>(&'a Session);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.leave(Reason::Lost);
    }
}

impl End {
    fn of_failure(failure: Failure) -> Self {
        match failure {
            Failure::Slow => Self::SLOW,
            Failure::Lost => Self::LOST,
            Failure::TimedOut => Self::UNREACHABLE,
        }
    }
}

/// How long an `EventSource` waits before it comes back: spread, so that the clients of a node that
/// died do not all come in the same instant.
pub(crate) fn retry_millis() -> u64 {
    fastrand::u64(1_000..3_000)
}

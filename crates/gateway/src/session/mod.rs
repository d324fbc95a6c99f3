//! A session: one client's connection, whatever its transport.
//!
//! It lives on its lane's thread. The lane calls it through [`tidewire_hub::Session`]; a task of
//! its own (`websocket`, `sse`) reads from the client and ends it. What differs between transports
//! is how a reply is written and what the client may say.

mod asked;
mod closing;
mod deadline;
mod errors;
mod first;
mod login;
mod pace;
mod poll;
mod present;
mod request;
mod sse;
mod told;
mod websocket;
mod welcome;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thin_vec::ThinVec;
use tidewire_hub::{
    Failure, Form, Gap, Lane, Outbox, Progress, SessionSlot, Sink, Start, Subscription, Transport,
    encode_reply,
};
use tidewire_protocol::{
    Channel, Code, Cursor, FrameId, Reply, SessionId, StreamToken, sse as events,
};

use crate::app::App;
use crate::metrics::Reason;
use crate::takeover::Takeover;
use crate::users::Address;
use asked::Asked;
pub(crate) use closing::End;
use errors::Errors;
use login::Login;
use pace::Pace;
pub(crate) use poll::Polled;
pub(crate) use sse::SessionBody;

/// One client's connection.
pub(crate) struct Session {
    id: SessionId,
    form: Form,
    app: Arc<App>,
    lane: Rc<Lane>,
    slot: Cell<Option<SessionSlot>>,
    outbox: Outbox,
    held: RefCell<ThinVec<Held>>,
    /// Channels of the address whose subscription is not decided yet; the welcome waits for them.
    undecided: Cell<u16>,
    /// Channels of the address that were refused before the welcome.
    denied: RefCell<ThinVec<(Channel, Code)>>,
    end: Cell<Option<End>>,
    in_flight: Cell<u16>,
    /// Pings that were sent, and nothing has come since (see `present`).
    unanswered: Cell<u8>,
    /// Read, but not acted on: too many publishes were waiting.
    unfed: RefCell<ThinVec<u8>>,
    /// When an unfinished message began, in the node's seconds.
    partial_since: Cell<Option<u32>>,
    /// What the outbox had done at the last heartbeat.
    progress: Cell<Progress>,
    /// The errors that the client made.
    errors: Cell<Errors>,
    /// The places of its stored channels, as the client of an event stream or a poll will hold
    /// them.
    places: RefCell<StreamToken>,
    /// Subscriptions whose backlog did not fit: they go on from here once the outbox is empty.
    behind: RefCell<ThinVec<(Channel, Cursor)>>,
    /// What a poll is told besides messages.
    gaps: RefCell<ThinVec<(Channel, Gap)>>,
    login: Login,
    pace: Pace,
    asked: Asked,
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
    Confirmed(Box<Confirmed>),
    /// Asked for by this frame.
    Asked(Option<FrameId>),
    /// The user's own, who logged in after the welcome.
    Own,
    /// Messages flow.
    Active,
}

struct Confirmed {
    cursor: Option<Cursor>,
    recovered: Option<bool>,
    gap: Option<Gap>,
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
        let Takeover { form, caller, channels, denied, places, inflate: _, wait: _ } = takeover;
        let (login, channels) = Login::new(caller, channels);
        let session = Rc::new(Self {
            id: SessionId::random(),
            form,
            app: app.clone(),
            lane: lane.clone(),
            slot: Cell::new(None),
            outbox: Outbox::new(sink, form, app.settings.outbox, true),
            // Of the right size at once: a vector that grows begins with room for four.
            held: RefCell::new(ThinVec::with_capacity(channels.len())),
            // A login that is to come is one more thing to be decided.
            undecided: Cell::new(channels.len() as u16 + u16::from(login.is_pending())),
            denied: RefCell::new(denied.into()),
            end: Cell::new(None),
            in_flight: Cell::new(0),
            unanswered: Cell::new(0),
            unfed: RefCell::default(),
            partial_since: Cell::new(None),
            progress: Cell::new(Progress { waiting: 0, written: 0 }),
            errors: Cell::default(),
            places: RefCell::new(places),
            behind: RefCell::default(),
            gaps: RefCell::default(),
            login,
            pace: Pace::default(),
            asked: Asked::default(),
        });
        session.slot.set(Some(lane.attach(session.clone())));
        session.sit_down();
        app.metrics.opened(form.transport());
        tracing::debug!(session = %session.id, transport = form.transport().as_str(), "opened");
        for (channel, start) in &channels {
            session.subscribe(channel, *start, State::Undecided);
        }
        if channels.is_empty() && !session.login.is_pending() {
            session.welcome();
        }
        session.watch_login();
        // Taken back, or asked, before it was here to be told.
        tidewire_hub::Session::reconsider(session.clone());
        if app.is_draining() {
            // It came while the node's sessions were told: too late to be told with them.
            tidewire_hub::Session::shutdown(&*session, Duration::ZERO);
            session.finish(End::SHUTDOWN);
        }
        session
    }

    /// Says where it is to who keeps the books of its user's streams.
    fn sit_down(&self) {
        let Some(slot) = self.slot.take() else { return };
        let at = Address { lane: self.lane.number() as u32, slot: slot.number() as u32 };
        self.slot.set(Some(slot));
        self.login.at_place(|place| place.settle(at));
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

    fn encode(&self, reply: &Reply<'_>) -> Bytes {
        encode_reply(self.form, reply)
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
        self.login.forget();
        self.login.leave_place();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Say so in docs/performance.md when this changes. With the counts of its `Rc` it is to fit into the
    /// allocator's 448 bytes.
    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<Session>() <= 432, "{}", size_of::<Session>());
        assert!(size_of::<Held>() <= 64, "{}", size_of::<Held>());
    }

    /// The state of the future that such a function returns.
    const fn of<F, A, B, C, D, R>(_: F) -> usize
    where
        F: Fn(A, B, C, D) -> R + Copy,
    {
        size_of::<R>()
    }

    #[test]
    fn its_task_is_small() {
        let websocket = of(Session::run_websocket);
        let sse = of(|session, place, (): (), (): ()| Session::run_sse(session, place));
        assert!(websocket <= 144 && sse <= 144, "{websocket} {sse}");
    }
}

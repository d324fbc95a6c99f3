//! Who a session is: what it was opened with, the `auth` frame, and the end of a login.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tidewire_auth::{AuthError, Denied, Identity};
use tidewire_hub::{Start, Transport};
use tidewire_protocol::{Acked, BodyError, Channel, Code, FrameId, Hook, Reply, Secret};

use super::deadline::{self, Deadline};
use super::first::First;
use super::{End, Session};
use crate::auth::{Caller, Held, expires};
use crate::http::counts_as_failed;
use crate::users::{Full, Told, UserPlace};

/// How long before its end the client is told, in seconds; at half of the time that is left where
/// that is later.
const NOTICE: u64 = 60;

#[allow(clippy::box_collection, reason = "a pointer instead of three words in every session")]
type Pending = Box<Vec<(Channel, Start)>>;

/// What few sessions have.
#[derive(Default)]
struct More {
    /// Where its client is, where anybody wants to know that.
    address: Option<IpAddr>,
    /// What it takes up of what its address and its user may have.
    held: Vec<Arc<Held>>,
}

impl More {
    fn is_some(&self) -> bool {
        self.address.is_some() || !self.held.is_empty()
    }
}

/// The login of one session.
pub(super) struct Login {
    identity: RefCell<Arc<Identity>>,
    /// The channels of the address, while the first frame must say who it is. Boxed: few sessions
    /// have any, and all have the room for it.
    pending: Cell<Option<Pending>>,
    /// Whether there are any.
    is_pending: Cell<bool>,
    /// A credential is being looked at, which may take a moment; nothing is read meanwhile.
    busy: Cell<bool>,
    /// When it is looked at next.
    deadline: Cell<Option<Deadline>>,
    /// Whether its end was told; while it is pending, whether its time is over.
    told: Cell<bool>,
    /// What few sessions have; boxed, because all have the room for it.
    more: RefCell<Option<Box<More>>>,
}

impl Login {
    /// Of that caller; gives the channels back that are to be subscribed at once.
    pub(super) fn new(
        caller: Caller,
        channels: Vec<(Channel, Start)>,
    ) -> (Self, Vec<(Channel, Start)>) {
        let more = More { address: caller.address.map(|address| *address), held: caller.held };
        let (pending, now) = if caller.must_log_in {
            (Some(Box::new(channels)), Vec::new())
        } else {
            (None, channels)
        };
        let login = Self {
            identity: RefCell::new(caller.identity),
            is_pending: Cell::new(pending.is_some()),
            pending: Cell::new(pending),
            busy: Cell::new(false),
            deadline: Cell::new(None),
            told: Cell::new(false),
            more: RefCell::new(more.is_some().then(|| Box::new(more))),
        };
        (login, now)
    }

    /// Who it is now.
    pub(super) fn identity(&self) -> Arc<Identity> {
        self.identity.borrow().clone()
    }

    fn address(&self) -> Option<IpAddr> {
        self.more.borrow().as_ref().and_then(|more| more.address)
    }

    /// Holds what it takes up.
    fn hold(&self, held: Held) {
        self.more.borrow_mut().get_or_insert_default().held.push(Arc::new(held));
    }

    /// Does something with its place among its user's streams, if those are counted.
    pub(super) fn at_place<R>(&self, act: impl FnOnce(&UserPlace) -> R) -> Option<R> {
        let more = self.more.borrow();
        more.iter().flat_map(|more| &more.held).find_map(|held| held.of_user()).map(act)
    }

    /// Leaves that place to others: the stream is over, though its socket may not be.
    pub(super) fn leave_place(&self) {
        if let Some(more) = &mut *self.more.borrow_mut() {
            more.held.retain(|held| held.of_user().is_none());
        }
    }

    /// What it finds there.
    pub(super) fn told(&self) -> Told {
        self.at_place(UserPlace::told).unwrap_or(Told::Nothing)
    }

    /// Whether its first frame must still say.
    pub(super) fn is_pending(&self) -> bool {
        self.is_pending.get()
    }

    /// Whether it should have logged in by now.
    fn is_late(&self) -> bool {
        self.is_pending() && self.told.get()
    }

    /// Whether nothing may be read now.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.get()
    }

    /// No more looks at it.
    pub(super) fn forget(&self) {
        if let Some(deadline) = self.deadline.take() {
            deadline.cancel();
        }
    }
}

impl Session {
    /// Acts on an `auth` frame.
    pub(super) fn auth(self: &Rc<Self>, id: Option<FrameId>, token: Secret) {
        if let Err(denied) = self.app.may_try_login(self.login.address()) {
            self.refuse(id.as_ref(), denied.code, &denied.message);
            if self.login.is_pending() {
                self.finish(End::UNAUTHORIZED);
            }
            return;
        }
        let outcome = self.app.auth.login_now(token.expose());
        match outcome {
            Err(error) if self.app.auth.may_change(&error) => {
                self.login.busy.set(true);
                let session = self.clone();
                // Ends with the renewal's patience.
                tokio::task::spawn_local(async move {
                    let outcome = session.app.auth.login(token.expose()).await;
                    session.login.busy.set(false);
                    if session.ended().is_none() {
                        session.authenticated(id.as_ref(), outcome);
                        session.outbox.wake();
                    }
                });
            }
            outcome => self.authenticated(id.as_ref(), outcome),
        }
    }

    fn authenticated(
        self: &Rc<Self>,
        id: Option<&FrameId>,
        outcome: Result<Arc<Identity>, AuthError>,
    ) {
        match outcome {
            Ok(identity) if self.may_become(&identity) => self.ask_and_log_in(id, identity),
            Ok(_) => {
                let message = "this session is another user's; open a new one";
                self.refuse(id, Code::Forbidden, message);
            }
            Err(AuthError::NoKeys) => {
                self.app.metrics.error(Code::Unavailable);
                let (code, message) = (Code::Unavailable, AuthError::NoKeys.to_string());
                let retry = Some(1_000);
                self.reply_around(&Reply::Error { id, code, message: &message, retry });
                if self.login.is_late() {
                    self.finish(End::UNAVAILABLE);
                }
            }
            Err(error) => {
                if counts_as_failed(&error) {
                    self.app.login_failed(self.login.address());
                }
                self.refuse(id, error.code(), &error.to_string());
                if self.login.is_pending() {
                    let expired = error == AuthError::Expired;
                    self.finish(if expired { End::EXPIRED } else { End::UNAUTHORIZED });
                }
            }
        }
    }

    /// A session stays whose it is: what it holds was given to that user.
    fn may_become(&self, new: &Identity) -> bool {
        let old = self.login.identity.borrow();
        old.is_anonymous() || old.who == new.who
    }

    /// Logs in whom the application lets in, with the channels that it lets have; at once where it
    /// is not asked.
    fn ask_and_log_in(self: &Rc<Self>, id: Option<&FrameId>, identity: Arc<Identity>) {
        let hooks = &self.app.hooks;
        let first = match self.login.pending.take() {
            Some(named) => Some(self.first_channels(&identity, *named)),
            // In open mode a session that was nobody's becomes a user's.
            None if self.login.identity().is_anonymous() => Some(self.own_channels(&identity)),
            None => None,
        };
        let asks = hooks.has(Hook::Connect) || (first.is_some() && hooks.has(Hook::Subscribe));
        if !asks {
            return self.log_in(id, identity, first);
        }
        self.login.busy.set(true);
        let address = self.login.address();
        let asking = hooks.connect(&identity, "websocket", address);
        let (session, id) = (self.clone(), id.cloned());
        // Ends with the application's answers, within the hooks' time-outs.
        tokio::task::spawn_local(async move {
            let may = asking.await;
            let first = match (first, &may) {
                (Some(first), Ok(())) => Some(session.ask_about_first(&identity, first).await),
                (first, _) => first,
            };
            session.login.busy.set(false);
            if session.ended().is_none() {
                match may {
                    Ok(()) => session.log_in(id.as_ref(), identity, first),
                    Err(error) => session.not_let_in(id.as_ref(), &error),
                }
            }
            session.outbox.wake();
        });
    }

    /// The application does not let them in: who was in stays so until the login ends.
    fn not_let_in(&self, id: Option<&FrameId>, error: &BodyError) {
        let BodyError { code, message } = error;
        self.app.metrics.error(*code);
        let may_pass = *code == Code::Unavailable;
        let retry = may_pass.then_some(1_000);
        self.reply_around(&Reply::Error { id, code: *code, message, retry });
        if !may_pass {
            self.count_error();
        }
        if self.login.is_pending() {
            // The channels of its address were taken for the asking: it comes back with them.
            self.finish(if may_pass { End::UNAVAILABLE } else { End::FORBIDDEN });
        }
    }

    fn log_in(
        self: &Rc<Self>,
        id: Option<&FrameId>,
        identity: Arc<Identity>,
        first: Option<First>,
    ) {
        // A refresh is the same user's; who was nobody takes a place of that user now.
        if !self.login.identity().is_anonymous() {
            return self.is_logged_in(id, identity, first);
        }
        let (app, session, id) = (self.app.clone(), self.clone(), id.cloned());
        let mut place = Box::pin(async move { (app.user_place(&identity).await, identity) });
        // At once, unless somebody has to be asked.
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready((place, identity)) = place.as_mut().poll(&mut cx) {
            return self.takes(id.as_ref(), place, identity, first);
        }
        self.login.busy.set(true);
        // Ends within the patience with who is asked.
        tokio::task::spawn_local(async move {
            let (place, identity) = place.await;
            session.login.busy.set(false);
            if session.ended().is_none() {
                session.takes(id.as_ref(), place, identity, first);
            }
            session.outbox.wake();
        });
    }

    /// Logs in on this place among its user's streams, or is refused for want of one.
    fn takes(
        self: &Rc<Self>,
        id: Option<&FrameId>,
        place: Result<Option<Held>, Full>,
        identity: Arc<Identity>,
        first: Option<First>,
    ) {
        match place {
            Ok(held) => {
                held.into_iter().for_each(|held| self.login.hold(held));
                self.sit_down();
                self.is_logged_in(id, identity, first);
                // Taken back, or asked, before it was there to be told.
                tidewire_hub::Session::reconsider(self.clone());
            }
            Err(full) => {
                let Denied { code, message } = full.denied();
                self.app.metrics.error(code);
                self.reply_around(&Reply::Error {
                    id,
                    code,
                    message: &message,
                    retry: Some(5_000),
                });
                if self.login.is_pending() {
                    self.finish(if full.is_final { End::TOO_MANY } else { End::CROWDED });
                }
            }
        }
    }

    fn is_logged_in(
        self: &Rc<Self>,
        id: Option<&FrameId>,
        identity: Arc<Identity>,
        first: Option<First>,
    ) {
        let acked = Acked { expires: expires(&identity), ..Acked::default() };
        *self.login.identity.borrow_mut() = identity;
        self.login.told.set(false);
        // Before the welcome, which waits for the channels.
        self.reply_around(&Reply::Ack { id, acked });
        match (self.login.is_pending.replace(false), first) {
            (true, Some(first)) => self.begin(first),
            (_, first) => {
                self.drop_what_is_not_granted();
                first.into_iter().for_each(|first| self.follow(first));
            }
        }
        self.watch_login();
    }

    /// A frame that came where only `auth` may: it is refused, and the session ends.
    pub(super) fn must_log_in(&self, id: Option<&FrameId>) {
        self.refuse(id, Code::Unauthorized, "log in first: {\"type\":\"auth\",\"token\":\"…\"}");
        self.finish(End::UNAUTHORIZED);
    }

    /// Has the session looked at when its login is to be refreshed or ends.
    pub(super) fn watch_login(self: &Rc<Self>) {
        self.login.forget();
        let now = tidewire_auth::now();
        let at = if self.login.is_pending() {
            now.saturating_add(self.app.settings.login_timeout.as_secs().max(1))
        } else {
            match self.login.identity.borrow().expires {
                Some(end) if self.login.told.get() => end,
                Some(end) => {
                    let left = end.saturating_sub(now);
                    end.saturating_sub(NOTICE).max(now + left / 2)
                }
                None => return,
            }
        };
        if self.form.transport() != Transport::Poll {
            self.login.deadline.set(Some(deadline::set(self, at)));
        }
    }

    /// It is time to look at the login.
    pub(super) fn look_at_login(self: &Rc<Self>, now: u64) {
        self.login.deadline.set(None);
        let (has_expired, end) = {
            let identity = self.login.identity.borrow();
            (identity.has_expired(now), expires(&identity))
        };
        if self.login.is_pending() {
            // The credential that is being looked at has its own patience; it is the last one.
            if self.login.is_busy() {
                self.login.told.set(true);
                self.login.deadline.set(Some(deadline::set(self, now.saturating_add(1))));
            } else {
                self.finish(End::UNAUTHORIZED);
            }
        } else if has_expired {
            self.finish(End::EXPIRED);
        } else {
            if let (Some(expires), false) = (end, self.login.told.replace(true)) {
                self.reply(&Reply::Expiring { expires });
            }
            self.watch_login();
        }
    }

    /// A reply that does not wait for the welcome.
    fn reply_around(&self, reply: &Reply<'_>) {
        if self.end.get().is_none() {
            self.outbox.send_around(&self.encode(reply), 0);
        }
    }
}

//! Who a session is: what it was opened with, the `auth` frame, and the end of a login.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tidewire_auth::{AuthError, Identity};
use tidewire_hub::{Session as _, Start, Transport};
use tidewire_protocol::{Acked, Channel, Code, FrameId, Reply, Secret};

use super::deadline::{self, Deadline};
use super::{End, Session, State};
use crate::address::AddressPlace;
use crate::auth::{Caller, expires};

/// How long before its end the client is told, in seconds; at half of the time that is left where
/// that is later.
const NOTICE: u64 = 60;

#[allow(clippy::box_collection, reason = "a pointer instead of three words in every session")]
type Pending = Box<Vec<(Channel, Start)>>;

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
    told: Cell<bool>,
    /// Its place behind a proxy.
    _place: Option<Arc<AddressPlace>>,
}

impl Login {
    /// Of that caller; gives the channels back that are to be subscribed at once.
    pub(super) fn new(
        caller: Caller,
        channels: Vec<(Channel, Start)>,
    ) -> (Self, Vec<(Channel, Start)>) {
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
            _place: caller.place,
        };
        (login, now)
    }

    /// Who it is now.
    pub(super) fn identity(&self) -> Arc<Identity> {
        self.identity.borrow().clone()
    }

    /// Whether its first frame must still say.
    pub(super) fn is_pending(&self) -> bool {
        self.is_pending.get()
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
            Ok(identity) if self.may_become(&identity) => self.log_in(id, identity),
            Ok(_) => {
                let message = "this session is another user's; open a new one";
                self.refuse(id, Code::Forbidden, message);
            }
            Err(AuthError::NoKeys) => {
                self.app.metrics.error(Code::Unavailable);
                let (code, message) = (Code::Unavailable, AuthError::NoKeys.to_string());
                let retry = Some(1_000);
                self.reply_around(&Reply::Error { id, code, message: &message, retry });
            }
            Err(error) => {
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

    fn log_in(self: &Rc<Self>, id: Option<&FrameId>, identity: Arc<Identity>) {
        let acked = Acked { expires: expires(&identity), ..Acked::default() };
        *self.login.identity.borrow_mut() = identity;
        self.login.told.set(false);
        // Before the welcome, which waits for the channels.
        self.reply_around(&Reply::Ack { id, acked });
        self.login.is_pending.set(false);
        match self.login.pending.take() {
            Some(channels) => self.begin(*channels),
            None => self.drop_what_is_not_granted(),
        }
        self.watch_login();
    }

    /// The first login: the channels of the address and the user's own are subscribed, as far as
    /// they may be, and the welcome follows.
    fn begin(self: &Rc<Self>, mut channels: Vec<(Channel, Start)>) {
        let identity = self.login.identity();
        let named: Vec<_> = channels.iter().map(|(channel, _)| channel).collect();
        let room = self.app.settings.subscriptions_per_session.saturating_sub(named.len());
        let own = self.app.auth.own_channels(&identity, &named);
        channels.extend(own.into_iter().take(room).map(|channel| (channel, Start::Present)));
        for (channel, start) in channels {
            match self.app.may_start(&identity, &channel, start) {
                Ok(start) => {
                    self.undecided.set(self.undecided.get() + 1);
                    self.subscribe(&channel, start, State::Undecided);
                }
                Err(denied) => {
                    self.app.metrics.error(denied.code);
                    self.denied.borrow_mut().push((channel, denied.code));
                }
            }
        }
        // The login itself was one thing to be decided.
        self.decided();
    }

    /// After a refresh that grants less.
    fn drop_what_is_not_granted(&self) {
        let identity = self.login.identity();
        let denied: Vec<_> = self
            .held
            .borrow()
            .iter()
            .filter_map(|held| {
                let channel = &held.subscription.channel;
                let denied = self.app.auth.policy.may_subscribe(&identity, channel).err()?;
                Some((channel.clone(), denied.code))
            })
            .collect();
        for (channel, code) in denied {
            let held = self.held.borrow();
            if let Some(held) = held.iter().find(|held| held.subscription.channel == channel) {
                self.lane.unsubscribe(&held.subscription);
            }
            drop(held);
            self.refused(&channel, code);
        }
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
            // The credential that is being looked at has its own patience.
            if self.login.is_busy() { self.watch_login() } else { self.finish(End::UNAUTHORIZED) }
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

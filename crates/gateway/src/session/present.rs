//! Whether a client is still there, which its node wants to know at once when its user wants one stream
//! more than it may have.
//!
//! A WebSocket is pinged, and ends if nothing at all comes in time. An event stream's client can say
//! nothing; what the kernel can tell is whether the other end of the connection still acknowledges bytes.

use std::rc::Rc;
use std::time::Duration;

use socket2::SockRef;
use tidewire_hub::{Beat, Progress, Transport};

use super::{End, Session};

/// How long a client may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much longer the kernel may take to say that nothing was acknowledged within that time.
const GRACE: Duration = Duration::from_millis(500);

/// What of [`Session::unanswered`] the heartbeat's ping is.
pub(super) const HEARTBEAT: u8 = 1;
/// And the one that is sent here.
const QUESTION: u8 = 2;

impl Session {
    /// Finds out whether its client is there: its seat is told, or the session ends.
    pub(super) fn find_client(self: &Rc<Self>) {
        if self.ended().is_some() {
            return;
        }
        match (self.form.transport(), self.outbox.socket()) {
            (Transport::WebSocket, _) => self.ask_client(),
            (Transport::Sse, Some(_)) => self.ask_kernel(),
            // A poll is over soon, and whether an HTTP/2 connection is alive is not its streams' to say.
            (Transport::Sse | Transport::Poll, _) => {
                self.login.at_place(|place| place.is_unknown());
            }
        }
    }

    fn ask_client(self: &Rc<Self>) {
        self.login.at_place(|place| place.waits());
        self.unanswered.set(self.unanswered.get() | QUESTION);
        let before = self.outbox.progress();
        self.beat_websocket(Beat::Send);
        let session = Rc::downgrade(self);
        // Ends with its patience.
        tokio::task::spawn_local(async move {
            tokio::time::sleep(PATIENCE).await;
            // Where the lane was busy for long, the answer may be there and not be read.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            if let Some(session) = session.upgrade() {
                session.has_not_answered(before);
            }
        });
    }

    fn has_not_answered(&self, before: Progress) {
        if self.login.at_place(|place| place.is_waiting()) != Some(true) {
            return;
        }
        // The question stood behind what waited, and its client reads that; or the answer has come, and
        // is not read while publishes or a login wait.
        let reads = before.waiting > 0 && self.outbox.progress().written != before.written;
        if reads || self.publishes_too_much() {
            self.login.at_place(|place| place.is_unknown());
        } else {
            self.finish(End::TIMED_OUT);
        }
    }

    /// Something came from its client: which pings that answers is up to this.
    pub(super) fn heard(&self) {
        if self.unanswered.replace(0) & QUESTION != 0 {
            self.login.at_place(|place| place.is_here());
        }
    }

    /// Has the kernel give the connection up unless what is written now is acknowledged soon.
    fn ask_kernel(self: &Rc<Self>) {
        self.login.at_place(|place| place.waits());
        let before = self.user_timeout(Some(PATIENCE));
        self.beat_sse(Beat::Send);
        let session = Rc::downgrade(self);
        // Ends soon after its patience; the session, if the kernel has found out, before.
        tokio::task::spawn_local(async move {
            tokio::time::sleep(PATIENCE + GRACE).await;
            if let Some(session) = session.upgrade() {
                session.user_timeout(before);
                session.login.at_place(|place| place.is_unknown());
            }
        });
    }

    /// Sets after what time without acknowledgement the kernel gives the connection up; that before.
    fn user_timeout(&self, time: Option<Duration>) -> Option<Duration> {
        let socket = self.outbox.socket()?;
        let socket = SockRef::from(socket.tcp());
        let before = socket.tcp_user_timeout().ok()?;
        // Where it cannot be set, nothing is found out.
        let _ = socket.set_tcp_user_timeout(time);
        before
    }
}

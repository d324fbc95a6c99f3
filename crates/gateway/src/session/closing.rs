//! How a session ends, and how its socket is let go.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use tidewire_websocket::{self as codec, close_code};

use super::Session;
use crate::metrics::Reason;

/// How long a client may take to read its last bytes and to close its side.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// For operators.
    pub(crate) reason: Reason,
    /// For the client, on a WebSocket: the text of the close frame.
    text: Option<&'static str>,
    /// And its code; 0: the frame is empty. Not one with the text, which would take eight bytes of
    /// every session.
    code: u16,
    /// The client has closed already, or is gone: nothing to wait for.
    answered: bool,
}

/// Codes 4000 to 4099: come back and resume; 4100 to 4199: do not come back unchanged.
impl End {
    pub(crate) const SLOW: Self = Self::close(Reason::Slow, 4000, "slow");
    pub(crate) const TIMED_OUT: Self = Self::close(Reason::TimedOut, 4001, "timeout");
    pub(crate) const EXPIRED: Self = Self::close(Reason::Expired, 4002, "expired");
    pub(crate) const UNAVAILABLE: Self = Self::close(Reason::Unavailable, 4003, "unavailable");
    pub(crate) const CROWDED: Self = Self::close(Reason::TooMany, 4004, "too many for now");
    pub(crate) const UNAUTHORIZED: Self = Self::close(Reason::Unauthorized, 4100, "unauthorized");
    pub(crate) const FORBIDDEN: Self = Self::close(Reason::Forbidden, 4101, "forbidden");
    pub(crate) const TOO_MANY: Self = Self::close(Reason::TooMany, 4102, "too many");
    pub(crate) const ABUSE: Self = Self::close(Reason::Abuse, 4103, "abuse");
    pub(crate) const SHUTDOWN: Self =
        Self::close(Reason::Shutdown, close_code::SERVICE_RESTART, "shutdown");
    pub(crate) const BINARY: Self = Self::close(
        Reason::Protocol,
        close_code::UNSUPPORTED_DATA,
        "a binary frame; tidewire.json has text frames only",
    );
    pub(crate) const TEXT: Self = Self::close(
        Reason::Protocol,
        close_code::UNSUPPORTED_DATA,
        "a text frame; tidewire.msgpack has binary frames only",
    );
    /// The connection is gone.
    pub(crate) const LOST: Self = Self::gone(Reason::Lost);
    /// The connection is gone, as the kernel found out.
    pub(crate) const UNREACHABLE: Self = Self::gone(Reason::TimedOut);
    /// The client closed an event stream.
    pub(crate) const LEFT: Self = Self::gone(Reason::Client);

    const fn close(reason: Reason, code: u16, text: &'static str) -> Self {
        Self { reason, text: Some(text), code, answered: false }
    }

    const fn gone(reason: Reason) -> Self {
        Self { reason, text: None, code: 0, answered: true }
    }

    /// The connection broke, as a read says: `otherwise`, unless the kernel found out that nobody is there.
    pub(crate) fn of_read(error: &io::Error, otherwise: Self) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Self::UNREACHABLE,
            _ => otherwise,
        }
    }

    /// The client sent a close frame, which is answered with its code (RFC 6455, section 5.5.1).
    pub(crate) const fn closed_by_client(code: Option<u16>) -> Self {
        let code = match code {
            Some(code) => code,
            None => 0,
        };
        Self { reason: Reason::Client, text: Some(""), code, answered: true }
    }

    /// The client broke the protocol.
    pub(crate) fn broken(error: codec::DecodeError) -> Self {
        match error {
            codec::DecodeError::TooBig { .. } => {
                Self::close(Reason::TooBig, error.close_code(), "the message is over the limit")
            }
            _ => Self::close(Reason::Protocol, error.close_code(), "protocol error"),
        }
    }
}

impl Session {
    /// Lets the session go: out of the lane at once, then the last bytes, then the socket. Closing
    /// it while the client still sends would make the kernel reset the connection and take the
    /// close frame back; so our side is shut, and what comes is read away, for a while.
    pub(super) async fn hang_up(self: Rc<Self>, end: End) {
        self.leave(end.reason);
        let is_websocket = self.form.transport() == tidewire_hub::Transport::WebSocket;
        if let Some(text) = end.text.filter(|_| is_websocket) {
            self.outbox.send_last(&match end.code {
                0 => codec::close_empty(),
                code => codec::close(code, text),
            });
        } else if end.answered {
            return;
        }
        let Some(socket) = self.outbox.socket() else { return };
        // Out of patience, the socket is closed all the same.
        let _ = tokio::time::timeout(PATIENCE, async {
            poll_fn(|cx| self.outbox.poll_drained(cx)).await;
            socket.shut_down();
            if !end.answered {
                self.lane.read_away(socket).await;
            }
        })
        .await;
    }
}

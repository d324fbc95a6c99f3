//! How a stream takes the socket over from hyper.
//!
//! A request parked in hyper costs 18 KB, a stream in it 24 to 34 KB; a session on the bare socket
//! about 1 KB. hyper gives a socket back after an upgrade; for an event stream there is none, so
//! [`TakenIo`] swallows hyper's answer, hyper believes that it has answered and ended, and the
//! session writes the head itself.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::HeaderMap;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tidewire_hub::{Form, Socket, Start};
use tidewire_protocol::{Channel, Code, StreamToken};

use crate::auth::Caller;

/// Stands in the extensions of a response: the connection becomes a session.
#[derive(Debug, Clone)]
pub(crate) struct Takeover {
    /// What the session wants to be written.
    pub(crate) form: Form,
    /// Whether the client of a WebSocket may compress what it sends.
    pub(crate) inflate: bool,
    /// Who opened it.
    pub(crate) caller: Caller,
    /// The channels of its address and of its caller's token, and where each begins.
    pub(crate) channels: Vec<(Channel, Start)>,
    /// Channels that its caller may not subscribe to.
    pub(crate) denied: Vec<(Channel, Code)>,
    /// Places that are carried along: those of the channels above replace them.
    pub(crate) places: StreamToken,
    /// How long a poll waits for messages.
    pub(crate) wait: Duration,
}

/// What the connection's driver and its socket tell each other.
#[derive(Default)]
pub(crate) struct Shared {
    /// Nothing that hyper writes reaches the socket any more.
    pub(crate) swallow: Cell<bool>,
    /// The socket did not take everything that hyper had written: an earlier answer may still wait
    /// in hyper's buffer, and must not be swallowed with the next one.
    pub(crate) behind: Cell<bool>,
    /// A request is being answered.
    pub(crate) busy: Cell<bool>,
    /// When the first byte since the last answer came.
    pub(crate) began: Cell<Option<Instant>>,
    /// When the last answer was made, or the connection accepted.
    pub(crate) idle_since: Cell<Option<Instant>>,
    /// A request was begun since the connection last waited for something.
    pub(crate) answers: Cell<bool>,
}

/// A socket that can be taken over.
pub(crate) struct TakenIo {
    io: TokioIo<Socket>,
    shared: Rc<Shared>,
}

impl TakenIo {
    pub(crate) fn new(socket: Socket, shared: Rc<Shared>) -> Self {
        Self { io: TokioIo::new(socket), shared }
    }

    pub(crate) fn into_socket(self) -> Socket {
        self.io.into_inner()
    }
}

impl Read for TakenIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        // Not while an answer is still on its way: that has a time-out of its own.
        let waits = !self.shared.busy.get() && !self.shared.behind.get();
        if polled.is_ready() && waits && self.shared.began.get().is_none() {
            self.shared.began.set(Some(Instant::now()));
        }
        polled
    }
}

impl Write for TakenIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.shared.swallow.get() {
            return Poll::Ready(Ok(buf.len()));
        }
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        let all = matches!(&polled, Poll::Ready(Ok(written)) if *written == buf.len());
        self.shared.behind.set(!all);
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        false
    }
}

/// The head of an event stream's answer, as the session writes it to the bare socket. No length
/// and no chunks: the stream ends with the connection (RFC 9112, section 6.3).
pub(crate) fn stream_head(headers: &HeaderMap) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"connection: close\r\n\r\n");
    head
}

//! A session over an event stream: on the bare socket after a takeover, or as the body of an
//! HTTP/2 response.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tidewire_hub::Beat;
use tidewire_protocol::sse as events;

use super::{End, Seat, Session, retry_millis};
use crate::app::Place;

/// What a client of an event stream may send after its request. It has nothing to say; a little
/// is read over.
const MAX_SENT_BYTES: usize = 16 << 10;

impl Session {
    /// Writes what stands before the first event: the head, if hyper has not written it, and when
    /// to come back.
    pub(crate) fn open_stream(&self, head: Vec<u8>) {
        let mut first = head;
        events::write_retry(retry_millis(), &mut first);
        self.outbox.send_around(&first.into(), 0);
    }

    /// Serves an event stream on its bare socket until it ends.
    pub(crate) async fn run_sse(self: Rc<Self>, _place: Place) {
        let _seat = Seat(&self);
        let mut sent = 0;
        let end = poll_fn(|cx| self.poll_sse(cx, &mut sent)).await;
        // Boxed: the state of seeing it off is large, and an idle session's task would be, too.
        Box::pin(self.clone().hang_up(end)).await;
    }

    fn poll_sse(&self, cx: &mut Context<'_>, sent: &mut usize) -> Poll<End> {
        let failed = self.outbox.poll(cx);
        if let Some(end) = self.end.get() {
            return Poll::Ready(end);
        }
        if let Poll::Ready(failure) = failed {
            return Poll::Ready(End::of_failure(failure));
        }
        self.catch_up();
        let Some(socket) = self.outbox.socket() else { return Poll::Pending };
        loop {
            match socket.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(End::LOST),
                Poll::Ready(Ok(())) => {}
            }
            match socket.try_read(&mut self.lane.scratch()) {
                Ok(0) => return Poll::Ready(End::LEFT),
                Ok(n) => {
                    *sent += n;
                    if *sent > MAX_SENT_BYTES {
                        return Poll::Ready(End::ABUSE);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(End::of_read(&error, End::LEFT)),
            }
        }
    }

    pub(super) fn beat_sse(&self, beat: Beat) {
        match beat {
            Beat::Check => {
                // A stream of HTTP/2 that its client does not read is not polled by hyper, and
                // so does not notice that it has ended: it leaves here.
                if let (None, Some(end)) = (self.outbox.socket(), self.ended()) {
                    return self.leave(end.reason);
                }
                let progress = self.outbox.progress();
                let before = self.progress.replace(progress);
                if before.waiting > 0 && progress.waiting > 0 && before.written == progress.written
                {
                    self.finish(End::TIMED_OUT);
                }
            }
            Beat::Send => self.outbox.send_around(&Bytes::from_static(events::HEARTBEAT), 0),
        }
    }
}

/// The body of a response that is an event stream, where the connection stays hyper's (HTTP/2).
/// Dropping it ends the session.
pub(crate) struct SessionBody(Rc<Session>);

impl SessionBody {
    pub(crate) fn new(session: Rc<Session>) -> Self {
        session.open_stream(Vec::new());
        Self(session)
    }
}

impl http_body::Body for SessionBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.outbox.poll_next(cx) {
            Poll::Ready(Some(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            // It has ended, and all that came before was handed out.
            Poll::Pending if self.0.end.get().is_some() => Poll::Ready(None),
            Poll::Pending => {
                self.0.catch_up();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
        }
    }
}

impl Drop for SessionBody {
    fn drop(&mut self) {
        let end = self.0.ended().unwrap_or(End::LEFT);
        self.0.leave(end.reason);
    }
}

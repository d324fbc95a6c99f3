//! A session over a WebSocket: its task, which reads what the client sends.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tidewire_hub::{Beat, Form};
use tidewire_protocol::{ClientFrame, Subprotocol};
use tidewire_websocket::{self as codec, Decoder, Event, Input};

use super::present::HEARTBEAT;
use super::{End, Seat, Session};
use crate::app::Place;

/// The most bytes that are read before others get the thread: in the smallest frames some 2,700.
const READ_BYTES: usize = 16 << 10;

/// So many bytes of messages are acted on before others get the thread: compressed ones can be a
/// thousand times what was read.
const HANDLED_BYTES: usize = 4 * READ_BYTES;

/// What the task woke up for.
enum Woken {
    Readable,
    Ended(End),
}

impl Session {
    /// Serves a WebSocket until it ends. `early` came with the handshake; `inflate` says whether
    /// the client may compress.
    pub(crate) fn run_websocket(
        self: Rc<Self>,
        mut early: Vec<u8>,
        inflate: bool,
        place: Place,
    ) -> impl Future<Output = ()> {
        let limit = self.app.settings.message_bytes;
        let mut decoder = if inflate { Decoder::with_deflate(limit) } else { Decoder::new(limit) };
        // A block and no `async fn`, which would have room for each argument twice.
        async move {
            let _seat = (Seat(&self), &place);
            self.feed(&mut decoder, &mut early);
            drop(early);
            let end = loop {
                match poll_fn(|cx| self.poll_websocket(cx)).await {
                    Woken::Readable => {
                        self.read(&mut decoder);
                        // A client that always has more to read must not keep the lane to itself.
                        tokio::task::yield_now().await;
                    }
                    Woken::Ended(end) => break end,
                }
            };
            drop(decoder);
            // Boxed: the state of seeing it off is large, and an idle session's task would be, too.
            Box::pin(self.clone().hang_up(end)).await;
        }
    }

    fn poll_websocket(&self, cx: &mut Context<'_>) -> Poll<Woken> {
        let failed = self.outbox.poll(cx);
        if let Some(end) = self.end.get() {
            return Poll::Ready(Woken::Ended(end));
        }
        if let Poll::Ready(failure) = failed {
            return Poll::Ready(Woken::Ended(End::of_failure(failure)));
        }
        self.catch_up();
        // Too many publishes wait for the broker: it is read on when one of them is done.
        if self.publishes_too_much() {
            return Poll::Pending;
        }
        if !self.has_read_all() {
            return Poll::Ready(Woken::Readable);
        }
        let Some(socket) = self.outbox.socket() else { return Poll::Pending };
        match socket.poll_read_ready(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Woken::Readable),
            Poll::Ready(Err(_)) => Poll::Ready(Woken::Ended(End::LOST)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Acts on what was left over, or else on one read's worth.
    fn read(self: &Rc<Self>, decoder: &mut Decoder) {
        let mut unfed = self.unfed.take();
        if !unfed.is_empty() {
            return self.feed(decoder, &mut unfed);
        }
        let Some(socket) = self.outbox.socket() else { return };
        let mut scratch = self.lane.scratch();
        match socket.try_read(&mut scratch[..READ_BYTES]) {
            Ok(0) => self.finish(End::LOST),
            Ok(n) => self.feed(decoder, &mut scratch[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.finish(End::of_read(&error, End::LOST)),
        }
    }

    /// Decodes bytes and acts on every whole message in them, as long as the client may publish;
    /// the rest waits for a receipt. The replies are written together.
    fn feed(self: &Rc<Self>, decoder: &mut Decoder, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        self.heard();
        self.outbox.cork();
        let mut input = Input::new(bytes);
        let mut handled = 0;
        // Of the message under way, which is the first to be handed out, these are paid for.
        let mut paid = decoder.unfinished_bytes();
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(event)) => {
                    handled += length(&event);
                    let is_message = matches!(event, Event::Text(_) | Event::Binary(_));
                    self.act(event, if is_message { std::mem::take(&mut paid) } else { 0 });
                }
                Ok(None) => break,
                Err(error) => {
                    self.finish(End::broken(error));
                    break;
                }
            }
            if self.end.get().is_some() {
                break;
            }
            let enough = self.publishes_too_much() || handled > HANDLED_BYTES;
            if enough && !input.is_empty() {
                self.unfed.replace(input.rest().into());
                break;
            }
        }
        self.pay(decoder.unfinished_bytes().saturating_sub(paid));
        // The frames that messages came in, besides their last ones.
        for _ in 0..decoder.take_parts() {
            if self.end.get().is_some() {
                break;
            }
            self.keeps_silent_pace(0);
        }
        self.outbox.uncork();
        if !decoder.has_partial() {
            self.partial_since.set(None);
        } else if self.partial_since.get().is_none() {
            self.partial_since.set(Some(self.app.seconds()));
        }
    }

    fn has_read_all(&self) -> bool {
        self.unfed.borrow().is_empty()
    }

    pub(super) fn publishes_too_much(&self) -> bool {
        self.login.is_busy()
            || usize::from(self.in_flight.get()) >= self.app.settings.publishes_in_flight
    }

    /// Acts on an event; so many of its bytes are paid for already.
    fn act(self: &Rc<Self>, event: Event<'_>, paid: usize) {
        match event {
            Event::Text(text) if self.subprotocol() == Subprotocol::Json => {
                self.partial_since.set(None);
                let unpaid = text.len().saturating_sub(paid);
                self.handle(ClientFrame::parse_json(text), unpaid);
            }
            Event::Binary(bytes) if self.subprotocol() == Subprotocol::MessagePack => {
                self.partial_since.set(None);
                let limit = self.app.settings.message_bytes;
                let unpaid = bytes.len().saturating_sub(paid);
                self.handle(ClientFrame::parse_msgpack(bytes, limit), unpaid);
            }
            Event::Text(_) => self.finish(End::TEXT),
            Event::Binary(_) => self.finish(End::BINARY),
            Event::Ping(payload) => {
                if self.keeps_silent_pace(payload.len()) {
                    self.outbox.send_around(&codec::pong(payload), 0);
                }
            }
            Event::Pong(payload) => {
                self.keeps_silent_pace(payload.len());
            }
            Event::Close(close) => {
                self.finish(End::closed_by_client(close.map(|(code, _)| code)));
            }
        }
    }

    fn subprotocol(&self) -> Subprotocol {
        match self.form {
            Form::WebSocket(frames) => frames.subprotocol,
            Form::Sse(_) | Form::SseWithId(_) | Form::Json => Subprotocol::Json,
        }
    }

    pub(super) fn beat_websocket(&self, beat: Beat) {
        match beat {
            Beat::Send => {
                self.unanswered.set(self.unanswered.get() | HEARTBEAT);
                self.outbox.send_around(&ping(), 0);
            }
            Beat::Check => {
                // A message that was begun must end within a heartbeat's time.
                let limit = self.app.settings.websocket_heartbeat.as_secs() as u32;
                let now = self.app.seconds();
                let stuck = self.partial_since.get().is_some_and(|since| now - since > limit);
                if self.unanswered.get() & HEARTBEAT != 0 || stuck {
                    self.finish(End::TIMED_OUT);
                }
            }
        }
    }
}

/// How many bytes of a message an event hands out; control frames have none to speak of.
fn length(event: &Event<'_>) -> usize {
    match event {
        Event::Text(text) => text.len(),
        Event::Binary(bytes) => bytes.len(),
        Event::Ping(_) | Event::Pong(_) | Event::Close(_) => 0,
    }
}

/// An empty ping, made once.
fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ping_is_what_the_codec_writes() {
        assert_eq!(ping(), codec::ping(b""));
    }
}

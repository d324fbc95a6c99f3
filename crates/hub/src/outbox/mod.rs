//! What a session has still to write, and the socket that it goes to.
//!
//! The lane writes straight to the socket while nothing is queued; what the socket does not take
//! waits in a bounded queue, and the session's task finishes it. Everything here happens on one
//! thread, the lane's.

mod queue;

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tidewire_protocol::Channel;

use crate::socket::Socket;
use crate::window::Gap;
use crate::wire::Form;
use queue::{Chunk, Queue, Waiting, What};

/// The most slices in one vectored write. More gains nothing: 64 small frames fill a packet.
const MAX_SLICES: usize = 64;
/// So many chunks may always wait, however few messages may.
const MIN_CHUNKS: usize = 256;

/// What an outbox may hold before its session counts as slow.
#[derive(Debug, Clone, Copy)]
pub struct OutboxLimits {
    /// In bytes.
    pub bytes: usize,
    /// In messages.
    pub messages: usize,
}

/// Why nothing can be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The client does not read as fast as it is written to; its queue was dropped.
    Slow,
    /// The connection is gone.
    Lost,
    /// The peer has stopped answering at all (`TCP_USER_TIMEOUT`).
    TimedOut,
}

/// The way to the client: a socket that is written to directly, or none where the bytes are
/// fetched by who owns the connection (an HTTP/2 stream).
#[derive(Debug)]
pub enum Sink {
    /// The lane writes.
    Socket(Socket),
    /// [`Outbox::poll_next`] hands out.
    Fetched,
}

/// The outbound side of one session.
pub struct Outbox {
    sink: Sink,
    form: Form,
    limits: OutboxLimits,
    queue: RefCell<Waiting>,
    waker: Cell<Option<Waker>>,
    failure: Cell<Option<Failure>>,
    /// Bytes that the socket took, wrapping: shows whether there is any progress.
    written: Cell<u32>,
    dropped: Cell<u32>,
    /// Messages that were given up since this was last asked for.
    skipped: Cell<u32>,
    /// Several replies are about to be sent, and shall be written together.
    corked: Cell<bool>,
}

/// What bytes are, before they are queued.
#[derive(Clone, Copy)]
enum Kind<'a> {
    Aside,
    Fixed,
    Live(&'a Channel, bool),
    Gap(&'a Channel, &'a Gap),
}

impl Kind<'_> {
    fn own(self) -> What {
        match self {
            Self::Aside => What::Aside,
            Self::Fixed => What::Fixed,
            Self::Live(channel, may_drop) => What::Live(channel.clone(), may_drop),
            Self::Gap(channel, gap) => What::Gap(Box::new((channel.clone(), *gap))),
        }
    }
}

impl Outbox {
    /// An empty one, of a session that wants this form. While it is `held`, everything waits for
    /// [`Outbox::release`].
    #[must_use]
    pub fn new(sink: Sink, form: Form, limits: OutboxLimits, held: bool) -> Self {
        Self {
            sink,
            form,
            limits,
            queue: RefCell::new(if held { Waiting::held() } else { Waiting::default() }),
            waker: Cell::new(None),
            failure: Cell::new(None),
            written: Cell::new(0),
            dropped: Cell::new(0),
            skipped: Cell::new(0),
            corked: Cell::new(false),
        }
    }

    /// The socket, where there is one.
    pub const fn socket(&self) -> Option<&Socket> {
        match &self.sink {
            Sink::Socket(socket) => Some(socket),
            Sink::Fetched => None,
        }
    }

    /// Sends bytes that hold so many messages (0 for control frames): at once if nothing waits,
    /// else behind what waits. Over the limit the oldest messages that may be given up are, and
    /// without any the session fails as slow. Never blocks.
    pub fn send(&self, bytes: &Bytes, messages: u32) {
        self.put(bytes, messages, Kind::Fixed);
    }

    /// As [`Outbox::send`], for messages of a live channel. If they may be dropped, they are the
    /// first to go when too much waits, and a gap is told in their place.
    pub fn send_live(&self, bytes: &Bytes, messages: u32, channel: &Channel, may_drop: bool) {
        self.put(bytes, messages, Kind::Live(channel, may_drop));
    }

    /// Tells of a gap, in the bytes that `encode` makes of it; merged with the one before if that
    /// is not written yet and nothing of the channel lies between. `ids`: the bytes of this form
    /// hold the places of all channels.
    pub fn send_gap(
        &self,
        channel: &Channel,
        gap: Gap,
        ids: bool,
        encode: impl FnOnce(&Gap) -> Bytes,
    ) {
        let mut queue = self.queue.borrow_mut();
        let last = queue.some().and_then(|queue| queue.merges_with(channel, &gap, ids));
        let Some(chunk) = last else {
            drop(queue);
            return self.put(&encode(&gap), 0, Kind::Gap(channel, &gap));
        };
        let What::Gap(told) = &mut chunk.what else { return };
        told.1.cursor = gap.cursor;
        chunk.bytes = encode(&told.1);
        queue.made().recount();
    }

    /// As [`Outbox::send`], but before everything that is held back, as a head or a heartbeat must
    /// go.
    pub fn send_around(&self, bytes: &Bytes, messages: u32) {
        self.put_around(bytes, messages, Kind::Aside);
    }

    fn put(&self, bytes: &Bytes, messages: u32, kind: Kind<'_>) {
        let mut queue = self.queue.borrow_mut();
        if queue.held.is_none() {
            drop(queue);
            return self.put_around(bytes, messages, kind);
        }
        if self.failure.get().is_none() {
            queue.made().hold(Chunk { bytes: bytes.clone(), messages, what: kind.own() });
            drop(queue);
            self.check_limits();
        }
    }

    fn put_around(&self, bytes: &Bytes, messages: u32, kind: Kind<'_>) {
        if self.failure.get().is_some() || bytes.is_empty() {
            return;
        }
        let idle = self.queue.borrow().chunks.is_empty() && !self.corked.get();
        let taken = match (&self.sink, idle) {
            (Sink::Socket(socket), true) => match self.write(socket, &[IoSlice::new(bytes)]) {
                Ok(taken) => taken,
                Err(failure) => return self.fail(failure),
            },
            _ => 0,
        };
        if taken < bytes.len() {
            self.enqueue(bytes, taken, messages, kind);
        } else if let Sink::Socket(socket @ Socket::Tls(_)) = &self.sink {
            // What is encrypted may still be on its way.
            if !socket.try_flush().unwrap_or(false) {
                self.wake();
            }
        }
    }

    /// Lets what is sent from now on wait for [`Outbox::uncork`], so that it is written together.
    pub fn cork(&self) {
        self.corked.set(true);
    }

    /// Writes what has waited since [`Outbox::cork`].
    pub fn uncork(&self) {
        self.corked.set(false);
        if !self.flush() {
            self.wake();
        }
    }

    /// Lets go of what was held back, with these bytes before it.
    pub fn release(&self, first: &Bytes) {
        let held = self.queue.borrow_mut().some().and_then(|queue| queue.held.take());
        self.put_around(first, 0, Kind::Fixed);
        if self.failure.get().is_none() {
            self.queue.borrow_mut().made().chunks.extend(held.into_iter().flatten());
        }
        self.queue.borrow_mut().rest();
        self.flush();
        self.wake();
    }

    /// Writes as much as the socket takes. True when nothing is left (or can be) written.
    pub fn flush(&self) -> bool {
        let Sink::Socket(socket) = &self.sink else { return self.queue.borrow().chunks.is_empty() };
        loop {
            let mut waiting = self.queue.borrow_mut();
            let Some(queue) = waiting.some().filter(|queue| !queue.chunks.is_empty()) else {
                drop(waiting);
                return self.flush_socket(socket);
            };
            let empty: &[u8] = &[];
            let mut slices = [IoSlice::new(empty); MAX_SLICES];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&queue.chunks) {
                *slice = IoSlice::new(&chunk.bytes);
                count += 1;
            }
            match self.write(socket, &slices[..count]) {
                Ok(0) => return false,
                Ok(taken) => queue.advance(taken),
                Err(failure) => {
                    drop(waiting);
                    self.fail(failure);
                    return true;
                }
            }
            waiting.rest();
        }
    }

    /// What the socket itself still holds back, as encrypted bytes do.
    fn flush_socket(&self, socket: &Socket) -> bool {
        socket.try_flush().unwrap_or_else(|error| {
            self.fail(failure_of(&error));
            true
        })
    }

    /// Registers the session's task to be woken when it must act, and writes on when the socket
    /// takes more. Ready when the outbox has failed.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Failure> {
        self.register(cx);
        if let Some(failure) = self.failure.get() {
            return Poll::Ready(failure);
        }
        if let Sink::Socket(socket) = &self.sink {
            while !self.flush() {
                // The socket was full, so tokio has forgotten that it was writable; this asks for
                // the next time.
                match socket.poll_write_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => self.fail(failure_of(&error)),
                    Poll::Pending => break,
                }
            }
        }
        self.failure.get().map_or(Poll::Pending, Poll::Ready)
    }

    /// Hands out the next bytes, for who fetches them. `None` when the outbox has failed.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.register(cx);
        if self.failure.get().is_some() {
            return Poll::Ready(None);
        }
        let mut queue = self.queue.borrow_mut();
        let Some(chunk) = queue.some().and_then(Queue::pop) else { return Poll::Pending };
        queue.rest();
        self.written.set(self.written.get().wrapping_add(chunk.bytes.len() as u32));
        Poll::Ready(Some(chunk.bytes))
    }

    /// Marks the connection as failed and drops what waits, but the rest of a chunk that was begun:
    /// a last frame can only stand behind it.
    pub fn fail(&self, failure: Failure) {
        if self.failure.get().is_some() {
            return;
        }
        self.failure.set(Some(failure));
        let mut queue = self.queue.borrow_mut();
        let dropped = queue.some().map_or(0, |queue| queue.clear(failure == Failure::Slow));
        queue.rest();
        drop(queue);
        self.dropped.set(dropped);
        self.wake();
    }

    /// The failure, once there is one.
    pub fn failure(&self) -> Option<Failure> {
        self.failure.get()
    }

    /// Messages that were dropped when the session failed.
    pub fn dropped(&self) -> u32 {
        self.dropped.get()
    }

    /// Messages of live channels that were given up since this was last asked.
    pub fn take_skipped(&self) -> u32 {
        self.skipped.take()
    }

    /// Puts last bytes behind the chunk that was begun, if any, past the limits and whatever
    /// failed: a close frame. [`Outbox::poll_drained`] writes them.
    pub fn send_last(&self, bytes: &Bytes) {
        let mut queue = self.queue.borrow_mut();
        let queue = queue.made();
        if let Some(held) = queue.held.take() {
            queue.chunks.extend(held);
        }
        queue.push(Chunk { bytes: bytes.clone(), messages: 0, what: What::Fixed });
    }

    /// Ready once everything is written, or cannot be.
    pub fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Sink::Socket(socket) = &self.sink else { return Poll::Ready(()) };
        while !self.flush() {
            match socket.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// What waits and what was written: unchanged and not empty over a heartbeat's time means that
    /// the peer takes nothing.
    pub fn progress(&self) -> Progress {
        Progress { waiting: self.queue.borrow().bytes, written: self.written.get() }
    }

    /// Bytes that the node keeps for the client: those that wait, and those that are encrypted and on their
    /// way. None once it has failed: the last ones are not worth a bound.
    pub fn waits(&self) -> usize {
        if self.failure.get().is_some() {
            return 0;
        }
        self.queue.borrow().bytes + self.socket().map_or(0, Socket::kept)
    }

    /// How many bytes and messages may be sent to a client that catches up: half of what may
    /// wait, so that what is published meanwhile has room.
    pub fn room(&self) -> (usize, usize) {
        let queue = self.queue.borrow();
        let limits = self.limits;
        (
            (limits.bytes / 2).saturating_sub(queue.bytes),
            (limits.messages / 2).saturating_sub(queue.messages),
        )
    }

    /// Wakes the session's task.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Registers the session's task to be woken when it must act.
    pub fn register(&self, cx: &Context<'_>) {
        let waker = match self.waker.take() {
            Some(waker) if waker.will_wake(cx.waker()) => waker,
            _ => cx.waker().clone(),
        };
        self.waker.set(Some(waker));
    }

    fn enqueue(&self, bytes: &Bytes, taken: usize, messages: u32, kind: Kind<'_>) {
        let mut queue = self.queue.borrow_mut();
        let rest = bytes.slice(taken..);
        // Of a joined batch the part that was written does not count any more.
        let messages = match u64::from(messages) * rest.len() as u64 / bytes.len() as u64 {
            0 => messages.min(1),
            some => some as u32,
        };
        let made = queue.made();
        made.begun |= taken > 0;
        made.push(Chunk { bytes: rest, messages, what: kind.own() });
        let waiting = queue.chunks.len();
        drop(queue);
        if self.corked.get() {
            if waiting >= MAX_SLICES {
                self.flush();
            }
        } else if waiting == 1 {
            self.wake();
        }
        self.check_limits();
    }

    fn check_limits(&self) {
        let mut queue = self.queue.borrow_mut();
        while self.is_over(&queue) {
            let form = self.form;
            let Some(messages) = queue.some().and_then(|queue| queue.give_up_oldest(form)) else {
                drop(queue);
                return self.fail(Failure::Slow);
            };
            self.skipped.set(self.skipped.get() + messages);
        }
    }

    fn is_over(&self, queue: &Queue) -> bool {
        let limits = self.limits;
        // A chunk costs some 70 bytes besides its own; small replies, too, must not add up.
        queue.bytes > limits.bytes
            || queue.messages > limits.messages
            || queue.len() > limits.messages.max(MIN_CHUNKS)
    }

    fn write(&self, socket: &Socket, slices: &[IoSlice<'_>]) -> Result<usize, Failure> {
        match socket.try_write(slices) {
            Ok(taken) => {
                self.written.set(self.written.get().wrapping_add(taken as u32));
                Ok(taken)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(failure_of(&error)),
        }
    }
}

/// What [`Outbox::progress`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that wait.
    pub waiting: usize,
    /// Bytes that were written, wrapping.
    pub written: u32,
}

fn failure_of(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::TimedOut,
        _ => Failure::Lost,
    }
}

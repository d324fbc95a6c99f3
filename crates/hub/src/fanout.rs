//! One turn's messages of one channel, written to all its subscribers.
//!
//! What waited for a lane is joined once for each wire form and then written to each session in
//! one system call. Alone, a message is written as it is, with no copy; under load the batch grows
//! by itself, and the cost of a message falls.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::session::Session;
use crate::wire::{Encoded, Form};

/// The longest joined piece: some sockets' buffers take no more at once.
const MAX_PIECE_BYTES: usize = 128 << 10;

/// Messages of one channel in order.
pub(crate) struct Batch {
    messages: Vec<Arc<Encoded>>,
    pieces: [OnceCell<SmallVec<[Piece; 1]>>; Form::COUNT],
    /// Some message is not for everyone.
    excludes: bool,
    /// No message has a place.
    is_live: bool,
    /// They may be dropped where a client is too slow.
    may_drop: bool,
    /// Of so many bytes and more they are compressed for who agreed on that.
    compress_from: usize,
}

/// Bytes, and how many messages they are.
struct Piece {
    bytes: Bytes,
    messages: u32,
}

/// What went out, by transport; added to the metrics once a batch.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) messages: [u64; 3],
    pub(crate) bytes: [u64; 3],
    /// Messages that slow clients lost.
    pub(crate) skipped: [u64; 3],
}

impl Batch {
    /// Nothing is joined yet. Where they are live they `may_drop` out of the outbox of a client
    /// that is too slow. Of `compress_from` bytes and more they are compressed for who agreed.
    pub(crate) fn new(messages: Vec<Arc<Encoded>>, may_drop: bool, compress_from: usize) -> Self {
        let excludes = messages.iter().any(|one| one.message.exclude.is_some());
        let is_live = messages.iter().all(|one| one.message.stored.is_none());
        Self { messages, pieces: Default::default(), excludes, is_live, may_drop, compress_from }
    }

    /// The messages.
    pub(crate) fn messages(&self) -> &[Arc<Encoded>] {
        &self.messages
    }

    /// Hands it to one session's outbox.
    pub(crate) fn send(&self, session: &dyn Session, tally: &mut Tally) {
        let form = session.form();
        let excludes = self.excludes && self.messages.iter().any(|one| excluded(one, session));
        if excludes || session.tracks() {
            for one in &self.messages {
                if excluded(one, session) {
                    session.passed_over(one);
                    continue;
                }
                match session.before(one) {
                    None => self.hand(session, one.bytes(form, self.compress_from), 1, tally),
                    Some(mut bytes) => {
                        bytes.extend_from_slice(one.bytes(form, self.compress_from));
                        self.hand(session, &bytes.into(), 1, tally);
                    }
                }
            }
            return;
        }
        for piece in self.pieces[form.index()].get_or_init(|| self.join(form)) {
            self.hand(session, &piece.bytes, piece.messages, tally);
        }
    }

    fn hand(&self, session: &dyn Session, bytes: &Bytes, messages: u32, tally: &mut Tally) {
        let outbox = session.outbox();
        if outbox.failure().is_some() {
            return;
        }
        match self.messages.first() {
            Some(first) if self.is_live => {
                outbox.send_live(bytes, messages, &first.channel, self.may_drop);
            }
            _ => outbox.send(bytes, messages),
        }
        let transport = session.form().transport() as usize;
        tally.messages[transport] += u64::from(messages);
        tally.bytes[transport] += bytes.len() as u64;
        tally.skipped[transport] += u64::from(outbox.take_skipped());
    }

    fn join(&self, form: Form) -> SmallVec<[Piece; 1]> {
        let from = self.compress_from;
        let mut pieces = SmallVec::new();
        let mut rest = &self.messages[..];
        while let Some((first, others)) = rest.split_first() {
            let mut length = first.bytes(form, from).len();
            let mut count = 1;
            for other in others {
                length += other.bytes(form, from).len();
                if length > MAX_PIECE_BYTES {
                    break;
                }
                count += 1;
            }
            let (joined, left) = rest.split_at(count);
            let bytes = if let [one] = joined {
                one.bytes(form, from).clone()
            } else {
                let mut bytes = BytesMut::with_capacity(length.min(MAX_PIECE_BYTES));
                joined.iter().for_each(|one| bytes.extend_from_slice(one.bytes(form, from)));
                bytes.freeze()
            };
            // At most as many as a turn holds.
            pieces.push(Piece { bytes, messages: count as u32 });
            rest = left;
        }
        pieces
    }
}

fn excluded(message: &Encoded, session: &dyn Session) -> bool {
    message.message.exclude == Some(session.id())
}

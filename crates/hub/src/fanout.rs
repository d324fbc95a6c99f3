//! One turn's messages of one channel, written to all its subscribers.
//!
//! What waited for a lane is joined once for each wire form and then written to each session in
//! one system call. Alone, a message is written as it is, with no copy; under load the batch grows
//! by itself, and the cost of a message falls.

use std::cell::OnceCell;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::lane::Session;
use crate::wire::{Encoded, Form, Transport};

/// The longest joined piece: some sockets' buffers take no more at once.
const MAX_PIECE_BYTES: usize = 128 << 10;

/// Messages of one channel in order.
pub(crate) struct Batch {
    messages: Vec<Arc<Encoded>>,
    pieces: [OnceCell<SmallVec<[Piece; 1]>>; Form::COUNT],
    /// Some message is not for everyone.
    excludes: bool,
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
}

impl Batch {
    /// Nothing is joined yet.
    pub(crate) fn new(messages: Vec<Arc<Encoded>>) -> Self {
        let excludes = messages.iter().any(|one| one.message.exclude.is_some());
        Self { messages, pieces: Default::default(), excludes }
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
                    None => send(session, one.bytes(form), 1, tally),
                    Some(mut bytes) => {
                        bytes.extend_from_slice(one.bytes(form));
                        send(session, &bytes.into(), 1, tally);
                    }
                }
            }
            return;
        }
        for piece in self.pieces[form.index()].get_or_init(|| self.join(form)) {
            send(session, &piece.bytes, piece.messages, tally);
        }
    }

    fn join(&self, form: Form) -> SmallVec<[Piece; 1]> {
        let mut pieces = SmallVec::new();
        let mut rest = &self.messages[..];
        while let Some((first, others)) = rest.split_first() {
            let mut length = first.bytes(form).len();
            let mut count = 1;
            for other in others {
                length += other.bytes(form).len();
                if length > MAX_PIECE_BYTES {
                    break;
                }
                count += 1;
            }
            let (joined, left) = rest.split_at(count);
            let bytes = if let [one] = joined {
                one.bytes(form).clone()
            } else {
                let mut bytes = BytesMut::with_capacity(length.min(MAX_PIECE_BYTES));
                joined.iter().for_each(|one| bytes.extend_from_slice(one.bytes(form)));
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

fn send(session: &dyn Session, bytes: &Bytes, messages: u32, tally: &mut Tally) {
    let outbox = session.outbox();
    if outbox.failure().is_some() {
        return;
    }
    outbox.send(bytes, messages);
    let transport: Transport = session.form().transport();
    tally.messages[transport as usize] += u64::from(messages);
    tally.bytes[transport as usize] += bytes.len() as u64;
}

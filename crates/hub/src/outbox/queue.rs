//! What waits for one client, in order, and what of it may be given up.
//!
//! The outbox owns one and asks before it counts its session as slow. A queue writes nothing and
//! decides no limit.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use tidewire_protocol::{Channel, Reply};

use crate::window::Gap;
use crate::wire::{Form, encode_reply};

#[derive(Default)]
pub(super) struct Queue {
    pub(super) chunks: VecDeque<Chunk>,
    /// What comes after the outbox was released, until then.
    pub(super) held: Option<VecDeque<Chunk>>,
    /// Of chunks and what is held together.
    pub(super) bytes: usize,
    pub(super) messages: usize,
    /// The socket took the beginning of the first chunk; its rest must follow.
    pub(super) begun: bool,
}

/// Bytes that are written whole.
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) messages: u32,
    pub(super) what: What,
}

/// What a chunk is, as far as it matters to the chunks around it.
pub(super) enum What {
    /// A head or a heartbeat: it stands anywhere.
    Aside,
    /// A reply, or messages of a stored channel.
    Fixed,
    /// Messages without a place, and whether they may be given up.
    Live(Channel, bool),
    /// Something is missing here.
    Gap(Box<(Channel, Gap)>),
}

impl Chunk {
    /// A reply says something about the channels, too; nothing is moved past it.
    fn is_reply(&self) -> bool {
        matches!(self.what, What::Fixed) && self.messages == 0
    }
}

impl Queue {
    /// Puts a chunk at the end of what is written next.
    pub(super) fn push(&mut self, chunk: Chunk) {
        self.count(&chunk);
        self.chunks.push_back(chunk);
    }

    /// Puts a chunk at the end of what is held back.
    pub(super) fn hold(&mut self, chunk: Chunk) {
        self.count(&chunk);
        self.held.get_or_insert_default().push_back(chunk);
    }

    /// How many chunks there are.
    pub(super) fn len(&self) -> usize {
        self.chunks.len() + self.held.as_ref().map_or(0, VecDeque::len)
    }

    /// So many bytes were written.
    pub(super) fn advance(&mut self, mut taken: usize) {
        self.bytes -= taken;
        while let Some(first) = self.chunks.front_mut() {
            if taken < first.bytes.len() {
                first.bytes.advance(taken);
                self.begun |= taken > 0;
                return;
            }
            taken -= first.bytes.len();
            self.messages -= first.messages as usize;
            self.chunks.pop_front();
            self.begun = false;
        }
        self.rest_when_empty();
    }

    /// Takes the first chunk out, for who writes it.
    pub(super) fn pop(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.pop_front()?;
        self.bytes -= chunk.bytes.len();
        self.messages -= chunk.messages as usize;
        self.begun = false;
        self.rest_when_empty();
        Some(chunk)
    }

    /// Empties it but for the rest of a chunk that was begun, if that is wanted; gives how many
    /// messages were dropped.
    pub(super) fn clear(&mut self, keep_begun: bool) -> u32 {
        let keep = usize::from(self.begun && keep_begun);
        let held = self.held.take().unwrap_or_default();
        let dropped = self.chunks.drain(keep..).chain(held).map(|chunk| chunk.messages).sum();
        self.bytes = self.chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        self.messages = self.chunks.iter().map(|chunk| chunk.messages as usize).sum();
        self.rest_when_empty();
        dropped
    }

    /// The gap with which this one merges: one of the same channel that is not written yet and
    /// ends where this one begins, so that no message lies between. Where chunks carry the places
    /// of all channels (`ids`), nothing else may lie between, either: they would take the client
    /// past a gap that it has not been told of.
    pub(super) fn merges_with(
        &mut self,
        channel: &Channel,
        gap: &Gap,
        ids: bool,
    ) -> Option<&mut Chunk> {
        let first = usize::from(self.begun && self.held.is_none());
        let list = self.held.as_mut().unwrap_or(&mut self.chunks);
        for chunk in list.range_mut(first.min(list.len())..).rev() {
            match &chunk.what {
                What::Aside => {}
                What::Gap(told) if told.0 == *channel => {
                    return (told.1.cursor == gap.after).then_some(chunk);
                }
                What::Live(other, _) if other == channel => return None,
                _ if ids || chunk.is_reply() => return None,
                What::Fixed | What::Live(..) | What::Gap(_) => {}
            }
        }
        None
    }

    /// Counts anew, after a chunk was changed.
    pub(super) fn recount(&mut self) {
        let all = || self.chunks.iter().chain(self.held.iter().flatten());
        let (bytes, messages) = all().fold((0, 0), |(bytes, messages), chunk| {
            (bytes + chunk.bytes.len(), messages + chunk.messages as usize)
        });
        (self.bytes, self.messages) = (bytes, messages);
    }

    /// Gives up the oldest messages that may be given up, and tells of it in their place unless
    /// their channel's client will have been told before. How many messages they were; `None` when
    /// there are none.
    pub(super) fn give_up_oldest(&mut self, form: Form) -> Option<u32> {
        let first = usize::from(self.begun);
        let (freed, messages) = match give_up(&mut self.chunks, first, form) {
            Some(given_up) => given_up,
            None => give_up(self.held.as_mut()?, 0, form)?,
        };
        // A gap is shorter than any message, but if it were not this would still count right.
        self.bytes = self.bytes.saturating_add_signed(-freed);
        self.messages -= messages as usize;
        Some(messages)
    }

    fn count(&mut self, chunk: &Chunk) {
        self.bytes += chunk.bytes.len();
        self.messages += chunk.messages as usize;
    }

    /// An idle session owns no buffer.
    fn rest_when_empty(&mut self) {
        if self.chunks.is_empty() {
            self.chunks = VecDeque::new();
        }
    }
}

/// Gives up the oldest such chunk of a list from `first` on: the bytes that became free, and its
/// messages.
fn give_up(list: &mut VecDeque<Chunk>, first: usize, form: Form) -> Option<(isize, u32)> {
    let may_go = |chunk: &Chunk| matches!(chunk.what, What::Live(_, true));
    let at = (first..list.len()).find(|at| may_go(&list[*at]))?;
    let What::Live(channel, _) = &list[at].what else { return None };
    let (channel, messages) = (channel.clone(), list[at].messages);
    // Sizes are those of a queue: they fit.
    let before = list[at].bytes.len() as isize;
    if is_told(list, first, at, &channel) {
        list.remove(at);
        return Some((before, messages));
    }
    let bytes = encode_reply(form, &Reply::Gap { channel: &channel, after: None, cursor: None });
    let after = bytes.len() as isize;
    let what = What::Gap(Box::new((channel, Gap::default())));
    list[at] = Chunk { bytes, messages: 0, what };
    Some((before - after, messages))
}

/// Whether a gap of the channel waits before this place, with none of its messages between.
fn is_told(list: &VecDeque<Chunk>, first: usize, at: usize, channel: &Channel) -> bool {
    for chunk in list.range(first..at).rev() {
        match &chunk.what {
            What::Gap(told) if told.0 == *channel => return told.1.cursor.is_none(),
            What::Live(other, _) if other == channel => return false,
            _ if chunk.is_reply() => return false,
            _ => {}
        }
    }
    false
}

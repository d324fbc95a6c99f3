//! What a connection keeps while a frame or a message is incomplete.
//!
//! Owns the copies of bytes that outlive one read: a header in pieces, the payload of a control
//! frame in pieces, a message whose frames are still arriving. Made by the decoder when it runs
//! out of input in the middle of something and dropped as soon as that is handed out; an idle
//! connection has none. Its size is bounded by that of this struct plus the message limit (and an
//! eighth of it for a message that is compressed).

use crate::header::{Header, MAX_HEADER, Opcode};
use crate::input::Input;
use crate::mask::unmask;
use crate::{DecodeError, MAX_CONTROL_PAYLOAD, deflate};

/// The copies, and the place within the frame that is being received.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    header: Stash<MAX_HEADER>,
    frame: Option<Frame>,
    control: Stash<MAX_CONTROL_PAYLOAD>,
    message: Option<Message>,
}

/// A frame whose header is read and whose payload is still arriving.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    /// Bytes of payload that are still to come.
    missing: usize,
    /// The masking key, turned to fit the next byte.
    mask: [u8; 4],
}

/// A text or binary message, as far as it has arrived.
#[derive(Debug)]
struct Message {
    text: bool,
    /// Its bytes are to be decompressed when all are here.
    compressed: bool,
    bytes: Vec<u8>,
    /// Up to where a text is known to be UTF-8, always at the start of a character.
    valid_to: usize,
    /// Whether its last frame is here.
    complete: bool,
}

impl Partial {
    /// Whether nothing is awaited any more, so that the copies can go.
    pub(crate) fn is_spent(&self) -> bool {
        self.header.is_empty()
            && self.frame.is_none()
            && self.message.as_ref().is_none_or(|message| message.complete)
    }

    /// The bytes of a message that is not complete.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        let unfinished = self.message.as_ref().filter(|message| !message.complete);
        unfinished.map_or(0, |message| message.bytes.len())
    }

    /// The bytes of heap that it holds, its own struct included.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.message.as_ref().map_or(0, |message| message.bytes.capacity())
    }

    /// How long the fragmented message under way is so far, and whether it is compressed; `None`
    /// if there is none.
    pub(crate) fn under_way(&self) -> Option<(usize, bool)> {
        self.message.as_ref().map(|message| (message.bytes.len(), message.compressed))
    }

    /// Keeps a whole message that was decompressed, until it is handed out.
    pub(crate) fn hold(&mut self, opcode: Opcode, bytes: Vec<u8>) {
        let text = opcode == Opcode::Text;
        self.message =
            Some(Message { text, compressed: false, bytes, valid_to: 0, complete: true });
    }

    /// Whether a frame's payload is under way, so that the input goes on with it.
    pub(crate) fn in_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// Reads on in a header that came in pieces, or begins one that is incomplete.
    pub(crate) fn read_header(
        &mut self,
        input: &mut Input<'_>,
        deflate: bool,
    ) -> Result<Option<Header>, DecodeError> {
        let old = self.header.len();
        let mut head = self.header;
        head.fill(input.rest());
        match Header::parse(head.bytes(), deflate)? {
            Some(header) => {
                input.take(header.size - old);
                self.header.clear();
                Ok(Some(header))
            }
            // Incomplete, hence shorter than the longest header, hence all of the input fitted.
            None => {
                input.discard();
                self.header = head;
                Ok(None)
            }
        }
    }

    /// Begins a frame whose payload is not whole in the input, or belongs to a longer message.
    /// The header fits the sequence and its payload the limit: the decoder has checked.
    pub(crate) fn begin(&mut self, header: &Header, payload: usize) {
        match header.opcode {
            Opcode::Text | Opcode::Binary => {
                self.message = Some(Message {
                    text: header.opcode == Opcode::Text,
                    compressed: header.compressed,
                    bytes: Vec::new(),
                    valid_to: 0,
                    complete: false,
                });
            }
            Opcode::Continuation => {}
            Opcode::Close | Opcode::Ping | Opcode::Pong => self.control.clear(),
        }
        self.frame = Some(Frame {
            opcode: header.opcode,
            fin: header.fin,
            missing: payload,
            mask: header.mask,
        });
    }

    /// Goes on with the frame under way, as far as the input reaches. Returns the opcode of what
    /// is complete with it; its bytes are then in [`payload`](Self::payload).
    pub(crate) fn feed(
        &mut self,
        input: &mut Input<'_>,
        max_message: usize,
    ) -> Result<Option<Opcode>, DecodeError> {
        let Some(frame) = &mut self.frame else {
            return Ok(None);
        };
        let range = input.take(frame.missing);
        let chunk = input.taken_mut(range);
        frame.mask = unmask(chunk, frame.mask);
        frame.missing -= chunk.len();
        let frame = *frame;
        if frame.missing == 0 {
            self.frame = None;
        }
        if frame.opcode.is_control() {
            self.control.fill(chunk);
            return Ok((frame.missing == 0).then_some(frame.opcode));
        }
        let Some(message) = &mut self.message else {
            return Ok(None);
        };
        // The length at which the growth of the buffer ends, for certain: the message ends with
        // this frame, or it may take more frames up to the limit.
        let ceiling = if frame.fin {
            message.bytes.len() + chunk.len() + frame.missing
        } else {
            deflate::received_limit(max_message, message.compressed)
        };
        message.append(chunk, ceiling);
        if frame.fin && frame.missing == 0 {
            if message.compressed {
                message.bytes = deflate::inflate(&message.bytes, max_message)?;
            }
            message.complete = true;
            // Its UTF-8 is checked as a whole when it is handed out.
            return Ok(Some(message.opcode()));
        }
        message.check_text()?;
        Ok(None)
    }

    /// The payload that the last [`feed`](Self::feed) completed.
    pub(crate) fn payload(&self, opcode: Opcode) -> &[u8] {
        if opcode.is_control() {
            self.control.bytes()
        } else {
            self.message.as_ref().map_or(&[], |message| &message.bytes)
        }
    }
}

impl Message {
    fn opcode(&self) -> Opcode {
        if self.text { Opcode::Text } else { Opcode::Binary }
    }

    /// Copies `chunk` behind what is here. Memory follows what has arrived, not what a header
    /// announced, doubling so that copying stays linear, and never passes `ceiling`.
    fn append(&mut self, chunk: &[u8], ceiling: usize) {
        let needed = self.bytes.len() + chunk.len();
        if needed > self.bytes.capacity() {
            let target = needed.max(self.bytes.capacity() * 2).min(ceiling);
            self.bytes.reserve_exact(target - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// Fails as soon as a text cannot become UTF-8 any more; section 8.1 asks for no particular
    /// moment, but a client that sends nonsense need not be listened to until the message ends.
    fn check_text(&mut self) -> Result<(), DecodeError> {
        if !self.text || self.compressed {
            return Ok(());
        }
        let unchecked = self.bytes.get(self.valid_to..).unwrap_or_default();
        match simdutf8::compat::from_utf8(unchecked) {
            Ok(_) => self.valid_to = self.bytes.len(),
            // No length: the text ends within a character that the next bytes may complete.
            Err(error) if error.error_len().is_none() => self.valid_to += error.valid_up_to(),
            Err(_) => return Err(DecodeError::InvalidText),
        }
        Ok(())
    }
}

/// A few bytes kept in place, without a buffer of their own.
#[derive(Clone, Copy, Debug)]
struct Stash<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Default for Stash<N> {
    fn default() -> Self {
        Self { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Stash<N> {
    fn len(&self) -> usize {
        usize::from(self.len)
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn clear(&mut self) {
        self.len = 0;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len()]
    }

    /// Copies as much of `more` as there is room for.
    fn fill(&mut self, more: &[u8]) {
        for (slot, byte) in self.bytes[usize::from(self.len)..].iter_mut().zip(more) {
            *slot = *byte;
            self.len += 1;
        }
    }
}

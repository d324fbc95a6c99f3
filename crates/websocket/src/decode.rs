//! The decoder: a client's bytes in, messages and control frames out.
//!
//! Owns the rules about sequences of frames (section 5.4), the message limit and the end of the
//! conversation. A session holds one for its connection's life and drains it after every read; it
//! never answers, never waits and never reads a clock: time-outs and close frames are the
//! session's.

use std::ops::Range;

use crate::header::{Header, Opcode};
use crate::input::Input;
use crate::mask::unmask;
use crate::partial::Partial;
use crate::{DecodeError, close_code, deflate};

/// What a client sent. The bytes lie in the scratch buffer, or in the decoder if they came in
/// pieces; either way they last until the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'e> {
    /// A whole text message.
    Text(&'e str),
    /// A whole binary message.
    Binary(&'e [u8]),
    /// A ping, to be answered with a [`pong`](crate::pong) of the same payload, at most 125
    /// bytes.
    Ping(&'e [u8]),
    /// A pong, asked for or not.
    Pong(&'e [u8]),
    /// The client closes, with a code and a reason if it gave one. Nothing follows; answer with a
    /// [`close`](crate::close) of the same code ([`close_empty`](crate::close_empty) if none) and
    /// close the socket.
    Close(Option<(u16, &'e str)>),
}

/// The state of one connection's incoming side.
///
/// Small, and without a buffer of its own unless a frame or message is incomplete.
#[derive(Debug)]
pub struct Decoder {
    max_message: usize,
    partial: Option<Box<Partial>>,
    /// Whether the client may compress.
    deflate: bool,
    closed: bool,
    /// Frames that only began a message or added to it, since they were last asked for.
    parts: u32,
}

/// Where the next event is.
enum Step {
    /// Nowhere yet: the input is used up.
    Starved,
    /// In the input, unmasked.
    InPlace(Opcode, Range<usize>),
    /// In the partial, which it completed.
    Assembled(Opcode),
}

impl Decoder {
    /// A decoder that refuses messages over `max_message` bytes, whether in one frame or many.
    #[must_use]
    pub fn new(max_message: usize) -> Self {
        Self { max_message, partial: None, deflate: false, closed: false, parts: 0 }
    }

    /// The same for a client with which [`Deflate`](crate::Deflate) was agreed on: it may send
    /// compressed messages, which are handed out decompressed. The limit is that of the
    /// decompressed message; more is neither kept nor made.
    #[must_use]
    pub fn with_deflate(max_message: usize) -> Self {
        Self { deflate: true, ..Self::new(max_message) }
    }

    /// The next event in `input`, or `None` when it is used up.
    ///
    /// Call it until it returns `None`, which also frees the copy of a message that came in
    /// pieces. Frames that are whole in the input are unmasked there and handed out without a
    /// copy; the rest of an incomplete one is kept, and `input` is always used up in the end.
    ///
    /// # Errors
    ///
    /// The client broke the protocol: see [`DecodeError`] for what to do. Nothing is decoded
    /// after an error or a close frame; what comes is discarded. The same bytes lead to the same
    /// events and the same error however they are split over reads.
    pub fn decode<'e>(
        &'e mut self,
        input: &'e mut Input<'_>,
    ) -> Result<Option<Event<'e>>, DecodeError> {
        if self.closed || self.partial.as_ref().is_some_and(|partial| partial.is_spent()) {
            self.partial = None;
        }
        let event = match self.step(input) {
            Ok(Step::Starved) => return Ok(None),
            Ok(Step::InPlace(opcode, range)) => event(opcode, input.taken(range)),
            Ok(Step::Assembled(opcode)) => {
                let partial = self.partial.as_ref();
                event(opcode, partial.map_or(&[], |partial| partial.payload(opcode)))
            }
            Err(error) => {
                self.partial = None;
                Err(error)
            }
        };
        // Section 1.4: "After receiving a control frame indicating the connection should be
        // closed, a peer discards any further data received."
        if matches!(event, Err(_) | Ok(Event::Close(_))) {
            self.closed = true;
        }
        event.map(Some)
    }

    /// Whether a frame or a fragmented message has begun and not ended.
    ///
    /// For the caller's time-out, after the input is used up: start the clock when this becomes
    /// true, and afresh whenever a message is handed out; pings and pongs within a fragmented
    /// message do not count. Otherwise a client could hold up to the message limit for ever.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        !self.closed && self.partial.as_ref().is_some_and(|partial| !partial.is_spent())
    }

    /// Whether the conversation is over, by a close frame or an error.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// How many frames there were since this was last asked that ended no message: they cost the
    /// client as little as two bytes and a mask, and no event tells of them.
    #[must_use]
    pub fn take_parts(&mut self) -> u32 {
        std::mem::take(&mut self.parts)
    }

    /// How many bytes of an unfinished text or binary message are here; as they came, if it is compressed.
    ///
    /// The next message that is handed out is that one.
    #[must_use]
    pub fn unfinished_bytes(&self) -> usize {
        if self.closed { 0 } else { self.partial.as_ref().map_or(0, |it| it.unfinished_bytes()) }
    }

    /// The bytes of heap that the decoder holds: 0 without a partial message, else at most the
    /// message limit and a fixed part of less than 256 bytes; where compression was agreed on, an
    /// eighth of the limit more.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.heap_bytes())
    }

    /// Moves through the input up to the end of the next event. Frames that only add to a
    /// fragmented message, empty ones included, cost a turn of the loop and nothing else.
    fn step(&mut self, input: &mut Input<'_>) -> Result<Step, DecodeError> {
        loop {
            if self.closed {
                input.discard();
                return Ok(Step::Starved);
            }
            if let Some(partial) = self.partial.as_mut().filter(|partial| partial.in_frame()) {
                if let Some(opcode) = partial.feed(input, self.max_message)? {
                    return Ok(Step::Assembled(opcode));
                }
                if partial.in_frame() {
                    return Ok(Step::Starved);
                }
            }
            let Some(header) = self.read_header(input)? else {
                return Ok(Step::Starved);
            };
            let payload = self.admit(&header)?;
            if !header.fin {
                self.parts = self.parts.saturating_add(1);
            }
            let whole =
                header.opcode.is_control() || (header.fin && header.opcode != Opcode::Continuation);
            if whole && payload <= input.remaining() {
                let range = input.take(payload);
                unmask(input.taken_mut(range.clone()), header.mask);
                if header.compressed {
                    let message = deflate::inflate(input.taken(range), self.max_message)?;
                    self.partial.get_or_insert_default().hold(header.opcode, message);
                    return Ok(Step::Assembled(header.opcode));
                }
                return Ok(Step::InPlace(header.opcode, range));
            }
            self.partial.get_or_insert_default().begin(&header, payload);
        }
    }

    /// The next frame's header, or `None` when the input ends within it or before it.
    fn read_header(&mut self, input: &mut Input<'_>) -> Result<Option<Header>, DecodeError> {
        if let Some(partial) = &mut self.partial {
            return partial.read_header(input, self.deflate);
        }
        if let Some(header) = Header::parse(input.rest(), self.deflate)? {
            input.take(header.size);
            return Ok(Some(header));
        }
        if input.is_empty() {
            return Ok(None);
        }
        self.partial.get_or_insert_default().read_header(input, self.deflate)
    }

    /// Checks that a frame may come now and that its message stays within the limit, before any
    /// of its payload is looked at. Returns the payload's length.
    fn admit(&self, header: &Header) -> Result<usize, DecodeError> {
        let under_way = self.partial.as_ref().and_then(|partial| partial.under_way());
        let (before, compressed) = match (header.opcode, under_way) {
            // Section 5.4: a fragmented message "consists of a single frame with the FIN bit
            // clear and an opcode other than 0, followed by zero or more frames with the FIN bit
            // clear and the opcode set to 0, and terminated by a single frame with the FIN bit
            // set and an opcode of 0."
            (Opcode::Continuation, None) => return Err(DecodeError::UnexpectedContinuation),
            (Opcode::Continuation, Some(before)) => before,
            // Section 5.4: "The fragments of one message MUST NOT be interleaved between the
            // fragments of another message unless an extension has been negotiated that can
            // interpret the interleaving."
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(DecodeError::InterruptedMessage);
            }
            (Opcode::Text | Opcode::Binary, None) => (0, header.compressed),
            // Section 5.4: "Control frames MAY be injected in the middle of a fragmented
            // message." Their length is checked with the header, against a limit of their own.
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                return Ok(usize::try_from(header.payload).unwrap_or(usize::MAX));
            }
        };
        // Section 10.4: "Implementations that have implementation- and/or platform-specific
        // limitations regarding the frame size or total message size after reassembly from
        // multiple frames MUST protect themselves against exceeding those limits."
        let limit = deflate::received_limit(self.max_message, compressed);
        match usize::try_from(header.payload) {
            Ok(payload) if payload <= limit.saturating_sub(before) => Ok(payload),
            _ => Err(DecodeError::TooBig { limit: self.max_message }),
        }
    }
}

/// The event for a complete and unmasked payload.
fn event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, DecodeError> {
    match opcode {
        // Section 5.6: "The "Payload data" is text data encoded as UTF-8. Note that a particular
        // text frame might include a partial UTF-8 sequence; however, the whole message MUST
        // contain valid UTF-8."
        Opcode::Text => simdutf8::basic::from_utf8(payload)
            .map(Event::Text)
            .map_err(|_| DecodeError::InvalidText),
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong(payload)),
        Opcode::Close => close_event(payload),
        // A continuation completes a message of one of the two kinds and is reported as that.
        Opcode::Binary | Opcode::Continuation => Ok(Event::Binary(payload)),
    }
}

/// Section 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned
/// integer (in network byte order) representing a status code with value /code/ defined in Section
/// 7.4. Following the 2-byte integer, the body MAY contain UTF-8-encoded data with value /reason/".
fn close_event(payload: &[u8]) -> Result<Event<'_>, DecodeError> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() {
            Ok(Event::Close(None))
        } else {
            Err(DecodeError::TruncatedCloseCode)
        };
    };
    let code = u16::from_be_bytes(code);
    if !close_code::is_valid(code) {
        return Err(DecodeError::InvalidCloseCode(code));
    }
    let reason = str::from_utf8(reason).map_err(|_| DecodeError::InvalidCloseReason)?;
    Ok(Event::Close(Some((code, reason))))
}

#[cfg(test)]
mod tests;

//! Frames that the server sends: never masked, never fragmented.
//!
//! Owns the header's bytes. The hub calls it once per message and wire form and shares the result
//! among all subscribers; sessions call it for what concerns them alone. Section 5.1: "A server
//! MUST NOT mask any frames that it sends to the client."

use std::convert::Infallible;

use bytes::{Buf, Bytes};

use crate::MAX_CONTROL_PAYLOAD;
use crate::header::{Opcode, RSV1};

/// The longest header of a server's frame: 2 bytes and 8 of length.
const MAX_HEADER: usize = 10;

/// The longest reason that fits into a close frame beside its code, in bytes.
const MAX_CLOSE_REASON: usize = MAX_CONTROL_PAYLOAD - 2;

/// The two kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8 text. The caller vouches for it; nothing here checks.
    Text,
    /// Any bytes.
    Binary,
}

impl MessageKind {
    fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// One message as one frame, copying `payload` once.
#[must_use]
pub fn encode(kind: MessageKind, payload: &[u8]) -> Bytes {
    encode_with(kind, payload.len(), |frame| frame.extend_from_slice(payload))
}

/// One message as one frame whose payload `write` appends, so that a serialiser writes straight
/// into the frame.
///
/// `capacity` is the expected length of the payload in bytes; a good guess saves a reallocation.
/// `write` gets a vector that is not empty and must only append to it: it begins with the room
/// for the header, which is filled in when the payload's length is known.
#[must_use]
pub fn encode_with(kind: MessageKind, capacity: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let written = try_encode_with(kind, capacity, |frame| -> Result<(), Infallible> {
        write(frame);
        Ok(())
    });
    match written {
        Ok(frame) => frame,
        Err(never) => match never {},
    }
}

/// [`encode_with`] for a serialiser that can fail.
///
/// # Errors
///
/// Whatever `write` returns; there is no frame then.
pub fn try_encode_with<E>(
    kind: MessageKind,
    capacity: usize,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Bytes, E> {
    let mut frame = Vec::with_capacity(MAX_HEADER + capacity);
    frame.resize(MAX_HEADER, 0);
    write(&mut frame)?;
    debug_assert!(frame.len() >= MAX_HEADER, "the writer must only append");
    // The header goes right before the payload; what it leaves free in front is skipped, up to 8
    // bytes that a shared frame carries along.
    let payload = frame.len().saturating_sub(MAX_HEADER);
    let (header, size) = header(kind.opcode() as u8, payload);
    let skip = MAX_HEADER - size;
    if let Some(room) = frame.get_mut(skip..MAX_HEADER) {
        room.copy_from_slice(&header[..size]);
    }
    let mut frame = Bytes::from(frame);
    frame.advance(skip.min(frame.len()));
    Ok(frame)
}

/// A message whose payload is compressed already, as one frame.
pub(crate) fn compressed(kind: MessageKind, deflated: &[u8]) -> Bytes {
    let (header, size) = header(kind.opcode() as u8 | RSV1, deflated.len());
    let mut frame = Vec::with_capacity(size + deflated.len());
    frame.extend_from_slice(&header[..size]);
    frame.extend_from_slice(deflated);
    frame.into()
}

/// A ping. Of a payload over 125 bytes the rest is cut off.
#[must_use]
pub fn ping(payload: &[u8]) -> Bytes {
    control(Opcode::Ping, payload)
}

/// The pong that answers a ping with `payload`. Of a payload over 125 bytes the rest is cut off;
/// a ping that the decoder handed out has none.
///
/// Section 5.5.3: "A Pong frame sent in response to a Ping frame must have identical "Application
/// data" as found in the message body of the Ping frame being replied to."
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    control(Opcode::Pong, payload)
}

/// A close frame with `code` and `reason`; a reason over 123 bytes is cut off at the last
/// character that fits.
///
/// The code must be one that may be sent ([`close_code::is_valid`](crate::close_code::is_valid)).
#[must_use]
pub fn close(code: u16, reason: &str) -> Bytes {
    debug_assert!(crate::close_code::is_valid(code), "close code {code} must not be sent");
    let reason = &reason.as_bytes()[..reason.floor_char_boundary(MAX_CLOSE_REASON)];
    let mut payload = Vec::with_capacity(MAX_CONTROL_PAYLOAD);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason);
    control(Opcode::Close, &payload)
}

/// A close frame without a code, the answer to one without.
#[must_use]
pub fn close_empty() -> Bytes {
    control(Opcode::Close, &[])
}

fn control(opcode: Opcode, payload: &[u8]) -> Bytes {
    let payload = &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)];
    let (header, size) = header(opcode as u8, payload.len());
    let mut frame = Vec::with_capacity(size + payload.len());
    frame.extend_from_slice(&header[..size]);
    frame.extend_from_slice(payload);
    frame.into()
}

/// The header's bytes and how many of them count, for an opcode and its reserved bits. FIN is
/// always set, the mask bit never.
fn header(opcode: u8, payload: usize) -> ([u8; MAX_HEADER], usize) {
    let mut header = [0; MAX_HEADER];
    header[0] = 0x80 | opcode;
    // Section 5.2: "the minimal number of bytes MUST be used to encode the length".
    let size = if let Some(short) = u8::try_from(payload).ok().filter(|&short| short < 126) {
        header[1] = short;
        2
    } else if let Ok(medium) = u16::try_from(payload) {
        header[1] = 126;
        header[2..4].copy_from_slice(&medium.to_be_bytes());
        4
    } else {
        header[1] = 127;
        header[2..].copy_from_slice(&(payload as u64).to_be_bytes());
        10
    };
    (header, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(&encode(MessageKind::Text, b"Hello")[..], b"\x81\x05Hello");
        assert_eq!(&ping(b"Hello")[..], b"\x89\x05Hello");
        assert_eq!(&pong(b"Hello")[..], b"\x8a\x05Hello");
        let medium = encode(MessageKind::Binary, &[7; 256]);
        assert_eq!(medium[..4], [0x82, 0x7E, 0x01, 0x00]);
        let long = encode(MessageKind::Binary, &[7; 65_536]);
        assert_eq!(long[..10], [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(long.len(), 10 + 65_536);
    }

    #[test]
    fn the_shortest_header_at_every_edge() {
        for (payload, size) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = encode(MessageKind::Text, &vec![b'x'; payload]);
            assert_eq!(frame.len(), size + payload);
            assert!(frame[size..].iter().all(|&byte| byte == b'x'));
        }
    }

    #[test]
    fn a_wrong_guess_of_the_length_does_not_matter() {
        let expected = encode(MessageKind::Text, &[b'x'; 1000]);
        for capacity in [0, 1, 999, 1001, 5000] {
            let frame = encode_with(MessageKind::Text, capacity, |frame| {
                frame.extend_from_slice(&[b'x'; 1000]);
            });
            assert_eq!(frame, expected);
        }
    }

    #[test]
    fn a_writer_that_fails_makes_no_frame() {
        let failed = try_encode_with(MessageKind::Text, 0, |_| Err("no"));
        assert_eq!(failed, Err("no"));
    }

    #[test]
    fn control_payloads_are_cut_at_125() {
        assert_eq!(ping(&[1; 200]).len(), 2 + 125);
        assert_eq!(pong(&[1; 125]).len(), 2 + 125);
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        assert_eq!(&close_empty()[..], b"\x88\x00");
        assert_eq!(&close(1000, "bye")[..], b"\x88\x05\x03\xe8bye");
        // 61 characters of 2 bytes are 122, one more is 124 and does not fit into 123.
        let frame = close(4000, &"ä".repeat(100));
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert_eq!(str::from_utf8(&frame[4..]), Ok("ä".repeat(61).as_str()));
        assert_eq!(close(4000, &"a".repeat(124)).len(), 2 + 125);
    }
}

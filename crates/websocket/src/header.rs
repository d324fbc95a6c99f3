//! The frame header (section 5.2): its bits, and the rules that concern one frame alone.
//!
//! Owns the opcodes and the parser. Called by the decoder at the start of each frame, again from
//! the first byte when a header arrived in pieces; it keeps no state and never sees a payload.

use crate::{DecodeError, MAX_CONTROL_PAYLOAD};

/// The longest header of a client's frame: 2 bytes, 8 of length, 4 of mask.
pub(crate) const MAX_HEADER: usize = 14;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
/// RFC 7692, section 6: the "Per-Message Compressed" bit, for connections that agreed on it.
pub(crate) const RSV1: u8 = 0x40;
const MASKED: u8 = 0x80;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

impl Opcode {
    fn new(bits: u8) -> Result<Self, DecodeError> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            // Section 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail
            // the WebSocket Connection_."
            _ => Err(DecodeError::ReservedOpcode(bits)),
        }
    }

    /// Section 5.5: "Control frames are identified by opcodes where the most significant bit of
    /// the opcode is 1."
    pub(crate) fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// A header that obeys every rule about a single frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Whether this is the last frame of its message.
    pub(crate) fin: bool,
    /// Whether its message is compressed. Only where that was agreed on, and only on the first
    /// frame of a message.
    pub(crate) compressed: bool,
    pub(crate) opcode: Opcode,
    /// The announced length of the payload, in bytes; not checked against any limit of ours.
    pub(crate) payload: u64,
    pub(crate) mask: [u8; 4],
    /// The length of the header itself, in bytes.
    pub(crate) size: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` while it is incomplete and could still
    /// become a valid one.
    ///
    /// Each byte is judged as soon as it is there, in the order of arrival, so that a bad frame
    /// is refused with the same error however it was cut into pieces. `deflate` says whether
    /// compression was agreed on.
    pub(crate) fn parse(bytes: &[u8], deflate: bool) -> Result<Option<Self>, DecodeError> {
        let Some(&first) = bytes.first() else {
            return Ok(None);
        };
        // Section 5.2: "MUST be 0 unless an extension is negotiated that defines meanings for
        // non-zero values. If a nonzero value is received and none of the negotiated extensions
        // defines the meaning of such a nonzero value, the receiving endpoint MUST _Fail the
        // WebSocket Connection_."
        let negotiated = if deflate { RSV1 } else { 0 };
        if first & RSV & !negotiated != 0 {
            return Err(DecodeError::ReservedBit);
        }
        let opcode = Opcode::new(first & 0x0F)?;
        let fin = first & FIN != 0;
        let compressed = first & RSV1 != 0;
        // RFC 7692, section 6.1: "An endpoint MUST NOT set the "Per-Message Compressed" bit of
        // control frames and non-first fragments of a data message. An endpoint receiving such a
        // frame MUST _Fail the WebSocket Connection_."
        if compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(DecodeError::ReservedBit);
        }
        // Section 5.4: "Control frames themselves MUST NOT be fragmented."
        if opcode.is_control() && !fin {
            return Err(DecodeError::FragmentedControl);
        }

        let Some(&second) = bytes.get(1) else {
            return Ok(None);
        };
        // Section 5.1: "The server MUST close the connection upon receiving a frame that is not
        // masked. In this case, a server MAY send a Close frame with a status code of 1002
        // (protocol error)".
        if second & MASKED == 0 {
            return Err(DecodeError::Unmasked);
        }
        let short = second & !MASKED;
        // Section 5.5: "All control frames MUST have a payload length of 125 bytes or less". A
        // longer one needs an extended length, which a control frame therefore never has.
        if opcode.is_control() && usize::from(short) > MAX_CONTROL_PAYLOAD {
            return Err(DecodeError::OversizeControl);
        }
        let Some((payload, length_end)) = parse_length(short, bytes)? else {
            return Ok(None);
        };
        let Some(&mask) = bytes.get(length_end..).and_then(<[u8]>::first_chunk) else {
            return Ok(None);
        };
        Ok(Some(Self { fin, compressed, opcode, payload, mask, size: length_end + mask.len() }))
    }
}

/// The payload length and where its bytes end, for the 7 bits `short` of the second byte.
fn parse_length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, DecodeError> {
    let extended = bytes.get(2..).unwrap_or_default();
    let (length, end, fits_less) = match short {
        126 => match extended.first_chunk() {
            Some(&chunk) => {
                let length = u64::from(u16::from_be_bytes(chunk));
                (length, 4, length < 126)
            }
            None => return Ok(None),
        },
        127 => match extended.first_chunk() {
            Some(&chunk) => {
                let length = u64::from_be_bytes(chunk);
                (length, 10, length <= u64::from(u16::MAX))
            }
            None => return Ok(None),
        },
        _ => (u64::from(short), 2, false),
    };
    // Section 5.2: "the following 8 bytes interpreted as a 64-bit unsigned integer (the most
    // significant bit MUST be 0) are the payload length".
    if length > i64::MAX as u64 {
        return Err(DecodeError::LengthOverflow);
    }
    // Section 5.2: "Note that in all cases, the minimal number of bytes MUST be used to encode the
    // length, for example, the length of a 124-byte-long string can't be encoded as the sequence
    // 126, 0, 124."
    if fits_less {
        return Err(DecodeError::LengthNotMinimal);
    }
    Ok(Some((length, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [9, 8, 7, 6];

    fn parse(head: &[u8]) -> Result<Option<Header>, DecodeError> {
        Header::parse(&[head, &MASK].concat(), false)
    }

    #[test]
    fn lengths_in_their_three_forms() {
        let cases: [(&[u8], u64); 6] = [
            (&[0x82, 0x80], 0),
            (&[0x82, 0x80 | 125], 125),
            (&[0x82, 0xFE, 0, 126], 126),
            (&[0x82, 0xFE, 0xFF, 0xFF], 65_535),
            (&[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
            (&[0x82, 0xFF, 0x7F, 255, 255, 255, 255, 255, 255, 255], i64::MAX as u64),
        ];
        for (head, payload) in cases {
            let expected = Header {
                fin: true,
                compressed: false,
                opcode: Opcode::Binary,
                payload,
                mask: MASK,
                size: head.len() + 4,
            };
            assert_eq!(parse(head), Ok(Some(expected)));
            let whole = [head, &MASK].concat();
            for cut in 0..whole.len() {
                assert_eq!(Header::parse(&whole[..cut], false), Ok(None), "{payload} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_length_in_too_many_bytes() {
        let cases: [&[u8]; 4] = [
            &[0x82, 0xFE, 0, 0],
            &[0x82, 0xFE, 0, 125],
            &[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF],
        ];
        for head in cases {
            assert_eq!(parse(head), Err(DecodeError::LengthNotMinimal), "{head:?}");
        }
    }

    #[test]
    fn a_length_with_its_top_bit() {
        let head = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&head), Err(DecodeError::LengthOverflow));
    }

    #[test]
    fn each_reserved_bit() {
        for rsv in [0x40, 0x20, 0x10, 0x70] {
            for opcode in [0x0, 0x1, 0x2, 0x8, 0x9, 0xA] {
                let first = 0x80 | rsv | opcode;
                assert_eq!(Header::parse(&[first], false), Err(DecodeError::ReservedBit));
            }
        }
    }

    #[test]
    fn the_compressed_bit_where_it_was_agreed_on() {
        for first in [0x41, 0xC1, 0x42, 0xC2] {
            let header = Header::parse(&[&[first, 0x80][..], &MASK].concat(), true);
            assert!(header.is_ok_and(|header| header.is_some_and(|header| header.compressed)));
        }
        for first in [0x40, 0xC0, 0xC8, 0xC9, 0xCA, 0xE1, 0xD1, 0xF2, 0xB1] {
            assert_eq!(Header::parse(&[first], true), Err(DecodeError::ReservedBit));
        }
    }

    #[test]
    fn each_reserved_opcode() {
        for opcode in [3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF] {
            let error = DecodeError::ReservedOpcode(opcode);
            assert_eq!(Header::parse(&[0x80 | opcode], false), Err(error));
        }
    }

    #[test]
    fn unmasked() {
        for opcode in [0x0, 0x1, 0x2, 0x8, 0x9, 0xA] {
            assert_eq!(Header::parse(&[0x80 | opcode, 0], false), Err(DecodeError::Unmasked));
        }
    }

    #[test]
    fn control_frames_are_short_and_whole() {
        for opcode in [0x8, 0x9, 0xA] {
            assert_eq!(Header::parse(&[opcode], false), Err(DecodeError::FragmentedControl));
            for short in [126, 127] {
                let head = [0x80 | opcode, 0x80 | short];
                assert_eq!(Header::parse(&head, false), Err(DecodeError::OversizeControl));
            }
            assert!(parse(&[0x80 | opcode, 0x80 | 125]).is_ok_and(|header| header.is_some()));
        }
    }
}

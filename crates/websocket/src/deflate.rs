//! Compression of single messages (RFC 7692): a message in, a frame out, and back.
//!
//! Owns one compressor and one decompressor for each thread, reset for each message: no context is
//! taken over from one message to the next, so that no connection keeps any and one compressed
//! frame fits all. The hub compresses what it fans out; the decoder decompresses what clients
//! send. What was agreed with a client is decided in `extension`.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::encode::{MessageKind, compressed};
use crate::{DecodeError, extension};

/// Messages of 1 KiB of JSON take 14 µs and become 40 %, of 16 KiB 81 µs and 22 %. Level 1 takes a
/// third of the time for a third more bytes, level 6 up to twice the time for 3 % less.
const LEVEL: u32 = 4;

/// What a flush ends with, and what is left out of the message.
///
/// Section 7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];

/// Put behind a message to decompress it: what section 7.2.2 asks for, and an empty final block.
/// Only behind whole blocks do these end the data exactly here, so that a message that breaks off
/// within a block is found out.
const TAIL: [u8; 6] = [0, 0, 0xff, 0xff, 0x03, 0x00];

thread_local! {
    static DEFLATER: RefCell<Deflater> = RefCell::new(Deflater {
        compress: Compress::new_with_window_bits(
            Compression::new(LEVEL),
            false,
            extension::SERVER_WINDOW_BITS,
        ),
        scratch: Vec::new(),
    });
    static INFLATER: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

struct Deflater {
    compress: Compress,
    scratch: Vec<u8>,
}

/// One message as one compressed frame, for clients with which [`Deflate`](crate::Deflate) was
/// agreed on; `None` if it would not be smaller than the uncompressed one, which such clients take
/// as well.
#[must_use]
pub fn deflate(kind: MessageKind, payload: &[u8]) -> Option<Bytes> {
    DEFLATER.with_borrow_mut(|Deflater { compress, scratch }| {
        scratch.clear();
        // More room than a message that shrinks can need.
        scratch.reserve_exact(payload.len() + FLUSHED.len());
        compress.reset();
        compress.compress_vec(payload, scratch, FlushCompress::Sync).ok()?;
        // Where the room was used up, the flush may not have ended.
        let deflated =
            scratch.strip_suffix(&FLUSHED).filter(|_| scratch.len() < scratch.capacity())?;
        let whole = compress.total_in() == payload.len() as u64;
        (whole && deflated.len() < payload.len()).then(|| compressed(kind, deflated))
    })
}

/// How many bytes of a message may be received: where it is compressed, somewhat more than may
/// come out, for what cannot be made smaller. At the worst, and no compressor does worse, every
/// byte takes 9 bits.
pub(crate) fn received_limit(max_message: usize, compressed: bool) -> usize {
    if compressed { max_message.saturating_add(max_message / 8 + 64) } else { max_message }
}

/// Decompresses a whole message.
///
/// # Errors
/// [`DecodeError::TooBig`] as soon as more than `max_message` bytes come out, and
/// [`DecodeError::InvalidDeflate`] if it is no DEFLATE data or breaks off.
pub(crate) fn inflate(message: &[u8], max_message: usize) -> Result<Vec<u8>, DecodeError> {
    INFLATER.with_borrow_mut(|inflater| {
        inflater.reset(false);
        let mut out = Vec::with_capacity(message.len().saturating_mul(3).min(max_message) + 1);
        let rest = inflate_blocks(inflater, message, &mut out, max_message)?;
        // It ended by itself, with a final block as its last byte. The RFC wants an empty block
        // behind that (section 7.2.3.4), but there is nothing that could be misunderstood.
        if rest.is_none() && !message.is_empty() {
            return Ok(out);
        }
        match inflate_blocks(inflater, &TAIL, &mut out, max_message)? {
            None => Ok(out),
            Some(()) => Err(DecodeError::InvalidDeflate),
        }
    })
}

/// Decompresses a stretch of a message. `None` if it ended with a final block, `Some` if more may
/// follow.
fn inflate_blocks(
    inflater: &mut Decompress,
    mut input: &[u8],
    out: &mut Vec<u8>,
    max_message: usize,
) -> Result<Option<()>, DecodeError> {
    loop {
        let before = inflater.total_in();
        let status = inflater
            .decompress_vec(input, out, FlushDecompress::Sync)
            .map_err(|_| DecodeError::InvalidDeflate)?;
        let taken = usize::try_from(inflater.total_in() - before).unwrap_or(usize::MAX);
        input = input.get(taken..).unwrap_or_default();
        if out.len() > max_message {
            return Err(DecodeError::TooBig { limit: max_message });
        }
        match status {
            Status::StreamEnd if input.is_empty() => return Ok(None),
            // Section 7.2.3.4 allows final blocks anywhere; what follows begins afresh.
            Status::StreamEnd => inflater.reset(false),
            _ if out.len() < out.capacity() && input.is_empty() => return Ok(Some(())),
            Status::BufError if out.len() < out.capacity() => {
                return Err(DecodeError::InvalidDeflate);
            }
            // The room was used up; there may be more. One byte over the limit shows it.
            _ if out.len() == out.capacity() => {
                let target = out.capacity().saturating_mul(2).min(max_message.saturating_add(1));
                out.reserve_exact(target.saturating_sub(out.len()).max(1));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 10_000;

    /// The payload of a compressed frame.
    fn payload(frame: &[u8]) -> &[u8] {
        assert_eq!(frame[0] & 0x70, 0x40, "RSV1 alone");
        match frame[1] {
            126 => &frame[4..],
            127 => &frame[10..],
            _ => &frame[2..],
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // Sections 7.2.3.1, 7.2.3.3, 7.2.3.4 and 7.2.3.5, and 7.2.3.6's empty message.
        let examples: [(&[u8], &[u8]); 5] = [
            (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
            (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], b"Hello"),
            (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
            (
                &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
                b"Hello",
            ),
            (&[0x00], b""),
        ];
        for (message, plain) in examples {
            assert_eq!(inflate(message, LIMIT).as_deref(), Ok(plain), "{message:x?}");
            assert_eq!(inflate(message, plain.len()).as_deref(), Ok(plain), "{message:x?}");
        }
        assert_eq!(inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 4), too_big(4));
        // A final block without the empty one behind it, and two final ones.
        assert_eq!(
            inflate(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5).as_deref(),
            Ok(&b"Hello"[..])
        );
        let twice = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00].repeat(2);
        assert_eq!(inflate(&twice, 10).as_deref(), Ok(&b"HelloHello"[..]));
    }

    fn too_big(limit: usize) -> Result<Vec<u8>, DecodeError> {
        Err(DecodeError::TooBig { limit })
    }

    #[test]
    fn a_message_makes_the_round_trip_up_to_the_limit() {
        for size in [40, 511, 512, 4_096, 9_999, 10_000] {
            let plain = b"{\"price\":1234}".repeat(LIMIT)[..size].to_vec();
            let frame = deflate(MessageKind::Text, &plain).unwrap();
            assert_eq!(frame[0], 0xC1);
            assert!(frame.len() < size / 2 + 20);
            assert_eq!(inflate(payload(&frame), LIMIT).as_deref(), Ok(&plain[..]));
            assert_eq!(inflate(payload(&frame), size).as_deref(), Ok(&plain[..]));
            assert_eq!(inflate(payload(&frame), size - 1), too_big(size - 1));
        }
        assert_eq!(deflate(MessageKind::Binary, &[7; 500]).unwrap()[0], 0xC2);
    }

    #[test]
    fn what_does_not_shrink_is_not_compressed() {
        let noise: Vec<u8> =
            (0..2_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for size in [0, 1, 5, 100, 2_000] {
            let mut state = 1_u64;
            let random: Vec<u8> = noise[..size]
                .iter()
                .map(|byte| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    byte ^ (state >> 56) as u8
                })
                .collect();
            assert_eq!(deflate(MessageKind::Binary, &random), None, "{size}");
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let mut compress = Compress::new(Compression::new(9), false);
        let mut bomb = Vec::with_capacity(1 << 16);
        compress.compress_vec(&vec![0; 32 << 20], &mut bomb, FlushCompress::Sync).unwrap();
        assert!(bomb.len() < 40_000);
        assert_eq!(inflate(&bomb, 64 << 10), too_big(64 << 10));
    }

    #[test]
    fn broken_data_is_told() {
        let frame = deflate(MessageKind::Text, &b"{\"price\":1234}".repeat(50)).unwrap();
        let whole = payload(&frame);
        for cut in 1..whole.len() {
            let cut_off = inflate(&whole[..cut], LIMIT);
            assert!(
                matches!(cut_off, Err(DecodeError::InvalidDeflate)),
                "cut at {cut}: {cut_off:?}"
            );
        }
        // A stored block that promises more than there is must not take the tail for its bytes.
        assert_eq!(
            inflate(&[0x00, 0x08, 0x00, 0xf7, 0xff, 1, 2], LIMIT),
            Err(DecodeError::InvalidDeflate)
        );
        for broken in [&[0x07][..], &[0xff; 20], &[0x00, 0x01, 0x02, 0x03, 0x04, 0x05], b"hello"] {
            assert_eq!(inflate(broken, LIMIT), Err(DecodeError::InvalidDeflate), "{broken:x?}");
        }
    }
}

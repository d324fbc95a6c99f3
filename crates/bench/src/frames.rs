//! Reads a server's WebSocket frames without keeping their payloads (RFC 6455, section 5.2).
//!
//! Subscribers and publishers own one per connection. It hands out the payloads in pieces, as they
//! come; it does not check what a careful client would (a load generator trusts the server).

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A part of the payload of a text or binary message.
    Data(&'a [u8]),
    /// A part of the payload of a compressed one, and whether the message ends with it.
    Packed(&'a [u8], bool),
    /// A ping with its payload, to be answered.
    Ping(&'a [u8]),
    /// The server closes.
    Close,
}

/// Where in the stream of frames a connection is.
#[derive(Default)]
pub(crate) struct Frames {
    /// The beginning of a header that was cut.
    header: [u8; 10],
    have: u8,
    opcode: u8,
    /// Whether the message is compressed (RFC 7692: RSV1 of its first frame).
    packed: bool,
    /// Bytes of the payload that are still to come.
    left: u64,
    /// The payload of a control frame so far; owns nothing between control frames.
    control: Vec<u8>,
}

const CLOSE: u8 = 8;
const PING: u8 = 9;

impl Frames {
    /// Reads on.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], on: &mut impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.head(bytes, on);
                continue;
            }
            let length = usize::try_from(self.left).map_or(bytes.len(), |it| it.min(bytes.len()));
            let (payload, rest) = bytes.split_at(length);
            self.left -= length as u64;
            if self.opcode < CLOSE {
                let last = self.left == 0 && self.header[0] & 0x80 != 0;
                on(if self.packed { Piece::Packed(payload, last) } else { Piece::Data(payload) });
            } else {
                self.control.extend_from_slice(payload);
                if self.left == 0 {
                    self.end_of_control(on);
                }
            }
            bytes = rest;
        }
    }

    /// Takes what belongs to a header, and gives back the rest.
    fn head<'a>(&mut self, bytes: &'a [u8], on: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let mut have = usize::from(self.have);
        let mut taken = 0;
        loop {
            let need = if have < 2 { 2 } else { 2 + extended(self.header[1]) };
            if have == need {
                break;
            }
            let Some(part) = bytes.get(taken..).filter(|part| !part.is_empty()) else {
                // At most 9 here.
                self.have = have as u8;
                return &[];
            };
            let part = &part[..part.len().min(need - have)];
            self.header[have..have + part.len()].copy_from_slice(part);
            have += part.len();
            taken += part.len();
        }
        self.have = 0;
        self.opcode = self.header[0] & 0x0f;
        if matches!(self.opcode, 1 | 2) {
            self.packed = self.header[0] & 0x40 != 0;
        }
        self.left = match have {
            2 => u64::from(self.header[1] & 0x7f),
            more => self.header[2..more].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
        };
        if self.left == 0 && self.opcode >= CLOSE {
            self.end_of_control(on);
        }
        &bytes[taken..]
    }

    fn end_of_control(&mut self, on: &mut impl FnMut(Piece<'_>)) {
        let payload = std::mem::take(&mut self.control);
        match self.opcode {
            PING => on(Piece::Ping(&payload)),
            CLOSE => on(Piece::Close),
            _ => {}
        }
    }
}

/// Bytes of length that follow the first two of a header.
fn extended(second: u8) -> usize {
    match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    }
}

/// A client's frame: a header with the given first byte, a mask of zeros (which leaves the payload
/// readable, and is as valid as any) and the payload.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short), _) if short < 126 => frame.push(0x80 | short),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut stream = vec![0x81, 3, b'o', b'n', b'e', 0x89, 2, b'h', b'i', 0x81, 126, 0x01, 0];
        stream.extend_from_slice(&[b'a'; 256]);
        stream.extend_from_slice(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend_from_slice(&[b'b'; 65_536]);
        stream.extend_from_slice(&[0x81, 0, 0x8a, 0, 0x89, 0, 0x88, 0]);
        stream
    }

    fn read(pieces: &mut dyn Iterator<Item = &[u8]>) -> (Vec<u8>, Vec<String>) {
        let (mut frames, mut data, mut control) = (Frames::default(), Vec::new(), Vec::new());
        for piece in pieces {
            frames.feed(piece, &mut |found| match found {
                Piece::Data(part) => data.extend_from_slice(part),
                other => control.push(format!("{other:?}")),
            });
        }
        (data, control)
    }

    #[test]
    fn the_stream_may_be_cut_anywhere() {
        let stream = stream();
        let whole = read(&mut [&stream[..]].into_iter());
        assert_eq!(whole.0.len(), 3 + 256 + 65_536);
        assert_eq!(whole.1, ["Ping([104, 105])", "Ping([])", "Close"]);
        for size in [1, 2, 3, 7, 11, 13, 64, 1_000] {
            assert_eq!(read(&mut stream.chunks(size)), whole, "pieces of {size}");
        }
    }

    #[test]
    fn lengths_of_client_frames() {
        assert_eq!(client_frame(0x81, b"hi"), [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
        assert_eq!(client_frame(0x81, &[b'x'; 125])[1], 0x80 | 125);
        assert_eq!(client_frame(0x81, &[b'x'; 126])[1..4], [0x80 | 126, 0, 126]);
        let long = client_frame(0x81, &vec![b'x'; 65_536]);
        assert_eq!(long[1..10], [0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }
}

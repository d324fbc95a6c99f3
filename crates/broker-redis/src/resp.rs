//! The part of Redis's protocol (RESP2) that links and publishers need: replies are read in place,
//! commands are written. No I/O.
//!
//! Every reply is bounded. A message that is over the bound is passed over and told as such, for
//! otherwise anybody who may publish could break every link of every node.

use bytes::{Buf, BytesMut};
use thiserror::Error;

/// The longest line: a status, an error, a number, a length.
const MAX_LINE: usize = 8 << 10;
/// The most members of an array. Pub/Sub replies have three, or two.
const MAX_ITEMS: usize = 3;

/// Bytes that are no reply, or one that nobody asked for. The connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the server does not speak Redis's protocol: {0}")]
pub(crate) struct ProtocolError(pub(crate) &'static str);

/// A reply. Its bytes are the reader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    /// A status or a bulk string.
    Text(&'a [u8]),
    /// An error, with its code.
    Error(&'a [u8]),
    /// A number.
    Int(i64),
    /// Nothing.
    Nil,
    /// A Pub/Sub reply; what is missing is nil.
    Push([Item<'a>; MAX_ITEMS]),
    /// A Pub/Sub message on this name whose body has so many bytes, over the bound.
    TooLarge(&'a [u8], usize),
}

/// A member of a Pub/Sub reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item<'a> {
    Text(&'a [u8]),
    Int(i64),
    Nil,
}

/// Reads replies from bytes as they come.
pub(crate) struct Reader {
    buffer: BytesMut,
    /// How much of the buffer has been read.
    read: usize,
    /// How much of what comes next belongs to a message over the bound.
    skip: usize,
    max_bulk: usize,
}

impl Reader {
    /// `max_bulk`: the longest bulk string.
    pub(crate) fn new(max_bulk: usize) -> Self {
        Self { buffer: BytesMut::new(), read: 0, skip: 0, max_bulk }
    }

    /// Where to put the bytes that come next.
    pub(crate) fn space(&mut self, at_least: usize) -> &mut BytesMut {
        self.buffer.advance(std::mem::take(&mut self.read));
        self.buffer.reserve(at_least);
        &mut self.buffer
    }

    /// The next reply, if it is there whole.
    pub(crate) fn next(&mut self) -> Result<Option<Reply<'_>>, ProtocolError> {
        let skipped = self.skip.min(self.buffer.len() - self.read);
        self.read += skipped;
        self.skip -= skipped;
        let mut cursor = Cursor { bytes: &self.buffer[self.read..], max_bulk: self.max_bulk };
        let before = cursor.bytes.len();
        let Some(reply) = cursor.reply()? else { return Ok(None) };
        self.read += before - cursor.bytes.len();
        if let Reply::TooLarge(_, length) = reply {
            self.skip = length + 2;
        }
        Ok(Some(reply))
    }
}

/// What is yet to be read. Its methods return none when bytes are missing.
struct Cursor<'a> {
    bytes: &'a [u8],
    max_bulk: usize,
}

/// A bulk string's bytes, or its length if that is over the bound.
enum Bulk<'a> {
    Whole(&'a [u8]),
    TooLarge(usize),
    Nil,
}

impl<'a> Cursor<'a> {
    fn reply(&mut self) -> Result<Option<Reply<'a>>, ProtocolError> {
        let Some((kind, line)) = self.line()? else { return Ok(None) };
        Ok(Some(match kind {
            b'+' => Reply::Text(line),
            b'-' => Reply::Error(line),
            b':' => Reply::Int(number(line)?),
            b'$' => match self.bulk(line)? {
                None => return Ok(None),
                Some(Bulk::Whole(bytes)) => Reply::Text(bytes),
                Some(Bulk::Nil) => Reply::Nil,
                Some(Bulk::TooLarge(_)) => return Err(ProtocolError("a reply that is too large")),
            },
            b'*' => return self.push(line),
            _ => return Err(ProtocolError("a reply of an unknown kind")),
        }))
    }

    fn push(&mut self, line: &[u8]) -> Result<Option<Reply<'a>>, ProtocolError> {
        let count = usize::try_from(number(line)?).unwrap_or(usize::MAX);
        if count > MAX_ITEMS {
            return Err(ProtocolError("an array of an unexpected length"));
        }
        let mut items = [Item::Nil; MAX_ITEMS];
        for n in 0..count {
            let Some((kind, line)) = self.line()? else { return Ok(None) };
            items[n] = match kind {
                b':' => Item::Int(number(line)?),
                b'$' => match self.bulk(line)? {
                    None => return Ok(None),
                    Some(Bulk::Whole(bytes)) => Item::Text(bytes),
                    Some(Bulk::Nil) => Item::Nil,
                    Some(Bulk::TooLarge(length)) => {
                        let [Item::Text(b"message"), Item::Text(name), Item::Nil] = items else {
                            return Err(ProtocolError("an array with a member that is too large"));
                        };
                        return Ok(Some(Reply::TooLarge(name, length)));
                    }
                },
                _ => return Err(ProtocolError("an array with a member of an unexpected kind")),
            };
        }
        Ok(Some(Reply::Push(items)))
    }

    /// A line's first byte and the rest of it.
    fn line(&mut self) -> Result<Option<(u8, &'a [u8])>, ProtocolError> {
        let Some(end) = self.bytes.iter().take(MAX_LINE).position(|&b| b == b'\n') else {
            return if self.bytes.len() >= MAX_LINE {
                Err(ProtocolError("a line that is too long"))
            } else {
                Ok(None)
            };
        };
        let (line, rest) = self.bytes.split_at(end + 1);
        self.bytes = rest;
        match line {
            [kind, line @ .., b'\r', b'\n'] => Ok(Some((*kind, line))),
            _ => Err(ProtocolError("a line that does not end in CRLF")),
        }
    }

    fn bulk(&mut self, line: &[u8]) -> Result<Option<Bulk<'a>>, ProtocolError> {
        let Ok(length) = usize::try_from(number(line)?) else { return Ok(Some(Bulk::Nil)) };
        if length > self.max_bulk {
            return Ok(Some(Bulk::TooLarge(length)));
        }
        let Some((bytes, rest)) = self.bytes.split_at_checked(length + 2) else { return Ok(None) };
        let Some(bytes) = bytes.strip_suffix(b"\r\n") else {
            return Err(ProtocolError("a text that does not end in CRLF"));
        };
        self.bytes = rest;
        Ok(Some(Bulk::Whole(bytes)))
    }
}

/// A decimal number of at most 18 digits.
fn number(line: &[u8]) -> Result<i64, ProtocolError> {
    let (digits, sign) = match line {
        [b'-', digits @ ..] => (digits, -1),
        digits => (digits, 1),
    };
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ProtocolError("a number that is none"));
    }
    Ok(sign * digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// Begins a command of so many arguments, its name included.
pub(crate) fn begin(arguments: usize, out: &mut BytesMut) {
    write_number(b'*', arguments, out);
}

/// Writes an argument that comes in parts.
pub(crate) fn argument(parts: &[&[u8]], out: &mut BytesMut) {
    write_number(b'$', parts.iter().map(|part| part.len()).sum(), out);
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a whole command.
pub(crate) fn command(arguments: &[&[u8]], out: &mut BytesMut) {
    begin(arguments.len(), out);
    for &part in arguments {
        argument(&[part], out);
    }
}

fn write_number(kind: u8, number: usize, out: &mut BytesMut) {
    // 20 digits are the most that 64 bits have.
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        // A digit.
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&[kind]);
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX_BULK: usize = 32;

    /// Reads the bytes, cut into pieces at the places, and writes down what was read.
    fn read(bytes: &[u8], cuts: &[usize]) -> Result<Vec<String>, ProtocolError> {
        let mut reader = Reader::new(MAX_BULK);
        let mut seen = vec![];
        let mut from = 0;
        for &cut in cuts.iter().chain([&bytes.len()]) {
            let cut = cut.clamp(from, bytes.len());
            reader.space(1).extend_from_slice(&bytes[from..cut]);
            from = cut;
            while let Some(reply) = reader.next()? {
                seen.push(format!("{reply:?}"));
            }
        }
        Ok(seen)
    }

    fn bulk(bytes: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        argument(&[bytes], &mut out);
        out.to_vec()
    }

    fn replies() -> impl Strategy<Value = Vec<u8>> {
        let text = prop::collection::vec(any::<u8>(), 0..MAX_BULK);
        let body = prop::collection::vec(any::<u8>(), 0..3 * MAX_BULK);
        prop_oneof![
            "[+-][a-zA-Z ]{0,20}\r\n".prop_map(String::into_bytes),
            any::<i32>().prop_map(|n| format!(":{n}\r\n").into_bytes()),
            Just(b"$-1\r\n".to_vec()),
            text.clone().prop_map(|text| bulk(&text)),
            (text.clone(), body).prop_map(|(name, body)| {
                [b"*3\r\n$7\r\nmessage\r\n".to_vec(), bulk(&name), bulk(&body)].concat()
            }),
            text.prop_map(|name| {
                [b"*3\r\n$9\r\nsubscribe\r\n".to_vec(), bulk(&name), b":1\r\n".to_vec()].concat()
            }),
        ]
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_does_not_matter(
            replies in prop::collection::vec(replies(), 1..8),
            mut cuts in prop::collection::vec(0..400_usize, 0..12),
        ) {
            cuts.sort_unstable();
            let bytes = replies.concat();
            let whole = read(&bytes, &[]).unwrap();
            prop_assert_eq!(whole.len(), replies.len());
            prop_assert_eq!(read(&bytes, &cuts).unwrap(), whole.clone());
            let each: Vec<_> = (0..bytes.len()).collect();
            prop_assert_eq!(read(&bytes, &each).unwrap(), whole);
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'*')], 0..99)
        ) {
            let _ = read(&bytes, &[]);
        }
    }

    #[test]
    fn a_message_over_the_bound_is_passed_over() {
        let large = [b'x'; 40];
        let mut bytes = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n".to_vec();
        bytes.extend(bulk(&large));
        bytes.extend(b":7\r\n");
        let expected = [Reply::TooLarge(b"a", 40), Reply::Int(7)].map(|reply| format!("{reply:?}"));
        assert_eq!(read(&bytes, &[30, 40, 50]).unwrap(), expected);
    }

    #[test]
    fn nonsense_is_refused() {
        let long = [b'x'; MAX_LINE];
        for bytes in [
            &b"hello\r\n"[..],
            b"+OK\n",
            b":\r\n",
            b":1x\r\n",
            b":9999999999999999999\r\n",
            b"*4\r\n",
            b"*-1\r\n",
            b"*1\r\n+OK\r\n",
            b"$33\r\n",
            b"*1\r\n$33\r\n",
            b"$1\r\nabc",
            &long,
        ] {
            assert!(read(bytes, &[]).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn commands_are_written_as_redis_reads_them() {
        let mut out = BytesMut::new();
        command(&[b"PUBLISH", b"a:b", b""], &mut out);
        assert_eq!(&out[..], b"*3\r\n$7\r\nPUBLISH\r\n$3\r\na:b\r\n$0\r\n\r\n");
        out.clear();
        argument(&[b"0123456", b"789"], &mut out);
        assert_eq!(&out[..], b"$10\r\n0123456789\r\n");
    }
}

//! A client's MessagePack, read strictly and written as JSON.
//!
//! Nothing is allocated for what a head announces, only for what is there; the JSON is bounded.

use std::io::Write as _;

use crate::MAX_NESTING;

/// A frame as JSON.
pub(super) struct Read<'m> {
    /// One object.
    pub(super) json: String,
    /// The `payload`, where it is bytes; null stands for it in the JSON.
    pub(super) payload: Option<&'m [u8]>,
}

/// Why a frame is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// No MessagePack, or more than one value.
    Invalid(&'static str),
    /// MessagePack, but no map.
    NotMap,
    /// It holds what JSON has not.
    NotJson(String),
    /// The JSON is over the limit.
    TooLong,
}

const ENDS_EARLY: ReadError = ReadError::Invalid("it ends early");

/// Reads a frame that is at most `limit` bytes long as JSON.
pub(super) fn to_json(bytes: &[u8], limit: usize) -> Result<Read<'_>, ReadError> {
    let mut reader = Reader { rest: bytes, out: Vec::with_capacity(bytes.len() * 2), limit };
    let Head::Map(members) = reader.head()? else {
        return Err(ReadError::NotMap);
    };
    let payload = reader.frame(members)?;
    if !reader.rest.is_empty() {
        return Err(ReadError::Invalid("something follows the map"));
    }
    let json = String::from_utf8(reader.out).map_err(|_| ReadError::Invalid("no UTF-8"))?;
    Ok(Read { json, payload })
}

/// What a value begins with.
enum Head<'m> {
    Nil,
    Boolean(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    String(&'m [u8]),
    Bytes(&'m [u8]),
    Array(usize),
    Map(usize),
}

struct Reader<'m> {
    rest: &'m [u8],
    out: Vec<u8>,
    limit: usize,
}

impl<'m> Reader<'m> {
    /// The members of the frame itself. Gives the payload if it is bytes.
    fn frame(&mut self, members: usize) -> Result<Option<&'m [u8]>, ReadError> {
        let mut payload = None;
        self.out.push(b'{');
        for member in 0..members {
            let is_payload = self.key(member)? == b"payload";
            match self.head()? {
                Head::Bytes(bytes) if is_payload => {
                    payload = Some(bytes);
                    self.out.extend_from_slice(b"null");
                }
                head => self.value(head, 1)?,
            }
        }
        self.out.push(b'}');
        Ok(payload)
    }

    fn key(&mut self, member: usize) -> Result<&'m [u8], ReadError> {
        if member > 0 {
            self.out.push(b',');
        }
        let Head::String(key) = self.head()? else {
            return Err(ReadError::NotJson("a key must be a string".to_owned()));
        };
        self.string(key)?;
        self.out.push(b':');
        Ok(key)
    }

    /// Writes a value that lies within `depth` arrays and maps.
    fn value(&mut self, head: Head<'m>, depth: usize) -> Result<(), ReadError> {
        let out = &mut self.out;
        match head {
            Head::Nil => out.extend_from_slice(b"null"),
            Head::Boolean(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
            // Writing to memory does not fail.
            Head::Unsigned(value) => write!(out, "{value}").unwrap_or_default(),
            Head::Signed(value) => write!(out, "{value}").unwrap_or_default(),
            Head::Float(value) if value.is_finite() => {
                serde_json::to_writer(out, &value).unwrap_or_default();
            }
            Head::Float(_) => {
                return Err(ReadError::NotJson("a number must be finite".to_owned()));
            }
            Head::String(text) => self.string(text)?,
            Head::Bytes(_) => {
                let why = "bytes are allowed as the whole 'payload' alone";
                return Err(ReadError::NotJson(why.to_owned()));
            }
            Head::Array(_) | Head::Map(_) if depth == MAX_NESTING => {
                return Err(ReadError::NotJson(format!("nested deeper than {MAX_NESTING}")));
            }
            Head::Array(length) => {
                out.push(b'[');
                for item in 0..length {
                    if item > 0 {
                        self.out.push(b',');
                    }
                    let head = self.head()?;
                    self.value(head, depth + 1)?;
                }
                self.out.push(b']');
            }
            Head::Map(length) => {
                out.push(b'{');
                for member in 0..length {
                    self.key(member)?;
                    let head = self.head()?;
                    self.value(head, depth + 1)?;
                }
                self.out.push(b'}');
            }
        }
        if self.out.len() > self.limit { Err(ReadError::TooLong) } else { Ok(()) }
    }

    fn string(&mut self, text: &[u8]) -> Result<(), ReadError> {
        let text = simdutf8::basic::from_utf8(text)
            .map_err(|_| ReadError::Invalid("a string is not UTF-8"))?;
        serde_json::to_writer(&mut self.out, text).unwrap_or_default();
        Ok(())
    }

    fn head(&mut self) -> Result<Head<'m>, ReadError> {
        let [first] = self.take()?;
        Ok(match first {
            0x00..=0x7f => Head::Unsigned(first.into()),
            0x80..=0x8f => Head::Map(usize::from(first & 0x0f)),
            0x90..=0x9f => Head::Array(usize::from(first & 0x0f)),
            0xa0..=0xbf => Head::String(self.bytes(usize::from(first & 0x1f))?),
            0xc0 => Head::Nil,
            0xc2 => Head::Boolean(false),
            0xc3 => Head::Boolean(true),
            0xc4..=0xc6 => {
                let length = self.length(first - 0xc4)?;
                Head::Bytes(self.bytes(length)?)
            }
            0xca => Head::Float(f32::from_be_bytes(self.take()?).into()),
            0xcb => Head::Float(f64::from_be_bytes(self.take()?)),
            0xcc => Head::Unsigned(u8::from_be_bytes(self.take()?).into()),
            0xcd => Head::Unsigned(u16::from_be_bytes(self.take()?).into()),
            0xce => Head::Unsigned(u32::from_be_bytes(self.take()?).into()),
            0xcf => Head::Unsigned(u64::from_be_bytes(self.take()?)),
            0xd0 => Head::Signed(i8::from_be_bytes(self.take()?).into()),
            0xd1 => Head::Signed(i16::from_be_bytes(self.take()?).into()),
            0xd2 => Head::Signed(i32::from_be_bytes(self.take()?).into()),
            0xd3 => Head::Signed(i64::from_be_bytes(self.take()?)),
            0xd9..=0xdb => {
                let length = self.length(first - 0xd9)?;
                Head::String(self.bytes(length)?)
            }
            0xdc | 0xdd => Head::Array(self.length(first - 0xdc + 1)?),
            0xde | 0xdf => Head::Map(self.length(first - 0xde + 1)?),
            0xe0..=0xff => Head::Signed(i8::from_be_bytes([first]).into()),
            0xc1 => return Err(ReadError::Invalid("the byte 0xc1 is never used")),
            0xc7..=0xc9 | 0xd4..=0xd8 => {
                return Err(ReadError::NotJson("extension types are not allowed".to_owned()));
            }
        })
    }

    /// A length of 8, 16 or 32 bits.
    fn length(&mut self, width: u8) -> Result<usize, ReadError> {
        Ok(match width {
            0 => u8::from_be_bytes(self.take()?).into(),
            1 => u16::from_be_bytes(self.take()?).into(),
            _ => usize::try_from(u32::from_be_bytes(self.take()?)).unwrap_or(usize::MAX),
        })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self, length: usize) -> Result<&'m [u8], ReadError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<String, ReadError> {
        to_json(bytes, 1_000).map(|read| read.json)
    }

    #[test]
    fn every_head() {
        let key = [0x81, 0xa1, b'k'];
        let cases: [(&[u8], &str); 24] = [
            (&[0xc0], "null"),
            (&[0xc2], "false"),
            (&[0xc3], "true"),
            (&[0x7f], "127"),
            (&[0xe0], "-32"),
            (&[0xcc, 200], "200"),
            (&[0xcd, 1, 0], "256"),
            (&[0xce, 0, 1, 0, 0], "65536"),
            (&[0xcf, 255, 255, 255, 255, 255, 255, 255, 255], "18446744073709551615"),
            (&[0xd0, 0x80], "-128"),
            (&[0xd1, 0x80, 0], "-32768"),
            (&[0xd2, 0x80, 0, 0, 0], "-2147483648"),
            (&[0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0], "-9223372036854775808"),
            (&[0xca, 0x3f, 0xc0, 0, 0], "1.5"),
            (&[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], "1.0"),
            (&[0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0], "-0.0"),
            (&[0xd9, 1, b'x'], "\"x\""),
            (&[0xda, 0, 1, b'"'], r#""\"""#),
            (&[0xdb, 0, 0, 0, 1, 0], r#""\u0000""#),
            (&[0x92, 1, 2], "[1,2]"),
            (&[0xdc, 0, 1, 7], "[7]"),
            (&[0xdd, 0, 0, 0, 0], "[]"),
            (&[0xde, 0, 1, 0xa0, 1], r#"{"":1}"#),
            (&[0xdf, 0, 0, 0, 1, 0xa1, b'a', 0x80], r#"{"a":{}}"#),
        ];
        for (value, json) in cases {
            let bytes = [&key, value].concat();
            assert_eq!(read(&bytes), Ok(format!(r#"{{"k":{json}}}"#)), "{value:x?}");
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), Err(ENDS_EARLY), "{value:x?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_json_has_not_is_refused() {
        let key = [0x81, 0xa1, b'k'];
        let cases: [(&[u8], &str); 9] = [
            (&[0xc4, 1, 0], "bytes are allowed"),
            (&[0xd4, 0, 0], "extension"),
            (&[0xc7, 0, 0], "extension"),
            (&[0xd6, 0xff, 0, 0, 0, 0], "extension"),
            (&[0xca, 0x7f, 0x80, 0, 0], "finite"),
            (&[0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], "finite"),
            (&[0x81, 1, 1], "key"),
            (&[0x81, 0xc0, 1], "key"),
            (&[0x91, 0xc4, 0], "bytes are allowed"),
        ];
        for (value, part) in cases {
            let error = read(&[&key, value].concat()).unwrap_err();
            assert!(matches!(&error, ReadError::NotJson(why) if why.contains(part)), "{error:?}");
        }
        assert!(matches!(read(&[0x81, 0xa1, 0xff, 1]), Err(ReadError::Invalid(_))));
        assert!(matches!(read(&[0x81, 0xa1, b'k', 0xc1]), Err(ReadError::Invalid(_))));
        assert!(matches!(read(&[0x80, 0x80]), Err(ReadError::Invalid(_))));
        for no_map in [&[0x90][..], &[0xc0], &[0xa1, b'x'], &[0xc4, 0]] {
            assert_eq!(read(no_map), Err(ReadError::NotMap));
        }
    }

    #[test]
    fn what_is_announced_costs_nothing() {
        for bomb in [&[0xdf, 255, 255, 255, 255][..], &[0x81, 0xa1, b'k', 0xdd, 255, 255, 255, 255]]
        {
            assert_eq!(read(bomb), Err(ENDS_EARLY));
        }
        let deep = [&[0x81, 0xa1, b'k'][..], &[0x91; 5_000], &[0xc0]].concat();
        assert!(matches!(read(&deep), Err(ReadError::NotJson(_))));
    }

    #[test]
    fn the_json_is_bounded() {
        // Each control character takes six bytes in JSON.
        let long = [&[0x81, 0xa1, b'k', 0xd9, 200][..], &[1; 200]].concat();
        assert_eq!(read(&long), Err(ReadError::TooLong));
    }
}

//! JSON that was checked when it came in, written as MessagePack.
//!
//! Integers that fit 64 bits stay integers; every other number becomes a double, as it does in
//! JavaScript, infinite if it is beyond those. Half of a surrogate pair becomes U+FFFD.

use super::write::{Many, begin, boolean, end, float, nil, signed, string, unsigned};
use crate::MAX_NESTING;

/// Writes one JSON value. What is none, which nobody hands in, becomes nil and not half a value.
pub(super) fn from_json(json: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut reader = Reader { rest: json };
    if reader.value(out, 0).is_none() || !reader.is_at_end() {
        out.truncate(start);
        nil(out);
    }
}

struct Reader<'j> {
    rest: &'j [u8],
}

impl<'j> Reader<'j> {
    fn skip_space(&mut self) {
        let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        while self.rest.first().is_some_and(space) {
            self.rest = &self.rest[1..];
        }
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// One value; `None` if there is none.
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.skip_space();
        match self.rest.first()? {
            b'"' => self.string(out),
            b'[' | b'{' if depth == MAX_NESTING => None,
            b'[' => self.many(Many::Array, b']', out, depth),
            b'{' => self.many(Many::Map, b'}', out, depth),
            b'-' | b'0'..=b'9' => self.number(out),
            _ => self.word(out),
        }
    }

    fn many(&mut self, many: Many, close: u8, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.rest = &self.rest[1..];
        let head = begin(out);
        let mut length = 0;
        if !self.take(close) {
            loop {
                if many == Many::Map {
                    self.skip_space();
                    self.string(out)?;
                    self.take(b':').then_some(())?;
                }
                self.value(out, depth + 1)?;
                length += 1;
                if self.take(close) {
                    break;
                }
                self.take(b',').then_some(())?;
            }
        }
        end(many, head, length, out);
        Some(())
    }

    fn word(&mut self, out: &mut Vec<u8>) -> Option<()> {
        if let Some(rest) = self.rest.strip_prefix(b"null") {
            nil(out);
            self.rest = rest;
        } else if let Some(rest) = self.rest.strip_prefix(b"true") {
            boolean(true, out);
            self.rest = rest;
        } else {
            self.rest = self.rest.strip_prefix(b"false")?;
            boolean(false, out);
        }
        Some(())
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let end = self.rest.iter().position(|byte| !in_number(byte)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        let number = str::from_utf8(number).ok()?;
        if let Ok(value) = number.parse() {
            unsigned(value, out);
        } else if let Some(value) = number.parse().ok().filter(|value| *value != 0) {
            signed(value, out);
        } else {
            // Also -0, which is no integer.
            float(number.parse().ok()?, out);
        }
        Some(())
    }

    fn string(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let text = self.rest.strip_prefix(b"\"")?;
        let plain = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[plain] == b'"' {
            self.rest = &text[plain + 1..];
            string(str::from_utf8(&text[..plain]).ok()?, out);
            return Some(());
        }
        let mut unescaped = String::new();
        self.rest = text;
        loop {
            let stop = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            let (before, rest) = self.rest.split_at(stop);
            unescaped.push_str(str::from_utf8(before).ok()?);
            self.rest = &rest[1..];
            if rest[0] == b'"' {
                string(&unescaped, out);
                return Some(());
            }
            unescaped.push(self.escape()?);
        }
    }

    /// What stands behind a backslash (RFC 8259, section 7).
    fn escape(&mut self) -> Option<char> {
        let (&kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match kind {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.hex()?;
                if let Some(char) = char::from_u32(first) {
                    return Some(char);
                }
                self.second_half(first).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            b'"' | b'\\' | b'/' => char::from(kind),
            _ => return None,
        })
    }

    /// The second half of a surrogate pair, if it follows; else nothing is taken.
    fn second_half(&mut self, first: u32) -> Option<char> {
        let mut ahead = Reader { rest: self.rest.strip_prefix(b"\\u")? };
        let second = ahead.hex()?;
        let char = char::decode_utf16([first as u16, second as u16]).next()?.ok()?;
        self.rest = ahead.rest;
        Some(char)
    }

    fn hex(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(json: &str) -> Vec<u8> {
        let mut out = Vec::new();
        from_json(json.as_bytes(), &mut out);
        out
    }

    #[test]
    fn values_in_their_shortest_form() {
        let cases: [(&str, &[u8]); 22] = [
            ("null", &[0xc0]),
            (" false ", &[0xc2]),
            ("true", &[0xc3]),
            ("0", &[0x00]),
            ("127", &[0x7f]),
            ("128", &[0xcc, 0x80]),
            ("256", &[0xcd, 1, 0]),
            ("65536", &[0xce, 0, 1, 0, 0]),
            ("18446744073709551615", &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
            ("-1", &[0xff]),
            ("-32", &[0xe0]),
            ("-33", &[0xd0, 0xdf]),
            ("-129", &[0xd1, 0xff, 0x7f]),
            ("-32769", &[0xd2, 0xff, 0xff, 0x7f, 0xff]),
            ("-2147483649", &[0xd3, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]),
            ("1.5", &[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0]),
            ("-0", &[0xcb, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("18446744073709551616", &[0xcb, 0x43, 0xf0, 0, 0, 0, 0, 0, 0]),
            ("1e400", &[0xcb, 0x7f, 0xf0, 0, 0, 0, 0, 0, 0]),
            ("[ ]", &[0x90]),
            (r#"[1,"a",[2]]"#, &[0x93, 1, 0xa1, b'a', 0x91, 2]),
            (r#"{ "a" : 1 , "b" : { } }"#, &[0x82, 0xa1, b'a', 1, 0xa1, b'b', 0x80]),
        ];
        for (json, expected) in cases {
            assert_eq!(packed(json), expected, "{json}");
        }
    }

    #[test]
    fn lengths_at_every_edge() {
        for (length, head) in [
            (31, &[0xbf][..]),
            (32, &[0xd9, 32]),
            (255, &[0xd9, 255]),
            (256, &[0xda, 1, 0]),
            (65_536, &[0xdb, 0, 1, 0, 0]),
        ] {
            let packed = packed(&format!("\"{}\"", "x".repeat(length)));
            assert_eq!(packed, [head, &vec![b'x'; length]].concat());
        }
        for (length, head) in
            [(15, &[0x9f][..]), (16, &[0xdc, 0, 16]), (65_536, &[0xdd, 0, 1, 0, 0])]
        {
            let packed = packed(&format!("[{}]", vec!["7"; length].join(",")));
            assert_eq!(packed, [head, &vec![7; length]].concat());
        }
        let members: Vec<_> = (0..16).map(|_| r#""k":7"#).collect();
        assert_eq!(
            packed(&format!("{{{}}}", members.join(",")))[..6],
            [0xde, 0, 16, 0xa1, b'k', 7]
        );
    }

    #[test]
    fn strings_are_unescaped() {
        for (json, text) in [
            (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
            (r#""a\u00e4\uD83C\uDF0a!""#, "aä🌊!"),
            (r#""\ud83c""#, "\u{fffd}"),
            (r#""\ud83cx\udf0a\ud83c\u0041""#, "\u{fffd}x\u{fffd}\u{fffd}A"),
            (r#""ä🌊\\u0041""#, "ä🌊\\u0041"),
        ] {
            let mut expected = Vec::new();
            string(text, &mut expected);
            assert_eq!(packed(json), expected, "{json}");
        }
    }

    #[test]
    fn what_is_no_json_is_nil() {
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        let strings = ["\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u00e\"", "\"\\ud83c\\u\""];
        let others =
            ["", " ", "nul", "-", "1.2.3", "[1", "[1,]", "{1:2}", "{\"a\"}", "1 2", "é", &deep];
        for json in strings.iter().chain(&others) {
            assert_eq!(packed(json), [0xc0], "{json}");
        }
        let mut out = vec![7];
        from_json(b"[1,\"\xff\"]", &mut out);
        assert_eq!(out, [7, 0xc0]);
    }

    #[test]
    fn as_deep_as_json_may_be() {
        let json = "[".repeat(MAX_NESTING) + &"]".repeat(MAX_NESTING);
        assert_eq!(packed(&json).len(), MAX_NESTING);
    }
}

//! What client and server agree on about compression, in the opening handshake.
//!
//! Owns the grammar of `Sec-WebSocket-Extensions` (RFC 6455, section 9.1) and the rules for offers
//! of permessage-deflate (RFC 7692, section 7). The gateway's HTTP layer calls it with the header's
//! values and writes the answer; it never compresses.

use std::fmt;

/// Everything is compressed as if the window were this large, in bits, so that one frame fits all
/// clients: 4 KiB, which is what some of them ask for. Against the largest, 15, messages of 16 KiB
/// are 3 % longer.
pub(crate) const SERVER_WINDOW_BITS: u8 = 12;

const NAME: &str = "permessage-deflate";

/// The header is not as RFC 6455, section 9.1 has it. It asks to fail the connection: answer with
/// 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Extensions is malformed")]
pub struct MalformedExtensions;

/// permessage-deflate, as it was agreed on: no side remembers anything from one message to the
/// next. Its [`Display`](fmt::Display) is the answer's `Sec-WebSocket-Extensions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflate {
    /// The largest window that the client can decompress, in bits (8 to 15), if it said.
    server_bits: Option<u8>,
}

impl Deflate {
    /// Reads the values of all `Sec-WebSocket-Extensions` headers in order, and gives what is
    /// accepted: the first offer of permessage-deflate that is as it must be. `None` if there is
    /// none; the connection then goes on without.
    ///
    /// # Errors
    /// When the header is malformed.
    pub fn negotiate<'h>(
        headers: impl IntoIterator<Item = &'h [u8]>,
    ) -> Result<Option<Self>, MalformedExtensions> {
        let mut accepted = None;
        for header in headers {
            let mut scanner = Scanner(header);
            loop {
                // Empty elements of a list are skipped (RFC 9110, section 5.6.1.2).
                while scanner.take(b',') {}
                if scanner.is_at_end() {
                    break;
                }
                let offer = read_offer(&mut scanner)?;
                accepted = accepted.or(offer);
                if !scanner.is_at_end() && !scanner.take(b',') {
                    return Err(MalformedExtensions);
                }
            }
        }
        Ok(accepted)
    }

    /// Whether the client can read what [`deflate`](fn@crate::deflate) makes. Where it wants a smaller
    /// window than that uses, it is sent everything uncompressed, as a server may (section 6), and
    /// may still compress what it sends.
    #[must_use]
    pub fn is_for_sending(self) -> bool {
        self.server_bits.is_none_or(|bits| bits >= SERVER_WINDOW_BITS)
    }
}

impl fmt::Display for Deflate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Section 7.1.1.2: "A server may include the "client_no_context_takeover" extension
        // parameter in an extension negotiation response to the client even if the extension
        // negotiation offer that this response is accepting didn't include" it; the same holds for
        // the server's by section 7.1.1.1.
        write!(f, "{NAME}; server_no_context_takeover; client_no_context_takeover")?;
        // Section 7.1.2.1: accepted "by including ... the same or smaller value".
        match self.server_bits {
            Some(bits) => write!(f, "; server_max_window_bits={}", bits.min(SERVER_WINDOW_BITS)),
            None => Ok(()),
        }
    }
}

/// Reads one extension and its parameters; gives what it comes to if it is an offer of
/// permessage-deflate that can be accepted.
///
/// Section 7.1: "A server MUST decline an extension negotiation offer for this extension if any of
/// the following conditions are met": an undefined parameter, one with an invalid value, the same
/// one twice, or what the server does not support.
fn read_offer(scanner: &mut Scanner<'_>) -> Result<Option<Deflate>, MalformedExtensions> {
    let mut acceptable = scanner.token()?.eq_ignore_ascii_case(NAME.as_bytes());
    let mut offer = Deflate::default();
    let mut seen = [false; 4];
    while scanner.take(b';') {
        let name = scanner.token()?;
        let value = if scanner.take(b'=') { Some(scanner.value()?) } else { None };
        let value = value.as_deref();
        let (at, valid) = match name {
            b"server_no_context_takeover" => (0, value.is_none()),
            b"client_no_context_takeover" => (1, value.is_none()),
            b"server_max_window_bits" => {
                offer.server_bits = value.and_then(window_bits);
                (2, offer.server_bits.is_some())
            }
            // It says what the client could do, and asks for nothing.
            b"client_max_window_bits" => {
                (3, value.is_none_or(|value| window_bits(value).is_some()))
            }
            _ => {
                acceptable = false;
                continue;
            }
        };
        acceptable &= valid && !std::mem::replace(&mut seen[at], true);
    }
    Ok(acceptable.then_some(offer))
}

/// Section 7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15, inclusive".
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// What is left of a header's value. White space between the parts is skipped.
struct Scanner<'h>(&'h [u8]);

impl<'h> Scanner<'h> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.0.is_empty()
    }

    /// Takes a separator, if it stands here.
    fn take(&mut self, separator: u8) -> bool {
        self.skip_space();
        let rest = self.0.strip_prefix(&[separator]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn token(&mut self) -> Result<&'h [u8], MalformedExtensions> {
        self.skip_space();
        let end = self.0.iter().position(|&byte| !is_token(byte)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        if token.is_empty() { Err(MalformedExtensions) } else { Ok(token) }
    }

    /// A parameter's value: a token, or one in quotes. Section 9.1 of RFC 6455: "When using the
    /// quoted-string syntax variant, the value after quoted-string unescaping MUST conform to the
    /// 'token' ABNF."
    fn value(&mut self) -> Result<Vec<u8>, MalformedExtensions> {
        if !self.take(b'"') {
            return self.token().map(<[u8]>::to_vec);
        }
        let mut value = Vec::new();
        loop {
            let (&byte, rest) = self.0.split_first().ok_or(MalformedExtensions)?;
            let (byte, rest) = match byte {
                b'"' if value.is_empty() => return Err(MalformedExtensions),
                b'"' => {
                    self.0 = rest;
                    return Ok(value);
                }
                b'\\' => {
                    let (&escaped, rest) = rest.split_first().ok_or(MalformedExtensions)?;
                    (escaped, rest)
                }
                byte => (byte, rest),
            };
            if !is_token(byte) {
                return Err(MalformedExtensions);
            }
            value.push(byte);
            self.0 = rest;
        }
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn answer(header: &str) -> Result<Option<String>, MalformedExtensions> {
        let agreed = Deflate::negotiate([header.as_bytes()])?;
        Ok(agreed.map(|agreed| agreed.to_string()))
    }

    #[test]
    fn offers_of_real_clients() {
        for header in [
            "permessage-deflate; client_max_window_bits", // Chrome, Firefox, npm ws
            "permessage-deflate",                         // Safari
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
            "Permessage-Deflate;client_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=\"1\\0\"",
            "x-webkit-deflate-frame, permessage-deflate",
            ", ,permessage-deflate,",
        ] {
            assert_eq!(answer(header), Ok(Some(PLAIN.to_owned())), "{header}");
            assert!(Deflate::negotiate([header.as_bytes()]).unwrap().unwrap().is_for_sending());
        }
    }

    #[test]
    fn the_clients_window_is_kept_to() {
        for (bits, told, sending) in
            [(15, 12, true), (13, 12, true), (12, 12, true), (11, 11, false), (8, 8, false)]
        {
            let header = format!("permessage-deflate; server_max_window_bits={bits}");
            let agreed = Deflate::negotiate([header.as_bytes()]).unwrap().unwrap();
            assert_eq!(agreed.to_string(), format!("{PLAIN}; server_max_window_bits={told}"));
            assert_eq!(agreed.is_for_sending(), sending);
        }
    }

    #[test]
    fn the_first_offer_that_is_valid_counts() {
        for (header, expected) in [
            (
                "permessage-deflate; server_max_window_bits=10, permessage-deflate",
                "; server_max_window_bits=10",
            ),
            ("permessage-deflate; server_max_window_bits=7, permessage-deflate", ""),
            ("permessage-deflate; unknown=1, foo; bar=\"baz\", permessage-deflate", ""),
        ] {
            assert_eq!(answer(header), Ok(Some(format!("{PLAIN}{expected}"))), "{header}");
        }
        let lines =
            [&b"foo"[..], b"permessage-deflate; server_max_window_bits=9", b"permessage-deflate"];
        let agreed = Deflate::negotiate(lines).unwrap().unwrap();
        assert_eq!(agreed, Deflate { server_bits: Some(9) });
    }

    #[test]
    fn invalid_offers_are_declined() {
        for parameters in [
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=+9",
            "server_max_window_bits=1000000000000",
            "client_max_window_bits=7",
            "client_max_window_bits=a",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "client_no_context_takeover; client_no_context_takeover",
            "server_max_window_bits=10; server_max_window_bits=10",
            "Server_No_Context_Takeover",
            "unknown",
        ] {
            let header = format!("permessage-deflate; {parameters}");
            assert_eq!(answer(&header), Ok(None), "{header}");
        }
        for header in ["", "  ", "permessage-bzip2", "deflate-frame; x=1"] {
            assert_eq!(answer(header), Ok(None), "{header:?}");
        }
        assert_eq!(Deflate::negotiate([]), Ok(None));
    }

    #[test]
    fn malformed_headers_are_told() {
        for header in [
            "permessage-deflate;",
            ";",
            "=",
            "permessage-deflate; =1",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"\"",
            "permessage-deflate; client_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=\"1 0\"",
            "permessage-deflate; client_max_window_bits=\"10\\",
            "permessage-deflate client_max_window_bits",
            "permessage-deflate, ä",
            "permessage-deflate; a=1=2",
            "(x)",
        ] {
            assert_eq!(answer(header), Err(MalformedExtensions), "{header:?}");
        }
    }
}

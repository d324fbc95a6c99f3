//! The arithmetic of the opening handshake (section 4.2).
//!
//! Owns the key and its answer. The gateway's HTTP layer calls it; headers, methods and status
//! codes stay there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The only value of `Sec-WebSocket-Version` there is.
///
/// Section 4.4: a server that does not speak the client's version answers 426 with this header and
/// the versions that it speaks.
pub const VERSION: &str = "13";

/// Section 1.3: "the string "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" in string form, ... which is
/// unlikely to be used by network endpoints that do not understand the WebSocket Protocol."
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether `key` is what `Sec-WebSocket-Key` must be.
///
/// Section 4.2.1: "a base64-encoded (see Section 4 of \[RFC4648\]) value that, when decoded, is 16
/// bytes in length."
#[must_use]
pub fn is_valid_key(key: &str) -> bool {
    // Room for what 24 characters decode to; anything longer is refused without being decoded.
    let mut nonce = [0; 18];
    key.len() == 24 && STANDARD.decode_slice(key, &mut nonce) == Ok(16)
}

/// The `Sec-WebSocket-Accept` that answers a valid `Sec-WebSocket-Key`, given without the white
/// space around it.
///
/// Section 4.2.2: "The value of this header field is constructed by concatenating /key/, defined
/// above in step 4 in Section 4.2.2, with the string "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", taking
/// the SHA-1 hash of this concatenated value to obtain a 20-byte value and base64-encoding (see
/// Section 4 of \[RFC4648\]) this 20-byte hash."
#[must_use]
pub fn accept_key(key: &str) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID.as_bytes());
    STANDARD.encode(hash.digest().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        assert!(is_valid_key("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_that_are_not_16_bytes_of_base64() {
        let bad = [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ= ",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZXM=",
            "dGhlIHNhbXBsZSBub25jZSEh",
            "dGhl!HNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==",
        ];
        for key in bad {
            assert!(!is_valid_key(key), "{key:?}");
        }
    }
}

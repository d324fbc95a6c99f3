//! The messages of a round: a number in the payload tells them apart, wherever they turn up.

use serde_json::{Value, json};

use crate::history::MessageNo;

/// What comes before the number, in JSON as `serde_json` writes it.
const MARK: &[u8] = b"{\"n\":";

/// The payload of a message, with so much padding.
pub(crate) fn payload(message: MessageNo, padding: usize) -> Value {
    json!({"n": message, "pad": "x".repeat(padding)})
}

/// The one member of what burst messages carry; readers leave them out.
pub(crate) const BURST: &str = "burst";

/// The messageId of a message.
pub(crate) fn id(message: MessageNo) -> String {
    format!("m{message}")
}

/// The number in a delivered payload.
pub(crate) fn number(payload: &Value) -> Option<MessageNo> {
    payload["n"].as_u64()
}

/// The number in a stored body, whatever stands around the payload.
pub(crate) fn number_in(body: &[u8]) -> Option<MessageNo> {
    let at = body.windows(MARK.len()).position(|window| window == MARK)? + MARK.len();
    let digits: Vec<u8> = body[at..].iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found() {
        let payload = payload(42, 3);
        assert_eq!(number(&payload), Some(42));
        let body = format!("\u{1}xyz{payload}");
        assert_eq!(number_in(body.as_bytes()), Some(42));
        assert_eq!(number_in(b"{}"), None);
    }
}

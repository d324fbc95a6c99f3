//! The members that frames are made of, as JSON.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{Channel, Code, Cursor, FrameId, Payload, Timestamp};

/// Writes the payload as a JSON value; bytes as a string of base64 (RFC 4648, section 4).
pub(crate) fn write_payload(payload: &Payload, out: &mut Vec<u8>) {
    match payload {
        Payload::Json(json) => out.extend_from_slice(json),
        Payload::Binary(bytes) => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
}

pub(super) fn write_id(id: Option<&FrameId>, out: &mut Vec<u8>) {
    if let Some(id) = id {
        out.extend_from_slice(br#","id":"#);
        out.extend_from_slice(id.as_json().as_bytes());
    }
}

/// Writes a member that begins like this, if there is a cursor.
pub(super) fn write_cursor(begin: &[u8], cursor: Option<Cursor>, out: &mut Vec<u8>) {
    if let Some(cursor) = cursor {
        out.extend_from_slice(begin);
        write_display(cursor, out);
        out.push(b'"');
    }
}

pub(super) fn write_recovered(recovered: Option<bool>, out: &mut Vec<u8>) {
    match recovered {
        Some(true) => out.extend_from_slice(br#","recovered":true"#),
        Some(false) => out.extend_from_slice(br#","recovered":false"#),
        None => {}
    }
}

pub(super) fn write_expires(expires: Option<Timestamp>, out: &mut Vec<u8>) {
    if let Some(expires) = expires {
        out.extend_from_slice(br#","expires":""#);
        write_display(expires, out);
        out.push(b'"');
    }
}

pub(super) fn write_channel(channel: &Channel, out: &mut Vec<u8>) {
    out.extend_from_slice(br#""channel":"#);
    write_string(channel.as_str(), out);
}

pub(super) fn write_denied(channel: &Channel, code: Code, out: &mut Vec<u8>) {
    write_channel(channel, out);
    out.extend_from_slice(br#","code":""#);
    out.extend_from_slice(code.as_str().as_bytes());
    out.extend_from_slice(b"\"}");
}

pub(super) fn write_shutdown(reconnect: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(br#""reconnect":"#);
    write_number(reconnect, out);
    out.push(b'}');
}

pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    // A Vec takes every byte and a string has no key: serde_json has nothing to fail at.
    let _ = serde_json::to_writer(out, text);
}

pub(super) fn write_number(number: u64, out: &mut Vec<u8>) {
    write_display(number, out);
}

pub(crate) fn write_display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    struct Ascii<'a>(&'a mut Vec<u8>);
    impl std::fmt::Write for Ascii<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // The writer above never fails.
    let _ = write!(Ascii(out), "{value}");
}

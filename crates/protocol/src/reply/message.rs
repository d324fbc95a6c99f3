//! Messages as JSON: each by itself, as a frame, and as a page of history.

use super::json::{write_channel, write_cursor, write_display, write_payload, write_string};
use crate::{Channel, Cursor, Message, Payload};

/// Writes the members of a page of history: `"messages":[…]` and `"next"`, if there is one.
pub fn write_page(
    channel: &Channel,
    messages: &[Message],
    next: Option<Cursor>,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#""messages":["#);
    for (n, message) in messages.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        message.write_json(channel, out);
    }
    out.push(b']');
    write_cursor(br#","next":""#, next, out);
}

impl Message {
    /// Its place, if it was stored.
    #[must_use]
    pub fn cursor(&self, channel: &Channel) -> Option<Cursor> {
        self.stored.map(|stored| Cursor::new(channel, stored.incarnation, stored.id))
    }

    /// Writes the `message` frame as one JSON object. Bytes become base64 with `encoding`.
    pub fn write_json(&self, channel: &Channel, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"message","#);
        write_channel(channel, out);
        out.extend_from_slice(br#","event":"#);
        write_string(self.event.as_str(), out);
        out.extend_from_slice(br#","payload":"#);
        write_payload(&self.payload, out);
        if matches!(self.payload, Payload::Binary(_)) {
            out.extend_from_slice(br#","encoding":"base64""#);
        }
        out.extend_from_slice(br#","timestamp":""#);
        write_display(self.timestamp, out);
        out.push(b'"');
        if let Some(message_id) = &self.message_id {
            out.extend_from_slice(br#","messageId":"#);
            write_string(message_id.as_str(), out);
        }
        write_cursor(br#","cursor":""#, self.cursor(channel), out);
        if let Some(from) = &self.from {
            out.extend_from_slice(br#","from":{"#);
            if let Some(user) = &from.user {
                out.extend_from_slice(br#""user":"#);
                write_string(user, out);
            }
            if let Some(session) = from.session {
                let begin =
                    if from.user.is_some() { &b",\"session\":\""[..] } else { b"\"session\":\"" };
                out.extend_from_slice(begin);
                write_display(session, out);
                out.push(b'"');
            }
            out.push(b'}');
        }
        out.push(b'}');
    }
}

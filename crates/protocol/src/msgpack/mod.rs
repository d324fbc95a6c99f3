//! The subprotocol `tidewire.msgpack`: the same frames as maps with the same keys.
//!
//! JSON is what the gateway keeps and what every broker carries; MessagePack is made from it for
//! who wants it, and read into it. So both subprotocols have the same frames, the same bounds and
//! the same errors by construction. What differs is bytes: they are `bin` here, and base64 there.

mod from_json;
mod to_json;
mod write;

use bytes::Bytes;

use crate::fields::{Fields, FieldsError};
use crate::{
    Acked, Channel, ClientFrame, Code, FrameError, Message, Payload, Reply, Request, Sender,
};
use from_json::from_json;
use to_json::{Read, ReadError, to_json};
use write::{array, map, more_in_map, string};

/// A frame begins as a map of up to 15 members, whose number is one byte's lower half.
const SMALL_MAP: u8 = 0x80;

impl ClientFrame {
    /// Reads a frame of the subprotocol `tidewire.msgpack`. A publish's payload becomes JSON, or
    /// stays bytes where the whole of it is `bin`.
    ///
    /// # Errors
    /// Those of [`ClientFrame::parse_json`] for the same frame. Besides, everything must have a
    /// meaning in JSON (no extension types, no numbers that are not finite, no keys but strings,
    /// bytes only as the whole payload), and be at most `limit` bytes long there.
    pub fn parse_msgpack(bytes: &[u8], limit: usize) -> Result<Self, FrameError> {
        let Read { json, payload } = to_json(bytes, limit).map_err(|error| match error {
            ReadError::TooLong => FrameError {
                id: None,
                code: Code::TooLarge,
                message: format!("as JSON the frame is over {limit} bytes"),
            },
            ReadError::NotMap => bad("the frame is no map".to_owned()),
            ReadError::Invalid(why) => bad(format!("the frame is not MessagePack: {why}")),
            ReadError::NotJson(why) => bad(format!("the frame cannot be taken: {why}")),
        })?;
        let fields = Fields::parse(&json).map_err(|error| match error {
            FieldsError::NotObject => bad("the frame is no map".to_owned()),
            // A member twice, or too many: where in the JSON that is tells the client nothing.
            FieldsError::NotJson(why) => {
                let why = why.split(" at line ").next().unwrap_or_default();
                bad(format!("the frame cannot be taken: {why}"))
            }
        })?;
        let mut frame = Self::of(fields)?;
        if let (Some(bytes), Request::Publish { publication, .. }) = (payload, &mut frame.request) {
            publication.payload = Payload::Binary(Bytes::copy_from_slice(bytes));
        }
        Ok(frame)
    }
}

fn bad(message: String) -> FrameError {
    FrameError { id: None, code: Code::BadFrame, message }
}

impl Reply<'_> {
    /// Writes the frame as one MessagePack map.
    pub fn write_msgpack(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        let mut json = Vec::new();
        let Self::Ack { id, acked: acked @ Acked { page: Some((channel, messages, next)), .. } } =
            self
        else {
            self.write_json(&mut json);
            return from_json(&json, out);
        };
        // The messages of a page may hold bytes, so they are not made from JSON.
        Reply::Ack { id: *id, acked: Acked { page: None, ..*acked } }.write_json(&mut json);
        from_json(&json, out);
        more_in_map(begin, 1 + u8::from(next.is_some()), out);
        string("messages", out);
        array(messages.len(), out);
        for message in *messages {
            message.write_msgpack(channel, out);
        }
        if let Some(next) = next {
            string("next", out);
            string(&next.to_string(), out);
        }
    }
}

impl Message {
    /// Writes the `message` frame as one MessagePack map. Bytes are `bin`, without `encoding`.
    pub fn write_msgpack(&self, channel: &Channel, out: &mut Vec<u8>) {
        let begin = out.len();
        out.push(SMALL_MAP);
        let mut members = 0;
        let mut key = |name: &str, out: &mut Vec<u8>| {
            members += 1;
            string(name, out);
        };
        key("type", out);
        string("message", out);
        key("channel", out);
        string(channel.as_str(), out);
        key("event", out);
        string(self.event.as_str(), out);
        key("payload", out);
        match &self.payload {
            Payload::Json(json) => from_json(json, out),
            Payload::Binary(bytes) => write::bytes(bytes, out),
        }
        key("timestamp", out);
        string(&self.timestamp.to_string(), out);
        if let Some(message_id) = &self.message_id {
            key("messageId", out);
            string(message_id.as_str(), out);
        }
        if let Some(cursor) = self.cursor(channel) {
            key("cursor", out);
            string(&cursor.to_string(), out);
        }
        if let Some(Sender { user, session }) = &self.from {
            key("from", out);
            map(usize::from(user.is_some()) + usize::from(session.is_some()), out);
            if let Some(user) = user {
                string("user", out);
                string(user, out);
            }
            if let Some(session) = session {
                string("session", out);
                string(&session.to_string(), out);
            }
        }
        more_in_map(begin, members, out);
    }
}

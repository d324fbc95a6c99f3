//! What the server says, as JSON: the frames of a WebSocket and the data of SSE's control events.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{Channel, Code, Cursor, FrameId, Message, MessageId, Payload, SessionId, Timestamp};

/// A frame of the server that concerns one session. (Messages, which concern many, are written by
/// [`Message::write_json`].)
#[derive(Debug)]
pub enum Reply<'a> {
    /// The first frame: everything of the URL is subscribed.
    Welcome(Welcomed<'a>),
    /// A frame of the client is done.
    Ack {
        /// The client's name for its frame.
        id: Option<&'a FrameId>,
        /// What was done.
        acked: Acked<'a>,
    },
    /// A frame of the client is refused.
    Error {
        /// The client's name for its frame, if it could be read.
        id: Option<&'a FrameId>,
        /// What went wrong, for programs.
        code: Code,
        /// What went wrong, for people.
        message: &'a str,
        /// Try again after so many milliseconds.
        retry: Option<u64>,
    },
    /// The answer to `ping`.
    Pong {
        /// The client's name for its frame.
        id: Option<&'a FrameId>,
    },
    /// Messages may be missing here.
    Gap {
        /// Where.
        channel: &'a Channel,
        /// The last place before, on a stored channel.
        after: Option<Cursor>,
        /// The place from which it goes on.
        cursor: Option<Cursor>,
    },
    /// The place moved, although nothing visible happened.
    Position {
        /// Where.
        channel: &'a Channel,
        /// The place.
        cursor: Cursor,
    },
    /// The session is not subscribed here (any more), and did not ask for that.
    Unsubscribed {
        /// Where.
        channel: &'a Channel,
        /// Why.
        code: Code,
    },
    /// The login ends soon: refresh it with `auth`, or come back with a new token.
    Expiring {
        /// When.
        expires: Timestamp,
    },
    /// The node is about to stop: come back elsewhere.
    Shutdown {
        /// In so many milliseconds.
        reconnect: u64,
    },
}

/// What `welcome` tells.
#[derive(Debug)]
pub struct Welcomed<'a> {
    /// The session's name.
    pub session: SessionId,
    /// The user, for who has logged in as one.
    pub user: Option<&'a str>,
    /// When the login ends, if it does.
    pub expires: Option<Timestamp>,
    /// Seconds between the server's heartbeats.
    pub heartbeat: u64,
    /// How fast the client may send.
    pub pace: Pace,
    /// The channels of the URL that are subscribed now.
    pub channels: &'a [WelcomeChannel],
}

/// What a client may send over its WebSocket in a second, and twice as much at once; 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Frames.
    pub frames: u32,
    /// Bytes of messages.
    pub bytes: u32,
}

/// A channel that `welcome` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WelcomeChannel {
    /// Its name.
    pub channel: Channel,
    /// The place before the first message that follows, on a stored channel.
    pub cursor: Option<Cursor>,
    /// Whether it goes on from the place that was asked for.
    pub recovered: Option<bool>,
}

/// What an `ack` tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Acked<'a> {
    /// The identity of the message, of a publish.
    pub message_id: Option<&'a MessageId>,
    /// The place, on a stored channel.
    pub cursor: Option<Cursor>,
    /// The message was published before.
    pub duplicate: bool,
    /// Whether a subscription goes on from the place that was asked for.
    pub recovered: Option<bool>,
    /// When the login ends, of `auth`.
    pub expires: Option<Timestamp>,
    /// What the application says about a publish: one JSON value.
    pub result: Option<&'a [u8]>,
    /// What the application answers to an `rpc`: one JSON value.
    pub payload: Option<&'a [u8]>,
    /// Messages, of `history`, with the cursor of the next page.
    pub page: Option<(&'a Channel, &'a [Message], Option<Cursor>)>,
}

impl Reply<'_> {
    /// Writes the frame as one JSON object.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Self::Welcome(welcomed) => {
                out.extend_from_slice(br#"{"type":"welcome","#);
                welcomed.write_members(out);
            }
            Self::Ack { id, acked } => {
                out.extend_from_slice(br#"{"type":"ack""#);
                write_id(*id, out);
                acked.write_members(out);
                out.push(b'}');
            }
            Self::Error { id, code, message, retry } => {
                out.extend_from_slice(br#"{"type":"error""#);
                write_id(*id, out);
                out.extend_from_slice(br#","code":""#);
                out.extend_from_slice(code.as_str().as_bytes());
                out.extend_from_slice(br#"","message":"#);
                write_string(message, out);
                if let Some(retry) = retry {
                    out.extend_from_slice(br#","retry":"#);
                    write_number(*retry, out);
                }
                out.push(b'}');
            }
            Self::Pong { id } => {
                out.extend_from_slice(br#"{"type":"pong""#);
                write_id(*id, out);
                out.push(b'}');
            }
            Self::Gap { channel, after, cursor } => {
                out.extend_from_slice(br#"{"type":"gap","#);
                write_channel(channel, out);
                write_cursor(br#","after":""#, *after, out);
                write_cursor(br#","cursor":""#, *cursor, out);
                out.push(b'}');
            }
            Self::Position { channel, cursor } => {
                out.extend_from_slice(br#"{"type":"position","#);
                write_channel(channel, out);
                write_cursor(br#","cursor":""#, Some(*cursor), out);
                out.push(b'}');
            }
            Self::Unsubscribed { channel, code } => {
                out.extend_from_slice(br#"{"type":"unsubscribed","#);
                write_denied(channel, *code, out);
            }
            Self::Expiring { expires } => {
                out.extend_from_slice(br#"{"type":"expiring""#);
                write_expires(Some(*expires), out);
                out.push(b'}');
            }
            Self::Shutdown { reconnect } => {
                out.extend_from_slice(br#"{"type":"shutdown","#);
                write_shutdown(*reconnect, out);
            }
        }
    }

    /// Writes the data of the SSE control event that says the same, and gives the event's name;
    /// nothing for what SSE has no event for.
    pub(crate) fn write_sse_data(&self, out: &mut Vec<u8>) -> Option<&'static str> {
        let start = |out: &mut Vec<u8>| out.push(b'{');
        Some(match self {
            Self::Welcome(welcomed) => {
                start(out);
                welcomed.write_members(out);
                "tidewire:welcome"
            }
            Self::Gap { channel, after, cursor } => {
                start(out);
                write_channel(channel, out);
                write_cursor(br#","after":""#, *after, out);
                write_cursor(br#","cursor":""#, *cursor, out);
                out.push(b'}');
                "tidewire:gap"
            }
            Self::Unsubscribed { channel, code } => {
                start(out);
                write_denied(channel, *code, out);
                "tidewire:denied"
            }
            Self::Expiring { expires } => {
                out.extend_from_slice(br#"{"expires":""#);
                write_display(*expires, out);
                out.extend_from_slice(b"\"}");
                "tidewire:expiring"
            }
            Self::Shutdown { reconnect } => {
                start(out);
                write_shutdown(*reconnect, out);
                "tidewire:shutdown"
            }
            Self::Ack { .. } | Self::Error { .. } | Self::Pong { .. } | Self::Position { .. } => {
                return None;
            }
        })
    }
}

impl Welcomed<'_> {
    fn write_members(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#""session":""#);
        write_display(self.session, out);
        out.extend_from_slice(br#"","heartbeat":"#);
        write_number(self.heartbeat, out);
        if let Some(user) = self.user {
            out.extend_from_slice(br#","user":"#);
            write_string(user, out);
        }
        write_expires(self.expires, out);
        self.pace.write(out);
        out.extend_from_slice(br#","channels":["#);
        for (i, channel) in self.channels.iter().enumerate() {
            out.extend_from_slice(if i == 0 { b"{" } else { b",{" });
            write_channel(&channel.channel, out);
            write_cursor(br#","cursor":""#, channel.cursor, out);
            write_recovered(channel.recovered, out);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
    }
}

impl Pace {
    /// Writes `"pace"` with those of its members that are limits, if there is one.
    fn write(self, out: &mut Vec<u8>) {
        let limits = [(&br#""frames":"#[..], self.frames), (br#""bytes":"#, self.bytes)];
        let mut begin = &br#","pace":{"#[..];
        for (name, limit) in limits.into_iter().filter(|(_, limit)| *limit > 0) {
            out.extend_from_slice(begin);
            out.extend_from_slice(name);
            write_number(limit.into(), out);
            begin = b",";
        }
        if self != Self::default() {
            out.push(b'}');
        }
    }
}

impl Acked<'_> {
    fn write_members(&self, out: &mut Vec<u8>) {
        if let Some(message_id) = self.message_id {
            out.extend_from_slice(br#","messageId":"#);
            write_string(message_id.as_str(), out);
        }
        write_cursor(br#","cursor":""#, self.cursor, out);
        if self.duplicate {
            out.extend_from_slice(br#","duplicate":true"#);
        }
        write_recovered(self.recovered, out);
        write_expires(self.expires, out);
        for (begin, json) in
            [(&br#","result":"#[..], self.result), (br#","payload":"#, self.payload)]
        {
            if let Some(json) = json {
                out.extend_from_slice(begin);
                out.extend_from_slice(json);
            }
        }
        if let Some((channel, messages, next)) = self.page {
            out.push(b',');
            write_page(channel, messages, next, out);
        }
    }
}

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

fn write_id(id: Option<&FrameId>, out: &mut Vec<u8>) {
    if let Some(id) = id {
        out.extend_from_slice(br#","id":"#);
        out.extend_from_slice(id.as_json().as_bytes());
    }
}

/// Writes a member that begins like this, if there is a cursor.
fn write_cursor(begin: &[u8], cursor: Option<Cursor>, out: &mut Vec<u8>) {
    if let Some(cursor) = cursor {
        out.extend_from_slice(begin);
        write_display(cursor, out);
        out.push(b'"');
    }
}

fn write_recovered(recovered: Option<bool>, out: &mut Vec<u8>) {
    match recovered {
        Some(true) => out.extend_from_slice(br#","recovered":true"#),
        Some(false) => out.extend_from_slice(br#","recovered":false"#),
        None => {}
    }
}

fn write_expires(expires: Option<Timestamp>, out: &mut Vec<u8>) {
    if let Some(expires) = expires {
        out.extend_from_slice(br#","expires":""#);
        write_display(expires, out);
        out.push(b'"');
    }
}

fn write_channel(channel: &Channel, out: &mut Vec<u8>) {
    out.extend_from_slice(br#""channel":"#);
    write_string(channel.as_str(), out);
}

fn write_denied(channel: &Channel, code: Code, out: &mut Vec<u8>) {
    write_channel(channel, out);
    out.extend_from_slice(br#","code":""#);
    out.extend_from_slice(code.as_str().as_bytes());
    out.extend_from_slice(b"\"}");
}

fn write_shutdown(reconnect: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(br#""reconnect":"#);
    write_number(reconnect, out);
    out.push(b'}');
}

pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    // A Vec takes every byte and a string has no key: serde_json has nothing to fail at.
    let _ = serde_json::to_writer(out, text);
}

fn write_number(number: u64, out: &mut Vec<u8>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClientFrame, Event, Sender, Timestamp};
    use bytes::Bytes;
    use serde_json::json;

    fn value(reply: &Reply<'_>) -> serde_json::Value {
        let mut out = Vec::new();
        reply.write_json(&mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn replies_are_the_protocols_frames() {
        let channel = Channel::new("a\"b").unwrap();
        let session = SessionId::from_bytes([0; 16]);
        let id = ClientFrame::parse_json(r#"{"type":"ping","id":"q\"1"}"#).unwrap().id;
        let channels = [WelcomeChannel { channel: channel.clone(), cursor: None, recovered: None }];
        let expires = Some(Timestamp::from_millis(0));
        let paced = |user, expires, pace| {
            let channels = &channels;
            Reply::Welcome(Welcomed { session, user, expires, heartbeat: 25, pace, channels })
        };
        let welcomed = |user, expires| paced(user, expires, Pace::default());
        for (frames, bytes, expected) in [
            (100, 0, json!({"frames": 100})),
            (0, 7, json!({"bytes": 7})),
            (1, u32::MAX, json!({"frames": 1, "bytes": u32::MAX})),
        ] {
            assert_eq!(value(&paced(None, None, Pace { frames, bytes }))["pace"], expected);
        }
        assert_eq!(
            value(&welcomed(Some("alice"), expires)),
            json!({"type": "welcome", "session": "AAAAAAAAAAAAAAAAAAAAAA", "heartbeat": 25,
                   "user": "alice", "expires": "1970-01-01T00:00:00.000Z",
                   "channels": [{"channel": "a\"b"}]})
        );
        assert_eq!(
            value(&Reply::Ack { id: None, acked: Acked { expires, ..Acked::default() } }),
            json!({"type": "ack", "expires": "1970-01-01T00:00:00.000Z"})
        );
        assert_eq!(
            value(&Reply::Expiring { expires: Timestamp::from_millis(0) }),
            json!({"type": "expiring", "expires": "1970-01-01T00:00:00.000Z"})
        );
        let welcome = welcomed(None, None);
        assert_eq!(
            value(&welcome),
            json!({"type": "welcome", "session": "AAAAAAAAAAAAAAAAAAAAAA", "heartbeat": 25,
                   "channels": [{"channel": "a\"b"}]})
        );
        let message_id = MessageId::new("m").unwrap();
        assert_eq!(
            value(&Reply::Ack {
                id: id.as_ref(),
                acked: Acked { message_id: Some(&message_id), ..Acked::default() },
            }),
            json!({"type": "ack", "id": "q\"1", "messageId": "m"})
        );
        assert_eq!(
            value(&Reply::Ack { id: None, acked: Acked::default() }),
            json!({"type": "ack"})
        );
        let error = Reply::Error { id: None, code: Code::TooFast, message: "x", retry: Some(5) };
        assert_eq!(
            value(&error),
            json!({"type": "error", "code": "too_fast", "message": "x", "retry": 5})
        );
        assert_eq!(value(&Reply::Pong { id: id.as_ref() }), json!({"type": "pong", "id": "q\"1"}));
        let gap = Reply::Gap { channel: &channel, after: None, cursor: None };
        assert_eq!(value(&gap), json!({"type": "gap", "channel": "a\"b"}));
        let entry = crate::EntryId { ms: 7, seq: 1 };
        let cursor = Cursor::new(&channel, crate::Incarnation::new(1), entry);
        let text = cursor.to_string();
        let gap = Reply::Gap { channel: &channel, after: Some(cursor), cursor: Some(cursor) };
        assert_eq!(
            value(&gap),
            json!({"type": "gap", "channel": "a\"b", "after": text, "cursor": text})
        );
        let acked = Acked { cursor: Some(cursor), recovered: Some(false), ..Acked::default() };
        assert_eq!(
            value(&Reply::Ack { id: None, acked }),
            json!({"type": "ack", "cursor": text, "recovered": false})
        );
        let (result, payload) = (Some(&b"{\"a\": 1}"[..]), Some(&b"null"[..]));
        assert_eq!(
            value(&Reply::Ack { id: None, acked: Acked { result, payload, ..Acked::default() } }),
            json!({"type": "ack", "result": {"a": 1}, "payload": null})
        );
        assert_eq!(
            value(&Reply::Unsubscribed { channel: &channel, code: Code::Unavailable }),
            json!({"type": "unsubscribed", "channel": "a\"b", "code": "unavailable"})
        );
        assert_eq!(
            value(&Reply::Shutdown { reconnect: 1500 }),
            json!({"type": "shutdown", "reconnect": 1500})
        );
    }

    #[test]
    fn a_message_has_all_its_members() {
        let mut message = Message {
            event: Event::new("e").unwrap(),
            payload: Payload::Json(Bytes::from_static(b"[1]")),
            message_id: Some(MessageId::new("m").unwrap()),
            timestamp: Timestamp::from_millis(0),
            from: Some(Sender {
                user: Some("alice".into()),
                session: Some(SessionId::from_bytes([0; 16])),
            }),
            exclude: None,
            stored: None,
        };
        let written = |message: &Message| -> serde_json::Value {
            let mut out = Vec::new();
            message.write_json(&Channel::new("c").unwrap(), &mut out);
            serde_json::from_slice(&out).unwrap()
        };
        assert_eq!(
            written(&message),
            json!({"type": "message", "channel": "c", "event": "e", "payload": [1],
                   "timestamp": "1970-01-01T00:00:00.000Z", "messageId": "m",
                   "from": {"user": "alice", "session": "AAAAAAAAAAAAAAAAAAAAAA"}})
        );
        for (sender, expected) in [
            (Sender { user: Some("bob".into()), session: None }, json!({"user": "bob"})),
            (
                Sender { user: None, session: Some(SessionId::from_bytes([0; 16])) },
                json!({"session": "AAAAAAAAAAAAAAAAAAAAAA"}),
            ),
        ] {
            message.from = Some(sender);
            assert_eq!(written(&message)["from"], expected);
        }
        message.payload = Payload::Binary(Bytes::from_static(b"\xff\x00"));
        message.message_id = None;
        message.from = None;
        assert_eq!(
            written(&message),
            json!({"type": "message", "channel": "c", "event": "e", "payload": "/wA=",
                   "encoding": "base64", "timestamp": "1970-01-01T00:00:00.000Z"})
        );
    }
}

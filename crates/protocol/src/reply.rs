//! What the server says, as JSON: the frames of a WebSocket and the data of SSE's control events.

mod json;
mod message;

use crate::{Channel, Code, Cursor, FrameId, Message, MessageId, SessionId, Timestamp};
use json::{
    write_channel, write_cursor, write_denied, write_expires, write_id, write_number,
    write_recovered, write_shutdown,
};
pub(crate) use json::{write_display, write_payload, write_string};
pub use message::write_page;

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

#[cfg(test)]
mod tests;

//! The two ways to write the protocol's frames on a WebSocket.

use crate::{Channel, Message, Reply};

/// What is asked for with `Sec-WebSocket-Protocol` (RFC 6455, section 11.3.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Subprotocol {
    /// JSON in text frames.
    #[default]
    Json,
    /// MessagePack in binary frames.
    MessagePack,
}

impl Subprotocol {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Json, Self::MessagePack];

    /// Its name in the handshake.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "tidewire.json",
            Self::MessagePack => "tidewire.msgpack",
        }
    }

    /// Writes a frame that concerns one session.
    pub fn write_reply(self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => reply.write_json(out),
            Self::MessagePack => reply.write_msgpack(out),
        }
    }

    /// Writes a `message` frame.
    pub fn write_message(self, message: &Message, channel: &Channel, out: &mut Vec<u8>) {
        match self {
            Self::Json => message.write_json(channel, out),
            Self::MessagePack => message.write_msgpack(channel, out),
        }
    }
}

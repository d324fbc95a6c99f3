//! One message, in each form in which it goes to a socket, made at most once.

use std::sync::OnceLock;

use bytes::Bytes;
use tidewire_protocol::sse::{self, Style};
use tidewire_protocol::{Channel, Cursor, Message, Reply, StreamToken, Subprotocol};
use tidewire_websocket::{self as websocket, MessageKind};

/// What a message's frame takes besides its payload, about.
const AROUND_PAYLOAD: usize = 256;
/// What a reply takes, about.
const REPLY: usize = 128;

/// The bytes that a session's transport wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// WebSocket frames.
    WebSocket(Frames),
    /// Server-Sent Events, without ids: the stream has none, or writes its own.
    Sse(Style),
    /// Server-Sent Events of a stream with one stored channel, whose id all its clients share.
    SseWithId(Style),
    /// The bare `message` frame, for who collects them.
    Json,
}

/// How a session's WebSocket frames are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Frames {
    /// In which words.
    pub subprotocol: Subprotocol,
    /// Whether messages may be compressed.
    pub deflate: bool,
}

impl Frames {
    /// Text or binary.
    #[must_use]
    pub const fn kind(self) -> MessageKind {
        match self.subprotocol {
            Subprotocol::Json => MessageKind::Text,
            Subprotocol::MessagePack => MessageKind::Binary,
        }
    }

    /// The same, uncompressed.
    const fn plain(self) -> Self {
        Self { deflate: false, ..self }
    }
}

impl Form {
    /// How many forms there are.
    pub const COUNT: usize = 11;

    /// A number below [`Form::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::WebSocket(Frames { subprotocol, deflate }) => {
                subprotocol as usize * 2 + deflate as usize
            }
            Self::Sse(style) => 4 + style as usize,
            Self::SseWithId(style) => 7 + style as usize,
            Self::Json => 10,
        }
    }

    /// The transport's name in metrics.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Self::WebSocket(_) => Transport::WebSocket,
            Self::Sse(_) | Self::SseWithId(_) => Transport::Sse,
            Self::Json => Transport::Poll,
        }
    }
}

/// How a session is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// RFC 6455.
    WebSocket,
    /// An event stream.
    Sse,
    /// A request that waits for messages.
    Poll,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::Sse, Self::Poll];

    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Poll => "poll",
        }
    }
}

/// A message on its way to the subscribers of this node. All of them share its bytes.
#[derive(Debug)]
pub struct Encoded {
    /// Where it was published.
    pub channel: Channel,
    /// What was published.
    pub message: Message,
    forms: [OnceLock<Bytes>; Form::COUNT],
}

impl Encoded {
    /// Nothing is encoded yet.
    #[must_use]
    pub fn new(channel: Channel, message: Message) -> Self {
        Self { channel, message, forms: Default::default() }
    }

    /// The bytes in that form; whoever asks first makes them. Where the form allows it, messages
    /// from `compress_from` bytes on are compressed, if that makes them smaller: one number for a
    /// node, since its sessions share what is compressed.
    pub fn bytes(&self, form: Form, compress_from: usize) -> &Bytes {
        self.forms[form.index()].get_or_init(|| match form {
            Form::WebSocket(frames) if frames.deflate => {
                self.compressed_frame(frames, compress_from)
            }
            Form::WebSocket(frames) => self.frame(frames),
            Form::Sse(style) => self.event(style, false),
            Form::SseWithId(style) => self.event(style, true),
            Form::Json => {
                let mut out = Vec::with_capacity(self.message.payload.len() + AROUND_PAYLOAD);
                self.message.write_json(&self.channel, &mut out);
                out.into()
            }
        })
    }

    /// The place after it, if it was stored.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        self.message.cursor(&self.channel)
    }

    fn frame(&self, frames: Frames) -> Bytes {
        let capacity = self.message.payload.len() + AROUND_PAYLOAD;
        websocket::encode_with(frames.kind(), capacity, |out| {
            frames.subprotocol.write_message(&self.message, &self.channel, out);
        })
    }

    /// Shares the uncompressed frame where compression does not pay.
    fn compressed_frame(&self, frames: Frames, from: usize) -> Bytes {
        let plain = || self.bytes(Form::WebSocket(frames.plain()), from).clone();
        let mut words = Vec::with_capacity(self.message.payload.len() + AROUND_PAYLOAD);
        frames.subprotocol.write_message(&self.message, &self.channel, &mut words);
        if words.len() < from {
            return plain();
        }
        websocket::deflate(frames.kind(), &words).unwrap_or_else(plain)
    }

    fn event(&self, style: Style, with_id: bool) -> Bytes {
        let mut out = Vec::with_capacity(self.message.payload.len() + AROUND_PAYLOAD);
        if let Some(cursor) = self.cursor().filter(|_| with_id) {
            sse::write_id(&StreamToken::of(cursor), &mut out);
        }
        sse::write_message(&self.message, &self.channel, style, &mut out);
        out.into()
    }
}

/// A reply in that form; nothing where there are only messages.
#[must_use]
pub fn encode_reply(form: Form, reply: &Reply<'_>) -> Bytes {
    match form {
        Form::WebSocket(frames) => websocket::encode_with(frames.kind(), REPLY, |out| {
            frames.subprotocol.write_reply(reply, out);
        }),
        Form::Sse(_) | Form::SseWithId(_) => {
            let mut out = Vec::new();
            sse::write_control(reply, &mut out);
            out.into()
        }
        Form::Json => Bytes::new(),
    }
}

#[cfg(test)]
mod tests {
    use tidewire_protocol::{Event, Payload, Timestamp};

    use super::*;

    fn encoded(payload: &str) -> Encoded {
        let message = Message {
            event: Event::default(),
            payload: Payload::text(payload),
            message_id: None,
            timestamp: Timestamp::from_millis(0),
            from: None,
            exclude: None,
            stored: None,
        };
        Encoded::new(Channel::new("news").unwrap(), message)
    }

    fn frames(subprotocol: Subprotocol, deflate: bool) -> Form {
        Form::WebSocket(Frames { subprotocol, deflate })
    }

    #[test]
    fn every_form_has_a_number_of_its_own() {
        let styles = [Style::Payload, Style::Envelope, Style::Text];
        let mut all: Vec<_> = Subprotocol::ALL
            .into_iter()
            .flat_map(|subprotocol| [frames(subprotocol, false), frames(subprotocol, true)])
            .chain(styles.map(Form::Sse))
            .chain(styles.map(Form::SseWithId))
            .chain([Form::Json])
            .map(Form::index)
            .collect();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(0..Form::COUNT));
    }

    #[test]
    fn what_is_compressed_is_made_once_and_only_where_it_pays() {
        for (subprotocol, first) in [(Subprotocol::Json, 0xC1), (Subprotocol::MessagePack, 0xC2)] {
            let long = encoded(&"wave ".repeat(300));
            let compressed = long.bytes(frames(subprotocol, true), 512);
            assert_eq!(compressed[0], first);
            assert!(compressed.len() < 200, "{}", compressed.len());
            assert_eq!(compressed.as_ptr(), long.bytes(frames(subprotocol, true), 512).as_ptr());
            assert!(
                long.forms[frames(subprotocol, false).index()].get().is_none(),
                "not asked for"
            );
            assert_eq!(long.bytes(frames(subprotocol, false), 512)[0], first & !0x40);

            // Under the threshold, and where it does not shrink, both forms share their bytes.
            for short in ["wave ".repeat(20), "x".to_owned()] {
                let short = encoded(&short);
                let shared = short.bytes(frames(subprotocol, true), 512);
                assert_eq!(shared[0], first & !0x40);
                assert_eq!(shared.as_ptr(), short.bytes(frames(subprotocol, false), 512).as_ptr());
            }
        }
    }
}

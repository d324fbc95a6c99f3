//! One message, in each form in which it goes to a socket, made at most once.

use std::sync::OnceLock;

use bytes::Bytes;
use tidewire_protocol::sse::{self, Style};
use tidewire_protocol::{Channel, Cursor, Message, Reply, StreamToken};
use tidewire_websocket as websocket;

/// The bytes that a session's transport wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// WebSocket text frames of the subprotocol `tidewire.json`.
    WebSocketJson,
    /// Server-Sent Events, without ids: the stream has none, or writes its own.
    Sse(Style),
    /// Server-Sent Events of a stream with one stored channel, whose id all its clients share.
    SseWithId(Style),
    /// The bare `message` frame, for who collects them.
    Json,
}

impl Form {
    /// How many forms there are.
    pub const COUNT: usize = 8;

    /// A number below [`Form::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::WebSocketJson => 0,
            Self::Sse(style) => 1 + style as usize,
            Self::SseWithId(style) => 4 + style as usize,
            Self::Json => 7,
        }
    }

    /// The transport's name in metrics.
    #[must_use]
    pub const fn transport(self) -> Transport {
        match self {
            Self::WebSocketJson => Transport::WebSocket,
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

    /// The bytes in that form; whoever asks first makes them.
    pub fn bytes(&self, form: Form) -> &Bytes {
        self.forms[form.index()].get_or_init(|| match form {
            Form::WebSocketJson => websocket::encode_with(
                websocket::MessageKind::Text,
                self.message.payload.len() + 256,
                |out| {
                    self.message.write_json(&self.channel, out);
                },
            ),
            Form::Sse(style) => self.event(style, false),
            Form::SseWithId(style) => self.event(style, true),
            Form::Json => {
                let mut out = Vec::with_capacity(self.message.payload.len() + 256);
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

    fn event(&self, style: Style, with_id: bool) -> Bytes {
        let mut out = Vec::with_capacity(self.message.payload.len() + 256);
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
        Form::WebSocketJson => {
            websocket::encode_with(websocket::MessageKind::Text, 128, |out| reply.write_json(out))
        }
        Form::Sse(_) | Form::SseWithId(_) => {
            let mut out = Vec::new();
            sse::write_control(reply, &mut out);
            out.into()
        }
        Form::Json => Bytes::new(),
    }
}

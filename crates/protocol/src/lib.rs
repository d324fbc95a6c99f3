//! The words of Tidewire and their bytes, with no I/O.
//!
//! Channels, messages, error codes, the client's and the server's frames, Server-Sent Events and
//! what travels over Redis Pub/Sub. Every other crate calls it; it calls none of them and opens no
//! socket.

mod body;
mod channel;
mod code;
mod envelope;
mod fields;
mod frame;
mod hook;
mod message;
mod msgpack;
mod namespace;
mod place;
mod reply;
mod session;
pub mod sse;
mod subprotocol;
mod token;

pub use body::{BatchItem, BodyError, MAX_BATCH, Publication, batch, plain, request};
pub use channel::{Channel, ChannelError, MAX_CHANNEL_BYTES};
pub use code::Code;
pub use envelope::{
    EnvelopeError, MARKER, StoredFrame, decode as decode_envelope, decode_named, decode_stored,
    encode as encode_envelope, is_named, is_stored,
};
pub use fields::{MAX_NESTING, check_json};
pub use frame::{
    ClientFrame, FrameError, FrameId, MAX_FRAME_ID_BYTES, MAX_METHOD_BYTES, MAX_REWIND, Page,
    Request, Rewind, Secret,
};
pub use hook::{Hook, HookAnswer, HookCaller, HookSubject};
pub use message::{
    DEFAULT_EVENT, Event, EventError, MAX_EVENT_BYTES, MAX_MESSAGE_ID_BYTES, Message, MessageId,
    MessageIdError, Payload, Sender, Timestamp,
};
pub use namespace::{NamespaceRules, Namespaces, WhenSlow};
pub use place::{Cursor, CursorError, EntryId, Incarnation, MAX_CURSOR_BYTES, Stored};
pub use reply::{Acked, Pace, Reply, WelcomeChannel, Welcomed, write_page};
pub use session::SessionId;
pub use subprotocol::Subprotocol;
pub use token::StreamToken;

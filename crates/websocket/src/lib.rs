//! The server's half of the WebSocket protocol (RFC 6455) as bytes in and bytes out.
//!
//! Owns the frame format, the rules for what a client may send, and the arithmetic of the
//! handshake. The gateway's sessions and the hub's fan-out call it; it never touches a socket, a
//! clock, a runtime or anything else of Tidewire, so that it can be proved on its own: by
//! property tests at every split of the input, by fuzzing, and by a conformance suite over
//! `examples/echo.rs`.
//!
//! Two properties shape it:
//!
//! - **An idle connection owns no buffer.** The caller reads into a scratch buffer that many
//!   connections share and hands it to the connection's [`Decoder`], which unmasks in place and
//!   hands out slices of it. Only what is incomplete when the input ends is copied and kept.
//! - **A server frame is the same for every receiver.** Servers do not mask, so a message is
//!   encoded once, as [`bytes::Bytes`], and shared by all its subscribers. The same holds for
//!   its compressed form (permessage-deflate, RFC 7692): nothing is remembered from one message to
//!   the next, so what is compressed once fits every client that agreed to it.
//!
//! ```
//! use tidewire_websocket::{Decoder, Event, Input};
//!
//! let mut decoder = Decoder::new(64 * 1024);
//! // "Hello" as RFC 6455, section 5.7 masks it.
//! let mut scratch = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
//! let mut input = Input::new(&mut scratch);
//! assert_eq!(decoder.decode(&mut input), Ok(Some(Event::Text("Hello"))));
//! assert_eq!(decoder.decode(&mut input), Ok(None));
//! assert!(!decoder.has_partial());
//! ```

pub mod close_code;
mod decode;
mod deflate;
mod encode;
mod error;
mod extension;
mod handshake;
mod header;
mod input;
mod mask;
mod partial;

pub use decode::{Decoder, Event};
pub use deflate::deflate;
pub use encode::{
    MessageKind, close, close_empty, encode, encode_with, ping, pong, try_encode_with,
};
pub use error::DecodeError;
pub use extension::{Deflate, MalformedExtensions};
pub use handshake::{VERSION, accept_key, is_valid_key};
pub use input::Input;

/// The longest payload of a ping, pong or close frame, in bytes.
///
/// RFC 6455, section 5.5: "All control frames MUST have a payload length of 125 bytes or less and
/// MUST NOT be fragmented."
pub const MAX_CONTROL_PAYLOAD: usize = 125;

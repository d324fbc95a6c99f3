//! What a client can do wrong, one variant for each rule of RFC 6455 that it can break.
//!
//! Owns the mapping from a broken rule to the close code; the rules themselves are checked, with
//! the RFC's sentence, in `header`, `partial` and `decode`.

use crate::close_code;

/// The client broke the protocol and the connection must be failed.
///
/// Every variant means the same to the caller: send a close frame with
/// [`close_code`](Self::close_code), read nothing more, close the socket. The [`Decoder`] that
/// returned it discards whatever else it is given (section 7.1.7: "An endpoint MUST NOT continue
/// to attempt to process data (including a responding Close frame) from the remote endpoint after
/// being instructed to _Fail the WebSocket Connection_").
///
/// [`Decoder`]: crate::Decoder
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A reserved bit is set although no extension that defines it was negotiated.
    #[error("a reserved bit is set and no extension was negotiated")]
    ReservedBit,
    /// The opcode is one of those that the RFC keeps for later.
    #[error("opcode {0:#x} is reserved")]
    ReservedOpcode(u8),
    /// The frame is not masked.
    #[error("the frame is not masked")]
    Unmasked,
    /// A ping, pong or close frame is fragmented.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A ping, pong or close frame announces more than 125 bytes.
    #[error("a control frame is longer than 125 bytes")]
    OversizeControl,
    /// The payload length uses more bytes than it needs.
    #[error("the payload length is not encoded in the fewest bytes")]
    LengthNotMinimal,
    /// The 64-bit payload length has its most significant bit set.
    #[error("the payload length has its most significant bit set")]
    LengthOverflow,
    /// A continuation frame came although no message is under way.
    #[error("a continuation frame without a message to continue")]
    UnexpectedContinuation,
    /// A new message began before the fragmented one ended.
    #[error("a new message inside a fragmented one")]
    InterruptedMessage,
    /// The payload of a close frame is a single byte, half a code.
    #[error("a close frame with half a status code")]
    TruncatedCloseCode,
    /// The code in a close frame is one that must not be sent.
    #[error("close code {0} must not be sent")]
    InvalidCloseCode(u16),
    /// The reason in a close frame is not UTF-8.
    #[error("the close reason is not UTF-8")]
    InvalidCloseReason,
    /// A text message is not UTF-8.
    #[error("the text message is not UTF-8")]
    InvalidText,
    /// A compressed message is no DEFLATE data.
    #[error("the compressed message cannot be decompressed")]
    InvalidDeflate,
    /// The message, as its frame headers announce it or as it was decompressed, is longer than
    /// the limit.
    #[error("the message is longer than {limit} bytes")]
    TooBig {
        /// The limit that the decoder was made with, in bytes.
        limit: usize,
    },
}

impl DecodeError {
    /// The status code for the close frame that answers the error: 1002, 1007 or 1009.
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            // Section 8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that
            // the byte stream is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the
            // WebSocket Connection_"; section 7.4.1 gives 1007 for "non-UTF-8 data within a text
            // message". A reason is UTF-8 by section 5.5.1 and gets the same answer.
            // Broken compression is, likewise, "data within a message that was not consistent with
            // the type of the message"; RFC 7692 names no code.
            Self::InvalidText | Self::InvalidCloseReason | Self::InvalidDeflate => {
                close_code::INVALID_PAYLOAD
            }
            // Section 7.4.1: "1009 indicates that an endpoint is terminating the connection
            // because it has received a message that is too big for it to process."
            Self::TooBig { .. } => close_code::TOO_BIG,
            _ => close_code::PROTOCOL_ERROR,
        }
    }
}

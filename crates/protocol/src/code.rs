//! The one list of error codes, the same on every transport.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal;)*) => {
        /// What went wrong, as a client sees it: the `code` of an `error` frame, of a refused SSE
        /// channel and of an HTTP problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, in the order of the list; [`Code::index`] counts in it.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code as it is written on the wire and in metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
        }
    };
}

codes! {
    /// A WebSocket frame that is no frame of the protocol.
    BadFrame = "bad_frame", 400;
    /// An HTTP request that does not make sense.
    BadRequest = "bad_request", 400;
    /// The text is no channel name.
    BadChannel = "bad_channel", 400;
    /// The text is no cursor of this channel.
    BadCursor = "bad_cursor", 400;
    /// No credential, or one that is not valid.
    Unauthorized = "unauthorized", 401;
    /// A credential whose time is over.
    Expired = "expired", 401;
    /// A credential that does not reach that far, or an origin that is not allowed.
    Forbidden = "forbidden", 403;
    /// There is nothing at this path.
    NotFound = "not_found", 404;
    /// The path is there, but not for this method.
    MethodNotAllowed = "method_not_allowed", 405;
    /// The session is not subscribed to the channel.
    NotSubscribed = "not_subscribed", 409;
    /// The session is subscribed to the channel already.
    AlreadySubscribed = "already_subscribed", 409;
    /// The channel is live: it keeps no messages.
    NoHistory = "no_history", 409;
    /// The same messageId was published before with another body.
    Conflict = "conflict", 409;
    /// A message, frame or body over its limit.
    TooLarge = "too_large", 413;
    /// A content type or subprotocol that is not spoken here.
    UnsupportedType = "unsupported_type", 415;
    /// More often than the limit allows.
    TooFast = "too_fast", 429;
    /// More at the same time than the limit allows.
    TooMany = "too_many", 429;
    /// A fault of the gateway's own.
    Internal = "internal", 500;
    /// Certainly not done; trying again helps.
    Unavailable = "unavailable", 503;
    /// Outcome unknown; send it again with the same messageId.
    Timeout = "timeout", 504;
}

impl Code {
    /// Its place in [`Code::ALL`], for tables of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_counts_in_the_list() {
        for (i, code) in Code::ALL.iter().enumerate() {
            assert_eq!(code.index(), i);
        }
    }
}

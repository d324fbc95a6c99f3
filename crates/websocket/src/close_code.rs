//! The close codes of RFC 6455, section 7.4, and of the IANA registry that goes with it.
//!
//! Owns their numbers and the rule for which of them may stand in a frame. The codes that Tidewire
//! defines for itself (4000 and up) belong to the protocol crate.

/// The purpose of the connection is fulfilled.
pub const NORMAL: u16 = 1000;
/// An endpoint goes away: a server stops, a browser leaves the page.
pub const GOING_AWAY: u16 = 1001;
/// The peer broke the protocol.
pub const PROTOCOL_ERROR: u16 = 1002;
/// The peer sent a kind of data that cannot be accepted.
pub const UNSUPPORTED_DATA: u16 = 1003;
/// The data does not fit the kind of the message: text that is not UTF-8.
pub const INVALID_PAYLOAD: u16 = 1007;
/// A policy of the endpoint forbids the message, and no other code fits.
pub const POLICY_VIOLATION: u16 = 1008;
/// The message is too big to be processed.
pub const TOO_BIG: u16 = 1009;
/// The server met a condition that it did not expect.
pub const INTERNAL_ERROR: u16 = 1011;
/// The service restarts; the client may come back (IANA registry).
pub const SERVICE_RESTART: u16 = 1012;
/// The server is overloaded; the client should try later (IANA registry).
pub const TRY_AGAIN_LATER: u16 = 1013;

/// Whether `code` may stand in a close frame.
///
/// Section 7.4.1 says of 1005, 1006 and 1015 that each "is a reserved value and MUST NOT be set as
/// a status code in a Close control frame by an endpoint", and 1004 is reserved without a meaning.
/// Section 7.4.2: "Status codes in the range 0-999 are not used"; 1000-2999 "are reserved for
/// definition by this protocol", which leaves those that the registry holds today; 3000-3999 are
/// registered by libraries and 4000-4999 are private. Nothing is defined from 5000 on.
#[must_use]
pub fn is_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn codes_at_every_edge() {
        for code in [1000, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999] {
            assert!(is_valid(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert!(!is_valid(code), "{code}");
        }
    }
}

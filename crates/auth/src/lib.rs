//! Who may do what: tokens, keys, patterns and the namespaces' rules.
//!
//! The gateway hands over what a client showed (a JWT or an API key) and gets an [`Identity`] or
//! an [`AuthError`] back; with the identity it asks the [`Policy`] about each channel. Nothing here
//! opens a socket, reads a file or logs: key documents that come from elsewhere are handed in, and
//! secrets never show in `Debug`.

mod api_key;
mod authenticator;
mod claims;
mod error;
mod identity;
mod jwt;
mod keys;
mod pattern;
mod policy;
mod token;

#[cfg(test)]
mod tests;

pub use api_key::{ApiKeyError, ApiKeySecret, ApiKeySpec, MIN_API_KEY_BYTES, Verb, Verbs};
pub use authenticator::Authenticator;
pub use claims::{MAX_INFO_BYTES, MAX_SUB_BYTES};
pub use error::AuthError;
pub use identity::{Identity, Who};
pub use jwt::{Jwt, JwtSettings, MAX_TOKEN_BYTES};
pub use keys::{HmacAlgorithm, KeyError, KeySet, MAX_KEYS};
pub use pattern::{Pattern, PatternError, Patterns};
pub use policy::{Access, Denied, Policy, Rules};
pub use token::{TokenRequest, mint};

/// Seconds since 1970 by this machine's clock.
#[must_use]
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

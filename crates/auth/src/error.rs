//! Why a credential is not taken.

use thiserror::Error;
use tidewire_protocol::Code;

/// Why a credential is not taken. The texts are for the client: they name claims, never the
/// credential or a key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthError {
    /// Nothing was shown where something must be.
    #[error("a credential is needed here: a token or an API key")]
    Missing,
    /// Neither an API key nor the form of a JWT.
    #[error("the credential is neither a known API key nor a JWT")]
    Malformed,
    /// Over [`crate::MAX_TOKEN_BYTES`].
    #[error("a token of at most {} bytes is allowed", crate::MAX_TOKEN_BYTES)]
    TooLong,
    /// No key of this gateway has the token's `kid` and algorithm. Newer keys may.
    #[error("the token is signed by a key that is not known here")]
    UnknownKey,
    /// The keys are to come from elsewhere and have not come yet: certainly not decided.
    #[error("the keys that verify tokens cannot be had now; try again")]
    NoKeys,
    /// No key verifies the signature.
    #[error("the token's signature is not valid")]
    Signature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the token is not valid yet (nbf)")]
    TooEarly,
    /// Another issuer made it.
    #[error("the token is not of the issuer that is accepted here (iss)")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is not for this gateway (aud)")]
    Audience,
    /// A claim is missing or makes no sense; says which.
    #[error("the token's claims: {0}")]
    Claims(String),
}

impl AuthError {
    /// The code for the client.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Expired => Code::Expired,
            Self::NoKeys => Code::Unavailable,
            _ => Code::Unauthorized,
        }
    }
}

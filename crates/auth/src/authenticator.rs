//! What a client shows, and who it is.

use std::sync::Arc;

use crate::api_key::{ApiKeyError, ApiKeySpec, ApiKeys};
use crate::error::AuthError;
use crate::identity::Identity;
use crate::jwt::Jwt;

/// Tells who a client is by what it shows.
#[derive(Debug)]
pub struct Authenticator {
    open: bool,
    keys: ApiKeys,
    jwt: Option<Jwt>,
}

impl Authenticator {
    /// With these ways to log in; `open` lets who shows nothing in, as nobody in particular.
    ///
    /// # Errors
    /// When an API key is not good.
    pub fn new(open: bool, keys: &[ApiKeySpec], jwt: Option<Jwt>) -> Result<Self, ApiKeyError> {
        Ok(Self { open, keys: ApiKeys::new(keys)?, jwt })
    }

    /// Where everybody is let in and nobody can log in.
    #[must_use]
    pub fn open() -> Self {
        Self { open: true, keys: ApiKeys::default(), jwt: None }
    }

    /// Whether who shows nothing is let in.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Whether there is any way to log in.
    #[must_use]
    pub fn has_logins(&self) -> bool {
        self.jwt.is_some() || !self.keys.is_empty()
    }

    /// What verifies tokens, for who brings it keys.
    #[must_use]
    pub const fn jwt(&self) -> Option<&Jwt> {
        self.jwt.as_ref()
    }

    /// Who shows this, at that time in seconds since 1970: an API key or else a JWT.
    ///
    /// # Errors
    /// As [`Jwt::verify`].
    pub fn authenticate(&self, credential: &str, now: u64) -> Result<Arc<Identity>, AuthError> {
        if let Some(identity) = self.keys.find(credential) {
            return Ok(identity);
        }
        match &self.jwt {
            Some(jwt) => jwt.verify(credential, now).map(Arc::new),
            None => Err(AuthError::Malformed),
        }
    }
}

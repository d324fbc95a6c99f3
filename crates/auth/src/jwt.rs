//! Verifying a JWT: which key, its signature, then what it says.

use std::sync::{Arc, PoisonError, RwLock};

use jsonwebtoken::errors::ErrorKind;

use crate::claims::Claims;
use crate::error::AuthError;
use crate::identity::Identity;
use crate::keys::KeySet;

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;

/// What a token must be like besides its signature.
#[derive(Debug, Clone, Default)]
pub struct JwtSettings {
    /// `iss` must be this.
    pub issuer: Option<String>,
    /// `aud` must be or hold this. Without it, a token that is for an audience is refused.
    pub audience: Option<String>,
    /// By how many seconds clocks may differ.
    pub leeway: u64,
}

/// Verifies tokens with fixed keys and with those of a JWK Set that is brought from time to time.
#[derive(Debug)]
pub struct Jwt {
    settings: JwtSettings,
    fixed: KeySet,
    /// Absent inside: none was brought yet. Locked for the time of a clone.
    brought: Option<RwLock<Option<Arc<KeySet>>>>,
}

impl Jwt {
    /// With these keys; `brings` says that more are to come by [`Jwt::bring`].
    #[must_use]
    pub fn new(settings: JwtSettings, fixed: KeySet, brings: bool) -> Self {
        Self { settings, fixed, brought: brings.then(RwLock::default) }
    }

    /// Replaces the keys that were brought before.
    pub fn bring(&self, keys: KeySet) {
        if let Some(brought) = &self.brought {
            // A panic cannot leave half a pointer.
            *brought.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
        }
    }

    /// Whether keys are to be brought and none were.
    #[must_use]
    pub fn waits_for_keys(&self) -> bool {
        self.brought.is_some() && self.brought_keys().is_none()
    }

    fn brought_keys(&self) -> Option<Arc<KeySet>> {
        self.brought.as_ref()?.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whose token it is, at that time in seconds since 1970.
    ///
    /// # Errors
    /// Why it is not valid. After [`AuthError::UnknownKey`] and [`AuthError::NoKeys`] newer keys
    /// may change that.
    pub fn verify(&self, token: &str, now: u64) -> Result<Identity, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::TooLong);
        }
        // It fails also for `alg: none` and whatever else is no algorithm of a signature.
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        // What must be understood is not (RFC 7515, section 4.1.11).
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let brought = self.brought_keys();
        let fixed = self.fixed.0.iter().map(|key| (key, false));
        let keys = fixed.chain(brought.iter().flat_map(|set| &set.0).map(|key| (key, true)));
        let mut outcome = Err(AuthError::UnknownKey);
        // Whether a key was tried for want of a name that would tell it from one that is newer.
        let mut may_be_newer = false;
        for (key, is_brought) in keys.filter(|(key, _)| key.fits(header.kid.as_deref(), header.alg))
        {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation) {
                Ok(data) => return data.claims.identity(&self.settings, now),
                // The signature was good, what is signed is not.
                Err(error) if matches!(error.kind(), ErrorKind::Json(_) | ErrorKind::Utf8(_)) => {
                    return Err(AuthError::Claims("a claim has the wrong type".to_owned()));
                }
                Err(_) => {
                    may_be_newer |= is_brought && !(key.is_named() && header.kid.is_some());
                    outcome = Err(AuthError::Signature);
                }
            }
        }
        if self.waits_for_keys() {
            return Err(AuthError::NoKeys);
        }
        if may_be_newer {
            return Err(AuthError::UnknownKey);
        }
        outcome
    }
}

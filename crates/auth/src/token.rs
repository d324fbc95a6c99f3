//! Making a token, for trying things out and for tests.

use jsonwebtoken::{EncodingKey, Header};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use crate::keys::{HmacAlgorithm, KeyError};

/// What a token shall say.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    /// The user.
    pub sub: String,
    /// Patterns to subscribe to.
    pub subscribe: Vec<String>,
    /// Patterns to publish to.
    pub publish: Vec<String>,
    /// Channels that a stream is subscribed to at once.
    pub channels: Vec<String>,
    /// What others may know of the user.
    pub info: Option<Value>,
    /// `iss`.
    pub issuer: Option<String>,
    /// `aud`.
    pub audience: Option<String>,
    /// `iat`, in seconds since 1970.
    pub issued: u64,
    /// `exp`, in seconds since 1970.
    pub expires: u64,
}

/// Makes a token signed with a shared secret.
///
/// # Errors
/// When the secret is too short for the algorithm.
pub fn mint(
    request: &TokenRequest,
    secret: &SecretString,
    algorithm: HmacAlgorithm,
) -> Result<String, KeyError> {
    let short = KeyError::ShortSecret(algorithm);
    let bytes = secret.expose_secret().as_bytes();
    if bytes.len() < algorithm.min_bytes() {
        return Err(short);
    }
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), request.sub.as_str().into());
    let lists = [
        ("subscribe", &request.subscribe),
        ("publish", &request.publish),
        ("channels", &request.channels),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        claims.insert(name.to_owned(), list.clone().into());
    }
    if let Some(info) = &request.info {
        claims.insert("info".to_owned(), info.clone());
    }
    for (name, text) in [("iss", &request.issuer), ("aud", &request.audience)] {
        if let Some(text) = text {
            claims.insert(name.to_owned(), text.as_str().into());
        }
    }
    claims.insert("iat".to_owned(), request.issued.into());
    claims.insert("exp".to_owned(), request.expires.into());
    let header = Header::new(algorithm.algorithm());
    // A secret signs anything; there is no other way to fail.
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(bytes)).map_err(|_| short)
}

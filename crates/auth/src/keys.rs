//! The keys that verify tokens. Each is bound to one algorithm when it is read; a token chooses
//! among keys, never how one is used (RFC 8725, sections 3.1 and 3.2).

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use thiserror::Error;

/// The most keys of one source: a token without a `kid` is tried with all of its algorithm.
pub const MAX_KEYS: usize = 32;
/// The shortest and longest RSA modulus, in bytes: 2,048 to 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

/// The algorithm that a shared secret is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

impl HmacAlgorithm {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Hs256, Self::Hs384, Self::Hs512];

    /// As tokens and the configuration write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    /// The shortest secret, in bytes: as long as the hash (RFC 7518, section 3.2).
    #[must_use]
    pub const fn min_bytes(self) -> usize {
        match self {
            Self::Hs256 => 32,
            Self::Hs384 => 48,
            Self::Hs512 => 64,
        }
    }

    pub(crate) const fn algorithm(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Hs384 => Algorithm::HS384,
            Self::Hs512 => Algorithm::HS512,
        }
    }
}

/// Why keys are not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// A secret that could be guessed.
    #[error("the secret is too short: {} needs at least {} bytes", .0.as_str(), .0.min_bytes())]
    ShortSecret(HmacAlgorithm),
    /// A file that holds what must not be there.
    #[error("it holds a private key; give the public one (openssl pkey -in KEY -pubout)")]
    Private,
    /// No usable key in the file.
    #[error(
        "it must hold public keys in PEM form (BEGIN PUBLIC KEY): RSA of 2048 to 8192 bits, \
         P-256, or Ed25519"
    )]
    Pem,
    /// No JWK Set (RFC 7517, section 5).
    #[error("it is no JSON Web Key Set: {0}")]
    NotJwks(String),
    /// A JWK Set without a key that serves.
    #[error("it has no key that can verify RS256, ES256 or EdDSA signatures")]
    NoneUsable,
    /// Over [`MAX_KEYS`].
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
}

/// One key with the one algorithm that it is for.
#[derive(Clone)]
pub(crate) struct Key {
    kid: Option<Box<str>>,
    pub(crate) key: DecodingKey,
    /// Only the signature and the algorithm are left to the library; the claims are checked here.
    pub(crate) validation: Validation,
    algorithm: Algorithm,
}

impl Key {
    fn new(kid: Option<&str>, algorithm: Algorithm, key: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { kid: kid.map(Into::into), key, validation, algorithm }
    }

    /// Whether it has a name.
    pub(crate) const fn is_named(&self) -> bool {
        self.kid.is_some()
    }

    /// Whether a token with this `kid` and algorithm may have been signed by it. A key without a
    /// name may have signed any of its algorithm.
    pub(crate) fn fits(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        let same_name = match (&self.kid, kid) {
            (Some(own), Some(kid)) => **own == *kid,
            _ => true,
        };
        same_name && self.algorithm == algorithm
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({:?})", self.algorithm, self.kid)
    }
}

/// Some keys of one source.
#[derive(Debug, Clone, Default)]
pub struct KeySet(pub(crate) Vec<Key>);

impl KeySet {
    /// A shared secret.
    ///
    /// # Errors
    /// When it is too short for its algorithm.
    pub fn of_secret(secret: &SecretString, algorithm: HmacAlgorithm) -> Result<Self, KeyError> {
        let bytes = secret.expose_secret().as_bytes();
        if bytes.len() < algorithm.min_bytes() {
            return Err(KeyError::ShortSecret(algorithm));
        }
        let key = DecodingKey::from_secret(bytes);
        Ok(Self(vec![Key::new(None, algorithm.algorithm(), key)]))
    }

    /// Public keys in PEM form, one or several behind each other. What each is tells its
    /// algorithm: RSA is for RS256, P-256 for ES256, Ed25519 for EdDSA.
    ///
    /// # Errors
    /// When it holds anything else, above all private keys.
    pub fn of_pem(text: &str) -> Result<Self, KeyError> {
        const BEGIN: &str = "-----BEGIN ";
        let blocks: Vec<_> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
        if blocks.len() > MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        let mut keys = Vec::with_capacity(blocks.len());
        for (n, at) in blocks.iter().enumerate() {
            let end = blocks.get(n + 1).copied().unwrap_or(text.len());
            let block = &text[*at..end];
            let label = block[BEGIN.len()..].split("-----").next().unwrap_or_default();
            keys.push(match label {
                "PUBLIC KEY" | "RSA PUBLIC KEY" => pem_key(block.as_bytes())?,
                _ if label.contains("PRIVATE") => return Err(KeyError::Private),
                _ => return Err(KeyError::Pem),
            });
        }
        if keys.is_empty() { Err(KeyError::Pem) } else { Ok(Self(keys)) }
    }

    /// The keys of a JWK Set (RFC 7517) that can verify what is accepted here. Others are passed
    /// over, as its section 5 asks for, and so are shared secrets: one that is published is none.
    ///
    /// # Errors
    /// When it is no such document or has no such key.
    pub fn of_jwks(document: &[u8]) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Jwks {
            keys: Vec<serde_json::Value>,
        }
        let jwks: Jwks = serde_json::from_slice(document).map_err(|e| {
            // Its place, not its text.
            KeyError::NotJwks(format!("line {}, column {}", e.line(), e.column()))
        })?;
        if jwks.keys.len() > MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        let read = |value| serde_json::from_value::<Jwk>(value).ok().and_then(|jwk| jwk.key());
        let keys: Vec<_> = jwks.keys.into_iter().filter_map(read).collect();
        if keys.is_empty() { Err(KeyError::NoneUsable) } else { Ok(Self(keys)) }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the keys of another source in.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

fn pem_key(block: &[u8]) -> Result<Key, KeyError> {
    let good = |key: &DecodingKey, algorithm| match key.try_get_as_bytes() {
        Ok(bytes) => is_key(bytes, algorithm),
        Err(_) => false,
    };
    type Reader = fn(&[u8]) -> Result<DecodingKey, jsonwebtoken::errors::Error>;
    let readers: [(Algorithm, Reader); 3] = [
        (Algorithm::EdDSA, DecodingKey::from_ed_pem),
        (Algorithm::ES256, DecodingKey::from_ec_pem),
        (Algorithm::RS256, DecodingKey::from_rsa_pem),
    ];
    readers
        .into_iter()
        .find_map(|(algorithm, read)| Some((algorithm, read(block).ok()?)))
        .filter(|(algorithm, key)| good(key, *algorithm))
        .map(|(algorithm, key)| Key::new(None, algorithm, key))
        .ok_or(KeyError::Pem)
}

/// Whether the bytes are a public key for the algorithm, on its curve and of its length.
fn is_key(bytes: &[u8], algorithm: Algorithm) -> bool {
    match algorithm {
        Algorithm::RS256 => ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, bytes).is_ok(),
        Algorithm::ES256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes).is_ok(),
        Algorithm::EdDSA => ParsedPublicKey::new(&ED25519, bytes).is_ok(),
        _ => false,
    }
}

/// A key of a JWK Set, as far as it is looked at (RFC 7518, section 6; RFC 8037, section 2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// The key, if it is one that serves.
    fn key(&self) -> Option<Key> {
        let signs = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let verifies = self.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !signs || !verifies {
            return None;
        }
        let (algorithm, key) = match (&*self.kty, self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (bytes(self.n.as_ref()?)?, bytes(self.e.as_ref()?)?);
                if !RSA_BYTES.contains(&n.len()) || e.is_empty() {
                    return None;
                }
                (Algorithm::RS256, DecodingKey::from_rsa_raw_components(&n, &e))
            }
            ("EC", Some("P-256")) => {
                // An uncompressed point (SEC 1, section 2.3.3).
                let mut point = vec![4];
                point.extend(bytes(self.x.as_ref()?)?);
                point.extend(bytes(self.y.as_ref()?)?);
                is_key(&point, Algorithm::ES256)
                    .then(|| (Algorithm::ES256, DecodingKey::from_ec_der(&point)))?
            }
            ("OKP", Some("Ed25519")) => {
                let x = bytes(self.x.as_ref()?)?;
                is_key(&x, Algorithm::EdDSA)
                    .then(|| (Algorithm::EdDSA, DecodingKey::from_ed_der(&x)))?
            }
            _ => return None,
        };
        let named = match self.alg.as_deref() {
            None => true,
            Some("RS256") => algorithm == Algorithm::RS256,
            Some("ES256") => algorithm == Algorithm::ES256,
            // RFC 9864 has given EdDSA with this curve a name of its own.
            Some("EdDSA" | "Ed25519") => algorithm == Algorithm::EdDSA,
            Some(_) => false,
        };
        named.then(|| Key::new(self.kid.as_deref(), algorithm, key))
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

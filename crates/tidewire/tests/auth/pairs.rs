//! Pairs of keys that sign tokens.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A key pair of an identity provider, made for the test.
pub(super) struct Pair {
    pub(super) key: EncodingKey,
    pub(super) algorithm: Algorithm,
    pub(super) pem: String,
    pub(super) jwk: Value,
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

pub(super) fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    Pair {
        key: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap(),
        algorithm: Algorithm::RS256,
        pem: pem("PUBLIC KEY", public.as_ref()),
        jwk: Value::Null,
    }
}

pub(super) fn ed(kid: &str) -> Pair {
    let private = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    Pair {
        key: EncodingKey::from_ed_der(private.as_ref()),
        algorithm: Algorithm::EdDSA,
        pem: String::new(),
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}),
    }
}

impl Pair {
    pub(super) fn token(&self) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.jwk["kid"].as_str().map(str::to_owned);
        let claims = json!({"sub": "alice", "exp": 4_000_000_000_u64, "subscribe": ["*"]});
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

//! Tokens as attackers and identity providers make them.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use secrecy::SecretString;
use serde_json::{Value, json};
use tidewire_protocol::Channel;

use crate::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn secret() -> SecretString {
    SECRET.to_owned().into()
}

fn claims() -> Value {
    json!({"sub": "alice", "exp": NOW + 60, "subscribe": ["room:*", "inbox:{sub}"],
           "publish": ["room:42"], "channels": ["news", "inbox:{sub}"], "info": {"name": "A"}})
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn verifier(settings: JwtSettings) -> Jwt {
    Jwt::new(settings, KeySet::of_secret(&secret(), HmacAlgorithm::Hs256).unwrap(), false)
}

fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    jsonwebtoken::encode(header, claims, key).unwrap()
}

fn hs256(claims: &Value) -> String {
    sign(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes()))
}

fn verify(claims: &Value) -> Result<Identity, AuthError> {
    verifier(JwtSettings { leeway: 10, ..JwtSettings::default() }).verify(&hs256(claims), NOW)
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<_> =
        body.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A pair: how the private half signs, the public one as PEM.
struct Pair {
    key: EncodingKey,
    algorithm: Algorithm,
    private: Vec<u8>,
    public: String,
    jwk: Value,
}

fn rsa() -> Pair {
    // Made once: it takes a second.
    static PAIR: std::sync::LazyLock<[Vec<u8>; 4]> = std::sync::LazyLock::new(|| {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        let n = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
        let e = pair.public_key().exponent().big_endian_without_leading_zero().to_vec();
        [private.as_ref().to_vec(), public.as_ref().to_vec(), n, e]
    });
    let [private, public, n, e] = &*PAIR;
    Pair {
        key: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private).as_bytes()).unwrap(),
        algorithm: Algorithm::RS256,
        private: private.clone(),
        public: pem("PUBLIC KEY", public),
        jwk: json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)}),
    }
}

fn ec() -> Pair {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let private = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    Pair {
        key: EncodingKey::from_ec_der(&private),
        algorithm: Algorithm::ES256,
        private,
        public: pem("PUBLIC KEY", public.as_ref()),
        jwk: json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "alg": "ES256", "use": "sig"}),
    }
}

fn ed() -> Pair {
    let private = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    Pair {
        key: EncodingKey::from_ed_der(private.as_ref()),
        algorithm: Algorithm::EdDSA,
        private: private.as_ref().to_vec(),
        public: pem("PUBLIC KEY", public.as_ref()),
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}),
    }
}

impl Pair {
    fn token(&self, kid: Option<&str>) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = kid.map(str::to_owned);
        sign(&header, &claims(), &self.key)
    }

    fn verifier(&self) -> Jwt {
        Jwt::new(JwtSettings::default(), KeySet::of_pem(&self.public).unwrap(), false)
    }
}

#[test]
fn a_good_token_is_its_user() {
    let identity = verify(&claims()).unwrap();
    assert_eq!(identity.user(), Some("alice"));
    assert_eq!(identity.expires, Some(NOW + 70));
    assert_eq!(identity.info.as_ref().unwrap().get(), r#"{"name":"A"}"#);
    let names: Vec<_> = identity.channels.iter().map(Channel::as_str).collect();
    assert_eq!(names, ["news", "inbox:alice"]);
    let at = |name: &str| Channel::new(name).unwrap();
    assert!(
        identity.subscribe.cover(&at("room:7")) && identity.subscribe.cover(&at("inbox:alice"))
    );
    assert!(identity.subscribe.cover(&at("news")) && !identity.publish.cover(&at("news")));
    assert!(!identity.subscribe.cover(&at("inbox:bob")) && !identity.publish.cover(&at("room:7")));
    assert!(!identity.has_expired(NOW + 69) && identity.has_expired(NOW + 70));
}

/// So many lists, each in the next.
fn nested(deep: usize) -> Value {
    (1..deep).fold(json!([]), |inner, _| json!([inner]))
}

#[test]
fn claims_are_checked() {
    let claims_error = |text: &str| AuthError::Claims(text.to_owned());
    for (changes, error) in [
        (json!({"exp": NOW - 11}), AuthError::Expired),
        (json!({"exp": NOW - 10}), AuthError::Expired),
        (json!({"exp": -5}), AuthError::Expired),
        (json!({"exp": null}), claims_error("'exp' is missing")),
        (json!({"exp": "never"}), claims_error("a claim has the wrong type")),
        (json!({"nbf": NOW + 11}), AuthError::TooEarly),
        (json!({"nbf": "x"}), claims_error("a claim has the wrong type")),
        (json!({"sub": null}), claims_error("'sub' is missing")),
        (json!({"sub": 7}), claims_error("a claim has the wrong type")),
        (json!({"aud": "other"}), AuthError::Audience),
        (json!({"aud": []}), AuthError::Audience),
        (json!({"subscribe": "room:*"}), claims_error("a claim has the wrong type")),
    ] {
        assert_eq!(verify(&with(changes.clone())).unwrap_err(), error, "{changes}");
    }
    for changes in [
        json!({"sub": ""}),
        json!({"sub": "x".repeat(129)}),
        json!({"sub": "a\nb"}),
        json!({"subscribe": ["a*b"]}),
        json!({"publish": ["{user}"]}),
        json!({"channels": ["a b"]}),
        json!({"info": "x".repeat(1_024)}),
        json!({"info": nested(129)}),
        // Milliseconds: it would hold for ever.
        json!({"exp": NOW * 1_000}),
        json!({"exp": 1e300}),
    ] {
        assert!(matches!(verify(&with(changes.clone())), Err(AuthError::Claims(_))), "{changes}");
    }
    for changes in [
        json!({"exp": NOW - 9}),
        json!({"exp": NOW as f64 + 0.5}),
        json!({"exp": 1e11}),
        json!({"info": nested(128)}),
        json!({"nbf": NOW + 10}),
        json!({"info": null}),
        json!({"unknown": {"a": 1}}),
    ] {
        assert!(verify(&with(changes.clone())).is_ok(), "{changes}");
    }
    let twice = format!(r#"{{"sub":"alice","sub":"bob","exp":{}}}"#, NOW + 60);
    let body = URL_SAFE_NO_PAD.encode(twice);
    let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let signed = format!("{head}.{body}");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
    let verified = verifier(JwtSettings::default()).verify(&format!("{signed}.{signature}"), NOW);
    assert!(matches!(verified, Err(AuthError::Claims(_))), "{verified:?}");
}

#[test]
fn issuer_and_audience_are_asked_for() {
    let settings = JwtSettings {
        issuer: Some("https://id.example".into()),
        audience: Some("tidewire".into()),
        leeway: 0,
    };
    let jwt = verifier(settings);
    let verify = |iss: Value, aud: Value| {
        jwt.verify(&hs256(&with(json!({"iss": iss, "aud": aud}))), NOW).err()
    };
    let iss = || json!("https://id.example");
    assert_eq!(verify(iss(), json!("tidewire")), None);
    assert_eq!(verify(iss(), json!(["x", "tidewire"])), None);
    assert_eq!(verify(json!("https://id.example/"), json!("tidewire")), Some(AuthError::Issuer));
    assert_eq!(verify(Value::Null, json!("tidewire")), Some(AuthError::Issuer));
    assert_eq!(verify(iss(), json!("x")), Some(AuthError::Audience));
    assert_eq!(verify(iss(), Value::Null), Some(AuthError::Audience));
}

#[test]
fn every_kind_of_key_verifies_its_own_tokens_alone() {
    let pairs = [rsa(), ec(), ed()];
    for (n, pair) in pairs.iter().enumerate() {
        for (m, other) in pairs.iter().enumerate() {
            let verified = pair.verifier().verify(&other.token(None), NOW);
            assert_eq!(verified.is_ok(), n == m, "{n} {m}: {verified:?}");
        }
        let again = [rsa, ec, ed][n]();
        // Another key of the same kind (the RSA pair is made once, to save time).
        if n > 0 {
            let verified = pair.verifier().verify(&again.token(None), NOW);
            assert_eq!(verified.unwrap_err(), AuthError::Signature);
        }
    }
    for algorithm in HmacAlgorithm::ALL {
        let long: SecretString = "x".repeat(64).into();
        let request = TokenRequest { sub: "a".into(), expires: NOW + 1, ..TokenRequest::default() };
        let token = mint(&request, &long, algorithm).unwrap();
        for verifies in HmacAlgorithm::ALL {
            let keys = KeySet::of_secret(&long, verifies).unwrap();
            let verified = Jwt::new(JwtSettings::default(), keys, false).verify(&token, NOW);
            assert_eq!(verified.is_ok(), algorithm == verifies);
        }
    }
}

/// The classic: the attacker takes the public key, which is public, for an HMAC secret.
#[test]
fn a_public_key_is_no_secret() {
    for pair in [rsa(), ec(), ed()] {
        let der = pair.public.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        let der = STANDARD.decode(der).unwrap();
        for secret in [pair.public.as_bytes(), pair.public.trim_end().as_bytes(), &der] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let key = EncodingKey::from_secret(secret);
                let token = sign(&Header::new(algorithm), &claims(), &key);
                assert_eq!(pair.verifier().verify(&token, NOW).unwrap_err(), AuthError::UnknownKey);
            }
        }
    }
}

#[test]
fn a_token_without_a_signature_is_none() {
    let body = URL_SAFE_NO_PAD.encode(claims().to_string());
    for alg in ["none", "None", "NONE", "nOnE", "", "HS256", "RS1"] {
        let head = URL_SAFE_NO_PAD.encode(json!({"typ": "JWT", "alg": alg}).to_string());
        for token in
            [format!("{head}.{body}."), format!("{head}.{body}"), format!("{head}.{body}.AA")]
        {
            let verified = verifier(JwtSettings::default()).verify(&token, NOW);
            assert!(verified.is_err(), "{token}");
        }
    }
}

/// A key that the token brings along, or an extension that must be understood.
#[test]
fn headers_decide_nothing() {
    let stranger = ec();
    let mut header = Header::new(Algorithm::ES256);
    header.jwk = serde_json::from_value(stranger.jwk.clone()).ok();
    header.jku = Some("https://evil.example/jwks.json".to_owned());
    assert!(header.jwk.is_some());
    let token = sign(&header, &claims(), &stranger.key);
    assert_eq!(ec().verifier().verify(&token, NOW).unwrap_err(), AuthError::Signature);
    let header = Header { crit: Some(vec!["b64".to_owned()]), ..Header::default() };
    let token = sign(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes()));
    let verified = verifier(JwtSettings::default()).verify(&token, NOW);
    assert_eq!(verified.unwrap_err(), AuthError::Malformed);
}

#[test]
fn several_keys_at_once() {
    let (old, new) = (ed(), ed());
    let both = KeySet::of_pem(&format!("{}\n{}", old.public, new.public)).unwrap();
    assert_eq!(both.len(), 2);
    let jwt = Jwt::new(JwtSettings::default(), both, false);
    assert!(jwt.verify(&old.token(None), NOW).is_ok());
    assert!(jwt.verify(&new.token(Some("whatever")), NOW).is_ok());
}

#[test]
fn pem_files_that_are_refused() {
    let pair = rsa();
    let refused = |text: &str| KeySet::of_pem(text).unwrap_err();
    assert_eq!(refused(&pem("PRIVATE KEY", &pair.private)), KeyError::Private);
    assert_eq!(refused(&pem("RSA PRIVATE KEY", &pair.private)), KeyError::Private);
    assert_eq!(refused(&pem("EC PRIVATE KEY", &ec().private)), KeyError::Private);
    assert_eq!(refused(&pem("PUBLIC KEY", &pair.private[..40])), KeyError::Pem);
    assert_eq!(refused(""), KeyError::Pem);
    assert_eq!(refused("hello"), KeyError::Pem);
    // A curve that no accepted algorithm is for.
    let other = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let public: PublicKeyX509Der<'_> = other.public_key().as_der().unwrap();
    assert_eq!(refused(&pem("PUBLIC KEY", public.as_ref())), KeyError::Pem);
    let short = KeySet::of_secret(&"x".repeat(31).into(), HmacAlgorithm::Hs256).unwrap_err();
    assert_eq!(short, KeyError::ShortSecret(HmacAlgorithm::Hs256));
}

fn jwks(keys: &[Value]) -> Result<KeySet, KeyError> {
    KeySet::of_jwks(json!({ "keys": keys }).to_string().as_bytes())
}

#[test]
fn a_jwk_set_is_brought_and_replaced() {
    let jwt = Jwt::new(JwtSettings::default(), KeySet::default(), true);
    let (one, two) = (ec(), rsa());
    assert!(jwt.waits_for_keys());
    assert_eq!(jwt.verify(&one.token(Some("1")), NOW).unwrap_err(), AuthError::NoKeys);
    let named = |pair: &Pair, kid: &str| {
        let mut jwk = pair.jwk.clone();
        jwk["kid"] = kid.into();
        jwk
    };
    jwt.bring(jwks(&[named(&one, "1")]).unwrap());
    assert!(jwt.verify(&one.token(Some("1")), NOW).is_ok());
    assert!(jwt.verify(&one.token(None), NOW).is_ok());
    assert_eq!(jwt.verify(&one.token(Some("2")), NOW).unwrap_err(), AuthError::UnknownKey);
    assert_eq!(jwt.verify(&two.token(Some("2")), NOW).unwrap_err(), AuthError::UnknownKey);
    // A name that is known was not changed; where one is missing, newer keys may be meant.
    let same = |kid| ec().token(kid);
    assert_eq!(jwt.verify(&same(Some("1")), NOW).unwrap_err(), AuthError::Signature);
    assert_eq!(jwt.verify(&same(None), NOW).unwrap_err(), AuthError::UnknownKey);
    jwt.bring(jwks(std::slice::from_ref(&one.jwk)).unwrap());
    assert!(jwt.verify(&one.token(Some("1")), NOW).is_ok());
    assert_eq!(jwt.verify(&same(Some("1")), NOW).unwrap_err(), AuthError::UnknownKey);
    jwt.bring(jwks(&[named(&two, "2"), named(&ed(), "3")]).unwrap());
    assert!(jwt.verify(&two.token(Some("2")), NOW).is_ok());
    assert_eq!(jwt.verify(&one.token(Some("1")), NOW).unwrap_err(), AuthError::UnknownKey);
}

#[test]
fn keys_of_a_set_that_do_not_serve_are_passed_over() {
    let good = ed().jwk;
    let mut encrypts = ec().jwk;
    encrypts["use"] = "enc".into();
    let mut wrong_algorithm = ec().jwk;
    wrong_algorithm["alg"] = "RS256".into();
    let mut signs_only = ed().jwk;
    signs_only["key_ops"] = json!(["sign"]);
    let secret = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET), "alg": "HS256"});
    let small = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([255; 128]), "e": "AQAB"});
    let off_curve = json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"});
    let bad =
        [encrypts, wrong_algorithm, signs_only, secret, small, off_curve, json!(7), json!({})];
    assert_eq!(jwks(&bad).unwrap_err(), KeyError::NoneUsable);
    let mut all = bad.to_vec();
    all.push(good);
    assert_eq!(jwks(&all).unwrap().len(), 1);
    assert_eq!(jwks(&vec![json!({}); 33]).unwrap_err(), KeyError::TooMany);
    assert!(matches!(KeySet::of_jwks(b"<html>"), Err(KeyError::NotJwks(_))));
}

#[test]
fn an_api_key_or_a_token() {
    let spec = ApiKeySpec {
        name: "shop".into(),
        secret: ApiKeySecret::Plain("a-key-of-some-length".to_owned().into()),
        subscribe: None,
        publish: None,
        verbs: Verbs::ALL,
    };
    let both = Authenticator::new(false, &[spec], Some(verifier(JwtSettings::default()))).unwrap();
    let user = both.authenticate(&hs256(&claims()), NOW).unwrap();
    assert_eq!(user.user(), Some("alice"));
    let shop = both.authenticate("a-key-of-some-length", NOW).unwrap();
    assert!(matches!(&shop.who, Who::ApiKey(name, _) if **name == *"shop"));
    assert_eq!(both.authenticate("nonsense", NOW).unwrap_err(), AuthError::Malformed);
    let open = Authenticator::open();
    assert!(open.is_open() && !open.has_logins());
    assert!(open.authenticate(&hs256(&claims()), NOW).is_err());
    assert!(Arc::ptr_eq(&Identity::anonymous(), &Identity::anonymous()));
}

/// No error tells what was shown, and no `Debug` tells a key.
#[test]
fn nothing_secret_shows() {
    let jwt = verifier(JwtSettings::default());
    let token = hs256(&with(json!({"sub": "hunter2", "exp": "hunter2"})));
    let error = jwt.verify(&token, NOW).unwrap_err();
    let keys = KeySet::of_secret(&secret(), HmacAlgorithm::Hs256).unwrap();
    let shown = format!("{error} {error:?} {jwt:?} {keys:?}");
    assert!(!shown.contains("hunter2") && !shown.contains(SECRET), "{shown}");
}

proptest! {
    /// Whatever one character becomes, it is not that token any more.
    #[test]
    fn a_changed_token_is_no_token(at: prop::sample::Index, to in "[A-Za-z0-9_.-]") {
        let token = hs256(&claims());
        let mut changed = token.clone();
        let at = at.index(token.len());
        changed.replace_range(at..=at, &to);
        let verified = verifier(JwtSettings::default()).verify(&changed, NOW);
        // The last character of base64 has bits that do not count.
        prop_assert!(verified.is_err() || changed == token || at == token.len() - 1);
    }

    #[test]
    fn any_text_is_refused(text: String) {
        prop_assert!(verifier(JwtSettings::default()).verify(&text, NOW).is_err());
        let _ = KeySet::of_pem(&text);
        let _ = KeySet::of_jwks(text.as_bytes());
    }

    #[test]
    fn any_signed_claims_are_read_or_refused(sub: String, pattern: String, exp: f64) {
        let claims = json!({"sub": sub, "subscribe": [pattern], "channels": [sub], "exp": exp});
        let verified = verify(&claims);
        prop_assert!(verified.is_err() || verified.unwrap().expires > Some(NOW));
    }
}

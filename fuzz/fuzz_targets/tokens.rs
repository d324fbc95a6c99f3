//! Any text as a credential, and any bytes as key documents: never a panic, and nobody is let in
//! but by the one token and the one key that are good.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tidewire_auth::{
    ApiKeySecret, ApiKeySpec, Authenticator, HmacAlgorithm, Jwt, JwtSettings, KeySet, Pattern,
    TokenRequest, Verbs, mint,
};
use tidewire_protocol::Channel;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const API_KEY: &str = "an-api-key-of-some-length";
const NOW: u64 = 1_800_000_000;

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let keys = KeySet::of_secret(&SECRET.to_owned().into(), HmacAlgorithm::Hs256).unwrap();
    let jwt = Jwt::new(JwtSettings::default(), keys, false);
    let key = ApiKeySpec {
        name: "fuzz".to_owned(),
        secret: ApiKeySecret::Plain(API_KEY.to_owned().into()),
        subscribe: None,
        publish: None,
        verbs: Verbs::ALL,
    };
    Authenticator::new(false, &[key], Some(jwt)).unwrap()
});

/// The good token, which is also among the seeds: the fuzzer changes it from there.
static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let request =
        TokenRequest { sub: "alice".to_owned(), expires: NOW + 60, ..TokenRequest::default() };
    mint(&request, &SECRET.to_owned().into(), HmacAlgorithm::Hs256).unwrap()
});

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match kind {
        b'k' => {
            let _ = KeySet::of_jwks(rest);
        }
        b'p' => {
            let _ = KeySet::of_pem(&text);
        }
        b's' => {
            // A pattern and a user's name: the name never makes the pattern wider.
            let (pattern, sub) = text.split_once('\n').unwrap_or((&text, "alice"));
            if let Ok(read) = Pattern::of_user(pattern, sub) {
                let foreign = Channel::new("user:~somebody-else~").unwrap();
                let wide = pattern.strip_suffix('*').is_some_and(|start| {
                    let start = start.replace("{sub}", sub);
                    foreign.as_str().starts_with(&start)
                });
                let exact = pattern.replace("{sub}", sub) == foreign.as_str();
                assert_eq!(read.covers(&foreign), wide || exact);
            }
        }
        _ => {
            if AUTHENTICATOR.authenticate(&text, NOW).is_ok() {
                // The last character of base64 has bits that do not count.
                let same = text.len() == TOKEN.len()
                    && text.as_bytes()[..text.len() - 1] == TOKEN.as_bytes()[..TOKEN.len() - 1];
                assert!(same || text == API_KEY, "let in with {text}");
            }
        }
    }
});

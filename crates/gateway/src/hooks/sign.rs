//! The signature of a hook's request: shows the application that the body is this gateway's, and
//! when it was sent.

use std::fmt;
use std::fmt::Write as _;

use aws_lc_rs::hmac;

/// The header that carries it.
pub(super) const HEADER: &str = "tidewire-signature";

/// A secret that the gateway shares with the application.
#[derive(Clone)]
pub struct HookSecret(hmac::Key);

impl HookSecret {
    /// Of these bytes, for HMAC-SHA256 (RFC 2104).
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookSecret")
    }
}

/// `t=<seconds since 1970>,v1=<hex>`, with a `v1` for each secret: HMAC-SHA256 of the time as it
/// is written, a dot, and the body.
pub(super) fn sign(secrets: &[HookSecret], now: u64, body: &[u8]) -> String {
    let mut header = format!("t={now}");
    for HookSecret(key) in secrets {
        let mut signing = hmac::Context::with_key(key);
        signing.update(now.to_string().as_bytes());
        signing.update(b".");
        signing.update(body);
        header.push_str(",v1=");
        for byte in signing.sign().as_ref() {
            // A string takes every text.
            let _ = write!(header, "{byte:02x}");
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By `printf '1700000000.{}' | openssl dgst -sha256 -hmac secret`.
    #[test]
    fn it_is_what_openssl_makes_of_it() {
        let secrets = [HookSecret::new(b"secret"), HookSecret::new(b"other")];
        let header = sign(&secrets, 1_700_000_000, b"{}");
        let parts: Vec<_> = header.split(',').collect();
        assert_eq!(parts[0], "t=1700000000");
        assert_eq!(parts[1], "v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163");
        assert_eq!(parts.len(), 3);
        assert!(!format!("{secrets:?}").contains("secret"));
    }
}

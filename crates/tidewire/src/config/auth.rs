//! `[auth]` and `[auth.jwt]`: who is let in. As with the rest of the structure, the keys are told in
//! the walk.

use std::time::Duration;

use secrecy::SecretString;
use tidewire_auth::{ApiKeySpec, HmacAlgorithm};

use super::credentials::{ApiKeys, JwksUrl, NamespaceName, OneLine, Secrets};
use super::setting::{Many, Maybe, Text, Time};
use super::values::{AuthMode, WebOrigin};
use super::walk::{Path, Visitor};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `[auth]`
#[derive(Clone, Debug)]
pub(crate) struct Auth {
    /// Absent: see [`Auth::is_open`].
    pub(crate) mode: Option<AuthMode>,
    pub(crate) api_keys: Vec<ApiKeySpec>,
    pub(crate) api_keys_file: Option<OneLine>,
    pub(crate) allowed_origins: Vec<WebOrigin>,
    pub(crate) personal_namespace: Option<NamespaceName>,
    pub(crate) login_timeout: Duration,
    pub(crate) jwt: Jwt,
}

/// `[auth.jwt]`
#[derive(Clone, Debug)]
pub(crate) struct Jwt {
    pub(crate) secret: Vec<SecretString>,
    pub(crate) secret_algorithm: HmacAlgorithm,
    pub(crate) public_key_file: Option<OneLine>,
    pub(crate) jwks_url: Option<JwksUrl>,
    pub(crate) jwks_refresh: Duration,
    pub(crate) issuer: Option<OneLine>,
    pub(crate) audience: Option<OneLine>,
    pub(crate) leeway: Duration,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: None,
            api_keys: Vec::new(),
            api_keys_file: None,
            allowed_origins: Vec::new(),
            personal_namespace: None,
            login_timeout: 10 * SECOND,
            jwt: Jwt::default(),
        }
    }
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            secret: Vec::new(),
            secret_algorithm: HmacAlgorithm::default(),
            public_key_file: None,
            jwks_url: None,
            jwks_refresh: 10 * MINUTE,
            issuer: None,
            audience: None,
            leeway: 10 * SECOND,
        }
    }
}

impl Auth {
    pub(super) fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::new(["auth"]), "Who may connect, subscribe and publish.");
        v.key("mode", "`required`: who shows no credential is refused. `open`: everyone is let in and may do what the namespaces' rules let `anyone` do, by default everything; a credential that is shown is checked all the same and gives the identity. Not set: `required` where credentials are configured; else `open`, but then `listen` must be a loopback address, so that nobody opens a gateway to the world by leaving something out; and requests that came through a proxy (`X-Forwarded-…`, `Forwarded`, `Via`, `X-Real-IP`) are refused: behind a proxy write the mode down.", &mut Maybe(&mut self.mode));
        v.key("api_keys", "What backends log in with: `[{ name = \"shop\", key = \"…\" }]`, a key of at least 16 bytes, or instead of `key` its SHA-256 in hex, `sha256 = \"…\"`. Optional: `publish` and `subscribe`, lists of patterns (not given: every channel), and `verbs`, a list of `publish`, `subscribe`, `history`, `control` (not given: all). In the variable: `name=key,name=sha256:hex`. Never shown.", &mut ApiKeys(&mut self.api_keys));
        v.key("api_keys_file", "A TOML file with further keys of the same form, `api_keys = [ … ]`, so that they need not stand here.", &mut Maybe(&mut self.api_keys_file));
        v.key("allowed_origins", "Origins whose pages may connect besides the gateway's own. In open mode on a loopback address every page from `localhost`, `127.0.0.1` and `[::1]` may, too.", &mut Many(&mut self.allowed_origins));
        v.key("personal_namespace", "A namespace, such as `user`, in which each user has a channel of their own, `user:<sub>`: nobody else may subscribe to it, and their streams are subscribed to it at once. To publish there takes a grant or an API key, also in open mode, unless the namespace's own `publish` says otherwise.", &mut Maybe(&mut self.personal_namespace));
        v.key(
            "login_timeout",
            "A WebSocket that was opened without a credential must have sent `auth` by then.",
            &mut Time(&mut self.login_timeout, SECOND..=5 * MINUTE),
        );
        self.jwt.walk(v);
    }

    /// Whether there is any way to log in.
    pub(crate) fn has_credentials(&self) -> bool {
        let Jwt { secret, public_key_file, jwks_url, .. } = &self.jwt;
        let tokens = !secret.is_empty() || public_key_file.is_some() || jwks_url.is_some();
        tokens || !self.api_keys.is_empty() || self.api_keys_file.is_some()
    }

    /// Whether who shows no credential is let in.
    pub(crate) fn is_open(&self) -> bool {
        match self.mode {
            Some(mode) => mode == AuthMode::Open,
            None => !self.has_credentials(),
        }
    }
}

impl Jwt {
    fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::new(["auth", "jwt"]), "Which tokens (JWT) are taken. Several sources of keys may be given at once. A token must have `sub` and `exp`; each key is for one algorithm, whatever a token says.");
        v.key("secret", "The secret that your backend signs tokens with, of at least 32 bytes (`openssl rand -hex 32`). In the file also a list, the old beside the new one. Never shown.", &mut Secrets(&mut self.secret));
        v.key(
            "secret_algorithm",
            "The algorithm that `secret` is for. HS384 needs 48 bytes, HS512 64.",
            &mut Text(&mut self.secret_algorithm),
        );
        v.key("public_key_file", "A PEM file with the public key, or several behind each other: RSA (for RS256), P-256 (ES256), Ed25519 (EdDSA).", &mut Maybe(&mut self.public_key_file));
        v.key("jwks_url", "Where an identity provider publishes its keys (a JWK Set). They are fetched at the start, every `jwks_refresh`, and at most every 10 s when a token names an unknown key; while the provider is away the last ones stay.", &mut Maybe(&mut self.jwks_url));
        v.key(
            "jwks_refresh",
            "How often they are fetched.",
            &mut Time(&mut self.jwks_refresh, 10 * SECOND..=DAY),
        );
        v.key(
            "issuer",
            "What `iss` must be. Not set: it is not looked at.",
            &mut Maybe(&mut self.issuer),
        );
        v.key(
            "audience",
            "What `aud` must be or hold. Not set: a token that is for an audience is refused.",
            &mut Maybe(&mut self.audience),
        );
        v.key(
            "leeway",
            "By how much the clocks of who signs and who checks may differ.",
            &mut Time(&mut self.leeway, Duration::ZERO..=5 * MINUTE),
        );
    }
}

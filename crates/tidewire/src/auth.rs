//! From the configuration to who may do what: reads the key files, and puts together what the
//! gateway asks. `serve` and `check` call it, so that both find the same faults.

use std::sync::Arc;

use anyhow::Context;
use tidewire_auth::{Access, Authenticator, Jwt, JwtSettings, KeySet, Policy, Rules};
use tidewire_gateway::JwksSettings;
use tidewire_gateway::files::{self, Holds};
use tidewire_protocol::Namespaces;

use crate::config::{Config, read_api_keys_file};

/// What decides on this node.
pub(crate) struct Decides {
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) policy: Policy,
    pub(crate) jwks: Option<JwksSettings>,
    /// What an operator should mend, though it can be served.
    pub(crate) warnings: Vec<String>,
}

/// Puts it together. No error holds a secret.
pub(crate) fn build(config: &Config, namespaces: &Arc<Namespaces>) -> anyhow::Result<Decides> {
    let auth = &config.auth;
    let (mut keys, mut warnings) = (auth.api_keys.clone(), Vec::new());
    if let Some(path) = &auth.api_keys_file {
        let key = || format!("auth.api_keys_file = {:?}", path.as_str());
        let text = std::fs::read_to_string(path.as_str()).with_context(key)?;
        keys.extend(read_api_keys_file(&text).map_err(anyhow::Error::msg).with_context(key)?);
        warnings.extend(files::warning(&key(), path.as_str(), Holds::Secrets));
    }
    if let Some(path) = &auth.jwt.public_key_file {
        let name = format!("auth.jwt.public_key_file = {:?}", path.as_str());
        warnings.extend(files::warning(&name, path.as_str(), Holds::Rules));
    }
    let authenticator = Authenticator::new(auth.is_open(), &keys, jwt(config)?);
    let jwks = auth
        .jwt
        .jwks_url
        .as_ref()
        .map(|url| JwksSettings { url: url.as_str().to_owned(), refresh: auth.jwt.jwks_refresh });
    Ok(Decides {
        authenticator: Arc::new(authenticator.context("auth.api_keys")?),
        policy: policy(config, namespaces),
        jwks,
        warnings,
    })
}

fn jwt(config: &Config) -> anyhow::Result<Option<Jwt>> {
    let jwt = &config.auth.jwt;
    let mut keys = KeySet::default();
    for secret in &jwt.secret {
        keys.extend(KeySet::of_secret(secret, jwt.secret_algorithm).context("auth.jwt.secret")?);
    }
    if let Some(path) = &jwt.public_key_file {
        let key = || format!("auth.jwt.public_key_file = {:?}", path.as_str());
        let text = std::fs::read_to_string(path.as_str()).with_context(key)?;
        keys.extend(KeySet::of_pem(&text).with_context(key)?);
    }
    let brings = jwt.jwks_url.is_some();
    let settings = JwtSettings {
        issuer: jwt.issuer.as_ref().map(|text| text.as_str().to_owned()),
        audience: jwt.audience.as_ref().map(|text| text.as_str().to_owned()),
        leeway: jwt.leeway.as_secs(),
    };
    Ok((brings || !keys.is_empty()).then(|| Jwt::new(settings, keys, brings)))
}

fn policy(config: &Config, namespaces: &Arc<Namespaces>) -> Policy {
    let otherwise = if config.auth.is_open() { Rules::open() } else { Rules::granted() };
    let personal = config.auth.personal_namespace.as_ref().map(|name| name.as_str().into());
    let rules = |name: &str| {
        let given = config.namespaces.get(name)?;
        let is_personal = personal.as_deref() == Some(name);
        let publish = if is_personal { Access::Granted } else { otherwise.publish };
        Some(Rules {
            subscribe: given.subscribe.unwrap_or(otherwise.subscribe),
            publish: given.publish.unwrap_or(publish),
            history: given.client_history,
            events: given.events.iter().map(|event| event.as_str().into()).collect(),
            message_bytes: given.message_bytes.map(|bytes| bytes as usize),
        })
    };
    Policy::new(namespaces.clone(), rules, &otherwise, personal.clone())
}

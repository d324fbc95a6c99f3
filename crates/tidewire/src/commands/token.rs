//! `tidewire token`: a token for trying things out.

use anyhow::Context;
use tidewire_auth::{Authenticator, Jwt, JwtSettings, KeySet, TokenRequest, mint, now};

use super::Usage;
use crate::cli::Token;
use crate::config::{self, Flags, Sources};

/// Prints a token that the configured node takes.
pub(crate) fn run(arguments: Token) -> anyhow::Result<()> {
    let flags = Flags { config: arguments.config, ..Flags::default() };
    let config = config::load(&Sources::of_process(flags))?.config;
    let jwt = &config.auth.jwt;
    let Some(secret) = jwt.secret.first() else {
        let text = "tokens are signed with auth.jwt.secret, which is not set; name the file that \
            has it with --config, or set TIDEWIRE_AUTH__JWT__SECRET";
        return Err(Usage(text.to_owned()).into());
    };
    let info = arguments.info.map(|text| {
        serde_json::from_str(&text).map_err(|error| Usage(format!("--info is no JSON: {error}")))
    });
    let issued = now();
    let text = |text: &config::OneLine| text.as_str().to_owned();
    let request = TokenRequest {
        sub: arguments.sub,
        subscribe: arguments.subscribe,
        publish: arguments.publish,
        channels: arguments.channel,
        info: info.transpose()?,
        issuer: jwt.issuer.as_ref().map(text),
        audience: jwt.audience.as_ref().map(text),
        issued,
        expires: issued.saturating_add(arguments.ttl.as_secs()),
    };
    let token = mint(&request, secret, jwt.secret_algorithm).context("auth.jwt.secret")?;
    // Whoever tries something out is told now what is wrong with it, not by a 401 later.
    let keys = KeySet::of_secret(secret, jwt.secret_algorithm)?;
    let settings = JwtSettings { issuer: request.issuer, audience: request.audience, leeway: 1 };
    let checked = Authenticator::new(false, &[], Some(Jwt::new(settings, keys, false)))?
        .authenticate(&token, issued);
    if let Err(error) = checked {
        return Err(Usage(error.to_string()).into());
    }
    super::line(&token).map(drop)
}

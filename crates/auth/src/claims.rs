//! The claims of a token: read strictly, checked, and turned into an identity.

use serde::Deserialize;
use serde_json::value::RawValue;
use tidewire_protocol::{Channel, check_json};

use crate::error::AuthError;
use crate::identity::{Identity, Who};
use crate::jwt::JwtSettings;
use crate::pattern::{Pattern, Patterns};

/// The longest name of a user, in bytes.
pub const MAX_SUB_BYTES: usize = 128;
/// The most that a token may say of its user for others, in bytes of JSON.
pub const MAX_INFO_BYTES: usize = 1_024;

/// A token that ends later counts seconds as milliseconds, and would hold for ever by mistake.
const LAST_SECOND: f64 = 1e11;

/// What a token says (RFC 7519, section 4.1, and our own). A claim of the wrong type, or one that
/// is there twice, makes the token invalid; unknown claims are passed over.
#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iss: Option<String>,
    aud: Option<Audience>,
    #[serde(default)]
    subscribe: Vec<String>,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    channels: Vec<String>,
    info: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// The identity, if the claims hold at that time, in seconds since 1970.
    pub(crate) fn identity(self, settings: &JwtSettings, now: u64) -> Result<Identity, AuthError> {
        let expires = self.check(settings, now)?;
        let wrong = |text: String| AuthError::Claims(text);
        let sub = self.sub.ok_or_else(|| wrong("'sub' is missing".to_owned()))?;
        if !(1..=MAX_SUB_BYTES).contains(&sub.len()) || sub.chars().any(char::is_control) {
            return Err(wrong(format!(
                "'sub' must have 1 to {MAX_SUB_BYTES} bytes without control characters"
            )));
        }
        let pattern = |name: &str, text: &String| {
            Pattern::of_user(text, &sub).map_err(|e| wrong(format!("'{name}': {e}")))
        };
        let channel = |name: &String| {
            Channel::new(&name.replace("{sub}", &sub))
                .map_err(|e| wrong(format!("'channels': {e}")))
        };
        let info = self.info.filter(|info| info.get() != "null");
        if info.as_ref().is_some_and(|info| info.get().len() > MAX_INFO_BYTES) {
            return Err(wrong(format!("'info' must have at most {MAX_INFO_BYTES} bytes")));
        }
        if let Some(Err(fault)) = info.as_ref().map(|info| check_json(info.get())) {
            return Err(wrong(format!("'info' is {fault}")));
        }
        let channels = self.channels.iter().map(channel).collect::<Result<Box<[_]>, _>>()?;
        // What a stream is subscribed to at once is granted by that.
        let at_once = channels.iter().map(|channel| Ok(Pattern::exact(channel)));
        let subscribe = self.subscribe.iter().map(|text| pattern("subscribe", text));
        let publish = self.publish.iter().map(|text| pattern("publish", text));
        Ok(Identity {
            subscribe: subscribe.chain(at_once).collect::<Result<Patterns, AuthError>>()?,
            publish: publish.collect::<Result<Patterns, AuthError>>()?,
            channels,
            info,
            expires: Some(expires),
            who: Who::User(sub.into()),
        })
    }

    /// Times, issuer and audience; gives the time at which the token ends, with the leeway.
    fn check(&self, settings: &JwtSettings, now: u64) -> Result<u64, AuthError> {
        let exp = self.exp.ok_or_else(|| AuthError::Claims("'exp' is missing".to_owned()))?;
        // Times may have fractions (RFC 7519, section 2). The conversion cuts them off, and what
        // is out of bounds: below 0 is long ago, and no NaN is in JSON.
        if exp > LAST_SECOND {
            let text = "'exp' is in seconds since 1970, and this would be after the year 5000; in \
                milliseconds, perhaps?";
            return Err(AuthError::Claims(text.to_owned()));
        }
        let expires = (exp as u64).saturating_add(settings.leeway);
        if expires <= now {
            return Err(AuthError::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf as u64 > now.saturating_add(settings.leeway)) {
            return Err(AuthError::TooEarly);
        }
        if settings.issuer.is_some() && settings.issuer != self.iss {
            return Err(AuthError::Issuer);
        }
        let ours = |given: &String| settings.audience.as_ref() == Some(given);
        let is_for_us = match &self.aud {
            // Who finds itself not named must reject it (RFC 7519, section 4.1.3), also one that
            // has no name to look for.
            Some(Audience::One(one)) => ours(one),
            Some(Audience::Many(many)) => many.iter().any(ours),
            None => settings.audience.is_none(),
        };
        if is_for_us { Ok(expires) } else { Err(AuthError::Audience) }
    }
}

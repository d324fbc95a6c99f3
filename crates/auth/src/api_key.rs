//! API keys: what backends log in with.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use secrecy::{ExposeSecret, SecretString};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use thiserror::Error;

use crate::identity::{Identity, Who};
use crate::pattern::{Pattern, PatternError, Patterns};

/// The shortest key that is taken, in bytes: what a machine makes, no password.
pub const MIN_API_KEY_BYTES: usize = 16;

/// What an API key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Publish.
    Publish,
    /// Subscribe: streams and polls.
    Subscribe,
    /// Read what a channel keeps.
    History,
    /// The paths for operators.
    Control,
}

impl Verb {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Subscribe, Self::History, Self::Control];

    /// As it is written in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::History => "history",
            Self::Control => "control",
        }
    }
}

/// A set of verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verbs(u8);

impl Verbs {
    /// Everything.
    pub const ALL: Self = Self(0b1111);

    /// Whether the verb is among them.
    #[must_use]
    pub const fn has(self, verb: Verb) -> bool {
        self.0 & (1 << verb as u8) != 0
    }
}

impl FromIterator<Verb> for Verbs {
    fn from_iter<I: IntoIterator<Item = Verb>>(verbs: I) -> Self {
        Self(verbs.into_iter().fold(0, |set, verb| set | 1 << verb as u8))
    }
}

/// The key itself, or what can be compared with it.
#[derive(Debug, Clone)]
pub enum ApiKeySecret {
    /// The key.
    Plain(SecretString),
    /// Its SHA-256, so that the configuration holds nothing that can be used.
    Sha256([u8; 32]),
}

/// An API key as it is configured.
#[derive(Debug, Clone)]
pub struct ApiKeySpec {
    /// Its name, for logs, metrics and the dedupe of its publishes.
    pub name: String,
    /// The key.
    pub secret: ApiKeySecret,
    /// Channels that it may subscribe to and read; absent: all.
    pub subscribe: Option<Vec<String>>,
    /// Channels that it may publish to; absent: all.
    pub publish: Option<Vec<String>>,
    /// What it may be used for.
    pub verbs: Verbs,
}

/// Why API keys are not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiKeyError {
    /// A name that is none.
    #[error("a name has 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.'")]
    Name,
    /// Two keys with one name.
    #[error("the name '{0}' is there twice")]
    Twice(String),
    /// Two names with one key: which of their rules would hold?
    #[error("the keys '{0}' and '{1}' are the same")]
    Same(String, String),
    /// Under [`MIN_API_KEY_BYTES`].
    #[error("the key '{0}' is too short: at least {MIN_API_KEY_BYTES} bytes")]
    TooShort(String),
    /// A pattern that is none.
    #[error("the key '{0}': pattern '{1}': {2}")]
    Pattern(String, String, PatternError),
}

/// The API keys of a gateway. The keys are not kept, only their hashes.
#[derive(Default)]
pub(crate) struct ApiKeys(Vec<ApiKey>);

struct ApiKey {
    hash: [u8; 32],
    identity: Arc<Identity>,
}

impl ApiKeys {
    pub(crate) fn new(specs: &[ApiKeySpec]) -> Result<Self, ApiKeyError> {
        let mut keys: Vec<ApiKey> = Vec::with_capacity(specs.len());
        let mut names: Vec<&str> = Vec::with_capacity(specs.len());
        for spec in specs {
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if !(1..=64).contains(&spec.name.len()) || !spec.name.bytes().all(good) {
                return Err(ApiKeyError::Name);
            }
            if names.contains(&spec.name.as_str()) {
                return Err(ApiKeyError::Twice(spec.name.clone()));
            }
            let key = ApiKey::new(spec)?;
            if let Some(n) = keys.iter().position(|known| known.hash == key.hash) {
                return Err(ApiKeyError::Same(names[n].to_owned(), spec.name.clone()));
            }
            names.push(&spec.name);
            keys.push(key);
        }
        Ok(Self(keys))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose key it is. Takes the same time whichever it is, and if it is none: what is compared
    /// are hashes, all of them and each to its end.
    pub(crate) fn find(&self, key: &str) -> Option<Arc<Identity>> {
        if self.0.is_empty() {
            return None;
        }
        let given = sha256(key.as_bytes());
        let (mut found, mut at) = (Choice::from(0), 0_u32);
        for (n, known) in (0_u32..).zip(&self.0) {
            let same = known.hash.ct_eq(&given);
            found |= same;
            at.conditional_assign(&n, same);
        }
        bool::from(found).then(|| self.0[at as usize].identity.clone())
    }
}

impl ApiKey {
    fn new(spec: &ApiKeySpec) -> Result<Self, ApiKeyError> {
        let hash = match &spec.secret {
            ApiKeySecret::Plain(key) if key.expose_secret().len() < MIN_API_KEY_BYTES => {
                return Err(ApiKeyError::TooShort(spec.name.clone()));
            }
            ApiKeySecret::Plain(key) => sha256(key.expose_secret().as_bytes()),
            ApiKeySecret::Sha256(hash) => *hash,
        };
        let patterns = |texts: &Option<Vec<String>>| match texts {
            None => Ok(Patterns::all()),
            Some(texts) => texts
                .iter()
                .map(|text| {
                    Pattern::plain(text)
                        .map_err(|e| ApiKeyError::Pattern(spec.name.clone(), text.clone(), e))
                })
                .collect(),
        };
        let identity = Identity {
            who: Who::ApiKey(spec.name.as_str().into(), spec.verbs),
            subscribe: patterns(&spec.subscribe)?,
            publish: patterns(&spec.publish)?,
            ..(*Identity::anonymous()).clone()
        };
        Ok(Self { hash, identity: Arc::new(identity) })
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.identity.who)).finish()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, key: &str) -> ApiKeySpec {
        ApiKeySpec {
            name: name.to_owned(),
            secret: ApiKeySecret::Plain(key.to_owned().into()),
            subscribe: None,
            publish: None,
            verbs: Verbs::ALL,
        }
    }

    #[test]
    fn keys_are_found_by_themselves_alone() {
        let hash = sha256(b"0123456789abcdef-hashed");
        let hashed = ApiKeySpec { secret: ApiKeySecret::Sha256(hash), ..spec("hashed", "") };
        let keys = ApiKeys::new(&[spec("shop", "0123456789abcdef"), hashed]).unwrap();
        let name = |key: &str| match &keys.find(key)?.who {
            Who::ApiKey(name, _) => Some(name.to_string()),
            _ => None,
        };
        assert_eq!(name("0123456789abcdef").as_deref(), Some("shop"));
        assert_eq!(name("0123456789abcdef-hashed").as_deref(), Some("hashed"));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "shop"] {
            assert_eq!(name(other), None, "{other}");
        }
        assert!(ApiKeys::default().find("").is_none());
    }

    #[test]
    fn bad_keys_are_refused() {
        let refused = |specs: &[ApiKeySpec]| ApiKeys::new(specs).unwrap_err();
        assert_eq!(refused(&[spec("a b", "0123456789abcdef")]), ApiKeyError::Name);
        assert_eq!(refused(&[spec("a", "short")]), ApiKeyError::TooShort("a".into()));
        let twice = [spec("a", "0123456789abcdef"), spec("a", "0123456789abcdeg")];
        assert_eq!(refused(&twice), ApiKeyError::Twice("a".into()));
        let mut patterned = spec("a", "0123456789abcdef");
        patterned.publish = Some(vec!["a*b".to_owned()]);
        assert!(matches!(refused(&[patterned]), ApiKeyError::Pattern(..)));
    }

    #[test]
    fn debug_shows_no_key() {
        let spec = spec("shop", "hunter2hunter2hunter2");
        let keys = ApiKeys::new(std::slice::from_ref(&spec)).unwrap();
        let shown = format!("{spec:?} {keys:?}");
        assert!(shown.contains("shop") && !shown.contains("hunter2"), "{shown}");
    }
}

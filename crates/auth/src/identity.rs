//! Who somebody is, once that is known, and what was granted to them.

use std::sync::{Arc, LazyLock};

use serde_json::value::RawValue;
use tidewire_protocol::Channel;

use crate::api_key::Verbs;
use crate::pattern::Patterns;

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Nobody has said.
    Anonymous,
    /// A user, by the token's `sub`.
    User(Box<str>),
    /// A backend, by the name of its API key, and what that key may be used for.
    ApiKey(Box<str>, Verbs),
}

/// Who somebody is and what was granted to them; shared by whatever acts for them.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who.
    pub who: Who,
    /// Channels that they may subscribe to where the namespace asks for a grant.
    pub subscribe: Patterns,
    /// Channels that they may publish to where the namespace asks for a grant.
    pub publish: Patterns,
    /// Channels that a stream of theirs is subscribed to at once.
    pub channels: Box<[Channel]>,
    /// What others may know of the user, as JSON.
    pub info: Option<Box<RawValue>>,
    /// From then on it counts no more, in seconds since 1970; the leeway is in it. Absent: for
    /// ever.
    pub expires: Option<u64>,
}

impl Identity {
    /// Of who has not logged in.
    #[must_use]
    pub fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Identity>> = LazyLock::new(|| {
            Arc::new(Identity {
                who: Who::Anonymous,
                subscribe: Patterns::default(),
                publish: Patterns::default(),
                channels: Box::default(),
                info: None,
                expires: None,
            })
        });
        ANONYMOUS.clone()
    }

    /// The user's name, if it is a user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.who {
            Who::User(sub) => Some(sub),
            Who::Anonymous | Who::ApiKey(..) => None,
        }
    }

    /// Whether nobody has said who it is.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.who == Who::Anonymous
    }

    /// Whether it counts no more at that time, in seconds since 1970.
    #[must_use]
    pub fn has_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

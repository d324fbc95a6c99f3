//! Who may do what on this node: what decides, and the renewal of the keys that verify tokens.

use std::net::IpAddr;
use std::sync::Arc;

use tidewire_auth::{AuthError, Authenticator, Denied, Identity, Policy};
use tidewire_broker::Publisher;
use tidewire_protocol::{BodyError, Channel, Timestamp};

use crate::address::AddressPlace;
use crate::jwks::Renewal;
use crate::users::UserPlace;

/// Shared by all threads.
pub(crate) struct Auth {
    pub(crate) policy: Policy,
    authenticator: Arc<Authenticator>,
    renewal: Option<Arc<Renewal>>,
}

impl Auth {
    pub(crate) fn new(
        authenticator: Arc<Authenticator>,
        policy: Policy,
        renewal: Option<Arc<Renewal>>,
    ) -> Self {
        Self { policy, authenticator, renewal }
    }

    /// Whether who shows nothing is let in.
    pub(crate) fn is_open(&self) -> bool {
        self.authenticator.is_open()
    }

    /// Whether there is any way to log in.
    pub(crate) fn has_logins(&self) -> bool {
        self.authenticator.has_logins()
    }

    /// Whose credential it is, by the keys that are here.
    pub(crate) fn login_now(&self, credential: &str) -> Result<Arc<Identity>, AuthError> {
        self.authenticator.authenticate(credential, tidewire_auth::now())
    }

    /// Whether newer keys, if they can be had, may change a refusal.
    pub(crate) fn may_change(&self, error: &AuthError) -> bool {
        self.renewal.is_some() && matches!(error, AuthError::UnknownKey | AuthError::NoKeys)
    }

    /// Whose credential it is; waits for newer keys where they may change a refusal, within their
    /// time-out.
    pub(crate) async fn login(&self, credential: &str) -> Result<Arc<Identity>, AuthError> {
        let first = self.login_now(credential);
        match (&first, &self.renewal) {
            (Err(error), Some(renewal)) if self.may_change(error) && renewal.renewed().await => {
                self.login_now(credential)
            }
            _ => first,
        }
    }

    /// Whether it can verify tokens at all; else the reason, for `/readyz`.
    pub(crate) fn ready(&self) -> Result<(), String> {
        match self.authenticator.jwt() {
            Some(jwt) if jwt.waits_for_keys() => {
                Err("no keys have come from auth.jwt.jwks_url yet".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// May they use the paths for operators?
    pub(crate) fn may_control(&self, who: &Identity) -> Result<(), Denied> {
        // Who has configured credentials wants them used where they matter most.
        self.policy.may_control(who, self.is_open() && !self.has_logins())
    }

    /// The channels that a stream of theirs is subscribed to at once, each once, besides those
    /// that it names.
    pub(crate) fn own_channels(&self, who: &Identity, named: &[&Channel]) -> Vec<Channel> {
        let mut own: Vec<Channel> = Vec::new();
        for channel in self.policy.personal_channel(who).iter().chain(&who.channels) {
            if !named.contains(&channel) && !own.contains(channel) {
                own.push(channel.clone());
            }
        }
        own
    }
}

/// The name under which somebody's messageIds are remembered.
pub(crate) fn publisher(who: &Identity) -> Publisher {
    match &who.who {
        tidewire_auth::Who::Anonymous => Publisher::Anonymous,
        tidewire_auth::Who::User(sub) => Publisher::User(sub.clone()),
        tidewire_auth::Who::ApiKey(name, _) => Publisher::ApiKey(name.clone()),
    }
}

/// A refusal as the answer to a frame or a request.
pub(crate) fn refusal(denied: Denied) -> BodyError {
    BodyError { code: denied.code, message: denied.message }
}

/// When a login ends, for the client.
pub(crate) fn expires(who: &Identity) -> Option<Timestamp> {
    who.expires.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000)))
}

/// What a stream takes up; free again when this is dropped.
#[derive(Debug)]
pub(crate) enum Held {
    /// Of its address, behind a proxy.
    #[allow(dead_code, reason = "it is there to be dropped")]
    Address(AddressPlace),
    /// Of its user.
    User(UserPlace),
}

impl Held {
    /// The place among its user's streams, if it is one.
    pub(crate) const fn of_user(&self) -> Option<&UserPlace> {
        match self {
            Self::User(place) => Some(place),
            Self::Address(_) => None,
        }
    }
}

/// What a session was opened with.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Who it is.
    pub(crate) identity: Arc<Identity>,
    /// Nobody yet: its first frame must say.
    pub(crate) must_log_in: bool,
    /// What it takes up of what its address and its user may have. Held as long as the stream.
    pub(crate) held: Vec<Arc<Held>>,
    /// Where it is, where the application is told that. Boxed: every session has the room for it.
    pub(crate) address: Option<Box<IpAddr>>,
}

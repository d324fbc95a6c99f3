//! Who may do how much, all their connections to this node together: the limits that are no
//! session's own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_auth::{Denied, Identity, Who};
use tidewire_protocol::{Channel, Code};

use crate::address::{AddressRate, Addresses, counted};
use crate::app::App;
use crate::auth::Held;
use crate::metrics::Limit;
use crate::rates::Rates;
use crate::settings::Settings;
use crate::users::{Full, Users};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// The node's own books.
#[derive(Debug)]
pub(crate) struct Allowance {
    pub(crate) users: Arc<Users>,
    /// New connections and streams, by address.
    handshakes: PerAddress,
    /// Logins that came to nothing, by address.
    failed_logins: PerAddress,
    user_publishes: Rates<Box<str>>,
    /// By the namespace's number, each with a single key.
    namespace_publishes: Vec<Rates<()>>,
}

impl Allowance {
    pub(crate) fn new(settings: &Settings) -> Self {
        let of = |name: &str| settings.namespace_publishes.get(name).copied();
        let namespaces = settings.namespaces.names();
        Self {
            users: Users::new(settings.connections_per_user),
            handshakes: PerAddress::new(settings.handshakes_per_second, SECOND),
            failed_logins: PerAddress::new(settings.failed_logins_per_minute, MINUTE),
            user_publishes: Rates::new(settings.publishes_per_user, SECOND),
            namespace_publishes: namespaces.map(|name| Rates::new(of(name), SECOND)).collect(),
        }
    }

    /// Whether somebody wants to know where a stream's client is.
    pub(crate) const fn needs_address(&self) -> bool {
        self.failed_logins.rates.is_limited()
    }
}

impl App {
    /// Whether one more connection of this address may begin now; it is counted.
    pub(crate) fn may_shake_hands(&self, address: IpAddr) -> bool {
        let handshakes = &self.allowance.handshakes;
        let key = handshakes.key(&self.addresses, address);
        let fits = key.is_none_or(|key| handshakes.rates.take(key, Instant::now()));
        if !fits {
            self.metrics.limited(Limit::HandshakesPerSecond);
        }
        fits
    }

    /// Whether somebody at this address may try to log in: not right after many who could not.
    pub(crate) fn may_try_login(&self, address: Option<IpAddr>) -> Result<(), Denied> {
        let (failed, now) = (&self.allowance.failed_logins, Instant::now());
        let key = address.and_then(|address| failed.key(&self.addresses, address));
        if key.is_none_or(|key| failed.rates.has_room(&key, now)) {
            return Ok(());
        }
        self.metrics.limited(Limit::FailedLoginsPerMinute);
        Err(too_fast("too many logins of this address have failed; wait a minute"))
    }

    /// Notes a login that came to nothing. Clients whose proxy hides them are not limited: one who guesses
    /// would lock out all of them. They are in the metric.
    pub(crate) fn login_failed(&self, address: Option<IpAddr>) {
        let failed = &self.allowance.failed_logins;
        let key = address.and_then(|address| failed.key(&self.addresses, address));
        self.metrics.failed_login(key.is_some());
        if let Some(key) = key {
            // Whoever has none left is told at the next attempt.
            let _ = failed.rates.take(key, Instant::now());
        }
    }

    /// A place for one more stream of theirs. Where there is none, those who have them are asked
    /// whether they are still there: that takes seconds at most, and nothing where all answer.
    pub(crate) async fn user_place(&self, who: &Identity) -> Result<Option<Held>, Full> {
        let place = self.allowance.users.place_in_time(who).await;
        place.map(|place| place.map(Held::User)).inspect_err(|_| {
            self.metrics.limited(Limit::ConnectionsPerUser);
        })
    }

    /// Whether they may publish to the channel, and now; it is counted. Backends with an API key
    /// are not: who floods a namespace must not silence the application.
    pub(crate) fn may_publish_now(&self, who: &Identity, channel: &Channel) -> Result<(), Denied> {
        self.auth.policy.may_publish(who, channel)?;
        if matches!(who.who, Who::ApiKey(..)) {
            return Ok(());
        }
        let (now, allowance) = (Instant::now(), &self.allowance);
        // The user's first: who is over that must not use up what others have.
        if let Some(user) = who.user().filter(|_| allowance.user_publishes.is_limited())
            && !allowance.user_publishes.take(user.into(), now)
        {
            self.metrics.limited(Limit::PublishesPerUser);
            return Err(too_fast("more messages of this user in a second than allowed"));
        }
        let namespace = self.settings.namespaces.index(channel);
        let rates = allowance.namespace_publishes.get(namespace);
        if rates.is_some_and(|rates| !rates.take((), now)) {
            self.metrics.limited(Limit::PublishesPerSecond);
            return Err(too_fast("more messages in this namespace in a second than allowed"));
        }
        Ok(())
    }
}

fn too_fast(message: &str) -> Denied {
    Denied { code: Code::TooFast, message: message.to_owned() }
}

/// What each address may do in a stretch of time.
#[derive(Debug)]
struct PerAddress {
    rates: Rates<IpAddr>,
    public_only: bool,
}

impl PerAddress {
    fn new(rate: Option<AddressRate>, stretch: Duration) -> Self {
        let public_only = rate.is_none_or(|rate| rate.public_only);
        Self { rates: Rates::new(rate.map(|rate| rate.rate), stretch), public_only }
    }

    /// The key under which an address is counted, if it is. A proxy that is trusted never is.
    fn key(&self, addresses: &Addresses, address: IpAddr) -> Option<IpAddr> {
        let is_counted = self.rates.is_limited() && !addresses.is_trusted(address);
        is_counted.then(|| counted(address, self.public_only)).flatten()
    }
}

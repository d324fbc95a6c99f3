//! How many streams each user has: on this node at once, on all nodes within seconds.
//!
//! A stream takes a place before it begins. What other nodes have is asked for by `crate::sharing`, which
//! claims the places of this node; where that cannot be known, this node's own count is all there is.
//!
//! A count says nothing about who is still there: a laptop that was closed leaves streams behind, and comes
//! back with new ones. So before anybody is told for good that there are too many, those who are counted
//! are asked, on every node, and who does not answer gives way.

mod place;
mod seat;
mod user;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidewire_auth::{Denied, Identity};
use tidewire_broker::{Asks, Claim, Grant};
use tidewire_protocol::Code;
use tokio::sync::Notify;

pub(crate) use place::{Told, UserPlace};
pub(crate) use seat::Address;
use seat::{Seat, Word};
use user::User;

/// What was granted is believed for so long.
const FRESH: Duration = Duration::from_secs(3);
/// A user without streams who has all of them elsewhere is remembered for so long after an attempt.
const REMEMBERED: Duration = Duration::from_secs(15);
/// Who is there is not asked more often.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Who comes waits so long for a place: until other nodes, where those are asked who are counted, have told
/// what came of it. They call once a second, and may have asked a moment ago.
const NEWCOMER: Duration = Duration::from_secs(6);
/// Where the broker was away, and may have lost what it granted, nothing more is claimed for so long: all nodes
/// get what they had before anybody gets what came meanwhile.
const CAREFUL: Duration = Duration::from_secs(3);

/// The streams of every user that has any.
#[derive(Debug)]
pub(crate) struct Users {
    /// Absent: no limit, and nothing is counted.
    most: Option<usize>,
    /// Locked for a look-up, and once a second for a pass.
    state: Mutex<State>,
    /// For the one who keeps the books: somebody is to be asked, or has answered.
    news: Notify,
    /// For those who wait for a place: one may be free, or it is known that none will be.
    decided: Notify,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<Box<str>, User>,
    next: u64,
    /// Users who are being asked.
    asking: Vec<Box<str>>,
    /// Sessions that are to look at their seats.
    to_look: Vec<Address>,
    /// The broker has not answered.
    is_away: bool,
    /// It is back; until then no more is claimed than was granted.
    careful_until: Option<Instant>,
}

/// The user has as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full {
    /// All of them are alive: they have said so since somebody came for one. Else trying again may help.
    pub(crate) is_final: bool,
    /// When they are asked again at the latest, if anybody wants to know it then; none where all has been said
    /// since somebody came.
    again_at: Option<Instant>,
}

impl Full {
    /// What its client is told.
    pub(crate) fn denied(self) -> Denied {
        let message = if self.is_final {
            "connections of this user: full, and all of them are alive"
        } else {
            "connections of this user: full; some may be gone: try again"
        };
        Denied { code: Code::TooMany, message: message.to_owned() }
    }
}

impl State {
    /// Has a user's streams here asked whether they are there; false if they were a moment ago.
    fn ask(&mut self, name: &str, now: Instant) -> bool {
        let Some(user) = self.users.get_mut(name) else { return false };
        let is_asked = user.ask(now);
        if is_asked {
            self.to_look.extend(user.places.iter().filter_map(|(_, seat)| seat.address()));
            self.asking.push(name.into());
        }
        is_asked
    }
}

impl Users {
    pub(crate) fn new(most: Option<usize>) -> Arc<Self> {
        let (news, decided) = Default::default();
        Arc::new(Self { most, state: Mutex::default(), news, decided })
    }

    /// How many a user may have, if there is a limit.
    pub(crate) fn most(&self) -> Option<u64> {
        self.most.map(|most| most as u64)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more stream; none where it is not counted: nobody has logged in, or a
    /// backend has. Where there is none, those who have them are asked whether they are there. It came
    /// for it at that time.
    fn place(self: &Arc<Self>, who: &Identity, came: Instant) -> Result<Option<UserPlace>, Full> {
        let (Some(most), Some(name)) = (self.most, who.user()) else { return Ok(None) };
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let user = state.users.entry(name.into()).or_default();
        let now = Instant::now();
        let full = user.full_at(most as u64, 1, now).filter(|(left, _)| user.count() >= *left);
        if full.is_some() {
            user.refused_at = Some(now);
        }
        if full.is_some() || user.places.len() >= most {
            let is_asked = state.ask(name, now);
            if is_asked {
                self.news.notify_one();
            }
            let Some(user) = state.users.get_mut(name) else { return Ok(None) };
            user.asks_anew |= full.is_some() && is_asked;
            let is_final = user.is_full_of_living(most as u64, came);
            let is_all_said = is_final || (full.is_none() && user.has_told(came));
            let again_at = (!is_all_said).then(|| user.asked_at.unwrap_or(now) + ASK_AGAIN);
            return Err(Full { is_final, again_at });
        }
        let seat = Arc::new(Seat::new());
        user.places.push((number, seat.clone()));
        Ok(Some(UserPlace { users: self.clone(), user: name.into(), number, seat }))
    }

    /// As [`Users::place`], but waits a while for a place: for those on this node who are asked whether they
    /// are there, and for what other nodes let go. It ends sooner where it is known that none will be free.
    pub(crate) async fn place_in_time(
        self: &Arc<Self>,
        who: &Identity,
    ) -> Result<Option<UserPlace>, Full> {
        let came = Instant::now();
        let until = came + NEWCOMER;
        loop {
            let mut decided = std::pin::pin!(self.decided.notified());
            // From now on it hears; what comes before the next line is not missed.
            decided.as_mut().enable();
            match self.place(who, came) {
                Err(Full { again_at: Some(again_at), .. }) if Instant::now() < until => {
                    // Whoever comes first after that time has them asked again.
                    let next = again_at.min(until);
                    let _ = tokio::time::timeout_at(next.into(), decided).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether anybody has a stream here, or is remembered.
    pub(crate) fn has_any(&self) -> bool {
        !self.state().users.is_empty()
    }

    /// What is to be claimed now. Users of whom nothing is to be known any more are forgotten.
    pub(crate) fn claims(&self, now: Instant) -> Vec<Claim> {
        let mut state = self.state();
        state.users.retain(|_, user| !user.is_done(now));
        let is_careful = state.is_away || state.careful_until.is_some_and(|until| now < until);
        let to_claim = state.users.iter_mut().filter(|(_, user)| user.is_to_be_claimed());
        to_claim.map(|(name, user)| user.claim(name, is_careful)).collect()
    }

    /// The broker did not answer.
    pub(crate) fn is_away(&self) {
        self.state().is_away = true;
    }

    /// What came of claims, asked at this time.
    pub(crate) fn granted(&self, claims: &[Claim], grants: &[Option<Grant>], asked: Instant) {
        let Some(most) = self.most() else { return };
        let mut state = self.state();
        let state = &mut *state;
        if std::mem::take(&mut state.is_away) {
            state.careful_until = Some(asked + CAREFUL);
        }
        let mut may_help = false;
        for (claim, grant) in claims.iter().zip(grants) {
            // Where nothing can be kept of a user, this node's own count is all there is.
            let Some(grant) = grant else { continue };
            let Some(user) = state.users.get_mut(&claim.user) else { continue };
            let before = user.granted.replace((*grant, asked));
            user.is_unsure = false;
            if user.answered == claim.answered {
                user.answered = None;
            }
            if claim.asks == Asks::Anew {
                (user.asks_anew, user.anew_at) = (false, Some(asked));
            }
            let was_refused =
                user.refused_at.is_some_and(|at| asked.saturating_duration_since(at) < REMEMBERED);
            may_help |= was_refused && before.is_none_or(|(before, _)| before != *grant);
            let is_over = was_refused || user.count() > user.left(most);
            // After a silence the patience begins anew: others may come back, too.
            let was_fresh = before.is_some_and(|(_, at)| asked - at < FRESH);
            let since = user.over_since.filter(|_| was_fresh);
            user.over_since = is_over.then_some(since.unwrap_or(asked));
            if is_over && since.is_none() {
                // What the others said of another time does not count.
                user.asks_anew = grant.alive > 0;
                if state.ask(&claim.user, asked) {
                    self.news.notify_one();
                }
            }
        }
        if may_help {
            self.decided.notify_waiters();
        }
    }

    /// All is to be claimed again.
    pub(crate) fn claim_all(&self) {
        for user in self.state().users.values_mut() {
            user.is_unsure = true;
        }
    }

    /// Asks users' streams here whether they are there, for another node. One that was asked a moment
    /// ago is not: the other node asks again.
    pub(crate) fn ask(&self, names: &[Box<str>], now: Instant) {
        let mut state = self.state();
        for name in names {
            let Some(user) = state.users.get_mut(name) else { continue };
            user.owes_answer = true;
            if state.ask(name, now) {
                self.news.notify_one();
            }
        }
    }

    /// Resolves when somebody is to be asked, or has answered.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// Whether answers are awaited.
    pub(crate) fn is_asking(&self) -> bool {
        !self.state().asking.is_empty()
    }

    /// Notes whose streams have all answered, or will not.
    pub(crate) fn settle(&self, now: Instant) {
        let mut state = self.state();
        let State { users, asking, .. } = &mut *state;
        let before = asking.len();
        asking.retain(|name| {
            let Some(user) = users.get_mut(name) else { return false };
            if !user.has_answered(now) {
                return true;
            }
            user.is_asking = false;
            if std::mem::take(&mut user.owes_answer) {
                user.answered = Some(user.here());
            }
            if user.is_done(now) {
                users.remove(name);
            }
            false
        });
        if asking.len() < before {
            self.decided.notify_waiters();
        }
    }

    /// Takes the newest places back of users who have been over the limit of all nodes for long: how
    /// many. Whoever holds one finds out by [`UserPlace::told`].
    pub(crate) fn take_back(&self, now: Instant) -> usize {
        let Some(most) = self.most() else { return 0 };
        let mut taken = 0;
        let mut state = self.state();
        let State { users, to_look, .. } = &mut *state;
        for user in users.values_mut() {
            let Some((left, is_final)) = user.full_at(most, 0, now) else { continue };
            while user.count() > left {
                if let Some((_, seat)) = user.places.pop() {
                    seat.revoke(if is_final { Word::Over } else { Word::Crowded });
                    to_look.extend(seat.address());
                    taken += 1;
                    user.refused_at = Some(now);
                }
            }
        }
        if taken > 0 {
            self.news.notify_one();
        }
        taken
    }

    /// The sessions that are to look at their seats, since this was asked last.
    pub(crate) fn to_look(&self) -> Vec<Address> {
        std::mem::take(&mut self.state().to_look)
    }
}

#[cfg(test)]
mod tests;

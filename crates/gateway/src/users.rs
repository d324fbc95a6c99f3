//! How many streams each user has: on this node at once, on all nodes within seconds.
//!
//! A stream takes a place before it begins. What other nodes have is asked for by `crate::sharing`, which
//! claims the places of this node; where that cannot be known, this node's own count is all there is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidewire_auth::Identity;
use tidewire_broker::Grant;

use crate::address::TooMany;

/// A user is over the limit of all nodes for so long before anybody is closed or refused for it. The
/// streams of a node that died, or that still lets go what has moved on, are counted until then.
const PATIENCE: Duration = Duration::from_secs(6);
/// What was granted is believed for so long.
const FRESH: Duration = Duration::from_secs(3);
/// A user without streams who has all of them elsewhere is remembered for so long after an attempt.
const REMEMBERED: Duration = Duration::from_secs(15);

/// The streams of every user that has any.
#[derive(Debug)]
pub(crate) struct Users {
    /// Absent: no limit, and nothing is counted.
    most: Option<usize>,
    /// Locked for a look-up, and once a second for a pass.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<Box<str>, User>,
    next: u64,
}

/// One user here.
#[derive(Debug, Default)]
struct User {
    /// The places by their numbers, the newest last.
    places: Vec<(u64, Arc<AtomicBool>)>,
    /// What was granted last, and when that was asked for.
    granted: Option<(Grant, Instant)>,
    /// What is granted may be something else by now: it was claimed and not answered, or forgotten.
    is_unsure: bool,
    /// Since when it has more here than others leave to it; also for a while after it was brought down
    /// to that, so that who tries again and again is not patiently let in each time.
    over_since: Option<Instant>,
    /// When it was refused one, or one was taken back.
    refused_at: Option<Instant>,
}

/// One of a user's streams; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct UserPlace {
    users: Arc<Users>,
    user: Box<str>,
    number: u64,
    is_over: Arc<AtomicBool>,
}

impl User {
    fn count(&self) -> u64 {
        self.places.len() as u64
    }

    /// What other nodes leave to this one, if it was over that for long. Not sooner: the others may be
    /// dead, or their clients may be the same that have come here.
    fn full_at(&self, most: u64, now: Instant) -> Option<u64> {
        let (grant, at) = self.granted?;
        let is_fresh = now.duration_since(at) < FRESH;
        let for_long = now.duration_since(self.over_since?) >= PATIENCE;
        (is_fresh && for_long).then(|| most.saturating_sub(grant.elsewhere))
    }

    /// Whether Redis is to be asked.
    fn is_to_be_claimed(&self) -> bool {
        self.is_unsure || self.over_since.is_some() || self.granted_here() != self.count()
    }

    fn granted_here(&self) -> u64 {
        self.granted.map_or(0, |(grant, _)| grant.granted)
    }

    /// Whether nobody need know of it any more.
    fn is_done(&self, now: Instant) -> bool {
        let is_wanted = self.refused_at.is_some_and(|at| now - at < REMEMBERED);
        self.count() == 0 && self.granted_here() == 0 && !self.is_unsure && !is_wanted
    }
}

impl Users {
    pub(crate) fn new(most: Option<usize>) -> Arc<Self> {
        Arc::new(Self { most, state: Mutex::default() })
    }

    /// How many a user may have, if there is a limit.
    pub(crate) fn most(&self) -> Option<u64> {
        self.most.map(|most| most as u64)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more stream; none where it is not counted: nobody has logged in, or a
    /// backend has.
    pub(crate) fn place(self: &Arc<Self>, who: &Identity) -> Result<Option<UserPlace>, TooMany> {
        let (Some(most), Some(name)) = (self.most, who.user()) else { return Ok(None) };
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        let user = state.users.entry(name.into()).or_default();
        let now = Instant::now();
        let full = user.full_at(most as u64, now).is_some_and(|left| user.count() >= left);
        if full {
            user.refused_at = Some(now);
        }
        if full || user.places.len() >= most {
            return Err(TooMany);
        }
        let is_over = Arc::<AtomicBool>::default();
        user.places.push((number, is_over.clone()));
        Ok(Some(UserPlace { users: self.clone(), user: name.into(), number, is_over }))
    }

    /// Whether anybody has a stream here, or is remembered.
    pub(crate) fn has_any(&self) -> bool {
        !self.state().users.is_empty()
    }

    /// What is to be claimed now. Users of whom nothing is to be known any more are forgotten.
    pub(crate) fn claims(&self, now: Instant) -> Vec<(Box<str>, u64)> {
        let mut state = self.state();
        state.users.retain(|_, user| !user.is_done(now));
        let to_claim = state.users.iter_mut().filter(|(_, user)| user.is_to_be_claimed());
        let claims = to_claim.map(|(name, user)| {
            user.is_unsure = true;
            (name.clone(), user.count())
        });
        claims.collect()
    }

    /// What came of claims, asked at this time.
    pub(crate) fn granted(&self, claims: &[(Box<str>, u64)], grants: &[Grant], asked: Instant) {
        let Some(most) = self.most() else { return };
        let mut state = self.state();
        for ((name, _), grant) in claims.iter().zip(grants) {
            let Some(user) = state.users.get_mut(name) else { continue };
            let before = user.granted.replace((*grant, asked));
            user.is_unsure = false;
            let was_refused =
                user.refused_at.is_some_and(|at| asked.saturating_duration_since(at) < REMEMBERED);
            let is_over = was_refused || user.count() > most.saturating_sub(grant.elsewhere);
            // After a silence the patience begins anew: others may come back, too.
            let was_fresh = before.is_some_and(|(_, at)| asked - at < FRESH);
            let since = user.over_since.filter(|_| was_fresh).unwrap_or(asked);
            user.over_since = is_over.then_some(since);
        }
    }

    /// All is to be claimed again.
    pub(crate) fn claim_all(&self) {
        for user in self.state().users.values_mut() {
            user.is_unsure = true;
        }
    }

    /// Takes the newest places back of users who have been over the limit of all nodes for long: how
    /// many. Whoever holds one finds out by [`UserPlace::is_over`].
    pub(crate) fn take_back(&self, now: Instant) -> usize {
        let Some(most) = self.most() else { return 0 };
        let mut taken = 0;
        for user in self.state().users.values_mut() {
            let Some(left) = user.full_at(most, now) else { continue };
            while user.count() > left {
                if let Some((_, is_over)) = user.places.pop() {
                    is_over.store(true, Ordering::Relaxed);
                    taken += 1;
                    user.refused_at = Some(now);
                }
            }
        }
        taken
    }
}

impl UserPlace {
    /// Whether it was taken back: the stream must end.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut state = self.users.state();
        let Some(user) = state.users.get_mut(&self.user) else { return };
        // Not there: it was taken back.
        if let Ok(at) = user.places.binary_search_by_key(&self.number, |(number, _)| *number) {
            user.places.remove(at);
        }
        // Where nobody was told of it, nobody must be told of its end.
        if user.is_done(Instant::now()) {
            state.users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn who(name: &str) -> Identity {
        Identity { who: tidewire_auth::Who::User(name.into()), ..(*Identity::anonymous()).clone() }
    }

    fn grant(users: &Users, granted: u64, elsewhere: u64, now: Instant) {
        let claims = users.claims(now);
        let grants = vec![Grant { granted, elsewhere }; claims.len()];
        users.granted(&claims, &grants, now);
    }

    fn places(users: &Arc<Users>, count: usize) -> Vec<UserPlace> {
        (0..count).map(|_| users.place(&who("alice")).unwrap().unwrap()).collect()
    }

    fn over(places: &[UserPlace]) -> Vec<bool> {
        places.iter().map(UserPlace::is_over).collect()
    }

    #[test]
    fn the_newest_beyond_are_taken_back_and_no_sooner_than_must() {
        let users = Users::new(Some(4));
        let held = places(&users, 3);
        let begun = Instant::now().checked_sub(20 * SECOND).unwrap();
        for second in 0..6 {
            let now = begun + second * SECOND;
            grant(&users, 1, 3, now);
            assert_eq!(users.take_back(now), 0, "{second}");
        }
        grant(&users, 1, 3, begun + 6 * SECOND);
        assert_eq!(users.take_back(begun + 6 * SECOND), 2);
        assert_eq!(over(&held), [false, true, true]);
        // What was taken back is not given back a second time.
        drop(held);
        assert_eq!(users.claims(begun + 7 * SECOND), [("alice".into(), 0)]);
    }

    #[test]
    fn nobody_is_closed_or_refused_for_what_is_not_known_any_more() {
        let users = Users::new(Some(4));
        let mut held = places(&users, 3);
        let begun = Instant::now().checked_sub(20 * SECOND).unwrap();
        (0..=6).for_each(|second| grant(&users, 1, 3, begun + second * SECOND));
        // Redis is away.
        assert_eq!(users.take_back(begun + 10 * SECOND), 0);
        held.extend(places(&users, 1));
        assert!(users.place(&who("alice")).is_err(), "the node's own count holds");
        // It is back: the patience begins anew.
        grant(&users, 1, 3, begun + 15 * SECOND);
        assert_eq!(users.take_back(begun + 15 * SECOND), 0);
        grant(&users, 4, 0, begun + 16 * SECOND);
        assert_eq!(users.take_back(begun + 40 * SECOND), 0);
        assert_eq!(over(&held), [false; 4]);
    }

    #[test]
    fn who_moves_is_let_in_and_who_stays_over_is_refused_at_once() {
        let users = Users::new(Some(4));
        let mut held = places(&users, 1);
        let now = Instant::now();
        let begun = now.checked_sub(20 * SECOND).unwrap();
        // All that may be had is, and that for long: one that comes may have left another node.
        (0..=7).for_each(|second| grant(&users, 1, 3, begun + second * SECOND));
        held.extend(places(&users, 1));
        (8..=14).for_each(|second| grant(&users, 1, 3, begun + second * SECOND));
        assert_eq!(users.take_back(begun + 15 * SECOND), 1);
        assert_eq!(over(&held), [false, true]);
        // It tries again and again.
        (15..=20).for_each(|second| grant(&users, 1, 3, begun + second * SECOND));
        assert!(users.place(&who("alice")).is_err());
        assert!(users.place(&who("bob")).is_ok());
        grant(&users, 1, 2, now);
        assert!(users.place(&who("alice")).is_ok());
    }

    #[test]
    fn only_what_changed_is_claimed_and_what_is_over_is_forgotten() {
        let users = Users::new(Some(4));
        let now = Instant::now();
        let held = places(&users, 2);
        assert_eq!(users.claims(now), [("alice".into(), 2)]);
        // No answer came: it is claimed again, also when it is over meanwhile.
        drop(held);
        let claims = users.claims(now);
        assert_eq!(claims, [("alice".into(), 0)]);
        users.granted(&claims, &[Grant { granted: 0, elsewhere: 1 }], now);
        assert_eq!(users.claims(now), []);
        assert!(users.state().users.is_empty());
        let _held = places(&users, 1);
        grant(&users, 1, 1, now);
        assert_eq!(users.claims(now), []);
        users.claim_all();
        assert_eq!(users.claims(now), [("alice".into(), 1)]);
        // Nobody hears of who came and went.
        drop(users.place(&who("bob")).unwrap());
        assert_eq!(users.claims(now).len(), 1);
    }
}

//! What the books say of one user: its places here, what other nodes leave to it, and who of them is known to
//! be alive. It decides; `super` finds it, and tells sessions and other nodes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_broker::{Asks, Claim, Grant};

use super::seat::{Seat, Word};
use super::{ASK_AGAIN, FRESH, REMEMBERED};

/// A user is over the limit of all nodes for so long before anybody is closed or refused for good. The
/// streams of a node that died, or that still lets go what has moved on, are counted until then.
const SETTLED: Duration = Duration::from_secs(6);
/// For so long where those who are counted have not all answered: they are asked within three seconds,
/// have three, and within two more it is known what came of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who has not answered by then has nobody who could (see `crate::session`, whose patience is less).
const ANSWERED: Duration = Duration::from_secs(4);

/// One user here.
#[derive(Debug, Default)]
pub(super) struct User {
    /// The places by their numbers, the newest last.
    pub(super) places: Vec<(u64, Arc<Seat>)>,
    /// What was granted last, and when that was asked for.
    pub(super) granted: Option<(Grant, Instant)>,
    /// What is granted may be something else by now: it was claimed and not answered, or forgotten.
    pub(super) is_unsure: bool,
    /// Since when it has more here than others leave to it; also for a while after it was brought down
    /// to that, so that who tries again and again is not patiently let in each time.
    pub(super) over_since: Option<Instant>,
    /// When it was refused one, or one was taken back.
    pub(super) refused_at: Option<Instant>,
    /// When its streams here were asked last whether they are there.
    pub(super) asked_at: Option<Instant>,
    /// Not all of them have answered yet.
    pub(super) is_asking: bool,
    /// Another node wants to know how many do.
    pub(super) owes_answer: bool,
    /// How many did, until the other nodes know it.
    pub(super) answered: Option<u64>,
    /// What other nodes have answered may be true no more.
    pub(super) asks_anew: bool,
    /// What they have answered was asked then, or later.
    pub(super) anew_at: Option<Instant>,
}

impl User {
    pub(super) fn count(&self) -> u64 {
        self.places.len() as u64
    }

    /// What other nodes leave to this one.
    pub(super) fn left(&self, most: u64) -> u64 {
        self.granted.map_or(most, |(grant, _)| most.saturating_sub(grant.elsewhere))
    }

    /// How many here are known to be alive.
    pub(super) fn here(&self) -> u64 {
        self.places.iter().filter(|(_, seat)| seat.word() == Word::Here).count() as u64
    }

    /// How many are known to be alive, here and elsewhere.
    pub(super) fn alive(&self) -> u64 {
        self.here() + self.granted.map_or(0, |(grant, _)| grant.alive)
    }

    /// Whether as many have said that they are alive as there may be, and not before somebody came for one
    /// more: who has just lost its network is not told for good that its own streams are too many.
    pub(super) fn is_full_of_living(&self, most: u64, came: Instant) -> bool {
        let elsewhere = self.granted.filter(|_| self.anew_at.is_some_and(|at| at >= came));
        let alive = self.here() + elsewhere.map_or(0, |(grant, _)| grant.alive);
        self.has_told(came) && alive >= most
    }

    /// Whether those here have been asked since then, and have answered.
    pub(super) fn has_told(&self, came: Instant) -> bool {
        !self.is_asking && self.asked_at.is_some_and(|at| at >= came)
    }

    /// What other nodes leave to this one, if it was over that for long. Not sooner: the others may be
    /// dead, or their clients may be the same that have come here. So also whether that is excluded, with
    /// so many more alive than were asked.
    pub(super) fn full_at(&self, most: u64, more: u64, now: Instant) -> Option<(u64, bool)> {
        let (_, at) = self.granted?;
        let is_fresh = now.duration_since(at) < FRESH;
        let since = self.over_since?;
        let over_for = now.duration_since(since);
        let is_final = !self.is_asking && self.alive() + more > most;
        // Once somebody was refused or closed, those who are asked anew do not let others in meanwhile.
        let is_known = is_final || self.refused_at.is_some_and(|at| at >= since);
        let patience = if is_known { SETTLED } else { PATIENCE };
        (is_fresh && over_for >= patience).then(|| (self.left(most), is_final))
    }

    /// Whether Redis is to be asked.
    pub(super) fn is_to_be_claimed(&self) -> bool {
        self.is_unsure
            || self.answered.is_some()
            || self.over_since.is_some()
            || self.granted_here() != self.count()
    }

    pub(super) fn granted_here(&self) -> u64 {
        self.granted.map_or(0, |(grant, _)| grant.granted)
    }

    /// Whether nobody need know of it any more.
    pub(super) fn is_done(&self, now: Instant) -> bool {
        let is_wanted = self.refused_at.is_some_and(|at| now - at < REMEMBERED);
        self.count() == 0
            && self.granted_here() == 0
            && !self.is_unsure
            && !self.is_asking
            && !is_wanted
    }

    /// Asks its streams here whether they are there, unless they were a moment ago: true if so.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        if self.asked_at.is_some_and(|at| now.saturating_duration_since(at) < ASK_AGAIN) {
            return false;
        }
        self.places.iter().for_each(|(_, seat)| seat.ask());
        (self.asked_at, self.is_asking) = (Some(now), true);
        true
    }

    /// Whether all that can answer have.
    pub(super) fn has_answered(&self, now: Instant) -> bool {
        let is_late = self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= ANSWERED);
        is_late || !self.places.iter().any(|(_, seat)| seat.is_open())
    }

    /// What is claimed for it; no more than it was granted, where others must come first.
    pub(super) fn claim(&mut self, name: &str, is_careful: bool) -> Claim {
        self.is_unsure = true;
        let asks = match (self.asks_anew, self.over_since) {
            (true, _) => Asks::Anew,
            (false, Some(_)) => Asks::Open,
            (false, None) => Asks::No,
        };
        let most = if is_careful { self.granted_here() } else { u64::MAX };
        Claim { user: name.into(), count: self.count().min(most), answered: self.answered, asks }
    }
}

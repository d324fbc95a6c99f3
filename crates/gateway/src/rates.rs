//! What an address, a user or a namespace may do in a stretch of time, wherever on the node it does
//! it: token buckets, each for one kind of thing.
//!
//! A bucket holds twice what one stretch may have. Only who has done something lately is in memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// As many entries may be stale before they are looked for.
const MIN_SWEEP: usize = 1_024;

/// The buckets of all keys; none where there is no limit.
#[derive(Debug)]
pub(crate) struct Rates<K> {
    /// How much time one thing takes up; zero: no limit.
    each: Duration,
    /// How far ahead of its time a key may be.
    ahead: Duration,
    /// Locked for a look-up.
    keys: Mutex<Keys<K>>,
}

#[derive(Debug)]
struct Keys<K> {
    /// Up to when the key's time is taken up (the "theoretical arrival time" of GCRA).
    taken_to: HashMap<K, Instant>,
    sweep_at: usize,
}

impl<K: Eq + Hash> Rates<K> {
    /// So many in each stretch of time; absent: no limit.
    pub(crate) fn new(rate: Option<u32>, stretch: Duration) -> Self {
        let each = rate.filter(|rate| *rate > 0).map_or(Duration::ZERO, |rate| stretch / rate);
        let keys = Keys { taken_to: HashMap::new(), sweep_at: MIN_SWEEP };
        Self { each, ahead: stretch * 2, keys: Mutex::new(keys) }
    }

    /// Whether there is a limit at all.
    pub(crate) const fn is_limited(&self) -> bool {
        !self.each.is_zero()
    }

    /// Takes one for the key; false if it has had too many.
    pub(crate) fn take(&self, key: K, now: Instant) -> bool {
        if !self.is_limited() {
            return true;
        }
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.taken_to.len() >= keys.sweep_at {
            keys.taken_to.retain(|_, taken_to| *taken_to > now);
            keys.sweep_at = (2 * keys.taken_to.len()).max(MIN_SWEEP);
        }
        let taken_to = keys.taken_to.entry(key).or_insert(now);
        let next = (*taken_to).max(now) + self.each;
        let fits = next <= now + self.ahead;
        if fits {
            *taken_to = next;
        }
        fits
    }

    /// Whether the key could take one now; takes none.
    pub(crate) fn has_room(&self, key: &K, now: Instant) -> bool {
        if !self.is_limited() {
            return true;
        }
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.taken_to.get(key).is_none_or(|taken_to| *taken_to + self.each <= now + self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn twice_the_rate_at_once_and_then_the_rate() {
        let (rates, start) = (Rates::new(Some(10), SECOND), Instant::now());
        for _ in 0..20 {
            assert!(rates.has_room(&'a', start));
            assert!(rates.take('a', start));
        }
        assert!(!rates.take('a', start) && !rates.has_room(&'a', start));
        // Others have their own.
        assert!(rates.take('b', start));
        let later = start + Duration::from_millis(100);
        assert!(rates.take('a', later));
        assert!(!rates.take('a', later));
        let much_later = start + 60 * SECOND;
        assert_eq!((0..99).filter(|_| rates.take('a', much_later)).count(), 20);
    }

    #[test]
    fn without_a_limit_nothing_is_remembered() {
        let rates = Rates::new(None, SECOND);
        assert!((0..9_999).all(|_| rates.take(1, Instant::now())));
        assert!(rates.keys.lock().unwrap().taken_to.is_empty());
    }

    #[test]
    fn who_did_something_long_ago_is_forgotten() {
        let (rates, start) = (Rates::new(Some(10), SECOND), Instant::now());
        for n in 0..100_000_u32 {
            assert!(rates.take(n, start + Duration::from_millis(n.into())));
        }
        assert!(rates.keys.lock().unwrap().taken_to.len() <= 2 * MIN_SWEEP);
    }
}

//! A circuit breaker: whoever does not answer is left alone for a while.
//!
//! ```text
//!          MOST failures in a row          the pause is over: one probe
//! closed ─────────────────────────► open ─────────────────────────────► half open
//!    ▲                                ▲        it fails: twice the pause     │
//!    │                                └──────────────────────────────────────┤
//!    └──────────────────────── it is answered ───────────────────────────────┘
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many failures in a row open it.
const MOST: u32 = 10;
/// The first pause and the longest; each failed probe doubles it.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// One for each application's hook.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration },
}

/// What a verdict changed, for the log and the gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

/// Leave to ask; who has it must say how that ended. Dropped without a word it counts as a failure.
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    told: bool,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::Closed { failures: 0 }))
    }

    /// Leave to ask now, unless the circuit is open.
    pub(super) fn leave(&self, now: Instant) -> Option<Leave<'_>> {
        let mut state = self.lock();
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Open { until, pause } if now >= until => {
                *state = State::HalfOpen { pause };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => return None,
        };
        Some(Leave { breaker: self, is_probe, told: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state is written in one step, so it is whole whatever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, is_probe: bool, answered: bool, now: Instant) -> Change {
        let mut state = self.lock();
        let (next, change) = match (*state, answered) {
            (State::Closed { .. }, true) => (State::Closed { failures: 0 }, Change::None),
            (State::Closed { failures }, false) if failures + 1 >= MOST => {
                (State::Open { until: now + PAUSE.0, pause: PAUSE.0 }, Change::Opened)
            }
            (State::Closed { failures }, false) => {
                (State::Closed { failures: failures + 1 }, Change::None)
            }
            (State::HalfOpen { .. }, true) if is_probe => {
                (State::Closed { failures: 0 }, Change::Closed)
            }
            (State::HalfOpen { pause }, false) if is_probe => {
                let pause = (pause * 2).min(PAUSE.1);
                (State::Open { until: now + pause, pause }, Change::None)
            }
            // One that was asked before it opened.
            (state @ (State::Open { .. } | State::HalfOpen { .. }), _) => (state, Change::None),
        };
        *state = next;
        change
    }
}

impl Leave<'_> {
    /// Says whether there was an answer, be it a bad one.
    pub(super) fn tell(mut self, answered: bool, now: Instant) -> Change {
        self.told = true;
        self.breaker.tell(self.is_probe, answered, now)
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.breaker.tell(self.is_probe, false, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, now: Instant) -> Change {
        breaker.leave(now).unwrap().tell(false, now)
    }

    #[test]
    fn it_opens_probes_and_closes() {
        let (breaker, start) = (Breaker::new(), Instant::now());
        for _ in 0..MOST - 1 {
            assert_eq!(fail(&breaker, start), Change::None);
        }
        // One answer between them, and the count begins anew.
        assert_eq!(breaker.leave(start).unwrap().tell(true, start), Change::None);
        for _ in 0..MOST - 1 {
            assert_eq!(fail(&breaker, start), Change::None);
        }
        let early = breaker.leave(start).unwrap();
        assert_eq!(fail(&breaker, start), Change::Opened);
        assert!(breaker.leave(start).is_none());
        // An answer from before decides nothing.
        assert_eq!(early.tell(true, start), Change::None);
        assert!(breaker.leave(start).is_none());
        let later = start + PAUSE.0;
        let probe = breaker.leave(later).unwrap();
        assert!(breaker.leave(later).is_none(), "one probe at a time");
        assert_eq!(probe.tell(false, later), Change::None);
        assert!(breaker.leave(later + PAUSE.0).is_none(), "the pause is twice as long");
        let later = later + 2 * PAUSE.0;
        assert_eq!(breaker.leave(later).unwrap().tell(true, later), Change::Closed);
        assert_eq!(fail(&breaker, later), Change::None);
    }

    #[test]
    fn a_probe_that_is_forgotten_does_not_keep_it_half_open() {
        let (breaker, start) = (Breaker::new(), Instant::now());
        for _ in 0..MOST {
            fail(&breaker, start);
        }
        drop(breaker.leave(start + PAUSE.0).unwrap());
        assert!(breaker.leave(Instant::now() + PAUSE.1).is_some());
    }
}

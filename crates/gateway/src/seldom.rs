//! What is worth a line in the log, but not one for each time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// At most one line in this time.
const EVERY: Duration = Duration::from_secs(60);

/// Says when it is time for a line again.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    told_at: Mutex<Option<Instant>>,
}

impl Seldom {
    /// Whether a line is due; if so, the next one is a minute away.
    pub(crate) fn is_due(&self) -> bool {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told_at.is_none_or(|at| at.elapsed() >= EVERY);
        if is_due {
            *told_at = Some(Instant::now());
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_in_a_minute_it_is_time() {
        let seldom = Seldom::default();
        assert_eq!([seldom.is_due(), seldom.is_due()], [true, false]);
        *seldom.told_at.lock().unwrap() = Instant::now().checked_sub(EVERY);
        assert_eq!([seldom.is_due(), seldom.is_due()], [true, false]);
    }
}

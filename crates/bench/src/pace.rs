//! When to publish: at a steady rate, or as fast as the messages arrive.

use std::time::Duration;

use crate::clock;

/// Below this a wait is spent turning the loop: the event queue counts in milliseconds.
const FINEST_WAIT: u64 = 1_000_000;

/// How fast a run publishes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Messages a second.
    Rate(f64),
    /// A message counts as under way until all subscribers have it; there are always so many.
    UnderWay(u32),
}

impl Pace {
    /// How many messages may be out by now, in all: `elapsed` nanoseconds after the start, when so
    /// many have arrived everywhere.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    pub(crate) fn allowed(self, elapsed: u64, arrived: u64) -> u64 {
        match self {
            // The first at once. A cast of a float saturates.
            Self::Rate(rate) => (clock::seconds(elapsed) * rate) as u64 + 1,
            Self::UnderWay(count) => arrived + u64::from(count),
        }
    }

    /// How long the loop may sleep: until the next message is due or the end comes.
    pub(crate) fn wait(self, elapsed: u64, published: u64, end: u64) -> Duration {
        let next = match self {
            Self::Rate(rate) => self.due(published, rate),
            Self::UnderWay(_) => u64::MAX,
        };
        match next.min(end).saturating_sub(elapsed) {
            short if short < FINEST_WAIT => Duration::ZERO,
            // Whole milliseconds, rounded down: the loop may wake early, never late.
            long => Duration::from_millis(long / FINEST_WAIT),
        }
    }

    /// When the message after so many is due.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    fn due(self, published: u64, rate: f64) -> u64 {
        (published as f64 / rate * 1e9) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept() {
        let pace = Pace::Rate(20.0);
        assert_eq!(pace.allowed(0, 0), 1);
        assert_eq!(pace.allowed(49_000_000, 0), 1);
        assert_eq!(pace.allowed(51_000_000, 0), 2);
        assert_eq!(pace.wait(0, 1, u64::MAX), Duration::from_millis(50));
        assert_eq!(pace.wait(49_500_000, 1, u64::MAX), Duration::ZERO);
        assert_eq!(pace.wait(0, 1, 7_900_000), Duration::from_millis(7));
    }

    #[test]
    fn so_many_are_under_way() {
        assert_eq!(Pace::UnderWay(8).allowed(1, 0), 8);
        assert_eq!(Pace::UnderWay(8).allowed(1, 5), 13);
    }
}

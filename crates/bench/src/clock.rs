//! The one clock of all measurements.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the system's monotonic clock. Unlike `Instant` it can be written into a message
/// and compared in another process of the same machine.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // The monotonic clock counts from the start of the machine: never negative.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// The longest time that is told from longer ones: ten minutes, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;

/// Counts times in nanoseconds to three digits, without allocating while it does.
pub(crate) fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_max(LONGEST, 3)
}

/// A duration in nanoseconds; centuries do not fit, and nothing here lasts so long.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds as microseconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// Nanoseconds as seconds.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

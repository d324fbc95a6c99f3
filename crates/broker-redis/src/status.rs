//! Whether each connection works, and how long to wait before the next attempt.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Whether one connection works, else why not: written by its task, read by `/readyz`.
#[derive(Debug)]
pub(crate) struct Status {
    down: Mutex<Option<String>>,
}

impl Status {
    pub(crate) fn new() -> Self {
        Self { down: Mutex::new(Some("not connected yet".into())) }
    }

    pub(crate) fn up(&self) {
        *self.down.lock() = None;
    }

    pub(crate) fn down(&self, reason: String) {
        *self.down.lock() = Some(reason);
    }

    pub(crate) fn get(&self) -> Result<(), String> {
        self.down.lock().clone().map_or(Ok(()), Err)
    }
}

/// Exponential back-off with full jitter, so that many nodes do not come back in step.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// The most that is waited after the first failure.
    const FIRST: Duration = Duration::from_millis(50);
    /// The most that is ever waited.
    const MOST: Duration = Duration::from_secs(1);
    /// A connection that held for so long counts as good.
    const GOOD: Duration = Duration::from_secs(5);

    /// The connection stands.
    pub(crate) fn connected(&mut self) {
        self.since = Some(Instant::now());
    }

    /// It broke, or did not come about: how long to wait.
    pub(crate) fn failed(&mut self) -> Duration {
        if self.since.take().is_some_and(|since| since.elapsed() >= Self::GOOD) {
            self.failures = 0;
        }
        // 2^5 times 50 ms is over the most.
        let most = (Self::FIRST * 2_u32.pow(self.failures.min(5))).min(Self::MOST);
        self.failures = self.failures.saturating_add(1);
        most.mul_f64(fastrand::f64())
    }
}

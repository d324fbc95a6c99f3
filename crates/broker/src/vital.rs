//! Work that a node cannot do without.
//!
//! A session's task that panics ends that session. A lane, a link or the listener that ended
//! unnoticed would leave a node whose clients stay connected and hear nothing, the very fault that
//! Tidewire is built against. A node holds nothing that can be lost; so it ends, visibly, and its
//! clients come back elsewhere.

use std::future::poll_fn;
use std::pin::pin;

/// Ends the process when it is dropped by a panic.
#[derive(Debug)]
pub struct Vital(&'static str);

impl Vital {
    /// Guards the scope that it stands in. `what` names the work in the last line of the log.
    #[must_use]
    pub const fn new(what: &'static str) -> Self {
        Self(what)
    }

    /// Guards a task while it runs: that it is dropped together with its runtime, perhaps by a panic
    /// elsewhere, is no fault of its own.
    pub async fn task<F: Future>(what: &'static str, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            let _vital = Self::new(what);
            work.as_mut().poll(context)
        })
        .await
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(what = self.0, "a vital task has panicked; the node ends");
            std::process::abort();
        }
    }
}

//! How many handshakes, and requests over HTTP/2, are worked on at a time.
//!
//! When all clients of a node that died come at once, they are served in order and in small
//! portions, between which those who are connected get their messages; the others wait in the
//! kernel, or with their request unread. A turn is held only while there is something to do: a
//! client that says nothing, or half of its request, keeps nobody from theirs.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The turns. First come, first served.
pub(crate) struct Admission(Arc<Semaphore>);

/// Leave to work on a handshake; given back when dropped.
pub(crate) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// So many at a time.
    pub(crate) fn new(turns: usize) -> Self {
        Self(Arc::new(Semaphore::new(turns.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) -> Turn {
        // The semaphore is never closed; if it were, nobody would have to wait.
        Turn { _permit: self.0.clone().acquire_owned().await.ok() }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::Admission;

    #[tokio::test]
    async fn one_more_waits_until_a_turn_is_given_back() {
        let admission = Admission::new(2);
        let first = admission.turn().await;
        let _second = admission.turn().await;
        let mut third = pin!(admission.turn());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(third.as_mut().poll(&mut cx).is_ready());
    }
}

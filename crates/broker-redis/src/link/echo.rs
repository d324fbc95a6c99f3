//! A link's message to itself: whether one is under way, and whether it is overdue.

use std::time::Duration;

use tidewire_broker::PublishError;
use tokio::time::Instant;

use crate::publish::{Done, Sent};

/// The state of the self-echo.
pub(super) struct Echo {
    /// The Redis name that only this connection subscribes to.
    pub(super) name: String,
    round: u64,
    state: State,
    /// When the link last showed that it hears itself.
    proven: Instant,
}

enum State {
    Idle,
    /// Given to a publisher; the link may hear it before the publisher tells.
    Publishing {
        begun: Instant,
        receipt: Sent,
    },
    /// Redis has it and told that it goes to somebody.
    Published {
        begun: Instant,
        at: Instant,
    },
}

impl Echo {
    pub(super) fn new(name: String) -> Self {
        Self { name, round: 0, state: State::Idle, proven: Instant::now() }
    }

    /// The body of the next one.
    pub(super) fn next_body(&mut self) -> Vec<u8> {
        self.round += 1;
        self.round.to_string().into_bytes()
    }

    pub(super) fn begin(&mut self, receipt: Sent) {
        self.state = State::Publishing { begun: Instant::now(), receipt };
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// For how long the link has not heard itself.
    pub(super) fn unproven(&self) -> Duration {
        self.proven.elapsed()
    }

    /// The link hears its own name: how long it took, if this is the one that is under way.
    pub(super) fn heard(&mut self, body: &[u8]) -> Option<Duration> {
        if body != self.round.to_string().as_bytes() {
            return None;
        }
        let (State::Publishing { begun, .. } | State::Published { begun, .. }) = self.state else {
            return None;
        };
        self.state = State::Idle;
        self.proven = Instant::now();
        Some(begun.elapsed())
    }

    /// What becomes of the publish; waits for ever when there is none under way. Can be cancelled
    /// without loss.
    pub(super) async fn receipt(&mut self) -> Result<i64, PublishError> {
        match &mut self.state {
            State::Publishing { receipt, .. } => receipt.await.map(|done| match done {
                Done::Live(receivers) => receivers,
                // A PUBLISH is answered by a number.
                Done::Stored(_) => 0,
            }),
            _ => std::future::pending().await,
        }
    }

    /// Redis has it.
    pub(super) fn published(&mut self) {
        if let State::Publishing { begun, .. } = self.state {
            self.state = State::Published { begun, at: Instant::now() };
        }
    }

    /// It could not be published, which says nothing about the link.
    pub(super) fn abandon(&mut self) {
        self.state = State::Idle;
    }

    /// Since when it should come back.
    pub(super) fn due_since(&self) -> Option<Instant> {
        match self.state {
            State::Published { at, .. } => Some(at),
            _ => None,
        }
    }
}

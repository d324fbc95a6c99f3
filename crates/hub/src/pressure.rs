//! What waits for the clients of a lane, all together, and the end of those for whom most does.
//!
//! Whoever bounds it for the node asks the lanes now and then; nothing is counted in between, so
//! that a message costs no more for it.

use tidewire_protocol::SessionId;

use crate::lane::Lane;
use crate::outbox::Failure;

/// What waits for one client.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// In bytes. What several clients wait for counts for each of them.
    pub bytes: usize,
    slot: usize,
    session: SessionId,
}

impl Lane {
    /// The clients for whom anything waits.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waits> {
        let sessions = self.sessions.borrow();
        let all = sessions.iter().map(|(slot, session)| Waits {
            bytes: session.outbox().progress().waiting,
            slot,
            session: session.id(),
        });
        all.filter(|waits| waits.bytes > 0).collect()
    }

    /// Ends a session as slow, and drops what waits for it; false if it has ended meanwhile.
    pub fn give_up(&self, waits: &Waits) -> bool {
        let session = self.sessions.borrow().get(waits.slot).cloned();
        let Some(session) = session.filter(|session| session.id() == waits.session) else {
            return false;
        };
        session.outbox().fail(Failure::Slow);
        true
    }
}

//! Heartbeats and time-outs of a lane's sessions, without a timer for each.
//!
//! Once a second the lane looks at those sessions whose turn it is: the one in slot `i` beats in
//! the seconds that leave the same remainder as `i` when divided by the heartbeat's interval, so
//! that each second has its even share.

use std::rc::Rc;
use std::time::Duration;

use crate::lane::Lane;
use crate::session::Session;
use crate::wire::Transport;

/// What a session is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Send a heartbeat.
    Send,
    /// See whether the heartbeat of a while ago was answered.
    Check,
}

impl Lane {
    /// Sweeps once a second, for ever.
    pub(crate) async fn sweep(self: Rc<Self>) {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for tick in 0_usize.. {
            seconds.tick().await;
            self.refuse_late();
            self.compact();
            let settings = self.settings();
            let (every, grace) = (settings.websocket_heartbeat, settings.websocket_grace);
            // Checked first: where the two fall together, the ping had a whole interval.
            self.beat(Transport::WebSocket, tick.wrapping_sub(grace), every, Beat::Check);
            self.beat(Transport::WebSocket, tick, every, Beat::Send);
            self.beat(Transport::Sse, tick, settings.sse_heartbeat, Beat::Check);
            self.beat(Transport::Sse, tick, settings.sse_heartbeat, Beat::Send);
        }
    }

    fn beat(&self, transport: Transport, tick: usize, every: usize, beat: Beat) {
        let every = every.max(1);
        for session in self.sessions_at(tick % every, every) {
            if session.form().transport() == transport {
                session.beat(beat);
            }
        }
    }

    fn sessions_at(&self, first: usize, step: usize) -> Vec<Rc<dyn Session>> {
        let sessions = self.sessions.borrow();
        let slots = (first..).step_by(step).take_while(|slot| *slot < sessions.end());
        slots.filter_map(|slot| sessions.get(slot).cloned()).collect()
    }
}

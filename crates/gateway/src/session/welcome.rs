//! The welcome: what a session is told first, once every channel of its address is decided.

use bytes::Bytes;
use tidewire_hub::Transport;
use tidewire_protocol::{Reply, WelcomeChannel, Welcomed};

use super::{Confirmed, Session, State};

impl Session {
    /// One more channel of the address is decided.
    pub(super) fn decided(&self) {
        self.undecided.set(self.undecided.get() - 1);
        if self.undecided.get() == 0 {
            self.welcome();
        }
    }

    /// Writes the welcome, and lets go of what was held back for it.
    pub(super) fn welcome(&self) {
        let (mut channels, mut gaps, mut has_id) = (Vec::new(), Vec::new(), true);
        for held in self.held.borrow_mut().iter_mut() {
            if let State::Confirmed(confirmed) = &held.state {
                let Confirmed { cursor, recovered, gap } = **confirmed;
                held.state = State::Active;
                let channel = held.subscription.channel.clone();
                match gap {
                    // Until the client has read of the gap, it stands before it.
                    Some(gap) => {
                        has_id &= gap.after.is_some();
                        self.moved_to(gap.after);
                        gaps.push((channel.clone(), gap));
                    }
                    None => self.moved_to(cursor),
                }
                channels.push(WelcomeChannel { channel, cursor, recovered });
            }
        }
        let settings = &self.app.settings;
        let heartbeat = match self.form.transport() {
            Transport::WebSocket => settings.websocket_heartbeat,
            Transport::Sse => settings.sse_heartbeat,
            Transport::Poll => {
                self.outbox.release(&Bytes::new());
                return gaps
                    .into_iter()
                    .for_each(|(channel, gap)| self.tell_gap(&channel, Some(gap)));
            }
        };
        let identity = self.login.identity();
        let welcomed = Welcomed {
            session: self.id,
            user: identity.user(),
            expires: crate::auth::expires(&identity),
            heartbeat: heartbeat.as_secs(),
            pace: self.pace_of(&identity),
            channels: &channels,
        };
        // Without an id, a client that held one nobody can read keeps it, and is told again.
        let mut first = if has_id { self.id_line() } else { Vec::new() };
        first.extend_from_slice(&self.encode(&Reply::Welcome(welcomed)));
        for (channel, code) in self.denied.take() {
            first.extend_from_slice(&self.encode(&Reply::Unsubscribed { channel: &channel, code }));
        }
        self.outbox.release(&first.into());
        gaps.into_iter().for_each(|(channel, gap)| self.tell_gap(&channel, Some(gap)));
    }
}

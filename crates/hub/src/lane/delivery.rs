//! Messages and gaps of a channel on their way to its subscribers on a lane.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::Lane;
use crate::fanout::{Batch, Tally};
use crate::inbox::ChannelKey;
use crate::session::Session;
use crate::window::Gap;
use crate::wire::{Encoded, Transport};

/// Sockets written to before others get the thread: some 2 ms.
const YIELD_AFTER: usize = 256;

impl Lane {
    /// Notes a message for the end of the turn.
    pub(super) fn note(
        &self,
        key: ChannelKey,
        message: Arc<Encoded>,
        touched: &mut Vec<ChannelKey>,
    ) {
        if let Some(here) = self.channels.borrow_mut().get_mut(&key) {
            if here.turn.is_empty() {
                touched.push(key);
            }
            here.late.miss(&message);
            here.turn.push(message);
        }
    }

    /// Writes the turn's messages of a channel to its subscribers.
    pub(super) async fn deliver(&self, key: ChannelKey) {
        let from = self.settings.compress_from;
        let batch = match self.channels.borrow_mut().get_mut(&key) {
            Some(here) if !here.turn.is_empty() => {
                Batch::new(std::mem::take(&mut here.turn), here.may_drop, from)
            }
            _ => return,
        };
        let began = Instant::now();
        let mut tally = Tally::default();
        self.for_members(key, |session| batch.send(&**session, &mut tally)).await;
        self.account(&batch, &tally, began);
    }

    fn account(&self, batch: &Batch, tally: &Tally, began: Instant) {
        let metrics = &self.hub.metrics;
        self.count_out(tally);
        metrics.fanout.record(began.elapsed());
        for one in batch.messages() {
            metrics.delivery.record(one.message.timestamp.elapsed());
        }
    }

    pub(super) fn count_out(&self, tally: &Tally) {
        let metrics = &self.hub.metrics;
        for transport in Transport::ALL {
            let of = transport as usize;
            metrics.messages_out.add(transport, tally.messages[of]);
            metrics.bytes_out.add(transport, tally.bytes[of]);
            metrics.skipped.add(transport, tally.skipped[of]);
        }
    }

    /// Calls `act` for every subscriber whose subscription has begun, giving the thread to others
    /// from time to time. Who leaves meanwhile is left out; slots stay where they are (see
    /// [`Lane::compact`]), and only this task begins subscriptions, so that nobody is met twice.
    async fn for_members(&self, key: ChannelKey, mut act: impl FnMut(&Rc<dyn Session>)) {
        let mut next = 0;
        self.writing_to.set(Some(key));
        loop {
            {
                let channels = self.channels.borrow();
                let Some(here) = channels.get(&key) else { break };
                let end = here.members.end().min(next + YIELD_AFTER);
                for member in (next..end).filter_map(|slot| here.members.at(slot)) {
                    if member.active {
                        act(&member.session);
                    }
                }
                if end == here.members.end() {
                    break;
                }
                next = end;
            }
            tokio::task::yield_now().await;
        }
        self.writing_to.set(None);
    }

    pub(super) async fn gap(&self, key: ChannelKey, gap: Option<Gap>) {
        let channel = self.channels.borrow_mut().get_mut(&key).map(|here| {
            here.late.miss_gap();
            here.channel.clone()
        });
        if let Some(channel) = channel {
            self.for_members(key, |session| session.gap(&channel, gap.as_ref())).await;
        }
    }
}

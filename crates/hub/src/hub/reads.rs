//! What stored channels want to be done, and the reads that they ask for.
//!
//! A channel says under its lock what is to be done; here it is done: handed to the lanes, or read
//! from the broker in the background.

use std::time::Duration;

use tidewire_broker::{Query, Reading};
use tidewire_protocol::{Channel, Cursor};

use super::{Entry, Hub, now};
use crate::inbox::{ChannelKey, Op, Ticket};
use crate::stored::{Action, Start};

/// The first wait after a read that failed, and the longest.
const READ_BACKOFF: Duration = Duration::from_millis(50);
const MAX_READ_BACKOFF: Duration = Duration::from_secs(1);

impl Hub {
    /// Lets a subscription that has only begun go on from a place.
    pub(crate) fn go_on(
        &self,
        lane: usize,
        ticket: Ticket,
        channel: &Channel,
        key: ChannelKey,
        from: Cursor,
    ) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.get_mut(channel).filter(|entry| entry.key == key) else {
            return;
        };
        if let Some(stored) = &mut entry.stored {
            let mut actions = Vec::new();
            stored.ask(lane, ticket, Start::After(from), now(), &mut actions);
            self.perform(channel, entry, actions);
        }
    }

    /// Does what a channel wants to be done, under its lock.
    pub(super) fn perform(&self, channel: &Channel, entry: &Entry, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Deliver(message) => {
                    self.to_lanes(entry, || Op::Deliver(entry.key, message.clone()));
                }
                Action::Gap(gap) => self.to_lanes(entry, || Op::Gap(entry.key, Some(gap))),
                Action::Start(lane, ticket, begin) => {
                    self.lanes[lane].push(Op::Start(entry.key, ticket, Some(Box::new(begin))));
                }
                Action::Read(query, number) => self.read(channel, entry.key, query, number),
            }
        }
    }

    /// Reads in the background, again and again until it succeeds or nobody wants it any more.
    fn read(&self, channel: &Channel, key: ChannelKey, query: Query, number: u64) {
        let (me, broker, channel) = (self.me.clone(), self.broker.clone(), channel.clone());
        let read = async move {
            let mut failures = 0;
            loop {
                let result = broker.read(&channel, query).await;
                let Some(hub) = me.upgrade() else { return };
                match result {
                    Ok(reading) => return hub.has_read(&channel, key, number, &reading),
                    Err(error) if hub.awaits(&channel, key, number) => {
                        failures += 1;
                        if failures == 1 {
                            tracing::warn!(%channel, %error, "a stored channel is not read yet");
                        }
                    }
                    Err(_) => return,
                }
                drop(hub);
                let most = READ_BACKOFF.saturating_mul(1 << failures.min(5)).min(MAX_READ_BACKOFF);
                tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
            }
        };
        // It ends with its channel, or with the broker, whose reads then fail and nobody awaits.
        self.runtime.spawn(read);
    }

    fn has_read(&self, channel: &Channel, key: ChannelKey, number: u64, reading: &Reading) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.get_mut(channel).filter(|entry| entry.key == key) else {
            return;
        };
        if let Some(stored) = &mut entry.stored {
            let mut actions = Vec::new();
            stored.has_read(number, reading, now(), &mut actions);
            self.perform(channel, entry, actions);
            self.budget.weigh(entry);
        }
        drop(shard);
        self.keep_budget();
    }

    fn awaits(&self, channel: &Channel, key: ChannelKey, number: u64) -> bool {
        let shard = self.shard(channel.as_str()).lock();
        let entry = shard.channels.get(channel).filter(|entry| entry.key == key);
        entry.and_then(|entry| entry.stored.as_ref()).is_some_and(|stored| stored.awaits(number))
    }
}

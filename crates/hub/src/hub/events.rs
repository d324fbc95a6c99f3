//! What the broker tells the hub.

use std::sync::Arc;

use async_trait::async_trait;
use tidewire_broker::{Events, Origin};
use tidewire_protocol::{Channel, EntryId, Message};

use super::Hub;
use crate::inbox::Op;
use crate::stored::StoredChannel;
use crate::wire::Encoded;

#[async_trait]
impl Events for Hub {
    fn subscribed(&self, channel: &Channel) {
        let mut shard = self.shard(channel.as_str()).lock();
        if let Some(entry) = shard.channels.get_mut(channel) {
            self.confirm(channel, entry);
        }
    }

    fn refused(&self, channel: &Channel, reason: &str) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.remove(channel) else { return };
        tracing::warn!(%channel, reason, "the broker refuses a channel");
        self.metrics.channels.decrement(1);
        self.budget.forget(&entry);
        let subscriptions: usize = entry.lanes.iter().map(|(_, count)| count).sum();
        self.metrics.subscriptions.decrement(subscriptions as f64);
        self.to_lanes(&entry, || Op::Refuse(entry.key));
    }

    fn message(&self, channel: &str, message: Message, origin: Origin) {
        self.metrics.received.increment(1);
        let mut shard = self.shard(channel).lock();
        let Some(entry) = shard.channels.get_mut(channel) else { return };
        let channel = &entry.channel.clone();
        let namespace = self.settings.namespaces.index(channel);
        if origin == Origin::Direct {
            self.metrics.direct[namespace].increment(1);
        }
        if self.settings.namespaces.rules(namespace).log {
            log(channel, &message);
        }
        let is_stored = message.stored.is_some();
        let message = Arc::new(Encoded::new(channel.clone(), message));
        if !is_stored && entry.stored.is_none() {
            return self.deliver_live(namespace, entry, message);
        }
        // What comes with a place is handled as stored, whatever this node's rules say.
        let rules = self.settings.namespaces.rules(namespace);
        let new = || Box::new(StoredChannel::new(channel.clone(), rules, self.settings.window));
        let mut actions = Vec::new();
        let stored = entry.stored.get_or_insert_with(|| {
            let mut stored = new();
            stored.linked(&mut actions);
            stored
        });
        stored.announced(message, &mut actions);
        self.perform(channel, entry, actions);
        self.budget.weigh(entry);
        drop(shard);
        self.keep_budget();
    }

    fn broken(&self, channel: &Channel) {
        let mut shard = self.shard(channel.as_str()).lock();
        if let Some(entry) = shard.channels.get_mut(channel) {
            entry.confirmed = false;
            if let Some(stored) = &mut entry.stored {
                stored.broken();
            }
        }
    }

    fn gap(&self, channel: &Channel) {
        let mut shard = self.shard(channel.as_str()).lock();
        if let Some(entry) = shard.channels.get_mut(channel) {
            if entry.stored.is_none() {
                self.flush(entry);
                self.to_lanes(entry, || Op::Gap(entry.key, None));
            }
            // Who came while the link was down begins behind the gap, and misses nothing. A stored
            // channel is read, and tells of a gap only if there is one.
            self.confirm(channel, entry);
        }
    }

    fn quiet(&self, part: usize, parts: usize) -> Vec<(Channel, EntryId)> {
        let mut quiet = Vec::new();
        for shard in self.shards.iter().skip(part).step_by(parts.max(1)) {
            for (channel, entry) in &mut shard.lock().channels {
                let known = entry.stored.as_mut().and_then(|stored| stored.quiet());
                quiet.extend(known.map(|known| (channel.clone(), known)));
            }
        }
        quiet
    }

    fn doubted(&self, channel: &Channel, known: EntryId) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.get_mut(channel) else { return };
        if let Some(stored) = &mut entry.stored {
            let mut actions = Vec::new();
            stored.doubted(known, &mut actions);
            self.perform(channel, entry, actions);
        }
    }

    fn has_room(&self) -> bool {
        self.lanes.iter().all(|lane| lane.has_room())
    }

    async fn room(&self) {
        loop {
            let freed = self.room.notified();
            tokio::pin!(freed);
            // Registers before looking, so that room made in between is not missed.
            freed.as_mut().enable();
            if self.has_room() {
                return;
            }
            freed.await;
        }
    }
}

fn log(channel: &Channel, message: &Message) {
    tracing::info!(
        target: "tidewire::messages",
        %channel,
        event = message.event.as_str(),
        message_id = message.message_id.as_ref().map(tidewire_protocol::MessageId::as_str),
        bytes = message.payload.len(),
        "message"
    );
}

//! Channels without a subscriber: they linger for a while, and are let go.

use std::time::Instant;

use super::{Hub, Shard};

impl Hub {
    /// Lets go of channels that lingered long enough; called about once a second.
    pub fn sweep(&self) {
        self.metrics.window_bytes.set(self.budget.held() as f64);
        let Some(before) = Instant::now().checked_sub(self.settings.linger) else { return };
        for shard in &self.shards {
            let mut guard = shard.lock();
            let shard = &mut *guard;
            while shard.idle.front().is_some_and(|(since, _)| *since <= before) {
                self.let_go_of_oldest(shard, before);
            }
            if shard.channels.capacity() > 4 * shard.channels.len().max(64) {
                shard.channels.shrink_to_fit();
                shard.idle.shrink_to_fit();
            }
        }
    }

    /// Lets go of the channel at the head of the idle ones, if it has had no subscriber since.
    pub(super) fn let_go_of_oldest(&self, shard: &mut Shard, before: Instant) {
        let Some((_, channel)) = shard.idle.pop_front() else { return };
        let Some(entry) = shard.channels.get_mut(&channel) else { return };
        entry.listed_idle = false;
        match entry.idle_since {
            Some(since) if since <= before => {
                if let Some(entry) = shard.channels.remove(&channel) {
                    self.budget.forget(&entry);
                }
                self.broker.unsubscribe(&channel);
                self.metrics.channels.decrement(1);
            }
            // It had subscribers in between.
            Some(since) => {
                entry.listed_idle = true;
                shard.idle.push_back((since, channel));
            }
            None => {}
        }
    }
}

//! The channels of this node, as operators see them.

use std::collections::BinaryHeap;

use tidewire_protocol::Channel;

use super::Hub;

/// A channel with subscribers, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// Its name.
    pub channel: Channel,
    /// Its subscriptions on this node.
    pub subscribers: usize,
}

impl Hub {
    /// The channels of this node that have subscribers and begin with `prefix`, by name: the first
    /// `limit` after `after`.
    pub fn list(&self, prefix: &str, after: &str, limit: usize) -> Vec<Listed> {
        // The first ones by name; the largest of them on top, to be replaced by smaller ones.
        let mut found = BinaryHeap::new();
        for shard in &self.shards {
            let shard = shard.lock();
            for (channel, entry) in &shard.channels {
                let name = channel.as_str();
                if name.starts_with(prefix) && name > after && !entry.lanes.is_empty() {
                    let subscribers = entry.lanes.iter().map(|(_, count)| count).sum();
                    found.push(Listed { channel: channel.clone(), subscribers });
                    if found.len() > limit {
                        found.pop();
                    }
                }
            }
        }
        found.into_sorted_vec()
    }
}

//! Live channels that want only the newest message of each event in an interval.
//!
//! Game state sixty times a second and price feeds: what is newer makes what is older worthless.
//! The first message goes out at once and opens an interval; what comes within it waits, each
//! event's newest in the place of its older ones, and goes out together at its end, which opens
//! the next; an interval in which nothing came is the last. An interval stands with its channel,
//! under the shard's lock. Intervals of a namespace are all of the same length, so they end in the
//! order in which they began: one task for each namespace that conflates waits for the ends, and no
//! channel or connection has a timer.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tidewire_protocol::{Channel, Namespaces};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Entry, Hub};
use crate::inbox::{ChannelKey, Op};
use crate::wire::Encoded;

/// Messages that may wait in an interval, each of another event, before they go out early.
const MAX_EVENTS: usize = 256;

/// What waits for the end of a channel's interval, in the order in which it came.
#[derive(Default)]
pub(super) struct Interval {
    newest: Vec<Arc<Encoded>>,
}

impl Interval {
    /// Lets a message wait. True if one of the same event, which waited, is superseded.
    fn put(&mut self, message: Arc<Encoded>) -> bool {
        let same = |one: &Arc<Encoded>| one.message.event == message.message.event;
        let old = self.newest.iter().position(same).map(|at| self.newest.remove(at));
        self.newest.push(message);
        old.is_some()
    }

    /// Whether no further event fits.
    fn is_full(&self) -> bool {
        self.newest.len() >= MAX_EVENTS
    }

    /// Takes what waits.
    fn take(&mut self) -> Vec<Arc<Encoded>> {
        std::mem::take(&mut self.newest)
    }
}

/// An interval that has begun.
struct Begun {
    ends: Instant,
    channel: Channel,
    key: ChannelKey,
}

/// The ends that are waited for: at most one for each channel.
pub(super) struct Intervals {
    /// By the namespace's number; only of those that conflate.
    namespaces: Vec<Option<(Duration, UnboundedSender<Begun>)>>,
}

impl Intervals {
    /// Starts a task for each namespace that conflates; they end with the hub.
    pub(super) fn new(namespaces: &Namespaces, hub: &Weak<Hub>, runtime: &Handle) -> Self {
        let start = |at| {
            let length = namespaces.rules(at).conflate?;
            let (sender, begun) = unbounded_channel();
            runtime.spawn(wait_for_ends(hub.clone(), begun));
            Some((length, sender))
        };
        Self { namespaces: (0..namespaces.names().count()).map(start).collect() }
    }

    /// Whether the channels of this namespace are conflated.
    fn has(&self, namespace: usize) -> bool {
        self.namespaces[namespace].is_some()
    }

    /// A channel's interval begins now: [`Hub::interval_ends`] is called at its end.
    fn begin(&self, namespace: usize, channel: &Channel, key: ChannelKey) {
        if let Some((length, sender)) = &self.namespaces[namespace] {
            let begun = Begun { ends: Instant::now() + *length, channel: channel.clone(), key };
            // The task ends only with the hub.
            let _ = sender.send(begun);
        }
    }
}

async fn wait_for_ends(hub: Weak<Hub>, mut begun: UnboundedReceiver<Begun>) {
    while let Some(Begun { ends, channel, key }) = begun.recv().await {
        if ends > Instant::now() {
            tokio::time::sleep_until(ends.into()).await;
        }
        let Some(hub) = hub.upgrade() else { return };
        hub.interval_ends(&channel, key);
    }
}

impl Hub {
    /// Delivers a message of a live channel, now or at the end of its interval.
    pub(super) fn deliver_live(&self, namespace: usize, entry: &mut Entry, message: Arc<Encoded>) {
        if !self.intervals.has(namespace) {
            return self.to_lanes(entry, || Op::Deliver(entry.key, message.clone()));
        }
        let Some(interval) = &mut entry.interval else {
            entry.interval = Some(Box::default());
            self.intervals.begin(namespace, &entry.channel, entry.key);
            return self.to_lanes(entry, || Op::Deliver(entry.key, message.clone()));
        };
        if interval.put(message) {
            self.metrics.superseded[namespace].increment(1);
        }
        if interval.is_full() {
            self.flush(entry);
        }
    }

    /// A channel's interval is over. With something to deliver, the next one begins.
    fn interval_ends(&self, channel: &Channel, key: ChannelKey) {
        let mut shard = self.shard(channel.as_str()).lock();
        let Some(entry) = shard.channels.get_mut(channel).filter(|entry| entry.key == key) else {
            return;
        };
        if self.flush(entry) {
            self.intervals.begin(self.settings.namespaces.index(channel), channel, key);
        } else {
            entry.interval = None;
        }
    }

    /// Delivers what waits in the channel's interval; false if nothing does.
    pub(super) fn flush(&self, entry: &mut Entry) -> bool {
        let waiting = entry.interval.as_mut().map(|it| it.take()).unwrap_or_default();
        for message in &waiting {
            self.to_lanes(entry, || Op::Deliver(entry.key, message.clone()));
        }
        !waiting.is_empty()
    }
}

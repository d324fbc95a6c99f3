//! Live channels that want only the newest message of each event in an interval.
//!
//! Game state sixty times a second and price feeds: what is newer makes what is older worthless.
//! The first message goes out at once and opens an interval; what comes within it waits, each
//! event's newest in the place of its older ones, and goes out together at its end, which opens
//! the next; an interval in which nothing came is the last. The hub keeps an interval with its
//! channel and calls here under the channel's lock. Intervals of a namespace are all of the same
//! length, so they end in the order in which they began: one task for each namespace that
//! conflates waits for the ends, and no channel or connection has a timer.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tidewire_protocol::{Channel, Namespaces};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::hub::Hub;
use crate::inbox::ChannelKey;
use crate::wire::Encoded;

/// Messages that may wait in an interval, each of another event, before they go out early.
const MAX_EVENTS: usize = 256;

/// What waits for the end of a channel's interval, in the order in which it came.
#[derive(Default)]
pub(crate) struct Interval {
    newest: Vec<Arc<Encoded>>,
}

impl Interval {
    /// Lets a message wait. True if one of the same event, which waited, is superseded.
    pub(crate) fn put(&mut self, message: Arc<Encoded>) -> bool {
        let same = |one: &Arc<Encoded>| one.message.event == message.message.event;
        let old = self.newest.iter().position(same).map(|at| self.newest.remove(at));
        self.newest.push(message);
        old.is_some()
    }

    /// Whether no further event fits.
    pub(crate) fn is_full(&self) -> bool {
        self.newest.len() >= MAX_EVENTS
    }

    /// Takes what waits.
    pub(crate) fn take(&mut self) -> Vec<Arc<Encoded>> {
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
pub(crate) struct Intervals {
    /// By the namespace's number; only of those that conflate.
    namespaces: Vec<Option<(Duration, UnboundedSender<Begun>)>>,
}

impl Intervals {
    /// Starts a task for each namespace that conflates; they end with the hub.
    pub(crate) fn new(namespaces: &Namespaces, hub: &Weak<Hub>, runtime: &Handle) -> Self {
        let start = |at| {
            let length = namespaces.rules(at).conflate?;
            let (sender, begun) = unbounded_channel();
            runtime.spawn(wait_for_ends(hub.clone(), begun));
            Some((length, sender))
        };
        Self { namespaces: (0..namespaces.names().count()).map(start).collect() }
    }

    /// Whether the channels of this namespace are conflated.
    pub(crate) fn has(&self, namespace: usize) -> bool {
        self.namespaces[namespace].is_some()
    }

    /// A channel's interval begins now: [`Hub::interval_ends`] is called at its end.
    pub(crate) fn begin(&self, namespace: usize, channel: &Channel, key: ChannelKey) {
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

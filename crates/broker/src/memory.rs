//! The embedded broker: one process, no other part.
//!
//! A publish is handed to the hub by the thread that publishes it. Only when the lanes are behind
//! does it go through a queue, which keeps the order and makes the publishers wait.

use std::collections::VecDeque;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire_protocol::{Channel, Message};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::{Broker, Confirmation, Events, Origin, PublishError, Receipt, Vital};

/// The most publishes that wait for room. Each belongs to a publisher that waits for its receipt,
/// so that honest ones never get there.
const MAX_WAITING: usize = 4_096;
/// The most bytes of payload that wait.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// How long a publisher waits for room.
const PATIENCE: Duration = Duration::from_secs(2);

/// The embedded broker.
#[derive(Default)]
pub struct MemoryBroker {
    shared: Arc<Shared>,
    drain: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    /// Held while a message is handed over, so that the queue cannot be overtaken.
    state: Mutex<State>,
    waiting: Notify,
}

#[derive(Default)]
struct State {
    events: Option<Arc<dyn Events>>,
    queue: VecDeque<Waiting>,
    /// Of the payloads in the queue.
    bytes: usize,
}

struct Waiting {
    channel: Channel,
    message: Message,
    receipt: oneshot::Sender<()>,
}

impl MemoryBroker {
    /// A broker with no history.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    /// # Panics
    /// Outside a tokio runtime.
    fn start(&self, events: Arc<dyn Events>) {
        self.shared.state.lock().events = Some(events.clone());
        let task = tokio::spawn(Vital::task("memory broker", drain(self.shared.clone(), events)));
        *self.drain.lock() = Some(task);
    }

    fn subscribe(&self, _channel: &Channel) -> Confirmation {
        Confirmation::Now
    }

    fn unsubscribe(&self, _channel: &Channel) {}

    fn publish(&self, channel: Channel, message: Message) -> Receipt {
        let mut state = self.shared.state.lock();
        let Some(events) = state.events.clone() else {
            let error = PublishError::Unavailable("the broker is closed".into());
            return Box::pin(ready(Err(error)));
        };
        if state.queue.is_empty() && events.has_room() {
            events.message(channel.as_str(), message, Origin::Gateway);
            return Box::pin(ready(Ok(())));
        }
        let bytes = message.payload.len();
        if state.queue.len() >= MAX_WAITING || state.bytes + bytes > MAX_WAITING_BYTES {
            let error = PublishError::Unavailable("too many publishes are waiting".into());
            return Box::pin(ready(Err(error)));
        }
        let (receipt, done) = oneshot::channel();
        state.bytes += bytes;
        state.queue.push_back(Waiting { channel, message, receipt });
        drop(state);
        self.shared.waiting.notify_one();
        Box::pin(async move {
            // The sender goes unused only when the broker closes with the message in its queue.
            let closed = || PublishError::Unavailable("the broker is closed".into());
            match tokio::time::timeout(PATIENCE, done).await {
                Ok(received) => received.map_err(|_| closed()),
                // It stays in the queue, and may yet be published.
                Err(_) => Err(PublishError::Timeout),
            }
        })
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn close(&self) {
        let task = self.drain.lock().take();
        if let Some(task) = task {
            task.abort();
        }
        let mut state = self.shared.state.lock();
        state.events = None;
        state.queue.clear();
        state.bytes = 0;
    }
}

/// Hands over what waits, as room comes.
async fn drain(shared: Arc<Shared>, events: Arc<dyn Events>) {
    loop {
        shared.waiting.notified().await;
        loop {
            events.room().await;
            let mut state = shared.state.lock();
            let Some(next) = state.queue.pop_front() else { break };
            state.bytes -= next.message.payload.len();
            events.message(next.channel.as_str(), next.message, Origin::Gateway);
            // A publisher that went away does not need the receipt.
            let _ = next.receipt.send(());
        }
    }
}

//! The embedded broker: one process, no other part.
//!
//! A publish is handed to the hub by the thread that publishes it. Only when the lanes are behind
//! does it go through a queue, which keeps the order and makes the publishers wait.

mod log;

use std::collections::VecDeque;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire_protocol::{Channel, Message, Namespaces};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::{
    Broker, Confirmation, Events, Origin, PublishError, Published, Publisher, Query, ReadError,
    ReadReceipt, Receipt, Vital,
};
use log::Logs;

/// The most publishes that wait for room. Each belongs to a publisher that waits for its receipt,
/// so that honest ones never get there.
const MAX_WAITING: usize = 4_096;
/// How often what has expired is thrown away.
const SWEEP: Duration = Duration::from_secs(1);
/// The most bytes of payload that wait.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// How long a publisher waits for room.
const PATIENCE: Duration = Duration::from_secs(2);

/// The embedded broker.
pub struct MemoryBroker {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    /// Held while a message is handed over, so that the queue cannot be overtaken.
    state: Mutex<State>,
    waiting: Notify,
}

struct State {
    events: Option<Arc<dyn Events>>,
    logs: Logs,
    queue: VecDeque<Waiting>,
    /// Of the payloads in the queue.
    bytes: usize,
}

struct Waiting {
    publish: Publish,
    receipt: oneshot::Sender<Result<Published, PublishError>>,
}

/// A message on its way.
struct Publish {
    channel: Channel,
    message: Message,
    publisher: Publisher,
}

impl MemoryBroker {
    /// A broker that keeps what the namespaces' rules say, and remembers messageIds for that long.
    #[must_use]
    pub fn new(namespaces: Arc<Namespaces>, dedupe: Duration) -> Self {
        let logs = Logs::new(namespaces, dedupe);
        let state = State { events: None, logs, queue: VecDeque::new(), bytes: 0 };
        let shared = Shared { state: Mutex::new(state), waiting: Notify::new() };
        Self { shared: Arc::new(shared), tasks: Mutex::default() }
    }
}

impl State {
    /// Keeps the message, if its channel is stored, and hands it over.
    fn publish(
        &mut self,
        events: &dyn Events,
        publish: Publish,
    ) -> Result<Published, PublishError> {
        let Publish { channel, mut message, publisher } = publish;
        let published = self.logs.append(&channel, &mut message, &publisher)?;
        if !published.duplicate {
            events.message(channel.as_str(), message, Origin::Gateway);
        }
        Ok(published)
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    /// # Panics
    /// Outside a tokio runtime.
    fn start(&self, events: Arc<dyn Events>) {
        self.shared.state.lock().events = Some(events.clone());
        let drain = drain(self.shared.clone(), events);
        let sweep = sweep(self.shared.clone());
        *self.tasks.lock() = vec![
            tokio::spawn(Vital::task("memory broker", drain)),
            tokio::spawn(Vital::task("memory broker's sweep", sweep)),
        ];
    }

    fn subscribe(&self, _channel: &Channel) -> Confirmation {
        Confirmation::Now
    }

    fn unsubscribe(&self, _channel: &Channel) {}

    fn publish(&self, channel: Channel, message: Message, publisher: Publisher) -> Receipt {
        let mut state = self.shared.state.lock();
        let Some(events) = state.events.clone() else {
            let error = PublishError::Unavailable("the broker is closed".into());
            return Box::pin(ready(Err(error)));
        };
        let publish = Publish { channel, message, publisher };
        if state.queue.is_empty() && events.has_room() {
            return Box::pin(ready(state.publish(&*events, publish)));
        }
        let bytes = publish.message.payload.len();
        if state.queue.len() >= MAX_WAITING || state.bytes + bytes > MAX_WAITING_BYTES {
            let error = PublishError::Unavailable("too many publishes are waiting".into());
            return Box::pin(ready(Err(error)));
        }
        let (receipt, done) = oneshot::channel();
        state.bytes += bytes;
        state.queue.push_back(Waiting { publish, receipt });
        drop(state);
        self.shared.waiting.notify_one();
        Box::pin(async move {
            // The sender goes unused only when the broker closes with the message in its queue.
            let closed = || PublishError::Unavailable("the broker is closed".into());
            match tokio::time::timeout(PATIENCE, done).await {
                Ok(received) => received.unwrap_or_else(|_| Err(closed())),
                // It stays in the queue, and may yet be published.
                Err(_) => Err(PublishError::Timeout),
            }
        })
    }

    fn read(&self, channel: &Channel, query: Query) -> ReadReceipt {
        let state = self.shared.state.lock();
        Box::pin(ready(match state.events {
            Some(_) => Ok(state.logs.read(channel, query)),
            None => Err(ReadError("the broker is closed".into())),
        }))
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    async fn close(&self) {
        for task in std::mem::take(&mut *self.tasks.lock()) {
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
            state.bytes -= next.publish.message.payload.len();
            let outcome = state.publish(&*events, next.publish);
            // A publisher that went away does not need the receipt.
            let _ = next.receipt.send(outcome);
        }
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut seconds = tokio::time::interval(SWEEP);
    loop {
        seconds.tick().await;
        shared.state.lock().logs.sweep();
    }
}

//! A broker that does what the test says, and sessions that write down what they are told.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidewire_broker::{
    Broker, Confirmation, Events, Origin, Published, Publisher, Query, ReadReceipt, Receipt,
};
use tidewire_hub::{
    Beat, Begin, Encoded, Form, Gap, Hub, HubSettings, Lane, LaneSettings, Lanes, Outbox,
    OutboxLimits, Session, Sink, Start, Subscription, WindowLimits,
};
use tidewire_protocol::{
    Channel, Code, Cursor, Event, Message, NamespaceRules, Namespaces, Payload, SessionId,
    Timestamp, sse::Style,
};
use tokio::sync::{mpsc, oneshot};

pub fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

pub fn message(n: u64) -> Message {
    Message {
        event: Event::default(),
        payload: Payload::Json(Bytes::from(n.to_string())),
        message_id: None,
        timestamp: Timestamp::now(),
        from: None,
        exclude: None,
        stored: None,
    }
}

/// Confirms nothing by itself; remembers what it was asked for, in order.
#[derive(Default)]
pub struct ScriptedBroker {
    pub wishes: Mutex<Vec<(bool, Channel)>>,
}

#[async_trait]
impl Broker for ScriptedBroker {
    fn start(&self, _: Arc<dyn Events>) {}
    fn subscribe(&self, channel: &Channel) -> Confirmation {
        self.wishes.lock().push((true, channel.clone()));
        Confirmation::Later
    }
    fn unsubscribe(&self, channel: &Channel) {
        self.wishes.lock().push((false, channel.clone()));
    }
    fn read(&self, _: &Channel, _: Query) -> ReadReceipt {
        Box::pin(std::future::pending())
    }
    fn publish(&self, _: Channel, _: Message, _: Publisher) -> Receipt {
        Box::pin(std::future::ready(Ok(Published::default())))
    }
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
    async fn close(&self) {}
}

/// What a session was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Subscribed(Channel),
    Refused(Channel, Code),
    Gap(Channel),
    Shutdown(Duration),
    End,
}

/// A session without a socket: what it is sent is fetched from its outbox.
pub struct Recorder {
    pub id: SessionId,
    pub outbox: Outbox,
    pub told: mpsc::UnboundedSender<Told>,
}

impl Session for Recorder {
    fn id(&self) -> SessionId {
        self.id
    }
    fn form(&self) -> Form {
        Form::Sse(Style::Payload)
    }
    fn outbox(&self) -> &Outbox {
        &self.outbox
    }
    fn subscribed(&self, channel: &Channel, _: Option<&Begin>) {
        self.mark("subscribed");
        let _ = self.told.send(Told::Subscribed(channel.clone()));
    }
    fn refused(&self, channel: &Channel, code: Code) {
        let _ = self.told.send(Told::Refused(channel.clone(), code));
    }
    fn takes_backlog(&self) -> bool {
        true
    }
    fn is_behind(&self, _: &Channel, _: Cursor) {}
    fn passed_over(&self, _: &Encoded) {}
    fn gap(&self, channel: &Channel, _: Option<&Gap>) {
        self.mark("gap");
        let _ = self.told.send(Told::Gap(channel.clone()));
    }
    fn beat(&self, _: Beat) {}
    fn shutdown(&self, reconnect: Duration) {
        let _ = self.told.send(Told::Shutdown(reconnect));
    }
    fn end(&self) {
        let _ = self.told.send(Told::End);
    }
}

impl Recorder {
    /// Puts a mark among the messages, where a reply would stand.
    fn mark(&self, text: &'static str) {
        self.outbox.send(&Bytes::from_static(text.as_bytes()), 0);
    }
}

/// Lanes with a scripted broker.
pub struct Rig {
    pub lanes: Lanes,
    pub broker: Arc<ScriptedBroker>,
}

impl Rig {
    pub fn new(lanes: usize, linger: Duration) -> Self {
        Self::with_rules(lanes, linger, NamespaceRules::live())
    }

    pub fn with_rules(lanes: usize, linger: Duration, rules: NamespaceRules) -> Self {
        let broker = Arc::new(ScriptedBroker::default());
        let rules = Namespaces::new(rules, []);
        let window = WindowLimits { messages: 100, bytes: 1 << 20 };
        let hub =
            HubSettings { linger, namespaces: Arc::new(rules), window, window_bytes: 1 << 20 };
        let lane = LaneSettings {
            websocket_heartbeat: 25,
            websocket_grace: 10,
            sse_heartbeat: 15,
            compress_from: 512,
        };
        let lanes = Lanes::start(lanes, broker.clone(), hub, lane).unwrap();
        Self { lanes, broker }
    }

    pub fn hub(&self) -> &Arc<Hub> {
        self.lanes.hub()
    }

    pub fn publish(&self, channel: &Channel, n: u64) {
        self.hub().message(channel.as_str(), message(n), Origin::Gateway);
    }

    /// Does this on a lane and waits for it.
    pub async fn on<R: Send + 'static>(
        &self,
        lane: usize,
        work: impl FnOnce(&Rc<Lane>) -> R + Send + 'static,
    ) -> R {
        let (done, wait) = oneshot::channel();
        self.lanes.handles()[lane].run(move |lane| {
            let _ = done.send(work(lane));
        });
        wait.await.unwrap()
    }

    /// A session on a lane that subscribes to the channel at once.
    pub async fn subscriber(&self, lane: usize, channel: &Channel) -> Subscriber {
        self.patient(lane, channel, None).await
    }

    pub async fn patient(
        &self,
        lane: usize,
        channel: &Channel,
        patience: Option<Duration>,
    ) -> Subscriber {
        let (told, hears) = mpsc::unbounded_channel();
        let (leave, left) = oneshot::channel::<()>();
        let (going, gone) = oneshot::channel();
        let (fetched, got) = mpsc::unbounded_channel();
        let channel = channel.clone();
        self.on(lane, move |lane| {
            let limits = OutboxLimits { bytes: 1 << 20, messages: 1_024 };
            let session = Rc::new(Recorder {
                id: SessionId::random(),
                outbox: Outbox::new(Sink::Fetched, Form::Sse(Style::Payload), limits, false),
                told,
            });
            let slot = lane.attach(session.clone());
            let subscription: Subscription =
                lane.subscribe(session.clone(), &channel, Start::Present, patience);
            let lane = lane.clone();
            tokio::task::spawn_local(async move {
                let fetch = async {
                    while let Some(bytes) =
                        std::future::poll_fn(|cx| session.outbox.poll_next(cx)).await
                    {
                        let _ = fetched.send(String::from_utf8(bytes.to_vec()).unwrap());
                    }
                };
                tokio::select! { () = fetch => {}, _ = left => {} }
                lane.unsubscribe(&subscription);
                lane.detach(slot);
                let _ = going.send(());
            });
        })
        .await;
        Subscriber { hears, got, leave, gone }
    }
}

/// The test's end of a session.
pub struct Subscriber {
    hears: mpsc::UnboundedReceiver<Told>,
    got: mpsc::UnboundedReceiver<String>,
    leave: oneshot::Sender<()>,
    gone: oneshot::Receiver<()>,
}

impl Subscriber {
    pub async fn told(&mut self) -> Told {
        tokio::time::timeout(Duration::from_secs(20), self.hears.recv()).await.unwrap().unwrap()
    }

    /// What came next, as it was written.
    pub async fn got(&mut self) -> String {
        tokio::time::timeout(Duration::from_secs(20), self.got.recv()).await.unwrap().unwrap()
    }

    /// Takes bytes until these stand at the end; all of them.
    pub async fn until(&mut self, end: &str) -> String {
        let mut all = String::new();
        while !all.ends_with(end) {
            all.push_str(&self.got().await);
        }
        all
    }

    /// Leaves the channel and the lane; done when this returns.
    pub async fn leave(self) {
        drop(self.leave);
        self.gone.await.unwrap();
    }
}

//! The tests that every broker passes: its obligations, on real parts.
//!
//! A broker's crate calls [`run`] from a test of its own with a function that makes two brokers
//! which are two nodes of one cluster (for the embedded broker, one broker twice).

mod stored;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidewire_protocol::{
    Channel, Event, Message, MessageId, NamespaceRules, Namespaces, Payload, Sender, SessionId,
    Timestamp,
};
use tokio::sync::Notify;

use crate::{Broker, Confirmation, Events, Origin, Published, Publisher};

/// Long enough for any step on a busy machine; a step that fails takes so long to say so.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that a broker told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// [`Events::subscribed`].
    Subscribed(Channel),
    /// [`Events::refused`].
    Refused(Channel),
    /// [`Events::message`].
    Message(Channel, Message, Origin),
    /// [`Events::gap`].
    Gap(Channel),
}

/// An [`Events`] that writes down what it is told.
#[derive(Default)]
pub struct Recorder {
    told: Mutex<VecDeque<Told>>,
    change: Notify,
}

impl Recorder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The next thing told, in order.
    ///
    /// # Panics
    /// When nothing is told for a long time.
    pub async fn next(&self) -> Told {
        let told = tokio::time::timeout(PATIENCE, async {
            loop {
                let change = self.change.notified();
                if let Some(told) = self.told.lock().pop_front() {
                    return told;
                }
                change.await;
            }
        });
        told.await.unwrap_or_else(|_| panic!("nothing was told for {PATIENCE:?}"))
    }

    /// Forgets what was told so far and does something before anything else is told, as a node
    /// does that wishes for something under its lock: what is told then is told after the wish.
    pub fn afresh<R>(&self, act: impl FnOnce() -> R) -> R {
        let mut told = self.told.lock();
        told.clear();
        act()
    }

    /// Takes all that was told so far.
    pub fn take(&self) -> Vec<Told> {
        self.told.lock().drain(..).collect()
    }

    fn note(&self, told: Told) {
        self.told.lock().push_back(told);
        self.change.notify_one();
    }
}

#[async_trait]
impl Events for Recorder {
    fn subscribed(&self, channel: &Channel) {
        self.note(Told::Subscribed(channel.clone()));
    }

    fn refused(&self, channel: &Channel, _reason: &str) {
        self.note(Told::Refused(channel.clone()));
    }

    fn message(&self, channel: &str, message: Message, origin: Origin) {
        if let Ok(channel) = Channel::new(channel) {
            self.note(Told::Message(channel, message, origin));
        }
    }

    /// Not written down: when a break is noticed depends on the kind of break; what counts is the
    /// gap that follows.
    fn broken(&self, _channel: &Channel) {}

    fn gap(&self, channel: &Channel) {
        self.note(Told::Gap(channel.clone()));
    }

    fn has_room(&self) -> bool {
        true
    }

    async fn room(&self) {}
}

/// One node: a broker and what it told.
pub struct Node {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// What it told.
    pub told: Arc<Recorder>,
}

impl Node {
    /// Starts the broker with a recorder of its own.
    pub fn start(broker: Arc<dyn Broker>) -> Self {
        let told = Recorder::new();
        broker.start(told.clone());
        Self { broker, told }
    }

    /// Subscribes and waits for the confirmation.
    ///
    /// # Panics
    /// When something else is told first.
    pub async fn subscribe(&self, channel: &Channel) {
        if self.broker.subscribe(channel) == Confirmation::Later {
            assert_eq!(self.told.next().await, Told::Subscribed(channel.clone()));
        }
    }
}

/// A message with everything on it, told apart by `n`.
#[must_use]
pub fn message(n: u64) -> Message {
    Message {
        event: Event::default(),
        payload: Payload::Json(Bytes::from(n.to_string())),
        message_id: MessageId::new(&format!("m{n}")).ok(),
        timestamp: Timestamp::from_millis(n),
        from: Some(Sender {
            user: Some("alice".into()),
            session: Some(SessionId::from_bytes([1; 16])),
        }),
        exclude: Some(SessionId::from_bytes([2; 16])),
        stored: None,
    }
}

/// The rules that a broker must be made with for the suite: channels are live, but for those of
/// `kept` (50 messages, 5 minutes) and `brief` (50 messages, 1 second).
#[must_use]
pub fn namespaces() -> Namespaces {
    let kept = NamespaceRules { history_size: 50, ..NamespaceRules::default() };
    let brief = NamespaceRules { history_ttl: Duration::from_secs(1), ..kept.clone() };
    let named = [("kept".to_owned(), kept), ("brief".to_owned(), brief)];
    Namespaces::new(NamespaceRules::live(), named)
}

/// Runs the whole suite on two nodes of one cluster, each freshly started with the rules of
/// [`namespaces`].
///
/// # Panics
/// When an obligation is not kept.
pub async fn run(publisher: &Node, subscriber: &Node) {
    stored::run(publisher, subscriber).await;
    what_is_published_after_the_confirmation_arrives(publisher, subscriber).await;
    messages_of_one_publisher_stay_in_order(publisher, subscriber).await;
    every_kind_of_payload_arrives_as_it_was_sent(publisher, subscriber).await;
    a_thousand_channels_are_subscribed_at_once(publisher, subscriber).await;
    wishes_that_change_quickly_end_as_the_last_one_says(publisher, subscriber).await;
}

fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap_or_else(|e| panic!("{name}: {e}"))
}

async fn publish(node: &Node, to: &Channel, message: Message) {
    let receipt = node.broker.publish(to.clone(), message, Publisher::Anonymous);
    let outcome = tokio::time::timeout(PATIENCE, receipt).await;
    assert_eq!(outcome, Ok(Ok(Published::default())), "publish to {to}");
}

async fn what_is_published_after_the_confirmation_arrives(publisher: &Node, subscriber: &Node) {
    for n in 0..50 {
        let to = channel(&format!("confirmed:{n}"));
        subscriber.subscribe(&to).await;
        publish(publisher, &to, message(n)).await;
        assert_eq!(subscriber.told.next().await, Told::Message(to, message(n), Origin::Gateway));
    }
}

async fn messages_of_one_publisher_stay_in_order(publisher: &Node, subscriber: &Node) {
    let to = channel("ordered");
    subscriber.subscribe(&to).await;
    let receipts: Vec<_> = (0..2_000)
        .map(|n| publisher.broker.publish(to.clone(), message(n), Publisher::Anonymous))
        .collect();
    for receipt in receipts {
        assert_eq!(receipt.await, Ok(Published::default()));
    }
    for n in 0..2_000 {
        let expected = Told::Message(to.clone(), message(n), Origin::Gateway);
        assert_eq!(subscriber.told.next().await, expected);
    }
}

async fn every_kind_of_payload_arrives_as_it_was_sent(publisher: &Node, subscriber: &Node) {
    let to = channel("payloads:ünï/cödé");
    subscriber.subscribe(&to).await;
    let payloads = [
        Payload::Json(Bytes::from_static(b"{\"a\": [1, null, \"\\u0000\"]}")),
        Payload::Binary(Bytes::from_static(b"\xc1\xff\x00")),
        Payload::Binary(Bytes::new()),
        Payload::text(&"x".repeat(60_000)),
    ];
    for payload in payloads {
        let mut sent = message(0);
        sent.payload = payload;
        sent.message_id = None;
        sent.from = None;
        publish(publisher, &to, sent.clone()).await;
        assert_eq!(subscriber.told.next().await, Told::Message(to.clone(), sent, Origin::Gateway));
    }
}

async fn a_thousand_channels_are_subscribed_at_once(publisher: &Node, subscriber: &Node) {
    let all: Vec<_> = (0..1_000).map(|n| channel(&format!("many:{n}"))).collect();
    let later = all.iter().filter(|c| subscriber.broker.subscribe(c) == Confirmation::Later);
    for _ in 0..later.count() {
        let told = subscriber.told.next().await;
        assert!(matches!(told, Told::Subscribed(_)), "{told:?}");
    }
    for to in &all {
        publish(publisher, to, message(1)).await;
    }
    let mut missing: std::collections::HashSet<_> = all.into_iter().collect();
    while !missing.is_empty() {
        match subscriber.told.next().await {
            Told::Message(from, _, _) => assert!(missing.remove(&from), "{from} twice"),
            other => panic!("{other:?}"),
        }
    }
}

async fn wishes_that_change_quickly_end_as_the_last_one_says(publisher: &Node, subscriber: &Node) {
    let to = channel("flicker");
    for _ in 0..100 {
        subscriber.broker.subscribe(&to);
        subscriber.broker.unsubscribe(&to);
    }
    // A confirmation of an earlier wish must not be taken for this one's.
    let confirmation = subscriber.told.afresh(|| subscriber.broker.subscribe(&to));
    if confirmation == Confirmation::Later {
        while subscriber.told.next().await != Told::Subscribed(to.clone()) {}
    }
    publish(publisher, &to, message(7)).await;
    loop {
        match subscriber.told.next().await {
            // Confirmations of wishes that were taken back may still come.
            Told::Subscribed(_) => {}
            told => return assert_eq!(told, Told::Message(to, message(7), Origin::Gateway)),
        }
    }
}

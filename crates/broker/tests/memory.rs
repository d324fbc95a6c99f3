//! The embedded broker passes the suite.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewire_broker::suite::{self, Node};
use tidewire_broker::{Broker, Events, MemoryBroker, Origin, PublishError, Publisher};
use tidewire_protocol::{Channel, Message};
use tokio::sync::watch;

fn broker() -> MemoryBroker {
    MemoryBroker::new(Arc::new(suite::namespaces()), Duration::from_secs(300))
}

#[tokio::test]
async fn suite() {
    // Two nodes cannot share an embedded broker; publisher and subscriber are the same one.
    let node = Node::start(Arc::new(broker()));
    suite::run(&node, &node).await;
}

/// Lanes that are behind until they are told to go on.
struct Behind {
    room: watch::Receiver<bool>,
    got: watch::Sender<Vec<Message>>,
}

#[async_trait]
impl Events for Behind {
    fn subscribed(&self, _: &Channel) {}
    fn refused(&self, _: &Channel, _: &str) {}
    fn message(&self, _: &str, message: Message, _: Origin) {
        self.got.send_modify(|got| got.push(message));
    }
    fn broken(&self, _: &Channel) {}
    fn gap(&self, _: &Channel) {}
    fn has_room(&self) -> bool {
        *self.room.borrow()
    }
    async fn room(&self) {
        self.room.clone().wait_for(|room| *room).await.unwrap();
    }
}

#[tokio::test]
async fn publishers_wait_for_lanes_that_are_behind() {
    let (open, room) = watch::channel(false);
    let (got, seen) = watch::channel(vec![]);
    let broker = broker();
    broker.start(Arc::new(Behind { room, got }));
    let to = Channel::new("a").unwrap();
    let receipts: Vec<_> = (0..5_000)
        .map(|n| broker.publish(to.clone(), suite::message(n), Publisher::Anonymous))
        .collect();
    assert!(seen.borrow().is_empty());
    open.send(true).unwrap();
    let mut refused = 0;
    for receipt in receipts {
        match receipt.await {
            Ok(_) => {}
            Err(PublishError::Unavailable(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    // The wait is bounded, and what was taken came in order.
    let got = seen.borrow();
    assert_eq!(got.len() + refused, 5_000);
    assert_eq!(got.len(), 4_096);
    assert!(got.iter().enumerate().all(|(n, message)| *message == suite::message(n as u64)));
}

#[tokio::test]
async fn a_closed_broker_refuses() {
    let node = Node::start(Arc::new(broker()));
    node.broker.close().await;
    let receipt =
        node.broker.publish(Channel::new("a").unwrap(), suite::message(1), Publisher::Anonymous);
    assert!(matches!(receipt.await, Err(PublishError::Unavailable(_))));
}

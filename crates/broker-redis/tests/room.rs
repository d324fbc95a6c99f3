//! A node without room makes Redis wait; the link does not count as deaf for it.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{channel, quick};
use tidewire_broker::{Broker, Events, Origin};
use tidewire_broker_redis::RedisBroker;
use tidewire_protocol::{Channel, Message, Payload};
use tidewire_testkit::{RedisServer, until};
use tokio::sync::watch;

/// A node whose lanes may be behind.
struct Lanes {
    room: watch::Receiver<bool>,
    seen: watch::Sender<Seen>,
}

#[derive(Default)]
struct Seen {
    subscribed: bool,
    gaps: usize,
    messages: Vec<Vec<u8>>,
}

#[async_trait]
impl Events for Lanes {
    fn subscribed(&self, _: &Channel) {
        self.seen.send_modify(|seen| seen.subscribed = true);
    }
    fn refused(&self, _: &Channel, _: &str) {}
    fn message(&self, _: &str, message: Message, _: Origin) {
        let (Payload::Json(bytes) | Payload::Binary(bytes)) = message.payload;
        self.seen.send_modify(|seen| seen.messages.push(bytes.to_vec()));
    }
    fn broken(&self, _: &Channel) {}
    fn gap(&self, _: &Channel) {
        self.seen.send_modify(|seen| seen.gaps += 1);
    }
    fn has_room(&self) -> bool {
        *self.room.borrow()
    }
    async fn room(&self) {
        // The test that holds the other end goes on until the broker is closed.
        let _ = self.room.clone().wait_for(|room| *room).await;
    }
}

struct Behind {
    broker: RedisBroker,
    room: watch::Sender<bool>,
    seen: watch::Receiver<Seen>,
}

async fn behind(redis: &RedisServer) -> Behind {
    let (room, has_room) = watch::channel(true);
    let (tell, mut seen) = watch::channel(Seen::default());
    let broker = RedisBroker::new(quick(&redis.url())).unwrap();
    broker.start(Arc::new(Lanes { room: has_room, seen: tell }));
    broker.subscribe(&channel("a"));
    seen.wait_for(|seen| seen.subscribed).await.unwrap();
    until("readiness", || broker.ready().is_ok()).await;
    room.send(false).unwrap();
    Behind { broker, room, seen }
}

#[tokio::test]
async fn what_waits_comes_whole_and_in_order() {
    let redis = RedisServer::start().await;
    let mut behind = behind(&redis).await;
    for n in 0..500 {
        redis.publish("tidewire:a", n.to_string()).await;
    }
    // Several times as long as an echo may take.
    let until = tokio::time::Instant::now() + Duration::from_secs(2);
    while tokio::time::Instant::now() < until {
        assert_eq!(behind.broker.ready(), Ok(()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(behind.seen.borrow().messages.is_empty());
    behind.room.send(true).unwrap();
    let seen = behind.seen.wait_for(|seen| seen.messages.len() == 500).await.unwrap();
    let expected: Vec<_> = (0..500).map(|n| n.to_string().into_bytes()).collect();
    assert_eq!((&seen.messages, seen.gaps), (&expected, 0));
}

#[tokio::test]
async fn redis_cuts_off_who_is_behind_for_too_long_and_the_gap_is_told() {
    let redis = RedisServer::with(&["--client-output-buffer-limit", "pubsub 1mb 1mb 60"]).await;
    let mut behind = behind(&redis).await;
    // Valkey 9 does not count the bytes of bodies over 16 KiB, which it shares.
    let body = vec![b'x'; 12_000];
    // More than the sockets' buffers and the limit: in the end nobody listens any more.
    let mut sent = 0;
    while redis.publish("tidewire:a", &body).await > 0 {
        sent += 1;
        assert!(sent < 10_000, "Redis never cuts off");
    }
    behind.room.send(true).unwrap();
    behind.seen.wait_for(|seen| seen.gaps == 1).await.unwrap();
    redis.publish("tidewire:a", "\"last\"").await;
    let last = |seen: &Seen| seen.messages.last().is_some_and(|last| last == b"\"last\"");
    let seen = behind.seen.wait_for(|seen| last(seen)).await.unwrap();
    assert!(seen.messages.len() <= sent + 1);
}

//! What waits together goes to the function in one call: each message fares as if it were alone.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;

use common::{channel, node, publish_stored, quick, ready};
use tidewire_broker::suite::{self, Told};
use tidewire_broker::{PublishError, Published, Publisher, Query};
use tidewire_broker_redis::Settings;
use tidewire_protocol::{Message, Payload};
use tidewire_testkit::{RedisServer, Reply, soon};

/// One connection, so that all that is published at a time waits together.
fn narrow(redis: &RedisServer) -> Settings {
    Settings { publishers: 1, ..quick(&redis.url()) }
}

fn saying(n: u64, text: &str) -> Message {
    Message { payload: Payload::text(text), ..suite::message(n) }
}

/// How often Redis was given a command.
async fn calls(redis: &RedisServer, command: &str) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]).await.text();
    let start = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn each_message_of_a_call_has_its_own_answer() {
    let redis = RedisServer::start().await;
    let node = node(narrow(&redis));
    ready(&node).await;
    let before = publish_stored(&node, &channel("kept:a"), 1).await.unwrap();
    redis.command(&["SET", "{tidewire:kept:broken}:h", "no stream"]).await;
    redis.command(&["SET", "{tidewire:kept:worse}:top", "5-5"]).await;
    redis.command(&["LPUSH", "{tidewire:kept:worst}:top", "no text"]).await;
    let calls_before = calls(&redis, "fcall").await;
    let publish = |to: &str, message: Message| {
        node.broker.publish(channel(to), message, Publisher::Anonymous)
    };
    // All of them are in the queue before the task that sends them runs.
    let receipts = [
        publish("kept:a", suite::message(1)),
        publish("kept:a", saying(1, "another body")),
        publish("kept:a", suite::message(2)),
        publish("kept:broken", suite::message(3)),
        publish("kept:worst", suite::message(3)),
        publish("kept:a", suite::message(2)),
        publish("kept:worse", suite::message(4)),
        publish("kept:b", Message { message_id: None, ..suite::message(5) }),
        publish("kept:a", suite::message(6)),
    ];
    let mut outcomes = vec![];
    for receipt in receipts {
        outcomes.push(receipt.await);
    }
    assert_eq!(calls(&redis, "fcall").await, calls_before + 1, "one call");
    let again = |published: Published| Ok(Published { duplicate: true, ..published });
    assert_eq!(outcomes[0], again(before));
    assert_eq!(outcomes[1], Err(PublishError::Conflict));
    let second = outcomes[2].clone().unwrap();
    let id = |published: Published| published.place.unwrap().1;
    assert!(!second.duplicate && id(second) > id(before));
    for broken in [3, 4] {
        let refused = matches!(&outcomes[broken], Err(PublishError::Unavailable(why)) if why.contains("WRONGTYPE"));
        assert!(refused, "{:?}", outcomes[broken]);
    }
    assert_eq!(outcomes[5], again(second), "in the same call");
    assert!(outcomes[6..].iter().all(|outcome| outcome.is_ok()), "{outcomes:?}");
    // What was refused is not remembered, and what was kept is linked.
    redis.command(&["DEL", "{tidewire:kept:broken}:h"]).await;
    assert!(!publish_stored(&node, &channel("kept:broken"), 3).await.unwrap().duplicate);
    let reading = node.broker.read(&channel("kept:a"), Query::newest(9)).await.unwrap();
    let stored: Vec<_> = reading.entries.iter().map(|entry| entry.stored.unwrap()).collect();
    assert_eq!(stored.len(), 3);
    assert_eq!((stored[1].prev, stored[2].prev), (Some(stored[0].id), Some(stored[1].id)));
    assert_eq!(reading.top, Some(stored[2].id));
    for key in ["{tidewire:kept:b}:h", "{tidewire:kept:b}:top", "{tidewire:kept:a}:top"] {
        assert!(matches!(redis.command(&["PTTL", key]).await, Reply::Int(1..)), "{key} has no end");
    }
}

#[tokio::test]
async fn a_channel_that_is_forbidden_costs_only_itself() {
    let redis = RedisServer::start().await;
    let user = "ACL SETUSER ali on >pw resetchannels &tidewire:{node}:* &tidewire:kept:o* ~* +@all";
    redis.command(&user.split(' ').collect::<Vec<_>>()).await;
    let mut settings = narrow(&redis);
    settings.url = format!("redis://ali:pw@{}", redis.addr()).into();
    let node = node(settings);
    ready(&node).await;
    let receipts: Vec<_> = (0..60)
        .map(|n| (n, channel(["kept:open", "kept:secret"][n as usize % 2])))
        .map(|(n, to)| node.broker.publish(to, suite::message(n), Publisher::Anonymous))
        .collect();
    for (n, receipt) in receipts.into_iter().enumerate() {
        match (n % 2, receipt.await) {
            (0, Ok(_)) => {}
            (1, Err(PublishError::Unavailable(why))) if why.contains("NOPERM") => {}
            (n, other) => panic!("{n} {other:?}"),
        }
    }
    let Reply::Array(keys) = redis.command(&["KEYS", "{tidewire:kept:secret}*"]).await else {
        panic!()
    };
    assert!(keys.is_empty(), "{keys:?}");
}

/// Under load, to more channels than one, with a flush in between: every message comes once and in
/// order, and the links of each life lead from one to the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_together_arrives_in_order_and_linked() {
    const CHANNELS: usize = 7;
    let redis = RedisServer::start().await;
    let (publisher, subscriber) = (node(narrow(&redis)), node(quick(&redis.url())));
    let all: Vec<_> = (0..CHANNELS).map(|n| channel(&format!("kept:{n}"))).collect();
    for to in &all {
        subscriber.subscribe(to).await;
    }
    ready(&publisher).await;
    for half in 0..2_u64 {
        let receipts: Vec<_> = (0..2_000_u64)
            .map(|n| 2_000 * half + n)
            .map(|n| {
                let to = all[n as usize % CHANNELS].clone();
                publisher.broker.publish(to, suite::message(n), Publisher::Anonymous)
            })
            .collect();
        let mut lives = HashSet::new();
        for receipt in receipts {
            lives.insert(soon("a receipt", receipt).await.unwrap().place.unwrap().0);
        }
        assert_eq!(lives.len(), 1);
        let mut last = vec![None; CHANNELS];
        for _ in 0..2_000 {
            let Told::Message(to, message, _) = subscriber.told.next().await else { panic!() };
            let at = all.iter().position(|one| *one == to).unwrap();
            let stored = message.stored.unwrap();
            let n: u64 = message.message_id.unwrap().as_str()[1..].parse().unwrap();
            let before = last[at].replace((stored.id, n));
            assert_eq!(stored.prev, before.map(|(id, _)| id));
            assert!(before.is_none_or(|(id, before)| id < stored.id && before < n));
        }
        redis.command(&["FLUSHALL"]).await;
    }
}

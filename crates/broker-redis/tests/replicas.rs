//! Waiting for replicas: what is acknowledged is on as many as were asked for.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{channel, node, passes, publish, publish_stored, quick, ready};
use tidewire_broker::suite::{self, Node};
use tidewire_broker::{PublishError, Published, Publisher};
use tidewire_broker_redis::Settings;
use tidewire_testkit::{RedisServer, Reply, soon};

/// Long enough for a replica on a busy machine.
const WAIT: Duration = Duration::from_millis(900);
const KEPT: &str = "kept:a";

fn waiting(redis: &RedisServer) -> Settings {
    Settings { wait_replicas: 1, wait_timeout: WAIT, ..quick(&redis.url()) }
}

async fn with_replica() -> (RedisServer, RedisServer) {
    let master = RedisServer::start().await;
    let port = master.addr().port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]).await;
    soon("the replica", async {
        while !info(&master).await.contains("state=online") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    (master, replica)
}

async fn info(redis: &RedisServer) -> String {
    redis.command(&["INFO", "replication"]).await.text()
}

async fn kept(redis: &RedisServer) -> i64 {
    match redis.command(&["XLEN", "{tidewire:kept:a}:h"]).await {
        Reply::Int(count) => count,
        other => panic!("{other:?}"),
    }
}

/// Publishes until it is acknowledged; nothing but these errors may come before.
async fn acknowledged(node: &Node, n: u64) -> Published {
    soon("an acknowledgement", async {
        loop {
            match publish_stored(node, &channel(KEPT), n).await {
                Ok(published) => return published,
                Err(PublishError::Timeout | PublishError::Unavailable(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn the_suite_holds_while_replicas_are_waited_for() {
    let (master, _replica) = with_replica().await;
    let node = node(waiting(&master));
    suite::run(&node, &node).await;
    node.broker.close().await;
}

#[tokio::test]
async fn without_the_replica_nothing_is_acknowledged_and_with_it_the_retry_is() {
    let (master, mut replica) = with_replica().await;
    let node = node(waiting(&master));
    let (to, live) = (channel(KEPT), channel("news"));
    node.subscribe(&live).await;
    ready(&node).await;
    for n in 0..20 {
        acknowledged(&node, n).await;
        assert_eq!(kept(&replica).await, i64::try_from(n).unwrap() + 1, "not there yet");
    }

    replica.pause();
    assert_eq!(publish(&node, &to, 20).await, Err(PublishError::Timeout));
    // Many at a time: each is answered in time, and none is acknowledged.
    let begun = Instant::now();
    let receipts: Vec<_> = (100..300)
        .map(|n| node.broker.publish(to.clone(), suite::message(n), Publisher::Anonymous))
        .collect();
    // What is live does not wait with them.
    passes(&node, &node, &live, 1).await;
    assert!(begun.elapsed() < WAIT, "{:?}", begun.elapsed());
    for receipt in receipts {
        let outcome = receipt.await;
        assert!(
            matches!(outcome, Err(PublishError::Timeout | PublishError::Unavailable(_))),
            "{outcome:?}"
        );
    }
    assert!(begun.elapsed() < Duration::from_millis(2_200), "{:?}", begun.elapsed());
    // It is Redis's affair, not the connection's.
    assert_eq!(node.broker.ready(), Ok(()));

    replica.resume();
    assert!(acknowledged(&node, 20).await.duplicate, "it was kept, and is not kept twice");
    assert!(acknowledged(&node, 100).await.duplicate);
    assert_eq!(kept(&replica).await, kept(&master).await);
}

/// The first attempt was made by a node that does not wait: its message is on no replica when the
/// second one comes, which writes nothing that anybody would have to wait for.
#[tokio::test]
async fn a_duplicate_is_waited_for_too() {
    let (master, mut replica) = with_replica().await;
    let (hasty, patient) = (node(quick(&master.url())), node(waiting(&master)));
    ready(&hasty).await;
    ready(&patient).await;
    replica.pause();
    let first = publish_stored(&hasty, &channel(KEPT), 1).await.unwrap();
    assert_eq!(publish_stored(&patient, &channel(KEPT), 1).await, Err(PublishError::Timeout));
    replica.resume();
    assert_eq!(acknowledged(&patient, 1).await, Published { duplicate: true, ..first });
}

#[tokio::test]
async fn what_is_refused_is_not_waited_for() {
    let (master, mut replica) = with_replica().await;
    let node = node(waiting(&master));
    ready(&node).await;
    acknowledged(&node, 1).await;
    replica.pause();
    let mut other = suite::message(1);
    other.payload = tidewire_protocol::Payload::text("something else");
    let outcome = node.broker.publish(channel(KEPT), other, Publisher::Anonymous).await;
    assert_eq!(outcome, Err(PublishError::Conflict));
}

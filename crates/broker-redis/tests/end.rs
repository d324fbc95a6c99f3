//! The broker's end, which nothing may hold up.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::mpsc;

use common::{channel, quick};
use tidewire_broker::suite::Node;
use tidewire_broker::{Broker, Query};
use tidewire_broker_redis::RedisBroker;
use tidewire_testkit::{RedisServer, soon};

/// A thread that does not come back to its tasks held up the end of the node for ever.
#[tokio::test]
async fn the_end_does_not_wait_for_tasks_that_do_not_end() {
    let redis = RedisServer::start().await;
    let broker = Arc::new(RedisBroker::new(quick(&redis.url())).unwrap());
    let (release, stuck) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let lane = std::thread::spawn({
        let broker = broker.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            runtime.block_on(async { drop(Node::start(broker)) });
            begin.send(()).unwrap();
            // It goes on with something else.
            let _ = stuck.recv();
        }
    });
    begun.recv().unwrap();
    soon("the end", broker.close()).await;
    drop(release);
    lane.join().unwrap();
}

/// Nor does a Redis that does not answer.
#[tokio::test]
async fn the_end_does_not_wait_for_a_redis_that_hangs() {
    let mut redis = RedisServer::start().await;
    let node = common::node(quick(&redis.url()));
    common::ready(&node).await;
    redis.pause();
    let asking = tokio::spawn(node.broker.read(&channel("kept:a"), Query::newest(1)));
    soon("the end", node.broker.close()).await;
    assert!(soon("an answer", asking).await.unwrap().is_err());
    redis.resume();
}

//! To whom the broker's connections and tasks belong, and that its end is not theirs to hold up.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{channel, quick};
use tidewire_broker::suite::Node;
use tidewire_broker::{Broker, Query};
use tidewire_broker_redis::RedisBroker;
use tidewire_testkit::{RedisServer, soon};

/// The ids of the node's connections.
async fn connections(redis: &RedisServer) -> Vec<String> {
    let list = redis.command(&["CLIENT", "LIST"]).await.text();
    // But for the one that this is asked on.
    let others = list.lines().filter(|line| !line.contains("cmd=client|list"));
    others.map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// On a thread and a runtime of its own, as a lane's, which then are gone.
fn read_elsewhere(broker: &Arc<RedisBroker>) {
    let broker = broker.clone();
    let lane = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(broker.read(&channel("kept:a"), Query::newest(1))).unwrap();
    });
    lane.join().unwrap();
}

/// Made on the lane that asked first, a connection took that lane's time for everybody, and ended with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_for_questions_do_not_belong_to_who_asks() {
    let redis = RedisServer::start().await;
    let broker = Arc::new(RedisBroker::new(quick(&redis.url())).unwrap());
    let node = Node::start(broker.clone());
    common::ready(&node).await;
    let before = connections(&redis).await;
    tokio::task::block_in_place(|| read_elsewhere(&broker));
    let first = connections(&redis).await;
    assert_eq!(first.len(), before.len() + 1, "it outlives the lane");
    tokio::task::block_in_place(|| read_elsewhere(&broker));
    assert_eq!(connections(&redis).await, first);
}

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
    let begun = Instant::now();
    soon("the end", broker.close()).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
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
    let begun = Instant::now();
    soon("the end", node.broker.close()).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(soon("an answer", asking).await.unwrap().is_err());
    redis.resume();
}

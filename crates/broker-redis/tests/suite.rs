//! The broker on Redis passes the suite.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use tidewire_broker::suite::{self, Node};
use tidewire_broker_redis::{RedisBroker, Settings};
use tidewire_testkit::RedisServer;

fn node(redis: &RedisServer) -> Node {
    let mut settings = Settings::new(redis.url());
    settings.namespaces = Arc::new(suite::namespaces());
    Node::start(Arc::new(RedisBroker::new(settings).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suite() {
    let redis = RedisServer::start().await;
    let (publisher, subscriber) = (node(&redis), node(&redis));
    suite::run(&publisher, &subscriber).await;
    publisher.broker.close().await;
    subscriber.broker.close().await;
}

#[tokio::test]
async fn suite_on_one_node_and_one_thread() {
    let redis = RedisServer::start().await;
    let node = node(&redis);
    suite::run(&node, &node).await;
    node.broker.close().await;
}

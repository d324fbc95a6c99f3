//! Never deaf: whatever happens to a link is noticed, mended and told.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{all_told, channel, node, passes, publish, quick, ready, unready};
use tidewire_broker::PublishError;
use tidewire_broker::suite::{Node, Told};
use tidewire_broker_redis::{RedisBroker, Settings};
use tidewire_protocol::Channel;
use tidewire_testkit::{Direction, Proxy, RedisServer, Reply, until};

/// A node on both of its links.
async fn subscribed(settings: Settings) -> (Node, Vec<Channel>) {
    let node = node(settings);
    let channels: Vec<_> = (0..8).map(|n| channel(&format!("c:{n}"))).collect();
    for channel in &channels {
        node.subscribe(channel).await;
    }
    (node, channels)
}

async fn gap_on_each(node: &Node, channels: &[Channel]) {
    all_told(node, channels.iter().cloned().map(Told::Gap)).await;
}

async fn behind_proxy(redis: &RedisServer) -> (Proxy, Settings) {
    let proxy = Proxy::start(redis.addr()).await;
    let settings = quick(&format!("redis://{}", proxy.addr()));
    (proxy, settings)
}

#[tokio::test]
async fn redis_is_killed_and_comes_back() {
    let mut redis = RedisServer::start().await;
    let (node, channels) = subscribed(quick(&redis.url())).await;
    ready(&node).await;
    redis.kill().await;
    unready(&node, "").await;
    assert!(matches!(publish(&node, &channels[0], 1).await, Err(PublishError::Unavailable(_))));

    // Wishes are taken meanwhile: one comes, one goes, one goes and comes again.
    let (new, old, again) = (channel("new"), &channels[0], &channels[1]);
    node.broker.subscribe(&new);
    node.broker.unsubscribe(old);
    node.broker.unsubscribe(again);
    node.broker.subscribe(again);
    redis.restart().await;
    let gaps = channels[1..].iter().cloned().map(Told::Gap);
    let news = [&new, again].map(|channel| Told::Subscribed(channel.clone()));
    all_told(&node, gaps.chain(news)).await;
    ready(&node).await;
    for (n, to) in channels[1..].iter().chain([&new]).enumerate() {
        passes(&node, &node, to, n as u64).await;
    }
    assert_eq!(redis.publish("tidewire:c:0", "1").await, 0);
    node.broker.close().await;
}

#[tokio::test]
async fn it_never_gives_up() {
    let redis = RedisServer::start().await;
    let (proxy, settings) = behind_proxy(&redis).await;
    let (node, channels) = subscribed(settings).await;
    let before = proxy.accepted();
    proxy.slam();
    // Two links and two publishers, ten attempts each and more.
    until("many attempts", || proxy.accepted() >= before + 50).await;
    proxy.cut().await;
    unready(&node, "refused").await;
    proxy.heal().await;
    gap_on_each(&node, &channels).await;
    ready(&node).await;
    passes(&node, &node, &channels[0], 1).await;
}

#[tokio::test]
async fn connections_are_killed_by_an_operator() {
    let redis = RedisServer::start().await;
    let (node, channels) = subscribed(quick(&redis.url())).await;
    for round in 0..3 {
        ready(&node).await;
        let begun = Instant::now();
        assert_eq!(redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await, Reply::Int(2));
        gap_on_each(&node, &channels).await;
        println!("killed, noticed and mended in {:?}", begun.elapsed());
        for to in &channels {
            passes(&node, &node, to, round).await;
        }
    }
}

#[tokio::test]
async fn a_stalled_connection_is_found() {
    let redis = RedisServer::start().await;
    let (proxy, mut settings) = behind_proxy(&redis).await;
    // The proxy heals as soon as one link is found; another one might never break.
    settings.links = 1;
    let limit = settings.echo_interval * 2 + settings.echo_timeout;
    for direction in [Some(Direction::Up), Some(Direction::Down), None] {
        let (node, channels) = subscribed(settings.clone()).await;
        ready(&node).await;
        match direction {
            Some(direction) => proxy.stall(direction),
            None => proxy.stall_all(),
        }
        let time = unready(&node, "Pub/Sub link").await;
        println!("stalled {direction:?}: noticed after {time:?}");
        // A little for a busy machine.
        assert!(time < limit + Duration::from_millis(500), "{time:?}");
        proxy.heal().await;
        gap_on_each(&node, &channels).await;
        ready(&node).await;
        passes(&node, &node, &channels[7], 1).await;
        node.broker.close().await;
    }
}

#[tokio::test]
async fn a_link_that_hears_but_is_not_heard_is_found() {
    let redis = RedisServer::start().await;
    let (proxy, settings) = behind_proxy(&redis).await;
    let (deaf, channels) = subscribed(settings).await;
    ready(&deaf).await;
    let other = node(quick(&redis.url()));
    ready(&other).await;
    proxy.stall(Direction::Up);
    let noise = async {
        loop {
            for to in &channels {
                publish(&other, to, 1).await.unwrap();
            }
        }
    };
    tokio::select! {
        () = noise => {}
        time = unready(&deaf, "Pub/Sub link") => println!("noticed after {time:?}"),
    }
    proxy.heal().await;
    while !matches!(deaf.told.next().await, Told::Gap(_)) {}
}

#[tokio::test]
async fn a_subscription_that_redis_lost_is_found() {
    let redis = RedisServer::start().await;
    let (proxy, mut settings) = behind_proxy(&redis).await;
    settings.links = 1;
    let node = node(settings);
    let to = channel("a");
    node.subscribe(&to).await;
    let unsubscribe = b"*2\r\n$11\r\nUNSUBSCRIBE\r\n$10\r\ntidewire:a\r\n";
    let answer = b"*3\r\n$11\r\nunsubscribe\r\n$10\r\ntidewire:a\r\n:1\r\n";
    let begun = Instant::now();
    assert_eq!(proxy.inject(b"SUBSCRIBE", unsubscribe, answer), 1);
    assert_eq!(node.told.next().await, Told::Gap(to.clone()));
    println!("a lost subscription was found and mended in {:?}", begun.elapsed());
    passes(&node, &node, &to, 1).await;
}

#[tokio::test]
async fn lives_of_the_data_are_told_apart() {
    let mut redis = RedisServer::start().await;
    let start = || async {
        let broker = Arc::new(RedisBroker::new(quick(&redis.url())).unwrap());
        let node = Node::start(broker.clone());
        ready(&node).await;
        (broker, node)
    };
    let (one, one_node) = start().await;
    let (other, other_node) = start().await;
    let first = one.incarnation().unwrap();
    assert_eq!(other.incarnation(), Some(first));
    other_node.broker.close().await;

    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    unready(&one_node, "").await;
    ready(&one_node).await;
    assert_eq!(one.incarnation(), Some(first));

    redis.command(&["FLUSHALL"]).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    until("another life", || one.incarnation() != Some(first)).await;
    let second = one.incarnation().unwrap();
    redis.restart().await;
    until("yet another life", || one.incarnation() != Some(second)).await;
    assert_ne!(one.incarnation(), Some(first));
}

//! Redis answers with errors: each is told to whom it concerns, and costs nobody else anything.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{all_told, channel, node, passes, publish, publish_stored, quick, ready, unready};
use tidewire_broker::suite::{Node, Told};
use tidewire_broker::{PublishError, Publisher, Query};
use tidewire_broker_redis::RedisBroker;
use tidewire_testkit::{Proxy, RedisServer, Reply, soon};
use tokio::time::sleep;

/// Publishes until the reason contains the text; until then, too, every publish is refused.
async fn refuses(node: &Node, why: &str) {
    soon(why, async {
        loop {
            match publish(node, &channel("a"), 1).await {
                Err(PublishError::Unavailable(reason)) if reason.contains(why) => return,
                Err(PublishError::Unavailable(_)) => sleep(Duration::from_millis(2)).await,
                other => panic!("expected {why:?}, got {other:?}"),
            }
        }
    })
    .await;
}

fn url(redis: &RedisServer, login: &str) -> String {
    format!("redis://{login}@{}", redis.addr())
}

#[tokio::test]
async fn noauth() {
    let redis = RedisServer::with(&["--requirepass", "open sesame"]).await;
    let without = node(quick(&redis.url()));
    unready(&without, "NOAUTH").await;
    refuses(&without, "NOAUTH").await;

    let wrong = node(quick(&url(&redis, "ali:hunter2")));
    unready(&wrong, "WRONGPASS").await;
    let shown = format!("{:?} {:?}", wrong.broker.ready(), publish(&wrong, &channel("a"), 1).await);
    assert!(!shown.contains("hunter2"), "{shown}");

    let right = node(quick(&url(&redis, ":open%20sesame")));
    right.subscribe(&channel("a")).await;
    passes(&right, &right, &channel("a"), 1).await;
}

#[tokio::test]
async fn a_login_that_the_server_does_not_know_does_not_show_the_password() {
    let redis = RedisServer::with(&["--rename-command", "AUTH", ""]).await;
    let node = node(quick(&url(&redis, "ali:hunter2")));
    unready(&node, "login").await;
    let shown = format!("{:?} {:?}", node.broker.ready(), publish(&node, &channel("a"), 1).await);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_replica_is_not_used() {
    let master = RedisServer::start().await;
    let port = master.addr().port().to_string();
    let replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]).await;
    let node = node(quick(&replica.url()));
    unready(&node, "read-only replica").await;
    refuses(&node, "read-only replica").await;
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    ready(&node).await;
    assert_eq!(publish(&node, &channel("a"), 1).await, Ok(()));
}

#[tokio::test]
async fn a_master_that_becomes_a_replica_is_left() {
    let master = RedisServer::start().await;
    let redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    let to = channel("a");
    node.subscribe(&to).await;
    ready(&node).await;
    let port = master.addr().port().to_string();
    redis.command(&["REPLICAOF", "127.0.0.1", &port]).await;
    let time = unready(&node, "read-only replica").await;
    println!("a demotion was noticed after {time:?}");
    unready(&node, "Pub/Sub link").await;
    redis.command(&["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(node.told.next().await, Told::Gap(to.clone()));
    ready(&node).await;
    passes(&node, &node, &to, 1).await;
}

#[tokio::test]
async fn oom_hinders_only_what_is_stored() {
    let redis = RedisServer::with(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    assert!(
        matches!(redis.command(&["SET", "k", "v"]).await, Reply::Error(e) if e.contains("OOM"))
    );
    let broker = Arc::new(RedisBroker::new(quick(&redis.url())).unwrap());
    let node = Node::start(broker.clone());
    node.subscribe(&channel("a")).await;
    passes(&node, &node, &channel("a"), 1).await;
    ready(&node).await;
    assert_eq!(broker.incarnation(), None);
}

#[tokio::test]
async fn loading() {
    // Half a millisecond for each of 4,000 keys, and a look at the sockets in between.
    let slow = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"];
    let mut redis =
        RedisServer::with(&[&slow[..], &["--enable-debug-command", "yes"]].concat()).await;
    redis.command(&["DEBUG", "POPULATE", "4000"]).await;
    redis.command(&["SAVE"]).await;
    let node = node(quick(&redis.url()));
    let to = channel("a");
    node.subscribe(&to).await;
    redis.restart_without_waiting().await;
    unready(&node, "LOADING").await;
    refuses(&node, "LOADING").await;
    assert_eq!(node.told.next().await, Told::Gap(to.clone()));
    ready(&node).await;
    passes(&node, &node, &to, 1).await;
}

#[tokio::test]
async fn noperm_concerns_one_channel() {
    let redis = RedisServer::start().await;
    let user = ["ACL", "SETUSER", "ali", "on", ">pw", "~*", "+@all", "resetchannels"];
    let channels = ["&tidewire:{node}:*", "&tidewire:open:*"];
    assert_eq!(redis.command(&[&user[..], &channels].concat()).await.text(), "OK");
    let node = node(quick(&url(&redis, "ali:pw")));
    ready(&node).await;
    let open: Vec<_> = (0..100).map(|n| channel(&format!("open:{n}"))).collect();
    let secret = channel("a");
    node.broker.subscribe(&secret);
    open.iter().for_each(|channel| {
        node.broker.subscribe(channel);
    });
    let expected = open.iter().cloned().map(Told::Subscribed);
    all_told(&node, expected.chain([Told::Refused(secret)])).await;

    // In one pipeline each publish has its own answer.
    let receipts: Vec<_> = (0..100)
        .flat_map(|_| ["open:7", "a"])
        .map(|name| (channel(name), tidewire_broker::suite::message(1)))
        .map(|(to, message)| node.broker.publish(to, message, Publisher::Anonymous))
        .collect();
    for (n, receipt) in receipts.into_iter().enumerate() {
        match (n % 2, receipt.await) {
            (0, Ok(_)) => {}
            (1, Err(PublishError::Unavailable(why))) if why.contains("NOPERM") => {}
            (n, other) => panic!("{n} {other:?}"),
        }
    }
    assert_eq!(node.broker.ready(), Ok(()));
}

/// The least that a user must be allowed.
const LEAST: &str = "resetchannels &tidewire:* ~tidewire:* ~{tidewire:* -@all +ping +info +publish \
    +subscribe +unsubscribe +client|id +client|list +client|setname +get +mget +set +setrange +time +xadd \
    +xrange +xrevrange +pexpire +fcall +fcall_ro +function|load +watch +unwatch +multi +exec";

#[tokio::test]
async fn the_least_rights_suffice() {
    let docs = include_str!("../../../docs/redis.md");
    assert!(docs.contains(&LEAST.split_ascii_whitespace().collect::<Vec<_>>().join(" ")));
    let redis = RedisServer::start().await;
    let mut user = vec!["ACL", "SETUSER", "ali", "on", ">pw"];
    user.extend(LEAST.split_ascii_whitespace());
    assert_eq!(redis.command(&user).await.text(), "OK");
    let proxy = Proxy::start(redis.addr()).await;
    let mut settings = quick(&format!("redis://ali:pw@{}", proxy.addr()));
    settings.links = 1;
    let broker = Arc::new(RedisBroker::new(settings).unwrap());
    let node = Node::start(broker.clone());
    let to = channel("a");
    node.subscribe(&to).await;
    ready(&node).await;
    assert!(broker.incarnation().is_some());
    passes(&node, &node, &to, 1).await;
    // A lost subscription is found, so the server may be asked about the link.
    let unsubscribe = b"*2\r\n$11\r\nUNSUBSCRIBE\r\n$10\r\ntidewire:a\r\n";
    let answer = b"*3\r\n$11\r\nunsubscribe\r\n$10\r\ntidewire:a\r\n:1\r\n";
    assert_eq!(proxy.inject(b"SUBSCRIBE", unsubscribe, answer), 1);
    assert_eq!(node.told.next().await, Told::Gap(to.clone()));
    passes(&node, &node, &to, 2).await;
    // The library could be loaded, and what is kept can be read.
    let kept = channel("kept:a");
    publish_stored(&node, &kept, 3).await.unwrap();
    assert_eq!(node.broker.read(&kept, Query::newest(9)).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_link_that_may_not_test_itself_is_not_ready() {
    let redis = RedisServer::start().await;
    let user = ["ACL", "SETUSER", "ali", "on", ">pw", "~*", "+@all", "-publish"];
    redis.command(&[&user[..], &["allchannels"]].concat()).await;
    let node = node(quick(&url(&redis, "ali:pw")));
    unready(&node, "cannot be published").await;
    refuses(&node, "NOPERM").await;
    // It still hears what others publish, without a gap.
    node.subscribe(&channel("a")).await;
    redis.publish("tidewire:a", "1").await;
    assert!(matches!(node.told.next().await, Told::Message(..)));
}

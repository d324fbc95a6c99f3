//! What is noticed although nothing is heard: messages that got lost on a link that works, a flush, a
//! Redis that may evict.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, RedisServer, Reply, http, soon, until};

/// What the function does, but for the `PUBLISH`.
const UNHEARD: &str = r#"
    local last = redis.call('GET', '{tidewire:room:1}:top')
    local id = last:match('%d+') + 1 .. '-0'
    redis.call('XADD', '{tidewire:room:1}:h', id, last .. ' 0\n', ARGV[1])
    redis.call('SET', '{tidewire:room:1}:top', id, 'KEEPTTL')
    return id
"#;

async fn node(redis: &RedisServer) -> Gateway {
    Gateway::builder()
        .config("[broker]\ncompare_interval = \"1s\"\n")
        .redis(redis.url())
        .start()
        .await
}

async fn publish(node: &Gateway, payload: impl Into<Value>) {
    let body = json!({ "payload": payload.into() });
    let answer = http::post_json(node.addr(), "/v1/channels/room:1/messages", &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

async fn subscribe(node: &Gateway) -> WebSocket {
    let mut client = WebSocket::connect(node.addr(), "/v1/ws?channel=room:1").await;
    client.expect("welcome").await;
    client
}

/// How often Redis was given a command.
async fn calls(redis: &RedisServer, command: &str) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]).await.text();
    let start = format!("cmdstat_{command}:calls=");
    let line = stats.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_message_that_nobody_heard_of_arrives() {
    let redis = RedisServer::start().await;
    let node = node(&redis).await;
    let mut client = subscribe(&node).await;
    publish(&node, 1).await;
    assert_eq!(client.expect("message").await["payload"], 1);
    let id = redis.command(&["EVAL", UNHEARD, "0", "\"unheard\""]).await.text();
    let message = client.expect("message").await;
    assert_eq!(message["payload"], "unheard");
    assert!(message["cursor"].as_str().unwrap().starts_with(&id));
    publish(&node, 2).await;
    assert_eq!(client.expect("message").await["payload"], 2);
}

#[tokio::test]
async fn a_flush_is_told_although_nothing_is_published() {
    let redis = RedisServer::start().await;
    let node = node(&redis).await;
    let mut client = subscribe(&node).await;
    publish(&node, 1).await;
    let last = client.expect("message").await["cursor"].clone();
    redis.command(&["FLUSHALL"]).await;
    assert_eq!(client.expect("gap").await["after"], last);
    publish(&node, 2).await;
    assert_eq!(client.expect("message").await["payload"], 2);
}

#[tokio::test]
async fn what_is_as_it_should_be_costs_no_read_and_no_write() {
    let redis = RedisServer::start().await;
    // With no more rights than the page says.
    let page = include_str!("../../../docs/redis.md");
    let user = page.lines().find(|line| line.contains("ACL SETUSER gateway ")).unwrap();
    redis.command(&user.split_whitespace().collect::<Vec<_>>()).await;
    let node = Gateway::builder()
        .config("[broker]\ncompare_interval = \"1s\"\n")
        .redis(format!("redis://gateway:secret@{}", redis.addr()))
        .start()
        .await;
    let mut client = subscribe(&node).await;
    publish(&node, 1).await;
    client.expect("message").await;
    let before = calls(&redis, "mget").await;
    let (reads, saved) = (calls(&redis, "fcall_ro").await, changes(&redis).await);
    soon("three comparisons", async {
        while calls(&redis, "mget").await < before + 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!((calls(&redis, "fcall_ro").await, changes(&redis).await), (reads, saved));
    assert_eq!(redis.command(&["ACL", "LOG"]).await, Reply::Array(vec![]), "denied");
}

/// How often anything was written since the start.
async fn changes(redis: &RedisServer) -> String {
    let info = redis.command(&["INFO", "persistence"]).await.text();
    info.lines().find(|line| line.starts_with("rdb_changes_since")).unwrap().to_owned()
}

#[tokio::test]
async fn a_redis_that_may_evict_is_warned_of_once() {
    const WARNING: &str = "by its maxmemory-policy Redis may evict";
    let redis = RedisServer::with(&["--maxmemory-policy", "volatile-ttl"]).await;
    // Without the right to CONFIG, as with many that are rented.
    let user = "ACL SETUSER app on >pw ~* &* +@all -config";
    redis.command(&user.split(' ').collect::<Vec<_>>()).await;
    let url = format!("redis://app:pw@{}", redis.addr());
    let node = Gateway::builder().redis(url).start().await;
    let warnings = || node.log().matches(WARNING).count();
    assert_eq!(warnings(), 1, "{}", node.log());
    assert!(node.log().contains("volatile-ttl"));
    // Not again with each break, but when it changes.
    let breaks = async || node.metric_sum("tidewire_broker_link_breaks_total").await;
    for (policy, expected) in [("volatile-ttl", 1), ("allkeys-lfu", 2), ("noeviction", 2)] {
        redis.command(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
        let before = breaks().await;
        redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        soon("the breaks", async {
            while breaks().await < before + 2.0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        node.wait_ready(200).await;
        until("the warning", || warnings() >= expected).await;
        assert_eq!(warnings(), expected);
    }
}

/// The policy is looked at again while all links stand.
#[tokio::test]
async fn a_redis_that_comes_to_evict_is_noticed_without_a_break() {
    let redis = RedisServer::start().await;
    let node = node(&redis).await;
    let breaks = node.metric_sum("tidewire_broker_link_breaks_total").await;
    let warnings = || node.log().matches("by its maxmemory-policy Redis may evict").count();
    assert_eq!(warnings(), 0);
    for (policy, may_evict, expected) in
        [("allkeys-lru", 1.0, 1), ("noeviction", 0.0, 1), ("allkeys-lru", 1.0, 2)]
    {
        redis.command(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
        soon("a look at it", async {
            while node.metric("tidewire_broker_may_evict").await != Some(may_evict) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        until("the warning", || warnings() >= expected).await;
        assert_eq!(warnings(), expected);
    }
    assert_eq!(node.metric_sum("tidewire_broker_link_breaks_total").await, breaks);
}

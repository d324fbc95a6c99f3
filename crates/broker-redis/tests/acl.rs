//! The rights that `docs/redis.md` names are enough for a node, and for a backend no more than it
//! needs. What Redis denied stands in its own log (`ACL LOG`).

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{channel, node, publish_stored, quick, ready};
use tidewire_broker::{Asks, Claim, Claims, suite};
use tidewire_broker_redis::Settings;
use tidewire_testkit::{RedisServer, Reply, soon};

const PAGE: &str = include_str!("../../../docs/redis.md");

/// Makes the user as the page says, with "secret" as the password; its URL.
async fn user(redis: &RedisServer, name: &str) -> String {
    let line = PAGE.lines().find(|line| line.contains(&format!("ACL SETUSER {name} ")));
    let words: Vec<_> = line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect();
    assert_eq!(redis.command(&words).await.text(), "OK", "{words:?}");
    format!("redis://{name}:secret@{}", redis.addr())
}

/// Redis has denied nobody anything.
async fn nothing_was_denied(redis: &RedisServer) {
    assert_eq!(redis.command(&["ACL", "LOG"]).await, Reply::Array(vec![]));
}

async fn calls(redis: &RedisServer, command: &str) -> bool {
    let stats = redis.command(&["INFO", "commandstats"]).await.text();
    stats.contains(&format!("cmdstat_{command}:"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_everything_with_the_rights_that_the_page_names() {
    let redis = RedisServer::start().await;
    let url = user(&redis, "gateway").await;
    let (publisher, subscriber) = (node(quick(&url)), node(quick(&url)));
    suite::run(&publisher, &subscriber).await;
    // A node that comes to an empty Redis loads the function and begins the epoch.
    redis.command(&["FLUSHALL"]).await;
    redis.command(&["FUNCTION", "FLUSH"]).await;
    let next = node(Settings { revision: 2, ..quick(&url) });
    ready(&next).await;
    assert!(!publish_stored(&next, &channel("kept:after"), 1).await.unwrap().duplicate);
    for count in [1, 0] {
        let claim = Claim { user: "alice".into(), count, answered: Some(count), asks: Asks::Anew };
        let claims = Claims { most: 4, users: vec![claim] };
        next.broker.claim(claims).unwrap().await.unwrap();
    }
    for command in ["function|load", "client|list", "client|setname", "xrange", "watch"] {
        assert!(calls(&redis, command).await, "{command}");
    }
    nothing_was_denied(&redis).await;
}

#[tokio::test]
async fn a_node_waits_for_replicas_with_these_rights() {
    let master = RedisServer::start().await;
    let port = master.addr().port().to_string();
    let _replica = RedisServer::with(&["--replicaof", "127.0.0.1", &port]).await;
    let url = user(&master, "gateway").await;
    let wait_timeout = Duration::from_millis(900);
    let node = node(Settings { wait_replicas: 1, wait_timeout, ..quick(&url) });
    ready(&node).await;
    soon("an acknowledgement", async {
        while publish_stored(&node, &channel("kept:a"), 1).await.is_err() {}
    })
    .await;
    assert!(calls(&master, "wait").await);
    nothing_was_denied(&master).await;
}

#[tokio::test]
async fn a_backend_publishes_in_its_namespace_and_nowhere_else() {
    let redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    ready(&node).await;
    // The page's namespace is `shop`; one of the suite's that keeps messages takes its place.
    let page: Vec<_> = PAGE
        .lines()
        .find(|line| line.contains("ACL SETUSER shop "))
        .unwrap()
        .split_whitespace()
        .map(|word| if word == "shop" { word.to_owned() } else { word.replace("shop:", "kept:") })
        .collect();
    assert_eq!(redis.command(&page).await.text(), "OK");
    let client = redis::Client::open(format!("redis://shop:secret@{}", redis.addr())).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut run = async |words: &[&str]| {
        let (first, rest) = words.split_first().unwrap();
        let mut command = redis::cmd(first);
        rest.iter().for_each(|word| {
            command.arg(word);
        });
        command.query_async::<redis::Value>(&mut connection).await.map_err(|e| e.to_string())
    };
    // The key, the stream and the dedupe of a channel that is new, then of one that is not.
    for id in ["m1", "m1", "m2"] {
        run(&["FCALL", "tidewire_publish", "1", "tidewire:kept:a", "1", id]).await.unwrap();
    }
    run(&["PUBLISH", "tidewire:kept:a", "1"]).await.unwrap();
    nothing_was_denied(&redis).await;
    let epoch = redis.command(&["GET", "tidewire:{node}:epoch"]).await.text();
    for denied in [
        &["FCALL", "tidewire_publish", "1", "tidewire:other:a", "1"][..],
        &["FCALL", "tidewire_publish", "1", "tidewire:kept", "1"],
        &["FCALL", "tidewire_publish", "1", "tidewire:keptother:a", "1"],
        &["PUBLISH", "tidewire:other:a", "1"],
        // Nor may it pass for a node: that would make every node believe a new life of the data.
        &["SET", "tidewire:{node}:epoch", "x"],
        &["SET", "tidewire:{node}:user:alice", "0 ab=9"],
        &["FCALL", "tidewire_claim", "0", "ab", "4", "alice", "1", "-", "0"],
        &["SETRANGE", "tidewire:{node}:epoch", "0", "x"],
        &["PUBLISH", "tidewire:{node}:1", "x"],
        &["SUBSCRIBE", "tidewire:kept:a"],
        &["KEYS", "*"],
        &["XRANGE", "{tidewire:other:a}:h", "-", "+"],
        &["GET", "{tidewire:other:a}:top"],
        &["FUNCTION", "FLUSH"],
        &["FLUSHALL"],
        &["CONFIG", "GET", "*"],
        &["ACL", "LIST"],
        &["CLIENT", "LIST"],
    ] {
        let outcome = run(denied).await;
        let why = outcome.expect_err(&denied.join(" "));
        let is_denied = why.to_lowercase().contains("permission") || why.contains("can't access");
        assert!(is_denied, "{denied:?}: {why}");
    }
    assert_eq!(redis.command(&["GET", "tidewire:{node}:epoch"]).await.text(), epoch);
}

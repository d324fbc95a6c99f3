//! How many streams a user has over all nodes, as the function counts them.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{node, quick, ready};
use tidewire_broker::suite::Node;
use tidewire_broker::{ClaimError, Claims, Grant, Grants, MemoryBroker};
use tidewire_testkit::{RedisServer, Reply};

async fn claim(node: &Node, users: &[(&str, u64)]) -> Result<Grants, ClaimError> {
    let users = users.iter().map(|(user, count)| ((*user).into(), *count)).collect();
    node.broker.claim(Claims { most: 4, users }).unwrap().await
}

/// What is granted here and elsewhere for one user.
async fn of(node: &Node, count: u64) -> (u64, u64) {
    let Grant { granted, elsewhere } = claim(node, &[("alice", count)]).await.unwrap().users[0];
    (granted, elsewhere)
}

async fn two(redis: &RedisServer) -> (Node, Node) {
    let both = (node(quick(&redis.url())), node(quick(&redis.url())));
    ready(&both.0).await;
    ready(&both.1).await;
    both
}

async fn value(redis: &RedisServer) -> String {
    match redis.command(&["GET", "tidewire:{node}:user:alice"]).await {
        Reply::Nil => String::new(),
        value => value.text(),
    }
}

#[tokio::test]
async fn never_more_is_granted_than_one_may_have() {
    let redis = RedisServer::start().await;
    let (a, b) = two(&redis).await;
    assert_eq!(of(&a, 3).await, (3, 0));
    assert_eq!(of(&b, 3).await, (1, 3));
    // What was granted stands, whoever claims first now.
    assert_eq!(of(&a, 4).await, (3, 1));
    assert_eq!(of(&b, 1).await, (1, 3));
    assert_eq!(of(&a, 2).await, (2, 1));
    assert_eq!(of(&b, 9).await, (2, 2));
    // Each user is counted apart, whatever the name is; a change of nothing writes nothing.
    let strange = "a=1 b{}*\r\n\u{fffd}";
    let grants = claim(&a, &[(strange, 1), ("bob", 9)]).await.unwrap();
    let granted = |granted| Grant { granted, elsewhere: 0 };
    assert_eq!(grants, Grants { forgotten: false, users: vec![granted(1), granted(4)] });
    assert_eq!(claim(&b, &[(strange, 9)]).await.unwrap().users[0].granted, 3);
    // Who has none is kept no longer.
    assert_eq!(of(&a, 0).await, (0, 2));
    assert_eq!(of(&b, 0).await, (0, 0));
    while !value(&redis).await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_node_that_is_silent_is_not_counted_and_then_forgotten() {
    let redis = RedisServer::start().await;
    let (a, b) = two(&redis).await;
    assert!(claim(&a, &[("alice", 3)]).await.unwrap().forgotten, "it is new");
    let at_start = value(&redis).await;
    let (_, name) = at_start.split_once(' ').unwrap();
    let lease = format!("tidewire:{{node}}:lease:{}", name.trim_end_matches("=3"));
    assert_eq!(of(&b, 1).await, (1, 3));
    let ago = |time: Duration| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        (now - time).as_millis().to_string()
    };
    redis.command(&["SET", &lease, &ago(Duration::from_secs(6)), "PX", "9000"]).await;
    assert_eq!(of(&b, 2).await, (2, 0));
    // Back in time it goes on, with what is left.
    assert!(!claim(&a, &[]).await.unwrap().forgotten);
    assert_eq!(of(&b, 2).await, (1, 3));
    assert_eq!(of(&a, 3).await, (3, 1));
    redis.command(&["SET", &lease, "", "PX", "1"]).await;
    while redis.command(&["GET", &lease]).await != Reply::Nil {
        tokio::task::yield_now().await;
    }
    assert_eq!(of(&b, 4).await, (4, 0));
    assert!(!value(&redis).await.contains("=3"));
    assert!(claim(&a, &[("alice", 3)]).await.unwrap().forgotten);
    assert_eq!(of(&a, 3).await, (0, 4));
}

#[tokio::test]
async fn all_that_is_kept_of_it_expires() {
    let redis = RedisServer::start().await;
    let (a, _b) = two(&redis).await;
    of(&a, 1).await;
    let Reply::Array(keys) = redis.command(&["KEYS", "tidewire:{node}:[lu]*e*:*"]).await else {
        panic!()
    };
    let keys: Vec<_> = keys.into_iter().map(Reply::text).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        let Reply::Int(left) = redis.command(&["PTTL", &key]).await else { panic!() };
        assert!(left > 0 && left <= 3_600_000, "{key} {left}");
    }
}

#[tokio::test]
async fn without_redis_nothing_is_granted_and_nobody_waits_for_long() {
    let mut redis = RedisServer::start().await;
    let (a, _b) = two(&redis).await;
    redis.kill().await;
    assert!(claim(&a, &[("alice", 1)]).await.is_err());
}

#[tokio::test]
async fn what_is_malformed_is_refused() {
    let redis = RedisServer::start().await;
    let _nodes = two(&redis).await;
    for arguments in [
        &["0"][..],
        &["0", "ab"],
        &["0", "no hex", "4"],
        &["0", "ab", "four"],
        &["0", "ab", "4", "alice"],
        &["0", "ab", "4", "alice", "some"],
        &["1", "tidewire:a", "ab", "4", "alice", "1"],
    ] {
        let command = [&["FCALL", "tidewire_claim"], arguments].concat();
        let Reply::Error(error) = redis.command(&command).await else { panic!("{arguments:?}") };
        assert!(error.starts_with("INVALID"), "{error}");
    }
}

#[tokio::test]
async fn a_node_of_its_own_claims_nothing() {
    use tidewire_broker::Broker;
    let memory = MemoryBroker::new(std::sync::Arc::default(), Duration::from_secs(1));
    assert!(memory.claim(Claims { most: 1, users: vec![] }).is_none());
}

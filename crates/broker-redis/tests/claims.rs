//! How many streams a user has over all nodes, as the function counts them.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{node, quick, ready};
use tidewire_broker::suite::Node;
use tidewire_broker::{Asks, Claim, ClaimError, Claims, Grant, Grants, MemoryBroker};
use tidewire_testkit::{RedisServer, Reply};

async fn claim(node: &Node, users: &[(&str, u64)]) -> Result<Grants, ClaimError> {
    claim_with(node, users, None, Asks::No).await
}

async fn claim_with(
    node: &Node,
    users: &[(&str, u64)],
    answered: Option<u64>,
    asks: Asks,
) -> Result<Grants, ClaimError> {
    let one =
        |(user, count): &(&str, u64)| Claim { user: (*user).into(), count: *count, answered, asks };
    let users = users.iter().map(one).collect();
    node.broker.claim(Claims { most: 4, users }).unwrap().await
}

/// Whom the node is asked about when it claims this.
async fn asked(node: &Node, users: &[(&str, u64)]) -> Vec<String> {
    let asked = claim(node, users).await.unwrap().asked;
    asked.into_iter().map(String::from).collect()
}

/// What is granted here and elsewhere for one user.
async fn of(node: &Node, count: u64) -> (u64, u64) {
    let grants = claim(node, &[("alice", count)]).await.unwrap();
    let Grant { granted, elsewhere, .. } = grants.users[0].unwrap();
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
    let granted = |granted| Some(Grant { granted, elsewhere: 0, alive: 0 });
    assert!(!grants.forgotten);
    assert_eq!(grants.users, [granted(1), granted(4)]);
    assert_eq!(claim(&b, &[(strange, 9)]).await.unwrap().users[0].unwrap().granted, 3);
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

/// Who is over the limit has the others asked who of theirs is alive, and hears what they say, once.
#[tokio::test]
async fn nodes_ask_each_other_who_is_alive() {
    let redis = RedisServer::start().await;
    let (a, b) = two(&redis).await;
    let strange = "1:x 2:\r\n\u{fffd}";
    let users = |count| [("alice", count), (strange, count)];
    assert!(asked(&a, &users(4)).await.is_empty());
    let over = claim(&b, &users(1)).await.unwrap();
    let nothing = Some(Grant { granted: 0, elsewhere: 4, alive: 0 });
    assert_eq!(over.users, [nothing; 2]);
    // Asked twice before it comes, it hears it once; and no more when it has.
    claim_with(&b, &users(1), None, Asks::Open).await.unwrap();
    assert_eq!(asked(&a, &[]).await, ["alice", strange]);
    assert!(asked(&a, &[]).await.is_empty());
    claim_with(&a, &users(4), Some(3), Asks::No).await.unwrap();
    let alive = |alive| Some(Grant { granted: 0, elsewhere: 4, alive });
    assert_eq!(claim(&b, &users(1)).await.unwrap().users, [alive(3); 2]);
    assert!(asked(&a, &users(4)).await.is_empty(), "it has answered");
    assert_eq!(claim(&b, &users(1)).await.unwrap().users, [alive(3); 2], "that stands");
    // Until it is asked anew; and no more are alive than there are.
    claim_with(&b, &users(1), None, Asks::Anew).await.unwrap();
    assert_eq!(claim(&b, &users(1)).await.unwrap().users, [alive(0); 2]);
    assert_eq!(asked(&a, &[]).await.len(), 2);
    claim_with(&a, &users(2), Some(4), Asks::No).await.unwrap();
    let grants = claim(&b, &users(3)).await.unwrap();
    assert_eq!(grants.users, [Some(Grant { granted: 2, elsewhere: 2, alive: 2 }); 2]);
}

/// A key that holds something else than a text, or a text that says nothing, held up the claims of all.
#[tokio::test]
async fn what_others_put_under_a_users_key_harms_nobody() {
    let redis = RedisServer::start().await;
    let (a, b) = two(&redis).await;
    let key = |user: &str| format!("tidewire:{{node}}:user:{user}");
    redis.command(&["RPUSH", &key("list"), "x"]).await;
    redis.command(&["SET", &key("text"), "none of ours"]).await;
    redis.command(&["SET", &key("timeless"), " ab=1"]).await;
    redis.command(&["SET", &key("huge"), "1 ab=99999999999999999999999999"]).await;
    let lease = "tidewire:{node}:lease:ab";
    let all = [("list", 3), ("text", 3), ("timeless", 3), ("huge", 3), ("alice", 3)];
    for wrong in [false, true] {
        if wrong {
            redis.command(&["RPUSH", lease, "x"]).await;
        }
        let grants = claim(&a, &all).await.unwrap();
        assert_eq!(grants.fault, None);
        assert!(grants.users.iter().all(|grant| grant.unwrap().granted == 3), "{grants:?}");
    }
    // They are written over, and count again.
    let grants = claim(&b, &all).await.unwrap();
    assert!(grants.users.iter().all(|grant| grant.unwrap().elsewhere == 3), "{grants:?}");
}

/// A length beyond all numbers led back to the beginning of the list: Redis never answered anybody again.
#[tokio::test]
async fn what_others_put_where_a_node_is_asked_harms_nobody() {
    let redis = RedisServer::start().await;
    let (a, b) = two(&redis).await;
    assert_eq!(of(&a, 4).await, (4, 0));
    let at_start = value(&redis).await;
    let (_, name) = at_start.split_once(' ').unwrap();
    let key = format!("tidewire:{{node}}:asked:{}", name.trim_end_matches("=4"));
    let (beyond, infinite) = ("9".repeat(25) + ":", "9".repeat(400) + ":");
    for garbage in [&*beyond, &*infinite, "99999:x", "0:0:", "1:", ":", "-1:x", "\0", "none"] {
        redis.command(&["SET", &key, garbage]).await;
        assert!(asked(&a, &[]).await.iter().all(|name| name.len() < 2), "{garbage}");
        // What is asked meanwhile may stand behind it, and is asked again.
        redis.command(&["SET", &key, garbage]).await;
        of(&b, 1).await;
        asked(&a, &[]).await;
        of(&b, 1).await;
        assert_eq!(asked(&a, &[]).await, ["alice"], "{garbage}");
    }
    redis.command(&["DEL", &key]).await;
    redis.command(&["RPUSH", &key, "x"]).await;
    assert!(asked(&a, &[]).await.is_empty());
}

/// Whose key may not be written is not counted on other nodes, and nobody else is harmed.
#[tokio::test]
async fn a_user_of_whom_nothing_can_be_kept_costs_only_itself() {
    let redis = RedisServer::start().await;
    let (_a, _b) = two(&redis).await;
    let acl = ["ACL", "SETUSER", "node", "on", ">secret", "resetchannels", "&*", "+@all"];
    let keys =
        ["~tidewire:{node}:lease:*", "~tidewire:{node}:asked:*", "~tidewire:{node}:user:alice"];
    let rest = ["%R~tidewire:{node}:epoch", "~tidewire:{node}:library"];
    redis.command(&[&acl[..], &keys, &rest].concat()).await;
    let url = redis.url().replace("redis://", "redis://node:secret@");
    let node = node(quick(&url));
    ready(&node).await;
    let grants = claim(&node, &[("mallory", 1), ("alice", 1)]).await.unwrap();
    assert_eq!(grants.users, [None, Some(Grant { granted: 1, elsewhere: 0, alive: 0 })]);
    assert!(grants.fault.is_some());
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
        &["0", "ab", "4", "alice", "1"],
        &["0", "ab", "4", "alice", "some", "-", "0"],
        &["1", "tidewire:a", "ab", "4", "alice", "1", "-", "0"],
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

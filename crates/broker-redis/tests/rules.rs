//! Whose rules hold, what a full Redis does, and the rights that publishing needs.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{channel, fcall, node, passes, publish, publish_stored, quick, ready, refused};
use tidewire_broker::suite::{self, Node, Told};
use tidewire_broker::{PublishError, Query};
use tidewire_broker_redis::Settings;
use tidewire_protocol::{NamespaceRules, Namespaces};
use tidewire_testkit::{RedisServer, Reply, soon};

/// A node whose only stored namespace is this one.
async fn with(redis: &RedisServer, stored: &str, revision: u64) -> Node {
    let node = node(only(redis, stored, revision));
    ready(&node).await;
    node
}

fn only(redis: &RedisServer, stored: &str, revision: u64) -> Settings {
    let named = [(stored.to_owned(), NamespaceRules::default())];
    Settings {
        namespaces: Arc::new(Namespaces::new(NamespaceRules::live(), named)),
        revision,
        ..quick(&redis.url())
    }
}

async fn about(redis: &RedisServer) -> Vec<String> {
    match redis.command(&["FCALL_RO", "tidewire_about", "0"]).await {
        Reply::Array(about) => about.into_iter().map(Reply::text).collect(),
        other => panic!("{other:?}"),
    }
}

/// Whether the function keeps what is published there.
async fn keeps(redis: &RedisServer, to: &str) -> bool {
    !common::published(redis, to, "1", None).await.0.is_empty()
}

#[tokio::test]
async fn only_an_older_library_is_replaced() {
    let redis = RedisServer::start().await;
    let old = with(&redis, "old", 1).await;
    assert_eq!(about(&redis).await[2], "1");
    assert!(keeps(&redis, "old:a").await && !keeps(&redis, "new:a").await);

    let new = with(&redis, "new", 2).await;
    assert_eq!(about(&redis).await[2], "2");
    assert!(!keeps(&redis, "old:a").await && keeps(&redis, "new:a").await);

    // Others of the old revision, and the old one when it links up again, leave it alone.
    let other = with(&redis, "old", 1).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    common::unready(&old, "").await;
    ready(&old).await;
    assert_eq!(about(&redis).await[2], "2");

    // What is there decides, whatever the nodes' files say.
    for node in [&old, &other, &new] {
        for to in ["new:a", "old:a"] {
            let to = channel(to);
            node.subscribe(&to).await;
            let mut message = suite::message(1);
            message.message_id = None;
            let receipt =
                node.broker.publish(to.clone(), message, tidewire_broker::Publisher::Anonymous);
            let place = receipt.await.unwrap().place;
            let stored = match node.told.next().await {
                Told::Message(_, message, _) => message.stored,
                other => panic!("{other:?}"),
            };
            assert_eq!(place.is_some(), to.as_str() == "new:a");
            assert_eq!(place, stored.map(|stored| (stored.incarnation, stored.id)));
            node.broker.unsubscribe(&to);
        }
    }
}

#[tokio::test]
async fn of_many_that_load_at_once_the_newest_wins() {
    let redis = RedisServer::start().await;
    let nodes: Vec<_> = (0..12).map(|n| node(only(&redis, "kept", n * 7 % 12))).collect();
    for node in &nodes {
        ready(node).await;
    }
    assert_eq!(about(&redis).await[2], "11");
}

#[tokio::test]
async fn a_library_of_another_prefix_is_left_alone() {
    let redis = RedisServer::start().await;
    let on = |prefix: &str| {
        let mut settings = quick(&redis.url());
        settings.prefix = prefix.to_owned();
        node(settings)
    };
    let one = on("my-app");
    ready(&one).await;
    publish_stored(&one, &channel("kept:a"), 1).await.unwrap();
    // The same name once Redis's rules for names are met.
    let other = on("my_app");
    ready(&other).await;
    let outcome = publish_stored(&other, &channel("kept:a"), 1).await;
    assert!(matches!(outcome, Err(PublishError::Unavailable(_))), "{outcome:?}");
    publish_stored(&one, &channel("kept:a"), 2).await.unwrap();
    assert!(other.broker.read(&channel("kept:a"), Query::newest(1)).await.is_err());
}

/// Nodes whose limits differ: those of the library in force hold. What is over them is refused for
/// what it is, and not as if trying again could help.
#[tokio::test]
async fn what_the_function_refuses_has_its_own_code() {
    let redis = RedisServer::start().await;
    let limits = |message_bytes, revision| Settings {
        message_bytes,
        revision,
        ..only(&redis, "kept", revision)
    };
    let strict = node(limits(1_024, 2));
    ready(&strict).await;
    let generous = node(limits(1 << 20, 1));
    ready(&generous).await;
    let mut message = suite::message(1);
    message.payload = tidewire_protocol::Payload::text(&"x".repeat(200_000));
    let anonymous = tidewire_broker::Publisher::Anonymous;
    let outcome = generous.broker.publish(channel("kept:a"), message, anonymous).await;
    assert!(matches!(&outcome, Err(PublishError::TooLarge(why)) if why.contains("at most")));
    assert_eq!(outcome.unwrap_err().code(), tidewire_protocol::Code::TooLarge);
    assert_eq!(generous.broker.ready(), Ok(()));
}

#[tokio::test]
async fn a_full_redis_refuses_clearly_and_delivery_goes_on() {
    let redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    let (stored, live) = (channel("kept:a"), channel("news"));
    node.subscribe(&stored).await;
    node.subscribe(&live).await;
    ready(&node).await;
    publish_stored(&node, &stored, 1).await.unwrap();
    node.told.next().await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    refused(&redis, "kept:a", "1", None, "OOM").await;
    let outcome = publish_stored(&node, &stored, 2).await;
    assert!(
        matches!(&outcome, Err(PublishError::Unavailable(why)) if why.contains("OOM")),
        "{outcome:?}"
    );
    // What is kept can be read, and what is live passes.
    let reading = node.broker.read(&stored, Query::newest(9)).await.unwrap();
    assert_eq!(reading.entries.len(), 1);
    passes(&node, &node, &live, 3).await;
    assert_eq!(node.broker.ready(), Ok(()));
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(!publish_stored(&node, &stored, 2).await.unwrap().duplicate);
}

/// What `docs/redis.md` says that a backend needs, for one channel.
const LEAST: &str = "resetchannels &tidewire:kept:a ~tidewire:kept:a ~{tidewire:kept:a}:* \
    %R~tidewire:{node}:epoch -@all +fcall +publish +time +get +set +setrange +xadd +xrevrange \
    +pexpire +info";

#[tokio::test]
async fn whoever_lacks_a_right_writes_nothing() {
    let redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    ready(&node).await;
    let as_backend = async |rights: &str| {
        let mut user = vec!["ACL", "SETUSER", "app", "reset", "on", ">pw"];
        user.extend(rights.split_ascii_whitespace());
        assert_eq!(redis.command(&user).await.text(), "OK", "{rights}");
    };
    // The command is sent by a user of its own, over a connection of its own.
    let call = async || {
        let url = format!("redis://app:pw@{}", redis.addr());
        let client = redis::Client::open(url).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut call = redis::cmd("FCALL");
        call.arg("tidewire_publish").arg(1).arg("tidewire:kept:a").arg("1").arg("m1");
        call.query_async::<(String, u8)>(&mut connection).await
    };
    // A channel of which nothing is known needs all of them.
    for right in LEAST.split_ascii_whitespace() {
        let command = right.strip_prefix('+').filter(|command| *command != "setrange");
        let Some(command) = command else { continue };
        as_backend(&format!("{LEAST} -{command}")).await;
        assert!(call().await.is_err(), "without {command}");
        let Reply::Array(keys) = redis.command(&["KEYS", "{*}:[ht]*"]).await else { panic!() };
        assert!(keys.is_empty(), "without {command}: {keys:?}");
    }
    for without in ["&tidewire:kept:a", "~{tidewire:kept:a}:*"] {
        as_backend(&LEAST.replace(without, "")).await;
        assert!(call().await.is_err(), "without {without}");
    }
    as_backend(LEAST).await;
    assert_eq!(call().await.unwrap().1, 0, "nothing was remembered of what was refused");
    assert_eq!(call().await.unwrap().1, 1);
}

#[tokio::test]
async fn a_library_that_may_not_be_loaded_is_used_if_it_is_there() {
    let redis = RedisServer::start().await;
    let user = "ACL SETUSER ali on >pw ~* &* +@all -function";
    let user: Vec<_> = user.split_ascii_whitespace().collect();
    assert_eq!(redis.command(&user).await.text(), "OK");
    let limited = node(quick(&format!("redis://ali:pw@{}", redis.addr())));
    ready(&limited).await;
    let to = channel("kept:a");
    let outcome = publish_stored(&limited, &to, 1).await;
    assert!(outcome.is_err_and(|error| error.to_string().contains("Function not found")));
    // Live channels do without.
    publish(&limited, &channel("news"), 1).await.unwrap();
    let other = node(quick(&redis.url()));
    ready(&other).await;
    soon("the function", async {
        while publish_stored(&limited, &to, 1).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    let answer = fcall(&redis, &["tidewire:kept:a"]).await;
    assert!(matches!(&answer, Reply::Error(why) if why.starts_with("INVALID")), "{answer:?}");
}

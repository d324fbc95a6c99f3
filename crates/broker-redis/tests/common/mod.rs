//! Nodes for the tests, and what to expect of them.

// Each test's crate uses some of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_broker::suite::{self, Node, Told};
use tidewire_broker::{Origin, PublishError, Published, Publisher};
use tidewire_broker_redis::{RedisBroker, Settings};
use tidewire_protocol::Channel;
use tidewire_testkit::{PATIENCE, RedisServer, Reply, until};

/// Settings that notice faults soon, with the suite's rules: most channels are live.
pub fn quick(url: &str) -> Settings {
    let mut settings = Settings::new(url);
    settings.echo_interval = Duration::from_millis(100);
    settings.echo_timeout = Duration::from_millis(800);
    settings.namespaces = Arc::new(suite::namespaces());
    settings
}

pub fn node(settings: Settings) -> Node {
    log();
    Node::start(Arc::new(RedisBroker::new(settings).unwrap()))
}

pub fn channel(name: &str) -> Channel {
    Channel::new(name).unwrap()
}

pub async fn ready(node: &Node) {
    until("readiness", || node.broker.ready().is_ok()).await;
}

/// Waits until the node is not ready for a reason that contains the text.
pub async fn unready(node: &Node, why: &str) -> Duration {
    let begun = Instant::now();
    loop {
        let now = node.broker.ready();
        if now.as_ref().is_err_and(|reason| reason.contains(why)) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < PATIENCE, "expected {why:?}, got {now:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn publish(node: &Node, to: &Channel, n: u64) -> Result<(), PublishError> {
    let begun = Instant::now();
    let outcome = node.broker.publish(to.clone(), suite::message(n), Publisher::Anonymous).await;
    // The configured time, and a little for a busy machine.
    assert!(begun.elapsed() < Duration::from_millis(2_200), "{:?}", begun.elapsed());
    outcome.map(|_| ())
}

/// As [`publish`], with what is answered.
pub async fn publish_stored(node: &Node, to: &Channel, n: u64) -> Result<Published, PublishError> {
    node.broker.publish(to.clone(), suite::message(n), Publisher::Anonymous).await
}

/// Publishes and expects the subscriber to be told next.
pub async fn passes(publisher: &Node, subscriber: &Node, to: &Channel, n: u64) {
    assert_eq!(publish(publisher, to, n).await, Ok(()));
    let expected = Told::Message(to.clone(), suite::message(n), Origin::Gateway);
    assert_eq!(subscriber.told.next().await, expected);
}

/// Expects exactly these to be told next, in any order.
pub async fn all_told(node: &Node, expected: impl IntoIterator<Item = Told>) {
    let mut expected: Vec<_> = expected.into_iter().collect();
    while !expected.is_empty() {
        let told = node.told.next().await;
        let at = expected.iter().position(|one| *one == told);
        let at = at.unwrap_or_else(|| panic!("{told:?} instead of one of {expected:?}"));
        expected.swap_remove(at);
    }
}

/// Calls the function that publishes: key, body, and what else is given.
pub async fn fcall<A: AsRef<[u8]>>(redis: &RedisServer, arguments: &[A]) -> Reply {
    let head = [&b"FCALL"[..], b"tidewire_publish", b"1"];
    let all: Vec<_> = head.into_iter().chain(arguments.iter().map(AsRef::as_ref)).collect();
    redis.command(&all).await
}

async fn publishes(
    redis: &RedisServer,
    to: &str,
    body: impl AsRef<[u8]>,
    id: Option<&str>,
) -> Reply {
    let key = format!("tidewire:{to}");
    let arguments = [Some(key.as_bytes()), Some(body.as_ref()), id.map(str::as_bytes)];
    fcall(redis, &arguments.into_iter().flatten().collect::<Vec<_>>()).await
}

/// Publishes as a backend does: the cursor, and 1 for a duplicate.
pub async fn published(
    redis: &RedisServer,
    to: &str,
    body: impl AsRef<[u8]>,
    id: Option<&str>,
) -> (String, i64) {
    match publishes(redis, to, body, id).await {
        Reply::Array(answer) => match &answer[..] {
            [cursor, Reply::Int(duplicate)] => (cursor.clone().text(), *duplicate),
            other => panic!("{other:?}"),
        },
        other => panic!("{to}: {other:?}"),
    }
}

/// Publishes as a backend does, which must be refused with this code.
pub async fn refused(
    redis: &RedisServer,
    to: &str,
    body: impl AsRef<[u8]>,
    id: Option<&str>,
    code: &str,
) {
    let answer = publishes(redis, to, body.as_ref(), id).await;
    let shown = body.as_ref()[..body.as_ref().len().min(99)].escape_ascii();
    let right = matches!(&answer, Reply::Error(why) if why.starts_with(code));
    assert!(right, "{shown}: {answer:?} instead of {code}");
}

/// Shows the broker's log, for who looks for a fault: `RUST_LOG=debug`.
pub fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Only the first test of a process can.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

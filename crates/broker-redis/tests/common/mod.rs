//! Nodes for the tests, and what to expect of them.

// Each test's crate uses some of it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewire_broker::suite::{self, Node, Told};
use tidewire_broker::{Origin, PublishError};
use tidewire_broker_redis::{RedisBroker, Settings};
use tidewire_protocol::Channel;
use tidewire_testkit::{PATIENCE, until};

/// Settings that notice faults soon.
pub fn quick(url: &str) -> Settings {
    let mut settings = Settings::new(url);
    settings.echo_interval = Duration::from_millis(100);
    settings.echo_timeout = Duration::from_millis(800);
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
    let outcome = node.broker.publish(to.clone(), suite::message(n)).await;
    // The configured time, and a little for a busy machine.
    assert!(begun.elapsed() < Duration::from_millis(2_200), "{:?}", begun.elapsed());
    outcome
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

/// Shows the broker's log, for who looks for a fault: `RUST_LOG=debug`.
pub fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Only the first test of a process can.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

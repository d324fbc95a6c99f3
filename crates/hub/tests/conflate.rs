//! Live channels of which only the newest message of each event in an interval is wanted.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{Rig, Subscriber, Told, channel, message};
use tidewire_broker::{Events, Origin};
use tidewire_protocol::{Channel, Event, Message, NamespaceRules};

/// Long enough for a test to publish many messages within it, wherever it runs.
const INTERVAL: Duration = Duration::from_secs(1);

async fn conflated(lanes: usize) -> (Rig, Channel, Vec<Subscriber>) {
    let rules = NamespaceRules { conflate: Some(INTERVAL), ..NamespaceRules::live() };
    let rig = Rig::with_rules(lanes, Duration::from_secs(5), rules);
    let a = channel("a");
    let mut subscribers = Vec::new();
    for lane in 0..lanes {
        subscribers.push(rig.subscriber(lane, &a).await);
    }
    rig.hub().subscribed(&a);
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.told().await, Told::Subscribed(a.clone()));
        assert_eq!(subscriber.got().await, "subscribed");
    }
    (rig, a, subscribers)
}

fn publish(rig: &Rig, channel: &Channel, event: &str, n: u64) {
    let message = Message { event: Event::new(event).unwrap(), ..message(n) };
    rig.hub().message(channel.as_str(), message, Origin::Gateway);
}

#[tokio::test]
async fn the_first_at_once_then_the_newest_of_each_event() {
    let (rig, a, mut subscribers) = conflated(2).await;
    let began = Instant::now();
    for n in 1..=100 {
        publish(&rig, &a, "message", n);
        publish(&rig, &a, "other", n);
    }
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.got().await, "data: 1\n\n");
    }
    // The order is that in which the newest ones came.
    publish(&rig, &a, "message", 101);
    let expected = "event: other\ndata: 100\n\ndata: 101\n\n";
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.until("data: 101\n\n").await, expected);
    }
    assert!(began.elapsed() >= INTERVAL);

    // The end of an interval with messages begins the next one; what comes then waits for its end.
    publish(&rig, &a, "message", 102);
    publish(&rig, &a, "message", 103);
    for subscriber in &mut subscribers {
        assert_eq!(subscriber.got().await, "data: 103\n\n");
    }
    assert!(began.elapsed() >= 2 * INTERVAL);
    // Each channel has intervals of its own.
    let b = channel("b");
    let mut other = rig.subscriber(0, &b).await;
    rig.hub().subscribed(&b);
    publish(&rig, &b, "message", 1);
    publish(&rig, &b, "message", 2);
    assert_eq!(other.until("data: 1\n\n").await, "subscribeddata: 1\n\n");
    assert_eq!(other.got().await, "data: 2\n\n");
}

#[tokio::test]
async fn what_waits_comes_before_a_gap() {
    let (rig, a, mut subscribers) = conflated(1).await;
    publish(&rig, &a, "message", 1);
    publish(&rig, &a, "message", 2);
    rig.hub().broken(&a);
    rig.hub().gap(&a);
    assert_eq!(subscribers[0].until("gap").await, "data: 1\n\ndata: 2\n\ngap");
}

#[tokio::test]
async fn many_events_do_not_wait_without_a_bound() {
    let (rig, a, mut subscribers) = conflated(1).await;
    let began = Instant::now();
    for n in 0..=256 {
        publish(&rig, &a, &format!("e{n}"), n);
    }
    let all = subscribers[0].until("data: 256\n\n").await;
    assert_eq!(all.matches("data:").count(), 257);
    assert!(began.elapsed() < INTERVAL, "they went out early");
}

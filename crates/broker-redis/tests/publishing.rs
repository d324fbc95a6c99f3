//! Publishing: what is acknowledged was published once, what is refused was not, and everything is
//! answered in time.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::{channel, node, passes, publish, quick, ready, unready};
use tidewire_broker::suite::{self, Node, Told};
use tidewire_broker::{PublishError, Publisher};
use tidewire_protocol::{MessageId, Payload};
use tidewire_testkit::{Direction, Proxy, RedisServer, free_port, soon};

fn is_unavailable<T>(outcome: &Result<T, PublishError>, why: &str) -> bool {
    matches!(outcome, Err(PublishError::Unavailable(reason)) if reason.contains(why))
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_a_timeout_then_unavailable() {
    let mut redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    let to = channel("a");
    node.subscribe(&to).await;
    ready(&node).await;
    redis.pause();
    let begun = Instant::now();
    assert_eq!(publish(&node, &to, 1).await, Err(PublishError::Timeout));
    println!("timeout after {:?}", begun.elapsed());
    // It was written, and Redis has it once it goes on: nobody can know. Then it is certain.
    unready(&node, "").await;
    let outcome = publish(&node, &to, 2).await;
    assert!(is_unavailable(&outcome, ""), "{outcome:?}");
    redis.resume();
    ready(&node).await;
    while node.told.next().await != Told::Gap(to.clone()) {}
    passes(&node, &node, &to, 3).await;
}

#[tokio::test]
async fn without_redis_publishes_are_refused_at_once_and_work_once_it_is_there() {
    let mut redis = RedisServer::start().await;
    redis.kill().await;
    let node = node(quick(&redis.url()));
    unready(&node, "refused").await;
    let begun = Instant::now();
    let outcome = publish(&node, &channel("a"), 1).await;
    assert!(is_unavailable(&outcome, "refused"), "{outcome:?}");
    println!("refused after {:?}", begun.elapsed());
    redis.restart().await;
    ready(&node).await;
    node.subscribe(&channel("a")).await;
    passes(&node, &node, &channel("a"), 2).await;
}

#[tokio::test]
async fn an_address_that_swallows_everything_is_unavailable_in_time() {
    // A listener that never accepts: connections stand, and nothing is ever answered.
    let port = free_port();
    let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let node = node(quick(&format!("redis://127.0.0.1:{port}")));
    let outcome = publish(&node, &channel("a"), 1).await;
    assert!(is_unavailable(&outcome, "no connection"), "{outcome:?}");
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let mut redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    ready(&node).await;
    redis.pause();
    let to = channel("a");
    let receipts: Vec<_> = (0..10_000)
        .map(|n| node.broker.publish(to.clone(), suite::message(n), Publisher::Anonymous))
        .collect();
    let mut full = 0;
    for receipt in receipts {
        full += usize::from(is_unavailable(&receipt.await, "too many"));
    }
    assert!((1_000..3_000).contains(&full), "{full}");
    redis.resume();
    // The places were given back.
    ready(&node).await;
    assert_eq!(publish(&node, &to, 1).await, Ok(()));
}

#[tokio::test]
async fn a_closed_broker_refuses() {
    let mut redis = RedisServer::start().await;
    let node = node(quick(&redis.url()));
    ready(&node).await;
    redis.pause();
    let sent = node.broker.publish(channel("a"), suite::message(1), Publisher::Anonymous);
    // Until the task has written it.
    tokio::time::sleep(Duration::from_millis(50)).await;
    soon("the close", node.broker.close()).await;
    assert_eq!(sent.await, Err(PublishError::Timeout));
    let outcome = publish(&node, &channel("a"), 1).await;
    assert!(is_unavailable(&outcome, "closed"), "{outcome:?}");
    assert!(node.broker.ready().is_err());
}

/// Publishes without a pause while the connection stalls and breaks: whatever was acknowledged came
/// once, what was refused as not sent never came, and nothing came twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_break_makes_a_false_ack_or_a_second_copy() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.addr()).await;
    let publisher = node(quick(&format!("redis://{}", proxy.addr())));
    let subscriber = node(quick(&redis.url()));
    let to = channel("a");
    subscriber.subscribe(&to).await;
    ready(&publisher).await;
    let mut receipts = vec![];
    for n in 0..3_000_u64 {
        let mut message = suite::message(n);
        message.message_id = MessageId::new(&n.to_string()).ok();
        message.payload = Payload::Binary(vec![0; 48 << 10].into());
        receipts.push(publisher.broker.publish(to.clone(), message, Publisher::Anonymous));
        match n % 1_000 {
            // Some are acknowledged before it breaks, some are on their way.
            250 => {
                proxy.reset().await;
                ready(&publisher).await;
            }
            // More than the systems' buffers take in, so that some is certainly not sent.
            500 => proxy.stall(Direction::Up),
            950 => {
                proxy.reset().await;
                ready(&publisher).await;
            }
            n if n % 10 == 0 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => {}
        }
    }
    let mut outcomes = HashMap::new();
    for (n, receipt) in receipts.into_iter().enumerate() {
        outcomes.insert(n.to_string(), soon("a receipt", receipt).await);
    }
    // Everything that Redis has been sent before this comes before it.
    redis.publish("tidewire:a", r#"{"payload":1,"messageId":"end"}"#).await;
    let came = came(&subscriber).await;
    let mut seen = HashMap::new();
    for id in &came {
        assert!(seen.insert(id.clone(), ()).is_none(), "{id} came twice");
    }
    let (mut acknowledged, mut unknown, mut refused) = (0, 0, 0);
    for (id, outcome) in &outcomes {
        match outcome {
            Ok(_) => {
                acknowledged += 1;
                assert!(seen.contains_key(id), "{id} was acknowledged and lost");
            }
            Err(PublishError::Timeout) => unknown += 1,
            Err(PublishError::Conflict | PublishError::TooLarge(_) | PublishError::Invalid(_)) => {
                panic!("{id}: {outcome:?}")
            }
            Err(PublishError::Unavailable(why)) => {
                refused += 1;
                assert!(!seen.contains_key(id), "{id} was refused ({why}) and came");
            }
        }
    }
    println!("{acknowledged} acknowledged, {unknown} unknown, {refused} refused");
    let each = (acknowledged, unknown, refused);
    assert!(acknowledged > 0 && unknown > 0 && refused > 0, "{each:?}");
}

/// The ids of what came, up to the one that ends the test.
async fn came(subscriber: &Node) -> Vec<String> {
    let mut came = vec![];
    loop {
        let told = subscriber.told.next().await;
        let Told::Message(_, message, _) = told else { panic!("{told:?}") };
        match message.message_id.unwrap().as_str() {
            "end" => return came,
            id => came.push(id.to_owned()),
        }
    }
}

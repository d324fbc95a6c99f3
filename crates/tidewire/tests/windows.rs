//! The memory of all windows together is bounded, and nobody notices.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, RedisServer, soon};

const CHANNELS: usize = 10;
const MESSAGES: i64 = 40;

#[tokio::test]
async fn windows_over_the_budget_are_cut_and_resumes_are_whole() {
    let redis = RedisServer::start().await;
    let config = "[limits]\nwindow_bytes = \"64KiB\"\n";
    let node = Gateway::builder().config(config).redis(redis.url()).start().await;
    let name = |n| format!("room:{n}");
    let mut reader = WebSocket::connect(node.addr(), "/v1/ws").await;
    reader.expect("welcome").await;
    let mut places = Vec::new();
    for n in 0..CHANNELS {
        let ack = reader.ask(&json!({"type": "subscribe", "id": n, "channel": name(n)})).await;
        places.push(ack["cursor"].clone());
    }
    let mut publisher = WebSocket::connect(node.addr(), "/v1/ws").await;
    publisher.expect("welcome").await;
    for n in 0..MESSAGES {
        for channel in 0..CHANNELS {
            let payload = json!({"n": n, "padding": "x".repeat(1_000)});
            let frame =
                json!({"type": "publish", "id": 0, "channel": name(channel), "payload": payload});
            assert_eq!(publisher.ask(&frame).await["type"], "ack");
        }
    }
    // All of it weighs more than a megabyte.
    soon("the sweep", async {
        while node.metric("tidewire_window_bytes").await.unwrap_or_default() == 0.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(node.metric("tidewire_window_bytes").await.unwrap() <= 65_536.0);
    assert!(node.metric("tidewire_window_trims_total").await.unwrap() > 1.0);
    for (n, place) in places.into_iter().enumerate() {
        assert_eq!(resume(&node, &name(n), &place).await, (0..MESSAGES).collect::<Vec<_>>());
    }
}

/// The numbers of the messages after a place.
async fn resume(node: &Gateway, channel: &str, place: &Value) -> Vec<i64> {
    let path = format!("/v1/ws?channel={channel}&cursor={}", place.as_str().unwrap());
    let mut client = WebSocket::connect(node.addr(), &path).await;
    let welcome = client.expect("welcome").await;
    assert_eq!(welcome["channels"][0]["recovered"], true, "{welcome}");
    let mut numbers = Vec::new();
    while numbers.last() != Some(&(MESSAGES - 1)) {
        numbers.push(client.expect("message").await["payload"]["n"].as_i64().unwrap());
    }
    numbers
}

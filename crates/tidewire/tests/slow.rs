//! Clients that stop reading, and what it costs them.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, soon};

const CONFIG: &str = r#"
[limits]
outbox_bytes = "256KiB"
[namespaces.cursors]
history_size = 0
when_slow = "drop_oldest"
[namespaces.live]
history_size = 0
"#;

const SKIPPED: &str = "tidewire_outbox_skipped_messages_total{transport=\"websocket\"}";

/// Publishes numbered messages of 32 KiB, in turn to each channel, until told to stop; how many.
async fn publish_until(
    node: &Gateway,
    channels: &[&str],
    mut enough: impl AsyncFnMut() -> bool,
) -> i64 {
    let mut publisher = WebSocket::connect(node.addr(), "/v1/ws").await;
    publisher.expect("welcome").await;
    let padding = "x".repeat(32 << 10);
    let mut number = 0;
    while !enough().await {
        for channel in channels {
            number += 1;
            let payload = json!({ "n": number, "padding": padding });
            let frame = json!({"type": "publish", "id": 1, "channel": channel, "payload": payload});
            assert_eq!(publisher.ask(&frame).await["type"], "ack");
        }
        assert!(number < 10_000, "a client that does not read costs nothing");
    }
    number
}

fn number(frame: &Value) -> i64 {
    frame["payload"]["n"].as_i64().unwrap()
}

/// What a client that reads again finds: runs of messages without a hole, a gap before each.
async fn runs(client: &mut WebSocket, last: i64) -> Vec<(i64, i64)> {
    let (mut runs, mut told) = (Vec::new(), true);
    loop {
        let frame = client.next_json().await;
        match frame["type"].as_str().unwrap() {
            "gap" => {
                assert!(!told, "told twice: {frame}");
                assert_eq!((&frame["after"], &frame["cursor"]), (&Value::Null, &Value::Null));
                told = true;
            }
            "message" if told => {
                runs.push((number(&frame), number(&frame)));
                told = false;
            }
            "message" => {
                let run = runs.last_mut().unwrap();
                assert_eq!(number(&frame), run.1 + 1, "a message is missing and no gap was told");
                run.1 = number(&frame);
            }
            other => panic!("{other}"),
        }
        if runs.last().is_some_and(|run| run.1 == last) {
            return runs;
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_the_oldest_and_is_told_once() {
    let node = Gateway::builder().config(CONFIG).start().await;
    let path = "/v1/ws?channel=cursors:1";
    let mut slow = WebSocket::connect(node.addr(), path).await;
    slow.expect("welcome").await;
    let mut quick = WebSocket::connect(node.addr(), path).await;
    quick.expect("welcome").await;
    let reads = tokio::spawn(async move { (runs(&mut quick, i64::MAX).await, quick) });
    let last = publish_until(&node, &["cursors:1"], async || {
        node.metric(SKIPPED).await.is_some_and(|skipped| skipped >= 50.0)
    })
    .await;
    let skipped = node.metric(SKIPPED).await.unwrap();
    let runs = runs(&mut slow, last).await;
    assert_eq!(runs.len(), 2, "{runs:?}");
    assert_eq!((runs[0].0, (runs[1].0 - runs[0].1 - 1) as f64), (1, skipped));
    // It lives on, and what follows reaches it.
    let again = json!({"type": "publish", "id": 2, "channel": "cursors:1", "payload": {"n": 0}});
    slow.send(&again).await;
    slow.wait_for("the next message", |frame| frame["payload"]["n"] == 0).await;
    reads.abort();
}

#[tokio::test]
async fn elsewhere_it_is_closed() {
    let node = Gateway::builder().config(CONFIG).start().await;
    let path = "/v1/ws?channel=live:1&channel=cursors:1";
    let mut slow = WebSocket::connect(node.addr(), path).await;
    slow.expect("welcome").await;
    let closed = "tidewire_connections_closed_total{transport=\"websocket\",reason=\"slow\"}";
    publish_until(&node, &["live:1", "cursors:1"], async || node.metric(closed).await == Some(1.0))
        .await;
    assert_eq!(slow.closed().await, 4000);
}

#[tokio::test]
async fn on_a_stored_channel_it_is_an_error_at_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[namespaces.room]\nwhen_slow = \"drop_oldest\"\n").unwrap();
    let serve = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .env_clear()
        .args(["serve", "--config"])
        .arg(file.path())
        .output();
    let output = soon("the end", serve).await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.contains("namespaces.room.when_slow") && said.contains("history_size"), "{said}");
}

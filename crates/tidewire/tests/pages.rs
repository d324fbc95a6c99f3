//! Pages of history: what they cost, and what they say when there are none.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use serde_json::{Value, json};
use tidewire_testkit::http::{self, Answer};
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, RedisServer, soon};

async fn page(gateway: &Gateway, query: &str) -> Answer {
    let request = format!(
        "GET /v1/channels/big/messages?limit=1000{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        gateway.addr()
    );
    http::raw(gateway.addr(), request.as_bytes()).await
}

async fn sent_by(redis: &RedisServer) -> u64 {
    let info = redis.command(&["INFO", "stats"]).await.text();
    let line = info.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:"));
    line.unwrap().trim().parse().unwrap()
}

/// A page of a thousand messages is cut to what a client may have waiting; all of them were fetched from
/// Redis before that, 64 MB for each who asked.
#[tokio::test]
async fn a_page_of_large_messages_is_not_fetched_whole() {
    const COUNT: usize = 200;
    let redis = RedisServer::start().await;
    let config = "[namespaces.default]\nhistory_size = 1000\n";
    let gateway = Gateway::builder().config(config).redis(redis.url()).start().await;
    let padding = "x".repeat(60_000);
    for n in 0..COUNT {
        let body = json!({"payload": {"n": n, "padding": padding}}).to_string();
        redis.command(&["FCALL", "tidewire_publish", "1", "tidewire:big", &body]).await;
    }
    for (direction, mut expected) in [("since", 0), ("before", COUNT)] {
        let mut query = String::new();
        if direction == "since" {
            // The place before the first one is that of a page backwards to it.
            query = "&since=".to_owned() + &first_place(&gateway).await;
            expected = 1;
        }
        loop {
            let before = sent_by(&redis).await;
            let answer = page(&gateway, &query).await;
            assert_eq!(answer.status(), 200);
            let sent = sent_by(&redis).await - before;
            assert!(sent < 2_000_000, "{sent} bytes for a page");
            let answer = answer.json();
            let numbers: Vec<_> = answer["messages"]
                .as_array()
                .unwrap()
                .iter()
                .map(|message| message["payload"]["n"].as_u64().unwrap() as usize)
                .collect();
            assert!(!numbers.is_empty() && numbers.len() < 20, "{numbers:?}");
            if direction == "since" {
                assert_eq!(numbers, (expected..expected + numbers.len()).collect::<Vec<_>>());
                expected += numbers.len();
            } else {
                assert_eq!(numbers, (expected - numbers.len()..expected).collect::<Vec<_>>());
                expected -= numbers.len();
            }
            let Some(next) = answer["next"].as_str() else { break };
            query = format!("&{direction}={next}");
        }
        assert_eq!(expected, if direction == "since" { COUNT } else { 0 });
    }
}

/// The cursor of the first message.
async fn first_place(gateway: &Gateway) -> String {
    let mut query = String::new();
    loop {
        let answer = page(gateway, &query).await.json();
        match answer["next"].as_str() {
            Some(next) => query = format!("&before={next}"),
            None => return answer["messages"][0]["cursor"].as_str().unwrap().to_owned(),
        }
    }
}

/// What Redis said, and where it is, is the operators' business.
#[tokio::test]
async fn why_there_is_no_page_is_not_told_to_clients() {
    let mut redis = RedisServer::start().await;
    let gateway = Gateway::builder().redis(redis.url()).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    ws.expect("welcome").await;
    let history = json!({"type": "history", "id": 1, "channel": "big"});
    assert_eq!(ws.ask(&history).await["type"], "ack");
    let plain = "the history cannot be read now; try again";
    let check = async |ws: &mut WebSocket| {
        let answer = ws.ask(&history).await;
        let told = json!([answer["type"], answer["code"], answer["message"]]);
        assert_eq!(told, json!(["error", "unavailable", plain]));
        let answer = page(&gateway, "").await;
        let Value::Object(problem) = answer.json() else { panic!("no problem") };
        assert_eq!((answer.status(), &problem["code"]), (503, &json!("unavailable")));
        assert_eq!(problem["detail"], plain);
    };
    redis.command(&["ACL", "SETUSER", "default", "-fcall_ro"]).await;
    check(&mut ws).await;
    let log = gateway.log();
    assert!(
        log.contains("a page of history cannot be read") && log.contains("permissions"),
        "{log}"
    );
    redis.kill().await;
    check(&mut ws).await;
    // Nor is why nothing can be published.
    let publish = json!({"type": "publish", "id": 2, "channel": "big", "payload": 1});
    soon("a refusal", async {
        loop {
            let answer = ws.ask(&publish).await;
            match answer["code"].as_str() {
                Some("unavailable") => {
                    let message = answer["message"].as_str().unwrap();
                    assert!(
                        message.starts_with("not published: try again (messageId "),
                        "{message}"
                    );
                    break;
                }
                // It was sent just before the connection was seen to be gone.
                code => assert_eq!(code, Some("timeout")),
            }
        }
    })
    .await;
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("not published"));
    assert!(line.is_some_and(|line| line.contains("connect")), "{log}");
    assert_eq!(gateway.metric("tidewire_history_failures_total").await, Some(4.0));
}

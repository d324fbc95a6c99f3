//! A Redis whose memory is full (`maxmemory`, `noeviction`): publishes fail clearly, and everything
//! else goes on: delivery, subscribing, resuming, history, and links that break.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, RedisServer, Reply, http, soon};

const GLANCE: Duration = Duration::from_millis(5);
const LIVE: &str = "[namespaces.live]\nhistory_size = 0\n";

async fn post(node: &Gateway, channel: &str, payload: u64) -> http::Answer {
    let path = format!("/v1/channels/{channel}/messages");
    let body = json!({ "payload": payload, "messageId": payload.to_string() });
    http::post_json(node.addr(), &path, &body).await
}

/// Publishes, again while a connection to Redis is being made anew; its cursor.
async fn publish(node: &Gateway, channel: &str, payload: u64) -> String {
    soon("a publish", async {
        loop {
            let answer = post(node, channel, payload).await;
            if answer.status() == 200 {
                return answer.json()["cursor"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(GLANCE).await;
        }
    })
    .await
}

async fn limit(redis: &RedisServer, maxmemory: &str) {
    let set = redis.command(&["CONFIG", "SET", "maxmemory", maxmemory]).await;
    assert_eq!(set, Reply::Text(b"OK".to_vec()));
}

/// A plain `PUBLISH` needs no memory: it still reaches subscribers.
async fn still_delivers(redis: &RedisServer, clients: &mut [WebSocket], stream: &mut EventStream) {
    redis.publish("tidewire:room:1", "\"plain\"").await;
    for client in clients {
        assert_eq!(client.expect("message").await["payload"], "plain");
    }
    assert_eq!(stream.expect("message").await.json(), "plain");
}

#[tokio::test]
async fn publishes_fail_clearly_and_delivery_goes_on() {
    let redis = RedisServer::start().await;
    let node = Gateway::builder().config(LIVE).redis(redis.url());
    let (one, other) = (node.start().await, node.start().await);
    let first = publish(&one, "room:1", 1).await;
    publish(&one, "room:1", 2).await;
    let mut here = WebSocket::connect(one.addr(), "/v1/ws?channel=room:1").await;
    here.expect("welcome").await;
    let mut stream = EventStream::open(other.addr(), "/v1/sse?channel=room:1", &[]).await;
    stream.expect("tidewire:welcome").await;

    limit(&redis, "1").await;
    for node in [&one, &other] {
        let answer = post(node, "room:1", 3).await;
        let problem = answer.json();
        assert_eq!((answer.status(), &problem["code"]), (503, &json!("unavailable")), "{problem}");
        assert_eq!(problem["messageId"], "3");
        assert_eq!(problem["detail"], "not published: try again");
        // What is wrong with Redis is for those who run it.
        assert!(node.log().contains("OOM"), "{}", node.log());
    }
    let frame = json!({"type": "publish", "id": 1, "channel": "room:1", "payload": 4});
    here.send(&frame).await;
    assert_eq!(here.expect("error").await["code"], "unavailable");
    // What is not stored needs no memory.
    let mut live = WebSocket::connect(other.addr(), "/v1/ws?channel=live:a").await;
    live.expect("welcome").await;
    assert_eq!(post(&one, "live:a", 5).await.status(), 200);
    assert_eq!(live.expect("message").await["payload"], 5);
    // Nobody's fault but Redis's: the nodes stay in service.
    assert_eq!((one.readiness().await.0, other.readiness().await.0), (200, 200));

    // Who comes now is served: from the window, from the stream, from the history.
    let resumed = format!("/v1/ws?channel=room:1&cursor={first}");
    let mut back = WebSocket::connect(other.addr(), &resumed).await;
    assert_eq!(back.expect("welcome").await["channels"][0]["recovered"], true);
    assert_eq!(back.expect("message").await["payload"], 2);
    let mut fresh = WebSocket::connect(one.addr(), "/v1/ws?channel=room:2&channel=room:1").await;
    fresh.expect("welcome").await;
    let history = http::get(one.addr(), "/v1/channels/room:1/messages").await.json();
    let payloads: Vec<_> = history["messages"].as_array().unwrap().iter().collect();
    assert_eq!(payloads.iter().map(|m| &m["payload"]).collect::<Vec<_>>(), [1, 2]);
    let mut clients = [here, back, fresh];
    still_delivers(&redis, &mut clients, &mut stream).await;

    // Links that break are mended all the same, and nothing was lost: no gap.
    let breaks = "tidewire_broker_link_breaks_total";
    for kind in ["pubsub", "normal"] {
        redis.command(&["CLIENT", "KILL", "TYPE", kind]).await;
    }
    for node in [&one, &other] {
        // Of both links.
        soon("the breaks", async { while node.metric_sum(breaks).await < 2.0 {} }).await;
        node.wait_ready(200).await;
    }
    still_delivers(&redis, &mut clients, &mut stream).await;

    // With room again, what was refused is stored once, and everybody has it.
    limit(&redis, "0").await;
    let stored = publish(&one, "room:1", 3).await;
    assert_eq!(post(&other, "room:1", 3).await.json()["cursor"], stored.as_str());
    publish(&one, "room:1", 4).await;
    for client in &mut clients {
        let mut got: Vec<Value> = vec![];
        while got.len() < 2 {
            let frame = client.wait_for("a message", |frame| frame["type"] == "message").await;
            got.push(frame["payload"].clone());
        }
        assert_eq!(got, [3, 4]);
    }
    for n in 3..=4 {
        assert_eq!(stream.expect("message").await.json(), n);
    }
}

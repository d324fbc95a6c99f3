//! Several nodes on one Redis: everything reaches everyone, and a node is never deaf unnoticed.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, Proxy, RedisServer, http};

/// Channels that keep nothing.
const LIVE: &str = "[namespaces.live]\nhistory_size = 0\n";

/// One WebSocket and one event stream on a node, both subscribed to the same channel.
struct Clients {
    ws: WebSocket,
    sse: EventStream,
}

impl Clients {
    async fn on(node: &Gateway) -> Self {
        Self::of("news", node).await
    }

    async fn of(channel: &str, node: &Gateway) -> Self {
        let mut ws = WebSocket::connect(node.addr(), &format!("/v1/ws?channel={channel}")).await;
        ws.expect("welcome").await;
        let path = format!("/v1/sse?channel={channel}");
        let mut sse = EventStream::open(node.addr(), &path, &[]).await;
        sse.expect("tidewire:welcome").await;
        Self { ws, sse }
    }

    async fn both_get(&mut self, payload: &Value) {
        assert_eq!(self.ws.expect("message").await["payload"], *payload);
        assert_eq!(self.sse.expect("message").await.json(), *payload);
    }

    async fn both_are_told_of_a_gap(&mut self) {
        self.ws.expect("gap").await;
        self.sse.expect("tidewire:gap").await;
    }
}

async fn publish(node: &Gateway, payload: &Value) -> u16 {
    publish_to("news", node, payload).await
}

async fn publish_to(channel: &str, node: &Gateway, payload: &Value) -> u16 {
    let body = json!({ "payload": payload });
    let path = format!("/v1/channels/{channel}/messages");
    http::post_json(node.addr(), &path, &body).await.status()
}

async fn nodes(url: &str) -> Vec<Gateway> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Gateway::builder().redis(url).start().await);
    }
    nodes
}

#[tokio::test]
async fn a_publish_on_any_node_or_straight_to_redis_reaches_all() {
    let redis = RedisServer::start().await;
    let nodes = nodes(&redis.url()).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Clients::on(node).await);
    }
    for (n, node) in nodes.iter().enumerate() {
        assert_eq!(publish(node, &json!({"from": n})).await, 200);
        for client in &mut clients {
            client.both_get(&json!({"from": n})).await;
        }
    }
    let frame = json!({"type": "publish", "id": 1, "channel": "news", "payload": "by websocket"});
    let mut publisher = WebSocket::connect(nodes[1].addr(), "/v1/ws").await;
    publisher.expect("welcome").await;
    assert_eq!(publisher.ask(&frame).await["type"], "ack");
    for client in &mut clients {
        client.both_get(&json!("by websocket")).await;
    }
    let body = r#"{"event":"message","payload":{"title":"hi"}}"#;
    assert_eq!(redis.publish("tidewire:news", body).await, 3, "one subscription a node");
    for client in &mut clients {
        client.both_get(&json!({"title": "hi"})).await;
    }
    for (body, payload) in [("bare text", json!("bare text")), ("[1, 2]", json!([1, 2]))] {
        redis.publish("tidewire:news", body).await;
        for client in &mut clients {
            client.both_get(&payload).await;
        }
    }
    // What only looks like a message is delivered to nobody, and counted.
    redis.publish("tidewire:news", r#"{"payload":1,"event":"tidewire:gap"}"#).await;
    redis.publish("tidewire:news", "\"after\"").await;
    for client in &mut clients {
        client.both_get(&json!("after")).await;
    }
    let plain = "tidewire_messages_in_total{source=\"redis\",namespace=\"default\"}";
    assert_eq!(nodes[0].metric(plain).await, Some(4.0));
}

#[tokio::test]
async fn a_channel_nobody_wants_is_let_go() {
    let redis = RedisServer::start().await;
    let config = "[broker]\nlinger = \"1s\"\n";
    let node = Gateway::builder().config(config).redis(redis.url()).start().await;
    let subscribed = async || redis.publish("tidewire:news", "1").await;
    let client = Clients::on(&node).await;
    assert_eq!(subscribed().await, 1);
    drop(client);
    tidewire_testkit::soon("the unsubscription", async { while subscribed().await != 0 {} }).await;
}

#[tokio::test]
async fn a_broken_link_is_mended_while_clients_stay() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.addr()).await;
    let far = Gateway::builder().config(LIVE).redis(redis.url()).start().await;
    let near = format!("redis://{}", proxy.addr());
    let near = Gateway::builder().config(LIVE).redis(near).start().await;
    let mut stored = Clients::on(&near).await;
    let mut live = Clients::of("live:news", &near).await;
    proxy.cut().await;
    near.wait_ready(503).await;
    let (status, reason) = near.readiness().await;
    assert!(status == 503 && reason.len() > 10, "{reason}");
    assert_eq!(near.metric("tidewire_ready").await, Some(0.0));
    assert_eq!(publish(&near, &json!("lost")).await, 503);
    for channel in ["news", "live:news"] {
        assert_eq!(publish_to(channel, &far, &json!("missed")).await, 200);
    }
    // Who comes now waits for the broker, and is served when it is back.
    let mut waiting = EventStream::open(near.addr(), "/v1/sse?channel=live:news", &[]).await;
    proxy.heal().await;
    near.wait_ready(200).await;
    assert_eq!(near.metric("tidewire_ready").await, Some(1.0));
    // What is stored is read: nobody notices. What is live is gone, and that is said.
    stored.both_get(&json!("missed")).await;
    live.both_are_told_of_a_gap().await;
    waiting.expect("tidewire:welcome").await;
    for node in [&far, &near] {
        for channel in ["news", "live:news"] {
            assert_eq!(publish_to(channel, node, &json!("whole again")).await, 200);
        }
        stored.both_get(&json!("whole again")).await;
        live.both_get(&json!("whole again")).await;
        assert_eq!(waiting.expect("message").await.json(), json!("whole again"));
    }
}

#[tokio::test]
async fn a_link_that_hangs_is_found_by_its_echo() {
    let redis = RedisServer::start().await;
    let proxy = Proxy::start(redis.addr()).await;
    let near = format!("redis://{}", proxy.addr());
    let near = Gateway::builder().config(LIVE).redis(near).start().await;
    let mut stored = Clients::on(&near).await;
    let mut live = Clients::of("live:news", &near).await;
    // No byte comes through any more, and no connection ends.
    proxy.stall_all();
    let breaks = "tidewire_broker_link_breaks_total";
    tidewire_testkit::soon("both links' breaks", async {
        while near.metric_sum(breaks).await < 2.0 {}
    })
    .await;
    assert_eq!(near.readiness().await.0, 503);
    redis.command(&["FCALL", "tidewire_publish", "1", "tidewire:news", "\"meanwhile\""]).await;
    proxy.heal().await;
    near.wait_ready(200).await;
    live.both_are_told_of_a_gap().await;
    stored.both_get(&json!("meanwhile")).await;
    redis.publish("tidewire:live:news", "\"heard\"").await;
    live.both_get(&json!("heard")).await;
}

#[tokio::test]
async fn redis_may_be_killed_and_come_back_empty() {
    let mut redis = RedisServer::start().await;
    let nodes = nodes(&redis.url()).await;
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Clients::on(node).await);
    }
    redis.kill().await;
    for node in &nodes {
        node.wait_ready(503).await;
        assert_eq!(publish(node, &json!(0)).await, 503);
    }
    redis.restart_empty().await;
    for node in &nodes {
        node.wait_ready(200).await;
    }
    for client in &mut clients {
        client.both_are_told_of_a_gap().await;
    }
    assert_eq!(publish(&nodes[2], &json!("again")).await, 200);
    for client in &mut clients {
        client.both_get(&json!("again")).await;
    }
}

#[tokio::test]
async fn a_node_starts_before_its_redis() {
    let mut redis = RedisServer::start().await;
    redis.kill().await;
    let node = Gateway::builder().redis(redis.url()).unready().start().await;
    assert_eq!(node.readiness().await.0, 503);
    let mut stream = EventStream::open(node.addr(), "/v1/sse?channel=news", &[]).await;
    redis.restart_empty().await;
    node.wait_ready(200).await;
    stream.expect("tidewire:welcome").await;
    redis.publish("tidewire:news", "1").await;
    assert_eq!(stream.expect("message").await.json(), json!(1));
}

#[tokio::test]
async fn a_killed_nodes_clients_go_on_elsewhere() {
    let redis = RedisServer::start().await;
    let mut nodes = nodes(&redis.url()).await;
    let mut client = WebSocket::connect(nodes[0].addr(), "/v1/ws?channel=news").await;
    client.expect("welcome").await;
    nodes[0].kill().await;
    assert_eq!(client.closed().await, 1006);
    let mut client = Clients::on(&nodes[1]).await;
    assert_eq!(publish(&nodes[2], &json!("elsewhere")).await, 200);
    client.both_get(&json!("elsewhere")).await;
}

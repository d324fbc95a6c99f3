//! What sessions are promised: on both transports, slow ones, and at the node's end.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::json;
use tidewire_testkit::http;
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

async fn publish(gateway: &Gateway, channel: &str, body: serde_json::Value) {
    let path = format!("/v1/channels/{channel}/messages");
    let answer = http::post_json(gateway.addr(), &path, &body).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

#[tokio::test]
async fn a_publish_reaches_everyone_on_both_transports() {
    let gateway = Gateway::start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=news").await;
    ws.expect("welcome").await;
    let mut plain = EventStream::open(gateway.addr(), "/v1/sse?channel=news", &[]).await;
    let mut envelope =
        EventStream::open(gateway.addr(), "/v1/sse?channel=news&envelope=1", &[]).await;
    plain.expect("tidewire:welcome").await;
    envelope.expect("tidewire:welcome").await;
    let body = json!({"event": "headline", "payload": {"title": "hi"}, "messageId": "m1"});
    publish(&gateway, "news", body).await;
    let message = ws.expect("message").await;
    assert_eq!(message["event"], "headline");
    assert_eq!(message["payload"], json!({"title": "hi"}));
    assert_eq!(message["messageId"], "m1");
    assert!(message["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    assert_eq!(plain.expect("headline").await.json(), json!({"title": "hi"}));
    assert_eq!(envelope.expect("headline").await.json(), message);
}

#[tokio::test]
async fn the_ack_of_a_subscribe_comes_before_what_is_published_after_it() {
    let gateway = Gateway::start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    client.expect("welcome").await;
    for n in 0..200 {
        let channel = format!("c{}", n % 50);
        client.send(&json!({"type": "subscribe", "id": n, "channel": channel})).await;
        client.expect("ack").await;
        publish(&gateway, &channel, json!({"payload": n})).await;
        assert_eq!(client.expect("message").await["payload"], n);
        client.send(&json!({"type": "unsubscribe", "id": n, "channel": channel})).await;
        client.expect("ack").await;
    }
}

#[tokio::test]
async fn messages_of_one_publisher_stay_in_order_on_every_session() {
    let gateway = Gateway::start().await;
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut reader = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
        reader.expect("welcome").await;
        readers.push(tokio::spawn(async move {
            for n in 0..2_000 {
                assert_eq!(reader.expect("message").await["payload"], n);
            }
        }));
    }
    let mut publisher = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    publisher.expect("welcome").await;
    for n in 0..2_000 {
        publisher.send(&json!({"type": "publish", "id": n, "channel": "a", "payload": n})).await;
        if n % 50 == 49 {
            publisher.wait_for("the ack", |ack| ack["id"] == n).await;
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn echo_and_exclude_leave_one_session_out() {
    let gateway = Gateway::start().await;
    let mut one = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
    let session = one.expect("welcome").await["session"].as_str().unwrap().to_owned();
    let mut other = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
    other.expect("welcome").await;
    one.send(&json!({"type": "publish", "id": 1, "channel": "a", "payload": 1, "echo": false}))
        .await;
    one.expect("ack").await;
    publish(&gateway, "a", json!({"payload": 2, "exclude": session})).await;
    publish(&gateway, "a", json!({"payload": 3})).await;
    // Its place moves all the same.
    one.expect("position").await;
    one.expect("position").await;
    assert_eq!(one.expect("message").await["payload"], 3);
    for payload in 1..=3 {
        let message = other.expect("message").await;
        assert_eq!(message["payload"], payload);
        assert_eq!(message["from"]["session"] == session.as_str(), payload == 1, "{message}");
    }
}

#[tokio::test]
async fn bytes_and_text_arrive_as_the_protocol_says() {
    let gateway = Gateway::start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
    ws.expect("welcome").await;
    let mut text = EventStream::open(gateway.addr(), "/v1/sse?channel=a&text=1", &[]).await;
    text.expect("tidewire:welcome").await;
    let path = "/v1/channels/a/messages?event=log";
    http::post(gateway.addr(), path, "text/plain; charset=utf-8", "two\r\nlines ü".as_bytes())
        .await;
    http::post(gateway.addr(), path, "application/octet-stream", b"\xff\x00").await;
    let message = ws.expect("message").await;
    assert_eq!((&message["payload"], &message["event"]), (&json!("two\r\nlines ü"), &json!("log")));
    let message = ws.expect("message").await;
    assert_eq!((&message["payload"], &message["encoding"]), (&json!("/wA="), &json!("base64")));
    assert_eq!(text.expect("log").await.data.as_deref(), Some("two\nlines ü"));
    assert_eq!(text.expect("log").await.data.as_deref(), Some("/wA="));
}

#[tokio::test]
async fn channels_are_listed_with_their_subscribers() {
    let gateway = Gateway::start().await;
    let mut one = WebSocket::connect(gateway.addr(), "/v1/ws?channel=room:1&channel=room:2").await;
    one.expect("welcome").await;
    let mut two = EventStream::open(gateway.addr(), "/v1/sse?channel=room:2&channel=x", &[]).await;
    two.expect("tidewire:welcome").await;
    let list =
        async |query: &str| http::get(gateway.addr(), &format!("/v1/channels{query}")).await.json();
    let rooms =
        json!([{"channel": "room:1", "subscribers": 1}, {"channel": "room:2", "subscribers": 2}]);
    assert_eq!(list("?prefix=room:").await, json!({"channels": rooms}));
    assert_eq!(list("?limit=1").await, json!({"channels": [rooms[0]], "next": "room:1"}));
    assert_eq!(list("?after=room:2").await["channels"][0]["channel"], "x");
}

/// A client with a small receive buffer that does not read.
async fn deaf_client(gateway: &Gateway, request: String) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut stream = socket.connect(gateway.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn who_does_not_read_is_closed_as_slow_and_nobody_else_notices() {
    let config = "[limits]\noutbox_bytes = \"256KiB\"\n";
    let gateway = Gateway::builder().config(config).start().await;
    let host = gateway.addr();
    let mut reader = WebSocket::connect(host, "/v1/ws?channel=a").await;
    reader.expect("welcome").await;
    let mut deaf_ws = deaf_client(
        &gateway,
        format!(
            "GET /v1/ws?channel=a HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
    )
    .await;
    let mut deaf_sse =
        deaf_client(&gateway, format!("GET /v1/sse?channel=a HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
    soon("three subscribers", async {
        while http::get(host, "/v1/channels").await.json()["channels"][0]["subscribers"] != 3 {}
    })
    .await;
    let closed = async |transport: &str| {
        let name = format!(
            "tidewire_connections_closed_total{{transport=\"{transport}\",reason=\"slow\"}}"
        );
        gateway.metric(&name).await == Some(1.0)
    };
    // The kernel's buffers take some megabytes first.
    let payload = "x".repeat(32_000);
    let mut sent = 0;
    while !(closed("websocket").await && closed("sse").await) {
        assert!(sent < 2_000, "nobody is slow");
        for _ in 0..20 {
            publish(&gateway, "a", json!({"payload": [sent, payload]})).await;
            assert_eq!(reader.expect("message").await["payload"][0], sent);
            sent += 1;
        }
    }
    // Once it reads again, the close frame with the reason stands at the end of what was written.
    let mut rest = Vec::new();
    soon("the end of the WebSocket", deaf_ws.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest.last_chunk(), Some(&[0x88, 6, 0x0f, 0xa0, b's', b'l', b'o', b'w']));
    soon("the end of the stream", deaf_sse.read_to_end(&mut rest)).await.unwrap();
    publish(&gateway, "a", json!({"payload": "after"})).await;
    assert_eq!(reader.expect("message").await["payload"], "after");
}

#[tokio::test]
async fn heartbeats_come_on_both_transports() {
    let config = "[heartbeat]\nwebsocket = \"2s\"\npong = \"1s\"\nsse = \"1s\"\n";
    let gateway = Gateway::builder().config(config).start().await;
    let mut stream = EventStream::open(gateway.addr(), "/v1/sse?channel=a", &[]).await;
    assert_eq!(stream.head().header("cache-control"), Some("no-store"));
    assert_eq!(stream.head().header("x-accel-buffering"), Some("no"));
    let first = stream.next_block().await.unwrap();
    assert!(first.retry.is_some_and(|retry| (1_000..3_000).contains(&retry)), "{first:?}");
    assert_eq!(stream.expect("tidewire:welcome").await.json()["heartbeat"], 1);
    while stream.next_block().await.unwrap().comments.is_empty() {}
    let odd = "[heartbeat]\nwebsocket = \"1900ms\"\npong = \"1100ms\"\n";
    let odd = Gateway::builder().config(odd).start().await;
    let mut other = WebSocket::connect(odd.addr(), "/v1/ws").await;
    other.expect("welcome").await;
    let patient = tokio::spawn(async move {
        let quiet = tokio::time::timeout(Duration::from_secs(4), other.next_message()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    });
    // Answers to pings keep a WebSocket open beyond several heartbeats.
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    client.expect("welcome").await;
    let began = Instant::now();
    let quiet = tokio::time::timeout(Duration::from_secs(5), client.next_message()).await;
    assert!(quiet.is_err(), "{quiet:?} after {:?}", began.elapsed());
    assert_eq!(client.ask(&json!({"type": "ping", "id": 1})).await["type"], "pong");
    patient.await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_told_to_stop_sends_its_sessions_away() {
    let config = "[drain]\ntime = \"2s\"\n";
    let mut gateway = Gateway::builder().config(config).start().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
        client.expect("welcome").await;
        clients.push(client);
    }
    let mut stream = EventStream::open(gateway.addr(), "/v1/sse?channel=a", &[]).await;
    stream.expect("tidewire:welcome").await;
    gateway.terminate();
    let mut due = Vec::new();
    for client in &mut clients {
        due.push(client.expect("shutdown").await["reconnect"].as_u64().unwrap());
    }
    let told = stream.expect("tidewire:shutdown").await.json();
    due.push(told["reconnect"].as_u64().unwrap());
    assert!(due.iter().all(|due| *due <= 2_000), "{due:?}");
    let first = due.iter().min().copied().unwrap_or_default();
    assert!(due.iter().any(|due| *due > first + 400), "all at once: {due:?}");
    // Meanwhile publishes are served, and new streams are sent elsewhere.
    assert_eq!(gateway.readiness().await.0, 503);
    publish(&gateway, "a", json!({"payload": 1})).await;
    let again = EventStream::open(gateway.addr(), "/v1/sse?channel=a", &[]).await;
    let mut again = again;
    assert!(again.next_block().await.unwrap().retry.is_some());
    again.ended().await;
    match WebSocket::try_connect(gateway.addr(), "/v1/ws", &[]).await.err().map(|error| *error) {
        Some(tidewire_testkit::websocket::tungstenite::Error::Http(answer)) => {
            assert_eq!(answer.status(), 503);
            assert!(answer.headers().contains_key("retry-after"));
        }
        other => panic!("{other:?}"),
    }
    for client in &mut clients {
        assert_eq!(client.closed().await, 1012);
    }
    stream.ended().await;
    assert!(gateway.wait().await.success());
}

#[tokio::test]
async fn an_operator_drains_a_node_by_a_request() {
    let config = "[drain]\ntime = \"1s\"\n";
    let mut gateway = Gateway::builder().config(config).start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
    client.expect("welcome").await;
    let ask = async |headers: &str| {
        let request = format!(
            "POST /drain HTTP/1.1\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        http::raw(gateway.admin(), request.as_bytes()).await.status()
    };
    // A page of another site, whatever its name leads to.
    assert_eq!(ask("Host: localhost\r\nOrigin: https://evil.example\r\n").await, 403);
    assert_eq!(ask("Host: evil.example\r\n").await, 403);
    assert_eq!(ask("Host: localhost\r\n").await, 202);
    client.expect("shutdown").await;
    assert_eq!(client.closed().await, 1012);
    assert!(gateway.wait().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_a_node_at_once() {
    let config = "[drain]\ntime = \"10m\"\n";
    let mut gateway = Gateway::builder().config(config).start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
    client.expect("welcome").await;
    gateway.terminate();
    client.expect("shutdown").await;
    gateway.terminate();
    assert!(gateway.wait().await.success());
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let config = "[limits]\nconnections = 3\n";
    let gateway = Gateway::builder().config(config).start().await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut client = WebSocket::connect(gateway.addr(), "/v1/ws").await;
        client.expect("welcome").await;
        held.push(client);
    }
    let answer = http::get(gateway.addr(), "/v1/channels").await;
    assert_eq!((answer.status(), &answer.json()["code"]), (503, &json!("too_many")));
    held.pop().unwrap().close().await;
    soon("a free place", async {
        while http::get(gateway.addr(), "/v1/channels").await.status() != 200 {}
    })
    .await;
}

//! What strangers send: each gets a clear answer, and costs nobody else anything.

#![allow(clippy::unwrap_used)]

mod frames;
mod requests;

use serde_json::json;
use tidewire_testkit::http::Answer;
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Channels that keep nothing.
const LIVE: &str = "[namespaces.live]\nhistory_size = 0\n";

/// An honest subscriber and publisher beside the strangers: still served when all is over.
struct Honest(WebSocket);

impl Honest {
    async fn on(gateway: &Gateway) -> Self {
        let mut client = WebSocket::connect(gateway.addr(), "/v1/ws?channel=honest").await;
        client.expect("welcome").await;
        Self(client)
    }

    async fn still_gets_messages(mut self) {
        let frame =
            json!({"type": "publish", "id": 1, "channel": "honest", "payload": "still here"});
        self.0.send(&frame).await;
        let message = self.0.wait_for("the message", |frame| frame["type"] == "message").await;
        assert_eq!(message["payload"], "still here");
    }
}

/// The problem's status and code, and that it says something.
fn problem(answer: &Answer) -> (u16, String) {
    let kind = answer.head.header("content-type");
    assert_eq!(kind, Some("application/problem+json"), "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["status"], answer.status());
    assert!(body["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{body}");
    (answer.status(), body["code"].as_str().unwrap_or_default().to_owned())
}

fn expect_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(problem(answer), (status, code.to_owned()), "{}", answer.text());
}

async fn raw_websocket(gateway: &Gateway) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        gateway.addr()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

#[tokio::test]
async fn who_says_nothing_or_stops_halfway_is_let_go() {
    let config = "[limits]\nhead_timeout = \"1s\"\nbody_timeout = \"1s\"\n\
                  [heartbeat]\nwebsocket = \"2s\"\npong = \"1s\"\nsse = \"1s\"\n";
    let gateway = Gateway::builder().config(config).start().await;
    let until_end = async |bytes: &'static [u8]| {
        let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        soon("the end of the connection", socket.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let fragment = async {
        let mut socket = raw_websocket(&gateway).await;
        // The first half of a message, then only answers to pings.
        socket.write_all(&[0x01, 0x81, 0, 0, 0, 0, b'x']).await.unwrap();
        let mut received = Vec::new();
        soon("a close", async {
            loop {
                let mut bytes = [0; 256];
                match socket.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => received.extend_from_slice(&bytes[..n]),
                }
                if received.ends_with(&[0x89, 0]) {
                    let _ = socket.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await;
                }
                if received.windows(4).any(|four| four == [0x88, 9, 0x0f, 0xa1]) {
                    break;
                }
            }
        })
        .await;
        received
    };
    let silent_websocket = async {
        let mut socket = raw_websocket(&gateway).await;
        let mut received = Vec::new();
        soon("a close", async {
            // Reads, but answers no ping.
            while !received.windows(4).any(|four| four == [0x88, 9, 0x0f, 0xa1]) {
                received.push(socket.read_u8().await.unwrap());
            }
        })
        .await;
    };
    let (silent, half_head, half_body, _, ()) = tokio::join!(
        until_end(b""),
        until_end(b"GET /v1/channels HTTP/1.1\r\nHost: local"),
        until_end(
            b"POST /v1/channels/a/messages HTTP/1.1\r\nHost: localhost\r\n\
              Content-Type: text/plain\r\nContent-Length: 10\r\n\r\nhalf"
        ),
        fragment,
        silent_websocket,
    );
    assert_eq!(silent, "");
    assert!(half_head.starts_with("HTTP/1.1 408 "), "{half_head}");
    assert!(half_body.starts_with("HTTP/1.1 400 "), "{half_body}");
    let timeouts = "tidewire_connections_closed_total{transport=\"websocket\",reason=\"timeout\"}";
    assert_eq!(gateway.metric(timeouts).await, Some(2.0));
    Honest::on(&gateway).await.still_gets_messages().await;
}

#[tokio::test]
async fn an_event_stream_whose_client_talks_is_ended() {
    let gateway = Gateway::start().await;
    let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
    let request = format!("GET /v1/sse?channel=a HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.addr());
    socket.write_all(request.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let talk = async { while writer.write_all(&[b'x'; 4_096]).await.is_ok() {} };
    let mut all = Vec::new();
    let read = async { soon("the end", reader.read_to_end(&mut all)).await };
    let (_, _) = tokio::join!(talk, read);
    // Others are served.
    EventStream::open(gateway.addr(), "/v1/sse?channel=a", &[])
        .await
        .expect("tidewire:welcome")
        .await;
}

#[tokio::test]
async fn a_flood_of_one_client_does_not_hold_up_its_lane() {
    let gateway = Gateway::builder().config("lanes = 1\n").start().await;
    let mut honest = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    honest.expect("welcome").await;
    let (mut reader, mut writer) = raw_websocket(&gateway).await.into_split();
    // Empty pings, the cheapest frames there are, without an end; the pongs are read.
    let flood = tokio::spawn(async move {
        let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(100_000);
        while writer.write_all(&pings).await.is_ok() {}
    });
    let read = tokio::spawn(async move {
        let mut pongs = vec![0; 1 << 16];
        while reader.read(&mut pongs).await.is_ok_and(|n| n > 0) {}
    });
    for n in 0..50 {
        assert_eq!(honest.ask(&json!({"type": "ping", "id": n})).await["type"], "pong");
    }
    flood.abort();
    read.abort();
}

#[tokio::test]
async fn replies_that_nobody_reads_are_bounded() {
    let gateway = Gateway::start().await;
    let mut deaf = raw_websocket(&gateway).await;
    let pings = [0x89, 0x80, 0, 0, 0, 0].repeat(1_000);
    let closed = "tidewire_connections_closed_total{transport=\"websocket\",reason=\"slow\"}";
    // The kernel's buffers take some megabytes of pongs, the outbox a thousand.
    soon("the end of who does not read", async {
        while gateway.metric(closed).await != Some(1.0) {
            for _ in 0..1_000 {
                if deaf.write_all(&pings).await.is_err() {
                    break;
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn channels_that_come_and_go_do_not_pile_up() {
    let config = "[broker]\nlinger = \"10m\"\n[limits]\nsubscriptions_per_session = 200\n";
    let gateway = Gateway::builder().config(config).start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    client.expect("welcome").await;
    for round in 0..250 {
        for n in 0..100 {
            let channel = format!("c{round}-{n}");
            client.send(&json!({"type": "subscribe", "channel": channel})).await;
            client.send(&json!({"type": "unsubscribe", "id": n, "channel": channel})).await;
        }
        client.wait_for("the last ack", |frame| frame["id"] == 99).await;
    }
    // 64 shards, each with 256 that linger.
    let held = gateway.metric("tidewire_channels").await.unwrap();
    assert!(held <= 16_384.0, "{held} channels");
}

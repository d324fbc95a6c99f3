//! The socket leaves hyper: whatever was before and behind the request on the same connection.

#![allow(clippy::unwrap_used)]

use serde_json::json;
use tidewire_testkit::{Gateway, http, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    soon(text, async {
        while !String::from_utf8_lossy(&all).contains(text) {
            let mut bytes = [0; 4_096];
            let n = socket.read(&mut bytes).await.unwrap();
            assert!(n > 0, "ended: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&bytes[..n]);
        }
    })
    .await;
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn an_event_stream_behind_other_requests_of_one_connection() {
    let gateway = Gateway::start().await;
    let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
    let host = gateway.addr();
    // All at once: the answers must come whole and in order, the stream last.
    let get = format!("GET /v1/channels?prefix=none HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let stream = format!("GET /v1/sse?channel=a HTTP/1.1\r\nHost: {host}\r\n\r\n");
    socket.write_all(format!("{}{stream}", get.repeat(5)).as_bytes()).await.unwrap();
    let text = read_until(&mut socket, "tidewire:welcome").await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 6, "{text}");
    assert_eq!(text.matches("{\"channels\":[]}").count(), 5, "{text}");
    let path = "/v1/channels/a/messages";
    http::post_json(gateway.addr(), path, &json!({"payload": "through"})).await;
    read_until(&mut socket, "data: \"through\"").await;
}

#[tokio::test]
async fn an_event_stream_behind_answers_that_nobody_reads() {
    let gateway = Gateway::start().await;
    let host = gateway.addr();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    let mut socket = socket.connect(host).await.unwrap();
    let page = format!("GET /page.js HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let stream = format!("GET /v1/sse?channel=a HTTP/1.1\r\nHost: {host}\r\n\r\n");
    // Some megabytes of answers, more than the kernel's buffers take, then the stream.
    let count = 2_000;
    let (mut reader, mut writer) = socket.split();
    let send = async {
        writer.write_all(page.repeat(count).as_bytes()).await.unwrap();
        writer.write_all(stream.as_bytes()).await.unwrap();
    };
    let read = async {
        let mut all = Vec::new();
        soon("the welcome", async {
            let tail = |all: &[u8]| {
                String::from_utf8_lossy(&all[all.len().saturating_sub(8_192)..]).into_owned()
            };
            while !tail(&all).contains("tidewire:welcome") {
                assert!(reader.read_buf(&mut all).await.unwrap() > 0, "ended after {}", all.len());
            }
        })
        .await;
        String::from_utf8_lossy(&all).matches("HTTP/1.1 200 OK").count()
    };
    let ((), found) = tokio::join!(send, read);
    assert_eq!(found, count + 1);
}

#[tokio::test]
async fn frames_that_came_with_the_handshake_are_read() {
    let gateway = Gateway::start().await;
    let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
    let text = br#"{"type":"ping","id":"early"}"#;
    let mut request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        gateway.addr()
    )
    .into_bytes();
    request.extend_from_slice(&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0]);
    request.extend_from_slice(text);
    socket.write_all(&request).await.unwrap();
    let all = read_until(&mut socket, r#""id":"early"}"#).await;
    let welcome = all.find("welcome").unwrap();
    assert!(welcome < all.find("pong").unwrap(), "{all}");
}

#[tokio::test]
async fn a_head_request_for_a_stream_is_answered_with_a_head() {
    let gateway = Gateway::start().await;
    let request = format!(
        "HEAD /v1/sse?channel=a HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        gateway.addr()
    );
    let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the end", socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("text/event-stream"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

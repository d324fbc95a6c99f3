//! A node dies, and all its clients come to another one at once.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::json;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, RedisServer, http, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

const CLIENTS: usize = 2_000;
const MISSED: usize = 10;

async fn publish(node: &Gateway, channel: &str, n: usize) {
    let path = format!("/v1/channels/{channel}/messages");
    let answer = http::post_json(node.addr(), &path, &json!({ "payload": n })).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

/// A client on a bare socket, small enough to have thousands.
struct Client {
    socket: TcpStream,
    text: String,
}

impl Client {
    async fn connect(addr: SocketAddr, path: &str) -> Self {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        Self { socket, text: String::new() }
    }

    /// Reads until this has been said so many times; all that was.
    async fn until(&mut self, what: &str, count: usize) -> &str {
        while self.text.matches(what).count() < count {
            let mut input = [0; 4_096];
            let length = self.socket.read(&mut input).await.unwrap();
            assert!(length > 0, "closed after {:?}", self.text);
            // Headers of frames are no text.
            self.text.push_str(&String::from_utf8_lossy(&input[..length]));
        }
        &self.text
    }

    /// The last cursor that it was told.
    fn cursor(&self) -> String {
        let (_, rest) = self.text.rsplit_once(r#""cursor":""#).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    }
}

/// The reads that Redis was asked for so far.
async fn reads(redis: &RedisServer) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]).await.text();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_fcall_ro:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

/// All of them get exactly what they missed, for a handful of reads; and who was there before gets
/// its messages meanwhile. `before`: each had a message, or is still before the first.
async fn come_back(before: usize) {
    let redis = RedisServer::start().await;
    let mut dying = Gateway::builder().redis(redis.url()).start().await;
    let other = Gateway::builder().redis(redis.url()).start().await;
    let mut stays = WebSocket::connect(other.addr(), "/v1/ws?channel=room:2").await;
    stays.expect("welcome").await;

    let addr = dying.addr();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(addr, "/v1/ws?channel=room:1").await);
    }
    for client in &mut clients {
        soon("a welcome", client.until(r#""type":"welcome""#, 1)).await;
    }
    for n in 0..before {
        publish(&dying, "room:1", n).await;
    }
    let mut cursors = Vec::new();
    for mut client in clients {
        soon("messages", client.until(r#""type":"message""#, before)).await;
        cursors.push(client.cursor());
    }
    dying.kill().await;
    for n in 0..MISSED {
        publish(&other, "room:1", n).await;
    }
    let reads_before = reads(&redis).await;
    let all_at_once = Arc::new(Barrier::new(CLIENTS));
    let addr = other.addr();
    let back: Vec<_> = cursors
        .into_iter()
        .map(|cursor| {
            let all_at_once = all_at_once.clone();
            tokio::spawn(async move {
                all_at_once.wait().await;
                let path = format!("/v1/ws?channel=room:1&cursor={cursor}");
                let mut client = Client::connect(addr, &path).await;
                client.until(r#""type":"message""#, MISSED).await;
                client
            })
        })
        .collect();
    for n in 0..20 {
        publish(&other, "room:2", n).await;
        assert_eq!(stays.expect("message").await["payload"], n);
        // While they come, the channel goes on.
        publish(&other, "room:1", MISSED + n).await;
    }
    for client in back {
        let mut client = soon("a client's return", client).await.unwrap();
        let text = soon("what follows", client.until(r#""type":"message""#, MISSED + 20)).await;
        assert!(text.contains(r#""recovered":true"#) && !text.contains(r#""type":"gap""#));
        let payloads = text.split(r#""payload":"#).skip(1);
        let numbers: Vec<usize> =
            payloads.map(|rest| rest[..rest.find([',', '}']).unwrap()].parse().unwrap()).collect();
        assert_eq!(numbers, (0..MISSED + 20).collect::<Vec<_>>());
    }
    let reads = reads(&redis).await - reads_before;
    assert!(reads <= 10, "{reads} reads for {CLIENTS} clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_that_had_messages() {
    come_back(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_clients_that_waited_for_the_first() {
    come_back(0).await;
}

//! Requests while a node stops: they are answered until it is gone.

#![allow(clippy::unwrap_used)]

use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, RedisServer, Reply, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A publish on a connection that its client would keep.
fn publish(node: &Gateway) -> String {
    format!(
        "POST /v1/channels/a/messages HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n\
         Content-Length: 1\r\n\r\nx",
        node.addr()
    )
}

/// The node used to close its broker when the last session was gone, whatever was still being
/// published: behind nginx each restart failed some publishes with 503 or 504.
#[tokio::test]
async fn what_is_being_published_at_the_end_is_acknowledged() {
    let redis = RedisServer::start().await;
    // One lane: what came first is begun first.
    let mut node = Gateway::builder().config("lanes = 1\n").redis(redis.url()).start().await;
    let mut socket = BufReader::new(TcpStream::connect(node.addr()).await.unwrap());
    let ask = format!("GET /v1/channels HTTP/1.1\r\nHost: {}\r\n\r\n", node.addr());
    socket.write_all(ask.as_bytes()).await.unwrap();
    let head = http::read_head(&mut socket).await;
    let length = head.header("content-length").unwrap().parse().unwrap();
    socket.read_exact(&mut vec![0; length]).await.unwrap();
    // Redis answers half a second later; no session holds the node that long.
    let paused = redis.command(&["CLIENT", "PAUSE", "500", "WRITE"]).await;
    assert_eq!(paused, Reply::Text(b"OK".to_vec()));
    socket.write_all(publish(&node).as_bytes()).await.unwrap();
    // It has it once another one that came later is answered.
    assert_eq!(http::get(node.addr(), "/v1/channels").await.status(), 200);
    node.terminate();
    let head = http::read_head(&mut socket).await;
    assert_eq!(head.status, 200);
    assert!(node.wait().await.success());
}

#[tokio::test]
async fn connections_are_not_kept_while_the_node_stops() {
    let mut node = Gateway::builder().config("[drain]\ntime = \"2s\"\n").start().await;
    let mut client = WebSocket::connect(node.addr(), "/v1/ws?channel=a").await;
    client.expect("welcome").await;
    let kept = http::raw(node.addr(), publish(&node).as_bytes()).await;
    assert_eq!((kept.status(), kept.head.header("connection")), (200, None));
    node.terminate();
    client.wait_for("the word", |frame| frame["type"] == "shutdown").await;
    let last = http::raw(node.addr(), publish(&node).as_bytes()).await;
    assert_eq!((last.status(), last.head.header("connection")), (200, Some("close")));
    drop(client);
    assert!(node.wait().await.success());
}

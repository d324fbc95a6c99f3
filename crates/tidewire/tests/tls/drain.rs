//! A node that stops, as clients over TLS and over HTTP/2 see it.

use axum::body::Bytes;
use axum::http::{Request, Response};
use h2::client::SendRequest;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, soon};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::Node;

#[tokio::test]
async fn sessions_are_told_and_closed() {
    let mut node = Node::start("[drain]\ntime = \"1s\"\n").await;
    let tunnel = node.tunnel().await;
    let mut client = WebSocket::connect(tunnel.addr(), "/v1/ws?channel=a").await;
    client.expect("welcome").await;
    node.gateway.terminate();
    client.wait_for("the word", |frame| frame["type"] == "shutdown").await;
    assert_eq!(client.closed().await, 1012);
    assert!(soon("its end", node.gateway.wait()).await.success());
}

/// An HTTP/2 connection, and how it ends.
struct Http2 {
    requests: SendRequest<Bytes>,
    ends: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    async fn connect(at: std::net::SocketAddr) -> Self {
        let socket = TcpStream::connect(at).await.unwrap();
        let (requests, connection) =
            soon("a handshake", h2::client::handshake(socket)).await.unwrap();
        Self { requests, ends: tokio::spawn(connection) }
    }

    async fn get(&mut self, path: &str) -> Response<h2::RecvStream> {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let request = Request::get(format!("http://localhost{path}")).body(()).unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        soon("an answer", answer).await.unwrap()
    }
}

/// They used to be cut off: what was sent into them in the last moment was lost.
async fn is_told_to_go(node: &mut Gateway, at: std::net::SocketAddr) {
    let mut idle = Http2::connect(at).await;
    assert_eq!(idle.get("/v1/channels").await.status(), 200);
    let mut streams = Http2::connect(at).await;
    let mut events = streams.get("/v1/sse?channel=a").await.into_body();
    let first = soon("an event", events.data()).await.unwrap().unwrap();
    assert!(first.starts_with(b"retry:"), "{first:?}");
    node.terminate();
    // GOAWAY without an error, and the end of the connection.
    soon("the end", idle.ends).await.unwrap().unwrap();
    // A stream goes on on a connection that takes no further one, and is told.
    let mut told = Vec::new();
    while let Some(part) = soon("an event", events.data()).await {
        let part = part.unwrap();
        events.flow_control().release_capacity(part.len()).unwrap();
        told.extend_from_slice(&part);
    }
    assert!(String::from_utf8(told).unwrap().contains("event: tidewire:shutdown"));
    drop(events);
    drop(streams.requests);
    soon("the end", streams.ends).await.unwrap().unwrap();
    assert!(soon("its end", node.wait()).await.success());
}

#[tokio::test]
async fn http2_without_tls_is_told_to_go() {
    let mut node = Gateway::builder().config("[drain]\ntime = \"1s\"\n").start().await;
    let at = node.addr();
    is_told_to_go(&mut node, at).await;
}

#[tokio::test]
async fn http2_over_tls_is_told_to_go() {
    let mut node = Node::start("[drain]\ntime = \"1s\"\n").await;
    let tunnel = node.tunnel_with(&["h2"]).await;
    is_told_to_go(&mut node.gateway, tunnel.addr()).await;
}

/// A node without sessions ends at once, and says goodbye first.
#[tokio::test]
async fn http2_is_told_also_where_nobody_else_is() {
    let mut node = Gateway::start().await;
    let mut idle = Http2::connect(node.addr()).await;
    assert_eq!(idle.get("/v1/channels").await.status(), 200);
    node.terminate();
    soon("the end", idle.ends).await.unwrap().unwrap();
    assert!(soon("its end", node.wait()).await.success());
}

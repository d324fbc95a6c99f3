//! Every transport does over TLS what it does without.

use serde_json::json;
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{connect_tls, http, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Node;

const MESSAGES: &str = "/v1/channels/news/messages";

#[tokio::test]
async fn websocket_event_stream_poll_and_publish() {
    let node = Node::start("").await;
    let tunnel = node.tunnel().await;
    let at = tunnel.addr();
    let mut websocket = WebSocket::connect(at, "/v1/ws?channel=news").await;
    websocket.expect("welcome").await;
    let mut events = EventStream::open(at, "/v1/sse?channel=news", &[]).await;
    events.expect("tidewire:welcome").await;
    let place = http::get(at, "/v1/poll?channel=news").await.json()["cursor"].clone();
    for n in 0..20 {
        // Small ones, and such as do not fit into one record.
        let payload = json!({ "n": n, "padding": "x".repeat(n * 2_000) });
        let sent = http::post_json(at, MESSAGES, &json!({ "payload": payload })).await;
        assert_eq!(sent.status(), 200, "{}", sent.text());
        assert_eq!(websocket.expect("message").await["payload"], payload);
        assert_eq!(events.expect("message").await.json(), payload);
    }
    let path = format!("/v1/poll?channel=news&cursor={}", place.as_str().unwrap());
    let polled = http::get(at, &path).await.json();
    assert_eq!(polled["messages"].as_array().unwrap().len(), 20);
    // And from a session, with frames of many records.
    let padding = "y".repeat(60_000);
    let publish = json!({"type": "publish", "id": 1, "channel": "news", "payload": padding});
    assert_eq!(websocket.ask(&publish).await["type"], "ack");
    assert_eq!(events.expect("message").await.json(), json!(padding));
    websocket.close().await;
}

/// A crowd on one channel, and bytes that come in pieces of any size.
#[tokio::test]
async fn a_crowd_gets_everything_in_order() {
    let node = Node::start("").await;
    let tunnel = node.tunnel().await;
    let connect = async || {
        let mut client = WebSocket::connect(tunnel.addr(), "/v1/ws?channel=a").await;
        client.expect("welcome").await;
        client
    };
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(connect().await);
    }
    let mut publisher = connect().await;
    for n in 0..200 {
        let frame = json!({"type": "publish", "channel": "a", "payload": n});
        publisher.send(&frame).await;
    }
    for client in &mut clients {
        for n in 0..200 {
            assert_eq!(client.expect("message").await["payload"], n);
        }
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_costs_no_more_than_its_outbox() {
    let node = Node::start("[limits]\noutbox_bytes = \"256KiB\"\n").await;
    let tunnel = node.tunnel().await;
    let mut slow = WebSocket::connect(tunnel.addr(), "/v1/ws?channel=a").await;
    slow.expect("welcome").await;
    let mut slow_events = EventStream::open(tunnel.addr(), "/v1/sse?channel=a", &[]).await;
    slow_events.expect("tidewire:welcome").await;
    let mut publisher = WebSocket::connect(tunnel.addr(), "/v1/ws").await;
    publisher.expect("welcome").await;
    let closed = "tidewire_connections_closed_total";
    let closed = ["websocket", "sse"]
        .map(|transport| format!("{closed}{{transport=\"{transport}\",reason=\"slow\"}}"));
    let frame = json!({
        "type": "publish", "id": 1, "channel": "a", "payload": "x".repeat(32 << 10)
    });
    let mut sent = 0;
    while node.gateway.metric(&closed[0]).await != Some(1.0)
        || node.gateway.metric(&closed[1]).await != Some(1.0)
    {
        assert_eq!(publisher.ask(&frame).await["type"], "ack");
        sent += 1;
        assert!(sent < 2_000, "a client that does not read costs nothing");
    }
    // What was begun is finished, and the reason stands behind it.
    assert_eq!(slow.closed().await, 4000);
}

/// More than the kernel takes waits in the outbox, partly encrypted, and comes whole and in order.
#[tokio::test]
async fn a_client_that_reads_late_gets_everything() {
    let node = Node::start("[limits]\noutbox_bytes = \"64MiB\"\n").await;
    let tunnel = node.tunnel().await;
    let mut late = WebSocket::connect(tunnel.addr(), "/v1/ws?channel=a").await;
    late.expect("welcome").await;
    let mut publisher = WebSocket::connect(tunnel.addr(), "/v1/ws").await;
    publisher.expect("welcome").await;
    let padding = "x".repeat(60_000);
    for n in 0..400 {
        let payload = json!([n, padding]);
        let frame = json!({"type": "publish", "id": n, "channel": "a", "payload": payload});
        assert_eq!(publisher.ask(&frame).await["type"], "ack");
    }
    for n in 0..400 {
        let message = late.expect("message").await;
        assert_eq!((&message["payload"][0], &message["payload"][1]), (&json!(n), &json!(padding)));
    }
}

#[tokio::test]
async fn compressed_messages_pass() {
    let node = Node::start("[compression]\nwebsocket = true\n").await;
    let tunnel = node.tunnel().await;
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate")];
    let mut client =
        WebSocket::try_connect(tunnel.addr(), "/v1/ws?channel=a", &offer).await.unwrap();
    let agreed = client.response().headers().get("sec-websocket-extensions").unwrap();
    assert!(agreed.to_str().unwrap().starts_with("permessage-deflate"));
    client.expect("welcome").await;
    let body = json!({ "payload": "short" });
    let path = "/v1/channels/a/messages";
    assert_eq!(http::post_json(tunnel.addr(), path, &body).await.status(), 200);
    assert_eq!(client.expect("message").await["payload"], "short");
}

/// Two requests on one connection, the second an upgrade whose first frames come with it.
#[tokio::test]
async fn what_comes_with_the_handshake_is_not_lost() {
    let node = Node::start("").await;
    let tunnel = node.tunnel().await;
    let mut stream = TcpStream::connect(tunnel.addr()).await.unwrap();
    let host = format!("Host: {}\r\n", tunnel.addr());
    let mut bytes = format!(
        "GET /v1/channels HTTP/1.1\r\n{host}\r\nGET /v1/ws HTTP/1.1\r\n{host}\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes();
    // A ping whose payload is `x`, with a mask of zeroes.
    bytes.extend_from_slice(&[0x89, 0x81, 0, 0, 0, 0, b'x']);
    stream.write_all(&bytes).await.unwrap();
    let mut got = Vec::new();
    soon("a pong", async {
        while !got.windows(3).any(|window| window == [0x8a, 1, b'x']) {
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_without_tls_is_of_another_origin() {
    let node = Node::start(
        "[auth]\nmode = \"required\"\nallowed_origins = [\"http://app.example\"]\n\
        jwt.secret = \"0123456789abcdef0123456789abcdef\"\n",
    )
    .await;
    let tunnel = node.tunnel().await;
    let status = async |origin: &str| {
        let request = format!(
            "GET /v1/channels HTTP/1.1\r\nHost: gw.example\r\nOrigin: {origin}\r\n\
             Connection: close\r\n\r\n"
        );
        http::raw(tunnel.addr(), request.as_bytes()).await.status()
    };
    assert_eq!(status("https://gw.example").await, 401);
    assert_eq!(status("http://gw.example").await, 403);
    assert_eq!(status("http://app.example").await, 401);
}

/// It takes part in the count of connections of its address, and is over when it does not come to
/// an end.
#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended_and_counted() {
    let node = Node::start("[limits]\nconnections_per_address = 2\nhead_timeout = \"1s\"\n").await;
    let at = node.gateway.addr();
    let mut silent = TcpStream::connect(at).await.unwrap();
    // The beginning of a record that says it is longer.
    let mut half = TcpStream::connect(at).await.unwrap();
    half.write_all(&[22, 3, 1, 1, 0, 1]).await.unwrap();
    let mut third = TcpStream::connect(at).await.unwrap();
    // Over the limit there is not a word, as there is no TLS to say it in.
    assert_eq!(soon("the end", third.read(&mut [0; 64])).await.unwrap_or(0), 0);
    for held in [&mut silent, &mut half] {
        assert_eq!(soon("the end", held.read(&mut [0; 64])).await.unwrap_or(0), 0);
    }
    let refused = "tidewire_handshakes_refused_total{reason=\"tls_timeout\"}";
    soon("the count", async {
        while node.gateway.metric(refused).await != Some(2.0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // A greeting that is empty is answered with an alert.
    let mut nonsense = TcpStream::connect(at).await.unwrap();
    nonsense.write_all(&[22, 3, 1, 0, 4, 1, 0, 0, 0]).await.unwrap();
    let mut alert = Vec::new();
    soon("an alert", nonsense.read_to_end(&mut alert)).await.unwrap_or(0);
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
    // And both places are free again.
    let tunnel = node.tunnel().await;
    assert_eq!(http::get(tunnel.addr(), "/v1/channels").await.status(), 200);
}

/// Who says nothing behind its handshake waits where it costs little, is served when it speaks, and is let
/// go in the end. (hyper would have greeted HTTP/2, and answered HTTP/1 with 408.)
#[tokio::test]
async fn who_says_nothing_behind_the_handshake_is_let_go() {
    let node = Node::start("[limits]\nhead_timeout = \"1s\"\n").await;
    let silence = async |alpn: &[&str], tail: &[u8]| {
        let (at, authority) = (node.gateway.addr(), node.authority.certificate());
        let mut client = connect_tls(at, &authority, alpn).await;
        client.write_all(tail).await.unwrap();
        let mut got = Vec::new();
        // A clean end: TLS says that it is one.
        soon("the end", client.read_to_end(&mut got)).await.unwrap();
        String::from_utf8_lossy(&got).into_owned()
    };
    let half = b"GET /v1/channels HTTP/1.1\r\nHost: local";
    let (one, two, none, half) = tokio::join!(
        silence(&["http/1.1"], b""),
        silence(&["h2"], b""),
        silence(&[], b""),
        silence(&["http/1.1"], half),
    );
    assert_eq!((&*one, &*two, &*none), ("", "", ""));
    assert!(half.starts_with("HTTP/1.1 408 "), "{half}");
    let refused = "tidewire_handshakes_refused_total{reason=\"head_timeout\"}";
    soon("the count", async {
        while node.gateway.metric(refused).await != Some(4.0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Who speaks HTTP where HTTPS is spoken is told so.
#[tokio::test]
async fn a_request_without_tls_is_answered() {
    let node = Node::start("").await;
    let answer = http::get(node.gateway.addr(), "/v1/channels").await;
    assert_eq!((answer.status(), answer.json()["code"].as_str()), (400, Some("bad_request")));
    let refused = "tidewire_handshakes_refused_total{reason=\"tls\"}";
    // It is counted when the connection has ended, which is behind the answer.
    soon("counted", async {
        while node.gateway.metric(refused).await != Some(1.0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A client that goes without closing TLS leaves, and one that is told to go gets its close.
#[tokio::test]
async fn sessions_end_when_their_clients_do() {
    let node = Node::start("").await;
    let tunnel = node.tunnel().await;
    let mut client = WebSocket::connect(tunnel.addr(), "/v1/ws?channel=a").await;
    client.expect("welcome").await;
    client.send_text("{").await;
    client.expect("error").await;
    drop(client);
    soon("no session", async {
        while node.gateway.metric("tidewire_connections{transport=\"websocket\"}").await
            != Some(0.0)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

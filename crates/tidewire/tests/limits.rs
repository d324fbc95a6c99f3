//! What a client may take, and what happens beyond: each limit hit, told and counted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::json;
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::tungstenite::protocol::frame::Frame;
use tidewire_testkit::websocket::tungstenite::protocol::frame::coding::{Data, OpCode};
use tidewire_testkit::websocket::{WebSocket, tungstenite};
use tidewire_testkit::{Gateway, http, soon};

async fn gateway(limits: &str) -> Gateway {
    Gateway::builder().config(format!("[limits]\n{limits}")).start().await
}

async fn limited(gateway: &Gateway, limit: &str) -> Option<f64> {
    gateway.metric(&format!("tidewire_limited_total{{limit=\"{limit}\"}}")).await
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_no_more() {
    let gateway = gateway("connections_per_address = 3\n[auth]\nmode = \"open\"").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
        ws.expect("welcome").await;
        open.push(ws);
    }
    // Who says nothing is answered all the same.
    for request in [&b""[..], b"GET /v1/channels HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let answer = http::raw(gateway.addr(), request).await;
        assert_eq!((answer.status(), &answer.json()["code"]), (429, &json!("too_many")));
        assert!(answer.head.header("retry-after").is_some());
    }
    assert_eq!(limited(&gateway, "connections_per_address").await, Some(2.0));
    // What is said about an address by who is no trusted proxy changes nothing.
    let headers = [("X-Forwarded-For", "1.2.3.4")];
    let refused = WebSocket::try_connect(gateway.addr(), "/v1/ws", &headers).await;
    assert!(refused.is_err());
    open.pop().unwrap().close().await;
    soon("the place is free again", async {
        while WebSocket::try_connect(gateway.addr(), "/v1/ws", &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A status would end an `EventSource` for ever.
#[tokio::test]
async fn an_event_stream_without_a_place_is_told_to_come_back() {
    for limit in ["connections_per_address", "connections"] {
        let gateway = gateway(&format!("{limit} = 1\n[auth]\nmode = \"open\"")).await;
        let mut open = vec![tokio::net::TcpStream::connect(gateway.addr()).await.unwrap()];
        while limited(&gateway, limit).await.unwrap_or(0.0) == 0.0 {
            open.push(tokio::net::TcpStream::connect(gateway.addr()).await.unwrap());
        }
        let origin = [("Origin", "https://evil.example")];
        let mut stream = EventStream::open(gateway.addr(), "/v1/sse?channel=a", &[]).await;
        assert!(stream.next_block().await.unwrap().retry.is_some(), "{limit}");
        stream.ended().await;
        // A page of another site learns nothing.
        let refused = EventStream::try_open(gateway.addr(), "/v1/sse?channel=a", &origin).await;
        assert_ne!(refused.head().status, 200);
        assert!(limited(&gateway, limit).await.unwrap() >= 3.0);
    }
}

/// Every session counts, also those that share one connection: a browser may have 128 there.
#[tokio::test]
async fn streams_of_http2_are_counted_as_connections() {
    for (limits, limit, status) in [
        ("connections_per_address = 2", "connections_per_address", 429),
        ("connections = 2", "connections", 503),
    ] {
        let gateway = gateway(limits).await;
        let socket = tokio::net::TcpStream::connect(gateway.addr()).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let address = gateway.addr();
        let get = async |path: &str| {
            let uri = format!("http://{address}{path}");
            let request = axum::http::Request::get(uri).body(()).unwrap();
            let mut client = client.clone().ready().await.unwrap();
            let (answer, _) = client.send_request(request, true).unwrap();
            answer.await.unwrap()
        };
        let first = get("/v1/sse?channel=a").await;
        let second = get("/v1/sse?channel=a").await;
        soon("there are two sessions", async {
            while gateway.metric("tidewire_connections{transport=\"sse\"}").await != Some(2.0) {}
        })
        .await;
        // An EventSource is told to come back; a poll may have a status.
        let mut third = get("/v1/sse?channel=a").await;
        assert_eq!(third.status(), 200);
        let told = third.body_mut().data().await.unwrap().unwrap();
        assert!(told.starts_with(b"retry: "), "{told:?}");
        while third.body_mut().data().await.is_some() {}
        assert_eq!(get("/v1/poll?channel=a").await.status(), status);
        assert_eq!(limited(&gateway, limit).await, Some(2.0));
        // What is no session is answered all the same.
        assert_eq!(get("/v1/channels").await.status(), 200);
        // The connection's own place and a stream's are both given back.
        for one in [first, second] {
            drop(one);
            soon("a place is free again", async {
                while get("/v1/poll?channel=a").await.status() != 200 {}
            })
            .await;
        }
    }
}

/// What a connection of HTTP/2 may ask of a node: so many streams, heads of such a size, and few that are taken
/// back at once (CVE-2023-44487). Others are not touched by who asks for more.
#[tokio::test]
async fn http2_has_bounds_of_its_own() {
    let gateway = gateway("").await;
    let address = gateway.addr();
    let connect = async || {
        let socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(socket).await.unwrap();
        (client.ready().await.unwrap(), tokio::spawn(connection))
    };
    let request = |value: &str| {
        let uri = format!("http://{address}/v1/channels");
        axum::http::Request::get(uri).header("x-large", value).body(()).unwrap()
    };
    let (mut honest, _connection) = connect().await;
    let answer = honest.send_request(request(&"x".repeat(12 << 10)), true).unwrap().0;
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
    // By then its settings have come.
    assert_eq!(honest.current_max_send_streams(), 128);
    let answer = honest.send_request(request(&"x".repeat(17 << 10)), true).unwrap().0;
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 431);

    let (mut hasty, connection) = connect().await;
    for _ in 0..100 {
        let Ok((_, mut stream)) = hasty.send_request(request(""), false) else { break };
        stream.send_reset(h2::Reason::CANCEL);
    }
    let end = soon("its end", connection).await.unwrap().unwrap_err();
    assert_eq!(end.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM), "{end}");
    let mut honest = honest.ready().await.unwrap();
    let answer = honest.send_request(request(""), true).unwrap().0;
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
}

/// An answer that is not read is held in memory: a client that opened a hundred streams on each of
/// its connections, and a window of nothing, had a page of history on every one.
#[tokio::test]
#[allow(clippy::async_yields_async, reason = "an answer is waited for apart from its request")]
async fn answers_that_nobody_reads_are_few_on_a_connection() {
    // Whether it takes nothing, or a byte of each.
    for window in [0, 1] {
        answers_that_nobody_reads_are_few(window).await;
    }
}

async fn answers_that_nobody_reads_are_few(window: u32) {
    const MOST: usize = 2;
    let gateway = gateway("").await;
    for _ in 0..3 {
        let body = json!({"payload": "x".repeat(20_000)});
        let answer = http::post_json(gateway.addr(), "/v1/channels/a/messages", &body).await;
        assert_eq!(answer.status(), 200);
    }
    let address = gateway.addr();
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut deaf = h2::client::Builder::new();
    let (client, connection) =
        deaf.initial_window_size(window).handshake::<_, axum::body::Bytes>(socket).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    #[allow(clippy::async_yields_async, reason = "that no answer comes is what is asked")]
    let ask = async |method: &str, body: &'static str| {
        let uri = format!("http://{address}/v1/channels/a/messages");
        let request = axum::http::Request::builder().method(method).uri(uri);
        let request = request.header("content-type", "application/json").body(()).unwrap();
        let mut client = client.clone().ready().await.unwrap();
        let (answer, mut sending) = client.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            sending.send_data(body.into(), true).unwrap();
        }
        answer
    };
    let mut held = Vec::new();
    for _ in 0..MOST {
        held.push(ask("GET", "").await.await.unwrap());
    }
    let mut waiting = ask("GET", "").await;
    // What comes later and is no page is answered; by then the page would have been, too.
    assert_eq!(ask("POST", r#"{"payload":1}"#).await.await.unwrap().status(), 200);
    assert!((&mut waiting).now_or_never().is_none());
    // One that is given up makes room.
    held.pop();
    assert_eq!(waiting.await.unwrap().status(), 200);
}

/// A trusted proxy's connections are its clients', each counted for its own address.
#[tokio::test]
async fn behind_a_trusted_proxy_clients_are_counted_by_what_it_says() {
    let limits = "connections_per_address = 1\ntrusted_proxies = [\"127.0.0.0/8\"]";
    // Behind a proxy the mode is written down.
    let gateway = gateway(&format!("{limits}\n[auth]\nmode = \"open\"")).await;
    let connect = async |client: &str| {
        let headers = [("X-Forwarded-For", client)];
        WebSocket::try_connect(gateway.addr(), "/v1/ws", &headers).await
    };
    let mut one = connect("203.0.113.7").await.unwrap();
    one.expect("welcome").await;
    let _other = connect("203.0.113.8").await.unwrap();
    // A client that writes itself another address: the proxy puts the true one behind it.
    for spoofed in ["203.0.113.7", "1.1.1.1, 203.0.113.7", "127.0.0.1, 203.0.113.7"] {
        let refused = connect(spoofed).await.err().map(|error| *error);
        let Some(tungstenite::Error::Http(response)) = refused else { panic!("{spoofed} got in") };
        assert_eq!(response.status(), 429);
    }
    assert_eq!(limited(&gateway, "connections_per_address").await, Some(3.0));
    // An EventSource is not ended for ever by what will pass.
    let headers = [("X-Forwarded-For", "203.0.113.7")];
    let mut stream = EventStream::open(gateway.addr(), "/v1/sse?channel=a", &headers).await;
    assert!(stream.next_block().await.unwrap().retry.is_some());
    one.close().await;
    soon("the place is free again", async {
        while connect("203.0.113.7").await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Requests that are no streams are not counted.
    for _ in 0..3 {
        let request = b"GET /v1/channels HTTP/1.1\r\nHost: localhost\r\n\
            X-Forwarded-For: 203.0.113.8\r\nConnection: close\r\n\r\n";
        assert_eq!(http::raw(gateway.addr(), request).await.status(), 200);
    }
}

/// An empty frame that ends no message.
fn frame(opcode: Data) -> Frame {
    Frame::message(tungstenite::Bytes::new(), OpCode::Data(opcode), false)
}

#[tokio::test]
async fn too_fast_is_an_error_first_and_then_the_end() {
    let gateway = gateway("frames_per_second = 5").await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    ws.expect("welcome").await;
    for id in 0..40 {
        ws.send(&json!({"type": "ping", "id": id})).await;
    }
    // Twice the rate at once, then errors with the frame's id.
    for _ in 0..10 {
        ws.expect("pong").await;
    }
    let error = ws.wait_for("an error", |frame| frame["type"] == "error").await;
    assert_eq!((&error["code"], &error["retry"]), (&json!("too_fast"), &json!(1_000)));
    assert!(error["id"].as_u64().is_some_and(|id| id >= 10), "{error}");
    assert_eq!(ws.closed().await, 4103);
    assert!(limited(&gateway, "frames_per_second").await.unwrap() >= 10.0);
    // Pings are frames, too.
    let mut pings = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    pings.expect("welcome").await;
    for _ in 0..40 {
        // It may be closed while it still sends.
        let _ = pings.stream().send(tungstenite::Message::Ping("x".into())).await;
    }
    assert_eq!(pings.closed().await, 4103);
    // So are pongs that nobody asked for, and the parts of a message.
    let part = |opcode| tungstenite::Message::Frame(frame(opcode));
    for flood in [tungstenite::Message::Pong("x".into()), part(Data::Continue)] {
        let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
        ws.expect("welcome").await;
        if matches!(flood, tungstenite::Message::Frame(_)) {
            ws.stream().send(part(Data::Text)).await.unwrap();
        }
        for _ in 0..40 {
            let _ = ws.stream().send(flood.clone()).await;
        }
        assert_eq!(ws.closed().await, 4103);
    }
    let mut next = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    next.expect("welcome").await;
    assert_eq!(next.ask(&json!({"type": "ping", "id": 1})).await["type"], "pong");
}

#[tokio::test]
async fn bytes_are_counted_as_frames_are() {
    let gateway = gateway("frame_bytes = \"1KiB\"\nbytes_per_second = \"1KiB\"").await;
    let publish =
        |id: u32| json!({"type": "publish", "id": id, "channel": "a", "payload": "x".repeat(900)});
    for (subprotocol, refused) in [("tidewire.json", 1.0), ("tidewire.msgpack", 2.0)] {
        let headers = [("Sec-WebSocket-Protocol", subprotocol)];
        let mut ws = WebSocket::try_connect(gateway.addr(), "/v1/ws", &headers).await.unwrap();
        ws.expect("welcome").await;
        assert_eq!(ws.ask(&publish(1)).await["type"], "ack");
        assert_eq!(ws.ask(&publish(2)).await["type"], "ack");
        assert_eq!(ws.ask(&publish(3)).await["code"], "too_fast");
        assert_eq!(limited(&gateway, "bytes_per_second").await, Some(refused));
    }
}

/// What has come of a message is paid for when it comes, not when the message ends.
#[tokio::test]
async fn bytes_of_a_message_that_does_not_end_are_counted() {
    let gateway = gateway("frame_bytes = \"1KiB\"\nbytes_per_second = \"1KiB\"").await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    ws.expect("welcome").await;
    let publish = json!({"type": "publish", "id": 1, "channel": "a", "payload": "x".repeat(900)});
    assert_eq!(ws.ask(&publish).await["type"], "ack");
    let whole = publish.to_string();
    // There is room for these eight, but for what has come of the message.
    let part = Frame::message(whole[..900].to_owned(), OpCode::Data(Data::Text), false);
    let socket = ws.stream();
    socket.send(tungstenite::Message::Frame(part)).await.unwrap();
    socket.send(tungstenite::Message::Ping(Vec::new().into())).await.unwrap();
    // Its pong: the part has been read.
    while !matches!(socket.next().await, Some(Ok(tungstenite::Message::Pong(_)))) {}
    for _ in 0..8 {
        socket.feed(tungstenite::Message::Ping(vec![0; 125].into())).await.unwrap();
    }
    socket.flush().await.unwrap();
    soon("most of them are too much", async {
        while limited(&gateway, "bytes_per_second").await.unwrap_or(0.0) < 4.0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_has_so_many_subscriptions() {
    let gateway = gateway("subscriptions_per_session = 2").await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a&channel=b").await;
    ws.expect("welcome").await;
    let answer = ws.ask(&json!({"type": "subscribe", "id": 1, "channel": "c"})).await;
    assert_eq!(answer["code"], "too_many");
    assert_eq!(limited(&gateway, "subscriptions_per_session").await, Some(1.0));
}

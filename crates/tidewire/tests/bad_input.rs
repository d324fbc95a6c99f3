//! What strangers send: each gets a clear answer, and costs nobody else anything.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use tidewire_testkit::http::{self, Answer};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::{WebSocket, tungstenite};
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

#[tokio::test]
async fn channel_names_that_are_none() {
    let gateway = Gateway::start().await;
    let honest = Honest::on(&gateway).await;
    let long = "x".repeat(201);
    for name in
        ["%20", "a%20b", "a%0Ab", "%7Ba%7D", "a*", "a%3F", "a,b", ":x", ".", "..", "%00", &long]
    {
        let path = format!("/v1/channels/{name}/messages");
        let answer = http::post_json(gateway.addr(), &path, &json!({"payload": 1})).await;
        expect_problem(&answer, 400, "bad_channel");
        for stream in ["sse", "ws"] {
            let path = format!("/v1/{stream}?channel={name}");
            let refused = WebSocket::try_connect(gateway.addr(), &path, &[]).await.err();
            assert!(refused.is_some_and(|e| matches!(*e, tungstenite::Error::Http(_))), "{path}");
        }
    }
    let body = json!({"payload": 1});
    let answer = http::post_json(gateway.addr(), "/v1/channels//messages", &body).await;
    expect_problem(&answer, 400, "bad_channel");
    for broken in ["%", "%2", "%zz", "a%ff"] {
        let path = format!("/v1/channels/{broken}/messages");
        let answer = http::post_json(gateway.addr(), &path, &json!({"payload": 1})).await;
        expect_problem(&answer, 400, "bad_request");
        let answer = http::get(gateway.addr(), &format!("/v1/sse?channel={broken}")).await;
        expect_problem(&answer, 400, "bad_request");
    }
    honest.still_gets_messages().await;
}

#[tokio::test]
async fn publishes_that_are_none() {
    let gateway = Gateway::start().await;
    let honest = Honest::on(&gateway).await;
    let path = "/v1/channels/news/messages";
    let post = async |kind: &str, body: &[u8]| http::post(gateway.addr(), path, kind, body).await;
    let deep = format!(r#"{{"payload":{}{}}}"#, "[".repeat(1_000), "]".repeat(1_000));
    for (kind, body, status, code) in [
        ("application/x-www-form-urlencoded", "{\"payload\":1}", 415, "unsupported_type"),
        ("", "{\"payload\":1}", 415, "unsupported_type"),
        ("application/json", "", 400, "bad_request"),
        ("application/json", "nonsense", 400, "bad_request"),
        ("application/json", "[1]", 400, "bad_request"),
        ("application/json", "{}", 400, "bad_request"),
        ("application/json", "{\"payload\":1,\"event\":7}", 400, "bad_request"),
        ("application/json", "{\"payload\":1,\"event\":\"tidewire:gap\"}", 400, "bad_request"),
        ("application/json", "{\"payload\":1,\"typo\":1}", 400, "bad_request"),
        ("application/json", &deep, 400, "bad_request"),
        (
            "application/json",
            &format!("{{\"payload\":\"{}\"}}", "x".repeat(70_000)),
            413,
            "too_large",
        ),
        ("text/plain", &"x".repeat(65_537), 413, "too_large"),
    ] {
        expect_problem(&post(kind, body.as_bytes()).await, status, code);
    }
    expect_problem(&post("application/json", b"{\"payload\":\"\xff\"}").await, 400, "bad_request");
    expect_problem(&post("text/plain", b"\xff").await, 400, "bad_request");
    let chunked = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n\
         Transfer-Encoding: chunked\r\n\r\n20000\r\n{}\r\n",
        gateway.addr(),
        "x".repeat(0x20000)
    );
    expect_problem(&http::raw(gateway.addr(), chunked.as_bytes()).await, 413, "too_large");
    honest.still_gets_messages().await;
}

#[tokio::test]
async fn methods_and_paths_that_are_none() {
    let gateway = Gateway::builder().config(LIVE).start().await;
    for path in ["/v1/messages"] {
        let answer = http::get(gateway.addr(), path).await;
        expect_problem(&answer, 405, "method_not_allowed");
        assert!(answer.head.header("allow").is_some_and(|allow| allow.contains("POST")));
    }
    for path in ["/v1/sse?channel=a", "/v1/ws", "/v1/channels"] {
        let answer = http::post_json(gateway.addr(), path, &json!({})).await;
        expect_problem(&answer, 405, "method_not_allowed");
    }
    // What is not built does not exist.
    for path in
        ["/v1", "/nothing", "/v1/nodes", "/v1/channels/a/presence", "/v1/users/a/disconnect"]
    {
        expect_problem(&http::get(gateway.addr(), path).await, 404, "not_found");
    }
    for path in ["/metrics", "/readyz", "/healthz"] {
        expect_problem(&http::get(gateway.addr(), path).await, 404, "not_found");
    }
    for (path, status, code) in [
        ("/v1/sse", 400, "bad_request"),
        ("/v1/sse?channel=a&envelope=1&text=1", 400, "bad_request"),
        ("/v1/sse?channel=a&envelope=yes", 400, "bad_request"),
        ("/v1/sse?channel=live:a&rewind=1", 409, "no_history"),
        ("/v1/sse?channel=a&rewind=0", 400, "bad_request"),
        ("/v1/sse?channel=a&rewind=soon", 400, "bad_request"),
        ("/v1/sse?channel=a&cursor=x", 400, "bad_cursor"),
        ("/v1/sse?cursor=x&channel=a", 400, "bad_request"),
        ("/v1/sse?channel=a&lastEventId=!", 400, "bad_cursor"),
        ("/v1/poll", 400, "bad_request"),
        ("/v1/poll?channel=a&wait=3600", 400, "bad_request"),
        ("/v1/poll?channel=a&wait=x", 400, "bad_request"),
        ("/v1/poll?channel=a&cursor=x", 400, "bad_cursor"),
        ("/v1/poll?channel=a&channel=b&cursor=1-0.00000000", 400, "bad_cursor"),
        ("/v1/poll?channel=live:a", 409, "no_history"),
        ("/v1/channels/live:a/messages", 409, "no_history"),
        ("/v1/channels/a/messages?limit=0", 400, "bad_request"),
        ("/v1/channels/a/messages?limit=1001", 400, "bad_request"),
        ("/v1/channels/a/messages?since=x", 400, "bad_cursor"),
        ("/v1/ws?channel=a", 400, "bad_request"),
        ("/v1/channels?limit=0", 400, "bad_request"),
        ("/v1/channels?limit=x", 400, "bad_request"),
    ] {
        expect_problem(&http::get(gateway.addr(), path).await, status, code);
    }
    let many: String = (0..33).map(|n| format!("&channel=c{n}")).collect();
    let answer = http::get(gateway.addr(), &format!("/v1/sse?{many}")).await;
    expect_problem(&answer, 429, "too_many");
}

#[tokio::test]
async fn handshakes_that_are_none() {
    let gateway = Gateway::start().await;
    let good = [
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let shake = async |changed: &str, value: &str| {
        let mut request = format!("GET /v1/ws HTTP/1.1\r\nHost: {}\r\n", gateway.addr());
        for (name, good) in good {
            let value = if name == changed { value } else { good };
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !good.iter().any(|(name, _)| *name == changed) {
            request.push_str(&format!("{changed}: {value}\r\n"));
        }
        http::raw(gateway.addr(), format!("{request}\r\n").as_bytes()).await
    };
    for (name, value) in [
        ("Upgrade", "h2c"),
        ("Connection", "keep-alive"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Key", "short"),
        ("Sec-WebSocket-Key", ""),
        ("Sec-WebSocket-Protocol", "graphql-ws"),
        ("Sec-WebSocket-Protocol", "tidewire.xml"),
    ] {
        let answer = shake(name, value).await;
        expect_problem(&answer, 400, "bad_request");
        if name == "Sec-WebSocket-Version" {
            assert_eq!(answer.head.header("sec-websocket-version"), Some("13"));
        }
    }
    let head = format!("HEAD /v1/ws HTTP/1.1\r\nHost: {}\r\n", gateway.addr());
    let fields: String = good.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("{head}{fields}Connection: close\r\n\r\n");
    let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the end", socket.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    for (name, value) in [("Origin", "https://evil.example"), ("Origin", "null")] {
        expect_problem(&shake(name, value).await, 403, "forbidden");
    }
    assert!(
        gateway.metric("tidewire_handshakes_refused_total{reason=\"handshake\"}").await
            >= Some(7.0)
    );
}

#[tokio::test]
async fn old_and_broken_http() {
    let gateway = Gateway::start().await;
    let raw = async |request: String| http::raw(gateway.addr(), request.as_bytes()).await;
    // HTTP/1.0 works, for requests and for streams.
    let body = "{\"payload\":1}";
    let old = raw(format!(
        "POST /v1/channels/news/messages HTTP/1.0\r\nHost: localhost\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(old.await.status(), 200);
    let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
    socket.write_all(b"GET /v1/sse?channel=a HTTP/1.0\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon("the welcome", async {
        while !text.contains("tidewire:welcome") {
            let mut bytes = [0; 1_024];
            let n = socket.read(&mut bytes).await.unwrap();
            assert!(n > 0, "the stream ended: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
    })
    .await;
    // A foreign or missing host, which a rebound name would have, is not this machine.
    expect_problem(&raw("GET /v1/channels HTTP/1.0\r\n\r\n".into()).await, 403, "forbidden");
    let foreign = raw("GET /v1/channels HTTP/1.1\r\nHost: evil.example\r\n\r\n".into());
    expect_problem(&foreign.await, 403, "forbidden");
    for nonsense in ["\x16\x03\x01\x02\x00\x01", "HELLO\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let answer = raw(nonsense.into()).await;
        assert!(matches!(answer.status(), 0 | 400), "{nonsense:?}: {}", answer.status());
    }
    let long = format!(
        "GET /v1/channels HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    let answer = raw(long).await;
    assert!(matches!(answer.status(), 0 | 431), "{}", answer.status());
}

#[tokio::test]
async fn frames_that_are_none() {
    let gateway = Gateway::builder().config(LIVE).start().await;
    let honest = Honest::on(&gateway).await;
    let deep = format!(
        r#"{{"type":"publish","id":1,"channel":"a","payload":{}{}}}"#,
        "[".repeat(1_000),
        "]".repeat(1_000)
    );
    let long = "x".repeat(201);
    for (text, code) in [
        ("nonsense", "bad_frame"),
        ("[1]", "bad_frame"),
        ("{}", "bad_frame"),
        (r#"{"type":"dance","id":1}"#, "bad_frame"),
        (r#"{"type":"auth","id":1,"token":"x"}"#, "unauthorized"),
        (r#"{"type":"auth","id":1}"#, "bad_frame"),
        (r#"{"type":"subscribe","id":1}"#, "bad_frame"),
        (r#"{"type":"subscribe","id":1,"channel":7}"#, "bad_frame"),
        (r#"{"type":"subscribe","id":1,"channel":""}"#, "bad_channel"),
        (&format!(r#"{{"type":"subscribe","id":1,"channel":"{long}"}}"#), "bad_channel"),
        (r#"{"type":"subscribe","id":1,"channel":"live:a","rewind":1}"#, "no_history"),
        (r#"{"type":"subscribe","id":1,"channel":"live:a","cursor":"1-0.00000000"}"#, "no_history"),
        (r#"{"type":"subscribe","id":1,"channel":"a","rewind":1000000}"#, "bad_frame"),
        (r#"{"type":"subscribe","id":1,"channel":"a","rewind":-1}"#, "bad_frame"),
        (r#"{"type":"subscribe","id":1,"channel":"a","rewind":"-10m"}"#, "bad_frame"),
        (r#"{"type":"subscribe","id":1,"channel":"a","cursor":""}"#, "bad_cursor"),
        (r#"{"type":"subscribe","id":1,"channel":"a","cursor":"yesterday"}"#, "bad_cursor"),
        (r#"{"type":"subscribe","id":1,"channel":"a","cursor":"1-0.00000000"}"#, "bad_cursor"),
        (
            &format!(r#"{{"type":"subscribe","id":1,"channel":"a","cursor":"{long}"}}"#),
            "bad_cursor",
        ),
        (r#"{"type":"history","id":1,"channel":"a","limit":1001}"#, "bad_frame"),
        (r#"{"type":"history","id":1,"channel":"live:a"}"#, "no_history"),
        (r#"{"type":"unsubscribe","id":1,"channel":"elsewhere"}"#, "not_subscribed"),
        (r#"{"type":"publish","id":1,"channel":"a"}"#, "bad_frame"),
        (&deep, "bad_frame"),
    ] {
        let mut client = WebSocket::connect(gateway.addr(), "/v1/ws").await;
        client.expect("welcome").await;
        client.send_text(text).await;
        let error = client.expect("error").await;
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{error}");
        // The session goes on.
        assert_eq!(client.ask(&json!({"type": "ping", "id": "p"})).await["type"], "pong");
    }
    honest.still_gets_messages().await;
}

#[tokio::test]
async fn the_same_channel_twice() {
    let gateway = Gateway::start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a&channel=a").await;
    let channels = client.expect("welcome").await["channels"].clone();
    assert_eq!(
        (&channels[0]["channel"], channels.as_array().map(Vec::len)),
        (&json!("a"), Some(1))
    );
    let answer = client.ask(&json!({"type": "subscribe", "id": 1, "channel": "a"})).await;
    assert_eq!(answer["code"], "already_subscribed");
    client.send(&json!({"type": "publish", "channel": "a", "payload": 1})).await;
    client.expect("ack").await;
    client.expect("message").await;
    // Once.
    assert_eq!(client.ask(&json!({"type": "ping", "id": 2})).await["type"], "pong");
}

#[tokio::test]
async fn subscriptions_beyond_the_limit() {
    let config = "[limits]\nsubscriptions_per_session = 100\n";
    let gateway = Gateway::builder().config(config).start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    for n in 0..100 {
        let frame = json!({"type": "subscribe", "id": n, "channel": format!("c{n}")});
        assert_eq!(client.ask(&frame).await["type"], "ack");
    }
    let answer = client.ask(&json!({"type": "subscribe", "id": 100, "channel": "c100"})).await;
    assert_eq!(answer["code"], "too_many");
    client.ask(&json!({"type": "unsubscribe", "id": 101, "channel": "c0"})).await;
    let answer = client.ask(&json!({"type": "subscribe", "id": 102, "channel": "c100"})).await;
    assert_eq!(answer["type"], "ack");
    let many: String = (0..101).map(|n| format!("&channel=c{n}")).collect();
    let refused = WebSocket::try_connect(gateway.addr(), &format!("/v1/ws?{many}"), &[]).await;
    match refused.err().map(|error| *error) {
        Some(tungstenite::Error::Http(answer)) => assert_eq!(answer.status(), 429),
        other => panic!("{other:?}"),
    }
}

/// Sends bytes behind a good handshake; gives the code of the server's close frame.
async fn close_code_for(gateway: &Gateway, bytes: &[u8]) -> u16 {
    let mut socket = raw_websocket(gateway).await;
    socket.write_all(bytes).await.unwrap();
    let mut received = Vec::new();
    soon("the end of the connection", socket.read_to_end(&mut received)).await.unwrap();
    // Frames of the server are short and unmasked here: the welcome, then the close frame.
    let mut rest = &received[..];
    while let [first, length, frame @ ..] = rest {
        let (length, frame) = match length {
            126 => (usize::from(u16::from_be_bytes([frame[0], frame[1]])), &frame[2..]),
            length => (usize::from(*length), frame),
        };
        if *first == 0x88 {
            return u16::from_be_bytes([frame[0], frame[1]]);
        }
        rest = &frame[length..];
    }
    1006
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
async fn websocket_frames_against_the_rfc() {
    let gateway = Gateway::start().await;
    let honest = Honest::on(&gateway).await;
    let huge = [&[0x81, 0xff][..], &70_000_u64.to_be_bytes(), &[0, 0, 0, 0]].concat();
    let fragments = [
        &[0x01, 0xfe, 0xff, 0xff, 0, 0, 0, 0][..],
        &[b'x'; 65_535],
        &[0x80, 0x82, 0, 0, 0, 0, b'x', b'x'],
    ]
    .concat();
    for (bytes, code, what) in [
        (&[0x81, 0x01, b'x'][..], 1002, "unmasked"),
        (&[0xc1, 0x80, 0, 0, 0, 0], 1002, "a reserved bit"),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002, "a reserved opcode"),
        (&[0x89, 0xfe, 0, 126, 0, 0, 0, 0], 1002, "a ping of 126 bytes"),
        (&[0x09, 0x80, 0, 0, 0, 0], 1002, "a fragmented ping"),
        (&[0x80, 0x80, 0, 0, 0, 0], 1002, "nothing to continue"),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007, "no UTF-8"),
        (&[0x82, 0x81, 0, 0, 0, 0, 0xff], 1003, "binary"),
        (&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8], 1000, "a close"),
        (&[0x88, 0x81, 0, 0, 0, 0, 0x03], 1002, "half a close code"),
        (&huge, 1009, "over the limit"),
        (&fragments, 1009, "over the limit in fragments"),
    ] {
        assert_eq!(close_code_for(&gateway, bytes).await, code, "{what}");
    }
    honest.still_gets_messages().await;
}

#[tokio::test]
async fn ten_errors_in_ten_seconds_end_a_session() {
    let gateway = Gateway::start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    client.expect("welcome").await;
    for _ in 0..10 {
        client.send_text("nonsense").await;
    }
    assert_eq!(client.closed().await, 4103);
    let closed = "tidewire_connections_closed_total{transport=\"websocket\",reason=\"abuse\"}";
    assert_eq!(gateway.metric(closed).await, Some(1.0));
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
async fn batches_that_are_none() {
    let gateway = Gateway::start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a&channel=b").await;
    client.expect("welcome").await;
    let post = async |body: &Value| http::post_json(gateway.addr(), "/v1/messages", body).await;
    for body in [json!({}), json!([]), json!({"messages": 1}), json!({"messages": [], "x": 1})] {
        expect_problem(&post(&body).await, 400, "bad_request");
    }
    let many = json!({"messages": vec![json!({"channel": "a", "payload": 1}); 101]});
    expect_problem(&post(&many).await, 429, "too_many");
    let kind = http::post(gateway.addr(), "/v1/messages", "text/plain", b"x").await;
    expect_problem(&kind, 415, "unsupported_type");
    let mixed = json!({"messages": [
        {"channel": "a", "payload": 1, "messageId": "m1"},
        {"channel": "no good", "payload": 2},
        {"channels": ["a", "b"], "event": "e", "payload": 3},
        {"channel": "b"},
        {"payload": 4},
        {"channel": "b", "payload": "x".repeat(70_000)},
    ]});
    let answer = post(&mixed).await;
    assert_eq!(answer.status(), 200);
    let results = answer.json()["results"].as_array().cloned().unwrap();
    let codes: Vec<_> = results.iter().map(|result| result["code"].as_str()).collect();
    let bad = Some("bad_request");
    assert_eq!(codes, [None, Some("bad_channel"), None, None, bad, bad, Some("too_large")]);
    assert_eq!(results[0]["messageId"], "m1");
    assert_eq!(results[1]["channel"], "no good");
    // Channels keep their own order, not one among each other.
    let mut got = Vec::new();
    for _ in 0..3 {
        let message = client.expect("message").await;
        got.push((message["channel"].clone(), message["payload"].clone()));
    }
    got.sort_by_key(|(channel, payload)| (channel.to_string(), payload.to_string()));
    let expected = [("a", 1), ("a", 3), ("b", 3)].map(|(to, payload)| (json!(to), json!(payload)));
    assert_eq!(got, expected);
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
async fn http2_that_does_not_begin_is_let_go() {
    let gateway = Gateway::builder().config("[limits]\nhead_timeout = \"1s\"\n").start().await;
    for begun in [&b"P"[..], b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
        socket.write_all(begun).await.unwrap();
        let mut rest = Vec::new();
        // Reset or closed: either way it is over.
        let _ = soon("the end of the connection", socket.read_to_end(&mut rest)).await;
    }
}

#[tokio::test]
async fn the_answer_to_a_body_over_the_limit_arrives_whole() {
    let gateway = Gateway::start().await;
    for _ in 0..5 {
        let body = vec![b'x'; 4 << 20];
        let mut socket = TcpStream::connect(gateway.addr()).await.unwrap();
        let head = format!(
            "POST /v1/channels/a/messages HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\n\
             Content-Length: {}\r\n\r\n",
            gateway.addr(),
            body.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        // Whether all of it is taken or not, the answer must not be lost to a reset.
        let _ = socket.write_all(&body[..1 << 20]).await;
        let mut answer = String::new();
        soon("the answer", socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.ends_with('}'), "{answer}");
    }
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

//! Handshakes and frames that are none.

use serde_json::json;
use tidewire_testkit::http;
use tidewire_testkit::websocket::{WebSocket, tungstenite};
use tidewire_testkit::{Gateway, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

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
async fn what_a_client_may_not_have_ends_no_session_however_often_it_asks() {
    let rules = "[namespaces.closed]\nsubscribe = \"nobody\"\npublish = \"nobody\"\n";
    let gateway = Gateway::builder().config(format!("{LIVE}{rules}")).start().await;
    let mut client = WebSocket::connect(gateway.addr(), "/v1/ws?channel=live:a").await;
    client.expect("welcome").await;
    for (frame, code) in [
        (json!({"type": "subscribe", "channel": "closed:a"}), "forbidden"),
        (json!({"type": "publish", "channel": "closed:a", "payload": 1}), "forbidden"),
        (json!({"type": "subscribe", "channel": "live:a"}), "already_subscribed"),
        (json!({"type": "unsubscribe", "channel": "live:b"}), "not_subscribed"),
        (json!({"type": "history", "channel": "live:a"}), "no_history"),
    ] {
        for _ in 0..12 {
            client.send(&frame).await;
        }
        for _ in 0..12 {
            assert_eq!(client.expect("error").await["code"], code);
        }
    }
    client.send(&json!({"type": "ping"})).await;
    client.expect("pong").await;
}

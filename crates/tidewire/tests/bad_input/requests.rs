//! Requests that are none.

use serde_json::{Value, json};
use tidewire_testkit::http;
use tidewire_testkit::websocket::{WebSocket, tungstenite};
use tidewire_testkit::{Gateway, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

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

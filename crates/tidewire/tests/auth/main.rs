//! Who is let in and who is not, as clients, backends and attackers meet it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod keys;
mod login;
mod pairs;
mod rules;

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidewire_testkit::Gateway;
use tidewire_testkit::http::{self, Answer};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::{WebSocket, tungstenite};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

const CONFIG: &str = r#"
[auth]
allowed_origins = ["https://app.example"]
api_keys = [
    { name = "shop", key = "the-key-of-the-shop" },
    { name = "orders", key = "the-key-of-orders", publish = ["orders:*"], verbs = ["publish"] },
    # The key is "hello-i-am-a-hashed-key".
    { name = "hashed", sha256 = "HASH" },
]
personal_namespace = "user"
[auth.jwt]
secret = "0123456789abcdef0123456789abcdef"
leeway = "0s"
[namespaces.public]
subscribe = "user"
publish = "nobody"
[namespaces.quiet]
client_history = false
[namespaces.small]
publish = "user"
events = ["tick"]
message_bytes = 10
"#;

async fn gateway() -> Gateway {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"hello-i-am-a-hashed-key");
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Gateway::builder().config(CONFIG.replace("HASH", &hex)).start().await
}

/// What `tidewire token` prints.
fn token_of(secret: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.arg("token").args(arguments).env_clear().stdin(Stdio::null());
    let output = command.env("TIDEWIRE_AUTH__JWT__SECRET", secret).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn token(arguments: &[&str]) -> String {
    token_of(SECRET, arguments)
}

fn alice() -> String {
    let rooms = ["--subscribe", "room:*", "--publish", "room:42", "--subscribe", "quiet:*"];
    token(&[&["--sub", "alice"][..], &rooms].concat())
}

async fn call(
    gateway: &Gateway,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
        gateway.addr(),
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    http::raw(gateway.addr(), request.as_bytes()).await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn publish_as(gateway: &Gateway, credential: &str, channel: &str, body: Value) -> Answer {
    let headers = [("Authorization", &*bearer(credential)), ("Content-Type", "application/json")];
    let path = format!("/v1/channels/{channel}/messages");
    call(gateway, "POST", &path, &headers, &body.to_string()).await
}

async fn get_as(gateway: &Gateway, credential: &str, path: &str) -> Answer {
    call(gateway, "GET", path, &[("Authorization", &bearer(credential))], "").await
}

/// Status and code of a refusal.
fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status(), answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

fn is(answer: &Answer, status: u16, code: &str) {
    assert_eq!(refusal(answer), (status, code.to_owned()), "{}", answer.text());
}

/// Status of a refused WebSocket.
async fn refused_websocket(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> u16 {
    match WebSocket::try_connect(gateway.addr(), path, headers).await.err().map(|e| *e) {
        Some(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Some(other) => panic!("{other}"),
        None => panic!("{path} was let in"),
    }
}

#[tokio::test]
async fn who_shows_nothing_is_told_how_to_log_in() {
    let gateway = gateway().await;
    for (method, path) in [
        ("GET", "/v1/sse?channel=room:42"),
        ("GET", "/v1/poll?channel=room:42"),
        ("GET", "/v1/channels"),
        ("GET", "/v1/channels/room:42/messages"),
        ("POST", "/v1/channels/room:42/messages"),
        ("POST", "/v1/messages"),
    ] {
        let answer = call(&gateway, method, path, &[], "").await;
        is(&answer, 401, "unauthorized");
        let challenge = answer.head.header("www-authenticate");
        assert_eq!(challenge, Some(r#"Bearer realm="tidewire""#), "{path}");
        let kind = answer.head.header("content-type");
        assert_eq!(kind, Some("application/problem+json"));
        // A token in the address counts on the streaming paths alone.
        let good = alice();
        let stream = path.contains("/sse") || path.contains("/poll");
        if !stream {
            let path = format!("{path}?token={good}");
            is(&call(&gateway, method, &path, &[], "").await, 401, "unauthorized");
        }
    }
    // The page is for everybody.
    assert_eq!(http::get(gateway.addr(), "/").await.status(), 200);
}

/// A proxy on this machine would open to the world what is open to this machine alone.
#[tokio::test]
async fn behind_a_proxy_open_mode_must_be_written_down() {
    let implicit = Gateway::start().await;
    let written = Gateway::builder().config("[auth]\nmode = \"open\"").start().await;
    let publish = async |gateway: &Gateway, header: &str| {
        let headers = [(header, "for=203.0.113.7"), ("Content-Type", "application/json")];
        call(gateway, "POST", "/v1/channels/a/messages", &headers, r#"{"payload":1}"#).await
    };
    for header in ["X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via"] {
        let refused = publish(&implicit, header).await;
        is(&refused, 403, "forbidden");
        let detail = refused.json()["detail"].to_string();
        assert!(detail.contains("auth.mode"), "{detail}");
        assert_eq!(publish(&written, header).await.status(), 200, "{header}");
    }
    assert_eq!(http::get(implicit.addr(), "/v1/channels").await.status(), 200);
    let headers = [("X-Forwarded-For", "203.0.113.7")];
    assert_eq!(refused_websocket(&implicit, "/v1/ws", &headers).await, 403);
    assert_eq!(call(&implicit, "GET", "/v1/channels", &headers, "").await.status(), 403);
}

#[tokio::test]
async fn a_token_opens_what_it_grants_on_every_path() {
    let gateway = gateway().await;
    let alice = alice();
    let hi = || json!({"payload": "hi"});
    assert_eq!(publish_as(&gateway, &alice, "room:42", hi()).await.status(), 200);
    is(&publish_as(&gateway, &alice, "room:43", hi()).await, 403, "forbidden");
    is(&publish_as(&gateway, &alice, "public:1", hi()).await, 403, "forbidden");

    assert_eq!(get_as(&gateway, &alice, "/v1/channels/room:42/messages").await.status(), 200);
    is(&get_as(&gateway, &alice, "/v1/channels/other/messages").await, 403, "forbidden");
    is(&get_as(&gateway, &alice, "/v1/channels/quiet:1/messages").await, 403, "forbidden");
    is(&get_as(&gateway, &alice, "/v1/channels").await, 403, "forbidden");

    let poll = |channel: &str| format!("/v1/poll?channel={channel}&token={alice}&wait=0");
    assert_eq!(http::get(gateway.addr(), &poll("room:42")).await.status(), 200);
    is(&http::get(gateway.addr(), &poll("other")).await, 403, "forbidden");
    let rewound = format!("{}&rewind=1", poll("quiet:1"));
    is(&http::get(gateway.addr(), &rewound).await, 403, "forbidden");
    assert_eq!(http::get(gateway.addr(), &poll("quiet:1")).await.status(), 200);

    // One of two is denied: the rest goes on; the only one is denied: an error.
    let path = format!("/v1/sse?channel=room:1&channel=other&token={alice}");
    let mut stream = EventStream::open(gateway.addr(), &path, &[]).await;
    let welcome = stream.expect("tidewire:welcome").await.json();
    assert_eq!(welcome["user"], "alice");
    let named: Vec<_> =
        welcome["channels"].as_array().unwrap().iter().map(|c| c["channel"].clone()).collect();
    assert_eq!(named, ["room:1", "user:alice"]);
    let denied = stream.expect("tidewire:denied").await.json();
    assert_eq!(denied, json!({"channel": "other", "code": "forbidden"}));
    let nobody = token(&["--sub", "a b"]);
    let path = format!("/v1/sse?channel=other&token={nobody}");
    is(&http::get(gateway.addr(), &path).await, 403, "forbidden");

    let auth = bearer(&alice);
    let header = [("Authorization", auth.as_str())];
    let mut ws =
        WebSocket::try_connect(gateway.addr(), "/v1/ws?channel=public:1", &header).await.unwrap();
    let welcome = ws.expect("welcome").await;
    assert_eq!(welcome["user"], "alice");
    assert!(welcome["expires"].as_str().is_some_and(|time| time.ends_with('Z')));
    for (frame, code) in [
        (json!({"type": "subscribe", "id": 1, "channel": "other"}), json!("forbidden")),
        (
            json!({"type": "subscribe", "id": 2, "channel": "quiet:1", "rewind": 1}),
            json!("forbidden"),
        ),
        (json!({"type": "history", "id": 3, "channel": "other"}), json!("forbidden")),
        (
            json!({"type": "publish", "id": 4, "channel": "room:1", "payload": 1}),
            json!("forbidden"),
        ),
        (json!({"type": "subscribe", "id": 5, "channel": "room:42"}), Value::Null),
        (json!({"type": "publish", "id": 6, "channel": "room:42", "payload": 1}), Value::Null),
    ] {
        assert_eq!(ws.ask(&frame).await["code"], code, "{frame}");
    }
    let message = ws.wait_for("the message", |frame| frame["type"] == "message").await;
    assert_eq!(message["from"]["user"], "alice");
    // Over HTTP a user is who they are, too; a backend is nobody.
    let answer = publish_as(&gateway, &alice, "room:42", json!({"payload": 2})).await;
    assert_eq!(answer.status(), 200);
    let message = ws.expect("message").await;
    assert_eq!((&message["payload"], &message["from"]), (&json!(2), &json!({"user": "alice"})));
    let shop = "the-key-of-the-shop";
    assert_eq!(publish_as(&gateway, shop, "room:42", json!({"payload": 3})).await.status(), 200);
    assert_eq!(ws.expect("message").await.get("from"), None);
}

#[tokio::test]
async fn a_cookie_counts_from_allowed_pages_alone() {
    let gateway = gateway().await;
    let cookie = format!("other=1; tidewire_token={}", alice());
    let with = |origin: &'static str| [("Cookie", cookie.clone()), ("Origin", origin.to_owned())];
    let stream = "/v1/sse?channel=room:1";
    // The page of a foreign site, which the browser sends the cookie along for.
    for path in ["/v1/ws?channel=room:1", stream, "/v1/poll?channel=room:1&wait=0"] {
        let all = with("https://evil.example");
        let headers: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = call(&gateway, "GET", path, &headers, "").await;
        is(&answer, 403, "forbidden");
        assert_eq!(answer.head.header("access-control-allow-origin"), None);
        // A link or an image there, which has no origin.
        let headers = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "cross-site")];
        if path.contains("/ws") {
            let mut ws = WebSocket::try_connect(gateway.addr(), path, &headers).await.unwrap();
            assert_eq!(ws.ask(&json!({"type": "ping", "id": 1})).await["code"], "unauthorized");
        } else {
            is(&call(&gateway, "GET", path, &headers, "").await, 401, "unauthorized");
        }
    }
    let all = with("https://evil.example");
    let headers: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(refused_websocket(&gateway, "/v1/ws?channel=room:1", &headers).await, 403);

    let all = with("https://app.example");
    let headers: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut ws =
        WebSocket::try_connect(gateway.addr(), "/v1/ws?channel=room:1", &headers).await.unwrap();
    assert_eq!(ws.expect("welcome").await["user"], "alice");
    let mut events = EventStream::open(gateway.addr(), stream, &headers).await;
    let head = events.head().clone();
    assert_eq!(head.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(head.header("access-control-allow-credentials"), Some("true"));
    events.expect("tidewire:welcome").await;
    // The gateway's own page reads without an origin.
    let own = [("Cookie", cookie.as_str()), ("Sec-Fetch-Site", "same-origin")];
    EventStream::open(gateway.addr(), stream, &own).await.expect("tidewire:welcome").await;
    // Never where a page could change something.
    let path = "/v1/channels/room:42/messages";
    is(&call(&gateway, "POST", path, &headers, "1").await, 401, "unauthorized");
}

#[tokio::test]
async fn nothing_secret_is_logged() {
    let hash = "0".repeat(64);
    let gateway = Gateway::builder()
        .config(CONFIG.replace("HASH", &hash))
        .env("TIDEWIRE_LOG__LEVEL", "trace")
        .start()
        .await;
    let alice = alice();
    let mut ws = WebSocket::connect(gateway.addr(), &format!("/v1/ws?token={alice}")).await;
    ws.expect("welcome").await;
    ws.ask(&json!({"type": "auth", "id": 1, "token": alice})).await;
    publish_as(&gateway, "the-key-of-the-shop", "room:1", json!({"payload": 1})).await;
    get_as(&gateway, "the-wrong-key-of-somebody", "/v1/channels").await;
    let metrics = http::get(gateway.admin(), "/metrics").await.text();
    let signature = alice.rsplit('.').next().unwrap().to_owned();
    for text in [gateway.log(), metrics] {
        for secret in [SECRET, "the-key-of", "the-wrong-key", &signature] {
            assert!(!text.contains(secret), "{secret} in\n{text}");
        }
    }
}

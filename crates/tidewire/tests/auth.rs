//! Who is let in and who is not, as clients, backends and attackers meet it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tidewire_testkit::http::{self, Answer};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::{WebSocket, tungstenite};
use tidewire_testkit::{Gateway, free_port, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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

/// Where everybody is let in, credentials still guard what is for operators and what is for one user.
#[tokio::test]
async fn open_mode_with_credentials_keeps_what_needs_them() {
    let config = format!(
        "[auth]\nmode = \"open\"\npersonal_namespace = \"user\"\njwt.secret = \"{SECRET}\"\n\
        api_keys = [{{ name = \"shop\", key = \"the-key-of-the-shop\" }}]"
    );
    let gateway = Gateway::builder().config(config).start().await;
    let (shop, alice) = ("the-key-of-the-shop", token(&["--sub", "alice"]));
    is(&http::get(gateway.addr(), "/v1/channels").await, 401, "unauthorized");
    is(&get_as(&gateway, &alice, "/v1/channels").await, 403, "forbidden");
    assert_eq!(get_as(&gateway, shop, "/v1/channels").await.status(), 200);

    let forged = || json!({"payload": "you won"});
    let path = "/v1/channels/user:alice/messages";
    is(&http::post_json(gateway.addr(), path, &forged()).await, 401, "unauthorized");
    let bob = token(&["--sub", "bob"]);
    is(&publish_as(&gateway, &bob, "user:alice", forged()).await, 403, "forbidden");
    assert_eq!(publish_as(&gateway, shop, "user:alice", forged()).await.status(), 200);
    assert_eq!(publish_as(&gateway, &bob, "news", forged()).await.status(), 200);
    let bob = token(&["--sub", "bob", "--publish", "user:*"]);
    assert_eq!(publish_as(&gateway, &bob, "user:alice", forged()).await.status(), 200);
}

/// Every welcome and message shows how a cursor is made, so a made-up one must not read what is kept.
#[tokio::test]
async fn a_made_up_cursor_is_no_way_to_history() {
    let gateway = gateway().await;
    let alice = alice();
    let publish = async |payload: &str| {
        let credential = token(&["--sub", "bob", "--publish", "quiet:*"]);
        let answer = publish_as(&gateway, &credential, "quiet:1", json!({"payload": payload}));
        answer.await.json()["cursor"].as_str().unwrap().to_owned()
    };
    let first = publish("secret").await;
    let mut place = publish("kept").await;
    let (ms, rest) = first.split_once('-').unwrap();
    let before = format!("{}-{rest}", ms.parse::<u64>().unwrap() - 1);
    let tag = rest.split_once('.').unwrap().1;
    for made_up in [format!("1-0.{tag}"), before] {
        let path = format!("/v1/poll?channel=quiet:1&token={alice}&cursor={made_up}&wait=0");
        let answer = http::get(gateway.addr(), &path).await.json();
        assert_eq!(answer["messages"], json!([]), "{made_up}");
        assert_eq!(answer["gaps"][0]["cursor"], place.as_str(), "{answer}");
        let path = format!("/v1/sse?channel=quiet:1&token={alice}&cursor={made_up}");
        let mut stream = EventStream::open(gateway.addr(), &path, &[]).await;
        stream.expect("tidewire:welcome").await;
        stream.expect("tidewire:gap").await;
        let mut ws = WebSocket::connect(gateway.addr(), &format!("/v1/ws?token={alice}")).await;
        ws.expect("welcome").await;
        let ask = json!({"type": "subscribe", "id": 1, "channel": "quiet:1", "cursor": made_up});
        let ack = ws.ask(&ask).await;
        assert_eq!((&ack["type"], &ack["recovered"]), (&json!("ack"), &json!(false)), "{ack}");
        // The first that comes is the next that is published.
        let next = publish("next").await;
        let message = ws.wait_for("a message", |frame| frame["type"] == "message").await;
        assert_eq!(message["cursor"], next.as_str(), "{message}");
        let message = stream.next_event().await;
        assert!(message.data.as_deref().unwrap().contains("next"), "{message:?}");
        let path = format!("/v1/poll?channel=quiet:1&token={alice}&cursor={place}&wait=0");
        let answer = http::get(gateway.addr(), &path).await.json();
        assert_eq!(answer["messages"][0]["payload"], "next", "its own place goes on");
        place = next;
    }
}

#[tokio::test]
async fn the_first_frame_logs_in() {
    the_first_frame_logs_in_over("tidewire.json").await;
}

#[tokio::test]
async fn the_first_frame_logs_in_over_messagepack() {
    the_first_frame_logs_in_over("tidewire.msgpack").await;
}

async fn the_first_frame_logs_in_over(subprotocol: &str) {
    let gateway = gateway().await;
    let (path, headers) =
        ("/v1/ws?channel=room:1&channel=other", [("Sec-WebSocket-Protocol", subprotocol)]);
    let mut ws = WebSocket::try_connect(gateway.addr(), path, &headers).await.unwrap();
    let ack = ws.ask(&json!({"type": "auth", "id": 1, "token": alice()})).await;
    assert_eq!(ack["type"], "ack");
    assert!(ack["expires"].is_string(), "{ack}");
    let welcome = ws.expect("welcome").await;
    assert_eq!((&welcome["user"], &welcome["expires"]), (&json!("alice"), &ack["expires"]));
    assert_eq!(welcome["channels"][0]["channel"], "room:1");
    assert_eq!(welcome["channels"][1]["channel"], "user:alice");
    let denied = ws.expect("unsubscribed").await;
    assert_eq!((&denied["channel"], &denied["code"]), (&json!("other"), &json!("forbidden")));
    let shop = "the-key-of-the-shop";
    assert_eq!(publish_as(&gateway, shop, "room:1", json!({"payload": 7})).await.status(), 200);
    assert_eq!(ws.expect("message").await["payload"], 7);

    // The session is alice's: nobody else's token changes that, and a bad one changes nothing.
    let bob = token(&["--sub", "bob", "--subscribe", "*"]);
    let answer = ws.ask(&json!({"type": "auth", "id": 2, "token": bob})).await;
    assert_eq!(answer["code"], "forbidden");
    let answer = ws.ask(&json!({"type": "auth", "id": 3, "token": "nonsense"})).await;
    assert_eq!(answer["code"], "unauthorized");
    // One that grants less takes away what it does not grant any more.
    let less = token(&["--sub", "alice"]);
    assert_eq!(ws.ask(&json!({"type": "auth", "id": 4, "token": less})).await["type"], "ack");
    let gone = ws.expect("unsubscribed").await;
    assert_eq!((&gone["channel"], &gone["code"]), (&json!("room:1"), &json!("forbidden")));
    assert_eq!(publish_as(&gateway, shop, "room:1", json!({"payload": 8})).await.status(), 200);
    assert_eq!(publish_as(&gateway, shop, "user:alice", json!({"payload": 9})).await.status(), 200);
    assert_eq!(ws.expect("message").await["payload"], 9);
}

#[tokio::test]
async fn a_session_that_does_not_log_in_ends() {
    let hurried = CONFIG.replace("[auth.jwt]", "login_timeout = \"1s\"\n[auth.jwt]");
    let gateway = Gateway::builder().config(hurried.replace("HASH", &"0".repeat(64))).start().await;
    let frame = json!({"type": "subscribe", "id": 1, "channel": "public:1"});
    let wrong = json!({"type": "auth", "id": 1, "token": "nonsense"});
    let expired = json!({"type": "auth", "id": 1, "token": token(&["--sub", "a", "--ttl", "0s"])});
    for (frame, code, close) in
        [(frame, "unauthorized", 4100), (wrong, "unauthorized", 4100), (expired, "expired", 4002)]
    {
        let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=public:1").await;
        assert_eq!(ws.ask(&frame).await["code"], code);
        assert_eq!(ws.closed().await, close);
    }
    let mut silent = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    assert_eq!(silent.closed().await, 4100);
    let closed =
        r#"tidewire_connections_closed_total{transport="websocket",reason="unauthorized"}"#;
    assert_eq!(gateway.metric(closed).await, Some(3.0));
}

#[tokio::test]
async fn forged_tokens_open_nothing() {
    let gateway = gateway().await;
    let body = |token: &str| token.split('.').nth(1).unwrap().to_owned();
    let good = alice();
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let stranger = token_of(&"x".repeat(32), &["--sub", "alice", "--subscribe", "*"]);
    let mut changed = good.clone();
    changed.replace_range(good.find('.').unwrap() + 5..good.find('.').unwrap() + 6, "_");
    for forged in [
        format!("{none}.{}.", body(&good)),
        format!("{none}.{}.{}", body(&good), good.rsplit('.').next().unwrap()),
        stranger,
        changed,
        good[..good.len() - 2].to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(9_000),
    ] {
        let answer = get_as(&gateway, &forged, "/v1/channels/room:1/messages").await;
        is(&answer, 401, "unauthorized");
        let challenge = answer.head.header("www-authenticate").unwrap_or_default();
        assert!(challenge.contains("invalid_token"), "{challenge}");
        if forged.len() < 8_000 {
            let path = format!("/v1/ws?token={forged}");
            assert_eq!(refused_websocket(&gateway, &path, &[]).await, 401);
        }
    }
    let expired = token(&["--sub", "alice", "--ttl", "0s"]);
    is(&get_as(&gateway, &expired, "/v1/channels/room:1/messages").await, 401, "expired");
    // A gateway is never let in by what a proxy puts there.
    let basic = [("Authorization", "Basic YTpi")];
    is(&call(&gateway, "GET", "/v1/channels", &basic, "").await, 401, "unauthorized");
}

/// A key pair of an identity provider, made for the test.
struct Pair {
    key: EncodingKey,
    algorithm: Algorithm,
    pem: String,
    jwk: Value,
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    Pair {
        key: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap(),
        algorithm: Algorithm::RS256,
        pem: pem("PUBLIC KEY", public.as_ref()),
        jwk: Value::Null,
    }
}

fn ed(kid: &str) -> Pair {
    let private = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    Pair {
        key: EncodingKey::from_ed_der(private.as_ref()),
        algorithm: Algorithm::EdDSA,
        pem: String::new(),
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}),
    }
}

impl Pair {
    fn token(&self) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.jwk["kid"].as_str().map(str::to_owned);
        let claims = json!({"sub": "alice", "exp": 4_000_000_000_u64, "subscribe": ["*"]});
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

/// Key confusion: the public key, which is public, used as an HMAC secret.
#[tokio::test]
async fn a_public_key_is_no_secret() {
    let pair = rsa();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    std::fs::write(&path, &pair.pem).unwrap();
    let config = format!("[auth.jwt]\npublic_key_file = {path:?}\n");
    let gateway = Gateway::builder().config(config).start().await;
    let read = "/v1/channels/room:1/messages";
    assert_eq!(get_as(&gateway, &pair.token(), read).await.status(), 200);
    for secret in [&*pair.pem, pair.pem.trim_end()] {
        let forged = token_of(secret, &["--sub", "alice", "--subscribe", "*"]);
        is(&get_as(&gateway, &forged, read).await, 401, "unauthorized");
    }
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
async fn api_keys_are_for_what_they_are_given() {
    let gateway = gateway().await;
    let one = || json!({"payload": 1});
    let (shop, orders, hashed) =
        ("the-key-of-the-shop", "the-key-of-orders", "hello-i-am-a-hashed-key");
    for (key, channel, status) in [
        (shop, "public:1", 200),
        (shop, "user:alice", 200),
        (hashed, "room:1", 200),
        (orders, "orders:1", 200),
        (orders, "room:1", 403),
        ("the-key-of-the-shoq", "room:1", 401),
        ("shop", "room:1", 401),
    ] {
        let answer = publish_as(&gateway, key, channel, one()).await;
        assert_eq!(answer.status(), status, "{key} {channel} {}", answer.text());
    }
    assert_eq!(get_as(&gateway, shop, "/v1/channels").await.status(), 200);
    is(&get_as(&gateway, orders, "/v1/channels").await, 403, "forbidden");
    is(&get_as(&gateway, orders, "/v1/channels/orders:1/messages").await, 403, "forbidden");
    let batch = json!({"messages": [{"channels": ["orders:1", "room:1"], "payload": 1}]});
    let headers = [("Authorization", &*bearer(orders)), ("Content-Type", "application/json")];
    let answer = call(&gateway, "POST", "/v1/messages", &headers, &batch.to_string()).await;
    let results = &answer.json()["results"];
    assert!(results[0]["messageId"].is_string(), "{results}");
    assert_eq!(results[1]["code"], "forbidden");
}

#[tokio::test]
async fn rules_about_names_and_sizes_hold() {
    let gateway = gateway().await;
    let bob = token(&["--sub", "bob"]);
    let tick = |payload: &str| json!({"event": "tick", "payload": payload});
    assert_eq!(publish_as(&gateway, &bob, "small:1", tick("x")).await.status(), 200);
    is(&publish_as(&gateway, &bob, "small:1", tick("0123456789")).await, 413, "too_large");
    let other = json!({"event": "tock", "payload": 1});
    is(&publish_as(&gateway, &bob, "small:1", other).await, 403, "forbidden");
}

/// Each publisher has messageIds of its own: nobody's message is taken for another's.
#[tokio::test]
async fn message_ids_are_the_publishers_own() {
    let gateway = gateway().await;
    let message = |n: u32| json!({"payload": n, "messageId": "m1"});
    let bob = token(&["--sub", "bob", "--publish", "room:42"]);
    let (alice, shop) = (alice(), "the-key-of-the-shop");
    let first = publish_as(&gateway, &alice, "room:42", message(1)).await.json();
    let again = publish_as(&gateway, &alice, "room:42", message(1)).await.json();
    assert_eq!((&again["duplicate"], &again["cursor"]), (&json!(true), &first["cursor"]));
    is(&publish_as(&gateway, &alice, "room:42", message(2)).await, 409, "conflict");
    for other in [&*bob, shop, "hello-i-am-a-hashed-key"] {
        let answer = publish_as(&gateway, other, "room:42", message(1)).await.json();
        assert_eq!(answer["duplicate"], Value::Null, "{answer}");
        assert_ne!(answer["cursor"], first["cursor"]);
    }
}

#[tokio::test]
async fn everybody_has_a_channel_of_their_own() {
    let gateway = gateway().await;
    let greedy = token(&["--sub", "bob", "--subscribe", "*", "--channel", "public:{sub}"]);
    let path = format!("/v1/ws?channel=user:alice&channel=public:1&token={greedy}");
    let mut ws = WebSocket::connect(gateway.addr(), &path).await;
    let welcome = ws.expect("welcome").await;
    let named: Vec<_> = (0..3).map(|n| welcome["channels"][n]["channel"].clone()).collect();
    assert_eq!(named, ["public:1", "user:bob", "public:bob"]);
    let denied = ws.expect("unsubscribed").await;
    assert_eq!((&denied["channel"], &denied["code"]), (&json!("user:alice"), &json!("forbidden")));
    let history = json!({"type": "history", "id": 1, "channel": "user:alice"});
    assert_eq!(ws.ask(&history).await["code"], "forbidden");
    // With nothing in its address a stream of theirs has its own channels.
    let path = format!("/v1/sse?token={greedy}");
    let mut stream = EventStream::open(gateway.addr(), &path, &[]).await;
    let welcome = stream.expect("tidewire:welcome").await.json();
    assert_eq!(welcome["channels"].as_array().map(Vec::len), Some(2));
    let shop = "the-key-of-the-shop";
    let hi = json!({"event": "hi", "payload": 1});
    assert_eq!(publish_as(&gateway, shop, "user:bob", hi).await.status(), 200);
    let id = stream.expect("hi").await.id.unwrap();
    // What comes while it is away is caught up on, also there.
    drop(stream);
    let next = json!({"event": "next", "payload": 2});
    assert_eq!(publish_as(&gateway, shop, "user:bob", next).await.status(), 200);
    let mut stream =
        EventStream::open(gateway.addr(), &path, &[("Last-Event-ID", id.as_str())]).await;
    stream.expect("tidewire:welcome").await;
    assert_eq!(stream.expect("next").await.json(), 2);
}

#[tokio::test]
async fn a_login_ends_unless_it_is_refreshed() {
    let gateway = gateway().await;
    let short = || token(&["--sub", "alice", "--ttl", "4s", "--subscribe", "room:*"]);
    let path = |channel: &str| format!("/v1/ws?channel={channel}&token={}", short());
    let mut ends = WebSocket::connect(gateway.addr(), &path("room:1")).await;
    let packed = [("Sec-WebSocket-Protocol", "tidewire.msgpack")];
    let stays = WebSocket::try_connect(gateway.addr(), &path("room:2"), &packed).await;
    let mut stays = stays.unwrap();
    let sse = path("room:3").replace("/ws", "/sse");
    let mut stream = EventStream::open(gateway.addr(), &sse, &[]).await;
    ends.expect("welcome").await;
    stays.expect("welcome").await;
    stream.expect("tidewire:welcome").await;
    let told = stays.expect("expiring").await;
    assert!(told["expires"].is_string(), "{told}");
    let ack = stays.ask(&json!({"type": "auth", "id": 1, "token": alice()})).await;
    assert!(ack["expires"].as_str() > told["expires"].as_str(), "{ack} {told}");
    ends.expect("expiring").await;
    assert_eq!(ends.closed().await, 4002);
    stream.expect("tidewire:expiring").await;
    assert!(stream.next_block().await.is_none(), "the stream goes on");
    let shop = "the-key-of-the-shop";
    publish_as(&gateway, shop, "room:2", json!({"payload": 1})).await;
    assert_eq!(stays.expect("message").await["payload"], 1);
    for transport in ["websocket", "sse"] {
        let closed = format!(
            r#"tidewire_connections_closed_total{{transport="{transport}",reason="expired"}}"#
        );
        assert_eq!(gateway.metric(&closed).await, Some(1.0), "{transport}");
    }
}

#[tokio::test]
async fn a_poll_that_waits_ends_with_its_token() {
    let gateway = gateway().await;
    let path = format!("/v1/poll?channel=room:1&token={}", alice());
    let place =
        http::get(gateway.addr(), &path).await.json()["cursor"].as_str().unwrap().to_owned();
    let short = token(&["--sub", "alice", "--subscribe", "room:*", "--ttl", "2s"]);
    let path = format!("/v1/poll?channel=room:1&token={short}&cursor={place}&wait=30");
    let begun = std::time::Instant::now();
    let answer = http::get(gateway.addr(), &path).await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    // As when nothing came: the place is told, and the next poll needs another token.
    assert_eq!((answer.status(), &answer.json()["cursor"]), (200, &json!(place)));
    is(&http::get(gateway.addr(), &path).await, 401, "expired");
}

#[tokio::test]
async fn in_open_mode_a_token_gives_the_identity_all_the_same() {
    let config = format!(
        "[auth]\nmode = \"open\"\njwt.secret = \"{SECRET}\"\n\
        [namespaces.members]\nsubscribe = \"user\"\npublish = \"granted\"\n"
    );
    let gateway = Gateway::builder().config(config).start().await;
    let post = async |path: &str| http::post(gateway.addr(), path, "text/plain", b"hi").await;
    assert_eq!(post("/v1/channels/news/messages").await.status(), 200);
    let refused = post("/v1/channels/members:1/messages").await;
    is(&refused, 401, "unauthorized");
    assert!(refused.head.header("www-authenticate").is_some());
    is(&get_as(&gateway, "nonsense", "/v1/channels").await, 401, "unauthorized");

    // A session that began as nobody's becomes alice's.
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=news").await;
    assert_eq!(ws.expect("welcome").await["user"], Value::Null);
    let subscribe = json!({"type": "subscribe", "id": 1, "channel": "members:1"});
    assert_eq!(ws.ask(&subscribe).await["code"], "unauthorized");
    ws.ask(&json!({"type": "auth", "id": 2, "token": token(&["--sub", "alice"])})).await;
    assert_eq!(ws.ask(&subscribe).await["type"], "ack");
    let publish = json!({"type": "publish", "id": 3, "channel": "members:1", "payload": 1});
    assert_eq!(ws.ask(&publish).await["code"], "forbidden");
}

#[tokio::test]
async fn who_logs_in_late_gets_their_own_channels() {
    let config = format!(
        "[auth]\nmode = \"open\"\npersonal_namespace = \"user\"\njwt.secret = \"{SECRET}\"\n\
        api_keys = [{{ name = \"shop\", key = \"the-key-of-the-shop\" }}]\n"
    );
    let gateway = Gateway::builder().config(config).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=news").await;
    ws.expect("welcome").await;
    let login = |id: u32| {
        let token = token(&["--sub", "carol", "--channel", "news", "--channel", "sport"]);
        json!({"type": "auth", "id": id, "token": token})
    };
    assert_eq!(ws.ask(&login(1)).await["type"], "ack");
    // Each is named with its place once it is confirmed; what it had it has once.
    let (one, other) = (ws.expect("position").await, ws.expect("position").await);
    let mut named = [one["channel"].as_str().unwrap(), other["channel"].as_str().unwrap()];
    named.sort_unstable();
    assert_eq!(named, ["sport", "user:carol"]);
    for channel in ["user:carol", "sport", "news"] {
        let answer = publish_as(&gateway, "the-key-of-the-shop", channel, json!({"payload": 1}));
        assert_eq!(answer.await.status(), 200);
        assert_eq!(ws.expect("message").await["channel"], channel);
    }
    // A refresh brings none back.
    let leave = json!({"type": "unsubscribe", "id": 2, "channel": "sport"});
    assert_eq!(ws.ask(&leave).await["type"], "ack");
    assert_eq!(ws.ask(&login(3)).await["type"], "ack");
    let again = json!({"type": "subscribe", "id": 4, "channel": "sport"});
    assert_eq!(ws.ask(&again).await["type"], "ack");
}

/// A provider that does not answer is no way to stay without logging in.
#[tokio::test]
async fn time_to_log_in_is_not_had_twice() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", silent.local_addr().unwrap());
    let config = format!("[auth]\nlogin_timeout = \"1s\"\njwt.jwks_url = \"{url}\"\n");
    let gateway = Gateway::builder().config(config).unready().start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    let login = json!({"type": "auth", "id": 1, "token": ed("one").token()});
    assert_eq!(ws.ask(&login).await["code"], "unavailable");
    assert_eq!(ws.closed().await, 4003);
}

/// Answers every request with the document of the moment, and counts.
struct Provider {
    document: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Provider {
    async fn start(port: u16, keys: &[&Pair]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (document, asked) = (Arc::new(Mutex::new(jwks(keys))), Arc::default());
        let (text, count) = (document.clone(), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                AtomicUsize::fetch_add(&count, 1, Ordering::SeqCst);
                let _ = socket.read(&mut [0; 4_096]).await;
                let body = text.lock().unwrap().clone();
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: ";
                let answer = format!("{head}{}\r\n\r\n{body}", body.len());
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { document, asked, task }
    }
}

fn jwks(keys: &[&Pair]) -> String {
    json!({"keys": keys.iter().map(|pair| &pair.jwk).collect::<Vec<_>>()}).to_string()
}

#[tokio::test]
async fn keys_of_a_provider_come_rotate_and_outlive_it() {
    let (one, two) = (ed("one"), ed("two"));
    let port = free_port();
    let config = format!("[auth.jwt]\njwks_url = \"http://127.0.0.1:{port}/keys\"\n");
    let gateway = Gateway::builder().config(config).unready().start().await;
    let read = "/v1/channels/room:1/messages";
    // Without keys nothing can be decided, which is not the token's fault.
    assert_eq!(gateway.readiness().await.0, 503);
    is(&get_as(&gateway, &one.token(), read).await, 503, "unavailable");
    let path = format!("/v1/sse?channel=a&token={}", one.token());
    let mut stream = EventStream::open(gateway.addr(), &path, &[]).await;
    assert!(stream.next_block().await.unwrap().retry.is_some());

    let provider = Provider::start(port, &[&one]).await;
    gateway.wait_ready(200).await;
    assert_eq!(get_as(&gateway, &one.token(), read).await.status(), 200);
    // Unknown keys do not make the node ask at the pace of whoever makes them up.
    let asked = provider.asked.load(Ordering::SeqCst);
    for n in 0..20 {
        let forged = ed(&format!("forged-{n}")).token();
        is(&get_as(&gateway, &forged, read).await, 401, "unauthorized");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), asked);
    // A new key is fetched when a token names it, once the pause is over.
    *provider.document.lock().unwrap() = jwks(&[&one, &two]);
    soon("the new key", async {
        while get_as(&gateway, &two.token(), read).await.status() != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    })
    .await;
    assert_eq!(provider.asked.load(Ordering::SeqCst), asked + 1);
    // The provider goes away; its keys stay.
    provider.task.abort();
    assert_eq!(get_as(&gateway, &one.token(), read).await.status(), 200);
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    assert_eq!(
        ws.ask(&json!({"type": "auth", "id": 1, "token": two.token()})).await["type"],
        "ack"
    );
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

//! What tokens and API keys are verified with.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Gateway, free_port, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::pairs::{Pair, ed, rsa};
use super::*;

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

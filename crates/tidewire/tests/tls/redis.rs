//! A node and its Redis over TLS.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Authority, Gateway, RedisServer, free_port, http};

#[tokio::test]
async fn nodes_meet_over_tls_and_say_no_password() {
    let authority = Authority::new();
    let certificate = authority.issue("redis");
    let port = free_port().to_string();
    let (ca, key) = (authority.certificate(), certificate.key.to_str().unwrap());
    let ca = ca.to_str().unwrap();
    let redis = RedisServer::with(&[
        "--requirepass",
        "hunter2",
        "--tls-port",
        &port,
        "--tls-cert-file",
        certificate.certificate.to_str().unwrap(),
        "--tls-key-file",
        key,
        "--tls-ca-cert-file",
        ca,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let node = Gateway::builder()
        .redis(format!("rediss://:hunter2@localhost:{port}"))
        .env("TIDEWIRE_BROKER__REDIS_CA_FILE", ca);
    let (one, two) = (node.start().await, node.start().await);
    let mut client = WebSocket::connect(two.addr(), "/v1/ws?channel=news").await;
    client.expect("welcome").await;
    let path = "/v1/channels/news/messages";
    let sent = http::post_json(one.addr(), path, &json!({ "payload": 1 })).await;
    assert!(sent.json()["cursor"].is_string(), "{}", sent.text());
    assert_eq!(client.expect("message").await["payload"], 1);
    // A backend that speaks without is in the same place.
    assert!(redis.publish("tidewire:news", "2").await > 0);
    assert_eq!(client.expect("message").await["payload"], 2);
    let log = one.log();
    assert!(log.contains("rediss://:REDACTED@localhost"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn check_warns_of_a_key_that_others_may_read() {
    let authority = Authority::new();
    let certificate = authority.issue("node");
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(&certificate.key, mode).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["check", "--redis", "rediss://localhost"])
        .env_clear()
        .env("TIDEWIRE_BROKER__REDIS_CA_FILE", authority.certificate())
        .env("TIDEWIRE_BROKER__REDIS_CERTIFICATE_FILE", &certificate.certificate)
        .env("TIDEWIRE_BROKER__REDIS_KEY_FILE", &certificate.key)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.starts_with("warning: broker.redis_key_file = "), "{said}");
    assert!(said.contains("(mode 644)"), "{said}");
}

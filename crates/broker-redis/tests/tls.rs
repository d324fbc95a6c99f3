//! Redis over TLS: a real redis-server with certificates of the test's own authority.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{channel, node, passes, publish, publish_stored, quick, ready, unready};
use tidewire_broker_redis::{RedisBroker, Settings, SettingsError};
use tidewire_testkit::{Authority, Certificate, RedisServer, free_port, soon};

/// A server that speaks TLS on a port of its own, and who has signed its certificate.
struct Secure {
    redis: RedisServer,
    authority: Authority,
    port: u16,
}

impl Secure {
    /// `clients`: whether clients must show a certificate (`yes`, `no`).
    async fn start(clients: &str, more: &[&str]) -> Self {
        Self::named("DNS:localhost,IP:127.0.0.1", clients, more).await
    }

    async fn named(names: &str, clients: &str, more: &[&str]) -> Self {
        let authority = Authority::new();
        let server = authority.issue_for("redis", names);
        Self::showing(authority, &server, clients, more).await
    }

    async fn showing(
        authority: Authority,
        server: &Certificate,
        clients: &str,
        more: &[&str],
    ) -> Self {
        let port = free_port();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let arguments = [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", text(&server.certificate)),
            ("--tls-key-file", text(&server.key)),
            ("--tls-ca-cert-file", text(&authority.certificate())),
            ("--tls-auth-clients", clients.to_owned()),
        ];
        let mut all: Vec<&str> = Vec::new();
        all.extend(arguments.iter().flat_map(|(name, value)| [*name, value.as_str()]));
        all.extend(more);
        Self { redis: RedisServer::with(&all).await, authority, port }
    }

    fn settings(&self) -> Settings {
        let mut settings = quick(&format!("rediss://localhost:{}", self.port));
        settings.ca_file = Some(self.authority.certificate());
        settings
    }
}

#[tokio::test]
async fn messages_pass_and_are_kept() {
    let secure = Secure::start("no", &["--requirepass", "hunter2"]).await;
    let mut settings = secure.settings();
    settings.url = format!("rediss://:hunter2@127.0.0.1:{}/0", secure.port).into();
    let (one, two) = (node(settings.clone()), node(settings));
    let to = channel("news");
    two.subscribe(&to).await;
    ready(&one).await;
    for n in 0..100 {
        passes(&one, &two, &to, n).await;
    }
    let stored = channel("kept:1");
    let first = publish_stored(&one, &stored, 1).await.unwrap();
    assert!(first.place.is_some() && !first.duplicate);
}

/// Large ones, in both directions, while the link is read and written at once.
#[tokio::test]
async fn what_does_not_fit_into_one_record_passes() {
    let secure = Secure::start("no", &[]).await;
    let node = node(secure.settings());
    let to = channel("news");
    node.subscribe(&to).await;
    ready(&node).await;
    let padding = "x".repeat(60_000);
    for n in 0..50 {
        let body = format!("\"{n}{padding}\"");
        secure.redis.publish("tidewire:news", &body).await;
        let told = node.told.next().await;
        assert!(format!("{told:?}").contains(&format!("{n}xxx")));
    }
    // Many names in one go are more than the kernel takes at once.
    let many: Vec<_> =
        (0..5_000).map(|n| channel(&format!("news:{n}{}", "y".repeat(150)))).collect();
    for one in &many {
        node.broker.subscribe(one);
    }
    let last = many.last().unwrap();
    soon("the last subscription", async {
        let name = format!("tidewire:{}", last.as_str());
        while secure.redis.publish(&name, "1").await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_killed_server_is_found_again() {
    let mut secure = Secure::start("no", &[]).await;
    let node = node(secure.settings());
    let to = channel("news");
    node.subscribe(&to).await;
    ready(&node).await;
    passes(&node, &node, &to, 1).await;
    secure.redis.kill().await;
    unready(&node, "").await;
    assert!(publish(&node, &to, 2).await.is_err());
    secure.redis.restart().await;
    ready(&node).await;
    publish(&node, &to, 3).await.unwrap();
}

#[tokio::test]
async fn whom_nobody_trusts_is_not_talked_to() {
    let secure = Secure::start("no", &["--requirepass", "hunter2"]).await;
    let other = Authority::new();
    let mut settings = secure.settings();
    settings.ca_file = Some(other.certificate());
    let distrustful = node(settings);
    unready(&distrustful, "its certificate is signed by nobody that is trusted here").await;
    // Nor is whom the system does not know.
    let mut settings = secure.settings();
    settings.ca_file = None;
    if !matches!(settings.check(), Err(SettingsError::Tls(_))) {
        unready(&node(settings), "signed by nobody that is trusted here").await;
    }
    // A name that is not in the certificate.
    let elsewhere = Secure::named("DNS:redis.example", "no", &[]).await;
    unready(&node(elsewhere.settings()), "its certificate is not for this name").await;
    // Who shows the authority's own certificate, as one that was made in a hurry is.
    let own = Authority::new();
    let itself = own.itself();
    let hurried = Secure::showing(own, &itself, "no", &[]).await;
    unready(&node(hurried.settings()), "its certificate is an authority's own").await;
    // One of the first version, as `openssl x509 -req` made it for long.
    let own = Authority::new();
    let old = own.issue_of_version_1("old");
    let old = Secure::showing(own, &old, "no", &[]).await;
    unready(&node(old.settings()), "its certificate is of X.509 version 1").await;
    // A port that speaks no TLS.
    let mut settings = secure.settings();
    settings.url = format!("rediss://{}", secure.redis.addr()).into();
    settings.connect_timeout = Duration::from_millis(300);
    unready(&node(settings), "(does it speak TLS there?)").await;
}

#[tokio::test]
async fn a_server_may_want_to_know_its_clients() {
    let secure = Secure::start("yes", &[]).await;
    let stranger = node(secure.settings());
    unready(&stranger, "CertificateRequired").await;
    let me = secure.authority.issue("node");
    let mut settings = secure.settings();
    settings.certificate_file = Some(me.certificate);
    settings.key_file = Some(me.key);
    let known = node(settings);
    let to = channel("news");
    known.subscribe(&to).await;
    ready(&known).await;
    passes(&known, &known, &to, 1).await;
}

#[test]
fn files_that_cannot_be_used_are_told_of_at_the_start() {
    let authority = Authority::new();
    let (one, two) = (authority.issue("one"), authority.issue("two"));
    let check = |change: &dyn Fn(&mut Settings)| {
        let mut settings = Settings::new("rediss://:hunter2@redis.example");
        settings.ca_file = Some(authority.certificate());
        change(&mut settings);
        settings.check().map_err(|error| {
            assert!(!error.to_string().contains("hunter2"));
            error.to_string()
        })
    };
    assert_eq!(check(&|_| {}), Ok(()));
    let missing = check(&|s| s.ca_file = Some("/nowhere.pem".into())).unwrap_err();
    assert!(missing.starts_with("TLS to Redis: /nowhere.pem: No such file"), "{missing}");
    let none = check(&|s| s.ca_file = Some(one.key.clone())).unwrap_err();
    assert!(none.ends_with("there is no certificate in it (PEM)"), "{none}");
    let mixed = check(&|s| {
        s.certificate_file = Some(one.certificate.clone());
        s.key_file = Some(two.key.clone());
    });
    assert!(mixed.unwrap_err().contains("does not go with"));
    let alone = check(&|s| s.certificate_file = Some(one.certificate.clone())).unwrap_err();
    assert!(alone.contains("go together"), "{alone}");
    // Trust is not given up by a word in the URL.
    assert!(RedisBroker::new(Settings::new("rediss://h/#insecure")).is_err());
}

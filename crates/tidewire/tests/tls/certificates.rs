//! The certificate: what is wrong with it at the start, and how it is replaced under open connections.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{Authority, Certificate, http, soon, until};

use crate::{Node, builder};

/// The common name of the certificate that the node shows to who comes now.
async fn shown(node: &Node) -> String {
    let at = node.gateway.addr().to_string();
    let ask = tokio::task::spawn_blocking(move || {
        let script = format!(
            "openssl s_client -connect {at} </dev/null 2>/dev/null | openssl x509 -noout -subject"
        );
        Command::new("sh").args(["-c", &script]).output().unwrap()
    });
    let subject = String::from_utf8(soon("openssl", ask).await.unwrap().stdout).unwrap();
    subject.trim().rsplit(['=', ' ']).next().unwrap_or_default().to_owned()
}

async fn counted(node: &Node, outcome: &str, times: f64) {
    let name = format!("tidewire_tls_reloads_total{{outcome=\"{outcome}\"}}");
    soon("a reload", async {
        while node.gateway.metric(&name).await != Some(times) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_changed_certificate_is_noticed_and_open_connections_go_on() {
    let node = Node::start("").await;
    let tunnel = node.tunnel().await;
    let mut client = WebSocket::connect(tunnel.addr(), "/v1/ws?channel=a").await;
    client.expect("welcome").await;
    assert_eq!(shown(&node).await, "first");
    node.authority.issue("second").replace(&node.certificate);
    counted(&node, "ok", 1.0).await;
    assert_eq!(shown(&node).await, "second");
    let path = "/v1/channels/a/messages";
    let sent = http::post_json(tunnel.addr(), path, &json!({ "payload": 1 })).await;
    assert_eq!(sent.status(), 200);
    assert_eq!(client.expect("message").await["payload"], 1);
}

#[tokio::test]
async fn a_bad_pair_replaces_nothing() {
    let mut node = Node::start("").await;
    let other = node.authority.issue("second");
    // Its key is another's.
    let torn = Certificate { certificate: other.certificate.clone(), ..node.certificate.clone() };
    torn.replace(&node.certificate);
    counted(&node, "failed", 1.0).await;
    assert_eq!(shown(&node).await, "first");
    let log = node.gateway.log();
    assert!(log.contains("the new certificate cannot be used; the old one stays"), "{log}");
    assert!(log.contains("does not go with tls.certificate_file"), "{log}");
    // SIGHUP says the same, at once; and takes what is good.
    node.gateway.hang_up();
    counted(&node, "failed", 2.0).await;
    std::fs::remove_file(&node.certificate.key).unwrap();
    node.gateway.hang_up();
    counted(&node, "failed", 3.0).await;
    assert_eq!(shown(&node).await, "first");
    // One of the first version, as `openssl x509 -req` made it for long: its key was named as the culprit.
    node.authority.issue_of_version_1("old").replace(&node.certificate);
    node.gateway.hang_up();
    counted(&node, "failed", 4.0).await;
    let log = node.gateway.log();
    assert!(log.contains("the first certificate in it is of X.509 version 1"), "{log}");
    assert_eq!(shown(&node).await, "first");
    other.replace(&node.certificate);
    node.gateway.hang_up();
    counted(&node, "ok", 1.0).await;
    assert_eq!(shown(&node).await, "second");
}

/// A pipe in the place of a certificate: who opened it to read waited for ever, and with him every signal.
#[tokio::test]
async fn what_is_no_file_holds_nobody_up() {
    let mut node = Node::start("").await;
    let other = node.authority.issue("second");
    for (file, times) in [(&node.certificate.certificate, 1.0), (&node.certificate.key, 2.0)] {
        let good = std::fs::read(file).unwrap();
        std::fs::remove_file(file).unwrap();
        assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
        node.gateway.hang_up();
        counted(&node, "failed", times).await;
        std::fs::remove_file(file).unwrap();
        std::fs::write(file, good).unwrap();
    }
    let log = node.gateway.log();
    assert!(log.contains("tls.certificate_file = ") && log.contains("no regular file"), "{log}");
    assert_eq!(shown(&node).await, "first");
    other.replace(&node.certificate);
    node.gateway.hang_up();
    counted(&node, "ok", 1.0).await;
    assert_eq!(shown(&node).await, "second");
    // With a pipe there it ends when it is told to.
    std::fs::remove_file(&node.certificate.key).unwrap();
    assert!(Command::new("mkfifo").arg(&node.certificate.key).status().unwrap().success());
    node.gateway.hang_up();
    counted(&node, "failed", 3.0).await;
    node.gateway.terminate();
    assert!(soon("its end", node.gateway.wait()).await.success());
}

/// When a certificate ends, by openssl's word, in seconds since 1970.
fn end_of(certificate: &Certificate) -> f64 {
    let script = format!(
        "date -d \"$(openssl x509 -in {} -noout -enddate | cut -d= -f2)\" +%s",
        certificate.certificate.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn its_end_is_measured_and_told_before_it_comes() {
    let mut node = Node::start("").await;
    let measured = async |node: &Node| {
        node.gateway.metric("tidewire_certificate_expiry_timestamp_seconds").await
    };
    let first = Some(end_of(&node.certificate));
    soon("the metric", async {
        while measured(&node).await != first {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!node.gateway.log().contains("expires"), "{}", node.gateway.log());
    let soon_over = node.authority.issue_for_days("second", 5);
    soon_over.replace(&node.certificate);
    node.gateway.hang_up();
    counted(&node, "ok", 1.0).await;
    assert_eq!(measured(&node).await, Some(end_of(&soon_over)));
    // The line is written behind the count.
    until("a warning", || node.gateway.log().contains("it expires at 20")).await;
}

#[test]
fn check_warns_of_the_end() {
    let authority = Authority::new();
    for (days, said) in [(13, "in 12 days: renew it"), (15, "")] {
        let (good, told) = check(&authority.issue_for_days("one", days));
        assert!(
            good && told.contains(said) && told.is_empty() == said.is_empty(),
            "{days}: {told}"
        );
    }
}

/// What `check` says about a pair; `serve` says the same.
fn check(certificate: &Certificate) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidewire"))
        .args(["check", "--tls-certificate", certificate.certificate.to_str().unwrap()])
        .args(["--tls-key", certificate.key.to_str().unwrap()])
        .env_clear()
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_is_wrong_with_the_files_is_said_at_the_start() {
    let authority = Authority::new();
    let (one, two) = (authority.issue("one"), authority.issue("two"));
    assert_eq!(check(&one), (true, String::new()));

    let mixed = Certificate { key: two.key.clone(), ..one.clone() };
    let (good, said) = check(&mixed);
    assert!(!good && said.contains("does not go with tls.certificate_file"), "{said}");

    let missing = Certificate { certificate: "/nowhere/it.pem".into(), ..one.clone() };
    let (good, said) = check(&missing);
    assert!(
        !good && said.contains("tls.certificate_file = \"/nowhere/it.pem\": No such"),
        "{said}"
    );

    let swapped = Certificate { certificate: one.key.clone(), key: one.certificate.clone() };
    let (good, said) = check(&swapped);
    assert!(!good && said.contains("there is no certificate in it"), "{said}");
    let (good, said) = check(&Certificate { key: one.certificate.clone(), ..one.clone() });
    assert!(!good && said.contains("there is no private key in it"), "{said}");

    std::fs::set_permissions(&one.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (good, said) = check(&one);
    assert!(good && said.starts_with("warning: tls.key_file = "), "{said}");
    assert!(said.contains("(mode 644)"), "{said}");
}

#[tokio::test]
async fn the_warning_is_in_the_log_of_a_node() {
    let authority = Authority::new();
    let certificate = authority.issue("one");
    std::fs::set_permissions(&certificate.key, std::fs::Permissions::from_mode(0o604)).unwrap();
    let node = builder(&certificate, "").start().await;
    assert!(
        node.log().contains("may read it, and so speak in this server's name (mode 604)"),
        "{}",
        node.log()
    );
}

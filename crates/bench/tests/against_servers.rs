//! The binary against real servers: its own bare loop, and gateways with a real Redis.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tidewire_testkit::{Gateway, RedisServer};

/// `tidewire-bench limit`; it ends with this value.
struct Limit {
    child: Child,
    address: String,
}

impl Limit {
    fn start(arguments: &[&str]) -> Self {
        let mut child = bench(&["limit", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, address }
    }

    fn fanout(&self, path: &str, arguments: &[&str]) -> Value {
        let scheme = if path == "/ws" { "ws" } else { "http" };
        let url = format!("{scheme}://{}{path}", self.address);
        let publish = format!("http://{}/publish", self.address);
        let pid = self.child.id().to_string();
        let common = ["fanout", "--url", &url, "--publish", &publish, "--pid", &pid];
        line(&[&common[..], &["--subscribers", "50", "--warmup", "100ms"], arguments].concat())
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire-bench"));
    command.args(arguments);
    command
}

/// Runs it, and reads its one line of JSON.
fn line(arguments: &[&str]) -> Value {
    let output = bench(arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that was published has arrived, and took some time.
fn assert_whole(outcome: &Value, subscribers: u64) {
    let field = |name: &str| outcome[name].as_u64().unwrap();
    assert!(field("published") > 0, "{outcome}");
    assert_eq!(field("expected"), field("published") * subscribers, "{outcome}");
    assert_eq!(field("delivered"), field("expected"), "{outcome}");
    assert_eq!((field("refused"), field("lost")), (0, 0), "{outcome}");
    let time = |name: &str| outcome[name].as_f64().unwrap();
    assert!(time("p50_us") > 0.0 && time("p50_us") <= time("p99_us"), "{outcome}");
    assert!(time("p99_us") <= time("max_us"), "{outcome}");
}

#[test]
fn a_steady_rate_over_each_transport() {
    let limit = Limit::start(&[]);
    for path in ["/ws", "/sse"] {
        let outcome = limit.fanout(path, &["--rate", "100", "--seconds", "500ms"]);
        assert_whole(&outcome, 50);
        assert_eq!(outcome["published"], 50, "{outcome}");
        assert_eq!(outcome["kind"], "fanout");
        assert!(outcome["server_cpu_us"].is_number(), "{outcome}");
    }
}

#[test]
fn as_fast_as_it_goes_one_by_one_and_joined() {
    for arguments in [&[][..], &["--join"]] {
        let limit = Limit::start(arguments);
        for path in ["/ws", "/sse"] {
            let outcome = limit.fanout(path, &["--saturate", "8", "--seconds", "300ms"]);
            assert_whole(&outcome, 50);
            assert_eq!(outcome["under_way"], 8);
        }
    }
}

#[test]
fn the_limit_knows_channels() {
    for arguments in [&[][..], &["--join"]] {
        let limit = Limit::start(arguments);
        let url = format!("ws://{}/ws?channel={{channel}}", limit.address);
        let publish = format!("http://{}/publish?channel={{channel}}", limit.address);
        let load = ["--subscribers", "60", "--channels", "20", "--saturate", "40"];
        let common = ["fanout", "--url", &url, "--publish", &publish, "--seconds", "300ms"];
        assert_whole(&line(&[&common[..], &load].concat()), 3);
    }
}

#[test]
fn the_limit_sends_back_what_clients_publish() {
    let limit = Limit::start(&[]);
    let url = format!("ws://{}/ws?channel={{channel}}", limit.address);
    // Lengths of one byte and of two.
    for payload in ["20", "500"] {
        let load = ["--clients", "50", "--rate", "500", "--seconds", "300ms"];
        let common = ["inbound", "--url", &url, "--payload-bytes", payload];
        assert_whole(&line(&[&common[..], &load].concat()), 1);
    }
}

/// Ends with its standard input, long before its time is over.
#[test]
fn a_hold_ends_when_it_is_told_to() {
    let limit = Limit::start(&[]);
    let url = format!("ws://{}/ws", limit.address);
    let arguments = ["connect", "--url", &url, "--connections", "3", "--hold", "600s", "--json"];
    let mut command = bench(&arguments);
    command.arg("--until-closed").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert_eq!(told, "tidewire-bench: 3 connections are open\n");
    drop(child.stdin.take());
    let outcome: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(outcome["held"], 3, "{outcome}");
}

#[test]
fn memory_of_idle_connections() {
    let limit = Limit::start(&[]);
    let url = format!("ws://{}/ws", limit.address);
    let pid = limit.child.id().to_string();
    let sizes = ["--connections", "200", "--hold", "100ms", "--sources", "3"];
    let outcome = line(&[&["connect", "--url", &url, "--pid", &pid][..], &sizes].concat());
    assert_eq!(outcome["held"], 200, "{outcome}");
    assert!(outcome["rss_after"].as_u64() >= outcome["rss_before"].as_u64(), "{outcome}");
}

#[test]
fn a_server_that_is_not_there_or_says_no_is_an_error() {
    let limit = Limit::start(&[]);
    let wrong_path = format!("ws://{}/nothing", limit.address);
    for url in ["ws://127.0.0.1:1/ws", &wrong_path] {
        let output = bench(&["connect", "--connections", "1", "--url", url]).output().unwrap();
        assert!(!output.status.success(), "{url}");
        assert!(output.stderr.starts_with(b"tidewire-bench: "), "{url}");
    }
}

#[test]
fn a_table_for_people() {
    let limit = Limit::start(&[]);
    let url = format!("http://{}/sse", limit.address);
    let sizes = ["--connections", "5", "--hold", "1ms"];
    let output = bench(&[&["connect", "--url", &url][..], &sizes].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("connections  5, of which lost: 0\n"), "{text}");
}

#[tokio::test]
async fn every_way_to_publish_to_a_gateway() {
    let redis = RedisServer::start().await;
    let gateway = Gateway::builder().redis(redis.url()).start().await;
    let url = format!("{}/v1/ws?channel={{channel}}", gateway.ws());
    for publish in [
        format!("{}/v1/channels/{{channel}}/messages", gateway.http()),
        format!("{}/v1/ws", gateway.ws()),
        format!("{}/tidewire:{{channel}}", redis.url()),
    ] {
        let load = ["--subscribers", "20", "--rate", "50", "--seconds", "400ms"];
        let common = ["fanout", "--url", &url, "--publish", &publish, "--warmup", "100ms"];
        assert_whole(&line(&[&common[..], &load].concat()), 20);
    }
}

#[tokio::test]
async fn clients_publish_over_their_own_connections() {
    let gateway = Gateway::start().await;
    let url = format!("{}/v1/ws", gateway.ws());
    let load = ["--clients", "50", "--rate", "300", "--seconds", "500ms"];
    let outcome = line(&[&["inbound", "--url", &url][..], &load].concat());
    assert_whole(&outcome, 1);
    // A refusal is an answer, and is counted.
    let load = ["--clients", "5", "--rate", "20", "--seconds", "300ms", "--channel", "no:{}"];
    let outcome = line(&[&["inbound", "--url", &url][..], &load].concat());
    assert_eq!(outcome["refused"], outcome["expected"], "{outcome}");
}

#[tokio::test]
async fn compressed_messages_and_some_who_do_not_read() {
    let gateway = Gateway::builder().env("TIDEWIRE_COMPRESSION__WEBSOCKET", "true").start().await;
    let url = format!("{}/v1/ws?channel={{channel}}", gateway.ws());
    let publish = format!("{}/v1/ws", gateway.ws());
    let common = ["fanout", "--url", &url, "--publish", &publish, "--seconds", "400ms"];
    let load =
        ["--subscribers", "40", "--channels", "2", "--payload-bytes", "2000", "--rate", "50"];
    let outcome = line(&[&common[..], &load, &["--deflate"]].concat());
    assert_whole(&outcome, 20);
    let outcome = line(&[&common[..], &load, &["--stalled", "10", "--messages", "12"]].concat());
    assert_whole(&outcome, 15);
    assert_eq!((&outcome["published"], &outcome["stalled"]), (&12.into(), &10.into()), "{outcome}");
}

#[tokio::test]
async fn channels_of_their_own() {
    let gateway = Gateway::start().await;
    let url = format!("{}/v1/ws", gateway.ws());
    let sizes = ["--connections", "10", "--own", "5", "--hold", "100ms"];
    let outcome = line(&[&["connect", "--url", &url][..], &sizes].concat());
    assert_eq!((&outcome["held"], &outcome["channels"]), (&10.into(), &50.into()), "{outcome}");
}

#[tokio::test]
async fn from_one_node_to_another() {
    let redis = RedisServer::start().await;
    let gateways = Gateway::builder().redis(redis.url());
    let (a, b) = (gateways.start().await, gateways.start().await);
    let publish = format!("{}/v1/channels/{{channel}}/messages", a.http());
    let url = format!("{}/v1/sse?channel={{channel}}", b.http());
    let outcome = line(&["cross", "--publish", &publish, "--url", &url, "--seconds", "500ms"]);
    assert_whole(&outcome, 1);
    assert_eq!(outcome["kind"], "cross");
}

#[tokio::test]
async fn a_crowd_comes_back_to_another_node() {
    let redis = RedisServer::start().await;
    let gateways = Gateway::builder().redis(redis.url());
    let (a, b) = (gateways.start().await, gateways.start().await);
    let at = |node: &Gateway| format!("{}/v1/ws?channel={{channel}}", node.ws());
    let publish = format!("{}/v1/channels/{{channel}}/messages", b.http());
    let nodes = ["--url", &at(&a), "--back", &at(&b), "--redis", &redis.url()];
    let outcome =
        line(&[&["avalanche", "--publish", &publish, "--clients", "100"][..], &nodes].concat());
    assert_eq!((&outcome["delivered"], &outcome["expected"]), (&1_000.into(), &1_000.into()));
    assert_eq!((&outcome["gaps"], &outcome["repeated"]), (&0.into(), &0.into()));
    assert!(outcome["meanwhile"]["p99_us"].as_f64().unwrap() > 0.0, "{outcome}");
    assert!(outcome["redis"]["fcall_ro"].as_u64().unwrap_or(0) < 10, "{outcome}");
}

#[tokio::test]
async fn clients_on_links_that_are_cut_get_everything() {
    let gateway = Gateway::start().await;
    let url = format!("{}/v1/ws?channel={{channel}}", gateway.ws());
    let publish = format!("{}/v1/channels/{{channel}}/messages", gateway.http());
    let load = ["--clients", "50", "--messages", "20", "--rate", "20"];
    let cuts = ["--every", "400ms", "--away", "100ms"];
    let common = ["jitter", "--url", &url, "--publish", &publish];
    let outcome = line(&[&common[..], &load, &cuts].concat());
    assert_eq!(outcome["percent"], 100.0, "{outcome}");
    assert!(outcome["cuts"].as_u64().unwrap() >= 50, "{outcome}");
    assert_eq!((&outcome["gaps"], &outcome["missed"]), (&0.into(), &0.into()), "{outcome}");
}

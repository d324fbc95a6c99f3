//! Clients that bring a TLS of their own: curl, and Node's WebSocket.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tidewire_testkit::soon;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::Node;

/// curl, which trusts the node's authority alone.
fn curl(node: &Node, arguments: &[&str], path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--no-buffer", "--noproxy", "*", "--cacert"]);
    command.arg(node.authority.certificate()).args(arguments);
    command.arg(format!("https://localhost:{}{path}", node.gateway.addr().port()));
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> String {
    let Output { status, stdout, stderr } = soon("curl", command.output()).await.unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// A process whose lines are read as they come.
fn lines(mut command: Command) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

async fn line(lines: &mut Lines<BufReader<ChildStdout>>, fits: impl Fn(&str) -> bool) -> String {
    soon("a line", async {
        loop {
            let line = lines.next_line().await.unwrap().expect("one more line");
            if fits(&line) {
                return line;
            }
        }
    })
    .await
}

#[tokio::test]
async fn curl_over_both_versions() {
    let node = Node::start("").await;
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let (_child, mut events) = lines(curl(&node, &[flag], "/v1/sse?channel=news"));
        line(&mut events, |line| line == "event: tidewire:welcome").await;
        line(&mut events, str::is_empty).await;
        let publish = ["--data", r#"{"payload":"hello"}"#, "--write-out", "\n%{http_version}"];
        let publish =
            [&[flag, "--header", "content-type: application/json"][..], &publish].concat();
        let answer = output(curl(&node, &publish, "/v1/channels/news/messages")).await;
        let (body, spoken) = answer.rsplit_once('\n').unwrap();
        assert_eq!(spoken, version);
        let cursor = serde_json::from_str::<Value>(body).unwrap()["cursor"].clone();
        assert_eq!(line(&mut events, |line| line.starts_with("data:")).await, "data: \"hello\"");
        let path = "/v1/channels/news/messages?limit=1";
        let page: Value = serde_json::from_str(&output(curl(&node, &[flag], path)).await).unwrap();
        assert_eq!(page["messages"][0]["cursor"], cursor);
    }
    let page = output(curl(&node, &["--http2"], "/")).await;
    assert!(page.contains("<title>Tidewire</title>"));
    // It trusts nobody else.
    let mut distrustful = curl(&node, &[], "/");
    distrustful.args(["--cacert", "/etc/ssl/certs/ca-certificates.crt"]);
    assert_eq!(soon("curl", distrustful.output()).await.unwrap().status.code(), Some(60));
}

#[tokio::test]
async fn old_and_new_tls() {
    let node = Node::start("").await;
    for (least, most) in [("--tlsv1.2", "1.2"), ("--tlsv1.3", "1.3")] {
        let answer = output(curl(&node, &[least, "--tls-max", most], "/v1/channels")).await;
        assert!(serde_json::from_str::<Value>(&answer).unwrap().is_object(), "{answer}");
    }
    let mut older = curl(&node, &["--tls-max", "1.1"], "/");
    assert!(!soon("curl", older.output()).await.unwrap().status.success());
}

#[tokio::test]
async fn nodes_own_websocket() {
    let node = Node::start("").await;
    let script = format!(
        "const ws = new WebSocket('wss://localhost:{}/v1/ws?channel=news');
         ws.onmessage = ({{ data }}) => {{
           console.log(data);
           const frame = JSON.parse(data);
           if (frame.type === 'welcome') {{
             ws.send(JSON.stringify({{ type: 'publish', id: 1, channel: 'news', payload: 7 }}));
           }}
           if (frame.type === 'message') ws.close(1000);
         }};
         ws.onerror = ({{ message }}) => console.log('failed', message);
         ws.onclose = ({{ code }}) => console.log('closed', code);",
        node.gateway.addr().port()
    );
    let mut command = Command::new("node");
    command.args(["--experimental-websocket", "--eval", &script]);
    command.env("NODE_EXTRA_CA_CERTS", node.authority.certificate());
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let (_child, mut said) = lines(command);
    let message = line(&mut said, |line| line.contains("\"message\"")).await;
    assert_eq!(serde_json::from_str::<Value>(&message).unwrap()["payload"], json!(7));
    assert_eq!(line(&mut said, |line| line.starts_with("closed")).await, "closed 1000");
}

/// The command line of the node itself speaks it, too.
#[tokio::test]
async fn the_command_line() {
    let node = Node::start("").await;
    let url = format!("https://localhost:{}", node.gateway.addr().port());
    let tidewire = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
        command.env_clear().env("SSL_CERT_FILE", node.authority.certificate());
        command.args(arguments).args(["--url", &url]).stdin(Stdio::null()).kill_on_drop(true);
        command
    };
    let (_child, mut told) = lines(tidewire(&["tail", "news"]));
    // Nothing says that it listens, so that it is sent until it has been heard.
    let heard = line(&mut told, |line| line.contains("hi"));
    let send = async {
        loop {
            output(tidewire(&["publish", "news", "\"hi\""])).await;
        }
    };
    tokio::select! {
        line = heard => assert!(line.contains("\"payload\":\"hi\""), "{line}"),
        () = send => {}
    }
    let admin = format!("http://{}", node.gateway.admin());
    let mut health = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    health.env_clear().args(["health", "--url", &admin]);
    assert!(soon("health", health.output()).await.unwrap().status.success());
}

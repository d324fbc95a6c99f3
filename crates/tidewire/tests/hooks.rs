//! The application decides: each hook asked, answered, refused, slow, down and back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::Arc;

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tidewire_testkit::http::{self, Answer};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::{WebSocket, tungstenite};
use tidewire_testkit::{Gateway, GatewayBuilder, free_port, soon};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const SECRET: &str = "hooks-hooks-hooks-hooks-hooks-hooks";
const JWT_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What the application says to one question.
enum Said {
    Answer(u16, Value),
    /// The text as it is.
    Text(u16, String),
    /// A status, and when to come back.
    Later(u16),
    /// Yes, once the gate is open.
    WhenOpen,
    /// It closes the connection.
    HangUp,
}

fn yes() -> Said {
    Said::Answer(200, json!({}))
}

fn no(code: &str, message: &str) -> Said {
    Said::Answer(200, json!({"error": {"code": code, "message": message}}))
}

type Decide = Arc<dyn Fn(&Value) -> Said + Send + Sync>;

/// A real HTTP server that decides, and checks each signature.
struct App {
    port: u16,
    asked: watch::Receiver<Vec<Value>>,
    gate: watch::Sender<bool>,
    listening: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl App {
    async fn start(decide: impl Fn(&Value) -> Said + Send + Sync + 'static) -> Self {
        Self::start_at(free_port(), decide).await
    }

    async fn start_at(port: u16, decide: impl Fn(&Value) -> Said + Send + Sync + 'static) -> Self {
        let decide: Decide = Arc::new(decide);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (all, asked) = watch::channel(Vec::new());
        let (gate, open) = watch::channel(false);
        let all = Arc::new(all);
        let listening = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let serve =
                    serve(BufReader::new(socket), decide.clone(), all.clone(), open.clone());
                // How a connection ends does not matter.
                tokio::spawn(async { serve.await.unwrap_or_default() });
            }
        });
        Self { port, asked, gate, listening }
    }

    /// The hooks' table of a gateway that asks here.
    fn config(&self, hooks: &[&str]) -> String {
        config(self.port, hooks)
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.borrow().clone()
    }

    async fn wait_asked(&mut self, count: usize) {
        soon("questions", self.asked.wait_for(|all| all.len() >= count)).await.unwrap();
    }
}

async fn serve(
    mut socket: BufReader<TcpStream>,
    decide: Decide,
    all: Arc<watch::Sender<Vec<Value>>>,
    mut open: watch::Receiver<bool>,
) -> std::io::Result<()> {
    loop {
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            if socket.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) => {
                    headers.insert(name.to_ascii_lowercase(), value.to_owned());
                }
                None if line.trim_end().is_empty() => break,
                None => assert_eq!(line.trim_end(), "POST /hook HTTP/1.1"),
            }
        }
        assert_eq!(headers["content-type"], "application/json");
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        socket.read_exact(&mut body).await?;
        verify(&headers["tidewire-signature"], &body);
        let question: Value = serde_json::from_slice(&body).unwrap();
        let said = decide(&question);
        all.send_modify(|all| all.push(question));
        let mut more = "";
        let (status, text) = match said {
            Said::Answer(status, answer) => (status, answer.to_string()),
            Said::Text(status, text) => (status, text),
            Said::Later(status) => {
                more = "retry-after: 1\r\n";
                (status, String::new())
            }
            Said::WhenOpen => {
                let _ = open.wait_for(|open| *open).await;
                (200, String::new())
            }
            Said::HangUp => return Ok(()),
        };
        let length = text.len();
        let head = format!("HTTP/1.1 {status} x\r\n{more}content-length: {length}\r\n\r\n");
        socket.write_all(&[head.as_bytes(), text.as_bytes()].concat()).await?;
    }
}

/// As docs/hooks.md tells the application to.
fn verify(header: &str, body: &[u8]) {
    let (time, signature) = header.split_once(",v1=").unwrap();
    let time = time.strip_prefix("t=").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(now.abs_diff(time.parse().unwrap()) < 60, "{header}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", body].concat();
    let bytes = |at| u8::from_str_radix(&signature[at..at + 2], 16).unwrap();
    let signature: Vec<_> = (0..signature.len()).step_by(2).map(bytes).collect();
    hmac::verify(&key, &signed, &signature).expect("a signature");
}

fn config(port: u16, hooks: &[&str]) -> String {
    let mut text = format!("[hooks]\nsecret = \"{SECRET}\"\n");
    for hook in hooks {
        text.push_str(&format!("{hook} = \"http://127.0.0.1:{port}/hook\"\n"));
    }
    text
}

fn open(config: &str) -> GatewayBuilder {
    Gateway::builder().config(config)
}

/// A gateway where users log in and may do everything, as far as the application lets them.
fn required(config: &str) -> GatewayBuilder {
    open(&format!(
        "{config}[auth]\npersonal_namespace = \"user\"\n\
        api_keys = [{{ name = \"shop\", key = \"the-key-of-the-shop\" }}]\n\
        [auth.jwt]\nsecret = \"{JWT_SECRET}\"\n\
        [namespaces.room]\nsubscribe = \"user\"\npublish = \"user\"\n"
    ))
}

fn token(user: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidewire"));
    command.args(["token", "--sub", user]).env_clear().stdin(Stdio::null());
    let output = command.env("TIDEWIRE_AUTH__JWT__SECRET", JWT_SECRET).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn call(gateway: &Gateway, method: &str, path: &str, credential: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: \
        application/json\r\nContent-Length: {}\r\nAuthorization: Bearer {credential}\r\n\r\n{body}",
        gateway.addr(),
        body.len()
    );
    http::raw(gateway.addr(), request.as_bytes()).await
}

async fn refused_websocket(gateway: &Gateway, path: &str) -> u16 {
    match WebSocket::try_connect(gateway.addr(), path, &[]).await.err().map(|e| *e) {
        Some(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Some(other) => panic!("{other}"),
        None => panic!("{path} was let in"),
    }
}

fn is(answer: &Answer, status: u16, code: &str) {
    let got = (answer.status(), answer.json()["code"].as_str().unwrap_or_default().to_owned());
    assert_eq!(got, (status, code.to_owned()), "{}", answer.text());
}

async fn outcomes(gateway: &Gateway, hook: &str, outcome: &str) -> f64 {
    let name = format!("tidewire_hook_requests_total{{hook=\"{hook}\",outcome=\"{outcome}\"}}");
    gateway.metric(&name).await.unwrap_or(0.0)
}

#[tokio::test]
async fn who_connects_is_up_to_the_application() {
    let app = App::start(|question| match question["user"].as_str() {
        Some("mallory") => no("forbidden", "you are banned"),
        _ => yes(),
    })
    .await;
    let gateway = required(&app.config(&["connect"])).start().await;
    let (alice, mallory) = (token("alice"), token("mallory"));
    let mut ws = WebSocket::connect(gateway.addr(), &format!("/v1/ws?token={alice}")).await;
    ws.expect("welcome").await;
    let question = &app.asked()[0];
    assert!(question["id"].as_str().is_some_and(|id| id.len() == 36), "{question}");
    let mut expected = json!({"hook": "connect", "user": "alice", "transport": "websocket",
        "address": "127.0.0.1"});
    expected["id"] = question["id"].clone();
    assert_eq!(*question, expected);
    for path in ["/v1/ws", "/v1/sse", "/v1/poll"] {
        let path = format!("{path}?channel=room:1");
        let path = path.as_str();
        if path.starts_with("/v1/ws") {
            assert_eq!(refused_websocket(&gateway, &format!("{path}&token={mallory}")).await, 403);
        } else {
            let answer = call(&gateway, "GET", path, &mallory, "").await;
            is(&answer, 403, "forbidden");
            assert_eq!(answer.json()["detail"], "you are banned");
        }
    }
    // With the first frame, too; and what was let in stays so when a new login is refused.
    let mut late = WebSocket::connect(gateway.addr(), "/v1/ws?channel=room:1").await;
    let answer = late.ask(&json!({"type": "auth", "id": 1, "token": mallory})).await;
    assert_eq!(
        (&answer["code"], &answer["message"]),
        (&json!("forbidden"), &json!("you are banned"))
    );
    assert_eq!(late.closed().await, 4101);
    let mut late = WebSocket::connect(gateway.addr(), "/v1/ws?channel=room:1").await;
    late.send(&json!({"type": "auth", "id": 1, "token": alice})).await;
    late.expect("ack").await;
    let welcome = late.expect("welcome").await;
    assert_eq!(welcome["channels"].as_array().map(Vec::len), Some(2), "{welcome}");
    // A backend is not asked about.
    let asked = app.asked().len();
    let path = "/v1/ws?token=the-key-of-the-shop";
    WebSocket::connect(gateway.addr(), path).await.expect("welcome").await;
    assert_eq!(app.asked().len(), asked);
    assert_eq!(outcomes(&gateway, "connect", "refused").await, 4.0);
}

#[tokio::test]
async fn who_subscribes_is_up_to_the_application() {
    let app = App::start(|question| match question["channel"].as_str() {
        Some("room:secret") => Said::Answer(403, Value::Null),
        _ => yes(),
    })
    .await;
    let gateway = required(&app.config(&["subscribe"])).start().await;
    let alice = token("alice");
    let path = format!("/v1/ws?channel=room:1&channel=room:secret&token={alice}");
    let mut ws = WebSocket::connect(gateway.addr(), &path).await;
    let welcome = ws.expect("welcome").await;
    // Nobody asks about one's own channel.
    assert_eq!(welcome["channels"].as_array().map(Vec::len), Some(2), "{welcome}");
    assert_eq!(ws.expect("unsubscribed").await["channel"], "room:secret");
    assert!(app.asked().iter().all(|question| question["channel"] != "user:alice"));
    let ask =
        |id: u32, kind: &str, channel: &str| json!({"type": kind, "id": id, "channel": channel});
    assert_eq!(ws.ask(&ask(1, "subscribe", "room:2")).await["type"], "ack");
    let question = app.asked().pop().unwrap();
    let mut expected = json!({"hook": "subscribe", "user": "alice", "channel": "room:2",
        "session": welcome["session"]});
    expected["id"] = question["id"].clone();
    assert_eq!(question, expected);
    assert_eq!(ws.ask(&ask(2, "subscribe", "room:secret")).await["code"], "forbidden");
    assert_eq!(ws.ask(&ask(3, "subscribe", "room:2")).await["code"], "already_subscribed");
    // To read what is kept is to be asked, too, but where one is subscribed.
    assert_eq!(ws.ask(&ask(4, "history", "room:secret")).await["code"], "forbidden");
    assert_eq!(app.asked().pop().unwrap()["history"], true);
    let asked = app.asked().len();
    assert_eq!(ws.ask(&ask(5, "history", "room:2")).await["type"], "ack");
    assert_eq!(app.asked().len(), asked);
    for path in ["/v1/channels/room:secret/messages", "/v1/poll?channel=room:1&channel=room:secret"]
    {
        is(&call(&gateway, "GET", path, &alice, "").await, 403, "forbidden");
    }
    let path = "/v1/channels/room:secret/messages";
    assert_eq!(call(&gateway, "GET", path, "the-key-of-the-shop", "").await.status(), 200);
    let path = format!("/v1/sse?channel=room:secret&channel=room:1&token={alice}");
    let mut stream = EventStream::open(gateway.addr(), &path, &[]).await;
    stream.expect("tidewire:welcome").await;
    stream.expect("tidewire:denied").await;
}

#[tokio::test]
async fn a_message_is_seen_before_it_is_published() {
    let app = App::start(|question| match question["payload"].as_str() {
        Some("shout") => Said::Answer(200, json!({"payload": "SHOUT", "result": {"row": 7}})),
        Some("spam") => no("conflict", "said before"),
        _ => Said::Answer(204, Value::Null),
    })
    .await;
    let config = app.config(&["publish"]) + "[namespaces.free]\nhooks = false\n";
    let gateway = open(&config).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
    let session = ws.expect("welcome").await["session"].clone();
    let publish = |id: u32, payload: &str| json!({"type": "publish", "id": id, "channel": "a", "event": "e", "payload": payload});
    let ack = ws.ask(&publish(1, "shout")).await;
    assert_eq!((&ack["type"], &ack["result"]), (&json!("ack"), &json!({"row": 7})));
    let question = app.asked().pop().unwrap();
    let mut expected = json!({"hook": "publish", "session": session, "channel": "a",
        "event": "e", "payload": "shout"});
    expected["id"] = question["id"].clone();
    expected["messageId"] = ack["messageId"].clone();
    assert_eq!(question, expected);
    let refused = ws.ask(&publish(2, "spam")).await;
    assert_eq!(
        (&refused["code"], &refused["message"]),
        (&json!("conflict"), &json!("said before"))
    );
    assert_eq!(ws.ask(&publish(3, "calm")).await["result"], Value::Null);

    let one = json!({"payload": "shout"});
    let answer = http::post_json(gateway.addr(), "/v1/channels/a/messages", &one).await;
    assert_eq!(answer.json()["result"]["row"], 7);
    let spam = json!({"payload": "spam"});
    let refused = http::post_json(gateway.addr(), "/v1/channels/a/messages", &spam).await;
    is(&refused, 409, "conflict");
    let batch = json!({"messages": [
        {"channel": "a", "payload": "shout"}, {"channels": ["a", "b"], "payload": "spam"},
        {"channel": "a", "payload": "calm"}, {"channel": "free:a", "payload": "shout"},
        {"channel": "a b", "payload": 1}]});
    let answer = http::post_json(gateway.addr(), "/v1/messages", &batch).await.json();
    let results = answer["results"].as_array().unwrap();
    let codes: Vec<_> = results.iter().map(|it| it["code"].as_str().unwrap_or("ok")).collect();
    assert_eq!(codes, ["ok", "conflict", "conflict", "ok", "ok", "bad_channel"]);
    assert_eq!((&results[0]["result"]["row"], &results[4]["result"]), (&json!(7), &Value::Null));
    let bytes = "/v1/channels/a/messages";
    http::post(gateway.addr(), bytes, "application/octet-stream", b"\xff\xfe").await;
    let question = app.asked().pop().unwrap();
    assert_eq!((&question["payload"], &question["encoding"]), (&json!("//4="), &json!("base64")));

    // What was published is what the application made of it, and nothing that it refused.
    let path = "/v1/channels/a/messages";
    let kept = http::get(gateway.addr(), path).await.json();
    let kept: Vec<_> =
        kept["messages"].as_array().unwrap().iter().map(|it| it["payload"].clone()).collect();
    assert_eq!(kept, ["SHOUT", "calm", "SHOUT", "SHOUT", "calm", "//4="]);
}

/// One that the application thinks about for long keeps back those behind it on its channel, and
/// nothing else.
#[tokio::test]
async fn messages_stay_in_order_and_nobody_else_waits() {
    let mut app = App::start(|question| match question["payload"].as_str() {
        Some("slow") => Said::WhenOpen,
        _ => yes(),
    })
    .await;
    let config = app.config(&["publish", "rpc", "subscribe"]) + "timeout = \"30s\"\n";
    let gateway = open(&config).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a&channel=b").await;
    ws.expect("welcome").await;
    let publish = |id: u32, channel: &str, payload: &str| json!({"type": "publish", "id": id, "channel": channel, "payload": payload});
    ws.send(&publish(1, "a", "slow")).await;
    for id in 2..6 {
        ws.send(&publish(id, "a", &format!("a{id}"))).await;
    }
    // Another channel, a question and a subscription do not wait.
    assert_eq!(ws.ask(&publish(6, "b", "b")).await["type"], "ack");
    assert_eq!(ws.ask(&json!({"type": "rpc", "id": 7, "method": "m"})).await["type"], "ack");
    assert_eq!(ws.ask(&json!({"type": "subscribe", "id": 8, "channel": "c"})).await["type"], "ack");
    app.wait_asked(6).await;
    let asked =
        app.asked().iter().filter(|it| it["channel"] == "a" && it["hook"] == "publish").count();
    assert_eq!(asked, 1, "the others wait for the first");
    app.gate.send_replace(true);
    let mut payloads = Vec::new();
    while payloads.len() < 5 {
        let message =
            ws.wait_for("a message", |it| it["type"] == "message" && it["channel"] == "a").await;
        payloads.push(message["payload"].as_str().unwrap().to_owned());
    }
    assert_eq!(payloads, ["slow", "a2", "a3", "a4", "a5"]);
    let asked: Vec<_> = app
        .asked()
        .iter()
        .filter(|it| it["channel"] == "a" && it["hook"] == "publish")
        .map(|it| it["payload"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(asked, payloads);
}

#[tokio::test]
async fn what_waits_for_the_application_is_bounded() {
    let mut app = App::start(|question| match question["hook"].as_str() {
        Some("publish") => Said::WhenOpen,
        _ => yes(),
    })
    .await;
    let config = app.config(&["publish"])
        + "concurrency = 3\ntimeout = \"30s\"\n[limits]\npublishes_in_flight = 2\n";
    let gateway = open(&config).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    ws.expect("welcome").await;
    for id in 1..=4 {
        let channel = format!("c{id}");
        ws.send(&json!({"type": "publish", "id": id, "channel": channel, "payload": 1})).await;
    }
    ws.send(&json!({"type": "ping", "id": "p"})).await;
    app.wait_asked(2).await;
    // Another session has its own, but all together have three.
    let mut other = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    other.expect("welcome").await;
    for id in 1..=2 {
        other.send(&json!({"type": "publish", "id": id, "channel": "d", "payload": 1})).await;
        other.send(&json!({"type": "publish", "id": id, "channel": "e", "payload": 1})).await;
    }
    app.wait_asked(3).await;
    assert_eq!(app.asked().len(), 3);
    app.gate.send_replace(true);
    // The first one is read on when one of its two is done.
    let first = ws.next_json().await;
    assert_eq!(first["type"], "ack", "not the pong: {first}");
    ws.wait_for("the pong", |frame| frame["type"] == "pong").await;
    for _ in 0..4 {
        assert_eq!(other.next_json().await["type"], "ack");
    }
}

#[tokio::test]
async fn too_many_questions_are_turned_away() {
    let mut app = App::start(|_| Said::WhenOpen).await;
    let config = app.config(&["rpc"]) + "concurrency = 1\ntimeout = \"300ms\"\n";
    let gateway = open(&config).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    ws.expect("welcome").await;
    for id in 1..=3 {
        ws.send(&json!({"type": "rpc", "id": id, "method": "m"})).await;
    }
    app.wait_asked(1).await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        let error = ws.expect("error").await;
        assert_eq!(error["retry"], 1_000, "{error}");
        codes.push(error["code"].as_str().unwrap().to_owned());
    }
    codes.sort();
    // The one that was asked may have been acted on.
    assert!(codes.contains(&"timeout".to_owned()), "{codes:?}");
    assert!(codes.contains(&"unavailable".to_owned()), "{codes:?}");
    assert!(outcomes(&gateway, "rpc", "busy").await >= 1.0);
}

#[tokio::test]
async fn an_rpc_is_the_applications_to_answer() {
    let app = App::start(|question| match question["method"].as_str() {
        Some("add") => {
            let sum: i64 =
                question["payload"].as_array().unwrap().iter().filter_map(Value::as_i64).sum();
            Said::Answer(200, json!({"payload": {"sum": sum}}))
        }
        Some("buy") => no("not_found", "no such thing"),
        _ => Said::Text(200, String::new()),
    })
    .await;
    let gateway = required(&app.config(&["rpc"])).start().await;
    let path = format!("/v1/ws?token={}", token("alice"));
    let mut ws = WebSocket::connect(gateway.addr(), &path).await;
    ws.expect("welcome").await;
    let rpc = |id: u32, method: &str| json!({"type": "rpc", "id": id, "method": method, "payload": [1, 2]});
    let answer = ws.ask(&rpc(1, "add")).await;
    assert_eq!(answer, json!({"type": "ack", "id": 1, "payload": {"sum": 3}}));
    assert_eq!(app.asked()[0]["user"], "alice");
    assert_eq!(ws.ask(&rpc(2, "buy")).await["code"], "not_found");
    assert_eq!(ws.ask(&rpc(3, "other")).await["payload"], Value::Null);
    let path = "/v1/ws?token=the-key-of-the-shop";
    let mut backend = WebSocket::connect(gateway.addr(), path).await;
    backend.expect("welcome").await;
    assert_eq!(backend.ask(&rpc(4, "add")).await["type"], "ack");
    assert_eq!(app.asked().pop().unwrap()["apiKey"], "shop");

    let without = Gateway::start().await;
    let mut ws = WebSocket::connect(without.addr(), "/v1/ws").await;
    ws.expect("welcome").await;
    assert_eq!(ws.ask(&rpc(1, "add")).await["code"], "not_found");
}

#[tokio::test]
async fn a_hook_that_is_down_is_a_no_and_is_left_alone_for_a_while() {
    let port = free_port();
    let gateway = open(&config(port, &["connect", "subscribe", "publish"])).start().await;
    let body = json!({"payload": 1, "messageId": "m1"});
    let publish = async || http::post_json(gateway.addr(), "/v1/channels/a/messages", &body).await;
    let answer = publish().await;
    is(&answer, 503, "unavailable");
    assert_eq!(answer.json()["messageId"], "m1");
    assert_eq!(refused_websocket(&gateway, "/v1/ws").await, 503);
    is(&http::get(gateway.addr(), "/v1/poll?channel=a").await, 503, "unavailable");
    is(&http::get(gateway.addr(), "/v1/channels/a/messages").await, 503, "unavailable");
    // An EventSource comes back.
    let mut stream = EventStream::open(gateway.addr(), "/v1/sse?channel=a", &[]).await;
    assert!(stream.next_block().await.unwrap().retry.is_some());
    soon("the circuit is open", async {
        while outcomes(&gateway, "publish", "open").await == 0.0 {
            is(&publish().await, 503, "unavailable");
        }
    })
    .await;
    assert_eq!(gateway.metric("tidewire_hook_open{hook=\"publish\"}").await, Some(1.0));
    // It is back, and so are the messages, without a restart.
    let _app = App::start_at(port, |_| yes()).await;
    soon("the circuit is closed", async {
        while publish().await.status() != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(gateway.metric("tidewire_hook_open{hook=\"publish\"}").await, Some(0.0));
    let log = gateway.log();
    assert_eq!(log.matches("the hook is down").count(), 1, "{log}");
    assert_eq!(log.matches("the hook is up again").count(), 1, "{log}");
}

#[tokio::test]
async fn what_is_no_answer_is_no_yes() {
    let app =
        App::start(|question| match question["method"].as_str().or(question["payload"].as_str()) {
            Some("nonsense") => Said::Text(200, "yes".to_owned()),
            Some("later") => Said::Later(503),
            Some(status) if status.parse::<u16>().is_ok() => {
                Said::Text(status.parse().unwrap(), "{}".to_owned())
            }
            Some("typo") => Said::Text(200, r#"{"eror":{}}"#.to_owned()),
            Some("large") => Said::Answer(200, json!({"payload": "x".repeat(70_000)})),
            Some("huge") => Said::Text(200, " ".repeat(1 << 20)),
            Some("hang up") => Said::HangUp,
            _ => yes(),
        })
        .await;
    let gateway = open(&app.config(&["publish", "rpc"])).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws").await;
    ws.expect("welcome").await;
    // Whether it has acted on that, nobody knows.
    let unknown = ["500", "502", "503", "504", "201", "302", "nonsense", "typo", "large", "huge"];
    // That says that it has not.
    let undone = ["400", "401", "404", "429", "later"];
    let all = unknown.map(|it| (it, "timeout")).into_iter();
    for (bad, code) in all.chain(undone.map(|it| (it, "unavailable"))) {
        let answer = ws.ask(&json!({"type": "rpc", "id": bad, "method": bad})).await;
        assert_eq!(answer["code"], code, "{bad}");
        let publish = json!({"type": "publish", "id": bad, "channel": "a", "payload": bad});
        assert_eq!(ws.ask(&publish).await["code"], code, "{bad}");
    }
    // It may have acted on that: it is not asked again, and the client is told what it may do.
    let asked = app.asked().len();
    let publish = json!({"type": "publish", "id": 1, "channel": "a", "payload": "hang up",
        "messageId": "m7"});
    let answer = ws.ask(&publish).await;
    assert_eq!(answer["code"], "timeout", "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("m7"), "{answer}");
    assert_eq!(app.asked().len(), asked + 1);
    assert_eq!(outcomes(&gateway, "rpc", "bad_answer").await, 15.0);
    assert_eq!(outcomes(&gateway, "publish", "broken").await, 1.0);
    // These are no client's errors: the session lives, and nothing was published.
    assert_eq!(ws.ask(&json!({"type": "rpc", "id": 2, "method": "ok"})).await["type"], "ack");
    let kept = http::get(gateway.addr(), "/v1/channels/a/messages").await.json();
    assert_eq!(kept["messages"], json!([]));
    assert!(!gateway.log().contains(SECRET));
}

/// A subscription that its client takes back while the application thinks never comes to be.
#[tokio::test]
async fn a_subscription_can_be_taken_back_before_it_is_decided() {
    let mut app = App::start(|question| match question["channel"].as_str() {
        Some("slow") => Said::WhenOpen,
        _ => yes(),
    })
    .await;
    let config = app.config(&["subscribe"])
        + "timeout = \"30s\"\n[limits]\n\
        subscriptions_per_session = 2\n";
    let gateway = open(&config).start().await;
    let mut ws = WebSocket::connect(gateway.addr(), "/v1/ws?channel=a").await;
    ws.expect("welcome").await;
    let ask =
        |id: u32, kind: &str, channel: &str| json!({"type": kind, "id": id, "channel": channel});
    ws.send(&ask(1, "subscribe", "slow")).await;
    app.wait_asked(2).await;
    assert_eq!(ws.ask(&ask(2, "subscribe", "slow")).await["code"], "already_subscribed");
    assert_eq!(ws.ask(&ask(3, "subscribe", "b")).await["code"], "too_many");
    assert_eq!(ws.ask(&ask(4, "unsubscribe", "slow")).await["type"], "ack");
    assert_eq!(ws.ask(&ask(5, "unsubscribe", "slow")).await["code"], "not_subscribed");
    // Asked for once more: the second answer counts, not the first.
    ws.send(&ask(6, "subscribe", "slow")).await;
    app.wait_asked(3).await;
    app.gate.send_replace(true);
    let mut answers = HashMap::new();
    for _ in 0..2 {
        let answer = ws.next_json().await;
        answers.insert(answer["id"].as_u64().unwrap(), answer);
    }
    assert_eq!(answers[&1]["code"], "not_subscribed");
    assert_eq!(answers[&6]["type"], "ack");
}

/// The example of the repository, as a process of its own.
#[tokio::test]
async fn the_example_tells_questions_from_forgeries() {
    let port = free_port();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/hooks/server.mjs");
    let mut command = tokio::process::Command::new("node");
    command.arg(script).env("SECRET", SECRET).env("PORT", port.to_string()).kill_on_drop(true);
    let mut node = command.stdout(Stdio::piped()).spawn().expect("node is installed");
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let first = soon("the example's start", lines.next_line()).await.unwrap().unwrap();
    assert!(first.contains("listening"), "{first}");

    let question = json!({"hook": "rpc", "id": "1", "method": "echo", "payload": [1]}).to_string();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let signed = |time: u64, secret: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, format!("{time}.{question}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("t={time},v1={hex}")
    };
    let ask = async |signature: &str, body: &str| {
        let request = format!(
            "POST /hook HTTP/1.1\r\nHost: app\r\nConnection: close\r\nContent-Length: {}\r\n\
            Tidewire-Signature: {signature}\r\n\r\n{body}",
            body.len()
        );
        http::raw(([127, 0, 0, 1], port).into(), request.as_bytes()).await.status()
    };
    assert_eq!(ask(&signed(now, SECRET), &question).await, 200);
    let rotated = format!("{},v1=00ff", signed(now, SECRET));
    assert_eq!(ask(&rotated, &question).await, 200);
    for (signature, body) in [
        (String::new(), question.clone()),
        ("t=,v1=".to_owned(), question.clone()),
        (signed(now, "another secret"), question.clone()),
        // Overheard long ago, or for another body.
        (signed(now - 3_600, SECRET), question.clone()),
        (
            signed(now - 3_600, SECRET).replace(&(now - 3_600).to_string(), &now.to_string()),
            question.clone(),
        ),
        (signed(now, SECRET), question.replace("echo", "ECHO")),
    ] {
        assert_eq!(ask(&signature, &body).await, 401, "{signature}");
    }

    let gateway =
        required(&config(port, &["connect", "subscribe", "publish", "rpc"])).start().await;
    let path = format!("/v1/ws?channel=room:alice&channel=room:bob&token={}", token("alice"));
    let mut ws = WebSocket::connect(gateway.addr(), &path).await;
    ws.expect("welcome").await;
    assert_eq!(ws.expect("unsubscribed").await["channel"], "room:bob");
    let publish = json!({"type": "publish", "id": 1, "channel": "room:alice", "messageId": "m",
        "payload": {"text": " hi "}});
    assert_eq!(ws.ask(&publish).await["result"], json!({"number": 1}));
    let again = ws.ask(&publish).await;
    assert_eq!((&again["result"]["number"], &again["duplicate"]), (&json!(1), &json!(true)));
    let count = ws.ask(&json!({"type": "rpc", "id": 2, "method": "messages.count"})).await;
    assert_eq!(count["payload"], json!({"count": 1}));
    assert_eq!(
        refused_websocket(&gateway, &format!("/v1/ws?token={}", token("mallory"))).await,
        403
    );
}

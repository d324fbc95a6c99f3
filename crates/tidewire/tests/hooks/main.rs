//! The application decides: each hook asked, answered, refused, slow, down and back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod app;
mod failing;

use std::collections::HashMap;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidewire_testkit::http::{self, Answer};
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::{WebSocket, tungstenite};
use tidewire_testkit::{Gateway, GatewayBuilder};

use app::{App, Said, no, yes};

const SECRET: &str = "hooks-hooks-hooks-hooks-hooks-hooks";

const JWT_SECRET: &str = "0123456789abcdef0123456789abcdef";

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

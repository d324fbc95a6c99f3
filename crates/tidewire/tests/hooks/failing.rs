//! Applications that are down, slow, or say what is no answer.

use std::process::Stdio;

use aws_lc_rs::hmac;
use serde_json::json;
use tidewire_testkit::http;
use tidewire_testkit::sse::EventStream;
use tidewire_testkit::websocket::WebSocket;
use tidewire_testkit::{free_port, soon};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::*;

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

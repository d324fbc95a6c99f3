//! `publish`, `tail` and `health` against a scripted peer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use crate::peer::{Peer, answer, problem, read, stream};
use crate::{outcome, run, tidewire};

const ACK: &str = r#"{"messageId":"m1"}"#;

fn accepting() -> Peer {
    Peer::new(vec![answer("200 OK", "application/json", ACK)])
}

/// Where nobody listens. A port that was just let go could be another test's by now.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn publish_sends_the_message_and_prints_the_answer() {
    let cases: [(&[&str], &str); 5] = [
        (&["room:42", "{\"a\": 1.10}"], r#"{"payload":{"a": 1.10}}"#),
        (&["room:42"], r#"{"payload":null}"#),
        (&["room:42", "hi \"you\"", "--text"], r#"{"payload":"hi \"you\""}"#),
        (&["room:42", "18446744073709551617"], r#"{"payload":18446744073709551617}"#),
        (
            &["room:42", "[]", "--event", "e\"1", "--message-id", "m1"],
            r#"{"payload":[],"event":"e\"1","messageId":"m1"}"#,
        ),
    ];
    for (arguments, body) in cases {
        let peer = accepting();
        let (code, out, err) = run(&[&["publish", "--url", &peer.url], arguments].concat());
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "{\"messageId\":\"m1\"}\n", ""));
        let asked = peer.asked();
        assert!(asked.head.starts_with("POST /v1/channels/room:42/messages HTTP/1.1\r\n"));
        assert!(asked.head.contains("\r\ncontent-type: application/json\r\n"), "{}", asked.head);
        assert_eq!(asked.body, body);
    }
}

#[test]
fn publish_percent_encodes_the_channel_below_the_url() {
    let peer = accepting();
    let url = format!("{}/base/", peer.url);
    assert_eq!(run(&["publish", "a/b%c ü?", "1", "--url", &url]).0, Some(0));
    let head = peer.asked().head;
    assert!(head.starts_with("POST /base/v1/channels/a%2Fb%25c%20%C3%BC%3F/messages "), "{head}");
}

#[test]
fn publish_reads_standard_input() {
    let cases: [(&[&str], &str, &str); 2] = [
        (&["publish", "c", "-"], "[1,\n2]\n", "{\"payload\":[1,\n2]}"),
        (&["publish", "c", "-", "--text"], "two\nlines\n", r#"{"payload":"two\nlines"}"#),
    ];
    for (arguments, input, body) in cases {
        let peer = accepting();
        let mut command = tidewire(arguments);
        command.args(["--url", &peer.url]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(peer.asked().body, body);
    }
}

#[test]
fn publish_tells_the_problem() {
    let peer = Peer::new(vec![problem("503 Service Unavailable", "unavailable", "no broker")]);
    let (code, out, err) = run(&["publish", "c", "1", "--url", &peer.url]);
    let expected = (Some(1), "", "tidewire: unavailable: no broker\n");
    assert_eq!((code, out.as_str(), err.as_str()), expected);

    let body = r#"{"code":"timeout","detail":"who knows","messageId":"m7"}"#;
    let peer = Peer::new(vec![answer("504 Gateway Timeout", "application/problem+json", body)]);
    let (code, _, err) = run(&["publish", "c", "1", "--url", &peer.url]);
    assert_eq!((code, err.as_str()), (Some(1), "tidewire: timeout: who knows (messageId m7)\n"));

    let peer = Peer::new(vec![answer("502 Bad Gateway", "text/html", "<h1>proxy</h1>")]);
    let (code, _, err) = run(&["publish", "c", "1", "--url", &peer.url]);
    assert_eq!((code, err.as_str()), (Some(1), "tidewire: HTTP 502 Bad Gateway <h1>proxy</h1>\n"));

    let (code, _, err) = run(&["publish", "c", "1", "--url", NOBODY]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("tidewire: no answer from http://127.0.0.1:"), "{err}");

    let (code, _, err) = run(&["publish", "c", "{\"a\":", "--url", NOBODY]);
    assert_eq!(code, Some(2));
    assert!(err.contains("the payload is no JSON") && err.contains("--text"), "{err}");
}

/// Goes on over reconnects as an EventSource does, and ends where it would.
#[test]
fn tail_prints_messages_and_comes_back() {
    let peer = Peer::new(vec![
        stream(concat!(
            "retry: 10\nid: t0\nevent: tidewire:welcome\ndata: {\"session\":\"s1\"}\n\n",
            ": heartbeat\n\n",
            "id: t1\nevent: headline\ndata: {\"type\":\"message\",\"payload\":1}\n\n",
            "event: two\ndata: {\"type\":\ndata: \"message\"}\n\n",
            "id: t2\ndata: cut of"
        )),
        answer("503 Service Unavailable", "text/plain", "starting"),
        stream("data: {\"payload\":3}\r\n\r\n"),
        problem("403 Forbidden", "forbidden", "not for you"),
    ]);
    let (code, out, err) = run(&["tail", "room:42&x", "--url", &peer.url]);
    assert_eq!(code, Some(1));
    assert_eq!(
        out,
        "{\"type\":\"message\",\"payload\":1}\n{\"type\": \"message\"}\n{\"payload\":3}\n"
    );
    let lines: Vec<_> = err.lines().collect();
    assert_eq!(lines[0], "tidewire:welcome {\"session\":\"s1\"}");
    assert!(lines[1].starts_with("the stream ended; again in "), "{err}");
    assert!(lines[2].starts_with("HTTP 503 Service Unavailable starting; again in "), "{err}");
    assert_eq!(lines[4..], ["tidewire: forbidden: not for you"]);

    let first = peer.asked().head;
    assert!(first.starts_with("GET /v1/sse?channel=room%3A42%26x&envelope=1 HTTP/1.1"), "{first}");
    assert!(first.contains("\r\naccept: text/event-stream\r\n"), "{first}");
    assert!(!first.contains("last-event-id"), "{first}");
    for _ in 0..3 {
        let head = peer.asked().head;
        assert!(head.contains("\r\nlast-event-id: t1\r\n"), "{head}");
    }
}

#[test]
fn tail_ends_where_no_reconnect_helps() {
    let peer = Peer::new(vec![answer("204 No Content", "text/plain", "")]);
    let expected = (Some(0), String::new(), String::new());
    assert_eq!(run(&["tail", "c", "--url", &peer.url]), expected);

    let peer = Peer::new(vec![answer("200 OK", "text/html", "<p>")]);
    let (code, _, err) = run(&["tail", "c", "--url", &peer.url]);
    assert_eq!(code, Some(1));
    assert!(err.contains("does not answer with an event stream but with \"text/html\""), "{err}");
}

/// `tidewire tail news | head -1` ends by itself and says nothing.
#[test]
fn tail_ends_quietly_when_nobody_reads() {
    let event = "data: {\"payload\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}\n\n";
    // More than a pipe holds, so that it must notice.
    let peer = Peer::new(vec![stream(&event.repeat(10_000))]);
    let mut command = tidewire(&["tail", "c", "--url", &peer.url]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"payload\""), "{line}");
    let (code, _, err) = outcome(&child.wait_with_output().unwrap());
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

/// Each line is there as soon as its message is, and Ctrl-C ends it with no word.
#[test]
fn tail_flushes_and_ends_on_ctrl_c() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut command = tidewire(&["tail", "c", "--url", &url]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    read(&mut BufReader::new(&socket));
    // The stream stays open: only a flush can bring the line here.
    socket.write_all(stream("data: 1\n\n").as_bytes()).unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.signal(), Some(rustix::process::Signal::INT.as_raw()));
    assert_eq!(outcome(&ended).2, "");
}

#[test]
fn health_tells_whether_it_is_ready() {
    let peer = Peer::new(vec![answer("200 OK", "text/plain", "ready")]);
    let (code, out, err) = run(&["health", "--url", &peer.url]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "ready\n", ""));
    assert!(peer.asked().head.starts_with("GET /readyz HTTP/1.1\r\n"));

    let peer = Peer::new(vec![answer("503 Service Unavailable", "text/plain", "link 0 is down")]);
    let (code, out, err) = run(&["health", "--url", &peer.url]);
    assert_eq!(code, Some(1));
    assert_eq!((out.as_str(), err.as_str()), ("", "tidewire: not ready: link 0 is down\n"));

    let (code, _, err) = run(&["health", "--url", NOBODY]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("tidewire: no answer from http://127.0.0.1:"), "{err}");
}

/// In a container the configuration says 0.0.0.0, where nobody can be asked.
#[test]
fn health_finds_the_address_in_the_configuration() {
    let peer = Peer::new(vec![answer("200 OK", "text/plain", "ready")]);
    let mut command = tidewire(&["health"]);
    command.env("TIDEWIRE_ADMIN", format!("0.0.0.0:{}", peer.port));
    command.env("TIDEWIRE_ADMIN_OPEN", "true");
    // A proxy is not asked about this machine.
    command.env("http_proxy", "http://127.0.0.1:9").env("HTTP_PROXY", "http://127.0.0.1:9");
    let (code, out, err) = outcome(&command.output().unwrap());
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "ready\n", ""));
}

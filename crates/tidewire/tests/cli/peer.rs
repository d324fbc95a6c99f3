//! A scripted peer: answers each connection with the next bytes of its script and tells what it
//! was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What the peer was asked.
pub(crate) struct Asked {
    /// Request line and header fields, each with its line end, lower case but for the first line.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct Peer {
    pub(crate) url: String,
    pub(crate) port: u16,
    asked: Receiver<Asked>,
}

impl Peer {
    /// Answers as many connections as the script has entries, then is gone.
    pub(crate) fn new(script: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            for answer in script {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = tell.send(read(&mut BufReader::new(&stream)));
                // The client may have seen enough before the end.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { url: format!("http://127.0.0.1:{port}"), port, asked }
    }

    /// The next request, in the order of connections.
    pub(crate) fn asked(&self) -> Asked {
        self.asked.recv_timeout(Duration::from_secs(20)).expect("a request")
    }
}

/// Reads one request. An answer that came before its request would be none.
pub(crate) fn read(stream: &mut impl BufRead) -> Asked {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "no whole head: {head}");
        head.push_str(&if head.is_empty() { line } else { line.to_lowercase() });
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    Asked { head, body: String::from_utf8(body).unwrap() }
}

/// A whole answer.
pub(crate) fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

/// An error as the gateway tells it.
pub(crate) fn problem(status: &str, code: &str, message: &str) -> String {
    let body = format!(r#"{{"code":"{code}","detail":"{message}"}}"#);
    answer(status, "application/problem+json", &body)
}

/// A stream that ends where the text ends.
pub(crate) fn stream(events: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nconnection: close\r\n\r\n{events}"
    )
}

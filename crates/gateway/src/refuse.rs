//! Sockets for which there is no place: each is told so and closed.
//!
//! An error status would end an `EventSource` for ever, although a place may be free in a moment, so
//! that the head of the request is read first, of a few sockets at a time and for a moment; an event stream is told
//! to come back. The others, and those that say nothing in time, get the answer that they were to get.
//! None of them costs a place, a handshake's turn or anything on a lane. The accept loop calls it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::app::App;
use crate::session::retry_millis;

/// As many heads are read at a time; further sockets are answered unread. They are among the files
/// that a node keeps back for itself.
const HEADS: usize = 32;
/// A head that is not there by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// A longer head is not that of an `EventSource`.
const HEAD_BYTES: usize = 8 << 10;

/// Refuses sockets.
pub(crate) struct Refuser {
    app: Arc<App>,
    heads: Arc<Semaphore>,
}

impl Refuser {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { app, heads: Arc::new(Semaphore::new(HEADS)) }
    }

    /// Answers and closes a socket; an event stream is told to come back instead. It does not wait.
    /// Over TLS an answer would take a handshake, which is what there is no room for: there the socket is
    /// closed without a word, after which an `EventSource` comes back by itself.
    pub(crate) fn refuse(&self, socket: std::net::TcpStream, answer: &'static [u8]) {
        if self.app.settings.tls.is_some() {
            return;
        }
        let Ok(head) = self.heads.clone().try_acquire_owned() else {
            // Best effort: a fresh socket's buffer takes it.
            let _ = io::Write::write(&mut &socket, answer);
            return;
        };
        let app = self.app.clone();
        // Ends with the head's patience.
        tokio::spawn(async move {
            let Ok(mut socket) = TcpStream::from_std(socket) else { return };
            let read = timeout(PATIENCE, read_head(&mut socket)).await;
            let stream = read.ok().flatten().and_then(|head| come_back(&app, &head));
            let _ = socket.try_write(stream.as_deref().unwrap_or(answer));
            drop(head);
        });
    }
}

/// The head of a request; none if the client closes, or goes on for too long.
async fn read_head(socket: &mut TcpStream) -> Option<String> {
    let (mut head, mut looked_at) = (Vec::new(), 0_usize);
    // Each byte is looked at once, but for the three that an end may have begun with.
    while !head[looked_at.saturating_sub(3)..].windows(4).any(|end| end == b"\r\n\r\n") {
        looked_at = head.len();
        let read = socket.read_buf(&mut head).await.ok()?;
        if read == 0 || head.len() > HEAD_BYTES {
            return None;
        }
    }
    String::from_utf8(head).ok()
}

/// The answer to an event stream's request; none if it is another, or a foreign page's.
fn come_back(app: &App, head: &str) -> Option<Vec<u8>> {
    let mut lines = head.split("\r\n");
    let target = lines.next()?.strip_prefix("GET /v1/sse")?;
    if !target.starts_with([' ', '?']) {
        return None;
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    let (mut origin, mut host, mut by_https) = (None, None, false);
    for (name, value) in fields {
        let value = Some(value.trim());
        match name.to_ascii_lowercase().as_str() {
            "origin" => origin = value,
            "host" => host = value,
            "x-forwarded-proto" => by_https |= value != Some("http"),
            _ => {}
        }
    }
    app.settings.origins.check(origin, host, by_https).ok()?;
    // It is written back.
    if origin.is_some_and(|origin| origin.chars().any(char::is_control)) {
        return None;
    }
    let cors = origin.map(|origin| {
        format!(
            "access-control-allow-origin: {origin}\r\naccess-control-allow-credentials: true\r\n"
        )
    });
    let (cors, retry) = (cors.unwrap_or_default(), retry_millis());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
        cache-control: no-store\r\nx-accel-buffering: no\r\nvary: Origin\r\nconnection: close\r\n";
    Some(format!("{head}{cors}\r\nretry: {retry}\n\n").into_bytes())
}

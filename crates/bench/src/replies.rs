//! Counts what a server answers to publishes.

use anyhow::{Context, bail, ensure};

use crate::frames::{Frames, Piece};
use crate::target::Scheme;

/// The most bytes of an HTTP answer's head.
const MAX_HEAD: usize = 16 << 10;

/// Answers so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
}

/// Reads the answers on one connection.
pub(crate) enum Replies {
    Http { head: Vec<u8>, body: usize },
    WebSocket(Frames),
    Redis { begun: bool },
}

impl Replies {
    pub(crate) fn of(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Http => Self::Http { head: Vec::new(), body: 0 },
            Scheme::WebSocket => Self::WebSocket(Frames::default()),
            Scheme::Redis => Self::Redis { begun: false },
        }
    }

    /// Reads on. `pong` is called with what the server pinged.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        tally: &mut Tally,
        mut pong: impl FnMut(&[u8]),
    ) -> anyhow::Result<()> {
        match self {
            Self::Http { head, body } => http(bytes, head, body, tally),
            Self::WebSocket(frames) => {
                let mut closed = false;
                frames.feed(bytes, &mut |piece| match piece {
                    Piece::Data(data) | Piece::Packed(data, _) => web_socket(data, tally),
                    Piece::Ping(payload) => pong(payload),
                    Piece::Close => closed = true,
                });
                ensure!(!closed, "the server closed the WebSocket");
                Ok(())
            }
            Self::Redis { begun } => {
                redis(bytes, begun, tally);
                Ok(())
            }
        }
    }
}

fn http(
    mut bytes: &[u8],
    head: &mut Vec<u8>,
    body: &mut usize,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        if *body > 0 {
            let skipped = bytes.len().min(*body);
            *body -= skipped;
            bytes = &bytes[skipped..];
            continue;
        }
        // The end of the head may be cut: search from a little before what is new.
        let from = head.len().saturating_sub(3);
        let had = head.len();
        head.extend_from_slice(bytes);
        let Some(at) = memchr::memmem::find(&head[from..], b"\r\n\r\n") else {
            ensure!(head.len() <= MAX_HEAD, "an HTTP answer's head does not end");
            return Ok(());
        };
        let end = from + at + 4;
        bytes = &bytes[end - had..];
        head.truncate(end);
        *body = answer(head, tally)?;
        head.clear();
    }
    Ok(())
}

/// Counts one answer, and says how long its body is.
fn answer(head: &[u8], tally: &mut Tally) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head).context("an HTTP answer's head is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    match status.as_bytes() {
        [b'2', _, _] => tally.accepted += 1,
        _ => tally.refused += 1,
    }
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            return value.trim().parse().context("an HTTP answer's length is no number");
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("answers in chunks are not read here");
        }
    }
    Ok(0)
}

/// Tidewire's words; other servers' answers are not counted.
fn web_socket(data: &[u8], tally: &mut Tally) {
    let found = |word: &str| memchr::memmem::find(data, word.as_bytes()).is_some();
    if found(r#""type":"ack""#) {
        tally.accepted += 1;
    } else if found(r#""type":"error""#) {
        tally.refused += 1;
    }
}

/// Answers to `PUBLISH` are lines: `:3` or `-ERR …`.
fn redis(bytes: &[u8], begun: &mut bool, tally: &mut Tally) {
    for byte in bytes {
        match byte {
            b'\n' => *begun = false,
            _ if *begun => {}
            kind => {
                *begun = true;
                if *kind == b':' {
                    tally.accepted += 1;
                } else {
                    tally.refused += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(scheme: Scheme, stream: &[u8], size: usize) -> Tally {
        let (mut replies, mut tally) = (Replies::of(scheme), Tally::default());
        for piece in stream.chunks(size) {
            replies.feed(piece, &mut tally, |_| ()).unwrap();
        }
        tally
    }

    #[test]
    fn answers_may_be_cut_anywhere() {
        let http = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 204 No\r\n\r\n\
                     HTTP/1.1 503 No\r\nContent-Length:  3\r\n\r\nnot\
                     HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let redis = b":12\r\n-ERR no\r\n:0\r\n";
        for size in 1..http.len() {
            let tally = count(Scheme::Http, http, size);
            assert_eq!(tally, Tally { accepted: 3, refused: 1 }, "pieces of {size}");
        }
        for size in 1..redis.len() {
            let tally = count(Scheme::Redis, redis, size);
            assert_eq!(tally, Tally { accepted: 2, refused: 1 }, "pieces of {size}");
        }
    }
}

//! A plain client of Server-Sent Events, after the HTML standard's rules.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::http::{self, Head};
use crate::soon;

/// An open stream.
pub struct EventStream {
    stream: BufReader<TcpStream>,
    head: Head,
    pending: Vec<u8>,
}

/// One block of a stream: what stands between two empty lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// `event:`, `message` when there is none.
    pub event: Option<String>,
    /// The `data:` lines, joined by line feeds; none when there is no such line (no event fires).
    pub data: Option<String>,
    /// `id:`.
    pub id: Option<String>,
    /// `retry:` in milliseconds.
    pub retry: Option<u64>,
    /// Comment lines.
    pub comments: Vec<String>,
}

impl Block {
    /// The data as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let data = self.data.as_deref().unwrap_or_default();
        serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl EventStream {
    /// Opens `GET path` with further headers, and expects the head of a stream.
    ///
    /// # Panics
    /// When the answer is another.
    pub async fn open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = Self::try_open(addr, path, headers).await;
        assert_eq!(stream.head.status, 200, "{:?}", stream.head);
        let content_type = stream.head.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with("text/event-stream"), "{content_type}");
        stream
    }

    /// Opens `GET path` with further headers, whatever the answer is.
    ///
    /// # Panics
    /// When there is no connection.
    pub async fn try_open(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request =
            format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nAccept: text/event-stream\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        soon("the head of a stream", async {
            let mut stream = BufReader::new(TcpStream::connect(addr).await.expect("connect"));
            stream.write_all(request.as_bytes()).await.expect("a request is written");
            let head = http::read_head(&mut stream).await;
            Self { stream, head, pending: vec![] }
        })
        .await
    }

    /// The head of the answer.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The next block, comments and all; none when the stream has ended.
    ///
    /// # Panics
    /// When none comes.
    pub async fn next_block(&mut self) -> Option<Block> {
        soon("a block of an event stream", async {
            loop {
                if let Some(block) = self.take_block() {
                    return Some(block);
                }
                if !self.fill().await {
                    return None;
                }
            }
        })
        .await
    }

    /// The next event that a browser would fire: a block with data.
    ///
    /// # Panics
    /// When the stream ends, or none comes.
    pub async fn next_event(&mut self) -> Block {
        loop {
            let block = self.next_block().await.expect("the stream has ended");
            if block.data.is_some() {
                return block;
            }
        }
    }

    /// The next event, which must have this name.
    ///
    /// # Panics
    /// When it has another.
    pub async fn expect(&mut self, event: &str) -> Block {
        let block = self.next_event().await;
        assert_eq!(block.event.as_deref().unwrap_or("message"), event, "{block:?}");
        block
    }

    /// Waits for the end of the stream.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn ended(&mut self) {
        while self.next_block().await.is_some() {}
    }

    async fn fill(&mut self) -> bool {
        if self.head.header("transfer-encoding") == Some("chunked") {
            let chunk = http::read_chunk(&mut self.stream).await;
            self.pending.extend_from_slice(chunk.as_deref().unwrap_or_default());
            return chunk.is_some();
        }
        self.stream.read_buf(&mut self.pending).await.unwrap_or(0) > 0
    }

    fn take_block(&mut self) -> Option<Block> {
        let end = self.pending.windows(2).position(|two| two == b"\n\n")?;
        let text: Vec<u8> = self.pending.drain(..end + 2).collect();
        let text = String::from_utf8(text).expect("an event stream is UTF-8");
        let mut block = Block::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "" => block.comments.push(value),
                "event" => block.event = Some(value),
                "id" => block.id = Some(value),
                "retry" => block.retry = Some(value.parse().expect("a number of milliseconds")),
                "data" => match &mut block.data {
                    Some(data) => *data = format!("{data}\n{value}"),
                    None => block.data = Some(value),
                },
                other => panic!("a field that is none: {other}"),
            }
        }
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn blocks_are_read_as_the_standard_says() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            let body = ": hi\nretry: 5\n\nevent: a\nid: 7\ndata: x\ndata:y\n\ndata\n\n";
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        });
        let mut stream = EventStream::open(addr, "/", &[]).await;
        let first = stream.next_block().await.unwrap();
        assert_eq!((first.retry, first.comments), (Some(5), vec!["hi".to_owned()]));
        let second = stream.expect("a").await;
        assert_eq!((second.data.unwrap(), second.id.unwrap()), ("x\ny".into(), "7".into()));
        assert_eq!(stream.expect("message").await.data.unwrap(), "");
        stream.ended().await;
        server.await.unwrap();
    }
}

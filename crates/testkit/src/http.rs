//! A plain HTTP/1.1 client: what is sent and what comes back, byte by byte.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::soon;

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status, 0 if the connection was closed without an answer.
    pub status: u16,
    /// The headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of this name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status and headers.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// Sends the bytes of a request as they are and reads one answer.
///
/// # Panics
/// When there is no connection, or no whole answer in time.
pub async fn raw(addr: SocketAddr, request: &[u8]) -> Answer {
    soon("an HTTP answer", async {
        let mut stream = BufReader::new(TcpStream::connect(addr).await.expect("connect"));
        // A server may refuse before it has read all.
        let _ = stream.write_all(request).await;
        let head = read_head(&mut stream).await;
        let body = read_body(&mut stream, &head).await;
        Answer { head, body }
    })
    .await
}

/// `GET`.
///
/// # Panics
/// As [`raw`].
pub async fn get(addr: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    raw(addr, request.as_bytes()).await
}

/// `POST` with a content type and a body.
///
/// # Panics
/// As [`raw`].
pub async fn post(addr: SocketAddr, path: &str, content_type: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
        Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw(addr, &[head.as_bytes(), body].concat()).await
}

/// `POST` of JSON.
///
/// # Panics
/// As [`raw`].
pub async fn post_json(addr: SocketAddr, path: &str, body: &serde_json::Value) -> Answer {
    post(addr, path, "application/json", body.to_string().as_bytes()).await
}

/// Reads the head of an answer; status 0 when the connection ends instead.
///
/// # Panics
/// When it is not HTTP.
pub async fn read_head(stream: &mut BufReader<TcpStream>) -> Head {
    let mut headers = vec![];
    let mut status = None;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return Head { status: status.unwrap_or(0), headers };
        }
        let line = line.trim_end();
        if status.is_none() {
            let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
            status = Some(code.unwrap_or_else(|| panic!("not HTTP: {line:?}")));
        } else if line.is_empty() {
            return Head { status: status.unwrap_or(0), headers };
        } else {
            let (name, value) = line.split_once(':').expect("a header has a colon");
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

async fn read_body(stream: &mut BufReader<TcpStream>, head: &Head) -> Vec<u8> {
    let mut body = vec![];
    if head.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(stream).await {
            body.extend_from_slice(&chunk);
        }
    } else if let Some(length) = head.header("content-length") {
        body.resize(length.parse().expect("a length"), 0);
        stream.read_exact(&mut body).await.expect("a whole body");
    } else if !matches!(head.status, 101 | 204 | 304) {
        // Until the connection ends; how it ends does not matter.
        let _ = stream.read_to_end(&mut body).await;
    }
    body
}

/// Reads one chunk of a chunked body; none at its end.
pub(crate) async fn read_chunk(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
        return None;
    }
    let length = usize::from_str_radix(line.trim_end(), 16).expect("a chunk's length");
    let mut chunk = vec![0; length + 2];
    stream.read_exact(&mut chunk).await.ok()?;
    chunk.truncate(length);
    (length > 0).then_some(chunk)
}

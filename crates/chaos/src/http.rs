//! A plain HTTP/1.1 client whose every failure is a value: here connections break all the time.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// By then a connection stands.
pub(crate) const CONNECT: Duration = Duration::from_secs(2);

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A request and what becomes of it within a time.
pub(crate) async fn ask(
    addr: SocketAddr,
    request: &Request<'_>,
    patience: Duration,
) -> anyhow::Result<Answer> {
    let ask = async {
        let (mut stream, status, length) = open(addr, request).await?;
        let mut body = vec![];
        match length {
            Some(length) => {
                body.resize(length, 0);
                stream.read_exact(&mut body).await?;
            }
            None => bail!("an answer without a length, status {status}"),
        }
        Ok(Answer { status, body })
    };
    timeout(patience, ask).await.context("no answer in time")?
}

/// A request.
#[derive(Default)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: Vec<u8>,
}

/// Connects. What is not read is felt after a little, not after the megabytes to which Linux would
/// let the buffer grow.
pub(crate) async fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 << 10)?;
    let stream = socket.connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request and reads the head of its answer: the status, and the length of the body if it
/// is told.
pub(crate) async fn open(
    addr: SocketAddr,
    request: &Request<'_>,
) -> anyhow::Result<(BufReader<TcpStream>, u16, Option<usize>)> {
    let stream = timeout(CONNECT, connect(addr)).await.context("no connection")??;
    let Request { method, path, headers, body } = request;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    let mut stream = BufReader::new(stream);
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let status = line(&mut stream).await?;
    let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.with_context(|| format!("not HTTP: {status:?}"))?;
    let mut length = None;
    loop {
        let header = line(&mut stream).await?;
        let Some((name, value)) = header.split_once(':') else {
            return Ok((stream, code, length));
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
}

/// A line without its end.
async fn line(stream: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        bail!("the connection ended");
    }
    Ok(line.trim_end().to_owned())
}

//! An echo server over the codec: every message comes back, every ping is answered. With a client
//! that offers permessage-deflate, messages are compressed.
//!
//! The conformance suite's fuzzing client talks to it (`scripts/autobahn`), and it shows how the
//! codec is driven: one scratch buffer, read, drain, answer. Its handshake is done by hand, so that
//! nothing stands between the suite and the codec. It is no production server: it has no limits
//! on connections, and each has a scratch buffer of its own.
//!
//! Usage: `echo ADDRESS`, such as `127.0.0.1:9001`. With port 0 the system picks one. The first
//! line on standard output says where it listens.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use bytes::Bytes;
use tidewire_websocket::{
    Decoder, Deflate, Event, Input, MessageKind, VERSION, accept_key, close, close_empty, deflate,
    encode, is_valid_key, pong,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The largest message of the suite's section 9 is 16 MiB.
const MAX_MESSAGE: usize = 32 << 20;
/// What one read may bring.
const SCRATCH: usize = 64 << 10;
/// What a request's head may take, in bytes and in time.
const MAX_HEAD: usize = 8 << 10;
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a connection waits, once closed, for the client to hang up.
const LINGER: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Some(address) = std::env::args().nth(1) else {
        return Err(Error::new(ErrorKind::InvalidInput, "usage: echo ADDRESS"));
    };
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (socket, peer) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = serve(socket).await {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

async fn serve(mut socket: TcpStream) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut scratch = vec![0; SCRATCH];
    let Ok(head) = timeout(HEAD_TIME, read_head(&mut socket, &mut scratch)).await else {
        return Err(ErrorKind::TimedOut.into());
    };
    let (head, mut filled) = head?;
    let agreed = match upgrade(&String::from_utf8_lossy(&scratch[..head])) {
        Ok((answer, agreed)) => {
            socket.write_all(answer.as_bytes()).await?;
            agreed
        }
        Err(refusal) => return socket.write_all(refusal.as_bytes()).await,
    };
    // A client need not wait for the answer before it sends frames.
    scratch.copy_within(head..filled, 0);
    filled -= head;

    let mut decoder = match agreed {
        Some(_) => Decoder::with_deflate(MAX_MESSAGE),
        None => Decoder::new(MAX_MESSAGE),
    };
    let compress = agreed.is_some_and(Deflate::is_for_sending);
    while !decoder.is_closed() {
        let answers = answer(&mut decoder, &mut scratch[..filled], compress);
        socket.write_all(&answers).await?;
        if decoder.is_closed() {
            break;
        }
        filled = socket.read(&mut scratch).await?;
        if filled == 0 {
            return Ok(());
        }
    }
    hang_up(socket, &mut scratch).await
}

/// All that is to be said to one read.
fn answer(decoder: &mut Decoder, read: &mut [u8], compress: bool) -> Vec<u8> {
    let message = |kind, payload: &[u8]| -> Bytes {
        let compressed = if compress { deflate(kind, payload) } else { None };
        compressed.unwrap_or_else(|| encode(kind, payload))
    };
    let mut answers = Vec::new();
    let mut input = Input::new(read);
    loop {
        let frame = match decoder.decode(&mut input) {
            Ok(Some(Event::Text(text))) => message(MessageKind::Text, text.as_bytes()),
            Ok(Some(Event::Binary(bytes))) => message(MessageKind::Binary, bytes),
            Ok(Some(Event::Ping(payload))) => pong(payload),
            Ok(Some(Event::Pong(_))) => continue,
            Ok(Some(Event::Close(Some((code, reason))))) => close(code, reason),
            Ok(Some(Event::Close(None))) => close_empty(),
            Ok(None) => return answers,
            Err(error) => close(error.close_code(), &error.to_string()),
        };
        answers.extend_from_slice(&frame);
    }
}

/// RFC 6455, section 7.1.1: "the underlying TCP connection, in most normal cases, SHOULD be closed
/// first by the server". What the client still sends is read away, since unread bytes would turn
/// the close into a reset that can overtake the close frame.
async fn hang_up(mut socket: TcpStream, scratch: &mut [u8]) -> Result<()> {
    socket.shutdown().await?;
    let drained = timeout(LINGER, async {
        while socket.read(scratch).await? != 0 {}
        Ok(())
    });
    drained.await.unwrap_or(Ok(()))
}

/// Reads up to the empty line. Returns the head's length and that of all that came.
async fn read_head(socket: &mut TcpStream, scratch: &mut [u8]) -> Result<(usize, usize)> {
    let mut filled = 0;
    loop {
        let n = socket.read(&mut scratch[filled..]).await?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        filled += n;
        let end = scratch[..filled].windows(4).position(|four| four == b"\r\n\r\n");
        match end {
            Some(end) => return Ok((end + 4, filled)),
            None if filled > MAX_HEAD => {
                return Err(Error::new(ErrorKind::InvalidData, "head too long"));
            }
            None => {}
        }
    }
}

/// The answer to a request's head, and whether messages are compressed: 101 as `Ok`, a refusal as
/// `Err`.
fn upgrade(head: &str) -> std::result::Result<(String, Option<Deflate>), String> {
    let refusal = |status: &str| {
        format!(
            "HTTP/1.1 {status}\r\nSec-WebSocket-Version: {VERSION}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    let mut lines = head.split("\r\n");
    let request = lines.next().unwrap_or_default();
    let headers: Vec<(&str, &str)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let header = |wanted: &str| {
        let found = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map_or("", |(_, value)| *value)
    };
    let lists = |name: &str, wanted: &str| {
        header(name).split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    let upgrades = request.starts_with("GET ")
        && request.ends_with(" HTTP/1.1")
        && lists("Upgrade", "websocket")
        && lists("Connection", "upgrade");
    let key = header("Sec-WebSocket-Key");
    if !upgrades || !is_valid_key(key) {
        return Err(refusal("400 Bad Request"));
    }
    if header("Sec-WebSocket-Version") != VERSION {
        return Err(refusal("426 Upgrade Required"));
    }
    let extensions =
        headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Extensions"));
    let Ok(agreed) = Deflate::negotiate(extensions.map(|(_, value)| value.as_bytes())) else {
        return Err(refusal("400 Bad Request"));
    };
    let extensions =
        agreed.map(|agreed| format!("Sec-WebSocket-Extensions: {agreed}\r\n")).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n{extensions}\r\n",
        accept_key(key)
    );
    Ok((answer, agreed))
}

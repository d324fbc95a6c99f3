//! A client of Tidewire that comes back: over a WebSocket, with the cursor of its last message.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::frames::client_frame;
use crate::marker::{LENGTH, Marker, PREFIX};
use crate::subscriber::{accepted, upgrade_request};
use crate::target::{Scheme, Target};

/// The most bytes of an unfinished frame or head.
const MAX_PARTIAL: usize = 1 << 20;

/// The client, with or without a connection.
#[derive(Default)]
pub(super) struct Client {
    socket: Option<TcpStream>,
    state: State,
    /// What it goes on from: the place of the last thing that it was told.
    cursor: Option<Box<str>>,
    /// Of a head or a frame; empty between them.
    partial: Vec<u8>,
    /// Number of the message that it waits for.
    pub(super) next: u32,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Away,
    Connecting,
    Head,
    Open,
}

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is subscribed.
    Welcome,
    /// A message.
    Message(Marker),
    /// Messages are missing.
    Gap,
}

impl Client {
    /// Begins to connect, as the client with this token.
    pub(super) fn connect(
        &mut self,
        target: &Target,
        token: Token,
        sources: u8,
        registry: &Registry,
    ) -> io::Result<()> {
        let address = target.address;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        if let (IpAddr::V4(Ipv4Addr::LOCALHOST), true) = (address.ip(), sources > 1) {
            let last = 1 + u8::try_from(token.0 % usize::from(sources)).unwrap_or(0);
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
        }
        match socket.connect(&address.into()) {
            Err(error)
                if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                return Err(error);
            }
            _ => {}
        }
        let mut socket = TcpStream::from_std(socket.into());
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        (self.socket, self.state) = (Some(socket), State::Connecting);
        self.partial.clear();
        Ok(())
    }

    /// Ends the connection as a broken link would, without a word (RST).
    pub(super) fn cut(&mut self) {
        if let Some(socket) = self.socket.take() {
            // Where it is gone already there is nothing to reset.
            let _ = socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO));
        }
        self.state = State::Away;
    }

    /// Whether it has a connection, or is about to.
    pub(super) fn is_away(&self) -> bool {
        self.state == State::Away
    }

    /// Goes on with whatever its socket is ready for. An error when the connection has ended.
    pub(super) fn attend(
        &mut self,
        target: &Target,
        scratch: &mut [u8],
        on: &mut impl FnMut(Heard),
    ) -> io::Result<()> {
        if self.state == State::Connecting && !self.ask(target)? {
            return Ok(());
        }
        while let Some(socket) = &mut self.socket {
            let length = match socket.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.take(&scratch[..length], on)?;
        }
        Ok(())
    }

    /// Sends the request once the connection stands; false before.
    fn ask(&mut self, target: &Target) -> io::Result<bool> {
        let Some(socket) = &mut self.socket else { return Ok(false) };
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        let mut target = target.clone();
        if let Some(cursor) = &self.cursor {
            target.path.push_str("&cursor=");
            target.path.push_str(cursor);
        }
        // A fresh socket takes more than this, or none because it does not stand yet.
        match socket.write_all(upgrade_request(&target, false).as_bytes()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(error),
        }
        self.state = State::Head;
        Ok(true)
    }

    fn take(&mut self, bytes: &[u8], on: &mut impl FnMut(Heard)) -> io::Result<()> {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut rest = &all[..];
        if self.state == State::Head {
            let Some(end) = memchr::memmem::find(rest, b"\r\n\r\n") else {
                return self.keep(rest);
            };
            accepted(Scheme::WebSocket, rest)?;
            self.state = State::Open;
            rest = &rest[end + 4..];
        }
        while let Some((first, payload, after)) = frame(rest) {
            match first & 0x0f {
                8 => return Err(io::ErrorKind::UnexpectedEof.into()),
                9 => {
                    if let Some(socket) = &mut self.socket {
                        // Small, and the server reads: it fits.
                        socket.write_all(&client_frame(0x8a, payload))?;
                    }
                }
                _ => self.hear(payload, on),
            }
            rest = after;
        }
        self.keep(rest)
    }

    fn keep(&mut self, rest: &[u8]) -> io::Result<()> {
        if rest.len() > MAX_PARTIAL {
            return Err(io::Error::other("the server sends a frame without an end"));
        }
        self.partial = rest.to_vec();
        Ok(())
    }

    fn hear(&mut self, text: &[u8], on: &mut impl FnMut(Heard)) {
        let is = |kind: &str| text.starts_with(format!(r#"{{"type":"{kind}""#).as_bytes());
        let heard = if is("message") {
            let at = memchr::memmem::find(text, PREFIX);
            let marker = at.and_then(|at| text[at..].first_chunk::<LENGTH>());
            let Some(marker) = marker.and_then(Marker::read) else { return };
            Heard::Message(marker)
        } else if is("welcome") {
            on(Heard::Welcome);
            // One that resumes is still where it was, until it hears more.
            if self.cursor.is_none() {
                self.cursor = cursor(text);
            }
            return;
        } else if is("gap") {
            Heard::Gap
        } else {
            return;
        };
        if let Some(cursor) = cursor(text) {
            self.cursor = Some(cursor);
        }
        on(heard);
    }
}

/// The first cursor in a frame of the server.
fn cursor(text: &[u8]) -> Option<Box<str>> {
    const KEY: &[u8] = br#""cursor":""#;
    let rest = &text[memchr::memmem::find(text, KEY)? + KEY.len()..];
    let end = memchr::memchr(b'"', rest)?;
    std::str::from_utf8(&rest[..end]).ok().map(Into::into)
}

/// The first whole frame of a server: its first byte, its payload, and what follows.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (head, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let rest = &bytes[head..];
    let length = usize::try_from(length).ok().filter(|length| *length <= rest.len())?;
    Some((first, &rest[..length], &rest[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_heard_wherever_they_are_cut() {
        let mut stream = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        let mut marker = [0; LENGTH];
        Marker { sent: 7, number: 3 }.write(&mut marker);
        let message = format!(
            r#"{{"type":"message","payload":"{}","cursor":"5-0.abcd"}}"#,
            String::from_utf8_lossy(&marker)
        );
        let welcome = r#"{"type":"welcome","channels":[{"channel":"a","cursor":"1-0.abcd"}]}"#;
        let gap = r#"{"type":"gap","channel":"a","after":"5-0.abcd","cursor":"9-0.abcd"}"#;
        for text in [welcome, &message, gap] {
            let length = u8::try_from(text.len()).unwrap();
            assert!(length < 126);
            stream.extend_from_slice(&[0x81, length]);
            stream.extend_from_slice(text.as_bytes());
        }
        let marker = Marker { sent: 7, number: 3 };
        for size in [1, 7, 50, 1_000] {
            let mut client = Client { state: State::Head, ..Client::default() };
            let mut heard = Vec::new();
            for part in stream.chunks(size) {
                client.take(part, &mut |what| heard.push(what)).unwrap();
            }
            assert_eq!(heard, [Heard::Welcome, Heard::Message(marker), Heard::Gap]);
            assert_eq!(client.cursor.as_deref(), Some("9-0.abcd"));
        }
    }
}

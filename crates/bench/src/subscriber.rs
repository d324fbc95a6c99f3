//! One subscriber: a socket, its handshake, and the markers that come in.
//!
//! The crowd owns thousands of them and one buffer for all. While nothing arrives a subscriber
//! owns no buffer.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::frames::{Frames, Piece, client_frame};
use crate::marker::Marker;
use crate::scan::Scan;
use crate::senses::Senses;
use crate::target::{Scheme, Target};

/// How long the connect itself may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes that are searched for the end of the head and for the sign of readiness.
const MAX_OPENING: usize = 64 << 10;

/// One subscriber.
pub(crate) struct Subscriber {
    pub(crate) socket: TcpStream,
    scheme: Scheme,
    state: State,
    frames: Frames,
    scan: Scan,
    /// The beginning of a compressed message that was cut; owns nothing else.
    packed: Vec<u8>,
}

enum State {
    /// The head of the answer so far.
    Head(Vec<u8>),
    /// What came since, in which the sign of readiness is looked for.
    Opening(Vec<u8>),
    Ready,
}

/// How one becomes subscribed.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    /// The text by which the server says that the subscription holds; empty: the handshake does.
    pub(crate) ready: String,
    /// A frame to send after the WebSocket's handshake, for servers that want to be asked.
    pub(crate) hello: Option<String>,
    /// Whether `permessage-deflate` is offered.
    pub(crate) deflate: bool,
}

/// The bytes that a client which does not read lets the kernel keep for it.
const SMALL: usize = 4 << 10;

/// What a subscriber has become by reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing new.
    Same,
    /// It is subscribed: now and not before.
    Ready,
    /// The server ended it.
    Ended,
}

impl Subscriber {
    /// Connects and asks. From the loopback address the source is chosen by `index` among
    /// `sources`, so that ports are not used up.
    pub(crate) fn open(
        target: &Target,
        index: usize,
        sources: u8,
        words: &Words,
        stalls: bool,
    ) -> io::Result<Self> {
        let buffer = stalls.then_some(SMALL);
        let mut socket = connect_with(target.address, index, sources, buffer)?;
        let request = match target.scheme {
            Scheme::WebSocket => upgrade_request(target, words.deflate),
            _ => format!(
                "GET {} HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n",
                target.path, target.authority
            ),
        };
        // A fresh socket takes more than this.
        socket.write_all(request.as_bytes())?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: TcpStream::from_std(socket),
            scheme: target.scheme,
            state: State::Head(Vec::new()),
            frames: Frames::default(),
            scan: Scan::default(),
            packed: Vec::new(),
        })
    }

    /// Reads all there is.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        senses: &mut Senses,
        words: &Words,
        on: &mut impl FnMut(Marker),
    ) -> io::Result<Progress> {
        let mut progress = Progress::Same;
        loop {
            let length = match self.socket.read(scratch) {
                Ok(0) => return Ok(Progress::Ended),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(progress),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match self.take(&scratch[..length], senses, words, on)? {
                Progress::Same => {}
                other => progress = other,
            }
            // A short read has emptied the socket; epoll(7) says that it will tell of more.
            if progress == Progress::Ended || length < scratch.len() {
                return Ok(progress);
            }
        }
    }

    /// Sends a frame of its own; small, and the server reads: it fits.
    pub(crate) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.socket.write_all(frame)
    }

    /// Whether the server has ended it, for one that did not read.
    pub(crate) fn is_ended(&mut self, scratch: &mut [u8]) -> bool {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        senses: &mut Senses,
        words: &Words,
        on: &mut impl FnMut(Marker),
    ) -> io::Result<Progress> {
        match &mut self.state {
            State::Ready => self.deliver(bytes, senses, on),
            State::Head(head) => {
                head.extend_from_slice(bytes);
                let Some(end) = memchr::memmem::find(head, b"\r\n\r\n") else {
                    return bounded(head);
                };
                accepted(self.scheme, head)?;
                let rest = head.split_off(end + 4);
                self.state = State::Opening(Vec::new());
                if let (Scheme::WebSocket, Some(hello)) = (self.scheme, &words.hello) {
                    self.socket.write_all(&client_frame(0x81, hello.as_bytes()))?;
                }
                self.opened(&rest, senses, &words.ready)
            }
            State::Opening(_) => self.opened(bytes, senses, &words.ready),
        }
    }

    /// Looks for the sign of readiness, whatever it stands in.
    fn opened(&mut self, bytes: &[u8], senses: &mut Senses, ready: &str) -> io::Result<Progress> {
        // Keeps the place in the stream, and answers what is asked; no message counts yet.
        if self.deliver(bytes, senses, &mut |_| ())? == Progress::Ended {
            return Ok(Progress::Ended);
        }
        let State::Opening(seen) = &mut self.state else { return Ok(Progress::Same) };
        seen.extend_from_slice(bytes);
        if memchr::memmem::find(seen, ready.as_bytes()).is_none() {
            return bounded(seen);
        }
        self.state = State::Ready;
        Ok(Progress::Ready)
    }

    fn deliver(
        &mut self,
        bytes: &[u8],
        senses: &mut Senses,
        on: &mut impl FnMut(Marker),
    ) -> io::Result<Progress> {
        let Self { frames, scan, socket, packed, .. } = self;
        if self.scheme != Scheme::WebSocket {
            scan.feed(&senses.search, bytes, on);
            return Ok(Progress::Same);
        }
        let mut outcome = Ok(Progress::Same);
        frames.feed(bytes, &mut |piece| match piece {
            Piece::Data(data) => {
                senses.look(data);
                scan.feed(&senses.search, data, on);
            }
            Piece::Packed(part, true) if packed.is_empty() => {
                if let Err(error) = senses.unpack(part, on) {
                    outcome = Err(error);
                }
            }
            Piece::Packed(part, last) => {
                packed.extend_from_slice(part);
                if last && let Err(error) = senses.unpack(&std::mem::take(packed), on) {
                    outcome = Err(error);
                }
            }
            Piece::Ping(payload) => {
                // Small, and the server reads: it fits.
                if let Err(error) = socket.write_all(&client_frame(0x8a, payload)) {
                    outcome = Err(error);
                }
            }
            Piece::Close => outcome = Ok(Progress::Ended),
        });
        outcome
    }
}

/// The request that opens a WebSocket. The key is the RFC's example: the server's answer to it is
/// not checked here, and nothing between caches.
pub(crate) fn upgrade_request(target: &Target, deflate: bool) -> String {
    let extension = if deflate {
        "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; \
         client_no_context_takeover\r\n"
    } else {
        ""
    };
    format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extension}\r\n",
        target.path, target.authority
    )
}

/// A connected, still blocking socket.
pub(crate) fn connect(
    address: SocketAddr,
    index: usize,
    sources: u8,
) -> io::Result<std::net::TcpStream> {
    connect_with(address, index, sources, None)
}

fn connect_with(
    address: SocketAddr,
    index: usize,
    sources: u8,
    receive_buffer: Option<usize>,
) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let (IpAddr::V4(Ipv4Addr::LOCALHOST), true) = (address.ip(), sources > 1) {
        let last = 1 + u8::try_from(index % usize::from(sources)).unwrap_or(0);
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    }
    socket.connect_timeout(&address.into(), CONNECT_TIMEOUT)?;
    Ok(socket.into())
}

/// Whether the answer is the one that opens a stream.
pub(crate) fn accepted(scheme: Scheme, head: &[u8]) -> io::Result<()> {
    let wanted = if scheme == Scheme::WebSocket { "101" } else { "200" };
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    if line.split(' ').nth(1) == Some(wanted) {
        return Ok(());
    }
    Err(io::Error::other(format!("the server answered {line:?} instead of {wanted}")))
}

fn bounded(seen: &[u8]) -> io::Result<Progress> {
    if seen.len() > MAX_OPENING {
        return Err(io::Error::other("the server says much, but not that one is subscribed"));
    }
    Ok(Progress::Same)
}

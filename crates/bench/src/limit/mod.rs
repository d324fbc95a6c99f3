//! `limit`: the bare loop that servers are compared with.
//!
//! One thread, one event queue, a frame encoded once and one `send(2)` a subscriber: what a
//! delivery costs when the server does nothing else. It answers to the same clients as a real
//! server, so that the same generator measures both in one round. It checks nothing, keeps
//! nothing and has no limits; it is no server to use.

mod peer;
mod request;

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::Context;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use tidewire_websocket::{MessageKind, encode_with};

use crate::cli::Limit;
use peer::{Peer, Role};
use request::Request;

const LISTENER: Token = Token(usize::MAX);

/// The bytes around a payload, as long as those that Tidewire sends.
const BEFORE: &[u8] = br#"{"type":"message","channel":"bench","event":"message","payload":"#;
const AFTER: &[u8] =
    br#","timestamp":"2026-01-01T00:00:00.000Z","messageId":"00000000-0000-7000-8000-000000000000"}"#;

/// Messages in the forms in which they are sent: one, or those of a turn one after another.
#[derive(Default)]
struct Outgoing {
    web_socket: Vec<u8>,
    sse: Vec<u8>,
}

impl Outgoing {
    fn push(&mut self, payload: &[u8]) {
        let length = BEFORE.len() + payload.len() + AFTER.len();
        let frame = encode_with(MessageKind::Text, length, |out| {
            for part in [BEFORE, payload, AFTER] {
                out.extend_from_slice(part);
            }
        });
        self.web_socket.extend_from_slice(&frame);
        for part in [b"data: ", payload, b"\n\n"] {
            self.sse.extend_from_slice(part);
        }
    }

    fn clear(&mut self) {
        self.web_socket.clear();
        self.sse.clear();
    }
}

/// The loop.
struct Server {
    poll: Poll,
    listener: TcpListener,
    peers: Slab<Peer>,
    outgoing: Outgoing,
    join: bool,
    scratch: Box<[u8]>,
}

/// Serves until the process is ended.
pub(crate) fn run(arguments: &Limit) -> anyhow::Result<()> {
    let mut server = Server::bind(arguments.listen, arguments.join)
        .with_context(|| format!("listening on {}", arguments.listen))?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", server.listener.local_addr()?)?;
    out.flush()?;
    drop(out);
    server.serve()
}

impl Server {
    fn bind(address: SocketAddr, join: bool) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let scratch = vec![0; 64 << 10].into_boxed_slice();
        let (peers, outgoing) = (Slab::new(), Outgoing::default());
        Ok(Self { poll, listener, peers, outgoing, join, scratch })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1_024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(index) => {
                        // A peer that is gone is nobody's concern here.
                        if self.attend(index).is_err() {
                            self.peers.try_remove(index);
                        }
                    }
                }
            }
            // Empty unless messages are joined.
            self.send();
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("accepting"),
            };
            socket.set_nodelay(true)?;
            let entry = self.peers.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(entry.key()), interest)?;
            entry.insert(Peer::new(socket));
        }
    }

    /// Reads from one peer, and does what it asks for.
    fn attend(&mut self, index: usize) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(index) else { return Ok(()) };
        peer.flush()?;
        peer.read(&mut self.scratch)?;
        // Publishes are taken out one by one, because each goes to all peers.
        while let Some(request) = self.peers.get_mut(index).map(Peer::request).transpose()? {
            match request {
                None => break,
                Some(Request::Publish(payload)) => {
                    self.outgoing.push(&payload);
                    if !self.join {
                        self.send();
                    }
                    self.answer(index, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
                }
                Some(Request::WebSocket(head)) => self.open(index, Role::WebSocket, &head)?,
                Some(Request::Sse(head)) => self.open(index, Role::Sse, &head)?,
            }
        }
        Ok(())
    }

    fn open(&mut self, index: usize, role: Role, head: &[u8]) -> io::Result<()> {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.role = role;
        }
        self.answer(index, head)
    }

    fn answer(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        self.peers.get_mut(index).map_or(Ok(()), |peer| peer.send(bytes))
    }

    /// Sends what is to go out to every subscriber.
    fn send(&mut self) {
        let Self { peers, outgoing, .. } = self;
        if outgoing.sse.is_empty() {
            return;
        }
        peers.retain(|_, peer| match peer.role {
            Role::Asking => true,
            Role::WebSocket => peer.send(&outgoing.web_socket).is_ok(),
            Role::Sse => peer.send(&outgoing.sse).is_ok(),
        });
        outgoing.clear();
    }
}

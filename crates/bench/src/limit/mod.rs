//! `limit`: the bare loop that servers are compared with.
//!
//! One thread, one event queue, a frame encoded once and one `send(2)` a subscriber: what a
//! delivery costs when the server does nothing else. It answers to the same clients as a real
//! server, so that the same generator measures both in one round; `?channel=` tells channels
//! apart. What a WebSocket sends it, it sends back: that is its limit for messages that come in. It
//! checks nothing, keeps nothing and has no limits; it is no server to use.

mod channels;
mod peer;
mod request;

use std::io::{self, Write};
use std::net::SocketAddr;

use anyhow::Context;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use crate::cli::Limit;
use channels::{Channel, Channels};
use peer::{Peer, Role};
use request::Request;

const LISTENER: Token = Token(usize::MAX);

/// The loop.
struct Server {
    poll: Poll,
    listener: TcpListener,
    peers: Slab<Peer>,
    channels: Channels,
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
        let (peers, channels) = (Slab::new(), Channels::default());
        Ok(Self { poll, listener, peers, channels, join, scratch })
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
                            self.remove(index);
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
                Some(Request::Publish(channel, payload)) => {
                    let channel = self.channels.number(channel);
                    self.channels.push(channel, &payload);
                    if !self.join {
                        self.send();
                    }
                    self.answer(index, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")?;
                }
                Some(Request::WebSocket(channel, head)) => {
                    self.open(index, Role::WebSocket, channel, &head)?;
                }
                Some(Request::Sse(channel, head)) => {
                    self.open(index, Role::Sse, channel, &head)?;
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, index: usize, role: Role, channel: String, head: &[u8]) -> io::Result<()> {
        let channel = self.channels.number(channel);
        if let Some(peer) = self.peers.get_mut(index) {
            peer.role = role;
            peer.channel = channel;
            self.channels.join(channel, index);
        }
        self.answer(index, head)
    }

    fn remove(&mut self, index: usize) {
        if let Some(peer) = self.peers.try_remove(index) {
            self.channels.leave(peer.channel, index);
        }
    }

    fn answer(&mut self, index: usize, bytes: &[u8]) -> io::Result<()> {
        self.peers.get_mut(index).map_or(Ok(()), |peer| peer.send(bytes))
    }

    /// Sends what is to go out to every subscriber of its channel.
    fn send(&mut self) {
        while let Some(channel) = self.channels.due.pop() {
            let mut gone = Vec::new();
            let Channel { members, web_socket, sse } = self.channels.of(channel);
            for index in members.iter() {
                let sent = self.peers.get_mut(*index).map_or(Ok(()), |peer| match peer.role {
                    Role::Asking => Ok(()),
                    Role::WebSocket => peer.send(web_socket),
                    Role::Sse => peer.send(sse),
                });
                if sent.is_err() {
                    gone.push(*index);
                }
            }
            web_socket.clear();
            sse.clear();
            gone.into_iter().for_each(|index| self.remove(index));
        }
    }
}

//! One connection that publishes: by HTTP (kept alive, pipelined), by WebSocket or through Redis.
//!
//! Runs call it from the loop that also reads the subscribers. It waits for no answer; answers are
//! counted, so that a refused publish shows in the report.

use std::io::{self, Read, Write};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::frames::client_frame;
use crate::marker::Marker;
use crate::replies::{Replies, Tally};
use crate::subscriber::{accepted, connect, upgrade_request};
use crate::target::{Scheme, Target};
use crate::template::Template;

/// How long the server may take to answer the upgrade.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes that may wait for the server to read them. A server that is so far behind is not being
/// measured any more.
const MAX_WAITING: usize = 16 << 20;

/// The connection.
pub(crate) struct Publisher {
    socket: TcpStream,
    replies: Replies,
    tally: Tally,
    /// What the socket has not taken, from `written` on.
    out: Vec<u8>,
    written: usize,
    input: Box<[u8]>,
}

impl Publisher {
    /// Connects, and joins the loop under this token.
    pub(crate) fn open(target: &Target, registry: &Registry, token: Token) -> anyhow::Result<Self> {
        let to = || format!("publishing to {}", target.address);
        let mut socket = connect(target.address, 0, 1).with_context(to)?;
        let (mut replies, mut tally) = (Replies::of(target.scheme), Tally::default());
        if target.scheme == Scheme::WebSocket {
            let early = upgrade(&mut socket, target).with_context(to)?;
            replies.feed(&early, &mut tally, |_| ())?;
        }
        socket.set_nonblocking(true)?;
        let mut socket = TcpStream::from_std(socket);
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        let input = vec![0; 64 << 10].into_boxed_slice();
        Ok(Self { socket, replies, tally, out: Vec::new(), written: 0, input })
    }

    /// Publishes one message.
    pub(crate) fn publish(
        &mut self,
        template: &mut Template,
        marker: Marker,
    ) -> anyhow::Result<()> {
        ensure!(self.out.len() < MAX_WAITING, "the server does not read what is published");
        template.write(marker, &mut self.out);
        self.flush()
    }

    /// Reads the answers and writes on. Called when something happened on the socket.
    pub(crate) fn attend(&mut self) -> anyhow::Result<()> {
        loop {
            match self.socket.read(&mut self.input) {
                Ok(0) => bail!("the server closed the connection that publishes"),
                Ok(length) => {
                    let Self { out, input, tally, replies, .. } = self;
                    replies.feed(&input[..length], tally, |ping| {
                        out.extend_from_slice(&client_frame(0x8a, ping));
                    })?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the connection that publishes"),
            }
        }
        self.flush()
    }

    /// What the server answered so far.
    pub(crate) const fn tally(&self) -> Tally {
        self.tally
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the connection that publishes"),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }
}

/// The WebSocket's handshake, and what already came after it.
fn upgrade(socket: &mut std::net::TcpStream, target: &Target) -> io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(HANDSHAKE))?;
    socket.write_all(upgrade_request(target, false).as_bytes())?;
    let (mut head, mut input) = (Vec::new(), [0; 4_096]);
    loop {
        let length = socket.read(&mut input)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&input[..length]);
        if let Some(end) = memchr::memmem::find(&head, b"\r\n\r\n") {
            accepted(Scheme::WebSocket, &head)?;
            return Ok(head.split_off(end + 4));
        }
    }
}

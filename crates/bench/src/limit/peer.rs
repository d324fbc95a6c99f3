//! One connection of the bare loop.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use super::request::{self, Request};

/// Bytes that may wait for a peer that does not read; then it is dropped.
const MAX_WAITING: usize = 16 << 20;

/// What a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It sends requests; publishers remain so.
    Asking,
    /// It receives WebSocket frames.
    WebSocket,
    /// It receives an event stream.
    Sse,
}

/// One connection.
pub(super) struct Peer {
    socket: TcpStream,
    pub(super) role: Role,
    /// The number of its channel, if it is a subscriber.
    pub(super) channel: usize,
    /// Requests that are not whole yet.
    input: Vec<u8>,
    /// What the socket did not take.
    waiting: Vec<u8>,
}

impl Peer {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            role: Role::Asking,
            channel: usize::MAX,
            input: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Reads all there is. Of a subscriber nothing is kept: its frames go back as they came.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => match self.role {
                    Role::Asking => self.input.extend_from_slice(&scratch[..length]),
                    Role::WebSocket => self.echo(&mut scratch[..length])?,
                    Role::Sse => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next whole request.
    pub(super) fn request(&mut self) -> io::Result<Option<Request>> {
        if self.role != Role::Asking || self.input.is_empty() {
            return Ok(None);
        }
        let found = request::parse(&self.input)?;
        Ok(found.map(|(request, used)| {
            self.input.drain(..used);
            request
        }))
    }

    /// Sends at once; what the socket does not take waits until it takes more.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = if self.waiting.is_empty() { self.write(bytes)? } else { 0 };
        if taken < bytes.len() {
            self.waiting.extend_from_slice(&bytes[taken..]);
            if self.waiting.len() > MAX_WAITING {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
        }
        Ok(())
    }

    /// One frame of the load generator back to it, which masks with zeros and writes each frame by
    /// itself: it comes in one piece.
    fn echo(&mut self, frame: &mut [u8]) -> io::Result<()> {
        const TEXT: u8 = 0x81;
        let header = match frame {
            [TEXT, second, ..] if *second & 0x7f < 126 => 2,
            [TEXT, second, ..] if *second & 0x7f == 126 => 4,
            _ => return Ok(()),
        };
        // The header moves over the mask.
        frame[1] &= 0x7f;
        if frame.len() < header + 4 {
            return Ok(());
        }
        frame.copy_within(..header, 4);
        self.send(&frame[4..])
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.socket.write(&self.waiting) {
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.socket.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            other => other,
        }
    }
}

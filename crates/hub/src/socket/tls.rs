//! A socket with TLS on it, the server's end: the handshake in steps, then reads and writes that
//! never wait.
//!
//! What is encrypted is handed to the kernel at once; what that has no room for is kept, at most
//! [`KEPT_BYTES`] and a little, and nothing more is encrypted before it is gone: so what waits for a
//! slow client waits in its outbox, where it is counted and bounded. Those are counted, too
//! ([`crate::Lane::waiting`]).

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{ServerConfig, ServerConnection};
use tokio::net::TcpStream;

/// Encrypted at a time: two records of the largest size.
const KEPT_BYTES: usize = 32 << 10;
/// So often the kernel is read from before others get the thread, though nothing has come of it: a
/// record of the largest size comes in five parts, and there are such as hold nothing.
const PULLS: usize = 16;

/// A socket with TLS on it.
#[derive(Debug)]
pub struct TlsSocket {
    tcp: TcpStream,
    tls: RefCell<ServerConnection>,
    /// The last read filled its buffer: more may be there, decrypted.
    more: Cell<bool>,
}

impl TlsSocket {
    /// Begins with a handshake.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut tls = ServerConnection::new(config)?;
        tls.set_buffer_limit(Some(KEPT_BYTES));
        Ok(Self { tcp, tls: RefCell::new(tls), more: Cell::new(false) })
    }

    /// Does what can be done of the handshake without waiting; true when it is done.
    ///
    /// # Errors
    /// When the client is gone, or what it said is refused: it has been told why, if it took it.
    pub fn shake(&self) -> io::Result<bool> {
        let mut tls = self.tls.borrow_mut();
        loop {
            let written = self.push(&mut tls)?;
            if !tls.is_handshaking() {
                return Ok(true);
            }
            if !written {
                return Ok(false);
            }
            match self.pull(&mut tls) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Ready when [`TlsSocket::shake`] can go on.
    ///
    /// # Errors
    /// When the event queue is gone.
    pub fn poll_shakeable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.borrow().wants_write() {
            return self.tcp.poll_write_ready(cx);
        }
        self.tcp.poll_read_ready(cx)
    }

    /// Ready when there is something to read, the end or an error: to be asked after the handshake, until
    /// the client has spoken. What its TLS says for itself is no word of it.
    pub fn poll_spoken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut tls = self.tls.borrow_mut();
        for _ in 0..PULLS {
            // Its first words may have come with the end of the handshake.
            match tls.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                _ => return Poll::Ready(()),
            }
            match self.pull(&mut tls) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if ready!(self.tcp.poll_read_ready(cx)).is_err() {
                        return Poll::Ready(());
                    }
                }
                Err(_) | Ok(0) => return Poll::Ready(()),
                // What cannot be written now goes with what is written next.
                Ok(_) => drop(self.push(&mut tls)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether client and server agreed on this protocol (ALPN).
    #[must_use]
    pub fn speaks(&self, protocol: &[u8]) -> bool {
        self.tls.borrow().alpn_protocol() == Some(protocol)
    }

    pub(super) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(super) const fn holds_plaintext(&self) -> bool {
        self.more.get()
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        self.more.set(false);
        for _ in 0..PULLS {
            match tls.reader().read(buffer) {
                Ok(n) => {
                    self.more.set(n == buffer.len() && n > 0);
                    return Ok(n);
                }
                // Closed without a word. What came is whole all the same: requests and frames say
                // how long they are.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            self.pull(&mut tls)?;
            // An answer to the TLS layer itself, such as a change of keys.
            self.push(&mut tls)?;
        }
        // Others get the thread; the socket is still ready.
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub(super) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut tls = self.tls.borrow_mut();
        if !self.push(&mut tls)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = match slices {
            [one] => tls.writer().write(one)?,
            many => tls.writer().write_vectored(many)?,
        };
        self.push(&mut tls)?;
        Ok(taken)
    }

    pub(super) fn try_flush(&self) -> io::Result<bool> {
        self.push(&mut self.tls.borrow_mut())
    }

    /// Tells the client that this is the end and no cut (`close_notify`), if its socket takes it.
    pub(super) fn say_goodbye(&self) {
        let mut tls = self.tls.borrow_mut();
        tls.send_close_notify();
        let _ = self.push(&mut tls);
    }

    /// Bytes that are encrypted and for which the kernel has no room yet.
    pub(super) fn kept(&self) -> usize {
        let mut tls = self.tls.borrow_mut();
        // Asked for nothing new, it tells how things are.
        if tls.wants_write() {
            return tls.process_new_packets().map_or(0, |state| state.tls_bytes_to_write());
        }
        0
    }

    /// Reads once from the kernel and decrypts; 0 is the end.
    fn pull(&self, tls: &mut ServerConnection) -> io::Result<usize> {
        let read = tls.read_tls(&mut Wire(&self.tcp))?;
        if let Err(error) = tls.process_new_packets() {
            // The alert that says why; the client may be gone.
            let _ = self.push(tls);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(read)
    }

    /// Hands what is encrypted to the kernel. False when it has no room for all of it.
    fn push(&self, tls: &mut ServerConnection) -> io::Result<bool> {
        while tls.wants_write() {
            match tls.write_tls(&mut Wire(&self.tcp)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Whoever lets it go, the client is told that this is the end (RFC 8446, section 6.1): without waiting, and
/// not if it has been told already, or why the connection failed.
impl Drop for TlsSocket {
    fn drop(&mut self) {
        if !self.tls.get_mut().is_handshaking() {
            self.say_goodbye();
        }
    }
}

/// The kernel's side, as rustls wants it: it never waits.
struct Wire<'a>(&'a TcpStream);

impl io::Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

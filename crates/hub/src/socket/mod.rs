//! The socket of a client, bare or with TLS on it.
//!
//! A lane writes to it without waiting, as to a [`TcpStream`]; hyper reads and writes it as a stream
//! until a session takes it over. Who accepts and who closes it is the gateway's to decide.

mod tls;

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub use tls::TlsSocket;

/// A client's socket. Used on one thread.
#[derive(Debug)]
pub enum Socket {
    /// The bytes are what is on the wire.
    Plain(TcpStream),
    /// They are encrypted. Boxed, so that a bare socket does not pay for it.
    Tls(Box<TlsSocket>),
}

impl Socket {
    /// What is below.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }

    /// Ready when there is something to read, or the end.
    ///
    /// # Errors
    /// When the event queue is gone.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) if tls.holds_plaintext() => Poll::Ready(Ok(())),
            _ => self.tcp().poll_read_ready(cx),
        }
    }

    /// Reads what has come; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has; else the connection is of no more use.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_read(buffer),
            Self::Tls(tls) => tls.try_read(buffer),
        }
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; else the connection is of no more use.
    pub fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Plain(tcp), [one]) => tcp.try_write(one),
            (Self::Plain(tcp), many) => tcp.try_write_vectored(many),
            (Self::Tls(tls), slices) => tls.try_write(slices),
        }
    }

    /// Ready when the kernel has room again after [`Socket::try_write`] or [`Socket::try_flush`]
    /// had none.
    ///
    /// # Errors
    /// When the event queue is gone.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_write_ready(cx)
    }

    /// Hands to the kernel what was encrypted and had no room. False when some of it still has none.
    ///
    /// # Errors
    /// When the connection is of no more use.
    pub fn try_flush(&self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.try_flush(),
        }
    }

    /// Bytes that it has taken and holds until the kernel has room for them.
    #[must_use]
    pub fn kept(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(tls) => tls.kept(),
        }
    }

    /// Says that nothing more will be written. It fails only when there is no connection any more,
    /// which the caller need not know.
    pub fn shut_down(&self) {
        if let Self::Tls(tls) = self {
            tls.say_goodbye();
        }
        let _ = socket_of(self.tcp()).shutdown(Shutdown::Write);
    }
}

fn socket_of(tcp: &TcpStream) -> socket2::SockRef<'_> {
    socket2::SockRef::from(tcp)
}

/// As hyper reads it.
impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Self::Plain(tcp) = this {
            return Pin::new(tcp).poll_read(cx, buffer);
        }
        loop {
            match this.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(n) => {
                    buffer.advance(n);
                    return Poll::Ready(Ok(()));
                }
            }
            ready!(this.poll_read_ready(cx))?;
        }
    }
}

/// As hyper writes it.
impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(_) => this.poll_write_slices(cx, &[IoSlice::new(bytes)]),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Tls(_) => this.poll_write_slices(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.try_flush()? {
            ready!(this.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut *this).poll_flush(cx))?;
        this.shut_down();
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    fn poll_write_slices(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(slices) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(self.poll_write_ready(cx))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_socket_costs_nothing_more() {
        assert_eq!(size_of::<Socket>(), size_of::<TcpStream>());
    }
}

//! The bytes to and from Redis, bare or with TLS around them.
//!
//! A bare connection is read and written by its own halves, without a lock between them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_rustls::client::TlsStream;

use crate::settings::{Settings, Target, keepalive};
use crate::tls;
use crate::wire::ConnectError;

/// A connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects. The caller sets the time.
    pub(crate) async fn open(target: &Target, settings: &Settings) -> Result<Self, ConnectError> {
        let to = || format!("{}:{}", target.host, target.port);
        let failed = |error| ConnectError::Tcp(to(), error);
        let tcp = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(failed)?;
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(&tcp);
        socket.set_tcp_keepalive(&keepalive())?;
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(settings.echo_timeout))?;
        let Some(tls) = &target.tls else { return Ok(Self::Plain(tcp)) };
        let stream = tls.connector.connect(tls.name.clone(), tcp).await;
        let stream = stream.map_err(|error| ConnectError::Tls(to(), tls::reason(&error)))?;
        Ok(Self::Tls(Box::new(stream)))
    }

    pub(crate) fn split(self) -> (Input, Output) {
        match self {
            Self::Plain(tcp) => {
                let (input, output) = tcp.into_split();
                (Input::Plain(input), Output::Plain(output))
            }
            Self::Tls(stream) => {
                let (input, half) = tokio::io::split(stream);
                (Input::Tls(input), Output::Tls { half, held: false })
            }
        }
    }
}

/// What comes from Redis.
pub(crate) enum Input {
    Plain(OwnedReadHalf),
    Tls(ReadHalf<Box<TlsStream<TcpStream>>>),
}

impl Input {
    /// Reads what has come, at least one byte. Can be cancelled without loss.
    pub(crate) async fn read(&mut self, space: &mut BytesMut) -> io::Result<usize> {
        let read = match self {
            Self::Plain(half) => half.read_buf(space).await,
            Self::Tls(half) => half.read_buf(space).await,
        };
        let end = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server");
        match read {
            Ok(0) => Err(end()),
            // Over TLS it should have said so, which it need not when it is killed.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(end()),
            read => read,
        }
    }
}

/// What goes to Redis.
pub(crate) enum Output {
    Plain(OwnedWriteHalf),
    Tls {
        half: WriteHalf<Box<TlsStream<TcpStream>>>,
        /// Some of what was written may be encrypted and not handed to the kernel.
        held: bool,
    },
}

impl Output {
    /// Writes some of what is to be written; waits for ever when that is nothing. Can be cancelled
    /// without loss: what is gone from the buffer may reach Redis.
    pub(crate) async fn write(&mut self, out: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(half) if !out.is_empty() => half.write_buf(out).await,
            Self::Tls { half, held } if !out.is_empty() => {
                *held = true;
                // It writes record by record; when one fails those before it may be at Redis, and how
                // many nobody says. So all of it may be, and that the link is broken shows next.
                Ok(half.write_buf(out).await.unwrap_or_else(|_| std::mem::take(out).len()))
            }
            Self::Tls { half, held } if *held => {
                half.flush().await?;
                *held = false;
                Ok(0)
            }
            _ => std::future::pending().await,
        }
    }

    /// Writes everything.
    pub(crate) async fn write_all(&mut self, mut out: BytesMut) -> io::Result<()> {
        while !out.is_empty() || matches!(self, Self::Tls { held: true, .. }) {
            self.write(&mut out).await?;
        }
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

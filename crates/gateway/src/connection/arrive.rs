//! From an accepted socket to one whose client has spoken: its handshake, if there is TLS, and
//! which HTTP it speaks.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use tidewire_hub::{Socket, TlsSocket};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Connection, see_off};
use crate::admission::Turn;
use crate::metrics::Refusal;

/// The longest pause between two looks at a socket's first bytes.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// For who speaks HTTP where HTTPS is spoken.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: application/problem+json\r\ncontent-length: 104\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"status\":400,\"code\":\"bad_request\",\"detail\":\"this port speaks HTTPS; use https://\"}";

/// A socket that is to be served now.
pub(super) struct Arrived {
    pub(super) socket: Socket,
    pub(super) is_http2: bool,
    pub(super) turn: Turn,
}

impl Connection {
    /// Waits until the client has spoken. It has its turn; while there is nothing to do for it, it
    /// gives it back, and takes another when there is.
    pub(super) async fn arrive(&self, tcp: TcpStream, turn: Turn) -> Result<Arrived, Refusal> {
        let mut turn = Some(turn);
        let (socket, is_http2) = match &self.app.settings.tls {
            // Boxed: others need not have room for it.
            Some(tls) => Box::pin(self.shake_hands(tcp, tls.config(), &mut turn)).await?,
            None => {
                let first = first_bytes(&tcp, self.app.settings.head_timeout);
                let is_http2 = without_turn(&mut turn, first).await.ok_or(Refusal::HeadTimeout)?;
                (Socket::Plain(tcp), is_http2)
            }
        };
        let turn = self.turn(turn).await;
        Ok(Arrived { socket, is_http2, turn })
    }

    /// The handshake of TLS, and the wait for the client's first word: what waits here costs TLS's own
    /// memory and no more. All that the client keeps the node waiting has an end; that others come first is
    /// not counted.
    async fn shake_hands(
        &self,
        tcp: TcpStream,
        config: Arc<ServerConfig>,
        turn: &mut Option<Turn>,
    ) -> Result<(Socket, bool), Refusal> {
        let deadline = Instant::now() + self.app.settings.head_timeout;
        let late = |_| Refusal::TlsTimeout;
        let spoken = timeout_at(deadline, async {
            let mut first = [0];
            tcp.peek(&mut first).await.is_ok_and(|n| n > 0).then_some(first[0])
        });
        let first = without_turn(turn, spoken).await.map_err(late)?;
        if first.is_some_and(|byte| byte.is_ascii_uppercase()) {
            *turn = None;
            // Best effort: a fresh socket's buffer takes it.
            let _ = tcp.try_write(NO_TLS);
            see_off(&self.lane, &Socket::Plain(tcp)).await;
            return Err(Refusal::Tls);
        }
        let failed = |error: &dyn std::fmt::Display| {
            tracing::debug!(peer = %self.peer, %error, "no TLS handshake");
            Refusal::Tls
        };
        let tls = TlsSocket::new(tcp, config).map_err(|error| failed(&error))?;
        loop {
            *turn = Some(self.turn(turn.take()).await);
            match tls.shake() {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    *turn = None;
                    // It has been told why; that is not to be taken back.
                    see_off(&self.lane, &Socket::Tls(Box::new(tls))).await;
                    return Err(failed(&error));
                }
            }
            let more = timeout_at(deadline, poll_fn(|cx| tls.poll_shakeable(cx)));
            without_turn(turn, more).await.map_err(late)?.map_err(|error| failed(&error))?;
        }
        let first = timeout(self.app.settings.head_timeout, poll_fn(|cx| tls.poll_spoken(cx)));
        // What is wrong with the socket shows itself when it is read.
        without_turn(turn, first).await.map_err(|_| Refusal::HeadTimeout)?;
        let is_http2 = tls.speaks(b"h2");
        Ok((Socket::Tls(Box::new(tls)), is_http2))
    }

    async fn turn(&self, turn: Option<Turn>) -> Turn {
        match turn {
            Some(turn) => turn,
            None => self.app.admission.turn().await,
        }
    }
}

/// Gives the turn back if there is something to wait for.
async fn without_turn<F: Future>(turn: &mut Option<Turn>, wait: F) -> F::Output {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        let polled = wait.as_mut().poll(cx);
        if matches!(polled, Poll::Pending) {
            *turn = None;
        }
        polled
    })
    .await
}

/// Whether a connection begins as HTTP/2 with prior knowledge (RFC 9113, section 3.3); `None` when
/// nothing comes in time. No method of HTTP/1 begins like its preface.
async fn first_bytes(socket: &TcpStream, time: Duration) -> Option<bool> {
    const PREFACE: &[u8; 3] = b"PRI";
    let peeked = timeout(time, async {
        let mut first = [0; PREFACE.len()];
        let mut pause = Duration::from_millis(5);
        loop {
            match socket.peek(&mut first).await {
                Ok(0) | Err(_) => return Some(false),
                Ok(n) if first[..n] != PREFACE[..n] => return Some(false),
                Ok(n) if n == PREFACE.len() => return Some(true),
                // One or two bytes of it: the rest is on its way, and peeking does not wait.
                Ok(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    });
    peeked.await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::NO_TLS;

    #[test]
    fn the_answer_without_tls_has_the_length_it_says() {
        let text = std::str::from_utf8(NO_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}

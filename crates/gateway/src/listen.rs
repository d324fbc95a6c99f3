//! The accept loop.
//!
//! It takes sockets from the listener and hands each to a lane, in turn; no more of them than the
//! lanes are able to work on ([`crate::admission`]): the others wait in the kernel. It never ends by itself:
//! what goes wrong with one socket is that socket's, and when the system has no more file handles
//! it waits until some are free.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use socket2::{SockRef, TcpKeepalive};
use tidewire_hub::LaneHandle;
use tokio::net::{TcpListener, TcpStream};

use crate::admission::Turn;
use crate::app::{App, Place};
use crate::connection::Connection;
use crate::metrics::{Limit, Refusal};
use crate::refuse::Refuser;

/// Wait after the system gave no socket: long enough to burn nothing, short enough to be unnoticed.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);
/// At most one line about it in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Unacknowledged bytes for so long mean that the peer is gone (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that says nothing is probed after so long.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n\
    content-type: application/problem+json\r\ncontent-length: 94\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"status\":503,\"code\":\"too_many\",\"detail\":\"this node's connections: full\"}";
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 5\r\n\
    content-type: application/problem+json\r\ncontent-length: 98\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"status\":429,\"code\":\"too_many\",\"detail\":\"connections of this address: full\"}";

const TOO_FAST: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n\
    content-type: application/problem+json\r\ncontent-length: 102\r\nconnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"status\":429,\"code\":\"too_fast\",\"detail\":\"new connections of this address: full\"}";

/// Accepts for ever.
pub(crate) async fn accept(
    listener: TcpListener,
    app: Arc<App>,
    lanes: Vec<LaneHandle>,
    router: Router,
) {
    let refuser = Refuser::new(app.clone());
    let mut next = lanes.iter().cycle();
    let mut logged = None;
    loop {
        let (socket, peer) = match accept_one(&listener).await {
            Ok(accepted) => accepted,
            Err(error) => {
                app.metrics.refused(Refusal::Accept);
                if logged.is_none_or(|at: Instant| at.elapsed() > LOG_INTERVAL) {
                    logged = Some(Instant::now());
                    tracing::warn!(%error, "no socket accepted");
                }
                tokio::time::sleep(OUT_OF_SOCKETS).await;
                continue;
            }
        };
        if !app.may_shake_hands(peer) {
            app.metrics.refused(Refusal::Limit);
            refuser.refuse(socket, TOO_FAST);
            continue;
        }
        let Ok(address) = app.addresses.of_peer(peer) else {
            app.metrics.refused(Refusal::Limit);
            app.metrics.limited(Limit::ConnectionsPerAddress);
            refuser.refuse(socket, TOO_MANY);
            continue;
        };
        let Some(place) = app.place(address) else {
            app.metrics.refused(Refusal::Limit);
            app.metrics.limited(Limit::Connections);
            refuser.refuse(socket, FULL);
            continue;
        };
        let turn = app.admission.turn().await;
        if let Some(lane) = next.next() {
            hand_to_lane(lane, (socket, peer), place, turn, &app, &router);
        }
    }
}

/// The next socket. Errors of one connection that broke while it waited are passed over
/// (accept(2), "Error handling").
async fn accept_one(listener: &TcpListener) -> io::Result<(std::net::TcpStream, IpAddr)> {
    loop {
        match listener.accept().await {
            // Registered here for accepting only; the lane registers it with its own event queue.
            Ok((socket, peer)) => return Ok((socket.into_std()?, peer.ip())),
            Err(error) if is_the_peers(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

fn hand_to_lane(
    lane: &LaneHandle,
    (socket, peer): (std::net::TcpStream, IpAddr),
    place: Place,
    turn: Turn,
    app: &Arc<App>,
    router: &Router,
) {
    let (app, router) = (app.clone(), router.clone());
    lane.run(move |lane| {
        let socket = match prepare(socket) {
            Ok(socket) => socket,
            // It broke between the two threads.
            Err(error) => return tracing::debug!(%error, "a socket that cannot be used"),
        };
        let connection = Connection { app, lane: lane.clone(), router, peer };
        tokio::task::spawn_local(connection.serve(socket, place, turn));
    });
}

/// Sets the socket's options and registers it with the lane's event queue.
fn prepare(socket: std::net::TcpStream) -> io::Result<TcpStream> {
    let options = SockRef::from(&socket);
    options.set_tcp_nodelay(true)?;
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))?;
    TcpStream::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::{FULL, TOO_FAST, TOO_MANY};

    #[test]
    fn the_answer_to_one_too_many_has_the_length_it_says() {
        for answer in [FULL, TOO_FAST, TOO_MANY] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(
                head.contains(&format!("content-length: {}\r\n", body.len())),
                "{}",
                body.len()
            );
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
        }
    }
}

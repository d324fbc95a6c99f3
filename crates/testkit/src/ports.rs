//! Ports for servers that cannot tell which one the system chose.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// What this process has taken, each until it ends: a server that is started again finds its port.
static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that is free now and that no other call gives, in this process or in
/// another test's, as long as this process lives. It lies below the range from which the system
/// takes the ports of outgoing connections, so that none of those takes it while a server restarts.
///
/// # Panics
/// When hardly any port is free.
#[must_use]
pub fn free_port() -> u16 {
    (0..1_000)
        .map(|_| fastrand::u16(10_000..32_000))
        .find(|port| is_free(*port) && take(*port))
        .expect("no free port after 1,000 tries")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A server binds its port only later: until then a name that the system gives once stands for it,
/// and vanishes with the process (unix(7), abstract sockets).
fn take(port: u16) -> bool {
    let name = SocketAddr::from_abstract_name(format!("tidewire-test-port-{port}"));
    match name.and_then(|name| UnixListener::bind_addr(&name)) {
        Ok(taken) => {
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
            true
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let port = free_port();
        assert!(is_free(port));
        assert!(!take(port));
    }
}

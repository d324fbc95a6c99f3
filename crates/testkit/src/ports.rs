//! Ports for servers that cannot tell which one the system chose.

use std::net::{Ipv4Addr, TcpListener};

/// A port on 127.0.0.1 that is free now. It lies below the range from which the system takes the
/// ports of outgoing connections, so that none of those takes it while a server restarts.
///
/// # Panics
/// When hardly any port is free.
#[must_use]
pub fn free_port() -> u16 {
    (0..1_000)
        .map(|_| fastrand::u16(10_000..32_000))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("no free port after 1,000 tries")
}

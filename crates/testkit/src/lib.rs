//! Real things for tests: a Redis server, gateway processes, a proxy that breaks connections, and
//! plain clients that share no code with the gateway.
//!
//! Tests of every crate call it; nothing that is shipped may. It panics where a test would fail
//! anyway, and waits for nothing longer than [`PATIENCE`].

// This is test code that lives in a library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod authority;
mod gateway;
pub mod http;
mod leash;
mod ports;
mod proxy;
mod redis;
pub mod sse;
mod tunnel;
pub mod websocket;

use std::time::Duration;

pub use authority::{Authority, Certificate};
pub use gateway::{Gateway, GatewayBuilder};
pub use ports::free_port;
pub use proxy::{Direction, Proxy};
pub use redis::{RedisServer, Reply};
pub use tunnel::{Tunnel, connect_tls};

/// How long any step may take. Long enough for a busy machine; only a step that fails takes it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The time between two looks at something that cannot be waited for.
const GLANCE: Duration = Duration::from_millis(5);

/// Waits until the future is done.
///
/// # Panics
/// When that takes longer than [`PATIENCE`].
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Waits until the condition holds, for what tells of no change by itself (metrics, readiness).
///
/// # Panics
/// When that takes longer than [`PATIENCE`].
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(GLANCE).await;
        }
    })
    .await;
}

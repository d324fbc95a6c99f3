//! Connections: from the accepted socket to the session that the hub writes to.
//!
//! `listen` accepts and hands sockets to the lanes; on its lane a connection speaks HTTP
//! (`connection`, `http`) until a WebSocket or an event stream takes the socket over (`takeover`);
//! from then on it is a `session`. The binary starts it; it reads no configuration file.

mod address;
mod admission;
mod allowance;
mod app;
mod asking;
mod auth;
mod connection;
pub mod files;
mod gateway;
mod history;
mod hooks;
mod http;
mod jwks;
mod listen;
mod metrics;
mod origin;
mod outgoing;
mod pressure;
mod publish;
mod rates;
mod refuse;
mod seldom;
mod session;
mod settings;
mod sharing;
mod takeover;
mod tls;
mod users;

pub use address::{AddressLimits, AddressRate, ForwardedHeader};
pub use gateway::{Gateway, StartError};
pub use hooks::{HookSecret, HookSettings};
pub use jwks::JwksSettings;
pub use origin::{Origins, is_local};
pub use settings::Settings;
pub use tls::{CertificateError, Certificates};

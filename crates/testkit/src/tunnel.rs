//! A tunnel that speaks TLS towards a server, so that every plain client can be used with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Bytes that it holds of a connection in each direction: a client that does not read is to be
/// felt by the server.
const HELD_BYTES: usize = 4 << 10;

/// A port of 127.0.0.1; what comes there goes to the server over TLS. Open connections end with it.
pub struct Tunnel {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Starts one in front of the server, whose certificate must be of this authority (PEM) and for
    /// `localhost`. `alpn` is what it offers, such as `["h2"]`; nothing is offered if it is empty.
    ///
    /// # Panics
    /// When it cannot listen, or the file is no certificate.
    pub async fn start(server: SocketAddr, authority: &Path, alpn: &[&str]) -> Self {
        let connector = TlsConnector::from(Arc::new(config(authority, alpn)));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(pass_on(client, server, connector.clone()));
            }
        });
        Self { addr, task }
    }

    /// Where plain clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// A connection of the test's own that speaks TLS, with what it offers by ALPN. It ends with an error, and
/// not with the end of the stream, if the server closes it without saying so in TLS.
///
/// # Panics
/// When it cannot be had.
pub async fn connect_tls(
    server: SocketAddr,
    authority: &Path,
    alpn: &[&str],
) -> impl AsyncRead + AsyncWrite + Unpin + Send + use<> {
    let connector = TlsConnector::from(Arc::new(config(authority, alpn)));
    crate::soon("a handshake", shake_hands(server, &connector)).await.expect("a handshake")
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(authority: &Path, alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("a certificate")).expect("a root");
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn pass_on(mut client: TcpStream, server: SocketAddr, connector: TlsConnector) {
    let Ok(mut tls) = shake_hands(server, &connector).await else { return };
    let _ = client.set_nodelay(true);
    // How a connection ends is the client's to see.
    let _ = copy_bidirectional_with_sizes(&mut client, &mut tls, HELD_BYTES, HELD_BYTES).await;
}

async fn shake_hands(
    server: SocketAddr,
    connector: &TlsConnector,
) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(HELD_BYTES as u32)?;
    let tcp = socket.connect(server).await?;
    tcp.set_nodelay(true)?;
    connector.connect(ServerName::try_from("localhost").expect("a name"), tcp).await
}

//! What an outbox over TLS keeps for a client that does not read: all of it counts.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tidewire_hub::{Form, Frames, Outbox, OutboxLimits, Sink, Socket, TlsSocket};
use tidewire_testkit::{Authority, connect_tls, soon};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

const LIMITS: OutboxLimits = OutboxLimits { bytes: 1 << 20, messages: 1_000 };

fn config(authority: &Authority) -> Arc<ServerConfig> {
    let files = authority.issue("a");
    let certificate = CertificateDer::from_pem_file(files.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(files.key).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

async fn accept(listener: &TcpListener, config: Arc<ServerConfig>) -> TlsSocket {
    let tcp = listener.accept().await.unwrap().0;
    // A small buffer of the kernel's is soon full.
    socket2::SockRef::from(&tcp).set_send_buffer_size(4 << 10).unwrap();
    let tls = TlsSocket::new(tcp, config).unwrap();
    while !tls.shake().unwrap() {
        poll_fn(|cx| tls.poll_shakeable(cx)).await.unwrap();
    }
    tls
}

#[tokio::test]
async fn what_is_encrypted_and_not_taken_counts() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, trusted) = (listener.local_addr().unwrap(), authority.certificate());
    let (tls, mut client) =
        tokio::join!(accept(&listener, config(&authority)), connect_tls(at, &trusted, &[]));
    let sink = Sink::Socket(Socket::Tls(Box::new(tls)));
    let outbox = Outbox::new(sink, Form::WebSocket(Frames::default()), LIMITS, false);
    assert_eq!(outbox.waits(), 0);
    let chunk = Bytes::from(vec![7; 10_000]);
    let mut sent = 0;
    // Until the kernel has no room and rustls takes no more.
    while outbox.progress().waiting == 0 {
        outbox.send(&chunk, 1);
        sent += 1;
        assert!(sent < 10_000, "the kernel takes everything");
    }
    let encrypted = outbox.waits() - outbox.progress().waiting;
    // Two records of the largest size at most, and what a record has around it.
    assert!((1..=(32 << 10) + 1_024).contains(&encrypted), "{encrypted}");
    // Once the client reads, nothing is kept.
    let mut got = vec![0; sent * chunk.len()];
    let write = poll_fn(|cx| outbox.poll_drained(cx));
    let (_, read) =
        soon("all of it", async { tokio::join!(write, client.read_exact(&mut got)) }).await;
    read.unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
    assert_eq!(outbox.waits(), 0);
}

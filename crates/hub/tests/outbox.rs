//! What a session's outbox does with a socket that takes everything, little, or nothing.

#![allow(clippy::unwrap_used)]

use std::future::poll_fn;

use bytes::Bytes;
use proptest::prelude::*;
use tidewire_hub::{Failure, Outbox, OutboxLimits, Sink};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const LIMITS: OutboxLimits = OutboxLimits { bytes: 64 << 10, messages: 100 };

/// Two ends of a connection whose kernel buffers are small.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let (client, accepted) =
        tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
    let server = accepted.unwrap().0;
    socket2::SockRef::from(&server).set_send_buffer_size(4_096).unwrap();
    (server, client.unwrap())
}

fn outbox(server: TcpStream, held: bool) -> Outbox {
    Outbox::new(Sink::Socket(server), LIMITS, held)
}

/// Sends until something waits.
fn fill(outbox: &Outbox, chunk: &Bytes) -> usize {
    let mut sent = 0;
    while outbox.progress().waiting == 0 {
        outbox.send(chunk, 1);
        sent += 1;
        assert!(sent < 100_000, "the kernel takes everything");
    }
    sent
}

#[tokio::test]
async fn an_idle_socket_is_written_to_at_once() {
    let (server, mut client) = pair().await;
    let outbox = outbox(server, false);
    outbox.send(&Bytes::from_static(b"hello"), 1);
    assert_eq!(outbox.progress().waiting, 0);
    let mut got = [0; 5];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn what_the_socket_does_not_take_waits_in_order() {
    let (server, mut client) = pair().await;
    let outbox = outbox(server, false);
    let mut expected = Vec::new();
    let mut n = 0_u32;
    while outbox.progress().waiting < 20_000 {
        let chunk = Bytes::from(n.to_be_bytes().repeat(128));
        expected.extend_from_slice(&chunk);
        outbox.send(&chunk, 1);
        n += 1;
    }
    assert_eq!(outbox.failure(), None);
    let mut got = vec![0; expected.len()];
    let write = poll_fn(|cx| outbox.poll_drained(cx));
    let (_, read) = tokio::join!(write, client.read_exact(&mut got));
    read.unwrap();
    assert_eq!(got, expected);
    assert_eq!(outbox.progress().waiting, 0);
}

#[tokio::test]
async fn beyond_its_limit_it_fails_as_slow_and_keeps_only_what_was_begun() {
    for chunk in [Bytes::from(vec![b'x'; 1_000]), Bytes::from(vec![b'x'; 40_000])] {
        let (server, mut client) = pair().await;
        let outbox = outbox(server, false);
        fill(&outbox, &chunk);
        while outbox.failure().is_none() {
            outbox.send(&chunk, 1);
        }
        assert_eq!(outbox.failure(), Some(Failure::Slow));
        assert!(outbox.dropped() > 0);
        assert!(outbox.progress().waiting < chunk.len());
        // Nothing is taken any more, but for the last words.
        outbox.send(&chunk, 1);
        outbox.send_last(&Bytes::from_static(b"the end"));
        let mut got = Vec::new();
        let write = async {
            poll_fn(|cx| outbox.poll_drained(cx)).await;
            drop(outbox);
        };
        let (_, read) = tokio::join!(write, client.read_to_end(&mut got));
        read.unwrap();
        let whole = got.strip_suffix(b"the end").unwrap();
        assert_eq!(whole.len() % chunk.len(), 0, "a chunk was cut");
    }
}

#[tokio::test]
async fn what_is_held_back_comes_behind_the_first_words() {
    let (server, mut client) = pair().await;
    let outbox = outbox(server, true);
    outbox.send(&Bytes::from_static(b"3"), 1);
    outbox.send_around(&Bytes::from_static(b"1"), 0);
    outbox.send(&Bytes::from_static(b"4"), 1);
    outbox.release(&Bytes::from_static(b"2"));
    outbox.send(&Bytes::from_static(b"5"), 1);
    let mut got = [0; 5];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"12345");
}

#[tokio::test]
async fn what_is_held_back_is_bounded_too() {
    let (server, _client) = pair().await;
    let outbox = outbox(server, true);
    for _ in 0..=100 {
        outbox.send(&Bytes::from_static(b"x"), 1);
    }
    assert_eq!(outbox.failure(), Some(Failure::Slow));
    assert_eq!(outbox.dropped(), 101);
}

#[tokio::test]
async fn a_client_that_is_gone_is_lost() {
    let (server, client) = pair().await;
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    let outbox = outbox(server, false);
    let failure = poll_fn(|cx| {
        outbox.send(&Bytes::from_static(b"x"), 1);
        cx.waker().wake_by_ref();
        outbox.poll(cx)
    });
    assert_eq!(failure.await, Failure::Lost);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever is sent in whatever sizes, with whatever is held and released in between, comes
    /// out whole and in order, or the outbox has failed.
    #[test]
    fn bytes_come_out_as_they_went_in(sizes in prop::collection::vec(1_usize..3_000, 1..80), release in 0_usize..80) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (server, mut client) = pair().await;
            let outbox = outbox(server, true);
            let mut expected = b"first".to_vec();
            let mut released = false;
            for (n, size) in sizes.iter().enumerate() {
                if n == release {
                    outbox.release(&Bytes::from_static(b"first"));
                    released = true;
                }
                let chunk = Bytes::from(vec![n as u8; *size]);
                expected.extend_from_slice(&chunk);
                outbox.send(&chunk, 1);
            }
            if !released {
                outbox.release(&Bytes::from_static(b"first"));
            }
            if outbox.failure().is_some() {
                return;
            }
            let mut got = vec![0; expected.len()];
            let (_, read) = tokio::join!(poll_fn(|cx| outbox.poll_drained(cx)), client.read_exact(&mut got));
            read.unwrap();
            assert_eq!(got, expected);
        });
    }
}

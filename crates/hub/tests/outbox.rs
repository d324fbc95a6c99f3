//! What a session's outbox does with a socket that takes everything, little, or nothing.

#![allow(clippy::unwrap_used)]

use std::future::poll_fn;

use bytes::Bytes;
use proptest::prelude::*;
use tidewire_hub::{Failure, Form, Frames, Gap, Outbox, OutboxLimits, Sink, Socket};
use tidewire_protocol::{Channel, Cursor, EntryId, Incarnation};
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
    Outbox::new(
        Sink::Socket(Socket::Plain(server)),
        Form::WebSocket(Frames::default()),
        LIMITS,
        held,
    )
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

/// An outbox whose bytes are fetched, with room for so many messages.
fn fetched(messages: usize) -> Outbox {
    let limits = OutboxLimits { bytes: 64 << 10, messages };
    Outbox::new(Sink::Fetched, Form::WebSocket(Frames::default()), limits, false)
}

fn take(outbox: &Outbox) -> Vec<String> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut all = Vec::new();
    while let std::task::Poll::Ready(Some(bytes)) = outbox.poll_next(&mut cx) {
        // Without the header of a short frame, if it is one.
        let text =
            String::from_utf8_lossy(&bytes[bytes.iter().take_while(|b| **b > 127).count()..]);
        let gap = text.find("{\"type\":\"gap\",\"channel\":\"");
        all.push(
            gap.map_or_else(|| text.to_string(), |at| format!("gap {}", &text[at + 25..at + 26])),
        );
    }
    all
}

#[test]
fn the_oldest_messages_that_may_go_make_room_and_a_gap_is_told_in_their_place() {
    let (a, b) = (Channel::new("a").unwrap(), Channel::new("b").unwrap());
    let outbox = fetched(4);
    let live =
        |n: &'static str, of| outbox.send_live(&Bytes::from_static(n.as_bytes()), 1, of, true);
    live("a1", &a);
    live("b1", &b);
    outbox.send(&Bytes::from_static(b"stored"), 1);
    live("a2", &a);
    live("a3", &a);
    assert_eq!((outbox.failure(), outbox.take_skipped()), (None, 1));
    live("b2", &b);
    live("a4", &a);
    live("b3", &b);
    assert_eq!((outbox.failure(), outbox.take_skipped()), (None, 3));
    assert_eq!(take(&outbox), ["gap a", "gap b", "stored", "b2", "a4", "b3"]);
    live("a5", &a);
    assert_eq!(take(&outbox), ["a5"]);
}

#[test]
fn a_reply_stands_between_two_gaps_of_a_channel() {
    let a = Channel::new("a").unwrap();
    let outbox = fetched(2);
    let live = |n: &'static str| outbox.send_live(&Bytes::from_static(n.as_bytes()), 1, &a, true);
    live("1");
    live("2");
    outbox.send(&Bytes::from_static(b"subscribed"), 0);
    live("3");
    live("4");
    live("5");
    assert_eq!(take(&outbox), ["gap a", "subscribed", "gap a", "4", "5"]);
}

#[test]
fn without_a_message_that_may_go_it_fails_as_slow() {
    let a = Channel::new("a").unwrap();
    for may_drop in [true, false] {
        let outbox = fetched(4);
        outbox.send_live(&Bytes::from_static(b"1"), 1, &a, may_drop);
        for _ in 0..4 {
            assert_eq!(outbox.failure(), None);
            outbox.send(&Bytes::from_static(b"x"), 1);
        }
        assert_eq!(outbox.failure().is_some(), !may_drop);
        outbox.send(&Bytes::from_static(b"x"), 1);
        assert_eq!(outbox.failure(), Some(Failure::Slow));
    }
}

#[tokio::test]
async fn a_chunk_that_was_begun_is_never_dropped() {
    let a = Channel::new("a").unwrap();
    let (server, mut client) = pair().await;
    let outbox = outbox(server, false);
    let chunk = |n: u32| Bytes::from(vec![(n % 100) as u8; 5_000]);
    let (mut sent, mut skipped) = (0, 0);
    while skipped < 10 {
        outbox.send_live(&chunk(sent), 1, &a, true);
        sent += 1;
        skipped += outbox.take_skipped();
        assert_eq!(outbox.failure(), None);
    }
    assert!(outbox.progress().waiting <= LIMITS.bytes);
    let mut got = Vec::new();
    let write = async {
        poll_fn(|cx| outbox.poll_drained(cx)).await;
        drop(outbox);
    };
    let (_, read) = tokio::join!(write, client.read_to_end(&mut got));
    read.unwrap();
    // Whole chunks in order, one gap, whole chunks in order.
    let at = got.windows(5).position(|bytes| bytes == b"\"gap\"").unwrap();
    let begin = got[..at].iter().rposition(|byte| *byte == 0x81).unwrap();
    let end = at + got[at..].iter().position(|byte| *byte == b'}').unwrap() + 1;
    let numbers = |bytes: &[u8]| -> Vec<u8> {
        assert_eq!(bytes.len() % 5_000, 0, "a chunk was cut");
        bytes.chunks(5_000).map(|chunk| chunk[0]).collect()
    };
    let (before, after) = (numbers(&got[..begin]), numbers(&got[end..]));
    let all: Vec<_> = (0..sent).map(|n| (n % 100) as u8).collect();
    assert!(all.starts_with(&before) && all.ends_with(&after), "{before:?} {after:?}");
    assert_eq!(before.len() + after.len() + 10, all.len());
}

fn place(channel: &Channel, ms: u64) -> Option<Cursor> {
    Some(Cursor::new(channel, Incarnation::new(7), EntryId { ms, seq: 0 }))
}

#[test]
fn gaps_that_adjoin_and_are_not_written_merge() {
    let (a, b) = (Channel::new("a").unwrap(), Channel::new("b").unwrap());
    for ids in [false, true] {
        let outbox = fetched(100);
        let tell = |of: &Channel, after, cursor| {
            let gap = Gap { after: place(of, after), cursor: place(of, cursor) };
            outbox.send_gap(of, gap, ids, |gap| {
                let ms = |place: Option<Cursor>| place.unwrap().id.ms;
                Bytes::from(format!("{of} {} {}", ms(gap.after), ms(gap.cursor)))
            });
        };
        tell(&a, 1, 2);
        outbox.send_around(&Bytes::from_static(b"ping"), 0);
        tell(&a, 2, 5);
        tell(&a, 5, 6);
        // A message of the channel lies between: its place moved.
        tell(&a, 7, 8);
        tell(&b, 1, 2);
        tell(&a, 8, 9);
        let waiting = outbox.progress().waiting;
        let got = take(&outbox);
        // Where ids name the places of both channels, b's would take a client past a's gap.
        let expected: &[_] = match ids {
            false => &["a 1 6", "ping", "a 7 9", "b 1 2"],
            true => &["a 1 6", "ping", "a 7 8", "b 1 2", "a 8 9"],
        };
        assert_eq!(got, expected);
        assert_eq!(waiting, got.iter().map(String::len).sum::<usize>());
        // What is written does not merge any more.
        tell(&a, 9, 10);
        assert_eq!(take(&outbox), ["a 9 10"]);
    }
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

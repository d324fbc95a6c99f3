//! A delivery allocates nothing: what a message costs in memory does not depend on how many it is for.

#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::poll_fn;
use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Recorder, Rig, channel};
use tidewire_broker::Events as _;
use tidewire_hub::{Form, Outbox, OutboxLimits, Sink, Socket, Start};
use tidewire_protocol::{Channel, SessionId, sse::Style};
use tokio::sync::mpsc;

/// The system's allocator, which counts how often it is asked.
struct Counting;

static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed on to the system's allocator as it came; the count touches no memory
// that it gives. There is no other way to see what allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: it came from `alloc` above, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Another subscriber of the channel, on a real socket; the client's end of it.
async fn subscriber(rig: &Rig, listener: &TcpListener, channel: &Channel) -> TcpStream {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let server = listener.accept().unwrap().0;
    server.set_nonblocking(true).unwrap();
    let channel = channel.clone();
    rig.on(0, move |lane| {
        let socket = Socket::Plain(tokio::net::TcpStream::from_std(server).unwrap());
        let limits = OutboxLimits { bytes: 1 << 20, messages: 1_024 };
        let form = Form::Sse(Style::Payload);
        let outbox = Outbox::new(Sink::Socket(socket), form, limits, false);
        let session = Rc::new(Recorder {
            id: SessionId::random(),
            outbox,
            told: mpsc::unbounded_channel().0,
        });
        lane.attach(session.clone());
        lane.subscribe(session.clone(), &channel, Start::Present, None);
        tokio::task::spawn_local(async move { poll_fn(|cx| session.outbox.poll(cx)).await });
    })
    .await;
    client
}

/// Reads until these bytes stand at the end.
fn read_until(client: &mut TcpStream, end: &[u8]) {
    let (mut got, mut length) = ([0; 1_024], 0);
    while !got[..length].ends_with(end) {
        let read = client.read(&mut got[length..]).unwrap();
        assert!(read > 0, "the stream has ended");
        length += read;
    }
}

/// How often memory is asked for while so many messages go to so many subscribers.
async fn asked(subscribers: usize, messages: u64) -> usize {
    let (rig, a) = (Rig::new(1, Duration::from_secs(5)), channel("a"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut clients = Vec::new();
    for _ in 0..subscribers {
        clients.push(subscriber(&rig, &listener, &a).await);
    }
    rig.hub().subscribed(&a);
    clients.iter_mut().for_each(|client| read_until(client, b"subscribed"));
    let mut before = 0;
    for n in 0..messages + 10 {
        // The first ones make what is kept for all that follow.
        if n == 10 {
            before = ASKED.load(Ordering::Relaxed);
        }
        rig.publish(&a, n);
        clients.iter_mut().for_each(|client| read_until(client, b"\n\n"));
    }
    ASKED.load(Ordering::Relaxed) - before
}

#[tokio::test]
async fn a_message_allocates_as_much_for_hundreds_as_for_a_few() {
    const MESSAGES: u64 = 50;
    let few = asked(5, MESSAGES).await;
    let many = asked(305, MESSAGES).await;
    assert!(few > 0, "nothing was counted");
    // The sweep and the metrics ask now and then; a delivery each would be 15,000 more.
    assert!(many < few + 300, "{few} times for 5 subscribers, {many} for 305");
}

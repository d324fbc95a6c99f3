//! A TCP proxy that breaks connections in the ways that networks do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::{GLANCE, free_port, soon, until};

/// A proxy on a port of 127.0.0.1 in front of a server.
pub struct Proxy {
    addr: SocketAddr,
    mode: watch::Sender<Mode>,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// A way that bytes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

#[derive(Clone, Copy, Default)]
struct Mode {
    cut: bool,
    slam: bool,
    stalled: [bool; 2],
    delay: Duration,
}

#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    open: AtomicUsize,
    listening: watch::Sender<bool>,
    /// By connection: what its client has sent, and how to put bytes between.
    taps: Mutex<Vec<Arc<Tap>>>,
}

struct Tap {
    sent: Mutex<Vec<u8>>,
    inject: mpsc::UnboundedSender<Vec<u8>>,
    swallow: Mutex<Vec<u8>>,
}

impl Proxy {
    /// Starts one in front of the target.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(target: SocketAddr) -> Self {
        // A port that the system gives to nobody while the proxy is cut.
        let mut ports = std::iter::repeat_with(free_port).take(10);
        let listener = ports.find_map(|port| listen((Ipv4Addr::LOCALHOST, port).into()).ok());
        let listener = listener.expect("a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let (mode, seen) = watch::channel(Mode::default());
        let shared = Arc::<Shared>::default();
        let task = tokio::spawn(accept(listener, target, seen, shared.clone()));
        Self { addr, mode, shared, task }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Resets all connections and refuses new ones; returns when that is done.
    pub async fn cut(&self) {
        self.mode.send_modify(|mode| mode.cut = true);
        let mut listening = self.shared.listening.subscribe();
        soon("the proxy's cut", listening.wait_for(|listening| !listening)).await.unwrap();
        until("the end of the proxy's connections", || self.open() == 0).await;
    }

    /// Resets the connections that are open, and goes on.
    pub async fn reset(&self) {
        self.cut().await;
        self.heal().await;
    }

    /// Resets all connections, and each new one as soon as it is taken.
    pub fn slam(&self) {
        self.mode.send_modify(|mode| mode.slam = true);
    }

    /// Lets bytes of one direction lie: connections stay open, and open, but nothing passes.
    pub fn stall(&self, direction: Direction) {
        self.mode.send_modify(|mode| mode.stalled[direction as usize] = true);
    }

    /// [`Proxy::stall`] in both directions.
    pub fn stall_all(&self) {
        self.stall(Direction::Up);
        self.stall(Direction::Down);
    }

    /// Holds each piece back for so long.
    pub fn delay(&self, time: Duration) {
        self.mode.send_modify(|mode| mode.delay = time);
    }

    /// Ends every fault; returns when new connections are taken.
    pub async fn heal(&self) {
        self.mode.send_replace(Mode::default());
        let mut listening = self.shared.listening.subscribe();
        soon("the proxy's healing", listening.wait_for(|listening| *listening)).await.unwrap();
    }

    /// How many connections were taken so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }

    /// Sends bytes to the server as if the client had, on the open connections whose client has
    /// sent `marker` before, and keeps the answer `swallow` (which must come in one piece) from the
    /// client. Returns on how many.
    ///
    /// # Panics
    /// When a thread panicked that used the proxy.
    pub fn inject(&self, marker: &[u8], bytes: &[u8], swallow: &[u8]) -> usize {
        let taps = self.shared.taps.lock().unwrap();
        let marked = taps.iter().filter(|tap| find(&tap.sent.lock().unwrap(), marker).is_some());
        marked
            .map(|tap| {
                *tap.swallow.lock().unwrap() = swallow.to_vec();
                tap.inject.send(bytes.to_vec())
            })
            .filter(Result::is_ok)
            .count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections' tasks see the mode's sender go.
        self.task.abort();
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it: a stall is felt after that much, not after the 32 MB to which
    // Linux would let the buffer grow.
    socket.set_recv_buffer_size(64 << 10)?;
    socket.bind(addr)?;
    socket.listen(1024)
}

/// Another test may look whether the port is free just now.
async fn listen_again(addr: SocketAddr) -> TcpListener {
    soon("the proxy's port again", async {
        loop {
            match listen(addr) {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(GLANCE).await,
            }
        }
    })
    .await
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    shared: Arc<Shared>,
) {
    let addr = listener.local_addr().expect("a bound socket has an address");
    let mut listener = Some(listener);
    loop {
        let cut = mode.borrow_and_update().cut;
        if cut {
            listener = None;
        } else if listener.is_none() {
            listener = Some(listen_again(addr).await);
        }
        shared.listening.send_replace(!cut);
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            Ok(client) = next(listener.as_ref()) => {
                shared.accepted.fetch_add(1, Ordering::Relaxed);
                shared.open.fetch_add(1, Ordering::Relaxed);
                let (mode, shared) = (mode.clone(), shared.clone());
                tokio::spawn(async move {
                    // How a connection fails is its ends' affair.
                    let _ = connection(client, target, mode, &shared).await;
                    shared.open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    }
}

async fn next(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

async fn connection(
    client: TcpStream,
    target: SocketAddr,
    mut mode: watch::Receiver<Mode>,
    shared: &Shared,
) -> io::Result<()> {
    // A close without this would be an orderly end, not a reset.
    client.set_zero_linger()?;
    if mode.borrow().slam {
        return Ok(());
    }
    client.set_nodelay(true)?;
    let server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    let (inject, injected) = mpsc::unbounded_channel();
    let tap = Arc::new(Tap { sent: Mutex::default(), inject, swallow: Mutex::default() });
    shared.taps.lock().unwrap().push(tap.clone());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump_up(from_client, to_server, mode.clone(), &tap, injected);
    let down = pump_down(from_server, to_client, mode.clone(), &tap);
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = mode.wait_for(|mode| mode.cut || mode.slam) => {}
    }
    shared.taps.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &tap));
    Ok(())
}

async fn pump_up(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    tap: &Tap,
    mut injected: mpsc::UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let bytes = tokio::select! {
            read = from.read(&mut buffer) => match read? {
                0 => return to.shutdown().await,
                n => buffer[..n].to_vec(),
            },
            Some(bytes) = injected.recv() => bytes,
        };
        tap.sent.lock().unwrap().extend_from_slice(&bytes);
        passable(&mut mode, Direction::Up).await?;
        to.write_all(&bytes).await?;
    }
}

async fn pump_down(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
    tap: &Tap,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut bytes = match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            n => buffer[..n].to_vec(),
        };
        {
            let mut swallow = tap.swallow.lock().unwrap();
            if let Some(at) = find(&bytes, &swallow) {
                bytes.drain(at..at + swallow.len());
                swallow.clear();
            }
        }
        passable(&mut mode, Direction::Down).await?;
        to.write_all(&bytes).await?;
    }
}

/// Waits until bytes may pass.
async fn passable(mode: &mut watch::Receiver<Mode>, direction: Direction) -> io::Result<()> {
    let delay = mode.borrow().delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let open = mode.wait_for(|mode| !mode.stalled[direction as usize]).await;
    open.map(|_| ()).map_err(|_| io::ErrorKind::ConnectionAborted.into())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    if what.is_empty() {
        return None;
    }
    bytes.windows(what.len()).position(|window| window == what)
}

//! A connection that speaks HTTP/2: what is open on it, and how long it may be idle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::IntoResponse as _;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidewire_hub::{Form, Lane, Socket, Unread};
use tidewire_protocol::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::body::{Answer, PIECE_BYTES};
use super::{Connection, MAX_HEAD_BYTES, WATCH, instead};
use crate::address::TooMany;
use crate::app::{App, Place};
use crate::http::{Problem, come_back};
use crate::metrics::{Limit, Refusal};

/// Streams of one HTTP/2 connection at a time.
const MAX_HTTP2_STREAMS: u32 = 128;
/// Of them, how many read something, history say: what a client does not read is held for it, up to
/// half an outbox each; the next ones wait.
const MAX_HTTP2_PAGES: usize = 2;
/// Streams that a client has opened and taken back before anybody saw them; with one more the connection ends
/// (CVE-2023-44487).
const MAX_RESETS: usize = 20;
/// How long an HTTP/2 client may take to leave after it was told to.
const GOAWAY: Duration = Duration::from_secs(5);

impl Connection {
    pub(super) async fn http2(self: Rc<Self>, socket: Socket, _place: Place) {
        let streams = Streams::new(&self.lane);
        let service = {
            let (this, streams) = (self.clone(), streams.clone());
            service_fn(move |request| this.clone().answer2(request, Open::new(&streams, &this.app)))
        };
        let settings = &self.app.settings;
        let mut connection = pin!(
            http2::Builder::new(OnLane)
                .timer(TokioTimer::new())
                .keep_alive_interval(settings.websocket_heartbeat)
                .keep_alive_timeout(settings.pong_timeout)
                .max_concurrent_streams(MAX_HTTP2_STREAMS)
                .max_header_list_size(MAX_HEAD_BYTES as u32)
                .max_pending_accept_reset_streams(MAX_RESETS)
                .max_send_buf_size(PIECE_BYTES)
                .serve_connection(TokioIo::new(socket), service)
        );
        let mut idle_since = Instant::now();
        loop {
            let over = poll_fn(|cx| {
                let given_up = streams.unread.poll_given_up(cx);
                if given_up.is_ready() { given_up } else { connection.as_mut().poll(cx).map(drop) }
            });
            if tokio::time::timeout(WATCH, over).await.is_ok() {
                return;
            }
            // Its streams go on; whoever wants another one finds another node (RFC 9113, section
            // 6.8). Before its first request hyper would just hang up.
            if self.app.is_draining() && streams.seen.get() {
                connection.as_mut().graceful_shutdown();
            }
            if streams.open.get() > 0 {
                idle_since = Instant::now();
            }
            // Before its first request it has the time of a head.
            let limit =
                if streams.seen.get() { settings.idle_timeout } else { settings.head_timeout };
            let idle = idle_since.elapsed();
            if idle > limit + GOAWAY || streams.oldest_plain() > settings.idle_timeout {
                return;
            }
            if idle > limit {
                connection.as_mut().graceful_shutdown();
            }
        }
    }

    async fn answer2(
        self: Rc<Self>,
        request: Request<Incoming>,
        mut open: Open,
    ) -> Result<Response<Answer>, Infallible> {
        if is_plain_read(&request) {
            let pages = open.streams.pages.clone();
            // The semaphore is never closed; if it were, nobody would have to wait.
            open.page = pages.acquire_owned().await.ok();
        }
        let (response, takeover) = self.in_turn(self.route(request)).await;
        let unread = open.streams.unread.clone();
        let plain = |body| Answer::plain(body, &unread);
        let response = match takeover {
            None => response.map(plain),
            Some(takeover) => match self.seat(&mut open) {
                Err(problem) => {
                    self.app.metrics.error(problem.code());
                    let refusal = match takeover.form {
                        Form::Json => problem.into_response(),
                        _ => come_back(Version::HTTP_2),
                    };
                    instead(response, refusal).map(plain)
                }
                Ok(()) if takeover.form == Form::Json => {
                    self.poll(response, takeover).await.map(plain)
                }
                Ok(()) => {
                    open.is_stream();
                    self.stream_within(response, takeover, &unread)
                }
            },
        };
        Ok(response.map(|answer| answer.counted(open)))
    }

    /// Works on a request when it is its turn. A client may send a hundred at a time on each of its
    /// connections; all at once they would keep the messages of everybody on the lane waiting. So a
    /// few are in the lane's queue, and the others stand before it.
    async fn in_turn<T>(&self, work: impl Future<Output = T>) -> T {
        let mut turn = Some(self.app.http2_requests.turn().await);
        // Behind who is there already.
        tokio::task::yield_now().await;
        let mut work = pin!(work);
        poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if polled.is_pending() {
                // It waits, for its client or the broker: that is nobody's turn.
                turn = None;
            }
            polled
        })
        .await
    }

    /// A place for one more session. The first has the connection's; each further one takes one of
    /// the node's and of the peer's address, as if it had come over a connection of its own.
    fn seat(&self, open: &mut Open) -> Result<(), Problem> {
        if !open.streams.lent.replace(true) {
            open.borrows = true;
            return Ok(());
        }
        let full = |code, limit, whose: &str| {
            self.app.metrics.refused(Refusal::Limit);
            self.app.metrics.limited(limit);
            Problem::new(code, format!("connections of this {whose}: full"))
                .with_header(RETRY_AFTER, HeaderValue::from_static("5"))
        };
        let address = self
            .app
            .addresses
            .of_peer(self.peer)
            .map_err(|TooMany| full(Code::TooMany, Limit::ConnectionsPerAddress, "address"))?;
        let place = self.app.place(address);
        open.place =
            Some(place.ok_or_else(|| full(Code::Unavailable, Limit::Connections, "node"))?);
        Ok(())
    }
}

/// Whether a request reads something that is answered at once: no stream, no poll, no publish.
fn is_plain_read(request: &Request<Incoming>) -> bool {
    let lasts = matches!(request.uri().path(), "/v1/ws" | "/v1/sse" | "/v1/poll");
    request.method() == Method::GET && !lasts
}

/// Spawns hyper's tasks on the lane.
#[derive(Clone, Copy)]
struct OnLane;

impl<F: Future + 'static> Executor<F> for OnLane {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// What is open on an HTTP/2 connection.
struct Streams {
    open: Cell<usize>,
    /// There was a request.
    seen: Cell<bool>,
    /// From then on a node that stops waits until the client has been told.
    to_be_told: Cell<Option<TaskTrackerToken>>,
    /// A session has the connection's own place.
    lent: Cell<bool>,
    next: Cell<u64>,
    /// When each request came whose answer is no event stream: an answer that nobody reads is
    /// kept in memory.
    plain: RefCell<BTreeMap<u64, Instant>>,
    /// Such answers that may be there at a time, written and not yet read.
    pages: Arc<Semaphore>,
    /// What of answers its client has not taken.
    unread: Rc<Unread>,
}

impl Streams {
    fn new(lane: &Rc<Lane>) -> Rc<Self> {
        Rc::new(Self {
            open: Cell::default(),
            seen: Cell::default(),
            to_be_told: Cell::default(),
            lent: Cell::default(),
            next: Cell::default(),
            plain: RefCell::default(),
            pages: Arc::new(Semaphore::new(MAX_HTTP2_PAGES)),
            unread: Rc::new(Unread::new(lane)),
        })
    }

    fn oldest_plain(&self) -> Duration {
        self.plain.borrow().values().next().map_or(Duration::ZERO, Instant::elapsed)
    }
}

/// One open stream.
pub(super) struct Open {
    streams: Rc<Streams>,
    number: u64,
    /// It is a session that has the connection's place.
    borrows: bool,
    /// It is a session with a place of its own.
    place: Option<Place>,
    /// It is an answer that is held until it is read.
    page: Option<OwnedSemaphorePermit>,
}

impl Open {
    fn new(streams: &Rc<Streams>, app: &App) -> Self {
        let number = streams.next.get();
        streams.next.set(number + 1);
        streams.open.set(streams.open.get() + 1);
        if !streams.seen.replace(true) {
            streams.to_be_told.set(Some(app.http2.token()));
        }
        streams.plain.borrow_mut().insert(number, Instant::now());
        Self { streams: streams.clone(), number, borrows: false, place: None, page: None }
    }

    /// It is an event stream, which lasts.
    fn is_stream(&self) {
        self.streams.plain.borrow_mut().remove(&self.number);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.borrows {
            self.streams.lent.set(false);
        }
        self.streams.open.set(self.streams.open.get() - 1);
        self.streams.plain.borrow_mut().remove(&self.number);
    }
}

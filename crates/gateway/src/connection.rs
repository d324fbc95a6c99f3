//! One connection on its lane: HTTP until a stream takes it over.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tidewire_hub::{Form, Lane, Sink, Transport};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::app::{App, Place};
use crate::metrics::Refusal;
use crate::session::{Polled, Session, SessionBody};
use crate::takeover::{Shared, TakenIo, Takeover, stream_head};

/// The most bytes of a request's head, and the most fields in it.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEAD_FIELDS: usize = 64;
/// Streams of one HTTP/2 connection at a time.
const MAX_HTTP2_STREAMS: u32 = 128;
/// How long an HTTP/2 client may take to leave after it was told to.
const GOAWAY: Duration = Duration::from_secs(5);
/// The longest pause between two looks at a socket's first bytes.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// How long a client may go on sending after its last answer.
const SEE_OFF: Duration = Duration::from_secs(1);
/// How often the time-outs of an HTTP connection are looked at.
const WATCH: Duration = Duration::from_secs(1);

/// What a connection works with; one for each.
pub(crate) struct Connection {
    pub(crate) app: Arc<App>,
    pub(crate) lane: Rc<Lane>,
    pub(crate) router: Router,
}

impl Connection {
    /// Serves a socket until it closes or becomes a session's.
    pub(crate) async fn serve(self, socket: TcpStream, place: Place) {
        match first_bytes(&socket, self.app.settings.head_timeout).await {
            // Boxed: hyper's state is large, and a task is as large as its largest state.
            Some(true) => Box::pin(Rc::new(self).http2(socket, place)).await,
            Some(false) => Box::pin(Rc::new(self).http1(socket, place)).await,
            None => self.app.metrics.refused(Refusal::HeadTimeout),
        }
    }

    async fn http1(self: Rc<Self>, socket: TcpStream, place: Place) {
        let shared = Rc::new(Shared::default());
        shared.began.set(Some(Instant::now()));
        let taken = Rc::new(Cell::new(None));
        let service = {
            let (this, shared, taken) = (self.clone(), shared.clone(), taken.clone());
            service_fn(move |request| {
                Box::pin(this.clone().answer1(request, shared.clone(), taken.clone()))
            })
        };
        let io = TakenIo::new(socket, shared.clone());
        let mut connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_headers(MAX_HEAD_FIELDS)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(io, service);
        let served = {
            let mut watch = pin!(watch(&self.app, &shared));
            poll_fn(|cx| match connection.poll_without_shutdown(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => watch.as_mut().poll(cx).map(|()| None),
            })
            .await
        };
        let parts = connection.into_parts();
        let socket = parts.io.into_socket();
        match (served, taken.take()) {
            (Some(Ok(())), Some(taken)) => self.hand_over(socket, &parts.read_buf, taken, place),
            (None, _) => self.expire(&socket, &shared),
            // hyper has answered what can be answered; the client may still be sending.
            _ => see_off(&self.lane, &socket).await,
        }
    }

    /// Answers one request over HTTP/1; a stream's takeover is left in `taken`.
    async fn answer1(
        self: Rc<Self>,
        request: Request<Incoming>,
        shared: Rc<Shared>,
        taken: Rc<Cell<Option<Taken>>>,
    ) -> Result<Response<AnyBody>, Infallible> {
        shared.busy.set(true);
        shared.began.set(None);
        let (response, takeover) = self.route(request).await;
        shared.busy.set(false);
        shared.idle_since.set(Some(Instant::now()));
        Ok(match takeover {
            None => response.map(AnyBody::Plain),
            Some(takeover) if takeover.form.transport() == Transport::WebSocket => {
                taken.set(Some(Taken { takeover, head: None }));
                response.map(AnyBody::Plain)
            }
            // An earlier answer is still on its way out through hyper.
            Some(takeover) if shared.behind.get() => self.stream_within(response, takeover),
            Some(takeover) => {
                shared.swallow.set(true);
                taken.set(Some(Taken { takeover, head: Some(response.headers().clone()) }));
                let mut swallowed = Response::new(AnyBody::Plain(Body::empty()));
                swallowed.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                swallowed
            }
        })
    }

    /// The socket becomes a session's, which goes on in a task of its own.
    fn hand_over(&self, socket: TcpStream, read: &Bytes, taken: Taken, place: Place) {
        // hyper's buffer is a block of 8 KiB; the few bytes of it are copied out.
        let early = read.to_vec();
        let Takeover { form, inflate, .. } = taken.takeover;
        let session = Session::start(&self.app, &self.lane, Sink::Socket(socket), taken.takeover);
        match form {
            Form::WebSocket(_) => {
                tokio::task::spawn_local(session.run_websocket(early, inflate, place));
            }
            Form::Sse(_) | Form::SseWithId(_) | Form::Json => {
                session.open_stream(stream_head(&taken.head.unwrap_or_default()));
                tokio::task::spawn_local(session.run_sse(place));
            }
        }
    }

    /// A request did not come in time.
    fn expire(&self, socket: &TcpStream, shared: &Shared) {
        if shared.began.get().is_some() && !shared.behind.get() {
            self.app.metrics.refused(Refusal::HeadTimeout);
            // Best effort: the client is told if its socket takes it at once.
            let _ = socket.try_write(
                b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            );
        }
    }

    async fn http2(self: Rc<Self>, socket: TcpStream, _place: Place) {
        let streams = Rc::new(Streams::default());
        let service = {
            let (this, streams) = (self.clone(), streams.clone());
            service_fn(move |request| this.clone().answer2(request, Open::new(&streams)))
        };
        let settings = &self.app.settings;
        let mut connection = pin!(
            http2::Builder::new(OnLane)
                .timer(TokioTimer::new())
                .keep_alive_interval(settings.websocket_heartbeat)
                .keep_alive_timeout(settings.pong_timeout)
                .max_concurrent_streams(MAX_HTTP2_STREAMS)
                .max_header_list_size(MAX_HEAD_BYTES as u32)
                .serve_connection(TokioIo::new(socket), service)
        );
        let mut idle_since = Instant::now();
        loop {
            if tokio::time::timeout(WATCH, connection.as_mut()).await.is_ok() {
                return;
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
        open: Open,
    ) -> Result<Response<Counted>, Infallible> {
        let (response, takeover) = self.route(request).await;
        let response = match takeover {
            Some(takeover) => {
                open.is_stream();
                self.stream_within(response, takeover)
            }
            None => response.map(AnyBody::Plain),
        };
        Ok(response.map(|body| Counted { body, _open: open }))
    }

    /// An event stream as the body of a response that stays hyper's.
    fn stream_within(&self, response: Response<Body>, takeover: Takeover) -> Response<AnyBody> {
        let session = Session::start(&self.app, &self.lane, Sink::Fetched, takeover);
        response.map(|_| AnyBody::Session(SessionBody::new(session)))
    }

    /// Lets the routes answer; gives the takeover of a stream apart, if the answer is one. A poll
    /// is answered here, on the lane.
    async fn route(&self, request: Request<Incoming>) -> (Response<Body>, Option<Takeover>) {
        let mut response = match self.router.clone().oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let takeover = response.extensions_mut().remove::<Takeover>();
        if takeover.is_some() {
            // axum saw an empty body and said so.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        match takeover {
            Some(takeover) if takeover.form == Form::Json => {
                (self.poll(response, takeover).await, None)
            }
            takeover => (response, takeover),
        }
    }

    async fn poll(&self, response: Response<Body>, takeover: Takeover) -> Response<Body> {
        let wait = takeover.wait;
        let session = Session::start(&self.app, &self.lane, Sink::Fetched, takeover);
        match session.collect(wait).await {
            Polled::Body(body) => response.map(|_| Body::from(body)),
            Polled::Refused(problem) => problem.into_response(),
        }
    }
}

/// A takeover that is under way; for an event stream with the head that it shall write.
struct Taken {
    takeover: Takeover,
    head: Option<HeaderMap>,
}

/// Whether a connection begins as HTTP/2 with prior knowledge (RFC 9113, section 3.3); `None` when
/// nothing comes in time. No method of HTTP/1 begins like its preface.
async fn first_bytes(socket: &TcpStream, time: Duration) -> Option<bool> {
    const PREFACE: &[u8; 3] = b"PRI";
    let peeked = tokio::time::timeout(time, async {
        let mut first = [0; PREFACE.len()];
        let mut pause = Duration::from_millis(5);
        loop {
            match socket.peek(&mut first).await {
                Ok(0) | Err(_) => return Some(false),
                Ok(n) if first[..n] != PREFACE[..n] => return Some(false),
                Ok(n) if n == PREFACE.len() => return Some(true),
                // One or two bytes of it: the rest is on its way, and peeking does not wait.
                Ok(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    });
    peeked.await.ok().flatten()
}

/// Lets a socket go without taking the last answer back: closing it with unread bytes would reset
/// the connection. Our side is shut, and what comes is read away for a moment.
async fn see_off(lane: &Lane, socket: &TcpStream) {
    // It fails only when there is no connection any more.
    let _ = SockRef::from(socket).shutdown(Shutdown::Write);
    let _ = tokio::time::timeout(SEE_OFF, lane.read_away(socket)).await;
}

/// Resolves when an HTTP/1 connection has outlived its time: a head that does not end, or nothing
/// to do for too long.
async fn watch(app: &App, shared: &Shared) {
    loop {
        tokio::time::sleep(WATCH).await;
        let over = |since: Option<Instant>, limit| since.is_some_and(|at| at.elapsed() > limit);
        let late = match shared.began.get() {
            began @ Some(_) => over(began, app.settings.head_timeout),
            None => over(shared.idle_since.get(), app.settings.idle_timeout),
        };
        if late && !shared.busy.get() {
            return;
        }
    }
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
#[derive(Default)]
struct Streams {
    open: Cell<usize>,
    /// There was a request.
    seen: Cell<bool>,
    next: Cell<u64>,
    /// When each request came whose answer is no event stream: an answer that nobody reads is
    /// kept in memory.
    plain: RefCell<BTreeMap<u64, Instant>>,
}

impl Streams {
    fn oldest_plain(&self) -> Duration {
        self.plain.borrow().values().next().map_or(Duration::ZERO, Instant::elapsed)
    }
}

/// One open stream.
struct Open {
    streams: Rc<Streams>,
    number: u64,
}

impl Open {
    fn new(streams: &Rc<Streams>) -> Self {
        let number = streams.next.get();
        streams.next.set(number + 1);
        streams.open.set(streams.open.get() + 1);
        streams.seen.set(true);
        streams.plain.borrow_mut().insert(number, Instant::now());
        Self { streams: streams.clone(), number }
    }

    /// It is an event stream, which lasts.
    fn is_stream(&self) {
        self.streams.plain.borrow_mut().remove(&self.number);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.streams.open.set(self.streams.open.get() - 1);
        self.streams.plain.borrow_mut().remove(&self.number);
    }
}

/// The body of an answer.
enum AnyBody {
    Plain(Body),
    Session(SessionBody),
}

impl http_body::Body for AnyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Plain(body) => Pin::new(body).poll_frame(cx),
            Self::Session(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|it| it.map_err(|e| match e {}))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Plain(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Session(_) => http_body::SizeHint::default(),
        }
    }
}

/// A body that keeps its stream counted as open.
struct Counted {
    body: AnyBody,
    _open: Open,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

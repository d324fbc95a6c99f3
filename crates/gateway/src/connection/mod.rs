//! One connection on its lane: HTTP until a stream takes it over.

mod arrive;
mod body;
mod http2;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tidewire_hub::{Form, Lane, Sink, Socket, Transport, Unread};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::admission::Turn;
use crate::app::{App, Place};
use crate::metrics::Refusal;
use crate::session::{Polled, Session, SessionBody};
use crate::takeover::{Shared, TakenIo, Takeover, stream_head};
use arrive::Arrived;
use body::Answer;

/// The most bytes of a request's head, and the most fields in it.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEAD_FIELDS: usize = 64;
/// How long a client may go on sending after its last answer.
const SEE_OFF: Duration = Duration::from_secs(1);
/// How often the time-outs of an HTTP connection are looked at.
const WATCH: Duration = Duration::from_secs(1);

/// What a connection works with; one for each.
pub(crate) struct Connection {
    pub(crate) app: Arc<App>,
    pub(crate) lane: Rc<Lane>,
    pub(crate) router: Router,
    pub(crate) peer: IpAddr,
}

impl Connection {
    /// Serves a socket until it closes or becomes a session's. It has its turn.
    pub(crate) async fn serve(self, socket: TcpStream, place: Place, turn: Turn) {
        let Arrived { socket, is_http2, turn } = match self.arrive(socket, turn).await {
            Ok(arrived) => arrived,
            Err(refusal) => return self.app.metrics.refused(refusal),
        };
        // Boxed: hyper's state is large, and a task is as large as its largest state.
        if is_http2 {
            drop(turn);
            Box::pin(Rc::new(self).http2(socket, place)).await;
        } else {
            Box::pin(Rc::new(self).http1(socket, place, turn)).await;
        }
    }

    async fn http1(self: Rc<Self>, socket: Socket, place: Place, turn: Turn) {
        let mut turn = Some(turn);
        let shared = Rc::new(Shared::default());
        shared.began.set(Some(Instant::now()));
        let taken = Rc::new(Cell::new(None));
        let unread = Rc::new(Unread::new(&self.lane));
        let service = {
            let (this, shared, taken) = (self.clone(), shared.clone(), taken.clone());
            let unread = unread.clone();
            service_fn(move |request| {
                let (shared, taken, unread) = (shared.clone(), taken.clone(), unread.clone());
                Box::pin(this.clone().answer1(request, shared, taken, unread))
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
                Poll::Pending => {
                    // It waits, for its client or the broker: that is nobody's turn.
                    turn = None;
                    shared.answers.set(false);
                    if unread.poll_given_up(cx).is_ready() {
                        return Poll::Ready(None);
                    }
                    watch.as_mut().poll(cx).map(|()| None)
                }
            })
            .await
        };
        let parts = connection.into_parts();
        let socket = parts.io.into_socket();
        match (served, taken.take()) {
            (Some(Ok(())), Some(taken)) => self.hand_over(socket, &parts.read_buf, taken, place),
            (None, _) if unread.is_given_up() => {}
            (None, _) => self.expire(&socket, &shared),
            // hyper has answered what can be answered; the client may still be sending.
            _ => {
                drop(turn);
                see_off(&self.lane, &socket).await;
            }
        }
    }

    /// Answers one request over HTTP/1; a stream's takeover is left in `taken`.
    async fn answer1(
        self: Rc<Self>,
        request: Request<Incoming>,
        shared: Rc<Shared>,
        taken: Rc<Cell<Option<Taken>>>,
        unread: Rc<Unread>,
    ) -> Result<Response<Answer>, Infallible> {
        // A client that sends many requests in one go is answered one at a time: others are on the
        // lane, and hyper would go on as long as there is something in its buffer.
        if shared.answers.get() {
            tokio::task::yield_now().await;
        }
        shared.answers.set(true);
        shared.busy.set(true);
        shared.began.set(None);
        let (response, takeover) = match self.route(request).await {
            (response, Some(takeover)) if takeover.form == Form::Json => {
                (self.poll(response, takeover).await, None)
            }
            routed => routed,
        };
        shared.busy.set(false);
        shared.idle_since.set(Some(Instant::now()));
        Ok(match takeover {
            None => response.map(|body| Answer::plain(body, &unread)),
            Some(takeover) if takeover.form.transport() == Transport::WebSocket => {
                taken.set(Some(Taken { takeover, head: None }));
                response.map(|body| Answer::plain(body, &unread))
            }
            // An earlier answer is still on its way out through hyper.
            Some(takeover) if shared.behind.get() => {
                self.stream_within(response, takeover, &unread)
            }
            Some(takeover) => {
                shared.swallow.set(true);
                taken.set(Some(Taken { takeover, head: Some(response.headers().clone()) }));
                let mut swallowed = Response::new(Answer::plain(Body::empty(), &unread));
                swallowed.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                swallowed
            }
        })
    }

    /// The socket becomes a session's, which goes on in a task of its own.
    fn hand_over(&self, socket: Socket, read: &Bytes, taken: Taken, place: Place) {
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
    fn expire(&self, socket: &Socket, shared: &Shared) {
        if shared.began.get().is_some() && !shared.behind.get() {
            self.app.metrics.refused(Refusal::HeadTimeout);
            // Best effort: the client is told if its socket takes it at once.
            let _ = socket.try_write(&[IoSlice::new(
                b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            )]);
        }
    }

    /// An event stream as the body of a response that stays hyper's.
    fn stream_within(
        &self,
        response: Response<Body>,
        takeover: Takeover,
        unread: &Rc<Unread>,
    ) -> Response<Answer> {
        let session = Session::start(&self.app, &self.lane, Sink::Fetched, takeover);
        response.map(|_| Answer::session(SessionBody::new(session), unread))
    }

    /// Lets the routes answer; gives the takeover of a stream apart, if the answer is one.
    async fn route(&self, mut request: Request<Incoming>) -> (Response<Body>, Option<Takeover>) {
        request.extensions_mut().insert(Peer(self.peer));
        let mut response = match self.router.clone().oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let takeover = response.extensions_mut().remove::<Takeover>();
        if takeover.is_some() {
            // axum saw an empty body and said so.
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        (response, takeover)
    }

    /// Answers a poll, on the lane.
    async fn poll(&self, response: Response<Body>, takeover: Takeover) -> Response<Body> {
        let wait = takeover.wait;
        let session = Session::start(&self.app, &self.lane, Sink::Fetched, takeover);
        match session.collect(wait).await {
            Polled::Body(body) => response.map(|_| Body::from(body)),
            Polled::Refused(problem) => instead(response, problem.into_response()),
        }
    }
}

/// A refusal in the place of an answer, with what that said to the browser about origins.
fn instead(answer: Response<Body>, mut refusal: Response<Body>) -> Response<Body> {
    for (name, value) in answer.headers() {
        if !refusal.headers().contains_key(name) {
            refusal.headers_mut().insert(name, value.clone());
        }
    }
    refusal
}

/// Stands in the extensions of a request: the other end of its connection, a client or a proxy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// A takeover that is under way; for an event stream with the head that it shall write.
struct Taken {
    takeover: Takeover,
    head: Option<HeaderMap>,
}

/// Lets a socket go without taking the last answer back: closing it with unread bytes would reset
/// the connection. Our side is shut, and what comes is read away for a moment.
async fn see_off(lane: &Lane, socket: &Socket) {
    socket.shut_down();
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

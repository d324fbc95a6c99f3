//! A connection that speaks HTTP/2: what is open on it, and how long it may be idle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::body::Answer;
use super::{Connection, MAX_HEAD_BYTES, WATCH};
use crate::app::Place;

/// Streams of one HTTP/2 connection at a time.
const MAX_HTTP2_STREAMS: u32 = 128;
/// How long an HTTP/2 client may take to leave after it was told to.
const GOAWAY: Duration = Duration::from_secs(5);

impl Connection {
    pub(super) async fn http2(self: Rc<Self>, socket: TcpStream, _place: Place) {
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
    ) -> Result<Response<Answer>, Infallible> {
        let (response, takeover) = self.route(request).await;
        let response = match takeover {
            Some(takeover) => {
                open.is_stream();
                self.stream_within(response, takeover)
            }
            None => response.map(Answer::plain),
        };
        Ok(response.map(|answer| answer.counted(open)))
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
pub(super) struct Open {
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

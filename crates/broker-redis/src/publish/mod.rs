//! Publishing: pipelined over a few connections, each with one task that owns it.
//!
//! A channel uses one of them, and a publish takes its place in that one's queue before the call
//! returns, so that the order holds. Nothing is ever sent twice.

mod task;

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use metrics::Counter;
use tidewire_broker::{PublishError, Receipt};
use tidewire_protocol::{Channel, Message, encode_envelope};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::names::Names;
use crate::resp;
use crate::settings::Settings;
use crate::status::Status;

pub(crate) use task::PublisherTask;

/// The most publishes that wait on one connection. Each belongs to a publisher that waits for its
/// receipt, so that honest ones never get there.
const MAX_WAITING: usize = 8_192;
/// The most bytes that wait on one connection, unless it is a single message.
const MAX_WAITING_BYTES: usize = 32 << 20;

/// What becomes of a publish: how many subscribers Redis gave it to.
type Outcome = Result<i64, PublishError>;

/// All publishing connections.
pub(crate) struct Publishers {
    all: Vec<Arc<Publisher>>,
    spread: RandomState,
    names: Names,
    patience: Duration,
    max_frame: usize,
    unavailable: Counter,
    timeout: Counter,
}

/// What others share with a publisher's task.
pub(crate) struct Publisher {
    queue: mpsc::UnboundedSender<Job>,
    load: Arc<Load>,
    pub(crate) status: Status,
    /// Rises when the server may be another one.
    renew: watch::Sender<u64>,
}

/// How much waits.
#[derive(Default)]
struct Load {
    jobs: AtomicUsize,
    bytes: AtomicUsize,
}

/// A command that waits for its answer.
struct Job {
    command: BytesMut,
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
    place: Place,
}

/// A place in the queue; given back when it is dropped.
struct Place {
    load: Arc<Load>,
    bytes: usize,
}

/// The outcome of a publish, to come.
pub(crate) struct Published(Result<oneshot::Receiver<Outcome>, Option<PublishError>>);

impl Publishers {
    /// The publishers, and for each what its task reads.
    pub(crate) fn new(settings: &Settings, names: Names) -> (Self, Vec<Jobs>) {
        let counter = |code: &'static str| metrics::counter!("tidewire_broker_publish_errors_total", "code" => code);
        let (all, jobs) = (0..settings.publishers)
            .map(|_| {
                let (queue, jobs) = mpsc::unbounded_channel();
                let (load, status) = (Arc::default(), Status::new());
                let renew = watch::Sender::default();
                let publisher = Arc::new(Publisher { queue, load, status, renew });
                (publisher.clone(), Jobs { publisher, jobs })
            })
            .unzip();
        let publishers = Self {
            all,
            spread: RandomState::new(),
            names,
            patience: task::patience(settings),
            max_frame: settings.frame_bytes(),
            unavailable: counter("unavailable"),
            timeout: counter("timeout"),
        };
        (publishers, jobs)
    }

    /// Publishes a message on its channel.
    pub(crate) fn publish(&self, channel: &Channel, message: &Message) -> Receipt {
        let frame = encode_envelope(message);
        let published = if frame.len() > self.max_frame {
            // No node would take it in.
            Published::refused("the message is too large")
        } else {
            self.put(&self.names.parts(channel.as_str()), &frame)
        };
        let (unavailable, timeout) = (self.unavailable.clone(), self.timeout.clone());
        Box::pin(async move {
            published.await.map(|_| ()).inspect_err(|error| match error {
                PublishError::Unavailable(_) => unavailable.increment(1),
                PublishError::Timeout => timeout.increment(1),
            })
        })
    }

    /// Publishes a link's message to itself.
    pub(crate) fn echo(&self, name: &str, body: &[u8]) -> Published {
        self.put(&[name.as_bytes()], body)
    }

    /// Makes every publisher connect anew once what it has sent is answered.
    pub(crate) fn renew(&self) {
        self.all.iter().for_each(|publisher| publisher.renew.send_modify(|times| *times += 1));
    }

    /// # Errors
    /// Says which one does not work, and why.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.all.iter().enumerate().try_for_each(|(n, publisher)| {
            publisher.status.get().map_err(|why| format!("publishing connection {n}: {why}"))
        })
    }

    fn put(&self, name: &[&[u8]], body: &[u8]) -> Published {
        let index = self.spread.hash_one(name.concat()) as usize % self.all.len();
        let publisher = &self.all[index];
        let mut command = BytesMut::with_capacity(body.len() + 320);
        resp::begin(3, &mut command);
        resp::argument(&[b"PUBLISH"], &mut command);
        resp::argument(name, &mut command);
        resp::argument(&[body], &mut command);
        let Some(place) = Place::take(&publisher.load, command.len()) else {
            return Published::refused("too many publishes are waiting");
        };
        let (reply, outcome) = oneshot::channel();
        let deadline = Instant::now() + self.patience;
        match publisher.queue.send(Job { command, deadline, reply, place }) {
            Ok(()) => Published(Ok(outcome)),
            Err(_) => Published::refused("the broker is closed"),
        }
    }
}

/// What a publisher's task reads.
pub(crate) struct Jobs {
    publisher: Arc<Publisher>,
    jobs: mpsc::UnboundedReceiver<Job>,
}

impl Place {
    fn take(load: &Arc<Load>, bytes: usize) -> Option<Self> {
        // Counted first, so that the place is given back in any case.
        let place = Self { load: load.clone(), bytes };
        let jobs = load.jobs.fetch_add(1, Ordering::Relaxed);
        let before = load.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before + bytes <= MAX_WAITING_BYTES;
        (jobs < MAX_WAITING && fits).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.jobs.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Published {
    fn refused(why: &str) -> Self {
        Self(Err(Some(PublishError::Unavailable(why.to_owned()))))
    }
}

impl Future for Published {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        Poll::Ready(match &mut self.0 {
            Ok(outcome) => {
                // A task that ended without a word had perhaps sent it.
                ready!(Pin::new(outcome).poll(context)).unwrap_or(Err(PublishError::Timeout))
            }
            Err(error) => Err(error.take().unwrap_or(PublishError::Timeout)),
        })
    }
}

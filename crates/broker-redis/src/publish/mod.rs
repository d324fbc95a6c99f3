//! Publishing: pipelined over a few connections, each with one task that owns it.
//!
//! A channel uses one of them, and a publish takes its place in that one's queue before the call
//! returns, so that the order holds. Nothing is ever sent twice.

mod flight;
mod task;

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use metrics::Counter;
use tidewire_broker::{PublishError, Published, Publisher as Author, Receipt};
use tidewire_protocol::{Channel, Message, Payload, encode_envelope};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::library::Library;
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
/// How many hexadecimal digits of a hash tell bodies apart.
const DIGEST_BYTES: usize = 20;

/// What becomes of a publish.
type Outcome = Result<Done, PublishError>;

/// What Redis answers to a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    /// `PUBLISH`: how many subscribers it was given to.
    Live(i64),
    /// The function.
    Stored(Published),
}

/// All publishing connections.
pub(crate) struct Publishers {
    all: Vec<Arc<Publisher>>,
    /// Those for what must be on replicas before it is acknowledged: a connection that waits does
    /// nothing else. None if nothing must.
    waiting: Vec<Arc<Publisher>>,
    spread: RandomState,
    names: Names,
    patience: Duration,
    /// How much of it is kept for the waiting.
    reserve: Duration,
    max_frame: usize,
    counters: Counters,
}

/// Publishes that failed, by code.
#[derive(Clone)]
struct Counters {
    unavailable: Counter,
    too_large: Counter,
    invalid: Counter,
    conflict: Counter,
    timeout: Counter,
}

/// What others share with a publisher's task.
pub(crate) struct Publisher {
    queue: mpsc::UnboundedSender<Job>,
    load: Arc<Load>,
    pub(crate) status: Status,
    /// Is told when Redis does not know the function.
    library: Arc<Library>,
    /// Rises when the server may be another one.
    renew: watch::Sender<u64>,
}

/// How much waits.
#[derive(Default)]
struct Load {
    jobs: AtomicUsize,
    bytes: AtomicUsize,
}

/// What waits to be sent.
struct Job {
    call: Call,
    /// The command; of a call of the function only the arguments, because several go into one.
    bytes: BytesMut,
    deadline: Instant,
    reply: oneshot::Sender<Outcome>,
    place: Place,
}

/// How a job is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Command,
    Function,
}

/// A place in the queue; given back when it is dropped.
struct Place {
    load: Arc<Load>,
    bytes: usize,
}

/// The outcome of a publish, to come.
pub(crate) struct Sent(Result<oneshot::Receiver<Outcome>, Option<PublishError>>);

impl Publishers {
    /// The publishers, and for each what its task reads.
    pub(crate) fn new(
        settings: &Settings,
        names: Names,
        library: &Arc<Library>,
    ) -> (Self, Vec<Jobs>) {
        let publishers = |waits: bool| {
            (0..settings.publishers).map(move |_| {
                let (queue, jobs) = mpsc::unbounded_channel();
                let (load, status) = (Arc::default(), Status::new());
                let renew = watch::Sender::default();
                let library = library.clone();
                let publisher = Arc::new(Publisher { queue, load, status, library, renew });
                (publisher.clone(), Jobs { publisher, jobs, waits })
            })
        };
        let (all, mut jobs): (_, Vec<_>) = publishers(false).unzip();
        let (waiting, jobs_that_wait): (_, Vec<_>) = match settings.wait_replicas {
            0 => Default::default(),
            _ => publishers(true).unzip(),
        };
        jobs.extend(jobs_that_wait);
        let publishers = Self {
            all,
            waiting,
            reserve: task::reserve(settings),
            spread: RandomState::new(),
            names,
            patience: task::patience(settings),
            max_frame: settings.frame_bytes(),
            counters: Counters::new(),
        };
        (publishers, jobs)
    }

    /// Publishes a message on a live channel.
    pub(crate) fn live(&self, channel: &Channel, message: &Message) -> Receipt {
        let frame = encode_envelope(message);
        let name = self.names.parts(channel.as_str());
        self.receipt(self.fits(&frame).then(|| {
            self.put(&self.all, Call::Command, self.patience, &name, |out| {
                resp::begin(3, out);
                resp::argument(&[b"PUBLISH"], out);
                resp::argument(&name, out);
                resp::argument(&[&frame], out);
            })
        }))
    }

    /// Publishes a message through the function, which keeps it if its channel is stored.
    pub(crate) fn store(&self, channel: &Channel, message: &Message, author: &Author) -> Receipt {
        let frame = encode_envelope(message);
        let name = self.names.parts(channel.as_str());
        let id = message.message_id.as_ref().map_or("", |id| id.as_str());
        let (publishers, patience) = match &self.waiting[..] {
            [] => (&self.all, self.patience),
            _ => (&self.waiting, self.patience.saturating_sub(self.reserve)),
        };
        self.receipt(self.fits(&frame).then(|| {
            self.put(publishers, Call::Function, patience, &name, |out| {
                resp::argument(&name, out);
                resp::argument(&[&frame], out);
                resp::argument(&[id.as_bytes()], out);
                resp::argument(&[author.scope().as_bytes()], out);
                resp::argument(&[&digest(message)], out);
            })
        }))
    }

    /// Whether a node would take it in.
    fn fits(&self, frame: &[u8]) -> bool {
        frame.len() <= self.max_frame
    }

    fn receipt(&self, sent: Option<Sent>) -> Receipt {
        let sent = sent.unwrap_or_else(|| {
            let most = self.max_frame;
            let why = format!("the frame is over {most} bytes");
            Sent(Err(Some(PublishError::TooLarge(why))))
        });
        let counters = self.counters.clone();
        Box::pin(async move {
            match sent.await {
                Ok(Done::Live(_)) => Ok(Published::default()),
                Ok(Done::Stored(published)) => Ok(published),
                Err(error) => Err(counters.count(error)),
            }
        })
    }

    /// Publishes a link's message to itself.
    pub(crate) fn echo(&self, name: &str, body: &[u8]) -> Sent {
        self.put(&self.all, Call::Command, self.patience, &[name.as_bytes()], |out| {
            resp::command(&[b"PUBLISH", name.as_bytes(), body], out);
        })
    }

    /// Makes every publisher connect anew once what it has sent is answered.
    pub(crate) fn renew(&self) {
        self.each().for_each(|publisher| publisher.renew.send_modify(|times| *times += 1));
    }

    /// # Errors
    /// Says which one does not work, and why.
    pub(crate) fn ready(&self) -> Result<(), String> {
        self.each().enumerate().try_for_each(|(n, publisher)| {
            publisher.status.get().map_err(|why| format!("publishing connection {n}: {why}"))
        })
    }

    fn each(&self) -> impl Iterator<Item = &Arc<Publisher>> {
        self.all.iter().chain(&self.waiting)
    }

    /// Puts a command in the queue that is the name's; it must be sent within `patience`.
    fn put(
        &self,
        publishers: &[Arc<Publisher>],
        call: Call,
        patience: Duration,
        name: &[&[u8]],
        write: impl FnOnce(&mut BytesMut),
    ) -> Sent {
        let index = self.spread.hash_one(name.concat()) as usize % publishers.len();
        let publisher = &publishers[index];
        let mut bytes = BytesMut::new();
        write(&mut bytes);
        let Some(place) = Place::take(&publisher.load, bytes.len()) else {
            return Sent::refused("too many publishes are waiting");
        };
        let (reply, outcome) = oneshot::channel();
        let deadline = Instant::now() + patience;
        match publisher.queue.send(Job { call, bytes, deadline, reply, place }) {
            Ok(()) => Sent(Ok(outcome)),
            Err(_) => Sent::refused("the broker is closed"),
        }
    }
}

/// What a publisher's task reads.
pub(crate) struct Jobs {
    publisher: Arc<Publisher>,
    jobs: mpsc::UnboundedReceiver<Job>,
    /// What it keeps must be on replicas before it is acknowledged.
    waits: bool,
}

impl Counters {
    fn new() -> Self {
        let counter = |code: &'static str| metrics::counter!("tidewire_broker_publish_errors_total", "code" => code);
        Self {
            unavailable: counter("unavailable"),
            too_large: counter("too_large"),
            invalid: counter("bad_request"),
            conflict: counter("conflict"),
            timeout: counter("timeout"),
        }
    }

    fn count(&self, error: PublishError) -> PublishError {
        match error {
            PublishError::Unavailable(_) => self.unavailable.increment(1),
            PublishError::TooLarge(_) => self.too_large.increment(1),
            PublishError::Invalid(_) => self.invalid.increment(1),
            PublishError::Conflict => self.conflict.increment(1),
            PublishError::Timeout => self.timeout.increment(1),
        }
        error
    }
}

/// What makes a body the same when it is sent again: not its time, nor by which session it came. Made
/// here, where it does not cost Redis's time. 80 bits: two bodies share one by chance never, and who
/// seeks two that do fools himself.
fn digest(message: &Message) -> [u8; DIGEST_BYTES] {
    let (kind, payload) = match &message.payload {
        Payload::Json(bytes) => (b"j", bytes),
        Payload::Binary(bytes) => (b"b", bytes),
    };
    let mut hash = sha1_smol::Sha1::new();
    hash.update(message.event.as_str().as_bytes());
    // In no event's name.
    hash.update(b"\0");
    hash.update(kind);
    hash.update(payload);
    let mut digest = [0; DIGEST_BYTES];
    let hexadecimal = hash.digest().to_string();
    digest.copy_from_slice(&hexadecimal.as_bytes()[..DIGEST_BYTES]);
    digest
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

impl Sent {
    fn refused(why: &str) -> Self {
        Self(Err(Some(PublishError::Unavailable(why.to_owned()))))
    }
}

impl Future for Sent {
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

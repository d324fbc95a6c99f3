//! A publisher's task: it owns one connection, sends what waits, and knows of each command whether
//! it may have reached Redis.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tidewire_broker::{PublishError, Published};
use tidewire_protocol::{EntryId, Incarnation};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Done, Job, Jobs, Outcome, Place, Publisher};
use crate::library;
use crate::resp::{self, Item, ProtocolError, Reply};
use crate::server::Server;
use crate::settings::{Settings, Target};
use crate::status::Backoff;
use crate::wire::{self, Wire, reason};

/// Jobs are moved into the write buffer up to here; the rest can still be refused as not sent.
const OUT_BYTES: usize = 256 << 10;
/// How many jobs are taken from the queue in one turn.
const TAKE: usize = 512;

/// How long a publish may take, less what it takes to notice: so it is answered within the time.
pub(super) fn patience(settings: &Settings) -> Duration {
    settings.publish_timeout.mul_f64(0.95)
}

/// Why a connection is of no more use.
#[derive(Debug, Error)]
enum Break {
    #[error("the connection broke: {0}")]
    Closed(#[from] io::Error),
    #[error("Redis does not answer in time")]
    Silent,
    #[error("the server has become a read-only replica")]
    Replica,
    #[error("another server may have taken over")]
    Renew,
    #[error("Redis refuses: {0}")]
    Refused(String),
    #[error("an answer that is not due")]
    Confusion,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// A publisher's task.
pub(crate) struct PublisherTask {
    number: usize,
    publisher: Arc<Publisher>,
    jobs: mpsc::UnboundedReceiver<Job>,
    target: Target,
    settings: Arc<Settings>,
    /// In order; of no job here a byte was sent.
    waiting: VecDeque<Job>,
    /// In order; the commands that are in the write buffer or on their way.
    in_flight: VecDeque<InFlight>,
    /// How many bytes were ever put into the write buffer of this connection.
    buffered: u64,
    /// How many of them the system has taken.
    written: u64,
}

struct InFlight {
    /// Where the command ends, counted in [`PublisherTask::buffered`].
    end: u64,
    deadline: Instant,
    kind: Kind,
}

enum Kind {
    Publish {
        reply: oneshot::Sender<Outcome>,
        _place: Place,
    },
    /// The task's own question whether the server still is a master.
    Check,
}

/// What happened next on a connection.
enum Turn {
    Read,
    Wrote(usize),
    Jobs,
    Overdue,
    Check,
    Renew,
}

impl PublisherTask {
    pub(crate) fn new(number: usize, jobs: Jobs, target: Target, settings: Arc<Settings>) -> Self {
        let Jobs { publisher, jobs } = jobs;
        Self {
            number,
            publisher,
            jobs,
            target,
            settings,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            buffered: 0,
            written: 0,
        }
    }

    /// Works until it is cancelled; then answers whoever waits.
    pub(crate) async fn run(mut self, cancelled: CancellationToken) {
        cancelled.run_until_cancelled(self.connections()).await;
        self.publisher.status.down("the broker is closed".into());
        self.fail_in_flight("the broker is closed");
        self.jobs.close();
        while let Ok(job) = self.jobs.try_recv() {
            self.waiting.push_back(job);
        }
        self.fail_waiting("the broker is closed");
    }

    /// Connects again and again.
    async fn connections(&mut self) {
        let mut backoff = Backoff::default();
        let mut reported = false;
        // While it is not known that there is no connection to be had, publishes wait for it.
        let mut refuse = None;
        let name = format!("{}-publish-{}", self.settings.prefix, self.number);
        loop {
            let (target, settings) = (self.target.clone(), self.settings.clone());
            let connecting = wire::connect(&target, &settings, &name);
            let why = match self.meanwhile(refuse.as_deref(), connecting).await {
                Ok((wire, _)) => {
                    backoff.connected();
                    refuse = None;
                    self.publisher.status.up();
                    tracing::info!(publisher = self.number, "publishing connection to Redis is up");
                    let Err(broken) = self.serve(wire).await;
                    reported = false;
                    broken.to_string()
                }
                Err(error) => {
                    let why = error.to_string();
                    self.fail_waiting(&why);
                    refuse.insert(why).clone()
                }
            };
            self.fail_in_flight(&why);
            self.report_down(&why, &mut reported);
            self.publisher.status.down(why);
            self.meanwhile(refuse.as_deref(), sleep(backoff.failed())).await;
        }
    }

    /// One line per break; how the attempts to mend it fail is told by the status.
    fn report_down(&self, why: &str, reported: &mut bool) {
        if std::mem::replace(reported, true) {
            tracing::debug!(publisher = self.number, why, "still no publishing connection");
        } else {
            tracing::warn!(publisher = self.number, why, "publishing connection to Redis is down");
        }
    }

    /// Looks after the queue while something else goes on: with a reason jobs are refused at once,
    /// else they wait as long as they may.
    async fn meanwhile<F: Future>(&mut self, refuse: Option<&str>, other: F) -> F::Output {
        tokio::pin!(other);
        loop {
            if let Some(why) = refuse {
                self.fail_waiting(why);
            }
            let deadline = self.waiting.front().map(|job| job.deadline);
            tokio::select! {
                output = &mut other => return output,
                () = take(&mut self.jobs, &mut self.waiting) => {}
                () = until(deadline) => self.fail_overdue("there is no connection to Redis"),
            }
        }
    }

    /// Sends and answers until the connection is of no more use.
    async fn serve(&mut self, mut wire: Wire) -> Result<Infallible, Break> {
        let mut out = BytesMut::new();
        let mut checks = interval(self.settings.echo_interval);
        let mut renewals = self.publisher.renew.subscribe();
        let mut renew = false;
        (self.buffered, self.written) = (0, 0);
        loop {
            if renew && self.in_flight.is_empty() {
                return Err(Break::Renew);
            }
            if !renew {
                self.fill(&mut out);
            }
            let deadline = self.answer_due().or(self.waiting.front().map(|job| job.deadline));
            let turn = tokio::select! {
                read = wire::fill(&mut wire.input, &mut wire.reader) => { read?; Turn::Read }
                written = wire::flush(&mut wire.output, &mut out) => Turn::Wrote(written?),
                () = take(&mut self.jobs, &mut self.waiting) => Turn::Jobs,
                () = until(deadline) => Turn::Overdue,
                _ = checks.tick() => Turn::Check,
                Ok(()) = renewals.changed() => Turn::Renew,
            };
            match turn {
                Turn::Read => self.read(&mut wire)?,
                Turn::Wrote(bytes) => self.written += bytes as u64,
                Turn::Jobs => {}
                Turn::Overdue => {
                    // An answer may have come while this node was not running.
                    self.read(&mut wire)?;
                    self.fail_overdue("the connection to Redis is too slow");
                    let now = Instant::now();
                    if self.answer_due().is_some_and(|deadline| deadline <= now) {
                        return Err(Break::Silent);
                    }
                }
                Turn::Check => self.check(&mut out),
                Turn::Renew => renew = true,
            }
        }
    }

    /// By when the next answer must be there.
    fn answer_due(&self) -> Option<Instant> {
        // Those of jobs rise; a check, of which there is at most one, may stand before an older job.
        self.in_flight.iter().take(2).map(|sent| sent.deadline).min()
    }

    /// Moves jobs into the write buffer.
    fn fill(&mut self, out: &mut BytesMut) {
        while out.len() < OUT_BYTES {
            let Some(job) = self.waiting.pop_front() else { return };
            out.extend_from_slice(&job.command);
            self.buffered += job.command.len() as u64;
            let kind = Kind::Publish { reply: job.reply, _place: job.place };
            self.in_flight.push_back(InFlight { end: self.buffered, deadline: job.deadline, kind });
        }
    }

    /// Asks whether the server still is a master, unless the last question is not answered.
    fn check(&mut self, out: &mut BytesMut) {
        if self.in_flight.iter().any(|sent| matches!(sent.kind, Kind::Check)) {
            return;
        }
        let before = out.len();
        resp::command(&[b"INFO", b"replication"], out);
        self.buffered += (out.len() - before) as u64;
        let deadline = Instant::now() + patience(&self.settings);
        self.in_flight.push_back(InFlight { end: self.buffered, deadline, kind: Kind::Check });
    }

    /// Gives the answers to whom they belong.
    fn read(&mut self, wire: &mut Wire) -> Result<(), Break> {
        while let Some(reply) = wire.reader.next()? {
            let Some(sent) = self.in_flight.pop_front() else { return Err(Break::Confusion) };
            match (sent.kind, reply) {
                // Whoever published may be gone.
                (Kind::Publish { reply, .. }, Reply::Int(receivers)) => {
                    let _ = reply.send(Ok(Done::Live(receivers)));
                }
                (Kind::Publish { reply, .. }, Reply::Push(items)) => {
                    let Some(published) = published(items) else { return Err(Break::Confusion) };
                    let _ = reply.send(Ok(Done::Stored(published)));
                }
                (Kind::Publish { reply, .. }, Reply::Error(error)) => {
                    let _ = reply.send(Err(self.refusal(error)));
                }
                (Kind::Check, Reply::Text(info)) => {
                    if !Server::read("", &String::from_utf8_lossy(info)).master {
                        return Err(Break::Replica);
                    }
                }
                (Kind::Check, Reply::Error(error)) => return Err(Break::Refused(reason(error))),
                _ => return Err(Break::Confusion),
            }
        }
        Ok(())
    }

    /// What an error means. Redis and the function check before they write.
    fn refusal(&self, error: &[u8]) -> PublishError {
        let why = reason(error);
        let (code, words) = why.split_once(' ').unwrap_or((&why, ""));
        match code {
            "CONFLICT" => return PublishError::Conflict,
            "TOOLARGE" => return PublishError::TooLarge(words.to_owned()),
            "INVALID" => return PublishError::Invalid(words.to_owned()),
            _ => {}
        }
        if library::is_not_found(&why) {
            self.publisher.library.lost();
        }
        PublishError::Unavailable(format!("Redis refuses: {why}"))
    }

    /// The connection is gone: a command of which a byte was not written cannot have been done;
    /// of the others nobody knows.
    fn fail_in_flight(&mut self, why: &str) {
        for sent in self.in_flight.drain(..) {
            if let Kind::Publish { reply, .. } = sent.kind {
                let _ = reply.send(Err(if sent.end > self.written {
                    PublishError::Unavailable(why.to_owned())
                } else {
                    PublishError::Timeout
                }));
            }
        }
    }

    fn fail_waiting(&mut self, why: &str) {
        for job in self.waiting.drain(..) {
            let _ = job.reply.send(Err(PublishError::Unavailable(why.to_owned())));
        }
    }

    fn fail_overdue(&mut self, why: &str) {
        let now = Instant::now();
        while let Some(job) = self.waiting.pop_front_if(|job| job.deadline <= now) {
            let _ = job.reply.send(Err(PublishError::Unavailable(why.to_owned())));
        }
    }
}

/// What the function answers: id (empty on a live channel), whether it is a duplicate, life.
fn published(items: [Item<'_>; 3]) -> Option<Published> {
    let [Item::Text(id), Item::Int(duplicate), Item::Text(life)] = items else { return None };
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let place = match text(id)? {
        "" => None,
        id => Some((Incarnation::parse(text(life)?)?, EntryId::parse(id)?)),
    };
    Some(Published { place, duplicate: duplicate != 0 })
}

/// Takes what has come, at least one job. Can be cancelled without loss.
async fn take(jobs: &mut mpsc::UnboundedReceiver<Job>, waiting: &mut VecDeque<Job>) {
    match jobs.recv().await {
        Some(job) => waiting.push_back(job),
        // The broker is gone, and with it whoever could cancel this.
        None => std::future::pending().await,
    }
    for _ in 1..TAKE {
        let Ok(job) = jobs.try_recv() else { return };
        waiting.push_back(job);
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

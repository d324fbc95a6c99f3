//! A publisher's task: it owns one connection, sends what waits, and knows of each command whether
//! it may have reached Redis.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use thiserror::Error;
use tidewire_broker::PublishError;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::flight::{Flight, Kind, Waiter};
use super::{Call, Job, Jobs, Publisher};
use crate::resp::{self, ProtocolError};
use crate::settings::{Settings, Target};
use crate::status::Backoff;
use crate::wire::{self, Wire};

/// Jobs are moved into the write buffer up to here; the rest can still be refused as not sent.
const OUT_BYTES: usize = 256 << 10;
/// The most messages in one call of the function: some 0.5 ms of Redis's time. Together they cost less
/// than alone; a message that nothing waits behind goes alone.
const MANY: usize = 64;
/// A call is made longer up to here.
const MANY_BYTES: usize = 64 << 10;
/// How many jobs are taken from the queue in one turn.
const TAKE: usize = 512;

/// How long a publish may take, less what it takes to notice: so it is answered within the time.
pub(super) fn patience(settings: &Settings) -> Duration {
    settings.publish_timeout.mul_f64(0.95)
}

/// What is kept for Redis's own slowness beyond the time that `WAIT` may take: it looks ten times a
/// second whose time is over.
const WAIT_SLACK: Duration = Duration::from_millis(100);

/// How much of [`patience`] a publish must have left when it is sent, if replicas are waited for.
pub(super) fn reserve(settings: &Settings) -> Duration {
    if settings.wait_replicas == 0 { Duration::ZERO } else { settings.wait_timeout + WAIT_SLACK }
}

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub(super) enum Break {
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
    flight: Flight,
    /// What a job may take from when it is sent, beyond its deadline.
    reserve: Duration,
    /// `WAIT`, if what is kept must be on replicas.
    wait: Option<BytesMut>,
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
        let Jobs { publisher, jobs, waits } = jobs;
        let replicas = if waits { settings.wait_replicas } else { 0 };
        let wait = (replicas > 0).then(|| wait_command(replicas, settings.wait_timeout));
        Self {
            flight: Flight::new(publisher.library.clone(), replicas),
            reserve: if waits { reserve(&settings) } else { Duration::ZERO },
            wait,
            number,
            publisher,
            jobs,
            target,
            settings,
            waiting: VecDeque::new(),
        }
    }

    /// Works until it is cancelled; then answers whoever waits.
    pub(crate) async fn run(mut self, cancelled: CancellationToken) {
        cancelled.run_until_cancelled(self.connections()).await;
        self.publisher.status.down("the broker is closed".into());
        self.flight.fail("the broker is closed");
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
            self.flight.fail(&why);
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
        self.flight.begin();
        loop {
            if renew && self.flight.is_empty() {
                return Err(Break::Renew);
            }
            if !renew {
                self.fill(&mut out);
            }
            let deadline = [self.flight.answer_due(), self.waiting.front().map(|job| job.deadline)];
            let deadline = deadline.into_iter().flatten().min();
            let turn = tokio::select! {
                read = wire::fill(&mut wire.input, &mut wire.reader) => { read?; Turn::Read }
                written = wire.output.write(&mut out) => Turn::Wrote(written?),
                () = take(&mut self.jobs, &mut self.waiting) => Turn::Jobs,
                () = until(deadline) => Turn::Overdue,
                _ = checks.tick() => Turn::Check,
                Ok(()) = renewals.changed() => Turn::Renew,
            };
            match turn {
                Turn::Read => self.read(&mut wire)?,
                Turn::Wrote(bytes) => self.flight.wrote(bytes),
                Turn::Jobs => {}
                Turn::Overdue => {
                    // An answer may have come while this node was not running.
                    self.read(&mut wire)?;
                    self.fail_overdue("the connection to Redis is too slow");
                    let now = Instant::now();
                    if self.flight.answer_due().is_some_and(|deadline| deadline <= now) {
                        return Err(Break::Silent);
                    }
                }
                Turn::Check => self.check(&mut out),
                Turn::Renew => renew = true,
            }
        }
    }

    /// Moves jobs into the write buffer. What is to be on replicas goes in batches, with one `WAIT`
    /// for each; while Redis waits it would do nothing more, and what is not sent can still be refused
    /// as certainly not published.
    fn fill(&mut self, out: &mut BytesMut) {
        if self.wait.is_some() && self.flight.is_waiting() {
            return;
        }
        let mut first = None;
        while out.len() < OUT_BYTES {
            let Some(job) = self.waiting.pop_front() else { break };
            let (before, deadline) = (out.len(), job.deadline + self.reserve);
            first.get_or_insert(deadline);
            let kind = match job.call {
                Call::Command => {
                    out.extend_from_slice(&job.bytes);
                    Kind::Publish(job.into())
                }
                Call::Function => self.call(job, out),
            };
            self.flight.sent(out.len() - before, deadline, kind);
        }
        if let (Some(deadline), Some(wait)) = (first, &self.wait) {
            out.extend_from_slice(wait);
            self.flight.sent(wait.len(), deadline, Kind::Wait);
        }
    }

    /// Writes a call of the function: for this job, and for what waits behind it and may go with it.
    fn call(&mut self, job: Job, out: &mut BytesMut) -> Kind {
        let mut bytes = job.bytes.len();
        let mut jobs = vec![job];
        while jobs.len() < MANY && bytes < MANY_BYTES {
            let next = self.waiting.pop_front_if(|job| job.call == Call::Function);
            let Some(next) = next else { break };
            bytes += next.bytes.len();
            jobs.push(next);
        }
        let (function, keys) = match jobs.len() {
            1 => ("publish", b"1"),
            _ => ("publish_many", b"0"),
        };
        resp::begin(3 + 5 * jobs.len(), out);
        resp::argument(&[b"FCALL"], out);
        resp::argument(&[self.publisher.library.function(function).as_bytes()], out);
        resp::argument(&[keys], out);
        jobs.iter().for_each(|job| out.extend_from_slice(&job.bytes));
        let mut waiters: Vec<_> = jobs.into_iter().map(Waiter::from).collect();
        match waiters.pop() {
            Some(alone) if waiters.is_empty() => Kind::Publish(alone),
            last => {
                waiters.extend(last);
                Kind::Many(waiters)
            }
        }
    }

    /// Asks whether the server still is a master, unless the last question is not answered.
    fn check(&mut self, out: &mut BytesMut) {
        if self.flight.is_checking() {
            return;
        }
        let before = out.len();
        resp::command(&[b"INFO", b"replication"], out);
        let deadline = Instant::now() + patience(&self.settings);
        self.flight.sent(out.len() - before, deadline, Kind::Check);
    }

    /// Gives the answers to whom they belong.
    fn read(&mut self, wire: &mut Wire) -> Result<(), Break> {
        while let Some(reply) = wire.reader.next()? {
            self.flight.answer(reply)?;
        }
        Ok(())
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

fn wait_command(replicas: u32, time: Duration) -> BytesMut {
    let mut out = BytesMut::new();
    let (replicas, time) = (replicas.to_string(), time.as_millis().to_string());
    resp::command(&[b"WAIT", replicas.as_bytes(), time.as_bytes()], &mut out);
    out
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

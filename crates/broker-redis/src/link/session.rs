//! One connection of a link, from its first command to its end.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use tidewire_broker::PublishError;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::book::{Book, Tell};
use super::echo::Echo;
use super::{Break, LinkTask};
use crate::control::{ControlError, Look};
use crate::resp::{Item, Reply};
use crate::wire::{self, Hello, Wire};

/// How many replies are read between two questions whether there is room.
const ROOM_EVERY: usize = 256;
/// Commands are added to what is to be written up to here.
const OUT_BYTES: usize = 128 << 10;
/// The longest time between two looks at what is overdue.
const TICK: Duration = Duration::from_millis(250);

/// A question to the server that is under way.
type Looking = Pin<Box<dyn Future<Output = Result<Look, ControlError>> + Send>>;

/// A connection and what is going on on it.
pub(super) struct Session<'a> {
    task: &'a LinkTask,
    book: &'a mut Book,
    wire: Wire,
    hello: Hello,
    /// What is yet to be written.
    out: BytesMut,
    /// What the node is yet to be told; empty between turns.
    tell: Vec<Tell>,
    echo: Echo,
    next_echo: Instant,
    looking: Option<Looking>,
    /// The book's version when the question was asked.
    looked_at: Option<u64>,
    /// The node has no room, so that nothing is read.
    paused: bool,
    /// Reading has gone on since.
    reading_since: Instant,
    /// Something is overdue; if it still is at the next tick, after another read, it is lost.
    suspect: bool,
    /// The echo could not be published for long: the link may be good, but nobody knows.
    unproven: bool,
    /// The last question could not be answered.
    unchecked: bool,
    /// A message has come since the last echo was considered.
    heard: bool,
    up: bool,
    down_since: Instant,
}

/// What happened next.
enum Turn {
    Read,
    Wrote,
    Room,
    Wishes,
    Tick,
    Receipt(Result<i64, PublishError>),
    Looked(Result<Look, ControlError>),
}

impl<'a> Session<'a> {
    pub(super) fn new(
        task: &'a LinkTask,
        book: &'a mut Book,
        wire: Wire,
        hello: Hello,
        down_since: Instant,
    ) -> Self {
        // Random, so that no frame of another connection is taken for this one's.
        let echo = Echo::new(task.delivery.names.echo(fastrand::u64(..)));
        let now = Instant::now();
        Self {
            task,
            book,
            wire,
            hello,
            out: BytesMut::new(),
            tell: vec![],
            echo,
            next_echo: now,
            looking: None,
            looked_at: None,
            paused: false,
            reading_since: now,
            suspect: false,
            unproven: false,
            unchecked: false,
            heard: false,
            up: false,
            down_since,
        }
    }

    /// Whether everything was subscribed at some time.
    pub(super) fn was_up(&self) -> bool {
        self.up
    }

    /// Goes on until the connection is of no more use.
    pub(super) async fn run(&mut self) -> Result<Infallible, Break> {
        let mut ticks = ticks(self.task.shared.settings.echo_interval);
        // What was given up while the link was down is not subscribed again.
        self.take_wishes();
        self.book.connected();
        self.book.send_own(&self.echo.name, &mut self.out);
        loop {
            self.send();
            match self.turn(&mut ticks).await? {
                Turn::Read => self.read()?,
                Turn::Wrote => {}
                Turn::Room => {
                    self.paused = false;
                    self.reading_since = Instant::now();
                    self.read()?;
                }
                Turn::Wishes => self.take_wishes(),
                Turn::Tick => self.tick()?,
                Turn::Receipt(receipt) => self.published(receipt)?,
                Turn::Looked(look) => {
                    self.looking = None;
                    self.looked(look)?;
                }
            }
        }
    }

    async fn turn(&mut self, ticks: &mut Interval) -> Result<Turn, Break> {
        let takes_wishes = self.up && self.book.takes_wishes();
        Ok(tokio::select! {
            read = wire::fill(&mut self.wire.input, &mut self.wire.reader), if !self.paused => {
                read?;
                Turn::Read
            }
            written = self.wire.output.write(&mut self.out) => {
                written?;
                Turn::Wrote
            }
            () = self.task.delivery.events.room(), if self.paused => Turn::Room,
            () = self.task.link.wishes.changed(), if takes_wishes => Turn::Wishes,
            receipt = self.echo.receipt() => Turn::Receipt(receipt),
            look = finish(&mut self.looking) => Turn::Looked(look),
            _ = ticks.tick() => Turn::Tick,
        })
    }

    fn send(&mut self) {
        let names = &self.task.delivery.names;
        while self.out.len() < OUT_BYTES && self.book.send_next(names, &mut self.out) {}
        if !self.up && self.book.is_settled() {
            self.up = true;
            // An echo at once, and the wishes that waited.
            self.next_echo = Instant::now();
            self.link_up();
            self.take_wishes();
            while self.out.len() < OUT_BYTES && self.book.send_next(names, &mut self.out) {}
        }
    }

    fn link_up(&self) {
        let (link, down) = (self.task.number, self.down_since.elapsed());
        let channels = self.book.held() - 1;
        tracing::info!(
            link,
            channels,
            down_seconds = down.as_secs_f64(),
            "the link to Redis is up"
        );
        self.task.link.status.up();
        self.task.metrics.up.set(1);
        self.task.metrics.subscriptions.set(channels as f64);
    }

    fn take_wishes(&mut self) {
        for (channel, wanted) in self.task.link.wishes.take() {
            self.book.wish(channel, wanted, &mut self.tell);
        }
        self.task.tell(&mut self.tell);
    }

    /// Deals with what has been read, as far as there is room.
    fn read(&mut self) -> Result<(), Break> {
        loop {
            if !self.task.delivery.events.has_room() {
                self.paused = true;
                return Ok(());
            }
            for _ in 0..ROOM_EVERY {
                let Some(reply) = self.wire.reader.next()? else {
                    self.task.metrics.subscriptions.set(self.book.held().saturating_sub(1) as f64);
                    return Ok(());
                };
                // A message is by far the commonest, so it comes first.
                if let Reply::Push([Item::Text(b"message"), Item::Text(name), Item::Text(body)]) =
                    reply
                {
                    if name != self.echo.name.as_bytes() {
                        self.heard = true;
                        self.task.delivery.message(name, body);
                    } else if let Some(time) = self.echo.heard(body) {
                        self.task.metrics.echo.record(time);
                        if std::mem::take(&mut self.unproven) {
                            self.task.link.status.up();
                        }
                    }
                } else {
                    let names = &self.task.delivery.names;
                    answer(reply, self.book, names, &self.task.delivery, &mut self.tell)?;
                    self.task.tell(&mut self.tell);
                }
            }
        }
    }

    fn tick(&mut self) -> Result<(), Break> {
        let now = Instant::now();
        self.check_overdue(now)?;
        let settings = &self.task.shared.settings;
        if !self.up || self.paused || now < self.next_echo {
            return Ok(());
        }
        self.next_echo = now + settings.echo_interval;
        // What the link hears does not show whether Redis hears the link.
        self.book.send_ping(&mut self.out);
        // A link that hears messages is not deaf; but it may have lost some of its subscriptions.
        if std::mem::take(&mut self.heard) && self.echo.unproven() < settings.echo_timeout {
            return Ok(());
        }
        if self.echo.is_idle() {
            let body = self.echo.next_body();
            let receipt = self.task.shared.publishers.echo(&self.echo.name, &body);
            self.echo.begin(receipt);
        }
        if self.looking.is_none() {
            let (control, id) = (self.task.shared.control.clone(), self.hello.client_id);
            self.looked_at = self.book.version();
            self.looking = Some(Box::pin(async move { control.look(id).await }));
        }
        Ok(())
    }

    /// Whether an answer or the echo is overdue. The time in which this node did not read does not
    /// count.
    fn check_overdue(&mut self, now: Instant) -> Result<(), Break> {
        if self.paused {
            self.suspect = false;
            return Ok(());
        }
        let timeout = self.task.shared.settings.echo_timeout;
        let is_overdue = |since: Option<Instant>| {
            since.is_some_and(|since| now - since.max(self.reading_since) >= timeout)
        };
        let (silent, deaf) = (is_overdue(self.book.oldest()), is_overdue(self.echo.due_since()));
        let was_suspect = std::mem::replace(&mut self.suspect, silent || deaf);
        match (was_suspect, silent, deaf) {
            (true, true, _) => Err(Break::Silent),
            (true, _, true) => Err(Break::Deaf),
            _ => Ok(()),
        }
    }

    /// What became of the publish of the echo.
    fn published(&mut self, receipt: Result<i64, PublishError>) -> Result<(), Break> {
        match receipt {
            Ok(0) => Err(Break::Elsewhere),
            Ok(_) => {
                self.echo.published();
                Ok(())
            }
            Err(error) => {
                self.echo.abandon();
                if self.echo.unproven() >= self.task.shared.settings.echo_timeout {
                    let why = format!("its message to itself cannot be published: {error}");
                    if !std::mem::replace(&mut self.unproven, true) {
                        tracing::warn!(link = self.task.number, why, "the link is not proven");
                    }
                    self.task.link.status.down(why);
                }
                Ok(())
            }
        }
    }

    /// What the server says about itself and this connection.
    fn looked(&mut self, look: Result<Look, ControlError>) -> Result<(), Break> {
        let look = match look {
            Ok(look) => look,
            Err(error) => {
                // It says nothing about the link; but one who can never look should know.
                if !std::mem::replace(&mut self.unchecked, true) {
                    let link = self.task.number;
                    tracing::warn!(link, %error, "Redis cannot be asked about the link");
                }
                return Ok(());
            }
        };
        self.unchecked = false;
        if !look.server.master {
            return Err(Break::Replica);
        }
        if look.server.run_id != self.hello.server.run_id {
            return Err(Break::OtherServer);
        }
        if look.server.replication_id != self.hello.server.replication_id {
            return Err(Break::Reborn);
        }
        let due = self.book.held();
        let stable = self.looked_at.is_some() && self.looked_at == self.book.version();
        match look.subscriptions {
            None => Err(Break::OtherServer),
            Some(counted) if stable && counted != due => {
                // Redis counts in memory: the number is small.
                Err(Break::Subscriptions { due, counted: i64::try_from(counted).unwrap_or(-1) })
            }
            Some(_) => Ok(()),
        }
    }
}

/// Deals with a reply that is no message.
fn answer(
    reply: Reply<'_>,
    book: &mut Book,
    names: &crate::names::Names,
    delivery: &crate::delivery::Delivery,
    tell: &mut Vec<Tell>,
) -> Result<(), Break> {
    match reply {
        Reply::Push([Item::Text(b"subscribe"), Item::Text(name), Item::Int(count)]) => {
            book.confirmed(true, names.channel(name), count, tell)
        }
        Reply::Push([Item::Text(b"unsubscribe"), Item::Text(name), Item::Int(count)]) => {
            book.confirmed(false, names.channel(name), count, tell)
        }
        Reply::Push([Item::Text(b"pong"), ..]) => book.pong(),
        Reply::Error(error) => book.error(error, tell),
        Reply::TooLarge(name, length) => {
            delivery.too_large(name, length);
            Ok(())
        }
        _ => Err(Break::Confusion("an answer of an unexpected form")),
    }
}

/// The question's answer; waits for ever when none was asked.
async fn finish(looking: &mut Option<Looking>) -> Result<Look, ControlError> {
    match looking {
        Some(looking) => looking.await,
        None => std::future::pending().await,
    }
}

fn ticks(echo_interval: Duration) -> Interval {
    // Never zero: the settings allow no interval that short.
    let mut ticks = interval((echo_interval / 4).clamp(Duration::from_millis(5), TICK));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

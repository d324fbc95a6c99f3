//! What a publisher's task has sent and Redis has not answered, in order; and what Redis has, but
//! perhaps not yet its replicas.

use std::collections::VecDeque;
use std::sync::Arc;

use tidewire_broker::{PublishError, Published};
use tidewire_protocol::{EntryId, Incarnation};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::task::Break;
use super::{Done, Job, Outcome, Place};
use crate::library::{self, Library};
use crate::resp::{Item, Reply};
use crate::server::Server;
use crate::wire::reason;

/// The commands under way on one connection.
pub(super) struct Flight {
    /// In order; the commands that are in the write buffer or on their way.
    commands: VecDeque<Command>,
    /// How many bytes were ever put into the write buffer of this connection.
    buffered: u64,
    /// How many of them the system has taken.
    written: u64,
    /// Kept by Redis; acknowledged once so many replicas have them.
    held: Vec<(Waiter, Published)>,
    replicas: u32,
    /// The last time there were too few.
    lacking: bool,
    library: Arc<Library>,
}

struct Command {
    /// Where it ends, counted in [`Flight::buffered`].
    end: u64,
    deadline: Instant,
    kind: Kind,
}

/// What was sent.
pub(super) enum Kind {
    Publish(Waiter),
    /// Several, in one call of the function.
    Many(Vec<Waiter>),
    /// `WAIT`, for what was sent before it.
    Wait,
    /// The task's own question whether the server still is a master.
    Check,
}

/// Somebody who waits for the outcome, and the place that it takes until then.
pub(super) struct Waiter {
    pub(super) reply: oneshot::Sender<Outcome>,
    pub(super) _place: Place,
}

impl From<Job> for Waiter {
    fn from(job: Job) -> Self {
        Self { reply: job.reply, _place: job.place }
    }
}

impl Waiter {
    /// Whoever published may be gone.
    pub(super) fn tell(self, outcome: Outcome) {
        let _ = self.reply.send(outcome);
    }
}

impl Flight {
    /// `replicas`: how many must have what is kept before it is acknowledged.
    pub(super) fn new(library: Arc<Library>, replicas: u32) -> Self {
        Self {
            commands: VecDeque::new(),
            buffered: 0,
            written: 0,
            held: Vec::new(),
            replicas,
            lacking: false,
            library,
        }
    }

    /// A new connection.
    pub(super) fn begin(&mut self) {
        (self.buffered, self.written) = (0, 0);
    }

    /// A command of so many bytes was put into the write buffer; its answer is due by then.
    pub(super) fn sent(&mut self, bytes: usize, deadline: Instant, kind: Kind) {
        self.buffered += bytes as u64;
        self.commands.push_back(Command { end: self.buffered, deadline, kind });
    }

    /// The system has taken more bytes.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn is_checking(&self) -> bool {
        self.commands.iter().any(|command| matches!(command.kind, Kind::Check))
    }

    /// Whether Redis answers nothing more until the replicas have what it has.
    pub(super) fn is_waiting(&self) -> bool {
        self.commands.iter().any(|command| matches!(command.kind, Kind::Wait))
    }

    /// By when the next answer must be there.
    pub(super) fn answer_due(&self) -> Option<Instant> {
        // Those of jobs rise; a check, of which there is at most one, may stand before an older job.
        self.commands.iter().take(2).map(|command| command.deadline).min()
    }

    /// Gives an answer to whom it belongs.
    pub(super) fn answer(&mut self, reply: Reply<'_>) -> Result<(), Break> {
        let Some(command) = self.commands.pop_front() else { return Err(Break::Confusion) };
        match (command.kind, reply) {
            (Kind::Publish(waiter), Reply::Int(receivers)) => {
                waiter.tell(Ok(Done::Live(receivers)));
            }
            (Kind::Publish(waiter), Reply::Push(items)) => match published(items) {
                Some(published) => self.kept(waiter, published),
                None => return Err(Break::Confusion),
            },
            (Kind::Publish(waiter), Reply::Error(error)) => {
                waiter.tell(Err(self.refusal(error)));
            }
            (Kind::Many(waiters), Reply::Text(lines)) => self.answer_many(waiters, lines)?,
            (Kind::Many(waiters), Reply::Error(error)) => {
                let refusal = self.refusal(error);
                waiters.into_iter().for_each(|waiter| waiter.tell(Err(refusal.clone())));
            }
            (Kind::Wait, Reply::Int(replicas)) => self.replicated(replicas),
            (Kind::Check, Reply::Text(info)) => {
                if !Server::read("", &String::from_utf8_lossy(info)).master {
                    return Err(Break::Replica);
                }
            }
            (Kind::Check | Kind::Wait, Reply::Error(error)) => {
                return Err(Break::Refused(reason(error)));
            }
            // Whoever waits is told that nothing is known.
            _ => return Err(Break::Confusion),
        }
        Ok(())
    }

    /// The life, and a line for each message.
    fn answer_many(&mut self, waiters: Vec<Waiter>, lines: &[u8]) -> Result<(), Break> {
        let mut lines = lines.split(|byte| *byte == b'\n');
        let life =
            lines.next().and_then(|life| Incarnation::parse(std::str::from_utf8(life).ok()?));
        for waiter in waiters {
            match lines.next().ok_or(Break::Confusion)? {
                [b'!', error @ ..] => waiter.tell(Err(self.refusal(error))),
                [] => self.kept(waiter, Published::default()),
                [b'=', id @ ..] => self.kept(waiter, place(life, id, true)?),
                id => self.kept(waiter, place(life, id, false)?),
            }
        }
        Ok(())
    }

    /// Redis has it. What is live is on no replica.
    fn kept(&mut self, waiter: Waiter, published: Published) {
        if self.replicas > 0 && published.place.is_some() {
            self.held.push((waiter, published));
        } else {
            waiter.tell(Ok(Done::Stored(published)));
        }
    }

    /// So many replicas have all that was sent before.
    fn replicated(&mut self, replicas: i64) {
        let lacking = replicas < i64::from(self.replicas);
        for (waiter, published) in self.held.drain(..) {
            waiter.tell(if lacking {
                Err(PublishError::Timeout)
            } else {
                Ok(Done::Stored(published))
            });
        }
        if lacking != std::mem::replace(&mut self.lacking, lacking) {
            let wanted = self.replicas;
            if lacking {
                tracing::warn!(replicas, wanted, "too few replicas have what is published");
            } else {
                tracing::info!(replicas, wanted, "enough replicas have what is published");
            }
        }
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
            self.library.lost();
        }
        PublishError::Unavailable(format!("Redis refuses: {why}"))
    }

    /// The connection is gone: a command of which a byte was not written cannot have been done;
    /// of the others nobody knows.
    pub(super) fn fail(&mut self, why: &str) {
        for (waiter, _) in self.held.drain(..) {
            waiter.tell(Err(PublishError::Timeout));
        }
        for command in self.commands.drain(..) {
            let waiters = match command.kind {
                Kind::Publish(waiter) => vec![waiter],
                Kind::Many(waiters) => waiters,
                Kind::Wait | Kind::Check => vec![],
            };
            for waiter in waiters {
                waiter.tell(Err(if command.end > self.written {
                    PublishError::Unavailable(why.to_owned())
                } else {
                    PublishError::Timeout
                }));
            }
        }
    }
}

/// What a line of the function's answer for many says.
fn place(life: Option<Incarnation>, id: &[u8], duplicate: bool) -> Result<Published, Break> {
    let id = std::str::from_utf8(id).ok().and_then(EntryId::parse);
    let place = life.zip(id).ok_or(Break::Confusion)?;
    Ok(Published { place: Some(place), duplicate })
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

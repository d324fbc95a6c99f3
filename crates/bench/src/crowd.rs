//! All subscribers of a run, in one event loop.

use std::time::{Duration, Instant};
use std::{fmt, io};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Registry, Token};
use serde::Serialize;

use crate::clock;
use crate::marker::Marker;
use crate::senses::Senses;
use crate::subscriber::{Progress, Subscriber, Words};
use crate::target::Target;

/// Events taken in one turn.
const EVENTS: usize = 1_024;

/// The buffer that all subscribers read into, in bytes. Under load one read takes many messages.
const SCRATCH: usize = 256 << 10;

/// How long nothing may become ready while a crowd opens.
const STALLED: Duration = Duration::from_secs(20);

/// Tokens from here on are not subscribers'.
pub(crate) const OTHERS: usize = usize::MAX / 2;

/// What a crowd consists of.
pub(crate) struct Plan<'a> {
    /// The channels' addresses: subscribers take them in turn.
    pub(crate) targets: &'a [Target],
    /// How many subscribers.
    pub(crate) size: usize,
    /// How many handshakes may be under way.
    pub(crate) at_once: usize,
    /// Loopback addresses to come from.
    pub(crate) sources: u8,
    pub(crate) words: &'a Words,
    /// How many of the last ones stop reading once they are subscribed.
    pub(crate) stalled: usize,
    /// How the server refuses, where that is to be counted.
    pub(crate) refusal: Option<&'static str>,
}

/// The subscribers.
pub(crate) struct Crowd {
    poll: Poll,
    events: Events,
    senses: Senses,
    scratch: Box<[u8]>,
    members: Vec<Option<Subscriber>>,
    /// How many of the last ones do not read.
    stalled: usize,
    words: Words,
    lost: usize,
    first_loss: Option<io::Error>,
}

/// How the opening went.
pub(crate) struct Opening {
    /// From the connect to being subscribed, in nanoseconds.
    pub(crate) times: Histogram<u64>,
    /// All together, in nanoseconds.
    pub(crate) took: u64,
}

/// Subscribers whose connection ended.
#[derive(Debug, Serialize)]
pub(crate) struct Losses {
    lost: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_loss: Option<String>,
}

impl fmt::Display for Losses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.first_loss {
            Some(why) => write!(out, "{} (the first: {why})", self.lost),
            None => write!(out, "{}", self.lost),
        }
    }
}

/// What a turn of the loop has seen.
#[derive(Default)]
pub(crate) struct Turn {
    /// Subscribers that became ready, by their number.
    pub(crate) ready: Vec<usize>,
    /// Tokens that are no subscriber's and on which something happened, less [`OTHERS`].
    pub(crate) others: Vec<usize>,
}

impl Crowd {
    /// Connects all of them and waits until each is subscribed.
    pub(crate) fn open(plan: &Plan<'_>) -> anyhow::Result<(Self, Opening)> {
        let mut crowd = Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            senses: Senses::new(plan.refusal),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            members: Vec::with_capacity(plan.size),
            stalled: plan.stalled,
            words: plan.words.clone(),
            lost: 0,
            first_loss: None,
        };
        let mut opening = Opening { times: clock::histogram()?, took: 0 };
        let mut begun = Vec::with_capacity(plan.size);
        let (began, mut ready, mut last) = (clock::now(), 0, Instant::now());
        let mut turn = Turn::default();
        while ready < plan.size {
            while crowd.members.len() < plan.size && crowd.members.len() - ready < plan.at_once {
                begun.push(clock::now());
                crowd.add(plan)?;
            }
            crowd.turn(&mut turn, Some(Duration::from_millis(100)), |_, _| ())?;
            let now = clock::now();
            for index in turn.ready.drain(..) {
                opening.times.saturating_record(now - begun[index]);
                ready += 1;
                last = Instant::now();
            }
            crowd.whole().with_context(|| format!("with {ready} subscribed"))?;
            if last.elapsed() > STALLED {
                bail!("only {ready} of {} are subscribed, and no more come", plan.size);
            }
        }
        opening.took = clock::now() - began;
        for member in crowd.members.iter_mut().rev().take(plan.stalled).flatten() {
            crowd.poll.registry().deregister(&mut member.socket)?;
        }
        Ok((crowd, opening))
    }

    fn add(&mut self, plan: &Plan<'_>) -> anyhow::Result<()> {
        let index = self.members.len();
        let target = &plan.targets[index % plan.targets.len()];
        let stalls = index >= plan.size - plan.stalled;
        let mut member = Subscriber::open(target, index, plan.sources, plan.words, stalls)
            .with_context(|| format!("connection {index} to {}", target.address))?;
        self.poll.registry().register(&mut member.socket, Token(index), Interest::READABLE)?;
        self.members.push(Some(member));
        Ok(())
    }

    /// For what else the loop is to watch, with tokens from [`OTHERS`] on.
    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// How many are still connected, those who do not read left out.
    pub(crate) fn alive(&self) -> usize {
        self.members.len() - self.stalled - self.lost
    }

    /// How many of those who do not read the server has let go. They read now.
    pub(crate) fn let_go(&mut self) -> usize {
        let Self { members, scratch, stalled, .. } = self;
        let quiet = members.iter_mut().rev().take(*stalled).flatten();
        quiet.map(|member| member.is_ended(scratch)).filter(|ended| *ended).count()
    }

    /// Sends a frame on one of the connections, if it is still there.
    pub(crate) fn send(&mut self, index: usize, frame: &[u8]) -> io::Result<()> {
        self.members.get_mut(index).and_then(Option::as_mut).map_or(Ok(()), |one| one.send(frame))
    }

    /// What the server refused so far, if that is counted.
    pub(crate) fn refused(&self) -> u64 {
        self.senses.refused
    }

    /// How many were lost, and why the first one was.
    pub(crate) fn losses(&self) -> Losses {
        Losses { lost: self.lost, first_loss: self.first_loss.as_ref().map(ToString::to_string) }
    }

    /// An error when a subscriber was lost: with the first one's reason.
    pub(crate) fn whole(&self) -> anyhow::Result<()> {
        match &self.first_loss {
            Some(error) => bail!("{} subscribers were lost, the first one: {error}", self.lost),
            None => Ok(()),
        }
    }

    /// Waits for what comes and reads it. `on` is called with each marker and the time at which it
    /// was read.
    pub(crate) fn turn(
        &mut self,
        turn: &mut Turn,
        timeout: Option<Duration>,
        mut on: impl FnMut(Marker, u64),
    ) -> anyhow::Result<()> {
        turn.others.clear();
        if let Err(error) = self.poll.poll(&mut self.events, timeout) {
            if error.kind() == io::ErrorKind::Interrupted {
                return Ok(());
            }
            return Err(error.into());
        }
        for event in &self.events {
            let Token(index) = event.token();
            let Some(place) = self.members.get_mut(index) else {
                turn.others.push(index - OTHERS);
                continue;
            };
            let Some(member) = place else { continue };
            // Read at the first marker and not before: the system call comes first.
            let mut now = None;
            let read =
                member.read(&mut self.scratch, &mut self.senses, &self.words, &mut |marker| {
                    on(marker, *now.get_or_insert_with(clock::now));
                });
            let error = match read {
                Ok(Progress::Same) => continue,
                Ok(Progress::Ready) => {
                    turn.ready.push(index);
                    continue;
                }
                Ok(Progress::Ended) => io::ErrorKind::UnexpectedEof.into(),
                Err(error) => error,
            };
            // Dropping the socket takes it out of the event queue.
            *place = None;
            self.lost += 1;
            self.first_loss.get_or_insert(error);
        }
        Ok(())
    }
}

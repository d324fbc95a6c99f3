//! All clients of a run that come and go, and who publishes to them, in one event loop.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::Duration;

use anyhow::Context;
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};

use super::client::{Client, Heard};
use crate::clock;
use crate::marker::Marker;
use crate::publisher::Publisher;
use crate::target::Target;
use crate::template::Template;

/// Events taken in a turn: few, so that another field gets its turn soon.
const EVENTS: usize = 64;
/// The longest sleep.
const NAP: Duration = Duration::from_millis(20);
/// How long a client waits that was turned away or lost its connection, in nanoseconds.
const RETRY: u64 = 200_000_000;
/// Tokens from here on are publishers.
const PUBLISHERS: usize = usize::MAX / 2;

/// The clients and the publishers.
pub(super) struct Field {
    poll: Poll,
    events: Events,
    scratch: Box<[u8]>,
    sources: u8,
    pub(super) members: Vec<Member>,
    /// Each with what it publishes.
    publishers: Vec<(Publisher, Template)>,
    /// When clients are to come (again), in nanoseconds.
    due: BinaryHeap<Reverse<(u64, usize)>>,
}

/// A client, and how it fares.
pub(super) struct Member {
    client: Client,
    pub(super) target: Target,
    pub(super) seen: Seen,
    /// When it began to come back, and the number of messages that had been published by then.
    back: Option<(u64, u32)>,
    welcomed: bool,
    /// A loss is meant: it does not come back by itself.
    pub(super) stays_away: bool,
}

/// What came to one client or to many.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub(super) delivered: u64,
    /// Messages that came twice, or late.
    pub(super) repeated: u64,
    /// Messages that others before which they were expected came in front of.
    pub(super) missed: u64,
    pub(super) gaps: u64,
    /// Connections that ended without being cut here.
    pub(super) lost: u64,
}

/// Times of a turn.
pub(super) struct Times {
    /// From coming back until all is there that was published meanwhile.
    pub(super) replay: Histogram<u64>,
    /// From coming back to being subscribed.
    pub(super) welcome: Histogram<u64>,
    /// From publish to receipt, of the clients from this number on.
    pub(super) latency: Histogram<u64>,
    pub(super) latency_from: usize,
}

impl Times {
    pub(super) fn new(latency_from: usize) -> anyhow::Result<Self> {
        Ok(Self {
            replay: clock::histogram()?,
            welcome: clock::histogram()?,
            latency: clock::histogram()?,
            latency_from,
        })
    }
}

impl Field {
    pub(super) fn new(sources: u8) -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            scratch: vec![0; 256 << 10].into_boxed_slice(),
            sources,
            members: Vec::new(),
            publishers: Vec::new(),
            due: BinaryHeap::new(),
        })
    }

    /// One more publisher; its number.
    pub(super) fn publisher(
        &mut self,
        target: &Target,
        template: Template,
    ) -> anyhow::Result<usize> {
        let index = self.publishers.len();
        let token = Token(PUBLISHERS + index);
        let publisher = Publisher::open(target, self.poll.registry(), token)?;
        self.publishers.push((publisher, template));
        Ok(index)
    }

    /// Publishes a message.
    pub(super) fn publish(&mut self, publisher: usize, number: u32) -> anyhow::Result<()> {
        let marker = Marker { sent: clock::now(), number };
        let (publisher, template) = &mut self.publishers[publisher];
        publisher.publish(template, marker)
    }

    /// How many publishes were taken, and how many refused.
    pub(super) fn answered(&self, publisher: usize) -> (u64, u64) {
        let tally = self.publishers[publisher].0.tally();
        (tally.accepted, tally.refused)
    }

    /// Adds clients and waits until all are subscribed.
    pub(super) fn open(
        &mut self,
        target: &Target,
        count: usize,
        at_once: usize,
    ) -> anyhow::Result<()> {
        let first = self.members.len();
        let mut times = Times::new(usize::MAX)?;
        let began = clock::now();
        while self.members[first..].iter().filter(|one| one.welcomed).count() < count {
            let open = self.members[first..].iter().filter(|one| one.welcomed).count();
            while self.members.len() - first < count && self.members.len() - first - open < at_once
            {
                let (target, client) = (target.clone(), Client::default());
                let seen = Seen::default();
                let member =
                    Member { client, target, seen, back: None, welcomed: false, stays_away: false };
                self.members.push(member);
                self.come(self.members.len() - 1, 0)?;
            }
            self.turn(&mut times, 0, Duration::ZERO)?;
            anyhow::ensure!(
                clock::now() - began < 60_000_000_000,
                "only {open} of {count} were subscribed"
            );
        }
        Ok(())
    }

    /// Lets a client come (back), when so many messages have been published.
    pub(super) fn come(&mut self, index: usize, published: u32) -> anyhow::Result<()> {
        let member = &mut self.members[index];
        member.back.get_or_insert((clock::now(), published));
        (member.welcomed, member.stays_away) = (false, false);
        let registry = self.poll.registry();
        match member.client.connect(&member.target, Token(index), self.sources, registry) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.due.push(Reverse((clock::now() + RETRY, index)));
                Ok(())
            }
            Err(error) => Err(error).context("connecting"),
        }
    }

    /// Cuts a client off; it stays away until it is told to come.
    pub(super) fn cut(&mut self, index: usize) {
        let member = &mut self.members[index];
        member.client.cut();
        (member.back, member.welcomed, member.stays_away) = (None, false, true);
    }

    /// Goes on with what there is, or waits a moment.
    pub(super) fn turn(
        &mut self,
        times: &mut Times,
        published: u32,
        wait: Duration,
    ) -> anyhow::Result<()> {
        while let Some(Reverse((at, index))) = self.due.peek().copied() {
            if at > clock::now() {
                break;
            }
            self.due.pop();
            if self.members[index].client.is_away() && !self.members[index].stays_away {
                self.come(index, published)?;
            }
        }
        let wait = if wait.is_zero() { NAP } else { wait.min(NAP) };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &self.events {
            let Token(index) = event.token();
            if let Some(publisher) = index.checked_sub(PUBLISHERS) {
                self.publishers[publisher].0.attend()?;
            } else if let Some(member) = self.members.get_mut(index)
                && !member.client.is_away()
                && member.attend(index, &mut self.scratch, times).is_err()
            {
                member.client.cut();
                member.seen.lost += 1;
                self.due.push(Reverse((clock::now() + RETRY, index)));
            }
        }
        Ok(())
    }

    /// Whether these clients all have the messages before this one.
    pub(super) fn all_have(&self, members: std::ops::Range<usize>, next: u32) -> bool {
        self.members[members].iter().all(|member| member.client.next >= next)
    }

    /// What came to these clients.
    pub(super) fn seen(&self, members: std::ops::Range<usize>) -> Seen {
        self.members[members].iter().fold(Seen::default(), |sum, Member { seen, .. }| Seen {
            delivered: sum.delivered + seen.delivered,
            repeated: sum.repeated + seen.repeated,
            missed: sum.missed + seen.missed,
            gaps: sum.gaps + seen.gaps,
            lost: sum.lost + seen.lost,
        })
    }
}

impl Member {
    fn attend(&mut self, index: usize, scratch: &mut [u8], times: &mut Times) -> io::Result<()> {
        let Self { client, target, seen, back, welcomed, .. } = self;
        let mut next = client.next;
        let result = client.attend(target, scratch, &mut |heard| match heard {
            Heard::Gap => seen.gaps += 1,
            Heard::Welcome => {
                *welcomed = true;
                if let Some((at, published)) = *back {
                    times.welcome.saturating_record(clock::now() - at);
                    if next >= published {
                        *back = None;
                    }
                }
            }
            Heard::Message(marker) => {
                let now = clock::now();
                if index >= times.latency_from {
                    times.latency.saturating_record(now.saturating_sub(marker.sent));
                }
                if marker.number < next {
                    seen.repeated += 1;
                    return;
                }
                seen.missed += u64::from(marker.number - next);
                seen.delivered += 1;
                next = marker.number + 1;
                if let Some((at, published)) = *back
                    && next >= published
                {
                    times.replay.saturating_record(now - at);
                    *back = None;
                }
            }
        });
        client.next = next;
        result
    }
}

//! One stretch of publishing and receiving, from the first publish to the last receipt.
//!
//! Fan-out runs two: a warm-up that is thrown away, and the one that counts.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock;
use crate::crowd::{Crowd, Turn};
use crate::marker::Marker;
use crate::pace::Pace;
use crate::process::{Course, Cpu};
use crate::publisher::Publisher;
use crate::template::Template;

/// How long a message may take to arrive after the last one that did, before it counts as lost.
const PATIENCE: u64 = 5_000_000_000;

/// The longest sleep, so that a loop that nothing wakes still sees that nothing comes.
const NAP: Duration = Duration::from_millis(100);

/// What all phases of a run share.
pub(crate) struct Stage {
    pub(crate) crowd: Crowd,
    /// Messages go over them in turn.
    pub(crate) publishers: Vec<Publisher>,
    /// What is published, one for each channel: they take turns.
    pub(crate) templates: Vec<Template>,
    pub(crate) pace: Pace,
    /// The server's processes.
    pub(crate) pids: Vec<u32>,
    /// The number of the next message.
    pub(crate) next: u32,
}

/// What was seen.
pub(crate) struct Phase {
    /// Messages before this one belong to an earlier phase.
    first: u32,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    /// From publish to receipt, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
    /// From the first publish to the last receipt, in nanoseconds.
    pub(crate) took: u64,
    /// Of the server, over the phase.
    pub(crate) server: Cpu,
    /// Of this process.
    pub(crate) client: Cpu,
    /// The server's memory.
    pub(crate) memory: Course,
}

impl Phase {
    fn note(&mut self, marker: Marker, now: u64) {
        if marker.number >= self.first {
            self.delivered += 1;
            self.latency.saturating_record(now.saturating_sub(marker.sent));
        }
    }
}

impl Stage {
    /// Publishes for this long or so many, and waits until everything has arrived or nothing more
    /// does.
    pub(crate) fn phase(&mut self, length: Duration, most: Option<u64>) -> anyhow::Result<Phase> {
        let mut phase = Phase {
            first: self.next,
            published: 0,
            delivered: 0,
            latency: clock::histogram()?,
            took: 0,
            server: Cpu::default(),
            client: Cpu::default(),
            memory: Course::begin(&self.pids)?,
        };
        let most = most.unwrap_or(u64::MAX);
        let (server, client) = (Cpu::of(&self.pids)?, Cpu::own()?);
        let (began, mut end) = (clock::now(), clock::nanos(length));
        let (mut turn, mut last) = (Turn::default(), 0);
        loop {
            let elapsed = clock::now() - began;
            if elapsed < end {
                self.publish(&mut phase, elapsed, most)?;
                if phase.memory.rss_half == 0
                    && (phase.published >= most / 2 || elapsed >= clock::nanos(length) / 2)
                {
                    phase.memory.half(&self.pids)?;
                }
                if phase.published == most {
                    end = elapsed;
                }
            } else if phase.delivered >= phase.published * self.audience()
                || elapsed.saturating_sub(last.max(end)) > PATIENCE
            {
                break;
            }
            let wait = match self.pace.wait(elapsed, phase.published, end) {
                Duration::ZERO if elapsed >= end => NAP,
                wait => wait.min(NAP),
            };
            let before = phase.delivered;
            self.crowd.turn(&mut turn, Some(wait), |marker, now| phase.note(marker, now))?;
            for index in &turn.others {
                if let Some(publisher) = self.publishers.get_mut(*index) {
                    publisher.attend()?;
                }
            }
            if phase.delivered > before {
                last = clock::now() - began;
            }
        }
        phase.took = last;
        phase.server = Cpu::of(&self.pids)? - server;
        phase.client = Cpu::own()? - client;
        phase.memory.end(&self.pids)?;
        Ok(phase)
    }

    /// How many subscribers a message has. (Exact while nobody is lost.)
    fn audience(&self) -> u64 {
        (self.crowd.alive() / self.templates.len().max(1)) as u64
    }

    /// Publishes that the server refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.publishers.iter().map(|publisher| publisher.tally().refused).sum()
    }

    /// Publishes what is due.
    fn publish(&mut self, phase: &mut Phase, elapsed: u64, most: u64) -> anyhow::Result<()> {
        let arrived = phase.delivered / self.audience().max(1);
        let allowed = self.pace.allowed(elapsed, arrived).min(most);
        while phase.published < allowed {
            let index = self.next as usize % self.publishers.len().max(1);
            let channel = self.next as usize % self.templates.len().max(1);
            let template = self.templates.get_mut(channel);
            if let (Some(publisher), Some(template)) = (self.publishers.get_mut(index), template) {
                publisher.publish(template, Marker { sent: clock::now(), number: self.next })?;
            }
            self.next += 1;
            phase.published += 1;
        }
        Ok(())
    }
}

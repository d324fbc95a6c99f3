//! What a run has brought, as a table.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Event, Record};
use crate::round::Outcome;
use crate::schedule::Kind;

/// The sums of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rounds: usize,
    faults: BTreeMap<Kind, usize>,
    published: usize,
    attempts: usize,
    acked: usize,
    duplicates: usize,
    refused: usize,
    unknown: usize,
    sessions: BTreeMap<&'static str, usize>,
    delivered: usize,
    passed: usize,
    slow: usize,
    resumed: usize,
    recovered: usize,
    gaps: BTreeMap<&'static str, usize>,
    scanned: usize,
    pub(crate) violations: usize,
}

impl Report {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        self.rounds += 1;
        self.violations += outcome.violations.len();
        for Record { event, .. } in &outcome.records {
            self.count(event);
        }
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Fault { kind, begins: true, .. } => *self.faults.entry(*kind).or_default() += 1,
            Event::Attempt { attempt, .. } => {
                self.attempts += 1;
                self.published += usize::from(*attempt == 1);
            }
            Event::Ack { duplicate, .. } => {
                self.acked += 1;
                self.duplicates += usize::from(*duplicate);
            }
            Event::Refused { certain: true, .. } => self.refused += 1,
            Event::Refused { certain: false, .. } => self.unknown += 1,
            Event::Open { via, .. } => *self.sessions.entry(via.as_str()).or_default() += 1,
            Event::Message { .. } => self.delivered += 1,
            Event::Position { .. } => self.passed += 1,
            Event::Start { asked: Some(_), recovered, .. } => {
                self.resumed += 1;
                self.recovered += usize::from(*recovered == Some(true));
            }
            Event::Gap { after, place, .. } => {
                let why = match (after, place) {
                    (Some(after), Some(place)) if after.life == place.life => "trimmed",
                    (None, Some(_)) => "after an unreadable id",
                    (_, Some(_)) => "in a new life",
                    _ => "on live channels",
                };
                *self.gaps.entry(why).or_default() += 1;
            }
            Event::Close { why, .. } if why.contains("\"slow\"") => self.slow += 1,
            Event::Scan { entries, .. } => self.scanned += entries.len(),
            _ => {}
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: usize = self.faults.values().sum();
        writeln!(f, "{:<28} {:>9}", "rounds", self.rounds)?;
        writeln!(f, "{:<28} {faults:>9}", "faults")?;
        for (kind, count) in &self.faults {
            writeln!(f, "  {:<26} {count:>9}", kind.to_string())?;
        }
        for (name, count) in [
            ("messages published", self.published),
            ("  attempts", self.attempts),
            ("  acknowledged", self.acked),
            ("  acknowledged as duplicates", self.duplicates),
            ("  refused, not stored", self.refused),
            ("  of unknown outcome", self.unknown),
            ("entries seen in Redis", self.scanned),
        ] {
            writeln!(f, "{name:<28} {count:>9}")?;
        }
        let sessions: usize = self.sessions.values().sum();
        writeln!(f, "{:<28} {sessions:>9}", "sessions")?;
        for (via, count) in &self.sessions {
            writeln!(f, "  {via:<26} {count:>9}")?;
        }
        for (name, count) in [
            ("  closed as slow (websocket)", self.slow),
            ("deliveries", self.delivered),
            ("moved without a message", self.passed),
            ("resumes of a channel", self.resumed),
            ("  recovered", self.recovered),
        ] {
            writeln!(f, "{name:<28} {count:>9}")?;
        }
        let gaps: usize = self.gaps.values().sum();
        writeln!(f, "{:<28} {gaps:>9}", "gaps told")?;
        for (why, count) in &self.gaps {
            writeln!(f, "  {why:<26} {count:>9}")?;
        }
        writeln!(f, "{:<28} {:>9}", "violations", self.violations)
    }
}

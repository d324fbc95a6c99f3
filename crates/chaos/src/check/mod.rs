//! The check: what the contract allows, held against a round's history.
//!
//! Pure: a history in, the violations out. `known` puts together what was stored, `acks` holds the
//! publishers' side against it, `stored` and `live` the readers'.

mod acks;
mod excluded;
mod known;
mod live;
mod stored;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::history::{Event, Record};
use crate::plan::Plan;
use excluded::Excluded;
use known::Known;

/// What the contract forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rule {
    /// Messages come in cursor order.
    Order,
    /// No message comes twice.
    Once,
    /// What is missed is told before what follows.
    SilentLoss,
    /// What is delivered or stored was published, as it was published.
    Phantom,
    /// An ack means that the message is stored.
    FalseAck,
    /// A message does not go to the session that it excludes.
    Excluded,
    /// A message is stored once for its messageId.
    Dedupe,
    /// `unavailable` means that the message is not stored.
    CertainlyNot,
    /// A gap is told only where something may be missing, and skips no more than that.
    NeedlessGap,
    /// A gap begins at the last place and names the next one.
    GapPlaces,
    /// A subscription begins where it was asked for, and says so.
    Start,
    /// In the end, everybody has everything.
    Deaf,
    /// A part misbehaved in itself.
    Flaw,
}

/// A violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    /// The number of the record at which it shows.
    pub(crate) record: usize,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} (line {}): {}", self.rule, self.record + 1, self.what)
    }
}

/// Where violations are noted.
#[derive(Default)]
struct Verdict(Vec<Violation>);

impl Verdict {
    fn note(&mut self, rule: Rule, record: usize, what: impl Into<String>) {
        self.0.push(Violation { rule, record, what: what.into() });
    }
}

/// Holds a history against the contract.
pub(crate) fn check(plan: &Plan, records: &[Record]) -> Vec<Violation> {
    let mut verdict = Verdict::default();
    let known = Known::gather(plan, records, &mut verdict);
    let excluded = Excluded::gather(records, &mut verdict);
    acks::check(plan, records, &known, &mut verdict);
    stored::check(plan, records, &known, &excluded, &mut verdict);
    live::check(plan, records, &excluded, &mut verdict);
    for (number, record) in records.iter().enumerate() {
        if let Event::Flaw { what } = &record.event {
            verdict.note(Rule::Flaw, number, what.clone());
        }
    }
    verdict.0.sort_by_key(|violation| violation.record);
    verdict.0
}

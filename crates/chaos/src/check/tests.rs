//! Made-up histories: one that is right, and one for each way to be wrong.

use tidewire_protocol::{Cursor, EntryId};

use super::{Rule, check};
use crate::history::{Entry, Event, MessageNo, Record, Via};
use crate::plan::{Mode, Plan};
use crate::schedule::Kind;

mod modes;

const STORED: usize = 0;
const LIVE: usize = 1;
const KEPT: usize = 3;

/// The place of message `n` in a life.
fn at(life: u32, n: u64) -> Cursor {
    Cursor { id: EntryId { ms: n, seq: 0 }, life, channel: 0 }
}

#[derive(Default)]
struct Story(Vec<Record>);

impl Story {
    fn tell(&mut self, event: Event) -> &mut Self {
        self.0.push(Record { at: 1_000, event });
        self
    }

    fn sent(&mut self, channel: usize, message: MessageNo) -> &mut Self {
        let via = Via::Http;
        self.tell(Event::Attempt { message, channel, publisher: 0, via, attempt: 1, exclude: None })
    }

    /// A message that is not meant for a session.
    fn sent_but_to(&mut self, session: &str, message: MessageNo, place: Cursor) -> &mut Self {
        let (via, exclude) = (Via::Http, Some(session.to_owned()));
        let channel = STORED;
        self.tell(Event::Attempt { message, channel, publisher: 0, via, attempt: 1, exclude });
        self.acked(message, place)
    }

    fn welcomed(&mut self, session: &str) -> &mut Self {
        self.tell(Event::Welcome { reader: 0, session: session.into() })
    }

    fn passes(&mut self, place: Cursor) -> &mut Self {
        self.tell(Event::Position { reader: 0, channel: STORED, place })
    }

    fn acked(&mut self, message: MessageNo, place: Cursor) -> &mut Self {
        let cursor = Some(place);
        self.tell(Event::Ack { message, channel: STORED, cursor, duplicate: false })
    }

    /// Publishes messages `from..=to` in a life, each at the place of its number.
    fn published(&mut self, life: u32, from: u64, to: u64) -> &mut Self {
        for n in from..=to {
            self.sent(STORED, n).acked(n, at(life, n));
        }
        self
    }

    fn flushed(&mut self) -> &mut Self {
        self.tell(Event::Fault { kind: Kind::Flush, node: 0, begins: true })
    }

    fn starts(&mut self, asked: Option<Cursor>, place: Cursor, told: Option<bool>) -> &mut Self {
        let place = Some(place);
        self.tell(Event::Start { reader: 0, channel: STORED, asked, place, recovered: told })
    }

    fn reads(&mut self, life: u32, from: u64, to: u64) -> &mut Self {
        for n in from..=to {
            let (place, message) = (Some(at(life, n)), Some(n));
            self.tell(Event::Message { reader: 0, channel: STORED, place, message });
        }
        self
    }

    fn gap(&mut self, after: Cursor, place: Cursor) -> &mut Self {
        let (after, place) = (Some(after), Some(place));
        self.tell(Event::Gap { reader: 0, channel: STORED, after, place })
    }

    fn closes(&mut self) -> &mut Self {
        self.tell(Event::Close { reader: 0, why: String::new() })
    }

    fn scans(&mut self, life: u32, from: u64, to: u64, hole: bool) -> &mut Self {
        let entry = |n| Entry { id: at(life, n).id, prev: None, message: Some(n) };
        let entries = (from..=to).map(entry).collect();
        self.tell(Event::Scan { channel: STORED, began: 2_000, life, hole, entries })
    }

    fn ends_with(&mut self, message: MessageNo, place: Cursor) -> &mut Self {
        self.tell(Event::Final { channel: STORED, message, cursor: Some(place) })
    }

    fn live(&mut self, message: MessageNo) -> &mut Self {
        self.tell(Event::Message { reader: 0, channel: LIVE, place: None, message: Some(message) })
    }

    fn live_sent(&mut self, from: u64, to: u64) -> &mut Self {
        for message in from..=to {
            self.sent(LIVE, message);
            self.tell(Event::Ack { message, channel: LIVE, cursor: None, duplicate: false });
        }
        self
    }

    /// Redis ends, and a replica takes over that has these of a life.
    fn inherited(&mut self, life: u32, from: u64, to: u64) -> &mut Self {
        let entries = (from..=to).map(|n| at(life, n).id).collect();
        self.tell(Event::Heir { channel: STORED, life, entries })
    }

    #[track_caller]
    fn is(&self, rules: &[Rule]) {
        self.is_in(Mode::Usual, rules);
    }

    #[track_caller]
    fn is_in(&self, mode: Mode, rules: &[Rule]) {
        let channels = [("room:0".into(), Some(KEPT)), ("live:0".into(), None)];
        let plan = Plan { mode, ..Plan::of(&channels) };
        let found = check(&plan, &self.0);
        let kinds: Vec<_> = found.iter().map(|violation| violation.rule).collect();
        assert_eq!(kinds, rules, "{found:#?}");
    }
}

fn story() -> Story {
    Story::default()
}

#[test]
fn a_history_as_it_should_be() {
    story()
        .published(1, 1, 20)
        .starts(None, at(1, 2), None)
        .reads(1, 3, 5)
        .closes()
        .starts(Some(at(1, 5)), at(1, 5), Some(true))
        .reads(1, 6, 7)
        .closes()
        // Away too long: the last ones are still kept.
        .starts(Some(at(1, 7)), at(1, 17), Some(false))
        .gap(at(1, 7), at(1, 17))
        .reads(1, 18, 20)
        .flushed()
        .published(2, 21, 23)
        .gap(at(1, 20), at(2, 21))
        .reads(2, 22, 23)
        .ends_with(23, at(2, 23))
        .is(&[]);
}

#[test]
fn a_message_that_is_missing_is_found() {
    story()
        .published(1, 1, 4)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 2)
        .reads(1, 4, 4)
        .is(&[Rule::SilentLoss]);
    // Also between two sessions.
    story()
        .published(1, 1, 4)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 2)
        .closes()
        .starts(Some(at(1, 2)), at(1, 2), Some(true))
        .reads(1, 4, 4)
        .is(&[Rule::SilentLoss]);
    // Also if nobody but the witness saw it.
    story()
        .published(1, 1, 2)
        .sent(STORED, 3)
        .published(1, 4, 4)
        .scans(1, 1, 4, false)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 2)
        .reads(1, 4, 4)
        .is(&[Rule::SilentLoss]);
    // A subscription may not begin later than it was asked to.
    story()
        .published(1, 1, 4)
        .starts(Some(at(1, 2)), at(1, 3), Some(true))
        .reads(1, 4, 4)
        .is(&[Rule::Start]);
}

#[test]
fn what_a_session_is_not_meant_to_get_is_no_loss() {
    let begun = |story: &mut Story| {
        story.published(1, 1, 2).sent_but_to("s", 3, at(1, 3)).published(1, 4, 4);
        story.welcomed("s").starts(None, at(1, 1), None).reads(1, 2, 2);
    };
    let with = |end: &dyn Fn(&mut Story), rules: &[Rule]| {
        let mut told = story();
        begun(&mut told);
        end(&mut told);
        told.is(rules);
    };
    with(
        &|told| {
            told.reads(1, 4, 4);
        },
        &[],
    );
    with(
        &|told| {
            told.passes(at(1, 3)).reads(1, 4, 4);
        },
        &[],
    );
    with(
        &|told| {
            told.reads(1, 3, 4);
        },
        &[Rule::Excluded],
    );
    // Another session of the reader may get it.
    let resumed = |told: &mut Story| {
        told.closes().welcomed("t").starts(Some(at(1, 2)), at(1, 2), Some(true)).reads(1, 3, 4);
    };
    with(&resumed, &[]);
    // What is passed over must be what it is not meant to get.
    with(
        &|told| {
            told.passes(at(1, 4));
        },
        &[Rule::SilentLoss],
    );
}

#[test]
fn a_new_life_without_a_gap_is_found() {
    story()
        .flushed()
        .published(1, 1, 2)
        .published(2, 3, 3)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 2)
        .reads(2, 3, 3)
        .is(&[Rule::SilentLoss]);
    story()
        .flushed()
        .published(1, 1, 2)
        .published(2, 3, 3)
        .starts(Some(at(1, 1)), at(2, 2), Some(false))
        .reads(2, 3, 3)
        .is(&[Rule::SilentLoss]);
    story()
        .flushed()
        .published(1, 1, 2)
        .scans(1, 1, 2, false)
        .published(2, 3, 3)
        .scans(2, 3, 3, false)
        .starts(Some(at(2, 3)), at(1, 1), Some(false))
        .gap(at(2, 3), at(1, 1))
        .is(&[Rule::Order]);
}

#[test]
fn what_comes_twice_or_in_disorder_is_found() {
    story()
        .published(1, 1, 3)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 2)
        .reads(1, 2, 2)
        .is(&[Rule::Once]);
    story()
        .published(1, 1, 3)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 3)
        .reads(1, 2, 2)
        .is(&[Rule::Order]);
    story()
        .published(1, 1, 3)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 3)
        .closes()
        .starts(Some(at(1, 3)), at(1, 3), Some(true))
        .reads(1, 3, 3)
        .is(&[Rule::Once]);
    story().published(1, 1, 2).acked(2, at(1, 3)).is(&[Rule::Dedupe]);
    // In another life Redis may have lost the first.
    story().published(1, 1, 2).flushed().acked(2, at(2, 3)).is(&[]);
    story().published(1, 1, 2).acked(2, at(2, 3)).is(&[Rule::NeedlessGap]);
}

#[test]
fn a_needless_gap_is_found() {
    story()
        .published(1, 1, 4)
        .starts(Some(at(1, 1)), at(1, 3), Some(false))
        .gap(at(1, 1), at(1, 3))
        .reads(1, 4, 4)
        .is(&[Rule::NeedlessGap]);
    // It had to be told, and skips what is kept.
    story()
        .published(1, 1, 9)
        .starts(Some(at(1, 1)), at(1, 8), Some(false))
        .gap(at(1, 1), at(1, 8))
        .reads(1, 9, 9)
        .is(&[Rule::NeedlessGap]);
    story()
        .published(1, 1, 9)
        .starts(Some(at(1, 1)), at(1, 6), Some(false))
        .gap(at(1, 2), at(1, 6))
        .reads(1, 7, 9)
        .is(&[Rule::GapPlaces]);
}

#[test]
fn a_false_ack_is_found() {
    story().published(1, 1, 3).scans(1, 1, 2, false).is(&[Rule::FalseAck]);
    story()
        .published(1, 1, 3)
        .tell(Event::Scan {
            channel: STORED,
            life: 1,
            began: 2_000,
            hole: false,
            entries: vec![
                Entry { id: at(1, 1).id, prev: None, message: Some(1) },
                Entry { id: at(1, 3).id, prev: None, message: Some(3) },
            ],
        })
        .is(&[Rule::FalseAck]);
    // What was trimmed between two looks cannot be seen.
    story().published(1, 1, 9).scans(1, 1, 2, false).scans(1, 7, 9, true).is(&[]);
    // What Redis lost in another life is its own loss.
    story()
        .flushed()
        .published(1, 1, 3)
        .published(2, 4, 4)
        .scans(2, 1, 1, false)
        .scans(2, 4, 4, false)
        .is(&[]);
}

#[test]
fn other_lies_of_acks_are_found() {
    let refused =
        |certain| Event::Refused { message: 1, channel: STORED, certain, why: String::new() };
    story().sent(STORED, 1).tell(refused(true)).scans(1, 1, 1, false).is(&[Rule::CertainlyNot]);
    story().sent(STORED, 1).tell(refused(false)).scans(1, 1, 1, false).is(&[]);
    story()
        .sent(STORED, 1)
        .tell(Event::Ack { message: 1, channel: STORED, cursor: None, duplicate: false })
        .is(&[Rule::FalseAck]);
    story()
        .sent(STORED, 1)
        .tell(Event::Ack { message: 1, channel: STORED, cursor: Some(at(1, 1)), duplicate: true })
        .is(&[Rule::Dedupe]);
}

#[test]
fn a_message_of_nobody_is_found() {
    story().published(1, 1, 2).starts(None, at(1, 1), None).reads(1, 2, 3).is(&[Rule::Phantom]);
    story().published(1, 1, 2).sent(STORED, 3).acked(3, at(1, 2)).is(&[Rule::Phantom]);
}

#[test]
fn a_reader_that_hears_nothing_is_found() {
    story()
        .published(1, 1, 3)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 2)
        .ends_with(3, at(1, 3))
        .is(&[Rule::Deaf]);
    // It must know of the new life, too.
    story()
        .flushed()
        .published(1, 1, 3)
        .published(2, 4, 4)
        .starts(None, at(1, 1), None)
        .reads(1, 2, 3)
        .ends_with(4, at(2, 4))
        .is(&[Rule::Deaf]);
}

#[test]
fn live_channels_tell_losses_within_a_session() {
    let start = |story: &mut Story| {
        story.tell(Event::Start {
            reader: 0,
            channel: LIVE,
            asked: None,
            place: None,
            recovered: None,
        });
    };
    let gap = Event::Gap { reader: 0, channel: LIVE, after: None, place: None };
    let mut right = story();
    start(right.live_sent(1, 6));
    right.live(1).live(2).tell(gap).live(4);
    start(right.closes());
    right.live(6).is(&[]);
    let mut lost = story();
    start(lost.live_sent(1, 3));
    lost.live(1).live(3).is(&[Rule::SilentLoss]);
    let mut twice = story();
    start(twice.live_sent(1, 3));
    twice.live(1).live(2).live(2).is(&[Rule::Once]);
    let mut disorder = story();
    start(disorder.live_sent(1, 3));
    disorder.live(1).live(2).live(3).live(1).is(&[Rule::Once, Rule::Order]);
}

#[test]
fn a_flaw_is_a_violation() {
    story().tell(Event::Flaw { what: "a node panicked".into() }).is(&[Rule::Flaw]);
}

#[test]
fn the_place_before_the_first_message_has_many_names() {
    let first = |ms| Cursor { id: EntryId::before_first(ms), life: 1, channel: 0 };
    // A poll that begins on one node and ends on another, whose name is older.
    story()
        .published(1, 1, 1)
        .starts(Some(first(9)), first(9), Some(true))
        .passes(first(5))
        .reads(1, 1, 1)
        .is(&[]);
    story()
        .published(1, 1, 1)
        .starts(Some(at(1, 1)), at(1, 1), Some(true))
        .passes(first(5))
        .is(&[Rule::Order]);
}

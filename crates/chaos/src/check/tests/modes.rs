//! What the modes of the checker ask besides, and ids that cannot be read.

use super::*;

#[test]
fn where_nothing_can_be_lost_only_what_is_trimmed_is_a_gap() {
    let restarted = Event::Fault { kind: Kind::RedisRestart, node: 0, begins: true };
    let mut trimmed = story();
    trimmed.published(1, 1, 5).tell(restarted.clone()).published(1, 6, 9);
    trimmed.starts(Some(at(1, 1)), at(1, 6), Some(false)).gap(at(1, 1), at(1, 6)).reads(1, 7, 9);
    trimmed.is_in(Mode::Trust, &[]);
    let mut anew = story();
    anew.published(1, 1, 2).scans(1, 1, 2, false).tell(restarted);
    anew.published(2, 3, 4).scans(2, 3, 4, false);
    anew.starts(None, at(1, 1), None).reads(1, 2, 2).gap(at(1, 2), at(2, 3)).reads(2, 4, 4);
    anew.is(&[]);
    // The life in itself, and that it was told.
    anew.is_in(Mode::Trust, &[Rule::NeedlessGap, Rule::NeedlessGap]);
}

#[test]
fn an_ack_that_did_not_wait_for_the_replica_is_found() {
    story().published(1, 1, 4).inherited(1, 1, 4).is_in(Mode::Standby, &[]);
    story().published(1, 1, 4).inherited(1, 1, 3).is_in(Mode::Standby, &[Rule::FalseAck]);
    // What was trimmed there is no loss; nor what nobody was told of, or is of another life.
    story().published(1, 1, 4).inherited(1, 3, 4).is_in(Mode::Standby, &[]);
    story().published(1, 1, 4).sent(STORED, 5).inherited(1, 1, 4).is_in(Mode::Standby, &[]);
    story().flushed().published(1, 1, 2).published(2, 3, 4).inherited(2, 3, 4).is(&[]);
    // An ack that comes when the master has died counts as well.
    story().published(1, 1, 3).inherited(1, 1, 3).published(1, 4, 4).is(&[Rule::FalseAck]);
}

#[test]
fn an_id_that_cannot_be_read_is_owed_a_gap_from_nowhere() {
    let begun = |story: &mut Story| {
        story.published(1, 1, 4).starts(None, at(1, 1), None).reads(1, 2, 2).closes();
        story.tell(Event::Garbage { reader: 0 });
    };
    let from_nowhere =
        Event::Gap { reader: 0, channel: STORED, after: None, place: Some(at(1, 3)) };
    let with = |end: &dyn Fn(&mut Story), rules: &[Rule]| {
        let mut told = story();
        begun(&mut told);
        end(&mut told);
        told.is_in(Mode::Trust, rules);
    };
    with(
        &|told| {
            told.starts(None, at(1, 3), Some(false)).tell(from_nowhere.clone()).reads(1, 4, 4);
            // The next session has an id again.
            told.closes().starts(Some(at(1, 4)), at(1, 4), Some(true));
        },
        &[],
    );
    with(
        &|told| {
            told.starts(None, at(1, 3), Some(false)).reads(1, 4, 4);
        },
        &[Rule::SilentLoss],
    );
    with(
        &|told| {
            told.starts(None, at(1, 3), None).reads(1, 4, 4);
        },
        &[Rule::Start],
    );
    with(
        &|told| {
            told.starts(None, at(1, 3), Some(false)).gap(at(1, 2), at(1, 3)).reads(1, 4, 4);
        },
        &[Rule::GapPlaces, Rule::NeedlessGap],
    );
    // Elsewhere a gap names the place after which it is.
    story()
        .published(1, 1, 4)
        .starts(None, at(1, 2), None)
        .tell(from_nowhere.clone())
        .reads(1, 4, 4)
        .is(&[Rule::GapPlaces, Rule::NeedlessGap]);
}

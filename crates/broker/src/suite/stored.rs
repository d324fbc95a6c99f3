//! The obligations on stored channels.

use tidewire_protocol::{Channel, Cursor, EntryId, Message, Payload};

use super::{Node, Told, channel, message};
use crate::reading::id_of;
use crate::{PublishError, Published, Publisher, Query, Reading, Verdict};

pub(super) async fn run(publisher: &Node, subscriber: &Node) {
    messages_are_kept_and_linked(publisher, subscriber).await;
    an_empty_channel_has_a_place(publisher, subscriber).await;
    what_is_sent_again_is_a_duplicate(publisher, subscriber).await;
    another_body_with_the_same_id_is_a_conflict(publisher).await;
    publishers_do_not_share_their_ids(publisher, subscriber).await;
    only_so_many_are_kept(publisher).await;
    ranges_are_exclusive_and_bounded(publisher).await;
    what_is_read_is_bounded_in_bytes(publisher).await;
    the_last_id_outlives_the_messages(publisher).await;
    subscriber.told.take();
}

async fn publish(node: &Node, to: &Channel, message: Message) -> Published {
    publish_as(node, to, message, Publisher::Anonymous)
        .await
        .unwrap_or_else(|error| panic!("{to}: {error}"))
}

async fn publish_as(
    node: &Node,
    to: &Channel,
    message: Message,
    publisher: Publisher,
) -> Result<Published, PublishError> {
    node.broker.publish(to.clone(), message, publisher).await
}

async fn read(node: &Node, of: &Channel, query: Query) -> Reading {
    node.broker.read(of, query).await.unwrap_or_else(|error| panic!("{of}: {error}"))
}

fn place(published: Published) -> EntryId {
    published.place.unwrap_or_else(|| panic!("no place: {published:?}")).1
}

fn ids(reading: &Reading) -> Vec<EntryId> {
    reading.entries.iter().filter_map(id_of).collect()
}

async fn next_message(node: &Node, of: &Channel) -> Message {
    loop {
        match node.told.next().await {
            Told::Message(from, message, _) if from == *of => return message,
            // The embedded broker leaves it to the hub to ignore channels that nobody wants.
            Told::Message(..) => {}
            other => panic!("expected a message of {of}, got {other:?}"),
        }
    }
}

async fn messages_are_kept_and_linked(publisher: &Node, subscriber: &Node) {
    let to = channel("kept:linked");
    subscriber.subscribe(&to).await;
    let mut before = None;
    let mut all = Vec::new();
    for n in 0..20 {
        let published = publish(publisher, &to, message(n)).await;
        assert!(!published.duplicate);
        let (incarnation, id) = published.place.unwrap_or_else(|| panic!("no place"));
        let got = next_message(subscriber, &to).await;
        let stored = got.stored.unwrap_or_else(|| panic!("{got:?} is not stored"));
        assert_eq!((stored.incarnation, stored.id, stored.prev), (incarnation, id, before));
        assert_eq!(got.timestamp.as_millis(), id.ms);
        let mut sent = message(n);
        (sent.timestamp, sent.stored) = (got.timestamp, got.stored);
        assert_eq!(got, sent);
        before = Some(id);
        all.push(got);
    }
    let reading = read(subscriber, &to, Query::newest(50)).await;
    assert_eq!(reading.entries, all);
    assert_eq!(reading.top, before);
    assert!(Some(reading.present()) == before);
    // The rule of going on, from each place.
    for (n, message) in all.iter().enumerate() {
        let stored = message.stored.unwrap_or_else(|| panic!("{message:?}"));
        let cursor = Cursor::new(&to, stored.incarnation, stored.id);
        assert_eq!(reading.judge(cursor), Verdict::GoesOn(n + 1));
        let foreign = Cursor { life: cursor.life ^ 1, ..cursor };
        assert_eq!(reading.judge(foreign), Verdict::Gap(20));
        let unknown = Cursor { id: EntryId { seq: stored.id.seq + 1_000, ..stored.id }, ..cursor };
        assert!(matches!(reading.judge(unknown), Verdict::Gap(_)));
    }
}

async fn an_empty_channel_has_a_place(publisher: &Node, subscriber: &Node) {
    let to = channel("kept:empty");
    let reading = read(subscriber, &to, Query::newest(50)).await;
    assert!(reading.top.is_none() && reading.entries.is_empty());
    let place = reading.present();
    assert!(place.is_before_first() && place.seq == reading.now);
    let cursor = reading.cursor(&to, place);
    assert_eq!(reading.judge(cursor), Verdict::GoesOn(0));
    publish(publisher, &to, message(1)).await;
    let reading = read(subscriber, &to, Query::after(place, 50)).await;
    assert_eq!(reading.judge(cursor), Verdict::GoesOn(0));
    let old = EntryId::before_first(0);
    assert_eq!(reading.judge(reading.cursor(&to, old)), Verdict::Gap(0));
}

async fn what_is_sent_again_is_a_duplicate(publisher: &Node, subscriber: &Node) {
    let to = channel("kept:again");
    subscriber.subscribe(&to).await;
    let first = publish(publisher, &to, message(1)).await;
    next_message(subscriber, &to).await;
    for node in [publisher, subscriber, publisher] {
        // A gateway's time-stamp differs each time; what was said is the same.
        let mut again = message(1);
        again.timestamp = tidewire_protocol::Timestamp::now();
        let published = publish(node, &to, again).await;
        assert_eq!(published, Published { duplicate: true, ..first });
    }
    publish(publisher, &to, message(2)).await;
    assert_eq!(next_message(subscriber, &to).await.payload, message(2).payload, "delivered twice");
}

async fn another_body_with_the_same_id_is_a_conflict(publisher: &Node) {
    let to = channel("kept:conflict");
    publish(publisher, &to, message(1)).await;
    let mut other = message(1);
    other.payload = Payload::text("something else");
    let outcome = publish_as(publisher, &to, other, Publisher::Anonymous).await;
    assert_eq!(outcome, Err(PublishError::Conflict));
    assert_eq!(read(publisher, &to, Query::newest(50)).await.entries.len(), 1);
}

async fn publishers_do_not_share_their_ids(publisher: &Node, subscriber: &Node) {
    let to = channel("kept:publishers");
    let users = ["alice", "bob"].map(|user| Publisher::User(user.into()));
    for who in [Publisher::Anonymous, users[0].clone(), users[1].clone()] {
        let outcome = publish_as(publisher, &to, message(1), who).await;
        assert!(outcome.is_ok_and(|published| !published.duplicate));
    }
    assert_eq!(read(subscriber, &to, Query::newest(50)).await.entries.len(), 3);
}

async fn only_so_many_are_kept(publisher: &Node) {
    let to = channel("kept:trimmed");
    let mut places = Vec::new();
    for n in 0..300 {
        places.push(place(publish(publisher, &to, message(n)).await));
    }
    assert!(places.is_sorted(), "ids rise");
    let reading = read(publisher, &to, Query::newest(1_000)).await;
    let kept = ids(&reading);
    // Redis trims by whole nodes of its tree; at least what was asked for is kept.
    assert!((50..250).contains(&kept.len()), "{} are kept", kept.len());
    assert_eq!(kept, places[places.len() - kept.len()..]);
    let cursor = |id| reading.cursor(&to, id);
    assert_eq!(reading.judge(cursor(places[0])), Verdict::Gap(0));
    let last = places.len() - 1;
    assert_eq!(reading.judge(cursor(places[last])), Verdict::GoesOn(kept.len()));
}

async fn ranges_are_exclusive_and_bounded(publisher: &Node) {
    let to = channel("kept:ranges");
    let mut places = Vec::new();
    for n in 0..10 {
        places.push(place(publish(publisher, &to, message(n)).await));
    }
    for (query, expected) in [
        (Query::after(places[3], 100), &places[4..]),
        (Query::after(places[3], 2), &places[4..6]),
        (Query::newest(3), &places[7..]),
        (Query { before: Some(places[3]), ..Query::newest(2) }, &places[1..3]),
        (
            Query {
                after: Some(places[1]),
                before: Some(places[4]),
                limit: 9,
                newest: false,
                bytes: None,
            },
            &places[2..4],
        ),
        (
            Query {
                after: Some(places[1]),
                before: Some(places[2]),
                limit: 9,
                newest: true,
                bytes: None,
            },
            &[],
        ),
    ] {
        let reading = read(publisher, &to, query).await;
        assert_eq!(ids(&reading), expected, "{query:?}");
        assert_eq!(reading.top, Some(places[9]));
    }
}

/// A page of a thousand large messages would be held whole by whoever reads it.
async fn what_is_read_is_bounded_in_bytes(publisher: &Node) {
    let to = channel("kept:bytes");
    let mut places = Vec::new();
    for n in 0..40 {
        let large = format!("\"{n}{}\"", "x".repeat(1_000));
        let mut message = message(n);
        message.payload = Payload::Json(large.into());
        places.push(place(publish(publisher, &to, message).await));
    }
    for (query, expected, is_cut) in [
        (Query { bytes: Some(2_500), ..Query::newest(50) }, &places[37..], true),
        (Query { bytes: Some(2_500), ..Query::after(places[0], 50) }, &places[1..4], true),
        // One at least; and who has room for all of them gets all.
        (Query { bytes: Some(1), ..Query::newest(50) }, &places[39..], true),
        (Query { bytes: Some(100_000), ..Query::newest(50) }, &places[..], false),
        (Query { bytes: Some(100_000), ..Query::newest(2) }, &places[38..], false),
    ] {
        let reading = read(publisher, &to, query).await;
        assert_eq!(ids(&reading), expected, "{query:?}");
        assert_eq!(reading.is_cut, is_cut, "{query:?}");
    }
    // More than a broker reads in one go.
    for query in [Query::newest(50), Query::after(places[0], 50)] {
        let reading = read(publisher, &to, Query { bytes: Some(38_500), ..query }).await;
        let found = ids(&reading);
        assert!((32..40).contains(&found.len()) && reading.is_cut, "{query:?}: {}", found.len());
        let from = if query.newest { places.len() - found.len() } else { 1 };
        assert_eq!(found, places[from..from + found.len()], "{query:?}");
    }
}

async fn the_last_id_outlives_the_messages(publisher: &Node) {
    let to = channel("brief:outlived");
    let id = place(publish(publisher, &to, message(1)).await);
    let gone = async {
        loop {
            let reading = read(publisher, &to, Query::newest(50)).await;
            if reading.entries.is_empty() {
                return reading;
            }
        }
    };
    let reading = tokio::time::timeout(super::PATIENCE, gone).await;
    let reading = reading.unwrap_or_else(|_| panic!("never expired"));
    assert_eq!(reading.top, Some(id));
    assert_eq!(reading.judge(reading.cursor(&to, id)), Verdict::GoesOn(0));
    let mut next = message(2);
    next.stored = None;
    let after = place(publish(publisher, &to, next).await);
    let reading = read(publisher, &to, Query::newest(50)).await;
    assert_eq!(reading.entries[0].stored.and_then(|stored| stored.prev), Some(id));
    assert!(after > id);
}

//! When a subscription begins, what it gets, and what the broker is asked for.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Rig, Told, channel};
use tidewire_broker::Events;
use tidewire_protocol::Code;

const LINGER: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_subscription_begins_when_the_broker_confirms_it() {
    let rig = Rig::new(2, LINGER);
    let a = channel("a");
    let mut first = rig.subscriber(0, &a).await;
    let mut second = rig.subscriber(1, &a).await;
    // One wish for both; what comes before the confirmation is not theirs.
    assert_eq!(*rig.broker.wishes.lock(), [(true, a.clone())]);
    rig.publish(&a, 1);
    rig.hub().subscribed(&a);
    rig.publish(&a, 2);
    rig.publish(&a, 3);
    for subscriber in [&mut first, &mut second] {
        assert_eq!(subscriber.told().await, Told::Subscribed(a.clone()));
        assert_eq!(subscriber.until("data: 3\n\n").await, "subscribeddata: 2\n\ndata: 3\n\n");
    }
    // Who comes later begins where it came, also between messages of one turn.
    rig.publish(&a, 4);
    let mut third = rig.subscriber(0, &a).await;
    rig.publish(&a, 5);
    assert_eq!(third.until("data: 5\n\n").await, "subscribeddata: 5\n\n");
    assert_eq!(first.until("data: 5\n\n").await, "data: 4\n\ndata: 5\n\n");
}

#[tokio::test]
async fn who_comes_while_the_link_is_down_begins_behind_the_gap() {
    let rig = Rig::new(1, LINGER);
    let a = channel("a");
    let mut before = rig.subscriber(0, &a).await;
    rig.hub().subscribed(&a);
    assert_eq!(before.told().await, Told::Subscribed(a.clone()));
    rig.hub().broken(&a);
    let mut meanwhile = rig.subscriber(0, &a).await;
    rig.hub().gap(&a);
    rig.publish(&a, 1);
    assert_eq!(before.until("data: 1\n\n").await, "subscribedgapdata: 1\n\n");
    assert_eq!(meanwhile.told().await, Told::Subscribed(a));
    assert_eq!(meanwhile.until("data: 1\n\n").await, "subscribeddata: 1\n\n");
}

#[tokio::test]
async fn a_channel_lingers_and_is_then_let_go() {
    let rig = Rig::new(1, Duration::ZERO);
    let a = channel("a");
    let one = rig.subscriber(0, &a).await;
    rig.hub().subscribed(&a);
    rig.hub().sweep();
    assert_eq!(rig.hub().list("", "", 10).len(), 1, "in use");
    one.leave().await;
    assert_eq!(rig.hub().list("", "", 10).len(), 0);
    rig.hub().sweep();
    assert_eq!(*rig.broker.wishes.lock(), [(true, a.clone()), (false, a.clone())]);
    // Anew, it is asked for anew.
    let mut again = rig.subscriber(0, &a).await;
    rig.hub().subscribed(&a);
    assert_eq!(again.told().await, Told::Subscribed(a));
    assert_eq!(rig.broker.wishes.lock().len(), 3);
}

#[tokio::test]
async fn who_comes_back_while_it_lingers_needs_no_new_wish() {
    let rig = Rig::new(1, LINGER);
    let a = channel("a");
    let one = rig.subscriber(0, &a).await;
    rig.hub().subscribed(&a);
    for _ in 0..10 {
        let mut other = rig.subscriber(0, &a).await;
        assert_eq!(other.told().await, Told::Subscribed(a.clone()));
        other.leave().await;
    }
    one.leave().await;
    let mut back = rig.subscriber(0, &a).await;
    assert_eq!(back.told().await, Told::Subscribed(a.clone()));
    rig.hub().sweep();
    assert_eq!(rig.broker.wishes.lock().len(), 1);
}

#[tokio::test]
async fn a_refused_channel_ends_all_its_subscriptions() {
    let rig = Rig::new(2, LINGER);
    let a = channel("a");
    let mut waiting = rig.subscriber(0, &a).await;
    rig.hub().refused(&a, "no permission");
    assert_eq!(waiting.told().await, Told::Refused(a.clone(), Code::Unavailable));
    let mut active = rig.subscriber(1, &a).await;
    rig.hub().subscribed(&a);
    assert_eq!(active.told().await, Told::Subscribed(a.clone()));
    rig.hub().refused(&a, "no permission any more");
    assert_eq!(active.told().await, Told::Refused(a.clone(), Code::Unavailable));
    // Their leaving afterwards does not touch a new life of the channel.
    let mut anew = rig.subscriber(0, &a).await;
    waiting.leave().await;
    active.leave().await;
    rig.hub().subscribed(&a);
    assert_eq!(anew.told().await, Told::Subscribed(a.clone()));
    assert_eq!(rig.hub().list("", "", 10)[0].subscribers, 1);
}

#[tokio::test]
async fn a_crowd_that_left_is_forgotten_and_who_stayed_is_served() {
    let rig = Rig::new(1, LINGER);
    let a = channel("a");
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(rig.subscriber(0, &a).await);
    }
    rig.hub().subscribed(&a);
    // More than begin in one turn.
    for one in &mut crowd {
        assert_eq!(one.told().await, Told::Subscribed(a.clone()));
    }
    let mut stay = crowd.split_off(280);
    for one in crowd {
        one.leave().await;
    }
    // The lane's sweep passes once a second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    rig.publish(&a, 1);
    stay.push(rig.subscriber(0, &a).await);
    rig.publish(&a, 2);
    for one in &mut stay[..20] {
        assert_eq!(one.until("data: 2\n\n").await, "subscribeddata: 1\n\ndata: 2\n\n");
    }
    assert_eq!(rig.hub().list("", "", 10)[0].subscribers, 21);
    for one in stay {
        one.leave().await;
    }
    assert_eq!(rig.hub().list("", "", 10).len(), 0);
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_not_waited_for() {
    let rig = Rig::new(1, LINGER);
    let a = channel("a");
    let mut hasty = rig.patient(0, &a, Some(Duration::ZERO)).await;
    let mut patient = rig.subscriber(0, &a).await;
    assert_eq!(hasty.told().await, Told::Refused(a.clone(), Code::Unavailable));
    rig.hub().subscribed(&a);
    assert_eq!(patient.told().await, Told::Subscribed(a));
}

#[tokio::test]
async fn lanes_that_are_behind_say_so() {
    let rig = Rig::new(1, LINGER);
    let a = channel("a");
    let mut one = rig.subscriber(0, &a).await;
    rig.hub().subscribed(&a);
    one.told().await;
    // The lane is held up; what waits for it fills its room.
    let (go, held) = std::sync::mpsc::channel::<()>();
    rig.lanes.handles()[0].run(move |_| {
        let _ = held.recv();
    });
    let mut sent = 0;
    while rig.hub().has_room() {
        rig.publish(&a, sent);
        sent += 1;
        assert!(sent < 10_000, "room without end");
    }
    drop(go);
    rig.hub().room().await;
    assert!(rig.hub().has_room());
    let last = format!("data: {}\n\n", sent - 1);
    let all = one.until(&last).await;
    assert_eq!(all.matches("data: ").count() as u64, sent);
}

#[tokio::test]
async fn a_drain_is_spread_evenly() {
    let rig = Rig::new(1, LINGER);
    let a = channel("a");
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(rig.subscriber(0, &a).await);
    }
    rig.on(0, |lane| lane.drain(Duration::from_millis(200))).await;
    let mut due = Vec::new();
    for one in &mut all {
        match one.told().await {
            Told::Shutdown(after) => due.push(after.as_millis()),
            other => panic!("{other:?}"),
        }
        assert_eq!(one.told().await, Told::End);
    }
    due.sort_unstable();
    assert_eq!(due, [50, 100, 150, 200]);
}

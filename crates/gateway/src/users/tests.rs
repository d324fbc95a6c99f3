use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn who(name: &str) -> Identity {
    Identity { who: tidewire_auth::Who::User(name.into()), ..(*Identity::anonymous()).clone() }
}

fn grant_alive(users: &Users, (granted, elsewhere, alive): (u64, u64, u64), now: Instant) {
    let claims = users.claims(now);
    let grants = vec![Some(Grant { granted, elsewhere, alive }); claims.len()];
    users.granted(&claims, &grants, now);
}

fn grant(users: &Users, granted: u64, elsewhere: u64, now: Instant) {
    grant_alive(users, (granted, elsewhere, 0), now);
}

fn places(users: &Arc<Users>, count: usize) -> Vec<UserPlace> {
    (0..count).map(|_| place(users, "alice").unwrap().unwrap()).collect()
}

fn place(users: &Arc<Users>, user: &str) -> Result<Option<UserPlace>, Full> {
    users.place(&who(user), Instant::now())
}

fn over(places: &[UserPlace]) -> Vec<bool> {
    places.iter().map(|place| matches!(place.told(), Told::Over { .. })).collect()
}

/// What they are claimed with, without those of whom nothing is.
fn counts(claims: &[Claim]) -> Vec<(&str, u64)> {
    claims.iter().map(|claim| (&*claim.user, claim.count)).collect()
}

/// All that were asked whether they are there say so.
fn answer(users: &Users, places: &[UserPlace], now: Instant) {
    places.iter().for_each(UserPlace::is_here);
    users.settle(now);
}

#[test]
fn the_newest_beyond_are_taken_back_and_no_sooner_than_must() {
    let users = Users::new(Some(4));
    let held = places(&users, 3);
    let begun = Instant::now().checked_sub(20 * SECOND).unwrap();
    for second in 0..10 {
        let now = begun + second * SECOND;
        grant(&users, 1, 3, now);
        assert_eq!(users.take_back(now), 0, "{second}");
    }
    grant(&users, 1, 3, begun + 10 * SECOND);
    assert_eq!(users.take_back(begun + 10 * SECOND), 2);
    assert_eq!(over(&held), [false, true, true]);
    // Nobody said that those elsewhere are alive: it may come back.
    assert_eq!(held[2].told(), Told::Over { is_final: false });
    // What was taken back is not given back a second time.
    drop(held);
    assert_eq!(counts(&users.claims(begun + 11 * SECOND)), [("alice", 0)]);
}

#[test]
fn who_has_too_many_that_live_is_told_for_good() {
    let users = Users::new(Some(4));
    let held = places(&users, 3);
    let begun = Instant::now().checked_sub(20 * SECOND).unwrap();
    grant(&users, 1, 3, begun);
    assert_eq!(held[0].told(), Told::Asked);
    answer(&users, &held, begun);
    for second in 1..6 {
        grant_alive(&users, (1, 3, 3), begun + second * SECOND);
        assert_eq!(users.take_back(begun + second * SECOND), 0, "{second}");
    }
    grant_alive(&users, (1, 3, 3), begun + 6 * SECOND);
    assert_eq!(users.take_back(begun + 6 * SECOND), 2);
    assert_eq!(held[1].told(), Told::Over { is_final: true });
    // What comes too late changes nothing.
    held[1].is_here();
    assert_eq!(held[1].told(), Told::Over { is_final: true });
}

/// Each refusal has the others asked anew: until they had answered, further ones were let in for seconds.
#[test]
fn who_is_asked_again_lets_nobody_in_meanwhile() {
    let users = Users::new(Some(4));
    let held = places(&users, 3);
    let begun = Instant::now().checked_sub(8 * SECOND).unwrap();
    grant(&users, 1, 3, begun);
    answer(&users, &held, begun);
    (1..=6).for_each(|second| grant_alive(&users, (1, 3, 3), begun + second * SECOND));
    assert_eq!(users.take_back(begun + 6 * SECOND), 2);
    grant_alive(&users, (1, 3, 0), begun + 7 * SECOND);
    assert!(place(&users, "alice").is_err());
}

#[test]
fn what_others_said_of_another_time_does_not_count() {
    let users = Users::new(Some(4));
    let _held = places(&users, 3);
    let begun = Instant::now().checked_sub(20 * SECOND).unwrap();
    // It is over from now on, and the others had answered before.
    grant_alive(&users, (1, 3, 3), begun);
    let claims = users.claims(begun + SECOND);
    assert_eq!(claims[0].asks, Asks::Anew);
    let grant = Grant { granted: 1, elsewhere: 3, alive: 0 };
    users.granted(&claims, &[Some(grant)], begun + SECOND);
    assert_eq!(users.claims(begun + 2 * SECOND)[0].asks, Asks::Open);
}

#[test]
fn another_node_is_told_once_who_is_there() {
    let users = Users::new(Some(4));
    let held = places(&users, 3);
    let now = Instant::now();
    grant(&users, 3, 0, now);
    assert_eq!(users.claims(now), []);
    users.ask(&["alice".into(), "nobody".into()], now);
    held[0].waits();
    answer(&users, &held[..2], now);
    assert_eq!(users.claims(now), [], "one has not answered");
    // It cannot: this is known, too.
    held[2].is_unknown();
    users.settle(now);
    let claims = users.claims(now);
    assert_eq!((claims[0].count, claims[0].answered, claims[0].asks), (3, Some(2), Asks::No));
    // Until it has arrived.
    assert_eq!(users.claims(now)[0].answered, Some(2));
    grant(&users, 3, 0, now);
    assert_eq!(users.claims(now), []);
    // Not again and again.
    users.ask(&["alice".into()], now + 4 * SECOND);
    assert_eq!(held[0].told(), Told::Nothing);
    users.ask(&["alice".into()], now + 5 * SECOND);
    assert_eq!(held[0].told(), Told::Asked);
    // Who has nobody that could answer is waited for no longer than that.
    users.settle(now + 8 * SECOND);
    assert!(users.is_asking());
    users.settle(now + 9 * SECOND);
    assert_eq!(users.claims(now)[0].answered, Some(0));
}

#[test]
fn nobody_is_closed_or_refused_for_what_is_not_known_any_more() {
    let users = Users::new(Some(4));
    let mut held = places(&users, 3);
    let begun = Instant::now().checked_sub(20 * SECOND).unwrap();
    (0..=10).for_each(|second| grant(&users, 1, 3, begun + second * SECOND));
    // Redis is away.
    assert_eq!(users.take_back(begun + 14 * SECOND), 0);
    held.extend(places(&users, 1));
    assert!(place(&users, "alice").is_err(), "the node's own count holds");
    // It is back: the patience begins anew.
    grant(&users, 1, 3, begun + 15 * SECOND);
    assert_eq!(users.take_back(begun + 15 * SECOND), 0);
    grant(&users, 4, 0, begun + 16 * SECOND);
    assert_eq!(users.take_back(begun + 40 * SECOND), 0);
    assert_eq!(over(&held), [false; 4]);
    // Of one user nothing can be kept: the others are not held up by that.
    let claims = users.claims(begun + 41 * SECOND);
    users.granted(&claims, &vec![None; claims.len()], begun + 41 * SECOND);
    assert_eq!(users.take_back(begun + 60 * SECOND), 0);
}

#[test]
fn who_moves_is_let_in_and_who_stays_over_is_refused_at_once() {
    let users = Users::new(Some(4));
    let mut held = places(&users, 1);
    let now = Instant::now();
    let begun = now.checked_sub(30 * SECOND).unwrap();
    // All that may be had is, and that for long: one that comes may have left another node.
    (0..=11).for_each(|second| grant(&users, 1, 3, begun + second * SECOND));
    held.extend(places(&users, 1));
    (12..=22).for_each(|second| grant(&users, 1, 3, begun + second * SECOND));
    assert_eq!(users.take_back(begun + 23 * SECOND), 1);
    assert_eq!(over(&held), [false, true]);
    // It tries again and again.
    (23..=30).for_each(|second| grant(&users, 1, 3, begun + second * SECOND));
    let full = place(&users, "alice").unwrap_err();
    assert!(!full.is_final);
    // Elsewhere they are looked at anew.
    assert_eq!(users.claims(now)[0].asks, Asks::Anew);
    assert!(place(&users, "bob").is_ok());
    grant(&users, 1, 2, now);
    assert!(place(&users, "alice").is_ok());
}

#[test]
fn only_what_changed_is_claimed_and_what_is_over_is_forgotten() {
    let users = Users::new(Some(4));
    let now = Instant::now();
    let held = places(&users, 2);
    assert_eq!(counts(&users.claims(now)), [("alice", 2)]);
    // No answer came: it is claimed again, also when it is over meanwhile.
    drop(held);
    let claims = users.claims(now);
    assert_eq!(counts(&claims), [("alice", 0)]);
    let elsewhere = Grant { granted: 0, elsewhere: 1, alive: 0 };
    users.granted(&claims, &[Some(elsewhere)], now);
    assert_eq!(users.claims(now), []);
    assert!(users.state().users.is_empty());
    let _held = places(&users, 1);
    grant(&users, 1, 1, now);
    assert_eq!(users.claims(now), []);
    users.claim_all();
    assert_eq!(counts(&users.claims(now)), [("alice", 1)]);
    // Nobody hears of who came and went.
    drop(place(&users, "bob").unwrap());
    assert_eq!(users.claims(now).len(), 1);
}

#[tokio::test]
async fn a_newcomer_waits_for_those_who_are_asked() {
    let users = Users::new(Some(2));
    let mut held = places(&users, 2);
    let alice = who("alice");
    let newcomer = tokio::spawn({
        let (users, alice) = (users.clone(), alice.clone());
        async move { users.place_in_time(&alice).await }
    });
    users.news().await;
    assert_eq!(held[0].told(), Told::Asked);
    held[1].is_here();
    users.settle(Instant::now());
    // One of them does not answer, and ends.
    held.remove(0);
    held.push(newcomer.await.unwrap().unwrap().unwrap());
    users.settle(Instant::now());
    // The next one is told that it may come back: the newest has not been asked yet.
    assert!(!place(&users, "alice").unwrap_err().is_final);
    // Where all answer, nobody waits.
    let later = Instant::now() + ASK_AGAIN;
    users.ask(&["alice".into()], later);
    answer(&users, &held, later);
    assert!(users.place_in_time(&alice).await.unwrap_err().is_final);
    drop(held);
    assert!(users.state().users.is_empty());
}

/// Its own streams had just said that they are there when it lost its network: coming back at once, it was
/// told for good that it has too many.
#[test]
fn who_comes_after_the_answers_is_told_nothing_for_good() {
    let users = Users::new(Some(2));
    let held = places(&users, 2);
    let begun = Instant::now();
    users.ask(&["alice".into()], begun);
    answer(&users, &held, begun);
    let full = |came| users.place(&who("alice"), came).unwrap_err();
    assert!(full(begun).is_final);
    let later = Instant::now() + SECOND;
    assert!(!full(later).is_final);
    assert_eq!(full(later).again_at, Some(begun + ASK_AGAIN));
    users.ask(&["alice".into()], begun + ASK_AGAIN);
    assert!(!full(later).is_final, "nobody has answered yet");
    answer(&users, &held, begun + ASK_AGAIN);
    assert!(full(later).is_final);
    // Where nobody can tell, nobody waits for more than that.
    users.ask(&["alice".into()], begun + 2 * ASK_AGAIN);
    held[0].is_here();
    held[1].is_unknown();
    users.settle(begun + 2 * ASK_AGAIN);
    assert_eq!(full(later), Full { is_final: false, again_at: None });
}

#[test]
fn so_it_is_with_what_other_nodes_have_answered() {
    let users = Users::new(Some(2));
    let now = Instant::now();
    let begun = now.checked_sub(30 * SECOND).unwrap();
    // It came here once, and was refused: two are elsewhere.
    let one = places(&users, 1);
    (0..=20).for_each(|second| grant_alive(&users, (0, 2, 2), begun + second * SECOND));
    assert_eq!(users.take_back(begun + 20 * SECOND), 1);
    drop(one);
    (21..=29).for_each(|second| grant_alive(&users, (0, 2, 2), begun + second * SECOND));
    let came = Instant::now();
    let full = || users.place(&who("alice"), came).unwrap_err();
    assert!(!full().is_final);
    users.settle(now + SECOND);
    grant_alive(&users, (0, 2, 0), now + SECOND);
    assert!(!full().is_final, "they have been asked anew");
    grant_alive(&users, (0, 2, 1), now + 2 * SECOND);
    assert!(!full().is_final);
    grant_alive(&users, (0, 2, 2), now + 2 * SECOND);
    assert!(full().is_final);
}

/// A page that is loaded again closes its stream and opens another one, which may come first.
#[tokio::test]
async fn who_waits_takes_what_is_let_go_here_and_elsewhere() {
    let users = Users::new(Some(2));
    let alice = who("alice");
    let mut held = places(&users, 2);
    let now = Instant::now();
    users.ask(&["alice".into()], now);
    answer(&users, &held, now);
    let mut cx = Context::from_waker(Waker::noop());
    {
        let mut newcomer = pin!(users.place_in_time(&alice));
        assert!(newcomer.as_mut().poll(&mut cx).is_pending());
        held.pop();
        let Poll::Ready(Ok(place)) = newcomer.poll(&mut cx) else { panic!("no place") };
        held.extend(place);
    }
    // All are elsewhere by now, and that for long.
    held.clear();
    let begun = now.checked_sub(30 * SECOND).unwrap();
    let refused = places(&users, 1);
    (0..=20).for_each(|second| grant(&users, 0, 2, begun + second * SECOND));
    assert_eq!(users.take_back(begun + 20 * SECOND), 1);
    drop(refused);
    (21..=30).for_each(|second| grant(&users, 0, 2, begun + second * SECOND));
    let mut newcomer = pin!(users.place_in_time(&alice));
    assert!(newcomer.as_mut().poll(&mut cx).is_pending());
    grant(&users, 0, 1, Instant::now());
    assert!(matches!(newcomer.poll(&mut cx), Poll::Ready(Ok(Some(_)))));
}

/// Redis came back empty: who claimed first had all, also for streams that had come meanwhile, and another
/// node closed one that had been there before.
#[test]
fn what_was_granted_goes_before_what_came_while_the_broker_was_away() {
    let users = Users::new(Some(4));
    let now = Instant::now();
    let _held = places(&users, 2);
    grant(&users, 2, 0, now);
    users.is_away();
    let _more = places(&users, 1);
    let _other = place(&users, "bob").unwrap();
    users.claim_all();
    let claimed = |at| {
        let claims = users.claims(at);
        let mut all: Vec<_> =
            claims.iter().map(|claim| (claim.user.clone(), claim.count)).collect();
        all.sort();
        let grant = |claim: &Claim| Some(Grant { granted: claim.count, elsewhere: 0, alive: 0 });
        users.granted(&claims, &claims.iter().map(grant).collect::<Vec<_>>(), at);
        all.into_iter().map(|(_, count)| count).collect::<Vec<_>>()
    };
    assert_eq!(claimed(now + SECOND), [2, 0]);
    assert_eq!(claimed(now + 2 * SECOND), [2, 0]);
    assert_eq!(claimed(now + 4 * SECOND), [3, 1]);
    assert_eq!(claimed(now + 5 * SECOND).len(), 0);
}

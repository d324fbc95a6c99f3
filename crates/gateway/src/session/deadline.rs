//! When which session of this lane is to be looked at, by the clock that tokens go by.
//!
//! A timer for each session would cost more than what it waits for, so there is one list for each
//! lane's thread and one task that passes over it once a second, while there is anything in it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Session;

/// An entry of the list: its second, and a number that makes it unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Deadline {
    at: u64,
    /// Never zero, so that a session that has none needs no more room.
    number: NonZeroU64,
}

thread_local! {
    static LIST: RefCell<BTreeMap<Deadline, Weak<Session>>> = const { RefCell::new(BTreeMap::new()) };
    static NUMBER: Cell<NonZeroU64> = const { Cell::new(NonZeroU64::MIN) };
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

impl Deadline {
    /// Takes it off the list.
    pub(super) fn cancel(self) {
        LIST.with_borrow_mut(|list| list.remove(&self));
    }
}

/// Has the session looked at at that time, in seconds since 1970.
pub(super) fn set(session: &Rc<Session>, at: u64) -> Deadline {
    let number = NUMBER.get();
    NUMBER.set(number.saturating_add(1));
    let deadline = Deadline { at, number };
    LIST.with_borrow_mut(|list| list.insert(deadline, Rc::downgrade(session)));
    if !RUNS.replace(true) {
        tokio::task::spawn_local(pass());
    }
    deadline
}

/// Ends when the list is empty, or with the lane.
async fn pass() {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = tidewire_auth::now();
        while let Some(session) = due(now) {
            if let Some(session) = session.upgrade() {
                session.look_at_login(now);
            }
        }
        if LIST.with_borrow(BTreeMap::is_empty) {
            RUNS.set(false);
            return;
        }
    }
}

fn due(now: u64) -> Option<Weak<Session>> {
    LIST.with_borrow_mut(|list| {
        let first = list.first_entry().filter(|entry| entry.key().at <= now)?;
        Some(first.remove())
    })
}

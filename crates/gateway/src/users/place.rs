//! What a session holds of its user's streams: its place, through which the books and the session
//! understand each other.

use std::sync::Arc;
use std::time::Instant;

use super::Users;
use super::seat::{Address, Seat, Word};

/// One of a user's streams; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct UserPlace {
    pub(super) users: Arc<Users>,
    pub(super) user: Box<str>,
    pub(super) number: u64,
    pub(super) seat: Arc<Seat>,
}

/// What a session finds in its seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Nothing.
    Nothing,
    /// It is to find out whether its client is there.
    Asked,
    /// It must end. All of its user's are alive, or else trying again may help.
    Over { is_final: bool },
}

impl UserPlace {
    /// Its session has begun, there.
    pub(crate) fn settle(&self, at: Address) {
        self.seat.settle(at);
    }

    /// What its session is to do.
    pub(crate) fn told(&self) -> Told {
        match self.seat.word() {
            Word::Asked => Told::Asked,
            Word::Over => Told::Over { is_final: true },
            Word::Crowded => Told::Over { is_final: false },
            Word::Quiet | Word::Waits | Word::Here | Word::Unknown => Told::Nothing,
        }
    }

    /// Its client has been asked.
    pub(crate) fn waits(&self) {
        self.seat.turn(&[Word::Asked], Word::Waits);
    }

    /// Whether its client has not answered yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.seat.word() == Word::Waits
    }

    /// Its client is there.
    pub(crate) fn is_here(&self) {
        self.answers(Word::Here);
    }

    /// Nobody can tell whether its client is there.
    pub(crate) fn is_unknown(&self) {
        self.answers(Word::Unknown);
    }

    fn answers(&self, word: Word) {
        if self.seat.turn(&[Word::Asked, Word::Waits], word) {
            self.users.news.notify_one();
        }
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut state = self.users.state();
        let Some(user) = state.users.get_mut(&self.user) else { return };
        let was_full = self.users.most.is_some_and(|most| user.places.len() >= most);
        // Not there: it was taken back.
        if let Ok(at) = user.places.binary_search_by_key(&self.number, |(number, _)| *number) {
            user.places.remove(at);
        }
        if user.is_asking {
            self.users.news.notify_one();
        }
        // Somebody may wait for it.
        if user.is_asking || was_full || user.refused_at.is_some() {
            self.users.decided.notify_waiters();
        }
        // Where nobody was told of it, nobody must be told of its end.
        if user.is_done(Instant::now()) {
            state.users.remove(&self.user);
        }
    }
}

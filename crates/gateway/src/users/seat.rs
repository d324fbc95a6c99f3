//! One stream of a user, as the books and the session that it belongs to see it: what they tell each
//! other, from whatever thread.
//!
//! The books ask whether its client is still there, or take it back; the session answers. Nobody waits
//! for the other, and what was taken back stays so.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What stands in a seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Word {
    /// Nothing was asked.
    Quiet,
    /// Is its client there?
    Asked,
    /// It has been asked.
    Waits,
    /// It has answered.
    Here,
    /// That cannot be found out.
    Unknown,
    /// It was taken back, though perhaps its user has no more than it may.
    Crowded,
    /// It was taken back: its user has too many.
    Over,
}

/// Where a session is, by its lane's number and its slot there, for who wants it to look at its seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) lane: u32,
    pub(crate) slot: u32,
}

/// The seat.
#[derive(Debug)]
pub(super) struct Seat {
    word: AtomicU8,
    /// Of the session; [`NOWHERE`] until it has begun.
    address: AtomicU64,
}

const NOWHERE: u64 = u64::MAX;

impl Word {
    const ALL: [Self; 7] = [
        Self::Quiet,
        Self::Asked,
        Self::Waits,
        Self::Here,
        Self::Unknown,
        Self::Crowded,
        Self::Over,
    ];
}

impl Seat {
    pub(super) const fn new() -> Self {
        Self { word: AtomicU8::new(Word::Quiet as u8), address: AtomicU64::new(NOWHERE) }
    }

    pub(super) fn word(&self) -> Word {
        Word::ALL[usize::from(self.word.load(Ordering::Acquire))]
    }

    /// Whether an answer is awaited.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.word(), Word::Asked | Word::Waits)
    }

    /// Goes from one of these words to another; false where another one stands.
    pub(super) fn turn(&self, from: &[Word], to: Word) -> bool {
        from.iter().any(|from| {
            let (from, to) = (*from as u8, to as u8);
            self.word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
        })
    }

    /// Asks whether its client is there, unless that is being found out.
    pub(super) fn ask(&self) {
        self.turn(&[Word::Quiet, Word::Here, Word::Unknown], Word::Asked);
    }

    /// Takes it back.
    pub(super) fn revoke(&self, to: Word) {
        self.word.store(to as u8, Ordering::Release);
    }

    pub(super) fn settle(&self, at: Address) {
        let number = u64::from(at.lane) << 32 | u64::from(at.slot);
        self.address.store(number, Ordering::Release);
    }

    pub(super) fn address(&self) -> Option<Address> {
        let number = self.address.load(Ordering::Acquire);
        let address = Address { lane: (number >> 32) as u32, slot: number as u32 };
        (number != NOWHERE).then_some(address)
    }
}

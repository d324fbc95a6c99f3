//! How many errors a client makes: ten in ten seconds end its session.
//!
//! Counted in windows of ten seconds; of the window before, as much counts as still lies within
//! ten seconds, as if its errors were spread evenly. So a burst that straddles two windows is seen,
//! for eight bytes a session.

use tidewire_protocol::Code;

/// Whether a client that is answered with it has made an error that counts. What a user may not have, what is
/// not there (any more), and what others have used up are answers like others, which an application may get
/// by the dozen; and who sends too much of them is too fast by its frames.
pub(super) const fn is_the_clients(code: Code) -> bool {
    !matches!(
        code,
        Code::Forbidden
            | Code::NotFound
            | Code::NotSubscribed
            | Code::AlreadySubscribed
            | Code::NoHistory
            | Code::Conflict
            | Code::TooFast
            | Code::TooMany
    )
}

/// A client's errors that end its session, and the seconds within which they do.
const MAX_ERRORS: u32 = 10;
const SECONDS: u32 = 10;

/// The errors of one client, by the node's seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Errors {
    /// When this window began.
    since: u32,
    /// In the window before.
    before: u16,
    count: u16,
}

impl Errors {
    /// With one more, made now.
    pub(super) fn one_more(self, now: u32) -> Self {
        let Self { since, before, count } = self;
        match now.wrapping_sub(since) {
            passed if passed < SECONDS => Self { since, before, count: count.saturating_add(1) },
            passed if passed < 2 * SECONDS => {
                Self { since: since.wrapping_add(SECONDS), before: count, count: 1 }
            }
            _ => Self { since: now, before: 0, count: 1 },
        }
    }

    /// Whether the last one was one too many, made now.
    pub(super) fn are_too_many(self, now: u32) -> bool {
        let left = SECONDS.saturating_sub(now.wrapping_sub(self.since));
        u32::from(self.before) * left + u32::from(self.count) * SECONDS > (MAX_ERRORS - 1) * SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether errors at these seconds end a session, and after how many.
    fn ended(at: &[u32]) -> Option<usize> {
        let mut errors = Errors::default();
        at.iter().position(|now| {
            errors = errors.one_more(*now);
            errors.are_too_many(*now)
        })
    }

    #[test]
    fn ten_in_ten_seconds_are_too_many_wherever_they_begin() {
        for start in [0, 5, 9, 10, 1_000, u32::MAX - 12] {
            assert_eq!(ended(&[start; 10]), Some(9), "{start}");
            assert_eq!(ended(&[start; 9]), None, "{start}");
            // One in two seconds is none too many, however long it goes on.
            let steady: Vec<_> = (0..200).map(|n| start.wrapping_add(n * 2)).collect();
            assert_eq!(ended(&steady), None, "{start}");
        }
    }

    #[test]
    fn a_burst_over_two_windows_is_seen() {
        let mut at = vec![0];
        at.extend([9; 8]);
        at.extend([11; 9]);
        assert_eq!(ended(&at), Some(9));
        assert_eq!(ended(&[9, 9, 9, 9, 9, 10, 10, 10, 10, 10]), Some(9));
        assert_eq!(ended(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 30, 30, 30]), None);
    }
}

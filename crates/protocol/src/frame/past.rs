//! How much of a channel's past a client asks for.

/// The most messages that may be asked for from the past at once.
pub const MAX_REWIND: usize = 1_000;

/// How far back a new subscriber begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewind {
    /// With the last so many messages, at most [`MAX_REWIND`].
    Last(usize),
    /// With those not older than this time, in ms since 1970.
    Since(u64),
}

impl Rewind {
    /// Reads what was asked for: a number of messages, a duration (`10m`) or an RFC 3339 time.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'rewind' must be a number from 1 to {MAX_REWIND}, a duration like 10m, or a time \
                 like 2026-01-31T12:00:00Z"
            )
        };
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let count = text.parse().ok().filter(|count| (1..=MAX_REWIND).contains(count));
            return count.map(Self::Last).ok_or_else(wrong);
        }
        if let Ok(time) = humantime::parse_rfc3339(text) {
            let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            return Ok(Self::Since(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        }
        let back = humantime::parse_duration(text).map_err(|_| wrong())?;
        let back = u64::try_from(back.as_millis()).unwrap_or(u64::MAX);
        Ok(Self::Since(crate::Timestamp::now().as_millis().saturating_sub(back)))
    }
}

/// A part of a channel's history: what lies between two places, both exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// After this place, as it was written.
    pub since: Option<Box<str>>,
    /// Before this place, as it was written. With it alone, the last ones before it.
    pub before: Option<Box<str>>,
    /// At most so many.
    pub limit: usize,
}

impl Page {
    /// The limit where none is given.
    pub const DEFAULT_LIMIT: usize = 100;

    /// Checks a limit.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn limit(text: Option<&str>) -> Result<usize, String> {
        let Some(text) = text else { return Ok(Self::DEFAULT_LIMIT) };
        let limit = text.parse().ok().filter(|limit| (1..=MAX_REWIND).contains(limit));
        limit.ok_or_else(|| format!("'limit' must be a number from 1 to {MAX_REWIND}"))
    }
}

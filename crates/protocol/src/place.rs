//! Places in a stored channel: entries, incarnations and cursors.

use std::fmt;

use thiserror::Error;

use crate::Channel;

/// The longest cursor, in bytes.
pub const MAX_CURSOR_BYTES: usize = 64;

/// The id of an entry in a channel's Redis Stream: a time in ms and a number within it. The place
/// before a channel's first message is `0-<ms>`, the time at which it was seen to be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Milliseconds since 1970; 0 for a place before the first message.
    pub ms: u64,
    /// Tells entries of the same millisecond apart.
    pub seq: u64,
}

impl EntryId {
    /// The place before the first message of a channel that is empty at that time.
    #[must_use]
    pub const fn before_first(ms: u64) -> Self {
        Self { ms: 0, seq: ms }
    }

    /// Whether it is a place before the first message.
    #[must_use]
    pub const fn is_before_first(self) -> bool {
        self.ms == 0
    }

    /// Reads `ms-seq`, as Redis writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, seq) = text.split_once('-')?;
        Some(Self { ms: number(ms)?, seq: number(seq)? })
    }
}

/// Digits without leading zeros, so that a place has one text only.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// Which life of the stored data this is: 8 bytes of a hash. Another one after a restart, a
/// promotion or a flush.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation(u64);

impl Incarnation {
    /// Of its 8 bytes, big endian.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Reads 16 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// The 3 bytes that a cursor carries. Two lives that share them by chance (1 in 16 million)
    /// are told apart by ids and links alone.
    #[must_use]
    pub const fn tag(self) -> u32 {
        (self.0 >> 40) as u32
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a stored message stands: in which life, as which entry, and after which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The life of the data.
    pub incarnation: Incarnation,
    /// Its entry.
    pub id: EntryId,
    /// The entry before it; none for a channel's first.
    pub prev: Option<EntryId>,
}

/// A place in a channel, as a client holds it: the id of an entry, and a tag of channel and
/// incarnation. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The entry.
    pub id: EntryId,
    /// The incarnation's tag.
    pub life: u32,
    /// The channel's tag.
    pub channel: u16,
}

/// Why a text is no cursor of this channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CursorError {
    /// Not of the form, or over [`MAX_CURSOR_BYTES`].
    #[error("this is no cursor")]
    Malformed,
    /// A cursor of another channel.
    #[error("this is a cursor of another channel")]
    OtherChannel,
}

/// Crockford's alphabet, lower case: nothing in it looks like something else.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 40 bits.
const TAG_CHARS: usize = 8;

impl Cursor {
    /// The place of an entry.
    #[must_use]
    pub fn new(channel: &Channel, incarnation: Incarnation, id: EntryId) -> Self {
        Self { id, life: incarnation.tag(), channel: channel.tag() }
    }

    /// Reads a cursor, which must be one of this channel.
    ///
    /// # Errors
    /// When it is not.
    pub fn parse(text: &str, channel: &Channel) -> Result<Self, CursorError> {
        if text.len() > MAX_CURSOR_BYTES {
            return Err(CursorError::Malformed);
        }
        let read = || {
            let (id, tag) = text.split_once('.')?;
            let tag = read_tag(tag)?;
            let (life, of) = ((tag >> 16) as u32, (tag & 0xffff) as u16);
            Some(Self { id: EntryId::parse(id)?, life, channel: of })
        };
        let cursor = read().ok_or(CursorError::Malformed)?;
        if cursor.channel == channel.tag() { Ok(cursor) } else { Err(CursorError::OtherChannel) }
    }

    /// Whether it is of this life of the data.
    #[must_use]
    pub const fn is_of(self, incarnation: Incarnation) -> bool {
        self.life == incarnation.tag()
    }
}

fn read_tag(text: &str) -> Option<u64> {
    if text.len() != TAG_CHARS {
        return None;
    }
    text.bytes().try_fold(0, |tag, byte| {
        let digit = ALPHABET.iter().position(|known| *known == byte)?;
        Some(tag << 5 | digit as u64)
    })
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = u64::from(self.life) << 16 | u64::from(self.channel);
        let mut text = [0; TAG_CHARS];
        for (n, byte) in text.iter_mut().rev().enumerate() {
            *byte = ALPHABET[(tag >> (5 * n) & 31) as usize];
        }
        // The alphabet is ASCII.
        write!(f, "{}.{}", self.id, std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(name: &str) -> Channel {
        Channel::new(name).unwrap()
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_back(ms: u64, seq: u64, life: u64) {
            let room = channel("room:42");
            let cursor = Cursor::new(&room, Incarnation::new(life), EntryId { ms, seq });
            let text = cursor.to_string();
            prop_assert!(text.len() <= MAX_CURSOR_BYTES);
            prop_assert_eq!(Cursor::parse(&text, &room), Ok(cursor));
            prop_assert_eq!(Cursor::parse(&text, &channel("room:43")), Err(CursorError::OtherChannel));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            if let Ok(cursor) = Cursor::parse(&text, &channel("a")) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }

    #[test]
    fn what_is_no_cursor() {
        let a = channel("a");
        let good =
            Cursor::new(&a, Incarnation::new(u64::MAX), EntryId { ms: 1, seq: 0 }).to_string();
        assert!(Cursor::parse(&good, &a).is_ok());
        for text in
            ["", "1-0", "1-0.", "01-0.00000000", "1-0.0000000", "1-0.0000000u", "+1-0.00000000"]
        {
            assert_eq!(Cursor::parse(text, &a), Err(CursorError::Malformed), "{text}");
        }
        assert_eq!(Cursor::parse(&good.repeat(3), &a), Err(CursorError::Malformed));
    }

    #[test]
    fn places_before_the_first_message_are_below_every_entry() {
        assert!(EntryId::before_first(u64::MAX) < EntryId { ms: 1, seq: 0 });
        assert_eq!(
            EntryId::parse("1732224000123-0"),
            Some(EntryId { ms: 1_732_224_000_123, seq: 0 })
        );
        assert_eq!(Incarnation::parse("00000000000000ff"), Some(Incarnation::new(255)));
        assert_eq!(Incarnation::parse("ff"), None);
    }
}

//! The one id of an event stream: the places of all its stored channels, as a set.
//!
//! base64url of: a version (1), the life's tag (3 bytes), then for each channel its tag (2 bytes),
//! the entry's time (6 bytes, the highest bit set when a life of its own follows), its number (a
//! varint: 7 bits a byte, the lowest first), and, if flagged, its life's tag (3 bytes). The order in
//! the address does not matter; a channel without an entry begins at the present.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Channel, Cursor, EntryId};

const VERSION: u8 = 1;
/// The flag in the time's 48 bits; the rest lasts until the year 6429.
const OWN_LIFE: u64 = 1 << 47;
/// More than the entries of 32 channels take.
const MAX_TEXT: usize = 1_024;

/// The places of a stream's stored channels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamToken(Vec<Cursor>);

impl StreamToken {
    /// Of one place.
    #[must_use]
    pub fn of(cursor: Cursor) -> Self {
        Self(vec![cursor])
    }

    /// The channel's place, if it has one.
    #[must_use]
    pub fn get(&self, channel: &Channel) -> Option<Cursor> {
        let tag = channel.tag();
        self.0.iter().find(|cursor| cursor.channel == tag).copied()
    }

    /// Sets the place of the cursor's channel.
    pub fn set(&mut self, cursor: Cursor) {
        match self.0.iter_mut().find(|known| known.channel == cursor.channel) {
            Some(known) => *known = cursor,
            None => self.0.push(cursor),
        }
    }

    /// Whether no channel has a place.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads the text; none if it is no token.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut rest = &bytes[..];
        if take::<1>(&mut rest)? != [VERSION] {
            return None;
        }
        let shared = number(take::<3>(&mut rest)?);
        let mut token = Self::default();
        while !rest.is_empty() {
            let channel = u16::from_be_bytes(take(&mut rest)?);
            let time = take::<6>(&mut rest)?.iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte));
            let seq = take_varint(&mut rest)?;
            let life = match time & OWN_LIFE {
                0 => shared,
                _ => number(take::<3>(&mut rest)?),
            };
            let id = EntryId { ms: time & !OWN_LIFE, seq };
            token.set(Cursor { id, life, channel });
        }
        Some(token)
    }
}

impl std::fmt::Display for StreamToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = self.0.first().map_or(0, |cursor| cursor.life);
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&shared.to_be_bytes()[1..]);
        for cursor in &self.0 {
            let own = if cursor.life == shared { 0 } else { OWN_LIFE };
            bytes.extend_from_slice(&cursor.channel.to_be_bytes());
            bytes.extend_from_slice(&(cursor.id.ms & !OWN_LIFE | own).to_be_bytes()[2..]);
            push_varint(cursor.id.seq, &mut bytes);
            if own != 0 {
                bytes.extend_from_slice(&cursor.life.to_be_bytes()[1..]);
            }
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

fn number(bytes: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]])
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest)?;
        let bits = u64::from(byte & 127);
        value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 128 == 0 {
            return Some(value);
        }
    }
    None
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Incarnation;
    use proptest::prelude::*;

    fn cursors() -> impl Strategy<Value = Vec<Cursor>> {
        let cursor = (0..1_u64 << 47, any::<u64>(), 0..3_u32, any::<u16>())
            .prop_map(|(ms, seq, life, channel)| Cursor { id: EntryId { ms, seq }, life, channel });
        prop::collection::vec(cursor, 0..32)
    }

    proptest! {
        #[test]
        fn a_token_is_read_back(all in cursors()) {
            let mut token = StreamToken::default();
            all.into_iter().for_each(|cursor| token.set(cursor));
            prop_assert_eq!(StreamToken::parse(&token.to_string()), Some(token));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[A-Za-z0-9_-]{0,100}") {
            let _ = StreamToken::parse(&text);
        }
    }

    #[test]
    fn a_token_is_short() {
        let token = |channels: u16| {
            let mut token = StreamToken::default();
            for n in 0..channels {
                let channel = Channel::new(&format!("room:{n}")).unwrap();
                let id = EntryId { ms: 1_732_224_000_123, seq: 5 };
                token.set(Cursor::new(&channel, Incarnation::new(u64::MAX), id));
            }
            token.to_string().len()
        };
        assert!(token(7) <= 128, "{}", token(7));
        assert!(token(12) <= 256, "{}", token(12));
    }
}

//! What every published payload carries: when it was sent, and which one it is.
//!
//! A marker is plain ASCII of a fixed length, so that any server passes it on unchanged, whatever
//! it wraps around it, and so that a whole publish is a template in which two numbers are patched.

/// How a marker begins. None of it is a hexadecimal digit but the `b`, and the padding has none of
/// it, so that it is found nowhere else.
pub(crate) const PREFIX: &[u8; 4] = b"twb:";

/// `twb:` and 16 digits of nanoseconds, a point, 8 digits of sequence number.
pub(crate) const LENGTH: usize = PREFIX.len() + 16 + 1 + 8;

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// When the message was sent, by [`crate::clock::now`].
    pub(crate) sent: u64,
    /// Which message of the run it is.
    pub(crate) number: u32,
}

impl Marker {
    /// Its bytes.
    pub(crate) fn write(self, out: &mut [u8; LENGTH]) {
        out[..4].copy_from_slice(PREFIX);
        digits(self.sent, &mut out[4..20]);
        out[20] = b'.';
        digits(u64::from(self.number), &mut out[21..]);
    }

    /// Reads one; `None` when it is none.
    pub(crate) fn read(bytes: &[u8; LENGTH]) -> Option<Self> {
        if &bytes[..4] != PREFIX || bytes[20] != b'.' {
            return None;
        }
        let number = u32::try_from(value(&bytes[21..])?).ok()?;
        Some(Self { sent: value(&bytes[4..20])?, number })
    }
}

fn digits(mut value: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

fn value(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for marker in [
            Marker { sent: 0, number: 0 },
            Marker { sent: 0x0123_4567_89ab_cdef, number: 0x1234_5678 },
            Marker { sent: u64::MAX, number: u32::MAX },
        ] {
            let mut bytes = [0; LENGTH];
            marker.write(&mut bytes);
            assert_eq!(Marker::read(&bytes), Some(marker));
        }
    }

    #[test]
    fn other_text_is_no_marker() {
        let mut bytes = [b'x'; LENGTH];
        assert_eq!(Marker::read(&bytes), None);
        bytes[..4].copy_from_slice(PREFIX);
        assert_eq!(Marker::read(&bytes), None);
    }
}

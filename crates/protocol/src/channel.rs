//! Channel names: what they may be, and the namespace that a name belongs to.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// The longest channel name, in bytes of UTF-8.
pub const MAX_CHANNEL_BYTES: usize = 200;

/// The name of a channel: 1 to [`MAX_CHANNEL_BYTES`] bytes of UTF-8 without white space, control
/// characters or any of `{ } * ? ,`, not beginning with `:`, and neither `.` nor `..` (which a URL
/// swallows). Cloning is cheap: the bytes are shared.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// Why a text is no channel name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// No byte at all.
    #[error("a channel name has at least one character")]
    Empty,
    /// Over [`MAX_CHANNEL_BYTES`].
    #[error("a channel name has at most {MAX_CHANNEL_BYTES} bytes")]
    TooLong,
    /// A character that no name may hold.
    #[error(
        "a channel name holds no white space, no control characters and none of {{ }} * ? , but this one has {0:?}"
    )]
    Character(char),
    /// The namespace, the part before the first `:`, is empty.
    #[error("a channel name does not begin with ':'")]
    NoNamespace,
    /// `.` and `..` mean something else in a URL.
    #[error("'.' and '..' are no channel names")]
    Dots,
}

impl Channel {
    /// Checks a name.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, ChannelError> {
        Self::check(name)?;
        Ok(Self(name.into()))
    }

    /// Checks a name without keeping it, for who only wants to look something up.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn check(name: &str) -> Result<(), ChannelError> {
        if name.is_empty() {
            return Err(ChannelError::Empty);
        }
        if name.len() > MAX_CHANNEL_BYTES {
            return Err(ChannelError::TooLong);
        }
        let forbidden = |c: &char| {
            c.is_whitespace() || c.is_control() || matches!(c, '{' | '}' | '*' | '?' | ',')
        };
        if let Some(bad) = name.chars().find(forbidden) {
            return Err(ChannelError::Character(bad));
        }
        if name.starts_with(':') {
            return Err(ChannelError::NoNamespace);
        }
        if name == "." || name == ".." {
            return Err(ChannelError::Dots);
        }
        Ok(())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Two bytes that tell channels apart in cursors: FNV-1a, folded. The same on every node and in
    /// every version.
    #[must_use]
    pub fn tag(&self) -> u16 {
        let hash = self
            .0
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        (hash >> 16 ^ hash & 0xffff) as u16
    }

    /// The part before the first `:`, if there is one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.0.split_once(':').map(|(namespace, _)| namespace)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Channel {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_people_write() {
        let longest = "é".repeat(100);
        for name in
            ["news", "room:42", "user:a@b.c", "a/b", "ünïcode:日本", "a:", "...", "a:b:c", &longest]
        {
            assert!(Channel::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn refuses_what_no_name_may_hold() {
        let long = "x".repeat(201);
        for (name, error) in [
            ("", ChannelError::Empty),
            (long.as_str(), ChannelError::TooLong),
            ("a b", ChannelError::Character(' ')),
            ("a\u{a0}b", ChannelError::Character('\u{a0}')),
            ("a\nb", ChannelError::Character('\n')),
            ("a\0", ChannelError::Character('\0')),
            ("a\u{7f}", ChannelError::Character('\u{7f}')),
            ("{a}", ChannelError::Character('{')),
            ("a*", ChannelError::Character('*')),
            ("a?", ChannelError::Character('?')),
            ("a,b", ChannelError::Character(',')),
            (":x", ChannelError::NoNamespace),
            (".", ChannelError::Dots),
            ("..", ChannelError::Dots),
        ] {
            assert_eq!(Channel::new(name), Err(error), "{name:?}");
        }
    }

    #[test]
    fn namespace_is_what_stands_before_the_first_colon() {
        assert_eq!(Channel::new("room:42:x").unwrap().namespace(), Some("room"));
        assert_eq!(Channel::new("news").unwrap().namespace(), None);
    }
}

//! Channel patterns of grants: exact, `prefix*`, and `{sub}` for the user's own name.

use std::fmt;

use thiserror::Error;
use tidewire_protocol::{Channel, MAX_CHANNEL_BYTES};

const SUB: &str = "{sub}";

/// Which channels a grant covers: one name, or with a `*` at its end all that begin so. The user's
/// name has been put in for `{sub}`; whatever that name holds, a `*` in it is no wildcard.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    prefix: bool,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PatternError {
    /// No byte at all.
    #[error("a pattern has at least one character")]
    Empty,
    /// No channel is so long.
    #[error("a pattern has at most {MAX_CHANNEL_BYTES} bytes")]
    TooLong,
    /// A `*` that is not the end.
    #[error("'*' may only stand at the end of a pattern")]
    Star,
    /// Braces around something else than `sub`, or where there is no user.
    #[error("only {{sub}} may stand in braces, and only in a user's token")]
    Braces,
    /// A character that no channel holds.
    #[error("a pattern holds no {0:?}, because no channel does")]
    Character(char),
}

impl Pattern {
    /// Reads a pattern of a user's token: every `{sub}` becomes that user's name.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn of_user(text: &str, sub: &str) -> Result<Self, PatternError> {
        Self::read(text, Some(sub))
    }

    /// Reads a pattern where there is no user, an API key's.
    ///
    /// # Errors
    /// Says which rule the text breaks; `{sub}` is none there.
    pub fn plain(text: &str) -> Result<Self, PatternError> {
        Self::read(text, None)
    }

    /// Covers everything.
    #[must_use]
    pub fn all() -> Self {
        Self { text: "".into(), prefix: true }
    }

    /// Covers this channel alone.
    #[must_use]
    pub fn exact(channel: &Channel) -> Self {
        Self { text: channel.as_str().into(), prefix: false }
    }

    fn read(text: &str, sub: Option<&str>) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_CHANNEL_BYTES {
            return Err(PatternError::TooLong);
        }
        let (rest, prefix) = match text.strip_suffix('*') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        // The pieces around the user's name are checked; the name itself is put in untouched.
        let mut pieces = rest.split(SUB);
        let mut whole = String::with_capacity(rest.len());
        if let Some(first) = pieces.next() {
            whole.push_str(literal(first)?);
        }
        for piece in pieces {
            whole.push_str(sub.ok_or(PatternError::Braces)?);
            whole.push_str(literal(piece)?);
        }
        Ok(Self { text: whole.into(), prefix })
    }

    /// Whether the channel is covered.
    #[must_use]
    pub fn covers(&self, channel: &Channel) -> bool {
        if self.prefix {
            channel.as_str().starts_with(&*self.text)
        } else {
            channel.as_str() == &*self.text
        }
    }
}

fn literal(piece: &str) -> Result<&str, PatternError> {
    match piece.chars().find(|c| c.is_whitespace() || c.is_control() || "{}*?,".contains(*c)) {
        None => Ok(piece),
        Some('*') => Err(PatternError::Star),
        Some('{' | '}') => Err(PatternError::Braces),
        Some(c) => Err(PatternError::Character(c)),
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

/// Some patterns: a grant covers a channel when one of them does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns(Box<[Pattern]>);

impl Patterns {
    /// Covers everything.
    #[must_use]
    pub fn all() -> Self {
        Self(Box::new([Pattern::all()]))
    }

    /// Whether one of them covers the channel.
    #[must_use]
    pub fn cover(&self, channel: &Channel) -> bool {
        self.0.iter().any(|pattern| pattern.covers(channel))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(name: &str) -> Channel {
        Channel::new(name).unwrap()
    }

    #[test]
    fn exact_prefix_and_the_users_name() {
        let covers = |pattern: &str, name: &str| {
            Pattern::of_user(pattern, "alice").unwrap().covers(&channel(name))
        };
        for (pattern, name) in [
            ("room:42", "room:42"),
            ("room:*", "room:42"),
            ("room:*", "room:"),
            ("*", "anything"),
            ("user:{sub}", "user:alice"),
            ("dm:{sub}:*", "dm:alice:bob"),
            ("{sub}-{sub}", "alice-alice"),
        ] {
            assert!(covers(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("room:42", "room:421"),
            ("room:42", "room:4"),
            ("room:*", "rooms:1"),
            ("room:*", "Room:1"),
            ("user:{sub}", "user:alicea"),
            ("dm:{sub}:*", "dm:alice"),
        ] {
            assert!(!covers(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_users_name_is_never_a_pattern() {
        for sub in ["*", "a*", "{sub}", "a\u{0}", ""] {
            let pattern = Pattern::of_user("user:{sub}", sub).unwrap();
            assert!(!pattern.covers(&channel("user:alice")), "{sub:?}");
            assert!(!pattern.covers(&channel("user:ab")), "{sub:?}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, error) in [
            ("", PatternError::Empty),
            ("a*b", PatternError::Star),
            ("**", PatternError::Star),
            ("*{sub}", PatternError::Star),
            ("{user}", PatternError::Braces),
            ("a}", PatternError::Braces),
            ("{su{sub}b}", PatternError::Braces),
            ("a b", PatternError::Character(' ')),
            ("a?", PatternError::Character('?')),
            ("a,b", PatternError::Character(',')),
        ] {
            assert_eq!(Pattern::of_user(text, "x"), Err(error), "{text:?}");
        }
        assert_eq!(Pattern::of_user(&"x".repeat(201), "x"), Err(PatternError::TooLong));
        assert_eq!(Pattern::plain("user:{sub}"), Err(PatternError::Braces));
    }

    proptest! {
        /// Against the plainest possible meaning.
        #[test]
        fn matching_is_equality_or_beginning(
            literal in "[a-c:]{1,4}", star: bool, name in "[a-c][a-c:]{0,5}",
        ) {
            let text = if star { format!("{literal}*") } else { literal.clone() };
            let pattern = Pattern::plain(&text).unwrap();
            let expected = if star { name.starts_with(&literal) } else { name == literal };
            prop_assert_eq!(pattern.covers(&channel(&name)), expected);
        }

        #[test]
        fn any_text_is_read_or_refused(text: String, sub: String, name in "[a-c]{1,4}") {
            if let Ok(pattern) = Pattern::of_user(&text, &sub) {
                let _ = pattern.covers(&channel(&name));
            }
        }
    }
}

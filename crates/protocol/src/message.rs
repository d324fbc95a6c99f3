//! A message, as it travels from its publisher to every subscriber.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use thiserror::Error;

use crate::{SessionId, Stored};

/// The event of a message that names none.
pub const DEFAULT_EVENT: &str = "message";
/// The longest event name, in bytes.
pub const MAX_EVENT_BYTES: usize = 64;
/// The longest messageId, in bytes.
pub const MAX_MESSAGE_ID_BYTES: usize = 128;
/// Event names of this beginning are the gateway's own.
const RESERVED: &str = "tidewire:";

/// What is published, less its channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its name.
    pub event: Event,
    /// Its content.
    pub payload: Payload,
    /// Its identity within the channel, unless a plain Redis `PUBLISH` gave none.
    pub message_id: Option<MessageId>,
    /// When it was accepted.
    pub timestamp: Timestamp,
    /// Who sent it, where that is a session.
    pub from: Option<Sender>,
    /// The session that does not want it.
    pub exclude: Option<SessionId>,
    /// Where it stands, if it was stored.
    pub stored: Option<Stored>,
}

/// Who sent a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The user, if it has logged in.
    pub user: Option<Box<str>>,
    /// The session; a publish over HTTP has none.
    pub session: Option<SessionId>,
}

/// The content of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// One JSON value, as it was written, nested at most [`crate::MAX_NESTING`] deep.
    Json(Bytes),
    /// Any bytes.
    Binary(Bytes),
}

impl Payload {
    /// A JSON string of the text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        // A string has no key that is no string and no writer that fails: nothing can go wrong.
        Self::Json(serde_json::to_vec(text).unwrap_or_default().into())
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it has no byte (which only a binary one can).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The name of an event: 1 to [`MAX_EVENT_BYTES`] bytes without control characters, not beginning
/// with `tidewire:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event(Option<Box<str>>);

/// Why a text is no event name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EventError {
    /// Empty, or over [`MAX_EVENT_BYTES`].
    #[error("an event name has 1 to {MAX_EVENT_BYTES} bytes")]
    Length,
    /// A control character, which could end a line of an event stream.
    #[error("an event name holds no control characters")]
    Control,
    /// The gateway's own.
    #[error("event names that begin with '{RESERVED}' are the gateway's own")]
    Reserved,
}

impl Event {
    /// Checks a name.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, EventError> {
        if name == DEFAULT_EVENT {
            return Ok(Self(None));
        }
        if name.is_empty() || name.len() > MAX_EVENT_BYTES {
            return Err(EventError::Length);
        }
        if name.chars().any(char::is_control) {
            return Err(EventError::Control);
        }
        if name.starts_with(RESERVED) {
            return Err(EventError::Reserved);
        }
        Ok(Self(Some(name.into())))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(DEFAULT_EVENT)
    }

    /// Whether it is [`DEFAULT_EVENT`].
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.0.is_none()
    }
}

impl Default for Event {
    /// [`DEFAULT_EVENT`].
    fn default() -> Self {
        Self(None)
    }
}

/// The identity of a message within its channel: 1 to [`MAX_MESSAGE_ID_BYTES`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageId(Box<str>);

/// Why a text is no messageId.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a messageId has 1 to {MAX_MESSAGE_ID_BYTES} bytes")]
pub struct MessageIdError;

impl MessageId {
    /// Checks an id.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn new(id: &str) -> Result<Self, MessageIdError> {
        if id.is_empty() || id.len() > MAX_MESSAGE_ID_BYTES {
            return Err(MessageIdError);
        }
        Ok(Self(id.into()))
    }

    /// A fresh UUIDv7 (RFC 9562), for who gave none.
    #[must_use]
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A time in whole milliseconds since 1970, as messages carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The last time that RFC 3339 can write: 9999-12-31T23:59:59.999Z.
    const MAX: u64 = 253_402_300_799_999;

    /// This machine's clock, now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(u64::try_from(since.as_millis()).unwrap_or(Self::MAX))
    }

    /// Milliseconds since 1970; later than the year 9999 is cut off there.
    #[must_use]
    pub fn from_millis(millis: u64) -> Self {
        Self(millis.min(Self::MAX))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time that passed since, 0 if it lies in the future (clocks differ).
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Duration::from_millis(Self::now().0.saturating_sub(self.0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_millis(self.0);
        fmt::Display::fmt(&humantime::format_rfc3339_millis(time), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_names() {
        assert!(Event::new("message").unwrap().is_default());
        assert_eq!(Event::new("new_message").unwrap().as_str(), "new_message");
        assert_eq!(Event::new(""), Err(EventError::Length));
        assert_eq!(Event::new(&"x".repeat(65)), Err(EventError::Length));
        assert_eq!(Event::new("a\nb"), Err(EventError::Control));
        assert_eq!(Event::new("tidewire:gap"), Err(EventError::Reserved));
        assert!(Event::new("tidewire").is_ok());
    }

    #[test]
    fn message_ids() {
        assert!(MessageId::new(&"x".repeat(128)).is_ok());
        assert_eq!(MessageId::new(&"x".repeat(129)), Err(MessageIdError));
        assert_eq!(MessageId::new(""), Err(MessageIdError));
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        assert_eq!(
            Timestamp::from_millis(1_732_224_000_123).to_string(),
            "2024-11-21T21:20:00.123Z"
        );
        assert_eq!(Timestamp::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}

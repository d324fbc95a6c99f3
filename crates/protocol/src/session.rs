//! The public name of a session.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Names one session in the whole cluster: 16 random bytes, 22 characters of base64url on the
/// wire. It is given to the client in `welcome`, shown as the sender of its messages, and may be
/// named in `exclude`; knowing it grants nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// A fresh one, from the system's random source: unique in the cluster without asking anyone.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().into_bytes())
    }

    /// The bytes, for the envelope on Redis.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// What [`SessionId::to_bytes`] gave.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the 22 characters; any other text names no session.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
            Ok(16) => Some(Self(bytes)),
            _ => None,
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 22];
        // 16 bytes are 22 characters, and base64 is ASCII, so neither step can fail.
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_back_from_its_text() {
        let id = SessionId::random();
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        for text in ["", "x", "way-too-long-to-be-a-session-id"] {
            assert_eq!(SessionId::parse(text), None);
        }
    }
}

//! What stands in the address: path and query, decoded strictly.

use std::borrow::Cow;

use http::Uri;
use percent_encoding::percent_decode_str;
use tidewire_protocol::{Channel, Code};

use super::Problem;

/// The pairs of the query, decoded as forms are (`+` is a space).
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads the query of an address.
    pub(crate) fn of(uri: &'a Uri) -> Result<Self, Problem> {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name, true)?, decode(value, true)?))
        });
        decoded.collect::<Result<_, _>>().map(Self)
    }

    /// The first value of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of that name.
    pub(crate) fn all<'q>(&'q self, name: &str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| &**value)
    }

    /// All pairs in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether a switch is on: `name=1`.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(Problem::new(Code::BadRequest, format!("'{name}' must be 1 or 0"))),
        }
    }

    /// The channels that a stream asks for, each once, with the `cursor` that follows it, if any.
    pub(crate) fn channels(&self, most: usize) -> Result<Vec<(Channel, Option<&str>)>, Problem> {
        let mut channels: Vec<(Channel, Option<&str>)> = Vec::new();
        for (name, value) in self.pairs() {
            match (name, channels.last_mut()) {
                ("channel", _) => {
                    let channel = Channel::new(value)?;
                    channels.retain(|(known, _)| *known != channel);
                    channels.push((channel, None));
                }
                ("cursor", Some((_, cursor))) => *cursor = Some(value),
                ("cursor", None) => {
                    let detail = "'cursor' stands behind the 'channel' that it belongs to";
                    return Err(Problem::new(Code::BadRequest, detail));
                }
                _ => {}
            }
            if channels.len() > most {
                let detail = format!("at most {most} channels are allowed here");
                return Err(Problem::new(Code::TooMany, detail));
            }
        }
        Ok(channels)
    }
}

/// The channel in a path like `/v1/channels/{channel}/messages`.
pub(crate) fn channel_of(uri: &Uri) -> Result<Channel, Problem> {
    let segment = uri.path().split('/').nth(3).unwrap_or_default();
    Ok(Channel::new(&decode(segment, false)?)?)
}

/// Undoes the percent-encoding (RFC 3986, section 2.1); what is broken is not guessed at.
fn decode(text: &str, form: bool) -> Result<Cow<'_, str>, Problem> {
    let bytes = text.as_bytes();
    let broken = bytes.iter().enumerate().any(|(at, byte)| {
        let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        *byte == b'%' && !(digit(at + 1) && digit(at + 2))
    });
    let text = if form && text.contains('+') {
        Cow::Owned(text.replace('+', " "))
    } else {
        Cow::Borrowed(text)
    };
    let decoded = match &text {
        Cow::Borrowed(text) => percent_decode_str(text).decode_utf8().ok(),
        Cow::Owned(text) => {
            percent_decode_str(text).decode_utf8().ok().map(|text| Cow::Owned(text.into_owned()))
        }
    };
    decoded
        .filter(|_| !broken)
        .ok_or_else(|| Problem::new(Code::BadRequest, "the address has a broken percent-encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_decoded_strictly() {
        let uri: Uri =
            "/v1/channels/room%2F42%3Ax/messages?a=1&channel=b%20c&a=x+y&z".parse().unwrap();
        assert_eq!(channel_of(&uri).unwrap().as_str(), "room/42:x");
        let query = Query::of(&uri).unwrap();
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "x y"]);
        assert_eq!(query.get("channel"), Some("b c"));
        assert_eq!(query.get("z"), Some(""));
        for broken in ["%", "%2", "%zz", "a%ff", "%C3"] {
            let uri: Uri = format!("/v1/channels/{broken}/messages?x={broken}").parse().unwrap();
            assert!(channel_of(&uri).is_err(), "{broken}");
            assert!(Query::of(&uri).is_err(), "{broken}");
        }
    }

    #[test]
    fn channels_of_a_stream_are_checked_and_counted() {
        let read = |query: &str, most| {
            let uri: Uri = format!("/v1/sse?{query}").parse().unwrap();
            Query::of(&uri).unwrap().channels(most).map(|all| all.len())
        };
        assert_eq!(read("channel=a&channel=b&channel=a", 2).ok(), Some(2));
        assert!(read("channel=a&channel=b&channel=c", 2).is_err());
        assert!(read("channel=", 2).is_err());
        assert!(read("channel=a,b", 2).is_err());
    }
}

//! What a client says over a WebSocket.

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::body::take_publication;
use crate::fields::{Fields, FieldsError};
use crate::{Channel, Code, Payload, Publication};

/// The longest `id` that a client may give its frames, in bytes.
pub const MAX_FRAME_ID_BYTES: usize = 128;
/// The longest name of an RPC's method, in bytes.
pub const MAX_METHOD_BYTES: usize = 128;

/// One frame of a client: what it wants, and the `id` that the answer carries.
#[derive(Debug, PartialEq)]
pub struct ClientFrame {
    /// The client's name for this frame.
    pub id: Option<FrameId>,
    /// What it wants.
    pub request: Request,
}

/// What a client's frame asks for.
#[derive(Debug, PartialEq)]
pub enum Request {
    /// Send me what is published here.
    Subscribe {
        /// Where.
        channel: Channel,
        /// From which place on, as it was written.
        cursor: Option<Box<str>>,
        /// How far back to begin, if from no place.
        rewind: Option<Rewind>,
    },
    /// Show me what is kept.
    History {
        /// Where.
        channel: Channel,
        /// Which part of it.
        page: Page,
    },
    /// No longer.
    Unsubscribe {
        /// Where.
        channel: Channel,
    },
    /// Send this to everyone who is subscribed.
    Publish {
        /// Where.
        channel: Channel,
        /// What.
        publication: Publication,
        /// Whether the sender, if it is subscribed, gets it, too.
        echo: bool,
    },
    /// Ask the application, and give me its answer.
    Rpc {
        /// What for: 1 to [`MAX_METHOD_BYTES`] bytes without control characters.
        method: Box<str>,
        /// With what; `null` where the client gave nothing.
        payload: Payload,
    },
    /// This is who I am; also instead of what was said before.
    Auth {
        /// A token or an API key.
        token: Secret,
    },
    /// Are you there?
    Ping,
}

/// A credential as a client sent it. It never shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// What was sent.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

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

/// The client's own name for a frame, a string or a number, kept as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct FrameId(Box<str>);

impl FrameId {
    /// The JSON text, to be put into the answer as it is.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A frame that is refused.
#[derive(Debug, PartialEq)]
pub struct FrameError {
    /// Its id, if it could be read.
    pub id: Option<FrameId>,
    /// The code for the answer.
    pub code: Code,
    /// What was wrong and what is allowed.
    pub message: String,
}

impl ClientFrame {
    /// Reads a frame of the subprotocol `tidewire.json`. The payload of a publish is copied once,
    /// so that the text's buffer can be used again.
    ///
    /// # Errors
    /// Says what is wrong with it, with the frame's id where one could be read.
    pub fn parse_json(text: &str) -> Result<Self, FrameError> {
        let fields = Fields::parse(text).map_err(|e| FrameError {
            id: None,
            code: Code::BadFrame,
            message: match e {
                FieldsError::NotJson(why) => format!("the frame is not JSON: {why}"),
                FieldsError::NotObject => "the frame is no JSON object".to_owned(),
            },
        })?;
        Self::of(fields)
    }

    /// The frame that these members make.
    pub(crate) fn of(mut fields: Fields<'_>) -> Result<Self, FrameError> {
        let id = frame_id(&mut fields)?;
        match request(fields) {
            Ok(request) => Ok(Self { id, request }),
            Err((code, message)) => Err(FrameError { id, code, message }),
        }
    }
}

fn frame_id(fields: &mut Fields<'_>) -> Result<Option<FrameId>, FrameError> {
    let Some(raw) = fields.take("id") else { return Ok(None) };
    let text = raw.get();
    let fits = match text.as_bytes()[0] {
        b'"' => serde_json::from_str::<String>(text).is_ok_and(|id| id.len() <= MAX_FRAME_ID_BYTES),
        b'-' | b'0'..=b'9' => text.len() <= MAX_FRAME_ID_BYTES,
        _ => false,
    };
    if fits {
        return Ok(Some(FrameId(text.into())));
    }
    Err(FrameError {
        id: None,
        code: Code::BadFrame,
        message: format!("'id' must be a string or a number of at most {MAX_FRAME_ID_BYTES} bytes"),
    })
}

/// A refusal, before the frame's id is put to it.
type Refusal = (Code, String);

fn bad(message: impl Into<String>) -> Refusal {
    (Code::BadFrame, message.into())
}

fn request(mut fields: Fields<'_>) -> Result<Request, Refusal> {
    let kind = fields.take_string("type").map_err(bad)?;
    match kind.as_deref() {
        Some("subscribe") => subscribe(fields),
        Some("unsubscribe") => {
            let channel = channel(&mut fields)?;
            fields.finish("type, id, channel").map_err(bad)?;
            Ok(Request::Unsubscribe { channel })
        }
        Some("publish") => publish(fields),
        Some("history") => history(fields),
        Some("rpc") => rpc(fields),
        Some("auth") => {
            let token = fields.take_string("token").map_err(bad)?;
            let token = token.ok_or_else(|| bad("'token' is missing"))?;
            fields.finish("type, id, token").map_err(bad)?;
            Ok(Request::Auth { token: Secret(token.into()) })
        }
        Some("ping") => {
            fields.finish("type, id").map_err(bad)?;
            Ok(Request::Ping)
        }
        Some(other) => {
            let shown: String = other.chars().take(64).collect();
            Err(bad(format!(
                "unknown type '{}'; allowed: subscribe, unsubscribe, publish, history, rpc, auth, \
                 ping",
                shown.escape_debug()
            )))
        }
        None => Err(bad("'type' is missing")),
    }
}

fn subscribe(mut fields: Fields<'_>) -> Result<Request, Refusal> {
    let channel = channel(&mut fields)?;
    let cursor = fields.take_string("cursor").map_err(bad)?.map(Into::into);
    let rewind = match fields.take("rewind").map(RawValue::get) {
        None | Some("null") => None,
        Some(raw) => {
            // A number stands bare, the others are strings.
            let text = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
            Some(Rewind::parse(&text).map_err(bad)?)
        }
    };
    if cursor.is_some() && rewind.is_some() {
        return Err(bad("give either 'cursor' or 'rewind'"));
    }
    fields.finish("type, id, channel, cursor, rewind").map_err(bad)?;
    Ok(Request::Subscribe { channel, cursor, rewind })
}

fn history(mut fields: Fields<'_>) -> Result<Request, Refusal> {
    let channel = channel(&mut fields)?;
    let since = fields.take_string("since").map_err(bad)?.map(Into::into);
    let before = fields.take_string("before").map_err(bad)?.map(Into::into);
    let limit = Page::limit(fields.take("limit").map(RawValue::get)).map_err(bad)?;
    fields.finish("type, id, channel, since, before, limit").map_err(bad)?;
    Ok(Request::History { channel, page: Page { since, before, limit } })
}

fn publish(mut fields: Fields<'_>) -> Result<Request, Refusal> {
    let channel = channel(&mut fields)?;
    let echo = fields.take_bool("echo").map_err(bad)?.unwrap_or(true);
    let copy = |raw: &RawValue| Bytes::copy_from_slice(raw.get().as_bytes());
    if fields.has("exclude") {
        return Err(bad("'exclude' is for backends; a client says \"echo\": false"));
    }
    let publication = take_publication(&mut fields, copy).map_err(bad)?;
    fields.finish("type, id, channel, event, payload, messageId, echo").map_err(bad)?;
    Ok(Request::Publish { channel, publication, echo })
}

fn rpc(mut fields: Fields<'_>) -> Result<Request, Refusal> {
    let method = fields.take_string("method").map_err(bad)?;
    let method: Box<str> = method.ok_or_else(|| bad("'method' is missing"))?.into();
    if method.is_empty() || method.len() > MAX_METHOD_BYTES || method.chars().any(char::is_control)
    {
        let rule = format!("'method' has 1 to {MAX_METHOD_BYTES} bytes, no control characters");
        return Err(bad(rule));
    }
    let payload = match fields.take("payload") {
        Some(raw) => Bytes::copy_from_slice(raw.get().as_bytes()),
        None => Bytes::from_static(b"null"),
    };
    fields.finish("type, id, method, payload").map_err(bad)?;
    Ok(Request::Rpc { method, payload: Payload::Json(payload) })
}

fn channel(fields: &mut Fields<'_>) -> Result<Channel, Refusal> {
    match fields.take_string("channel").map_err(bad)? {
        Some(name) => Channel::new(&name).map_err(|e| (Code::BadChannel, e.to_string())),
        None => Err(bad("'channel' is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, MessageId, Payload};

    fn parse(text: &str) -> ClientFrame {
        ClientFrame::parse_json(text).unwrap()
    }

    fn channel(name: &str) -> Channel {
        Channel::new(name).unwrap()
    }

    #[test]
    fn frames_of_the_protocol() {
        let frame = parse(r#"{"type":"subscribe","id":1,"channel":"room:42"}"#);
        assert_eq!(frame.id.unwrap().as_json(), "1");
        let subscribe = |cursor: Option<&str>, rewind| {
            let cursor = cursor.map(Into::into);
            Request::Subscribe { channel: channel("room:42"), cursor, rewind }
        };
        assert_eq!(frame.request, subscribe(None, None));
        let frame = parse(r#"{"type":"subscribe","channel":"room:42","cursor":"1-0.x"}"#);
        assert_eq!(frame.request, subscribe(Some("1-0.x"), None));
        for (text, rewind) in [
            ("3", Rewind::Last(3)),
            ("\"3\"", Rewind::Last(3)),
            ("\"1970-01-01T00:00:01Z\"", Rewind::Since(1_000)),
        ] {
            let frame = format!(r#"{{"type":"subscribe","channel":"room:42","rewind":{text}}}"#);
            assert_eq!(parse(&frame).request, subscribe(None, Some(rewind)));
        }
        let frame = parse(r#"{"type":"history","channel":"room:42","before":"x","limit":7}"#);
        let page = Page { since: None, before: Some("x".into()), limit: 7 };
        assert_eq!(frame.request, Request::History { channel: channel("room:42"), page });
        let frame = parse(r#"{"id":"a\"b","type":"unsubscribe","channel":"a"}"#);
        assert_eq!(frame.id.unwrap().as_json(), r#""a\"b""#);
        assert_eq!(frame.request, Request::Unsubscribe { channel: channel("a") });
        assert_eq!(parse(r#"{"type":"ping"}"#).request, Request::Ping);
        for (given, payload) in [(r#","payload":{"a": 1}"#, r#"{"a": 1}"#), ("", "null")] {
            let frame = parse(&format!(r#"{{"type":"rpc","method":"carts.add"{given}}}"#));
            let payload = Payload::Json(payload.into());
            assert_eq!(frame.request, Request::Rpc { method: "carts.add".into(), payload });
        }
        let frame = parse(r#"{"type":"auth","id":1,"token":"a.b.c"}"#);
        assert_eq!(frame.request, Request::Auth { token: Secret("a.b.c".into()) });
        assert!(!format!("{frame:?}").contains("a.b.c"));
        let publish = r#"{"type":"publish","channel":"a","event":"e","payload":{"x": 1},"messageId":"m","echo":false}"#;
        assert_eq!(
            parse(publish).request,
            Request::Publish {
                channel: channel("a"),
                publication: Publication {
                    event: Event::new("e").unwrap(),
                    payload: Payload::Json(Bytes::from_static(br#"{"x": 1}"#)),
                    message_id: Some(MessageId::new("m").unwrap()),
                    exclude: None,
                },
                echo: false,
            }
        );
    }

    #[test]
    fn nonsense_is_answered_with_what_is_wrong() {
        let long = format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(129));
        let deep = format!(
            r#"{{"type":"publish","id":7,"channel":"a","payload":{}{}}}"#,
            "[".repeat(1_000),
            "]".repeat(1_000)
        );
        for (text, code, id, part) in [
            ("", Code::BadFrame, None, "not JSON"),
            ("hello", Code::BadFrame, None, "not JSON"),
            ("[1]", Code::BadFrame, None, "no JSON object"),
            ("{}", Code::BadFrame, None, "'type' is missing"),
            (r#"{"type":"dance","id":1}"#, Code::BadFrame, Some("1"), "unknown type 'dance'"),
            (r#"{"type":"rpc","id":1}"#, Code::BadFrame, Some("1"), "'method' is missing"),
            (r#"{"type":"rpc","id":1,"method":""}"#, Code::BadFrame, Some("1"), "'method' has"),
            (r#"{"type":"rpc","method":"a\nb"}"#, Code::BadFrame, None, "'method' has"),
            (r#"{"type":"rpc","method":"m","channel":"a"}"#, Code::BadFrame, None, "'channel'"),
            (r#"{"type":1,"id":"q"}"#, Code::BadFrame, Some("\"q\""), "'type' must be a string"),
            (r#"{"type":"ping","id":{}}"#, Code::BadFrame, None, "'id' must be"),
            (r#"{"type":"ping","id":null}"#, Code::BadFrame, None, "'id' must be"),
            (long.as_str(), Code::BadFrame, None, "'id' must be"),
            (r#"{"type":"subscribe","id":2}"#, Code::BadFrame, Some("2"), "'channel' is missing"),
            (
                r#"{"type":"subscribe","id":2,"channel":"a b"}"#,
                Code::BadChannel,
                Some("2"),
                "white space",
            ),
            (r#"{"type":"subscribe","id":2,"chanel":"a"}"#, Code::BadFrame, Some("2"), "missing"),
            (r#"{"type":"subscribe","channel":"a","rewind":0}"#, Code::BadFrame, None, "'rewind'"),
            (
                r#"{"type":"subscribe","channel":"a","rewind":1000000}"#,
                Code::BadFrame,
                None,
                "'rewind'",
            ),
            (r#"{"type":"subscribe","channel":"a","rewind":-1}"#, Code::BadFrame, None, "'rewind'"),
            (
                r#"{"type":"subscribe","channel":"a","rewind":"-1m"}"#,
                Code::BadFrame,
                None,
                "'rewind'",
            ),
            (
                r#"{"type":"subscribe","channel":"a","rewind":1,"cursor":"x"}"#,
                Code::BadFrame,
                None,
                "either",
            ),
            (r#"{"type":"history","channel":"a","limit":0}"#, Code::BadFrame, None, "'limit'"),
            (r#"{"type":"history","channel":"a","limit":1001}"#, Code::BadFrame, None, "'limit'"),
            (r#"{"type":"subscribe","channel":"a","since":"1"}"#, Code::BadFrame, None, "'since'"),
            (r#"{"type":"auth","id":3}"#, Code::BadFrame, Some("3"), "'token' is missing"),
            (r#"{"type":"auth","token":7}"#, Code::BadFrame, None, "'token' must be a string"),
            (r#"{"type":"publish","id":3,"channel":"a"}"#, Code::BadFrame, Some("3"), "'payload'"),
            (
                r#"{"type":"publish","channel":"a","payload":1,"echo":"no"}"#,
                Code::BadFrame,
                None,
                "'echo'",
            ),
            (deep.as_str(), Code::BadFrame, None, "nested deeper than 128"),
        ] {
            let error = ClientFrame::parse_json(text).unwrap_err();
            assert_eq!(error.code, code, "{text}");
            assert_eq!(error.id.as_ref().map(FrameId::as_json), id, "{text}");
            assert!(error.message.contains(part), "{} has no {part}", error.message);
        }
    }
}

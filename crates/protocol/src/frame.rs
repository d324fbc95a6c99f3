//! What a client says over a WebSocket.

mod past;

use std::fmt;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::body::take_publication;
use crate::fields::{Fields, FieldsError};
use crate::{Channel, Code, Payload, Publication};
pub use past::{MAX_REWIND, Page, Rewind};

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
mod tests;

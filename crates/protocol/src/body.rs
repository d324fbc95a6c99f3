//! What a publisher sends: the body of a plain Redis `PUBLISH`, of an HTTP request, of a batch.

use bytes::Bytes;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::fields::{Fields, FieldsError, check_json};
use crate::{Code, Event, MARKER, MessageId, Payload, SessionId};

/// The most messages in one batch.
pub const MAX_BATCH: usize = 100;
/// The most deliveries that one batch may ask for, each message to each of its channels.
const MAX_BATCH_TARGETS: usize = 1_000;
/// The members of a publication.
const MEMBERS: &[&str] = &["event", "payload", "messageId", "exclude"];
const MEMBERS_TEXT: &str = "event, payload, messageId, exclude";

/// A message as its publisher states it.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// Its name.
    pub event: Event,
    /// Its content.
    pub payload: Payload,
    /// Its identity, if the publisher gave one.
    pub message_id: Option<MessageId>,
    /// A session that does not want it.
    pub exclude: Option<SessionId>,
}

/// A body that is refused: the code for its publisher, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct BodyError {
    /// The code.
    pub code: Code,
    /// What was wrong and what is allowed.
    pub message: String,
}

impl BodyError {
    fn bad(message: impl Into<String>) -> Self {
        Self { code: Code::BadRequest, message: message.into() }
    }
}

impl From<String> for BodyError {
    fn from(message: String) -> Self {
        Self::bad(message)
    }
}

/// Reads the body of a plain Redis `PUBLISH`. A JSON object with `payload` and no members but
/// `event`, `payload`, `messageId` and `exclude` is a message; any other body is itself the
/// payload: JSON as it stands, text as a JSON string, other bytes as they are.
///
/// # Errors
/// When it is over `limit` bytes, nested too deep, begins with [`MARKER`], or is such an object
/// with a member that is not as it must be: delivering it half understood would be worse.
pub fn plain(body: &Bytes, limit: usize) -> Result<Publication, BodyError> {
    if body.len() > limit {
        let message = format!("a body of {} bytes; at most {limit} are allowed", body.len());
        return Err(BodyError { code: Code::TooLarge, message });
    }
    if body.first() == Some(&MARKER) {
        return Err(BodyError::bad("the byte 0xC1 begins a gateway's own frame"));
    }
    let Ok(text) = simdutf8::basic::from_utf8(body) else {
        return Ok(bare(Payload::Binary(body.clone())));
    };
    match Fields::parse(text) {
        Ok(fields) if fields.has("payload") && fields.only(MEMBERS) => {
            publication(fields, |raw| body.slice_ref(raw.get().as_bytes()))
        }
        _ => match check_json(text) {
            Ok(()) => Ok(bare(Payload::Json(trimmed(body, text)))),
            Err(_) if crate::fields::too_deep(body) && looks_like_json(text) => {
                Err(BodyError::bad(format!("JSON nested deeper than {}", crate::MAX_NESTING)))
            }
            Err(_) => Ok(bare(Payload::text(text))),
        },
    }
}

/// Reads the JSON body of an HTTP publish, `{event?, payload, messageId?, exclude?}`.
///
/// # Errors
/// Says what is wrong with it, with the code for the answer.
pub fn request(body: &Bytes) -> Result<Publication, BodyError> {
    publication(object(body)?, |raw| body.slice_ref(raw.get().as_bytes()))
}

/// One message of a batch: the channels it names, as written, and the message, or why there is
/// none.
pub type BatchItem = (Vec<String>, Result<Publication, BodyError>);

/// Reads the JSON body of a batch, `{"messages": [{channel or channels, …}]}`. A fault within one
/// message is that message's alone.
///
/// # Errors
/// When it is no such object, or asks for more than a batch may.
pub fn batch(body: &Bytes) -> Result<Vec<BatchItem>, BodyError> {
    let mut fields = object(body)?;
    let messages =
        fields.take("messages").ok_or_else(|| BodyError::bad("'messages' is missing"))?;
    fields.finish("messages")?;
    let messages: Vec<&RawValue> = serde_json::from_str(messages.get())
        .map_err(|_| BodyError::bad("'messages' must be an array"))?;
    if messages.len() > MAX_BATCH {
        let message = format!("{} messages; at most {MAX_BATCH} are allowed", messages.len());
        return Err(BodyError { code: Code::TooMany, message });
    }
    let items: Vec<BatchItem> = messages.into_iter().map(|raw| batch_item(raw.get())).collect();
    if items.iter().map(|(channels, _)| channels.len()).sum::<usize>() > MAX_BATCH_TARGETS {
        let message = format!("more than {MAX_BATCH_TARGETS} deliveries in one batch");
        return Err(BodyError { code: Code::TooMany, message });
    }
    Ok(items)
}

fn batch_item(raw: &str) -> BatchItem {
    // Copied: a message that is kept must not keep the whole batch.
    let copy = |raw: &RawValue| Bytes::copy_from_slice(raw.get().as_bytes());
    let mut fields = match Fields::parse(raw) {
        Ok(fields) => fields,
        Err(_) => return (vec![], Err(BodyError::bad("a message must be an object"))),
    };
    match targets(&mut fields) {
        Ok(channels) => (channels, publication(fields, copy)),
        Err(error) => (vec![], Err(error)),
    }
}

fn targets(fields: &mut Fields<'_>) -> Result<Vec<String>, BodyError> {
    let one = fields.take_string("channel")?;
    match (one, fields.take("channels")) {
        (Some(channel), None) => Ok(vec![channel.into_owned()]),
        (None, Some(raw)) => serde_json::from_str(raw.get())
            .ok()
            .filter(|channels: &Vec<String>| !channels.is_empty())
            .ok_or_else(|| BodyError::bad("'channels' must be an array of strings, not empty")),
        _ => Err(BodyError::bad("give either 'channel' or 'channels'")),
    }
}

fn object(body: &Bytes) -> Result<Fields<'_>, BodyError> {
    let text =
        simdutf8::basic::from_utf8(body).map_err(|_| BodyError::bad("the body is not UTF-8"))?;
    Fields::parse(text).map_err(|e| match e {
        FieldsError::NotJson(why) if text.trim().is_empty() => {
            BodyError::bad(format!("the body is empty ({why}); expected an object with 'payload'"))
        }
        FieldsError::NotJson(why) => BodyError::bad(format!("the body is not JSON: {why}")),
        FieldsError::NotObject => BodyError::bad("the body is no JSON object"),
    })
}

/// Reads the members of a publication; `keep` makes the payload's bytes the message's own.
fn publication<'a>(
    mut fields: Fields<'a>,
    keep: impl FnOnce(&'a RawValue) -> Bytes,
) -> Result<Publication, BodyError> {
    let publication = take_publication(&mut fields, keep)?;
    fields.finish(MEMBERS_TEXT)?;
    Ok(publication)
}

/// Takes the members of a publication out; `keep` makes the payload's bytes the message's own.
pub(crate) fn take_publication<'a>(
    fields: &mut Fields<'a>,
    keep: impl FnOnce(&'a RawValue) -> Bytes,
) -> Result<Publication, String> {
    let event = match fields.take_string("event")? {
        Some(name) => Event::new(&name).map_err(|e| format!("'event': {e}"))?,
        None => Event::default(),
    };
    let payload = fields.take("payload").ok_or("'payload' is missing")?;
    let message_id = match fields.take_string("messageId")? {
        Some(id) => Some(MessageId::new(&id).map_err(|e| format!("'messageId': {e}"))?),
        None => None,
    };
    let exclude = match fields.take_string("exclude")? {
        Some(id) => Some(SessionId::parse(&id).ok_or("'exclude' must be a session's id")?),
        None => None,
    };
    Ok(Publication { event, payload: Payload::Json(keep(payload)), message_id, exclude })
}

fn bare(payload: Payload) -> Publication {
    Publication { event: Event::default(), payload, message_id: None, exclude: None }
}

/// The JSON value without the white space around it.
fn trimmed(body: &Bytes, text: &str) -> Bytes {
    body.slice_ref(text.trim_matches([' ', '\t', '\r', '\n']).as_bytes())
}

/// Whether a text that is nested too deep was meant as JSON at all.
fn looks_like_json(text: &str) -> bool {
    text.trim_start().starts_with(['[', '{'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: impl AsRef<[u8]>) -> Result<Publication, BodyError> {
        plain(&Bytes::copy_from_slice(body.as_ref()), 1_000)
    }

    fn json(text: &str) -> Payload {
        Payload::Json(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_body_with_payload_is_a_message() {
        let session = SessionId::random();
        let body = format!(
            r#" {{"event":"headline","payload":{{"title":"hi"}},"messageId":"m1","exclude":"{session}"}} "#
        );
        let message = read(body).unwrap();
        assert_eq!(message.event.as_str(), "headline");
        assert_eq!(message.payload, json(r#"{"title":"hi"}"#));
        assert_eq!(message.message_id.unwrap().as_str(), "m1");
        assert_eq!(message.exclude, Some(session));
    }

    #[test]
    fn any_other_body_is_the_payload() {
        for body in
            ["1", "null", "\"x\"", "[1]", "{}", r#"{"event":"x"}"#, r#"{"payload":1,"other":2}"#]
        {
            assert_eq!(read(body).unwrap(), bare(json(body)), "{body}");
        }
        assert_eq!(read(" [1]\n").unwrap(), bare(json("[1]")));
        for text in ["", "hello", "say \"hi\"", "{\"a\":", "{} {}", "{'a':1}"] {
            assert_eq!(read(text).unwrap(), bare(Payload::text(text)), "{text}");
        }
        assert_eq!(
            read(b"\xff\x00").unwrap(),
            bare(Payload::Binary(Bytes::from_static(b"\xff\x00")))
        );
    }

    #[test]
    fn what_only_looks_like_a_message_is_refused() {
        for (body, code, part) in [
            (r#"{"payload":1,"event":2}"#.to_owned(), Code::BadRequest, "'event'"),
            (format!(r#"{{"payload":1,"event":"{}"}}"#, "x".repeat(65)), Code::BadRequest, "64"),
            (r#"{"payload":1,"event":"tidewire:gap"}"#.to_owned(), Code::BadRequest, "tidewire:"),
            (r#"{"payload":1,"messageId":""}"#.to_owned(), Code::BadRequest, "messageId"),
            (r#"{"payload":1,"exclude":"me"}"#.to_owned(), Code::BadRequest, "exclude"),
            ("x".repeat(1_001), Code::TooLarge, "1000"),
            ("[".repeat(300) + &"]".repeat(300), Code::BadRequest, "128"),
        ] {
            let error = read(&body).unwrap_err();
            assert_eq!(error.code, code, "{body}");
            assert!(error.message.contains(part), "{} has no {part}", error.message);
        }
        assert!(read(b"\xc1hello").is_err());
    }

    #[test]
    fn a_request_says_what_is_wrong() {
        let read = |body: &'static str| request(&Bytes::from_static(body.as_bytes()));
        assert_eq!(read(r#"{"payload":{"a":1}}"#).unwrap(), bare(json(r#"{"a":1}"#)));
        for (body, part) in [
            ("", "empty"),
            ("x", "not JSON"),
            ("[]", "no JSON object"),
            ("{}", "'payload' is missing"),
            (r#"{"payload":1,"evnt":"x"}"#, "'evnt'"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.message.contains(part), "{}", error.message);
        }
    }

    #[test]
    fn a_batch_keeps_its_faults_apart() {
        let body = br#"{"messages":[{"channel":"a","payload":1},{"channels":["b","c"],"payload":2},
            {"payload":3},{"channel":"d"},7]}"#;
        let items = batch(&Bytes::from_static(body)).unwrap();
        assert_eq!(items[0], (vec!["a".into()], Ok(bare(json("1")))));
        assert_eq!(items[1].0, ["b", "c"]);
        assert!(items[2].1.is_err() && items[3].1.is_err() && items[4].1.is_err());
        assert_eq!(items[3].0, ["d"]);
    }

    #[test]
    fn a_batch_is_bounded() {
        let many = format!(r#"{{"messages":[{}]}}"#, vec!["1"; 101].join(","));
        assert_eq!(batch(&many.into()).unwrap_err().code, Code::TooMany);
        let wide = format!(
            r#"{{"messages":[{{"payload":1,"channels":[{}]}}]}}"#,
            vec!["\"a\""; 1_001].join(",")
        );
        assert_eq!(batch(&wide.into()).unwrap_err().code, Code::TooMany);
    }
}

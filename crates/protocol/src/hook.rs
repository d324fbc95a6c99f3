//! What the application's hooks are asked and answer: the JSON bodies on both ways.
//!
//! The gateway's `hooks` send and read them over HTTP; nothing here does. `docs/hooks.md` tells the
//! application what stands here.

use std::net::IpAddr;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::fields::{Fields, FieldsError};
use crate::reply::{write_display, write_payload, write_string};
use crate::{Channel, Code, Event, MessageId, Payload, SessionId};

/// The longest message of a refusal that reaches the client, in characters.
const MAX_REFUSAL_CHARS: usize = 500;
/// The codes that a refusal may have: those that say "not like this", none that says "try again".
const REFUSALS: [Code; 8] = [
    Code::Forbidden,
    Code::BadRequest,
    Code::Unauthorized,
    Code::NotFound,
    Code::Conflict,
    Code::TooLarge,
    Code::TooFast,
    Code::TooMany,
];

/// What the application is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// May they open a stream?
    Connect,
    /// May they subscribe to a channel, or read what it keeps?
    Subscribe,
    /// May they publish this?
    Publish,
    /// What is the answer to this?
    Rpc,
}

impl Hook {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connect, Self::Subscribe, Self::Publish, Self::Rpc];

    /// Its name in the configuration, in bodies and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Rpc => "rpc",
        }
    }

    /// The members that an answer may have.
    const fn members(self) -> &'static str {
        match self {
            Self::Connect | Self::Subscribe => "error",
            Self::Publish => "error, payload, result",
            Self::Rpc => "error, payload",
        }
    }
}

/// Who wants something, as a hook is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct HookCaller<'a> {
    /// The user, for who has logged in as one.
    pub user: Option<&'a str>,
    /// What the user's token says about it to others.
    pub info: Option<&'a RawValue>,
    /// The name of its API key, for a backend.
    pub api_key: Option<&'a str>,
    /// The session, where there is one already.
    pub session: Option<SessionId>,
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub enum HookSubject<'a> {
    /// A stream or a poll.
    Connect {
        /// Over what.
        transport: &'a str,
        /// From where, as far as that is known.
        address: Option<IpAddr>,
    },
    /// A subscription.
    Subscribe {
        /// Where.
        channel: &'a Channel,
        /// Only to read what is kept, or to begin with it.
        history: bool,
    },
    /// A message that is to be published.
    Publish {
        /// Where.
        channel: &'a Channel,
        /// Its name.
        event: &'a Event,
        /// Its content.
        payload: &'a Payload,
        /// Its identity: the same when it is sent again.
        message_id: &'a MessageId,
    },
    /// A question.
    Rpc {
        /// What for.
        method: &'a str,
        /// With what.
        payload: &'a Payload,
    },
}

impl HookSubject<'_> {
    /// The hook that is asked about it.
    #[must_use]
    pub const fn hook(&self) -> Hook {
        match self {
            Self::Connect { .. } => Hook::Connect,
            Self::Subscribe { .. } => Hook::Subscribe,
            Self::Publish { .. } => Hook::Publish,
            Self::Rpc { .. } => Hook::Rpc,
        }
    }

    /// The body of the request, one JSON object. `id` is the question's own: a hook that has seen
    /// it has seen a repetition.
    #[must_use]
    pub fn body(&self, id: &MessageId, caller: &HookCaller<'_>) -> Vec<u8> {
        let mut out = br#"{"hook":""#.to_vec();
        out.extend_from_slice(self.hook().as_str().as_bytes());
        out.extend_from_slice(br#"","id":"#);
        write_string(id.as_str(), &mut out);
        caller.write_members(&mut out);
        let text = |name: &str, text: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(format!(",\"{name}\":").as_bytes());
            write_string(text, out);
        };
        match self {
            Self::Connect { transport, address } => {
                text("transport", transport, &mut out);
                if let Some(address) = address {
                    text("address", &address.to_canonical().to_string(), &mut out);
                }
            }
            Self::Subscribe { channel, history } => {
                text("channel", channel.as_str(), &mut out);
                if *history {
                    out.extend_from_slice(br#","history":true"#);
                }
            }
            Self::Publish { channel, event, payload, message_id } => {
                text("channel", channel.as_str(), &mut out);
                text("event", event.as_str(), &mut out);
                text("messageId", message_id.as_str(), &mut out);
                write_content(payload, &mut out);
            }
            Self::Rpc { method, payload } => {
                text("method", method, &mut out);
                write_content(payload, &mut out);
            }
        }
        out.push(b'}');
        out
    }
}

impl HookCaller<'_> {
    fn write_members(&self, out: &mut Vec<u8>) {
        for (begin, text) in [(r#","user":"#, self.user), (r#","apiKey":"#, self.api_key)] {
            if let Some(text) = text {
                out.extend_from_slice(begin.as_bytes());
                write_string(text, out);
            }
        }
        if let Some(info) = self.info {
            out.extend_from_slice(br#","info":"#);
            out.extend_from_slice(info.get().as_bytes());
        }
        if let Some(session) = self.session {
            out.extend_from_slice(br#","session":""#);
            write_display(session, out);
            out.push(b'"');
        }
    }
}

fn write_content(payload: &Payload, out: &mut Vec<u8>) {
    out.extend_from_slice(br#","payload":"#);
    write_payload(payload, out);
    if matches!(payload, Payload::Binary(_)) {
        out.extend_from_slice(br#","encoding":"base64""#);
    }
}

/// What a hook says: yes, with or without more, or no.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookAnswer {
    /// No: the code and the words for the client.
    pub refusal: Option<(Code, String)>,
    /// Of `publish`: what is published instead; of `rpc`: the answer. One JSON value.
    pub payload: Option<Bytes>,
    /// Of `publish`: what the publisher is told in its acknowledgement. One JSON value.
    pub result: Option<Bytes>,
}

impl HookAnswer {
    /// Reads the body of an answer; an empty one is a yes.
    ///
    /// # Errors
    /// Says what is wrong with it, for the operator: it is no answer to that hook.
    pub fn parse(hook: Hook, body: &Bytes) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|_| "it is not UTF-8".to_owned())?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut fields = Fields::parse(text).map_err(|error| match error {
            FieldsError::NotJson(why) => format!("it is not JSON: {why}"),
            FieldsError::NotObject => "it is no JSON object".to_owned(),
        })?;
        let mut answer = Self::default();
        if let Some(error) = fields.take("error").filter(|raw| raw.get() != "null") {
            answer.refusal = Some(refusal(error.get())?);
        }
        // Copied: a payload that is kept must not keep the whole answer.
        let copy = |raw: &RawValue| Bytes::copy_from_slice(raw.get().as_bytes());
        if matches!(hook, Hook::Publish | Hook::Rpc) {
            answer.payload = fields.take("payload").map(copy);
        }
        if hook == Hook::Publish {
            answer.result = fields.take("result").map(copy);
        }
        fields.finish(hook.members())?;
        Ok(answer)
    }

    /// A no without a code of its own, as the status 403 is one: its body may have the words.
    #[must_use]
    pub fn forbidden(body: &Bytes) -> (Code, String) {
        let said = std::str::from_utf8(body).ok().and_then(|text| {
            let error = Fields::parse(text).ok()?.take("error")?;
            refusal(error.get()).ok()
        });
        said.unwrap_or_else(|| (Code::Forbidden, REFUSED.to_owned()))
    }
}

/// What a client is told where the application says no and nothing else.
const REFUSED: &str = "the application refuses it";

fn refusal(text: &str) -> Result<(Code, String), String> {
    let mut fields = Fields::parse(text).map_err(|_| "'error' must be an object".to_owned())?;
    let of = |why: String| format!("'error': {why}");
    let code = match fields.take_string("code").map_err(of)? {
        None => Code::Forbidden,
        Some(name) => {
            let known = REFUSALS.into_iter().find(|code| code.as_str() == name);
            known.ok_or_else(|| {
                let all: Vec<_> = REFUSALS.iter().map(|code| code.as_str()).collect();
                format!("'error': 'code' must be one of {}", all.join(", "))
            })?
        }
    };
    let message = match fields.take_string("message").map_err(of)? {
        Some(message) => message.chars().take(MAX_REFUSAL_CHARS).collect(),
        None => REFUSED.to_owned(),
    };
    fields.finish("code, message").map_err(of)?;
    Ok((code, message))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(subject: HookSubject<'_>, caller: HookCaller<'_>) -> Value {
        let id = MessageId::new("q1").unwrap();
        serde_json::from_slice(&subject.body(&id, &caller)).unwrap()
    }

    #[test]
    fn bodies_are_what_the_page_says() {
        let info = RawValue::from_string(r#"{"name":"Al"}"#.to_owned()).unwrap();
        let session = SessionId::from_bytes([0; 16]);
        let alice = HookCaller {
            user: Some("ali\"ce"),
            info: Some(&info),
            api_key: None,
            session: Some(session),
        };
        let address = Some("::ffff:1.2.3.4".parse().unwrap());
        assert_eq!(
            body(HookSubject::Connect { transport: "sse", address }, HookCaller::default()),
            json!({"hook": "connect", "id": "q1", "transport": "sse", "address": "1.2.3.4"})
        );
        let channel = Channel::new("room:42").unwrap();
        assert_eq!(
            body(HookSubject::Subscribe { channel: &channel, history: true }, alice),
            json!({"hook": "subscribe", "id": "q1", "user": "ali\"ce", "info": {"name": "Al"},
                   "session": session.to_string(), "channel": "room:42", "history": true})
        );
        let message_id = MessageId::new("m").unwrap();
        let payload = Payload::Binary(Bytes::from_static(b"\xff"));
        let event = Event::default();
        let publish = HookSubject::Publish {
            channel: &channel,
            event: &event,
            payload: &payload,
            message_id: &message_id,
        };
        assert_eq!(
            body(publish, HookCaller::default()),
            json!({"hook": "publish", "id": "q1", "channel": "room:42", "event": "message",
                   "messageId": "m", "payload": "/w==", "encoding": "base64"})
        );
        let payload = Payload::text("x");
        let shop = HookCaller { api_key: Some("shop"), ..HookCaller::default() };
        assert_eq!(
            body(HookSubject::Rpc { method: "m", payload: &payload }, shop),
            json!({"hook": "rpc", "id": "q1", "apiKey": "shop", "method": "m", "payload": "x"})
        );
    }

    #[test]
    fn answers_are_yes_no_or_nonsense() {
        let parse = |hook, text: &'static str| HookAnswer::parse(hook, &Bytes::from(text));
        for text in ["", "  ", "{}", r#"{"error":null}"#] {
            assert_eq!(parse(Hook::Connect, text), Ok(HookAnswer::default()), "{text}");
        }
        let answer = parse(Hook::Publish, r#"{"payload":null,"result":{"n": 1}}"#).unwrap();
        assert_eq!(answer.payload.as_deref(), Some(&b"null"[..]));
        assert_eq!(answer.result.as_deref(), Some(&br#"{"n": 1}"#[..]));
        let no = |text| parse(Hook::Rpc, text).unwrap().refusal.unwrap();
        assert_eq!(no(r#"{"error":{}}"#), (Code::Forbidden, REFUSED.to_owned()));
        let said = r#"{"error":{"code":"conflict","message":"sold out"}}"#;
        assert_eq!(no(said), (Code::Conflict, "sold out".to_owned()));
        assert_eq!(HookAnswer::forbidden(&Bytes::from(said)), (Code::Conflict, "sold out".into()));
        assert_eq!(HookAnswer::forbidden(&Bytes::from("<h1>no")).0, Code::Forbidden);
        for (hook, text, part) in [
            (Hook::Connect, "yes", "not JSON"),
            (Hook::Connect, "true", "no JSON object"),
            (Hook::Connect, r#"{"payload":1}"#, "unknown member 'payload'; allowed: error"),
            (Hook::Rpc, r#"{"result":1}"#, "unknown member 'result'"),
            (Hook::Rpc, r#"{"error":"no"}"#, "'error' must be an object"),
            (Hook::Rpc, r#"{"error":{"code":"unavailable"}}"#, "'code' must be one of"),
            (Hook::Rpc, r#"{"error":{"reason":"x"}}"#, "unknown member 'reason'"),
        ] {
            let error = parse(hook, text).unwrap_err();
            assert!(error.contains(part), "{error} has no {part}");
        }
    }
}

//! Publishing over HTTP.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tidewire_auth::Identity;
use tidewire_protocol::{
    BatchItem, Channel, Code, Event, MessageId, Payload, Publication, batch, request,
};

use super::Problem;
use super::body::{Kind, read};
use super::uri::{Query, channel_of};
use crate::app::App;
use crate::auth::Caller;
use crate::publish::{Done, Publishing};

/// The largest batch, in bytes.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// The publisher's name for a bare payload (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// `POST /v1/channels/{channel}/messages`
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let channel = channel_of(&parts.uri)?;
    // Before the body is read: who may not publish here sends for nothing.
    app.auth.policy.may_publish(&caller.identity, &channel)?;
    let kind = Kind::of(&parts.headers)?;
    let settings = &app.settings;
    let query = Query::of(&parts.uri)?;
    let body = read(&parts.headers, body, settings.message_bytes, settings.body_timeout).await?;
    let publication = publication(kind, &query, &parts.headers, &body)?;
    let mut publishing = app.publish(&caller.identity, channel, publication, None)?;
    match publishing.done(&app).await {
        Ok(done) => Ok(json_response(&acknowledged(&publishing, done))),
        Err(error) => Err(Problem::of_publish(&error, publishing.message_id)),
    }
}

fn publication(
    kind: Kind,
    query: &Query<'_>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Publication, Problem> {
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    let key = match headers.get(IDEMPOTENCY_KEY).map(|value| value.to_str()) {
        None => None,
        Some(Ok(key)) => {
            Some(MessageId::new(key).map_err(|e| bad(format!("Idempotency-Key: {e}")))?)
        }
        Some(Err(_)) => return Err(bad("Idempotency-Key must be visible ASCII".to_owned())),
    };
    let payload = match kind {
        Kind::Json => {
            let mut publication = request(body)?;
            publication.message_id = publication.message_id.or(key);
            return Ok(publication);
        }
        Kind::Text => {
            let text = std::str::from_utf8(body);
            Payload::text(text.map_err(|_| bad("text/plain must be UTF-8".to_owned()))?)
        }
        Kind::Bytes => Payload::Binary(body.clone()),
    };
    let event = match query.get("event") {
        None => Event::default(),
        Some(name) => Event::new(name).map_err(|e| bad(format!("'event': {e}")))?,
    };
    Ok(Publication { event, payload, message_id: key, exclude: None })
}

/// `POST /v1/messages`
pub(crate) async fn many(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if Kind::of(&headers)? != Kind::Json {
        return Err(Problem::new(
            Code::UnsupportedType,
            "a batch's content type must be application/json",
        ));
    }
    let body = read(&headers, body, MAX_BATCH_BYTES, app.settings.body_timeout).await?;
    // All are on their way before the first answer is awaited: one round trip, in order.
    let who = &caller.identity;
    let begun: Vec<_> = batch(&body)?.into_iter().flat_map(|item| begin(&app, who, item)).collect();
    let mut results = Vec::with_capacity(begun.len());
    for begun in begun {
        results.push(begun.result(&app).await);
    }
    Ok(json_response(&json!({ "results": results })))
}

/// One message to one channel of a batch.
enum Begun {
    Publishing(Channel, Publishing),
    Refused(Value),
}

impl Begun {
    fn refused(app: &App, channel: Option<&str>, code: Code, message: &str) -> Self {
        app.metrics.error(code);
        let mut result = json!({ "code": code.as_str(), "message": message });
        if let Some(channel) = channel {
            result["channel"] = channel.into();
        }
        Self::Refused(result)
    }

    async fn result(self, app: &App) -> Value {
        match self {
            Self::Refused(result) => result,
            Self::Publishing(channel, mut publishing) => {
                let outcome = publishing.done(app).await;
                let mut result = match &outcome {
                    Ok(done) => acknowledged(&publishing, *done),
                    Err(error) => {
                        app.metrics.error(error.code());
                        json!({
                            "messageId": publishing.message_id.as_str(),
                            "code": error.code().as_str(),
                            "message": error.to_string(),
                        })
                    }
                };
                result["channel"] = channel.as_str().into();
                result
            }
        }
    }
}

fn begin(app: &App, who: &Identity, (channels, publication): BatchItem) -> Vec<Begun> {
    let most = app.settings.message_bytes;
    let publication = match publication {
        Ok(publication) if publication.payload.len() > most => {
            Err((Code::TooLarge, format!("a payload of at most {most} bytes is allowed")))
        }
        Ok(publication) => Ok(publication),
        Err(error) => Err((error.code, error.message)),
    };
    match publication {
        Err((code, message)) if channels.is_empty() => {
            vec![Begun::refused(app, None, code, &message)]
        }
        Err((code, message)) => {
            let refuse = |name: &String| Begun::refused(app, Some(name), code, &message);
            channels.iter().map(refuse).collect()
        }
        Ok(publication) => {
            let begin = |name: &String| match Channel::new(name) {
                Ok(channel) => match app.publish(who, channel.clone(), publication.clone(), None) {
                    Ok(publishing) => Begun::Publishing(channel, publishing),
                    Err(e) => Begun::refused(app, Some(name), e.code, &e.message),
                },
                Err(e) => Begun::refused(app, Some(name), Code::BadChannel, &e.to_string()),
            };
            channels.iter().map(begin).collect()
        }
    }
}

/// What the publisher is told.
fn acknowledged(publishing: &Publishing, done: Done) -> Value {
    let mut body = json!({ "messageId": publishing.message_id.as_str() });
    if let Some(cursor) = done.cursor {
        body["cursor"] = cursor.to_string().into();
    }
    if done.duplicate {
        body["duplicate"] = true.into();
    }
    body
}

/// A 200 with a JSON body.
pub(crate) fn json_response(body: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

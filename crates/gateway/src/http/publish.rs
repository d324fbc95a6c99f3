//! Publishing over HTTP.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use tidewire_auth::Identity;
use tidewire_protocol::{
    BatchItem, BodyError, Channel, Code, Event, MessageId, Payload, Publication, batch, request,
};

use super::Problem;
use super::body::{Kind, read};
use super::uri::{Query, channel_of};
use crate::app::App;
use crate::asking::seen;
use crate::auth::{Caller, refusal};
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
    app.may_publish_now(&caller.identity, &channel)?;
    let mut publishing = match decide(&app, &caller.identity, channel, publication).await {
        Ok(publishing) => publishing,
        Err((error, message_id)) => {
            return Err(Problem::from(error).with_message_id(message_id));
        }
    };
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
    let mut full = HashSet::new();
    let mut begun: Vec<_> = batch(&body)?
        .into_iter()
        .flat_map(|item| begin(&app, &caller.identity, item, &mut full))
        .collect();
    ask(&app, &caller.identity, &mut begun).await;
    let mut results = Vec::with_capacity(begun.len());
    for begun in begun {
        results.push(begun.result(&app).await);
    }
    Ok(json_response(&json!({ "results": results })))
}

/// Hands a message to the broker, once the application has seen it where it is to see it. An error
/// names the message that may be sent again.
async fn decide(
    app: &App,
    who: &Identity,
    channel: Channel,
    mut publication: Publication,
) -> Result<Publishing, (BodyError, Option<MessageId>)> {
    let denied = |denied| (refusal(denied), None);
    let mut result = None;
    if app.asks_publish(who, &channel) {
        let asking = app.ask_publish(who, None, &channel, &mut publication).map_err(denied)?;
        let answer = asking.await.map_err(|error| (error, publication.message_id.clone()))?;
        (publication, result) = seen(publication, answer);
    }
    let publishing = app.publish(who, channel, publication, None).map_err(denied)?;
    Ok(publishing.with_result(result))
}

/// Asks the application about those of a batch that it is to see: of one channel one after the
/// other, so that they stay in order, of several at the same time.
async fn ask(app: &App, who: &Identity, begun: &mut [Begun]) {
    let mut by_channel: HashMap<Channel, Vec<&mut Begun>> = HashMap::new();
    for one in begun {
        if let Begun::Asked(channel, _) = one {
            by_channel.entry(channel.clone()).or_default().push(one);
        }
    }
    let in_order = by_channel.into_values().map(|all| async move {
        for one in all {
            let Begun::Asked(channel, publication) = one else { continue };
            let (channel, publication) = (channel.clone(), publication.clone());
            *one = match decide(app, who, channel.clone(), publication).await {
                Ok(publishing) => Begun::Publishing(channel, publishing),
                Err((error, message_id)) => {
                    Begun::refused(app, Some(channel.as_str()), &error, message_id)
                }
            };
        }
    });
    join_all(in_order).await;
}

/// One message to one channel of a batch.
enum Begun {
    /// The application is to be asked first.
    Asked(Channel, Publication),
    Publishing(Channel, Publishing),
    Refused(Value),
}

impl Begun {
    fn refused(
        app: &App,
        channel: Option<&str>,
        error: &BodyError,
        message_id: Option<MessageId>,
    ) -> Self {
        app.metrics.error(error.code);
        let mut result = json!({ "code": error.code.as_str(), "message": error.message });
        if let Some(channel) = channel {
            result["channel"] = channel.into();
        }
        if let Some(message_id) = message_id {
            result["messageId"] = message_id.as_str().into();
        }
        Self::Refused(result)
    }

    async fn result(self, app: &App) -> Value {
        match self {
            Self::Refused(result) => result,
            // None is left when results are asked for.
            Self::Asked(..) => Value::Null,
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

/// Begins an item of a batch. Messages to a channel that is `full`, because one before was too fast,
/// are too fast, too: there may be room again, but sent again they would come in another order.
fn begin(
    app: &App,
    who: &Identity,
    (channels, publication): BatchItem,
    full: &mut HashSet<Channel>,
) -> Vec<Begun> {
    let most = app.settings.message_bytes;
    let publication = match publication {
        Ok(publication) if publication.payload.len() > most => {
            let message = format!("a payload of at most {most} bytes is allowed");
            Err(BodyError { code: Code::TooLarge, message })
        }
        publication => publication,
    };
    match publication {
        Err(error) if channels.is_empty() => vec![Begun::refused(app, None, &error, None)],
        Err(error) => {
            let refuse = |name: &String| Begun::refused(app, Some(name), &error, None);
            channels.iter().map(refuse).collect()
        }
        Ok(publication) => {
            let begin = |name: &String| begin_one(app, who, name, publication.clone(), full);
            channels.iter().map(begin).collect()
        }
    }
}

fn begin_one(
    app: &App,
    who: &Identity,
    name: &str,
    publication: Publication,
    full: &mut HashSet<Channel>,
) -> Begun {
    let channel = match Channel::new(name) {
        Ok(channel) => channel,
        Err(error) => {
            let error = BodyError { code: Code::BadChannel, message: error.to_string() };
            return Begun::refused(app, Some(name), &error, None);
        }
    };
    if full.contains(&channel) {
        let message = "a message to this channel before it was too fast".to_owned();
        let error = BodyError { code: Code::TooFast, message };
        return Begun::refused(app, Some(name), &error, None);
    }
    if let Err(denied) = app.may_publish_now(who, &channel) {
        if denied.code == Code::TooFast {
            full.insert(channel);
        }
        return Begun::refused(app, Some(name), &refusal(denied), None);
    }
    if app.asks_publish(who, &channel) {
        return Begun::Asked(channel, publication);
    }
    match app.publish(who, channel.clone(), publication, None) {
        Ok(publishing) => Begun::Publishing(channel, publishing),
        Err(denied) => Begun::refused(app, Some(name), &refusal(denied), None),
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
    // It was checked when it came.
    if let Some(result) =
        publishing.result.as_deref().and_then(|it| serde_json::from_slice(it).ok())
    {
        body["result"] = result;
    }
    body
}

/// A 200 with a JSON body.
pub(crate) fn json_response(body: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

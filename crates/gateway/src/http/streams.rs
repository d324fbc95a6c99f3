//! The two streaming routes: they check the request and answer with a takeover.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tidewire_hub::{Form, Frames, Start};
use tidewire_protocol::sse::Style;
use tidewire_protocol::{Channel, Code, Cursor, Rewind, StreamToken, Subprotocol};
use tidewire_websocket::{self as websocket, Deflate};

use super::Problem;
use super::credentials::{Sorted, ask, sort};
use super::uri::Query;
use crate::app::App;
use crate::auth::Caller;
use crate::metrics::Refusal;
use crate::session::retry_millis;
use crate::takeover::Takeover;

/// The most channels of one event stream: its one id must fit into a header.
const MAX_SSE_CHANNELS: usize = 32;

/// `GET /v1/ws`
pub(crate) async fn websocket(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    // A request's body cannot be shared between threads, so it is not held while the application
    // is asked.
    let upgraded = match handshaken(&app, &request, &caller) {
        Ok(handshaken) => upgrade(&app, handshaken, caller).await,
        Err(problem) => Err(problem),
    };
    if upgraded.as_ref().is_err_and(|problem| problem.code() != Code::Unavailable) {
        app.metrics.refused(Refusal::Handshake);
    }
    upgraded
}

/// A handshake that is well done, and the channels of its address.
struct Handshaken {
    accept: HeaderValue,
    subprotocol: Option<Subprotocol>,
    deflate: Option<Deflate>,
    sorted: Sorted,
}

fn handshaken(app: &App, request: &Request, caller: &Caller) -> Result<Handshaken, Problem> {
    let headers = request.headers();
    let accept = handshake(request)?;
    let subprotocol = subprotocol(headers)?;
    let deflate = compression(app, headers)?;
    let query = Query::of(request.uri())?;
    let named = starts(app, &query, query.channels(app.settings.subscriptions_per_session)?)?;
    Ok(Handshaken { accept, subprotocol, deflate, sorted: admit(app, caller, named)? })
}

async fn upgrade(app: &App, handshaken: Handshaken, caller: Caller) -> Result<Response, Problem> {
    let Handshaken { accept, subprotocol, deflate, mut sorted } = handshaken;
    if !caller.must_log_in {
        sorted = ask(app, &caller.identity, sorted, false).await?;
    }
    let (channels, denied) = sorted;
    if app.is_draining() {
        app.metrics.refused(Refusal::Draining);
        return Err(Problem::new(Code::Unavailable, "this node is stopping; try another")
            .with_header(RETRY_AFTER, HeaderValue::from_static("1")));
    }
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let head = response.headers_mut();
    head.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    head.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol {
        head.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol.as_str()));
    }
    if let Some(agreed) = deflate {
        let agreed = HeaderValue::try_from(agreed.to_string());
        head.extend(agreed.map(|agreed| (SEC_WEBSOCKET_EXTENSIONS, agreed)));
    }
    let frames = Frames {
        subprotocol: subprotocol.unwrap_or_default(),
        deflate: deflate.is_some_and(Deflate::is_for_sending),
    };
    let takeover = Takeover {
        form: Form::WebSocket(frames),
        inflate: deflate.is_some(),
        caller,
        channels,
        denied,
        places: StreamToken::default(),
        wait: Duration::ZERO,
    };
    response.extensions_mut().insert(takeover);
    Ok(response)
}

/// The channels of a WebSocket's address that its caller may have, with the caller's own. Those of
/// a caller who is still to log in are sorted then.
fn admit(
    app: &App,
    caller: &Caller,
    mut channels: Vec<(Channel, Start)>,
) -> Result<Sorted, Problem> {
    if caller.must_log_in {
        return Ok((channels, Vec::new()));
    }
    let named: Vec<_> = channels.iter().map(|(channel, _)| channel).collect();
    let room = app.settings.subscriptions_per_session.saturating_sub(named.len());
    let own = app.auth.own_channels(&caller.identity, &named);
    channels.extend(own.into_iter().take(room).map(|channel| (channel, Start::Present)));
    sort(app, &caller.identity, channels)
}

/// Checks the opening handshake (RFC 6455, section 4.2.1); gives the value of
/// `Sec-WebSocket-Accept`.
fn handshake(request: &Request) -> Result<HeaderValue, Problem> {
    let bad = |detail: &str| Problem::new(Code::BadRequest, detail);
    let headers = request.headers();
    if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
        return Err(bad("a WebSocket handshake is expected here (Upgrade: websocket)"));
    }
    if request.method() != Method::GET {
        return Err(bad("a WebSocket handshake is a GET request"));
    }
    if request.version() != Version::HTTP_11 {
        return Err(bad("a WebSocket handshake is made over HTTP/1.1"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        // Section 4.4: the answer names the version that is spoken here.
        return Err(bad("Sec-WebSocket-Version must be 13")
            .with_header(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let Some(key) = key.map(str::trim).filter(|key| websocket::is_valid_key(key)) else {
        return Err(bad("Sec-WebSocket-Key must be 16 bytes in base64"));
    };
    HeaderValue::try_from(websocket::accept_key(key))
        .map_err(|_| Problem::new(Code::Internal, "no answer to this Sec-WebSocket-Key"))
}

/// The first subprotocol that the client names and that is spoken here; none if it names none.
fn subprotocol(headers: &HeaderMap) -> Result<Option<Subprotocol>, Problem> {
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Ok(None);
    }
    let known = |token: &str| {
        Subprotocol::ALL.into_iter().find(|one| token.eq_ignore_ascii_case(one.as_str()))
    };
    if let Some(subprotocol) = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(known) {
        return Ok(Some(subprotocol));
    }
    let [json, msgpack] = Subprotocol::ALL.map(Subprotocol::as_str);
    let detail = format!("unknown subprotocol; allowed: {json}, {msgpack}, or none");
    Err(Problem::new(Code::BadRequest, detail))
}

/// What is agreed on about compression, where the node compresses at all.
fn compression(app: &App, headers: &HeaderMap) -> Result<Option<Deflate>, Problem> {
    if app.settings.compress_from.is_none() {
        return Ok(None);
    }
    let offers = headers.get_all(SEC_WEBSOCKET_EXTENSIONS);
    Deflate::negotiate(offers.iter().map(HeaderValue::as_bytes))
        .map_err(|malformed| Problem::new(Code::BadRequest, malformed.to_string()))
}

/// Whether a comma-separated header names a token, whatever its case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|one| one.eq_ignore_ascii_case(token))
}

/// What a comma-separated header names.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// `GET /v1/sse`
pub(crate) async fn sse(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let wanted = wanted(&app, &caller, &request)?;
    let (method, version) = (request.method().clone(), request.version());
    drop(request);
    let Wanted { style, sorted, places } = wanted;
    // To an EventSource an error status is the end for ever; a stream that ends makes it come
    // back, through the proxy to another node.
    let (channels, denied) = match ask(&app, &caller.identity, sorted, true).await {
        Err(problem) if problem.code() == Code::Unavailable => return Ok(come_back(version)),
        asked => asked?,
    };
    let is_stored = |channel: &Channel| app.settings.namespaces.of(channel).is_stored();
    let form = match &channels[..] {
        [(only, _)] if is_stored(only) => Form::SseWithId(style),
        _ => Form::Sse(style),
    };
    if app.is_draining() {
        app.metrics.refused(Refusal::Draining);
        return Ok(come_back(version));
    }
    let mut response = event_stream(Body::empty());
    if method == Method::GET {
        let (inflate, wait) = (false, Duration::ZERO);
        let takeover = Takeover { form, inflate, caller, channels, denied, places, wait };
        response.extensions_mut().insert(takeover);
    }
    Ok(response)
}

/// What an event stream is asked for.
struct Wanted {
    style: Style,
    sorted: Sorted,
    places: StreamToken,
}

fn wanted(app: &App, caller: &Caller, request: &Request) -> Result<Wanted, Problem> {
    let query = Query::of(request.uri())?;
    let most = MAX_SSE_CHANNELS.min(app.settings.subscriptions_per_session);
    let channels = query.channels(most)?;
    let named: Vec<_> = channels.iter().map(|(channel, _)| channel).collect();
    let room = most.saturating_sub(named.len());
    let mut own = app.auth.own_channels(&caller.identity, &named);
    own.truncate(room);
    if channels.is_empty() && own.is_empty() {
        let detail = "name at least one channel: /v1/sse?channel=news";
        return Err(Problem::new(Code::BadRequest, detail));
    }
    let style = match (query.flag("envelope")?, query.flag("text")?) {
        (false, false) => Style::Payload,
        (true, false) => Style::Envelope,
        (false, true) => Style::Text,
        (true, true) => {
            return Err(Problem::new(Code::BadRequest, "give either 'envelope' or 'text'"));
        }
    };
    let (channels, places) = resumed(app, &query, request.headers(), channels, own)?;
    Ok(Wanted { style, sorted: sort(app, &caller.identity, channels)?, places })
}

/// An event stream that ends at once, for what will pass: its client comes back.
pub(crate) fn come_back(version: Version) -> Response {
    let mut response = event_stream(Body::from(format!("retry: {}\n\n", retry_millis())));
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    response
}

/// Where each channel of an address begins, by its `cursor` or the address's `rewind`.
pub(super) fn starts(
    app: &App,
    query: &Query<'_>,
    channels: Vec<(Channel, Option<&str>)>,
) -> Result<Vec<(Channel, Start)>, Problem> {
    let rewind = query.get("rewind").map(Rewind::parse).transpose();
    let rewind = rewind.map_err(|detail| Problem::new(Code::BadRequest, detail))?;
    let start = |(channel, cursor): (Channel, Option<&str>)| {
        let start = app.start_at(&channel, cursor, rewind)?;
        Ok((channel, start))
    };
    channels.into_iter().map(start).collect()
}

/// What a client held when it comes back.
enum Held {
    Token(StreamToken),
    /// Nothing that can be read.
    Lost,
}

/// Where each channel of an event stream begins: by the last id that its client had, else by its
/// address; `own` are those that its caller's token names. The id may also be one channel's cursor. In the header, which a browser sends by
/// itself and for ever, one that cannot be read is a gap on each channel and no error.
pub(super) fn resumed(
    app: &App,
    query: &Query<'_>,
    headers: &HeaderMap,
    channels: Vec<(Channel, Option<&str>)>,
    own: Vec<Channel>,
) -> Result<(Vec<(Channel, Start)>, StreamToken), Problem> {
    let stored: Vec<_> = channels
        .iter()
        .map(|(channel, _)| channel)
        .chain(&own)
        .filter(|channel| app.settings.namespaces.of(channel).is_stored())
        .collect();
    let read = |text: &str| match (StreamToken::parse(text), &stored[..]) {
        (Some(token), _) => Some(token),
        (None, [only]) => Cursor::parse(text, only).ok().map(StreamToken::of),
        _ => None,
    };
    let header = headers.get("last-event-id").filter(|value| !value.is_empty());
    let held = match (header, query.get("lastEventId").filter(|text| !text.is_empty())) {
        (Some(value), _) => {
            Some(value.to_str().ok().and_then(read).map_or(Held::Lost, Held::Token))
        }
        (None, Some(text)) => Some(Held::Token(read(text).ok_or_else(|| {
            Problem::new(Code::BadCursor, "'lastEventId' is no id of an event stream")
        })?)),
        (None, None) => None,
    };
    let Some(held) = held else {
        let mut starts = starts(app, query, channels)?;
        starts.extend(own.into_iter().map(|channel| (channel, Start::Present)));
        return Ok((starts, StreamToken::default()));
    };
    let start = |channel: &Channel| match &held {
        _ if !stored.contains(&channel) => Start::Present,
        Held::Token(token) => token.get(channel).map_or(Start::Present, Start::After),
        Held::Lost => Start::Lost,
    };
    let all = channels.iter().map(|(channel, _)| channel).chain(&own);
    let starts = all.map(|channel| (channel.clone(), start(channel))).collect();
    let places = match held {
        Held::Token(token) => token,
        Held::Lost => StreamToken::default(),
    };
    Ok((starts, places))
}

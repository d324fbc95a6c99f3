//! The two streaming routes: they check the request and answer with a takeover.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tidewire_hub::Form;
use tidewire_protocol::Code;
use tidewire_protocol::sse::Style;
use tidewire_websocket as websocket;

use super::Problem;
use super::uri::Query;
use crate::app::App;
use crate::metrics::Refusal;
use crate::session::retry_millis;
use crate::takeover::Takeover;

/// The most channels of one event stream: its one id must fit into a header.
const MAX_SSE_CHANNELS: usize = 32;
const JSON_SUBPROTOCOL: &str = "tidewire.json";

/// `GET /v1/ws`
pub(crate) async fn websocket(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let upgraded = upgrade(&app, &request);
    if upgraded.as_ref().is_err_and(|problem| problem.code() != Code::Unavailable) {
        app.metrics.refused(Refusal::Handshake);
    }
    upgraded
}

fn upgrade(app: &App, request: &Request) -> Result<Response, Problem> {
    let headers = request.headers();
    let accept = handshake(request)?;
    let subprotocol = subprotocol(headers)?;
    let query = Query::of(request.uri())?;
    refuse_places(&query)?;
    let channels = query.channels(app.settings.subscriptions_per_session)?;
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
        head.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
    }
    let takeover = Takeover { form: Form::WebSocketJson, channels };
    response.extensions_mut().insert(takeover);
    Ok(response)
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

fn subprotocol(headers: &HeaderMap) -> Result<Option<&'static str>, Problem> {
    if !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return Ok(None);
    }
    if has_token(headers, &SEC_WEBSOCKET_PROTOCOL, JSON_SUBPROTOCOL) {
        return Ok(Some(JSON_SUBPROTOCOL));
    }
    let detail = format!("unknown subprotocol; allowed: {JSON_SUBPROTOCOL}, or none");
    Err(Problem::new(Code::BadRequest, detail))
}

/// Whether a comma-separated header names a token, whatever its case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(token))
}

/// `GET /v1/sse`
pub(crate) async fn sse(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::of(request.uri())?;
    refuse_places(&query)?;
    let channels = query.channels(MAX_SSE_CHANNELS.min(app.settings.subscriptions_per_session))?;
    if channels.is_empty() {
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
    // To an EventSource an error status is the end for ever; a stream that ends makes it come
    // back, through the proxy to another node.
    let leaving = app.is_draining();
    let body = if leaving {
        app.metrics.refused(Refusal::Draining);
        Body::from(format!("retry: {}\n\n", retry_millis()))
    } else {
        Body::empty()
    };
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    if leaving && request.version() < Version::HTTP_2 {
        head.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if request.method() == Method::GET && !leaving {
        response.extensions_mut().insert(Takeover { form: Form::Sse(style), channels });
    }
    Ok(response)
}

/// All channels are live: there is no place to go on from, and saying nothing would promise one.
fn refuse_places(query: &Query<'_>) -> Result<(), Problem> {
    for name in ["cursor", "rewind"] {
        if query.get(name).is_some() {
            let detail = format!("'{name}': live channels keep no messages to go on from");
            return Err(Problem::new(Code::NoHistory, detail));
        }
    }
    Ok(())
}

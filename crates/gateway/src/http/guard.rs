//! What every request passes: the check of origin and host, the answer to CORS preflights, and the
//! counting of errors. While the node stops, it also tells clients not to keep their connections.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION,
    HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tidewire_hub::Form;
use tidewire_protocol::Code;

use super::Problem;
use super::problem::Answered;
use crate::app::App;
use crate::metrics::Refusal;
use crate::origin::by_https;
use crate::takeover::Takeover;

/// The layer around all routes.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let _answering = app.requests.token();
    let is_http2 = request.version() >= Version::HTTP_2;
    let origin = request.headers().get(ORIGIN).cloned();
    // HTTP/2 has the host in the address.
    let host = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned())
        .or_else(|| text(request.headers().get(HOST)).map(str::to_owned));
    let hosts = request.headers().get_all(HOST).iter().count();
    let checked = match &origin {
        // RFC 9112, section 3.2.
        _ if hosts > 1 => Err("there is more than one Host".to_owned()),
        Some(origin) if text(Some(origin)).is_none() => Err("the origin is no text".to_owned()),
        origin => {
            let by_https = by_https(request.headers());
            app.settings.origins.check(text(origin.as_ref()), host.as_deref(), by_https)
        }
    };
    let origins = &app.settings.origins;
    let mut response = match checked.and_then(|()| origins.check_way(request.headers())) {
        Err(detail) => {
            app.metrics.refused(Refusal::Origin);
            Problem::new(Code::Forbidden, detail).into_response()
        }
        Ok(()) => {
            let mut response =
                if is_preflight(&request) { preflight() } else { next.run(request).await };
            if let Some(origin) = origin {
                allow(response.headers_mut(), origin);
            }
            response
        }
    };
    if app.is_draining() && !is_http2 && !is_stream(&response) {
        // A proxy that kept the connection would send its next request into a node that is gone.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    if let Some(Answered(code)) = response.extensions().get() {
        app.metrics.error(*code);
    }
    response
}

/// Whether the answer becomes a stream, whose head is not for this layer to change.
fn is_stream(response: &Response) -> bool {
    let takeover = response.extensions().get::<Takeover>();
    takeover.is_some_and(|takeover| takeover.form != Form::Json)
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value.and_then(|value| value.to_str().ok())
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(ORIGIN)
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to "may a page of yours send this?" (Fetch standard, section 3.2).
fn preflight() -> Response {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, idempotency-key, last-event-id",
        ),
        // Two hours, the most that browsers keep it.
        (ACCESS_CONTROL_MAX_AGE, "7200"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    // Only origins that may call come here; without this their streams could not use the cookie.
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
}

//! What every request passes: the check of origin and host, the answer to CORS preflights, and the
//! counting of errors.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tidewire_protocol::Code;

use super::Problem;
use super::problem::Answered;
use crate::app::App;
use crate::metrics::Refusal;

/// The layer around all routes.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
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
        origin => app.settings.origins.check(text(origin.as_ref()), host.as_deref()),
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
    response.headers_mut().append(VARY, HeaderValue::from_static("Origin"));
    if let Some(Answered(code)) = response.extensions().get() {
        app.metrics.error(*code);
    }
    response
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

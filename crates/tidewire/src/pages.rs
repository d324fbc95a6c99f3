//! The pages that come with the binary: one small page to try the gateway with.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

/// No code but the page's own, and no connections but to where it came from.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes beside `/v1`.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/", get(async || page("text/html", include_str!("pages/index.html"))))
        .route("/page.js", get(async || page("text/javascript", include_str!("pages/page.js"))))
        .route("/page.css", get(async || page("text/css", include_str!("pages/page.css"))))
        .route(
            "/favicon.svg",
            get(async || page("image/svg+xml", include_str!("pages/favicon.svg"))),
        )
}

fn page(kind: &str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, format!("{kind}; charset=utf-8")),
        (CACHE_CONTROL, "no-cache".to_owned()),
        (CONTENT_SECURITY_POLICY, POLICY.to_owned()),
    ];
    (headers, text)
}

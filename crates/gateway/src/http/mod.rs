//! The HTTP routes: axum as router, on whatever lane the connection lives.
//!
//! Handlers answer; they never hold a stream. The routes of the two streams answer with a
//! [`Takeover`](crate::takeover::Takeover) in the response's extensions, and the connection does
//! the rest once the response has passed every layer.

mod body;
mod channels;
mod credentials;
mod guard;
mod history;
mod poll;
mod problem;
mod publish;
mod streams;
mod uri;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;
pub(crate) use credentials::counts_as_failed;
pub(crate) use problem::Problem;
pub(crate) use streams::come_back;

/// All routes. `pages` serves what is not under `/v1`.
pub(crate) fn router(app: &Arc<App>, pages: Router) -> Router {
    Router::new()
        .route("/v1/ws", get(streams::websocket))
        .route("/v1/sse", get(streams::sse))
        .route("/v1/channels", get(channels::list))
        .route("/v1/poll", get(poll::poll))
        .route("/v1/channels/{channel}/messages", post(publish::one).get(history::page))
        .route("/v1/messages", post(publish::many))
        .route_layer(axum::middleware::from_fn_with_state(app.clone(), credentials::credentials))
        .with_state(app.clone())
        .merge(pages)
        .fallback(problem::not_found)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(axum::middleware::from_fn_with_state(app.clone(), guard::guard))
}

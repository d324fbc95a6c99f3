//! The channels of this node, for operators.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::Uri;
use serde_json::json;
use tidewire_protocol::Code;

use super::Problem;
use super::publish::json_response;
use super::uri::Query;
use crate::app::App;
use crate::auth::Caller;

const DEFAULT_LIMIT: usize = 1_000;
const MAX_LIMIT: usize = 1_000;

/// `GET /v1/channels?prefix=&after=&limit=`: those with subscribers on this node, by name.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Problem> {
    app.auth.may_control(&caller.identity)?;
    let query = Query::of(&uri)?;
    let limit = match query.get("limit") {
        None => DEFAULT_LIMIT,
        Some(text) => match text.parse() {
            Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => limit,
            _ => {
                let detail = format!("'limit' must be a number from 1 to {MAX_LIMIT}");
                return Err(Problem::new(Code::BadRequest, detail));
            }
        },
    };
    let (prefix, after) = (query.get("prefix"), query.get("after"));
    // One more than asked for shows whether there are more.
    let mut found = app.hub.list(prefix.unwrap_or_default(), after.unwrap_or_default(), limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let channels: Vec<_> = found
        .iter()
        .map(|one| json!({ "channel": one.channel.as_str(), "subscribers": one.subscribers }))
        .collect();
    let mut body = json!({ "channels": channels });
    if let Some(last) = found.last().filter(|_| more) {
        body["next"] = last.channel.as_str().into();
    }
    Ok(json_response(&body))
}

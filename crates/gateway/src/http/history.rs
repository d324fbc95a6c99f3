//! The history of a channel, page by page.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::Uri;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use tidewire_protocol::{Code, Page, write_page};

use super::Problem;
use super::uri::{Query, channel_of};
use crate::app::App;
use crate::auth::Caller;

/// `GET /v1/channels/{channel}/messages?since=&before=&limit=`
pub(crate) async fn page(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Problem> {
    let channel = channel_of(&uri)?;
    let page = wanted(&uri)?;
    app.auth.policy.may_read(&caller.identity, &channel)?;
    app.ask_history(&caller.identity, None, &channel).await?;
    let part = app.history(&caller.identity, &channel, &page)?.await?;
    let mut body = b"{".to_vec();
    write_page(&channel, &part.messages, part.next, &mut body);
    body.push(b'}');
    // It is held until its client has read it.
    body.shrink_to_fit();
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

/// The part that is asked for.
fn wanted(uri: &Uri) -> Result<Page, Problem> {
    let query = Query::of(uri)?;
    let limit = Page::limit(query.get("limit"));
    let limit = limit.map_err(|detail| Problem::new(Code::BadRequest, detail))?;
    let place = |name| query.get(name).map(Into::into);
    Ok(Page { since: place("since"), before: place("before"), limit })
}

//! Polling: the messages after a place, at once or when there are some.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method};
use tidewire_hub::{Form, Start};
use tidewire_protocol::{Channel, Code, StreamToken};

use super::Problem;
use super::uri::Query;
use crate::app::App;
use crate::auth::Caller;
use crate::history::parse;
use crate::takeover::Takeover;

const DEFAULT_WAIT: u64 = 25;
const MAX_WAIT: u64 = 60;
/// As many as an event stream may have: the token is the same.
const MAX_CHANNELS: usize = 32;

/// `GET /v1/poll?channel=&cursor=&wait=`
pub(crate) async fn poll(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (wait, channels, places) = wanted(&app, &caller, &request)?;
    let method = request.method().clone();
    drop(request);
    // An answer has no place for a refusal beside messages, so one is the whole answer.
    let (channels, refused) = app.ask_subscribe(&caller.identity, None, channels).await;
    if let Some((_, error)) = refused.into_iter().next() {
        return Err(error.into());
    }
    // Who has no place yet asks for one.
    let wait = if places.is_some() { wait } else { Duration::ZERO };
    let wait = wait.min(left(&caller));
    let mut response = Response::new(Body::empty());
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if method == Method::GET {
        let places = places.unwrap_or_default();
        let (form, inflate, denied) = (Form::Json, false, Vec::new());
        let takeover = Takeover { form, inflate, caller, channels, denied, places, wait };
        response.extensions_mut().insert(takeover);
    }
    Ok(response)
}

type Wanted = (Duration, Vec<(Channel, Start)>, Option<StreamToken>);

/// What a poll asks for, if its caller may have it.
fn wanted(app: &App, caller: &Caller, request: &Request) -> Result<Wanted, Problem> {
    let query = Query::of(request.uri())?;
    let wait = wait(&query)?;
    let named = query.channels(MAX_CHANNELS.min(app.settings.subscriptions_per_session))?;
    if named.is_empty() {
        let detail = "name at least one channel: /v1/poll?channel=room:42";
        return Err(Problem::new(Code::BadRequest, detail));
    }
    for (channel, _) in &named {
        app.auth.policy.may_subscribe(&caller.identity, channel)?;
        app.check_stored(channel)?;
    }
    let (mut channels, places) = places(app, &query, named)?;
    for (channel, start) in &mut channels {
        *start = app.may_start(&caller.identity, channel, *start)?;
    }
    Ok((wait, channels, places))
}

fn wait(query: &Query<'_>) -> Result<Duration, Problem> {
    let seconds = match query.get("wait") {
        None => Some(DEFAULT_WAIT),
        Some(text) => text.parse().ok().filter(|seconds| *seconds <= MAX_WAIT),
    };
    seconds.map(Duration::from_secs).ok_or_else(|| {
        let detail = format!("'wait' must be a number of seconds from 0 to {MAX_WAIT}");
        Problem::new(Code::BadRequest, detail)
    })
}

/// How long its caller's login still counts.
fn left(caller: &Caller) -> Duration {
    let Some(end) = caller.identity.expires else { return Duration::MAX };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_secs(end).saturating_sub(now)
}

type Places = (Vec<(Channel, Start)>, Option<StreamToken>);

/// Where each channel begins, and the places that were given.
fn places(
    app: &App,
    query: &Query<'_>,
    named: Vec<(Channel, Option<&str>)>,
) -> Result<Places, Problem> {
    let Some(text) = query.get("cursor") else {
        let given = query.get("rewind").is_some().then(StreamToken::default);
        return Ok((super::streams::starts(app, query, named)?, given));
    };
    let token = match (StreamToken::parse(text), &named[..]) {
        (Some(token), _) => token,
        (None, [(only, _)]) => StreamToken::of(parse(text, only)?),
        // Each channel by its own, as in the address of an event stream.
        (None, _) => {
            let mut token = StreamToken::default();
            for (channel, cursor) in &named {
                if let Some(cursor) = cursor {
                    token.set(parse(cursor, channel)?);
                }
            }
            token
        }
    };
    let start = |channel: Channel| {
        let start = token.get(&channel).map_or(Start::Present, Start::After);
        (channel, start)
    };
    let channels = named.into_iter().map(|(channel, _)| start(channel)).collect();
    Ok((channels, Some(token)))
}

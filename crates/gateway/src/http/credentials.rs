//! What a request shows to say who it is: a header, or on the streaming paths, where a browser can
//! set none, the address or a cookie.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, COOKIE, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use tidewire_auth::{AuthError, Denied, Identity};
use tidewire_hub::Start;
use tidewire_protocol::{BodyError, Channel, Code, Hook};

use super::Problem;
use super::streams;
use super::uri::Query;
use crate::address::{AddressPlace, TooMany};
use crate::app::App;
use crate::auth::{Caller, Held, refusal};
use crate::connection::Peer;
use crate::metrics::{Limit, Refusal};

/// The cookie that the streaming paths look at.
const COOKIE_NAME: &str = "tidewire_token";

/// The layer around the API: finds out who calls, and leaves a [`Caller`] in the request.
pub(crate) async fn credentials(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    // A request's body cannot be shared between threads, so it is not held while keys are awaited.
    let shown = shown(&app, &request);
    let is_websocket = request.uri().path() == "/v1/ws";
    let place = place(&app, &request);
    let (transport, address) = (transport(&request), address(&app, &request));
    let kind = (transport.is_some(), is_websocket);
    let caller = caller(&app, shown, place, address, kind).await;
    let caller = match caller {
        Ok(caller) => let_in(&app, caller, transport).await,
        refused => refused,
    };
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        // An error status would end an EventSource for ever, and this will pass.
        Err(problem)
            if matches!(problem.code(), Code::Unavailable | Code::TooMany | Code::TooFast)
                && request.uri().path() == "/v1/sse" =>
        {
            streams::come_back(request.version())
        }
        Err(problem) => problem.into_response(),
    }
}

/// The credential that the request shows, if it does.
fn shown(app: &App, request: &Request) -> Result<Option<String>, Problem> {
    let headers = request.headers();
    if let Some(token) = bearer(headers)? {
        return Ok(Some(token.to_owned()));
    }
    if !is_stream(request) {
        return Ok(None);
    }
    let query = Query::of(request.uri())?;
    let token = query.get("token").filter(|token| !token.is_empty()).map(str::to_owned);
    // Where nobody can log in, a cookie is a leftover of something else.
    Ok(token.or_else(|| app.auth.has_logins().then(|| cookie(headers)).flatten()))
}

/// The place of a stream that came through a proxy, where those are counted.
fn place(app: &App, request: &Request) -> Result<Option<AddressPlace>, Problem> {
    let Some(Peer(peer)) = request.extensions().get().filter(|_| is_stream(request)) else {
        return Ok(None);
    };
    // Who comes by itself was counted when its connection came.
    if app.addresses.is_trusted(*peer) {
        let client = app.addresses.counted_as(*peer, request.headers());
        if !app.may_shake_hands(client) {
            app.metrics.refused(Refusal::Limit);
            let (code, detail) = (Code::TooFast, "new streams of this address: full");
            return Err(BodyError { code, message: detail.to_owned() }.into());
        }
    }
    app.addresses.of_stream(*peer, request.headers()).map_err(|TooMany| {
        app.metrics.refused(Refusal::Limit);
        app.metrics.limited(Limit::ConnectionsPerAddress);
        Problem::new(Code::TooMany, "connections of this address: full")
            .with_header(RETRY_AFTER, HeaderValue::from_static("5"))
    })
}

fn is_stream(request: &Request) -> bool {
    transport(request).is_some()
}

/// What a request opens, where it opens something.
fn transport(request: &Request) -> Option<&'static str> {
    match request.uri().path() {
        "/v1/ws" => Some("websocket"),
        "/v1/sse" => Some("sse"),
        "/v1/poll" => Some("poll"),
        _ => None,
    }
}

/// Where the caller is, if anybody wants to know that.
fn address(app: &App, request: &Request) -> Option<Box<IpAddr>> {
    let is_wanted = app.hooks.has(Hook::Connect) || app.allowance.needs_address();
    let Peer(peer) = request.extensions().get().filter(|_| is_wanted)?;
    Some(Box::new(app.addresses.client_of(*peer, request.headers())))
}

/// The caller, if the application lets in whoever it is. Who is still to log in is asked about
/// then.
async fn let_in(
    app: &App,
    caller: Caller,
    transport: Option<&'static str>,
) -> Result<Caller, Problem> {
    if let Some(transport) = transport.filter(|_| !caller.must_log_in) {
        let address = caller.address.as_deref().copied();
        app.hooks.connect(&caller.identity, transport, address).await?;
    }
    Ok(caller)
}

async fn caller(
    app: &App,
    shown: Result<Option<String>, Problem>,
    place: Result<Option<AddressPlace>, Problem>,
    address: Option<Box<IpAddr>>,
    (is_stream, is_websocket): (bool, bool),
) -> Result<Caller, Problem> {
    let mut held: Vec<_> = place?.map(Held::Address).map(Arc::new).into_iter().collect();
    let at = address.as_deref().copied();
    let (identity, must_log_in) = match shown? {
        Some(credential) => {
            app.may_try_login(at)?;
            let login = app.auth.login(&credential).await;
            if login.as_ref().is_err_and(counts_as_failed) {
                app.login_failed(at);
            }
            (login?, false)
        }
        None if app.auth.is_open() => (Identity::anonymous(), false),
        None if is_websocket => (Identity::anonymous(), true),
        None => return Err(AuthError::Missing.into()),
    };
    if is_stream {
        let place = app.user_place(&identity).await.map_err(|full| {
            Problem::from(full.denied()).with_header(RETRY_AFTER, HeaderValue::from_static("5"))
        })?;
        held.extend(place.map(Arc::new));
    }
    Ok(Caller { identity, must_log_in, held, address })
}

/// Whether a refused credential was a guess, perhaps: not one that was good until a moment ago, and
/// not for want of keys.
pub(crate) fn counts_as_failed(error: &AuthError) -> bool {
    !matches!(error, AuthError::Expired | AuthError::NoKeys | AuthError::Missing)
}

/// The token of `Authorization: Bearer` (RFC 6750, section 2.1). Other schemes are a proxy's.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let broken = || Problem::from(AuthError::Malformed);
    let value = value.to_str().map_err(|_| broken())?;
    // The space before no token at all is trimmed on the way here.
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    if token.is_empty() { Err(broken()) } else { Ok(Some(token)) }
}

/// The token of the cookie. A browser sends cookies along from pages of any site; so it counts
/// only where the browser says that the page is an allowed one: by its `Origin`, which the guard
/// has checked, or, since same-origin reads have none, by `Sec-Fetch-Site` (which no page can
/// set; Fetch Metadata, section 2.3).
fn cookie(headers: &HeaderMap) -> Option<String> {
    let same_origin = || headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    if !headers.contains_key(ORIGIN) && !same_origin() {
        return None;
    }
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == COOKIE_NAME && !value.is_empty())
        .map(|(_, value)| value.trim_matches('"').to_owned())
}

impl From<AuthError> for Problem {
    /// 401 says how to log in (RFC 9110, section 11.6.1; RFC 6750, section 3).
    fn from(error: AuthError) -> Self {
        let challenge = match error {
            AuthError::NoKeys => return Self::new(error.code(), error.to_string()),
            AuthError::Missing => r#"Bearer realm="tidewire""#,
            _ => r#"Bearer realm="tidewire", error="invalid_token""#,
        };
        Self::new(error.code(), error.to_string())
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self::from(refusal(denied))
    }
}

/// The channels of a stream that its caller may have, and those that it may not.
pub(crate) type Sorted = (Vec<(Channel, Start)>, Vec<(Channel, Code)>);

/// Sorts the channels of a stream by whether its caller may subscribe there; an error if it may
/// nowhere.
pub(crate) fn sort(
    app: &App,
    who: &Identity,
    channels: Vec<(Channel, Start)>,
) -> Result<Sorted, Problem> {
    let (mut allowed, mut denied, mut first) = (Vec::new(), Vec::new(), None);
    for (channel, start) in channels {
        match app.may_start(who, &channel, start) {
            Ok(start) => allowed.push((channel, start)),
            Err(error) => {
                denied.push((channel, error.code));
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if allowed.is_empty() => Err(error.into()),
        _ => {
            denied.iter().for_each(|(_, code)| app.metrics.error(*code));
            Ok((allowed, denied))
        }
    }
}

/// Asks the application about the channels that the rules allow; an error if none is left, or if
/// the stream is to be whole or not at all and about one of them nothing could be had.
pub(crate) async fn ask(
    app: &App,
    who: &Identity,
    (channels, mut denied): Sorted,
    whole: bool,
) -> Result<Sorted, Problem> {
    let asked = !channels.is_empty();
    let (allowed, refused) = app.ask_subscribe(who, None, channels).await;
    let fails = |error: &BodyError| {
        (whole && error.code == Code::Unavailable) || (asked && allowed.is_empty())
    };
    let failed = refused.iter().find(|(_, error)| fails(error));
    if let Some((_, error)) = failed {
        return Err(error.clone().into());
    }
    for (channel, error) in refused {
        app.metrics.error(error.code);
        denied.push((channel, error.code));
    }
    Ok((allowed, denied))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_bearer_is_ours() {
        let read = |value: &'static str| {
            bearer(&headers(&[("authorization", value)])).map(|t| t.map(str::to_owned)).ok()
        };
        assert_eq!(read("Bearer a.b.c"), Some(Some("a.b.c".into())));
        assert_eq!(read("bearer  a.b.c "), Some(Some("a.b.c".into())));
        assert_eq!(read("Basic YTpi"), Some(None));
        // Whose token is empty is told, and is not taken for nobody.
        assert_eq!(read("Bearer "), None);
        assert_eq!(read("bearer"), None);
        assert_eq!(read("Negotiate"), Some(None));
        assert!(bearer(&headers(&[])).unwrap().is_none());
    }

    #[test]
    fn a_cookie_counts_from_allowed_pages_alone() {
        let with = |more: &[(&'static str, &'static str)]| {
            let mut all = vec![("cookie", "a=b; tidewire_token=x.y.z; c=d")];
            all.extend(more);
            cookie(&headers(&all))
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("sec-fetch-site", "cross-site")]), None);
        assert_eq!(with(&[("sec-fetch-site", "same-site")]), None);
        assert_eq!(with(&[("sec-fetch-site", "same-origin")]).as_deref(), Some("x.y.z"));
        assert_eq!(with(&[("origin", "https://app.example")]).as_deref(), Some("x.y.z"));
        assert_eq!(cookie(&headers(&[("origin", "x"), ("cookie", "tidewire_token=")])), None);
    }
}

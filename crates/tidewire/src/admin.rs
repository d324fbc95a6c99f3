//! The admin listener: metrics and health, on an address of its own. It decides nothing; what is
//! ready is asked of the closure that it is given.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry;

/// Ready, or the reason why not.
pub(crate) type Ready = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The paths of the admin listener: `/metrics` (Prometheus' text format), `/healthz` (the process
/// runs), `/readyz` (503 with the reason as text while the node cannot do its job), and `POST /drain`,
/// which does what SIGTERM does. With `demo` also `POST /crash`: see [`crash`].
pub(crate) fn router(
    metrics: PrometheusHandle,
    ready: Ready,
    drain: Arc<Notify>,
    demo: bool,
) -> Router {
    let asked = ready.clone();
    let router = if demo { Router::new().route("/crash", post(crash)) } else { Router::new() };
    router
        .route("/metrics", get(move || async move { scrape(&metrics, &asked) }))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(move || async move { readiness(&ready) }))
        .route(
            "/drain",
            post(move |headers: HeaderMap| async move { start_drain(&drain, &headers) }),
        )
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

fn scrape(metrics: &PrometheusHandle, ready: &Ready) -> Response {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    // Known only to who asks, so it is asked whenever somebody looks.
    metrics::gauge!("tidewire_ready").set(if ready().is_ok() { 1 } else { 0 });
    let mut page = metrics.render();
    telemetry::process::render(&mut page);
    ([(header::CONTENT_TYPE, TEXT)], page).into_response()
}

fn start_drain(drain: &Notify, headers: &HeaderMap) -> Response {
    // A page on any site can send this to an operator's own machine; nobody else has an origin.
    if headers.contains_key(header::ORIGIN) {
        return not_from_a_browser();
    }
    drain.notify_one();
    (StatusCode::ACCEPTED, "draining\n").into_response()
}

/// Ends the process with the request unanswered: clients and supervisor see what a fault would show
/// them. Not by SIGKILL to itself, which the kernel ignores for a container's first process.
async fn crash(headers: HeaderMap) -> Response {
    if headers.contains_key(header::ORIGIN) {
        return not_from_a_browser();
    }
    tracing::error!("crashing, because POST /crash said so (demo = true)");
    std::process::abort()
}

fn not_from_a_browser() -> Response {
    problem(StatusCode::FORBIDDEN, "forbidden", "not from a browser")
}

fn readiness(ready: &Ready) -> Response {
    match ready() {
        Ok(()) => "ready".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn not_found(uri: Uri) -> Response {
    let message = format!("there is no {}", uri.path());
    problem(StatusCode::NOT_FOUND, "not_found", &message)
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let message = format!("{} takes no {method}", uri.path());
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &message)
}

/// An error as RFC 9457 has it, with our `code`.
fn problem(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "code": code,
        "detail": message,
    });
    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, kind, body.to_string()).into_response()
}

/// How many connections are served at a time: scrapers, health checks and a curious operator. The
/// rest wait in the system's queue, so that nobody can use up the process's files from here.
const CONNECTIONS: usize = 64;
/// By then the head of the first or next request must be there; a scraper that keeps its
/// connection comes back within this, or connects anew.
const HEAD: Duration = Duration::from_secs(65);

/// The router for a listener on loopback: a page of another site whose name resolves to 127.0.0.1 (DNS
/// rebinding) reads nothing there. Browsers always send a `Host`; health checks over HTTP/1.0 need none.
pub(crate) fn on_loopback(router: Router) -> Router {
    router.layer(middleware::from_fn(async |request: Request, next: Next| {
        let host = request.headers().get(header::HOST);
        if host.is_none_or(|host| host.to_str().is_ok_and(tidewire_gateway::is_local)) {
            return next.run(request).await;
        }
        let message = "the host is not this machine; use localhost, 127.0.0.1 or [::1]";
        problem(StatusCode::FORBIDDEN, "forbidden", message)
    }))
}

/// Serves until cancelled, then lets requests under way finish. Faults of one connection end it
/// alone; a fault of accepting (no file left) is waited out.
pub(crate) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let tasks = TaskTracker::new();
    while let Some(Ok(place)) = stop.run_until_cancelled(places.clone().acquire_owned()).await {
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else { break };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let stop = stop.clone();
        tasks.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, "an admin connection ended");
            }
            drop(place);
        });
    }
    tasks.close();
    tasks.wait().await;
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(
        ready: Result<(), String>,
        method: &str,
        path: &str,
    ) -> (u16, String, String, String) {
        ask_with(ready, method, path, false).await
    }

    async fn ask_with(
        ready: Result<(), String>,
        method: &str,
        path: &str,
        demo: bool,
    ) -> (u16, String, String, String) {
        let recorder = telemetry::metrics_recorder().unwrap();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, telemetry::describe);
        let router = router(handle, Arc::new(move || ready.clone()), Arc::default(), demo);
        let request =
            Request::builder().method(method).uri(path).header("origin", "http://evil.example");
        let request = request.body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let header = |name| {
            let value = response.headers().get(name);
            value.map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let (kind, allow) = (header(header::CONTENT_TYPE), header(header::ALLOW));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, kind, allow, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_and_readiness() {
        let (status, _, _, body) = ask(Ok(()), "GET", "/readyz").await;
        assert_eq!((status, body.as_str()), (200, "ready"));
        let (status, kind, _, body) = ask(Err("link 1 is down".to_owned()), "GET", "/readyz").await;
        assert_eq!((status, body.as_str()), (503, "link 1 is down"));
        assert!(kind.starts_with("text/plain"), "{kind}");
        let (status, _, _, body) = ask(Err("not yet".to_owned()), "GET", "/healthz").await;
        assert_eq!((status, body.as_str()), (200, "ok"));
    }

    #[tokio::test]
    async fn metrics_have_their_type_and_the_process() {
        let (status, kind, _, body) = ask(Ok(()), "GET", "/metrics").await;
        assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
        assert!(body.contains("tidewire_build_info{version=\""), "{body}");
        assert!(body.contains("\nprocess_resident_memory_bytes "), "{body}");
    }

    #[tokio::test]
    async fn the_rest_is_a_problem() {
        let (status, kind, _, body) = ask(Ok(()), "GET", "/metric").await;
        assert_eq!((status, kind.as_str()), (404, "application/problem+json"));
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["code"], "not_found");
        let (status, kind, allow, body) = ask(Ok(()), "POST", "/metrics").await;
        assert_eq!((status, kind.as_str()), (405, "application/problem+json"));
        assert_eq!(allow, "GET,HEAD");
        assert!(body.contains("method_not_allowed"), "{body}");
    }

    #[tokio::test]
    async fn a_crash_is_to_be_had_in_demonstrations_only_and_by_no_page() {
        assert_eq!(ask(Ok(()), "POST", "/crash").await.0, 404);
        assert_eq!(ask_with(Ok(()), "POST", "/crash", true).await.0, 403);
        assert_eq!(ask_with(Ok(()), "GET", "/crash", true).await.0, 405);
        assert_eq!(ask(Ok(()), "POST", "/drain").await.0, 403);
    }

    #[tokio::test]
    async fn on_loopback_foreign_names_are_refused() {
        let handle = telemetry::metrics_recorder().unwrap().handle();
        let router = on_loopback(router(handle, Arc::new(|| Ok(())), Arc::default(), false));
        for (host, status) in [
            (Some("localhost:8001"), 200),
            (Some("127.0.0.1:8001"), 200),
            (Some("[::1]:8001"), 200),
            (None, 200),
            (Some("evil.example:8001"), 403),
            (Some("127.0.0.1.evil.example"), 403),
        ] {
            for path in ["/metrics", "/readyz"] {
                let mut request = Request::builder().uri(path);
                if let Some(host) = host {
                    request = request.header("host", host);
                }
                let request = request.body(Body::empty()).unwrap();
                let response = router.clone().oneshot(request).await.unwrap();
                assert_eq!(response.status(), status, "{host:?} {path}");
            }
        }
    }

    #[tokio::test]
    async fn it_serves_and_stops() {
        let recorder = telemetry::metrics_recorder().unwrap();
        let router = router(recorder.handle(), Arc::new(|| Ok(())), Arc::default(), false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/healthz", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(listener, router, stop.clone()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        assert_eq!(client.get(&url).send().await.unwrap().text().await.unwrap(), "ok");
        // The client's connection is still open and idle; that must not hold the end up.
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), served).await.unwrap().unwrap();
        assert!(client.get(&url).send().await.is_err());
    }
}

//! The pages that come with the binary: one small page to try the gateway with, and the demos of
//! `examples/`. They decide nothing, and what they show they get as every client does.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

/// No code but the page's own, and no connections but to where it came from.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The same; the demos write some of their style where it is used.
const DEMO_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
                           base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of `examples/` by their names there.
macro_rules! demos {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("../../../examples/", $name)))),*]
    };
}

/// All of them but what only a backend runs. The pages show and link to their sources.
const DEMOS: &[(&str, &str)] = demos! {
    "index.html" "index.js"
    "break.html" "break.js"
    "chat.html" "chat.js"
    "cursors.html" "cursors.js"
    "dashboard.html" "dashboard.js" "backend/metrics.mjs"
    "game.html" "game.js"
    "job.html" "job.js" "backend/job.mjs"
    "notifications.html" "notifications.js"
    "prices.html" "prices.js"
    "lib/demo.css" "lib/demo.js" "lib/icon.svg" "lib/tidewire.js"
};

/// The routes beside `/v1`. The demos only where everyone may do everything (`open`): they log in
/// nowhere.
pub(crate) fn router(open: bool) -> Router {
    let router = Router::new()
        .route("/", get(async || page("page.html", include_str!("pages/index.html"), POLICY)))
        .route("/page.js", get(async || page("page.js", include_str!("pages/page.js"), POLICY)))
        .route("/page.css", get(async || page("page.css", include_str!("pages/page.css"), POLICY)))
        .route(
            "/favicon.svg",
            get(async || page("favicon.svg", include_str!("pages/favicon.svg"), POLICY)),
        );
    if open { router.merge(demos()) } else { router }
}

fn demos() -> Router {
    let router = Router::new().route("/demo", get(async || Redirect::permanent("/demo/")));
    DEMOS.iter().fold(router, |router, (name, text)| {
        let path =
            if *name == "index.html" { "/demo/".to_owned() } else { format!("/demo/{name}") };
        router.route(&path, get(async || page(name, text, DEMO_POLICY)))
    })
}

fn page(name: &str, text: &'static str, policy: &'static str) -> impl IntoResponse {
    let kind = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        Some((_, "svg")) => "image/svg+xml; charset=utf-8",
        _ => "text/javascript; charset=utf-8",
    };
    let headers =
        [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache"), (CONTENT_SECURITY_POLICY, policy)];
    (headers, text)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn ask(open: bool, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(open).oneshot(request).await.unwrap();
        let kind = response.headers().get(CONTENT_TYPE).map(|v| v.to_str().unwrap().to_owned());
        (response.status().as_u16(), kind.unwrap_or_default())
    }

    #[tokio::test]
    async fn each_has_its_type_and_demos_are_for_open_nodes() {
        for (path, kind) in [
            ("/", "text/html"),
            ("/page.js", "text/javascript"),
            ("/demo/", "text/html"),
            ("/demo/chat.html", "text/html"),
            ("/demo/lib/demo.css", "text/css"),
            ("/demo/lib/icon.svg", "image/svg+xml"),
            ("/demo/backend/job.mjs", "text/javascript"),
        ] {
            assert_eq!(ask(true, path).await, (200, format!("{kind}; charset=utf-8")), "{path}");
        }
        assert_eq!(ask(true, "/demo").await.0, 308);
        assert_eq!(ask(true, "/demo/backend/server.mjs").await.0, 404);
        assert_eq!(ask(false, "/demo/").await.0, 404);
        assert_eq!(ask(false, "/").await.0, 200);
    }

    #[test]
    fn no_demo_is_forgotten() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
        for entry in std::fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_page = name.ends_with(".html") || name.ends_with(".js");
            assert!(!is_page || DEMOS.iter().any(|(known, _)| *known == name), "{name}");
        }
    }
}

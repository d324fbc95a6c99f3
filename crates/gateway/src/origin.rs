//! Who may call from a browser: the `Origin` of a page and the `Host` it believes to talk to.
//!
//! A page on any site can open a WebSocket to anywhere and send simple requests to anywhere; the
//! browser only says where the page is from. So a request with an `Origin` is served when that is
//! the gateway's own or an allowed one. On a loopback listener every page on this machine may
//! call, whatever its port; there the `Host` must be this machine, too, else a foreign page could
//! have its own name resolve to 127.0.0.1 (DNS rebinding) and be of the same origin.
//!
//! Where a gateway is open because nobody wrote anything down, the loopback address is all that
//! guards it, and a proxy on this machine opens it to the world: what shows that it came through
//! one is refused.

use http::HeaderMap;

/// What proxies put into a request, besides `x-forwarded-…`: RFC 7239, RFC 9110 (section 7.6.3),
/// and nginx's habit.
const PROXIES_WRITE: [&str; 3] = ["forwarded", "via", "x-real-ip"];

/// Which origins and hosts are served.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// Origins that are allowed besides the gateway's own, as a browser writes them:
    /// `https://app.example`, lower case, without a path.
    pub allowed: Vec<String>,
    /// The listener is on loopback and open: pages on this machine may call, other hosts' names
    /// may not be used.
    pub loopback: bool,
    /// The listener speaks TLS: the gateway's own origin is an `https` one. Without it is not known,
    /// because a proxy may speak TLS in front.
    pub https: bool,
    /// The gateway is open because nothing was written down: who comes through a proxy is refused.
    pub direct_only: bool,
}

impl Origins {
    /// Whether a request with these headers may be served. `by_https`: that is how it came to the
    /// first of us, as the headers of a proxy tell; then a page that came by http is another origin, for whoever sits
    /// on the network can write such pages.
    ///
    /// # Errors
    /// Says what was wrong and what would be allowed.
    pub fn check(
        &self,
        origin: Option<&str>,
        host: Option<&str>,
        by_https: bool,
    ) -> Result<(), String> {
        let host = host.unwrap_or_default();
        if self.loopback && !is_local(host) && !self.allows_host(host) {
            return Err(format!(
                "host '{}' is not this machine; on a loopback listener use localhost, 127.0.0.1 \
                 or [::1], or name its origin in auth.allowed_origins",
                shown(host)
            ));
        }
        let Some(origin) = origin else { return Ok(()) };
        let origin = origin.to_ascii_lowercase();
        let authority = authority(&origin);
        let same = !((by_https || self.https) && origin.starts_with("http:"))
            && authority.is_some_and(|authority| same_authority(&origin, authority, host));
        let local = self.loopback && authority.is_some_and(is_local);
        if same || local || self.allowed.contains(&origin) {
            return Ok(());
        }
        Err(format!("origin '{}' is not allowed; name it in auth.allowed_origins", shown(&origin)))
    }

    /// Whether a request with these headers may have come the way it came. A proxy that says
    /// nothing about itself is not noticed.
    ///
    /// # Errors
    /// Says what is to be written down.
    pub fn check_way(&self, headers: &HeaderMap) -> Result<(), String> {
        let is_a_proxys =
            |name: &str| name.starts_with("x-forwarded-") || PROXIES_WRITE.contains(&name);
        let sign = headers.keys().map(http::HeaderName::as_str).find(|name| is_a_proxys(name));
        match sign {
            Some(name) if self.direct_only => Err(format!(
                "'{name}' shows that this came through a proxy, and this node is open to its own \
                 machine alone: behind a proxy auth.mode must be written down, \"required\" with \
                 credentials under [auth], or \"open\" if everybody may do everything \
                 (TIDEWIRE_AUTH__MODE)"
            )),
            _ => Ok(()),
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        let of = |allowed: &String| {
            authority(allowed).is_some_and(|authority| same_authority(allowed, authority, host))
        };
        self.allowed.iter().any(of)
    }
}

/// What stands behind the scheme.
fn authority(origin: &str) -> Option<&str> {
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

/// Whether a proxy says that the client came by https. No page can write this header, and who else does
/// is only trusted less for it; so every proxy is believed.
pub(crate) fn by_https(headers: &HeaderMap) -> bool {
    let values = headers.get_all("x-forwarded-proto").iter().filter_map(|it| it.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|it| it.trim().eq_ignore_ascii_case("https"))
}

/// Whether an origin's authority is this host. That it is https where the request seems to have come
/// by http is no difference: a proxy may not say how it was called; the port that goes with it may be left out.
fn same_authority(origin: &str, authority: &str, host: &str) -> bool {
    let default = if origin.starts_with("https:") { ":443" } else { ":80" };
    let bare = |text: &str| text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase();
    !host.is_empty() && bare(authority) == bare(host)
}

/// Whether `host` or `host:port` names this machine.
#[must_use]
pub fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost") || name == "127.0.0.1" || name == "[::1]"
}

/// A foreign text, fit for an error.
fn shown(text: &str) -> String {
    text.chars().take(100).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(loopback: bool) -> Origins {
        let allowed = vec!["https://app.example".into()];
        Origins { allowed, loopback, direct_only: loopback, https: false }
    }

    #[test]
    fn same_origin_and_allowed_ones_pass() {
        let open = origins(false);
        for (origin, host) in [
            (None, Some("gw.example")),
            (None, None),
            (Some("https://gw.example"), Some("gw.example")),
            (Some("https://gw.example"), Some("gw.example:443")),
            (Some("http://gw.example:8080"), Some("GW.example:8080")),
            (Some("https://app.example"), Some("gw.example")),
            (Some("HTTPS://APP.example"), Some("gw.example")),
        ] {
            assert_eq!(open.check(origin, host, false), Ok(()), "{origin:?} {host:?}");
        }
        for (origin, host) in [
            ("https://evil.example", Some("gw.example")),
            ("http://localhost:5173", Some("gw.example")),
            ("null", Some("gw.example")),
            ("https://app.example.evil", Some("gw.example")),
            ("http://app.example", Some("gw.example")),
            ("http://gw.example:81", Some("gw.example")),
            ("https://", Some("")),
            ("https://", None),
        ] {
            assert!(open.check(Some(origin), host, false).is_err(), "{origin:?} {host:?}");
        }
    }

    #[test]
    fn over_tls_the_same_host_without_it_is_another_origin() {
        let tls = Origins { https: true, ..origins(false) };
        assert_eq!(tls.check(Some("https://gw.example"), Some("gw.example"), false), Ok(()));
        assert!(tls.check(Some("http://gw.example"), Some("gw.example"), false).is_err());
        assert!(tls.check(Some("http://gw.example:443"), Some("gw.example:443"), false).is_err());
        assert_eq!(tls.check(Some("https://app.example"), Some("gw.example"), false), Ok(()));
    }

    #[test]
    fn a_page_that_came_by_http_is_not_of_an_https_site() {
        let open = origins(false);
        let check = |origin, by_https| open.check(Some(origin), Some("gw.example"), by_https);
        assert!(check("http://gw.example", true).is_err());
        assert!(check("HTTP://gw.example", true).is_err());
        for (origin, by_https) in [
            ("https://gw.example", true),
            ("http://gw.example", false),
            // A proxy before the last one may have taken the TLS away.
            ("https://gw.example", false),
            ("https://app.example", true),
        ] {
            assert_eq!(check(origin, by_https), Ok(()), "{origin} {by_https}");
        }
        let by = |values: &[&'static str]| {
            let value = |value: &&'static str| ("x-forwarded-proto", value.parse().unwrap());
            by_https(&values.iter().map(value).map(|(n, v)| (n.parse().unwrap(), v)).collect())
        };
        assert!(by(&["https"]) && by(&["http, HTTPS"]) && by(&["http", "https"]));
        assert!(!by(&[]) && !by(&["http"]) && !by(&["xhttps"]));
    }

    #[test]
    fn what_came_through_a_proxy_is_refused_where_nobody_wrote_open_down() {
        let with = |name: &'static str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), "x".parse().unwrap())])
        };
        for name in ["x-forwarded-for", "x-forwarded-proto", "x-real-ip", "forwarded", "via"] {
            let refused = origins(true).check_way(&with(name)).unwrap_err();
            assert!(refused.contains(name) && refused.contains("auth.mode"), "{refused}");
            assert_eq!(origins(false).check_way(&with(name)), Ok(()), "{name}");
        }
        assert_eq!(origins(true).check_way(&with("x-requested-with")), Ok(()));
    }

    #[test]
    fn on_loopback_pages_of_this_machine_pass_and_foreign_hosts_do_not() {
        let loopback = origins(true);
        for (origin, host) in [
            (None, Some("127.0.0.1:8000")),
            (Some("http://localhost:5173"), Some("127.0.0.1:8000")),
            (Some("http://127.0.0.1:3000"), Some("localhost:8000")),
            (Some("http://[::1]:3000"), Some("[::1]:8000")),
            (Some("https://app.example"), Some("localhost:8000")),
            (Some("https://app.example"), Some("app.example")),
        ] {
            assert_eq!(loopback.check(origin, host, false), Ok(()), "{origin:?} {host:?}");
        }
        for (origin, host) in [
            (Some("http://evil.example:8000"), Some("evil.example:8000")),
            (None, Some("evil.example:8000")),
            (None, None),
            (Some("https://evil.example"), Some("127.0.0.1:8000")),
            (Some("null"), Some("127.0.0.1:8000")),
            (Some("http://localhost.evil.example"), Some("127.0.0.1:8000")),
            (Some("http://127.0.0.1.evil.example"), Some("127.0.0.1:8000")),
        ] {
            assert!(loopback.check(origin, host, false).is_err(), "{origin:?} {host:?}");
        }
    }
}

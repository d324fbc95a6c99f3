//! What a person reads when a node has started.

use std::net::{IpAddr, SocketAddr};

/// What a client must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Login {
    /// Nothing.
    None,
    /// A token, which this command line can make: the configuration has the secret.
    Secret,
    /// A token or a key that comes from elsewhere.
    Elsewhere,
}

/// Where the node listens and three lines to try; `scheme` is `http` or `https`. `broker` is told as it is, so it must hold no
/// password. Ends with a line break.
pub(crate) fn banner(
    scheme: &str,
    listen: SocketAddr,
    admin: SocketAddr,
    broker: &str,
    login: Login,
) -> String {
    let base = format!("{scheme}://{}", reachable(listen));
    let admin = reachable(admin);
    let version = env!("CARGO_PKG_VERSION");
    let header = match login {
        Login::None => "",
        Login::Secret | Login::Elsewhere => "-H \"authorization: Bearer $TOKEN\" ",
    };
    let shell = match login {
        Login::Secret => {
            "\x20 TOKEN=$(tidewire token --sub me --subscribe '*' --publish '*')   # in both\n"
        }
        Login::None | Login::Elsewhere => "",
    };
    let demos = match login {
        Login::None => format!("; {base}/demo/ has demos"),
        Login::Secret | Login::Elsewhere => String::new(),
    };
    format!(
        "Tidewire {version} listens on {scheme}://{listen} \
         (admin: http://{admin}/metrics; broker: {broker})\n\
         \n\
         Try it, each in a shell of its own:\n\
         \n\
         {shell}\x20 curl -N {header}'{base}/v1/sse?channel=news'\n\
         \x20 curl {header}-d '{{\"event\":\"headline\",\"payload\":{{\"title\":\"hi\"}}}}' \
         -H 'content-type: application/json' {base}/v1/channels/news/messages\n\
         \n\
         or open {base}/ in a browser{demos}.\n"
    )
}

/// The address by which this machine itself reaches a listener on `address`: one that listens on
/// all interfaces is reached through the loopback one.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    let ip: IpAddr = match address.ip() {
        IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_pasted_into_a_shell() {
        let text = banner(
            "http",
            "0.0.0.0:8000".parse().unwrap(),
            "[::]:8001".parse().unwrap(),
            "embedded",
            Login::None,
        );
        assert!(text.starts_with("Tidewire "), "{text}");
        assert!(text.contains("listens on http://0.0.0.0:8000 "), "{text}");
        assert!(text.contains("  curl -N 'http://127.0.0.1:8000/v1/sse?channel=news'\n"), "{text}");
        assert!(text.contains(
            "  curl -d '{\"event\":\"headline\",\"payload\":{\"title\":\"hi\"}}' -H 'content-type: \
             application/json' http://127.0.0.1:8000/v1/channels/news/messages\n"
        ), "{text}");
        assert!(text.contains("open http://127.0.0.1:8000/ in"), "{text}");
        assert!(text.contains("http://127.0.0.1:8000/demo/ has demos.\n"), "{text}");
        assert!(text.contains("http://[::1]:8001/metrics"), "{text}");
    }

    #[test]
    fn it_shows_how_to_log_in() {
        let at = "127.0.0.1:8000".parse().unwrap();
        let text = banner("http", at, at, "embedded", Login::Secret);
        assert!(text.contains("TOKEN=$(tidewire token --sub me"), "{text}");
        assert!(text.contains("curl -N -H \"authorization: Bearer $TOKEN\" 'http"), "{text}");
        assert!(text.ends_with("open http://127.0.0.1:8000/ in a browser.\n"), "{text}");
        let text = banner("http", at, at, "embedded", Login::Elsewhere);
        assert!(!text.contains("tidewire token") && text.contains("$TOKEN"), "{text}");
    }
}

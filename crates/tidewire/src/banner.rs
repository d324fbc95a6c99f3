//! What a person reads when a node has started.

use std::net::{IpAddr, SocketAddr};

/// Where the node listens and three lines to try. `broker` is told as it is, so it must hold no
/// password. Ends with a line break.
pub(crate) fn banner(listen: SocketAddr, admin: SocketAddr, broker: &str, open: bool) -> String {
    let base = format!("http://{}", reachable(listen));
    let admin = reachable(admin);
    let version = env!("CARGO_PKG_VERSION");
    let (shell, header) = if open {
        ("", "")
    } else {
        // The same secret is in the configuration or the environment of whoever may start a node.
        (
            "\x20 TOKEN=$(tidewire token --sub me --subscribe '*' --publish '*')\n",
            "-H \"authorization: Bearer $TOKEN\" ",
        )
    };
    format!(
        "Tidewire {version} listens on http://{listen} \
         (admin: http://{admin}/metrics; broker: {broker})\n\
         \n\
         Try it, each in a shell of its own:\n\
         \n\
         {shell}\x20 curl -N {header}'{base}/v1/sse?channel=news'\n\
         \x20 curl {header}-d '{{\"event\":\"headline\",\"payload\":{{\"title\":\"hi\"}}}}' \
         -H 'content-type: application/json' {base}/v1/channels/news/messages\n\
         \n\
         or open {base}/ in a browser.\n"
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
        let text =
            banner("0.0.0.0:8000".parse().unwrap(), "[::]:8001".parse().unwrap(), "embedded", true);
        assert!(text.starts_with("Tidewire "), "{text}");
        assert!(text.contains("listens on http://0.0.0.0:8000 "), "{text}");
        assert!(text.contains("  curl -N 'http://127.0.0.1:8000/v1/sse?channel=news'\n"), "{text}");
        assert!(text.contains(
            "  curl -d '{\"event\":\"headline\",\"payload\":{\"title\":\"hi\"}}' -H 'content-type: \
             application/json' http://127.0.0.1:8000/v1/channels/news/messages\n"
        ), "{text}");
        assert!(text.contains("open http://127.0.0.1:8000/ in"), "{text}");
        assert!(text.contains("http://[::1]:8001/metrics"), "{text}");
    }
}

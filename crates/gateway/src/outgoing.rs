//! Requests that the node makes itself: to the application's hooks and for keys.

use std::net::IpAddr;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};

/// How such requests are made. No redirects: one could lead the node's request to where only the
/// node gets. A proxy of the environment is used but for this machine.
pub(crate) fn client(url: &Url) -> ClientBuilder {
    let builder = Client::builder()
        .redirect(Policy::none())
        .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")));
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if here { builder.no_proxy() } else { builder }
}

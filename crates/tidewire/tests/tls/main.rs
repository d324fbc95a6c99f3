//! TLS on the clients' listener. Plain clients go through a tunnel that speaks TLS for them; curl and
//! Node speak it themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod certificates;
mod clients;
mod drain;
mod redis;
mod transports;

use std::path::Path;

use tidewire_testkit::{Authority, Certificate, Gateway, GatewayBuilder, Tunnel};

/// A node that speaks TLS, and who its clients are to trust.
struct Node {
    gateway: Gateway,
    authority: Authority,
    certificate: Certificate,
}

impl Node {
    async fn start(config: &str) -> Self {
        let authority = Authority::new();
        let certificate = authority.issue("first");
        let gateway = builder(&certificate, config).start().await;
        Self { gateway, authority, certificate }
    }

    /// A way to it for plain clients, which speaks HTTP/1.1.
    async fn tunnel(&self) -> Tunnel {
        self.tunnel_with(&["http/1.1"]).await
    }

    async fn tunnel_with(&self, alpn: &[&str]) -> Tunnel {
        Tunnel::start(self.gateway.addr(), &self.authority.certificate(), alpn).await
    }
}

fn builder(certificate: &Certificate, config: &str) -> GatewayBuilder {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    Gateway::builder()
        .config(config)
        .env("TIDEWIRE_TLS__CERTIFICATE_FILE", text(&certificate.certificate))
        .env("TIDEWIRE_TLS__KEY_FILE", text(&certificate.key))
}

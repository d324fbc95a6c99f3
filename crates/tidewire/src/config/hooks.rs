//! `[hooks]`: where the application is asked. As with the rest of the structure, the keys are told
//! in the walk.

use std::time::Duration;

use secrecy::SecretString;
use tidewire_protocol::Hook;

use super::credentials::{HookUrl, Secrets};
use super::setting::{Maybe, Number, Time};
use super::walk::{Path, Visitor};

/// `[hooks]`
#[derive(Clone, Debug)]
pub(crate) struct Hooks {
    /// In the order of [`Hook::ALL`].
    pub(crate) urls: [Option<HookUrl>; Hook::ALL.len()],
    pub(crate) timeout: Duration,
    pub(crate) concurrency: usize,
    pub(crate) secret: Vec<SecretString>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            urls: [const { None }; Hook::ALL.len()],
            timeout: Duration::from_secs(2),
            concurrency: 64,
            secret: Vec::new(),
        }
    }
}

impl Hooks {
    pub(super) fn walk(&mut self, v: &mut dyn Visitor) {
        v.table(Path::new(["hooks"]), "Where the application is asked, over HTTP: [hooks.md](hooks.md) tells how. Each is optional. A hook that does not answer is a no (`unavailable`). Backends with an API key are not asked about.");
        let [connect, subscribe, publish, rpc] = &mut self.urls;
        v.key(
            "connect",
            "Whether somebody may open a WebSocket, an event stream or a poll, or log in on one.",
            &mut Maybe(connect),
        );
        v.key("subscribe", "Whether somebody may subscribe to a channel, or read what it keeps. Asked after the namespace's rules have said yes.", &mut Maybe(subscribe));
        v.key("publish", "Whether somebody may publish this message; the application may replace its payload, and its answer goes to the publisher with the acknowledgement.", &mut Maybe(publish));
        v.key("rpc", "Answers the frame `rpc`.", &mut Maybe(rpc));
        v.key(
            "timeout",
            "How long one waits for a turn at a hook that is busy, and then for its answer.",
            &mut Time(&mut self.timeout, Duration::from_millis(100)..=Duration::from_secs(60)),
        );
        v.key(
            "concurrency",
            "How many requests each hook is sent at a time.",
            &mut Number(&mut self.concurrency, 1..=10_000),
        );
        v.key("secret", "What requests are signed with, of at least 32 bytes (`openssl rand -hex 32`); needed with any hook. In the file also a list: they are signed with each, so that one can be replaced. Never shown.", &mut Secrets(&mut self.secret));
    }
}

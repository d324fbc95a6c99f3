//! Hooks: the application decides, over HTTP, who may open a stream, who may subscribe, what is
//! published, and what an RPC is answered.
//!
//! Sessions and the HTTP routes ask, after the namespaces' rules have said yes. The requests are
//! made on the runtime that the gateway was started on, never on a lane, and go on to their end
//! whoever asked. A hook that does not answer is a no.

mod breaker;
mod endpoint;
mod sign;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tidewire_auth::{Identity, Who};
use tidewire_protocol::{
    BodyError, Channel, Code, Hook, HookAnswer, HookCaller, HookSubject, MessageId, Namespaces,
    SessionId,
};
use tokio::runtime::Handle;

use endpoint::Endpoint;
pub use sign::HookSecret;

/// Which hooks there are and how they are asked.
#[derive(Debug, Clone, Default)]
pub struct HookSettings {
    /// The address of each, http or https, in the order of [`Hook::ALL`]. Absent: it is not asked,
    /// and there is no RPC.
    pub urls: [Option<String>; Hook::ALL.len()],
    /// Namespaces whose subscriptions and publishes are nobody's to decide, by name.
    pub without: Vec<String>,
    /// The longest wait for a turn, and again for the answer.
    pub timeout: Duration,
    /// Requests to each hook at a time; at least 1.
    pub concurrency: usize,
    /// What requests are signed with; with each of them.
    pub secrets: Vec<HookSecret>,
}

/// All hooks of the node. Shared by all threads.
pub(crate) struct Hooks {
    endpoints: [Option<Arc<Endpoint>>; Hook::ALL.len()],
    /// By the namespace's number: whether it has hooks.
    namespaces: Vec<bool>,
    runtime: Handle,
}

impl Hooks {
    /// Those of the settings; their requests are made on that runtime. Values in answers have at
    /// most so many bytes.
    pub(crate) fn new(
        settings: &HookSettings,
        namespaces: &Namespaces,
        value_bytes: usize,
        runtime: Handle,
    ) -> Result<Self, String> {
        let mut endpoints = [const { None }; Hook::ALL.len()];
        for hook in Hook::ALL {
            if let Some(url) = &settings.urls[hook as usize] {
                let endpoint = Endpoint::new(hook, url, settings.clone(), value_bytes);
                let endpoint = endpoint.map_err(|why| format!("hooks.{}: {why}", hook.as_str()))?;
                endpoints[hook as usize] = Some(Arc::new(endpoint));
            }
        }
        let has = |name: &str| !settings.without.iter().any(|without| without == name);
        Ok(Self { endpoints, namespaces: namespaces.names().map(has).collect(), runtime })
    }

    /// Whether the hook is there and is asked about this one. Backends with an API key are bound by
    /// that alone: the application would ask itself. What they ask by RPC goes to it all the same.
    fn is_asked(&self, hook: Hook, who: &Identity) -> bool {
        let is_backend = matches!(who.who, Who::ApiKey(..));
        self.has(hook) && (hook == Hook::Rpc || !is_backend)
    }

    /// Whether there is such a hook.
    pub(crate) fn has(&self, hook: Hook) -> bool {
        self.endpoints[hook as usize].is_some()
    }

    /// Whether the hook decides about what this one does in a namespace, by its number.
    pub(crate) fn decides(&self, hook: Hook, who: &Identity, namespace: usize) -> bool {
        self.is_asked(hook, who) && self.namespaces.get(namespace).is_none_or(|has| *has)
    }

    /// Asks whether they may open a stream or a poll; at once yes where nobody is to be asked.
    pub(crate) fn connect(
        &self,
        who: &Identity,
        transport: &'static str,
        address: Option<IpAddr>,
    ) -> impl Future<Output = Result<(), BodyError>> + Send + use<> {
        let asking = self
            .is_asked(Hook::Connect, who)
            .then(|| self.ask(who, None, HookSubject::Connect { transport, address }));
        async move {
            match asking {
                Some(asking) => asking.await.map(|_| ()),
                None => Ok(()),
            }
        }
    }

    /// Asks whether they may subscribe to the channel, or read what it keeps.
    pub(crate) fn subscribe(
        &self,
        who: &Identity,
        session: Option<SessionId>,
        channel: &Channel,
        history: bool,
    ) -> impl Future<Output = Result<(), BodyError>> + Send + use<> {
        let asking = self.ask(who, session, HookSubject::Subscribe { channel, history });
        async move { asking.await.map(|_| ()) }
    }

    /// Asks the hook that the subject is for. What it is to know is written before this returns.
    pub(crate) fn ask(
        &self,
        who: &Identity,
        session: Option<SessionId>,
        subject: HookSubject<'_>,
    ) -> impl Future<Output = Result<HookAnswer, BodyError>> + Send + use<> {
        let api_key = match &who.who {
            Who::ApiKey(name, _) => Some(&**name),
            Who::Anonymous | Who::User(_) => None,
        };
        let caller = HookCaller { user: who.user(), info: who.info.as_deref(), api_key, session };
        let body = subject.body(&MessageId::generate(), &caller);
        let endpoint = self.endpoints[subject.hook() as usize].clone();
        let runtime = self.runtime.clone();
        async move {
            let Some(endpoint) = endpoint else { return Ok(HookAnswer::default()) };
            runtime.spawn(endpoint.ask(body.into())).await.unwrap_or_else(|_| {
                let message = "this node is stopping; try another".to_owned();
                Err(BodyError { code: Code::Unavailable, message })
            })
        }
    }
}

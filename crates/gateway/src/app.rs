//! What all connections of the node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tidewire_broker::Broker;
use tidewire_hub::Hub;
use tokio_util::task::TaskTracker;

use crate::address::{AddressPlace, Addresses};
use crate::admission::Admission;
use crate::allowance::Allowance;
use crate::auth::Auth;
use crate::history::Pages;
use crate::hooks::Hooks;
use crate::metrics::Metrics;
use crate::seldom::Seldom;
use crate::settings::Settings;

/// Shared by all threads; nothing in it is locked.
pub(crate) struct App {
    pub(crate) settings: Settings,
    pub(crate) hub: Arc<Hub>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) metrics: Metrics,
    pub(crate) admission: Admission,
    /// The turns of requests over HTTP/2; of their own, so that no flood of them keeps new
    /// connections waiting.
    pub(crate) http2_requests: Admission,
    pub(crate) auth: Auth,
    pub(crate) hooks: Hooks,
    pub(crate) addresses: Arc<Addresses>,
    /// Requests that are being answered; a node that stops waits for them.
    pub(crate) requests: TaskTracker,
    /// Connections that speak HTTP/2; a node that stops waits until they are told.
    pub(crate) http2: TaskTracker,
    pub(crate) allowance: Allowance,
    pub(crate) pages: Pages,
    /// Lines about publishes that the broker did not take.
    pub(crate) not_published: Seldom,
    draining: AtomicBool,
    connections: AtomicUsize,
    started: Instant,
}

/// One of the node's connections; its place is free again when this is dropped.
pub(crate) struct Place {
    app: Arc<App>,
    /// Its address's, where those are counted.
    _address: Option<AddressPlace>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.app.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl App {
    pub(crate) fn new(
        settings: Settings,
        hub: Arc<Hub>,
        broker: Arc<dyn Broker>,
        auth: Auth,
        hooks: Hooks,
    ) -> Self {
        Self {
            metrics: Metrics::new(&settings.namespaces),
            admission: Admission::new(settings.handshakes),
            http2_requests: Admission::new(settings.handshakes),
            addresses: Addresses::new(settings.addresses.clone()),
            allowance: Allowance::new(&settings),
            pages: Pages::new(),
            not_published: Seldom::default(),
            settings,
            hub,
            broker,
            auth,
            requests: TaskTracker::new(),
            http2: TaskTracker::new(),
            hooks,
            draining: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            started: Instant::now(),
        }
    }

    /// Takes a place for a connection, if there is one.
    pub(crate) fn place(self: &Arc<Self>, address: Option<AddressPlace>) -> Option<Place> {
        let place = Place { app: self.clone(), _address: address };
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        (before < self.settings.connections).then_some(place)
    }

    /// Whether the node is stopping.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Begins to stop; false if it had begun before.
    pub(crate) fn begin_drain(&self) -> bool {
        !self.draining.swap(true, Ordering::Relaxed)
    }

    /// Milliseconds since the start, wrapping after 49 days.
    pub(crate) fn millis(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }

    /// Seconds since the start, for times that may be a second off.
    pub(crate) fn seconds(&self) -> u32 {
        // Wraps after 136 years.
        self.started.elapsed().as_secs() as u32
    }
}

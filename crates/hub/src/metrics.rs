//! The hub's metrics, as handles that are kept: the macros look a name up each time, 50 ns against
//! 5 ns, and a fan-out adds several numbers.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::wire::Transport;

/// One set for the whole node; cloning shares it.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) subscriptions: Gauge,
    pub(crate) channels: Gauge,
    pub(crate) window_bytes: Gauge,
    pub(crate) window_trims: Counter,
    pub(crate) received: Counter,
    pub(crate) messages_out: PerTransport,
    pub(crate) bytes_out: PerTransport,
    pub(crate) dropped: PerTransport,
    pub(crate) skipped: PerTransport,
    pub(crate) fanout: Histogram,
    pub(crate) delivery: Histogram,
    /// Plain publishes to Redis, by the namespace's number.
    pub(crate) direct: Vec<Counter>,
    /// Messages that a newer one of their event replaced, by the namespace's number.
    pub(crate) superseded: Vec<Counter>,
}

/// One counter for each transport.
#[derive(Clone)]
pub(crate) struct PerTransport([Counter; 3]);

impl PerTransport {
    fn new(name: &'static str) -> Self {
        Self(Transport::ALL.map(|transport| counter!(name, "transport" => transport.as_str())))
    }

    /// Nothing is touched for nothing: the counters are shared by all lanes.
    pub(crate) fn add(&self, transport: Transport, count: u64) {
        if count > 0 {
            self.0[transport as usize].increment(count);
        }
    }
}

impl Metrics {
    pub(crate) fn new<'a>(namespaces: impl Iterator<Item = &'a str> + Clone) -> Self {
        Self {
            subscriptions: gauge!("tidewire_subscriptions"),
            channels: gauge!("tidewire_channels"),
            window_bytes: gauge!("tidewire_window_bytes"),
            window_trims: counter!("tidewire_window_trims_total"),
            received: counter!("tidewire_messages_received_total"),
            messages_out: PerTransport::new("tidewire_messages_out_total"),
            bytes_out: PerTransport::new("tidewire_bytes_out_total"),
            dropped: PerTransport::new("tidewire_outbox_dropped_messages_total"),
            skipped: PerTransport::new("tidewire_outbox_skipped_messages_total"),
            fanout: histogram!("tidewire_fanout_seconds"),
            delivery: histogram!("tidewire_delivery_seconds"),
            superseded: namespaces
                .clone()
                .map(|name| {
                    let name = name.to_owned();
                    counter!("tidewire_conflated_messages_total", "namespace" => name)
                })
                .collect(),
            direct: namespaces
                .map(|name| {
                    let name = name.to_owned();
                    counter!("tidewire_messages_in_total", "source" => "redis", "namespace" => name)
                })
                .collect(),
        }
    }
}

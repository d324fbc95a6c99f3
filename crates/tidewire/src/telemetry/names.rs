//! The metrics of a node: their names, kinds and meanings. What is recorded where is told in the
//! crates that record; labels are bounded everywhere (never a channel, a user or an address).

use metrics::Unit;

enum Kind {
    Gauge,
    Counter,
    Histogram,
}
use Kind::{Counter, Gauge, Histogram};

/// Name, kind, unit, meaning (with the labels). Base units only.
const METRICS: &[(&str, Kind, Unit, &str)] = &[
    ("tidewire_build_info", Gauge, Unit::Count, "Always 1; which version runs (version)"),
    ("tidewire_ready", Gauge, Unit::Count, "1 while the node can do its job, else 0"),
    ("tidewire_connections", Gauge, Unit::Count, "Open connections (transport)"),
    ("tidewire_connections_opened_total", Counter, Unit::Count, "Connections opened (transport)"),
    (
        "tidewire_connections_closed_total",
        Counter,
        Unit::Count,
        "Connections closed (transport, reason)",
    ),
    (
        "tidewire_handshakes_refused_total",
        Counter,
        Unit::Count,
        "Connections that came to no session (reason)",
    ),
    (
        "tidewire_tls_reloads_total",
        Counter,
        Unit::Count,
        "Times that the certificate's files were read again; after a failure the old ones stay (outcome)",
    ),
    (
        "tidewire_certificate_expiry_timestamp_seconds",
        Gauge,
        Unit::Seconds,
        "When the certificate that is served ends, in seconds since 1970",
    ),
    ("tidewire_subscriptions", Gauge, Unit::Count, "Subscriptions of all sessions"),
    ("tidewire_channels", Gauge, Unit::Count, "Channels that this node holds at the broker"),
    (
        "tidewire_window_bytes",
        Gauge,
        Unit::Bytes,
        "Held in memory of stored channels, about, as of the last second",
    ),
    (
        "tidewire_window_trims_total",
        Counter,
        Unit::Count,
        "How often windows were cut because together they held too much",
    ),
    (
        "tidewire_messages_in_total",
        Counter,
        Unit::Count,
        "Messages published through this node, or taken from plain Redis publishes (source, namespace)",
    ),
    (
        "tidewire_conflated_messages_total",
        Counter,
        Unit::Count,
        "Messages of a live namespace that were left out for a newer one of their event (namespace)",
    ),
    ("tidewire_messages_received_total", Counter, Unit::Count, "Messages received from the broker"),
    (
        "tidewire_messages_out_total",
        Counter,
        Unit::Count,
        "Messages written to clients (transport)",
    ),
    ("tidewire_bytes_out_total", Counter, Unit::Bytes, "Bytes written to clients (transport)"),
    (
        "tidewire_fanout_seconds",
        Histogram,
        Unit::Seconds,
        "From the hand-over of a message until the last socket was tried",
    ),
    (
        "tidewire_publish_seconds",
        Histogram,
        Unit::Seconds,
        "From taking a publish until the broker confirmed it",
    ),
    (
        "tidewire_delivery_seconds",
        Histogram,
        Unit::Seconds,
        "From the message's timestamp until it was written to a socket",
    ),
    (
        "tidewire_outbox_dropped_messages_total",
        Counter,
        Unit::Count,
        "Messages dropped with the session of a slow client (transport)",
    ),
    (
        "tidewire_outbox_skipped_messages_total",
        Counter,
        Unit::Count,
        "Messages of live channels that a slow client lost, its session living on (transport)",
    ),
    (
        "tidewire_broker_link_up",
        Gauge,
        Unit::Count,
        "1 while the Pub/Sub connection hears, else 0 (link)",
    ),
    (
        "tidewire_broker_link_breaks_total",
        Counter,
        Unit::Count,
        "Breaks of Pub/Sub connections (reason)",
    ),
    (
        "tidewire_broker_echo_seconds",
        Histogram,
        Unit::Seconds,
        "From a message to oneself until it was heard",
    ),
    ("tidewire_broker_subscriptions", Gauge, Unit::Count, "Channels subscribed to (link)"),
    (
        "tidewire_broker_may_evict",
        Gauge,
        Unit::Count,
        "1 if Redis may evict what is stored, by its maxmemory-policy",
    ),
    (
        "tidewire_broker_rejected_total",
        Counter,
        Unit::Count,
        "Bodies from Redis that were refused (reason)",
    ),
    (
        "tidewire_broker_publish_errors_total",
        Counter,
        Unit::Count,
        "Publishes that the broker did not confirm (code)",
    ),
    (
        "tidewire_limited_total",
        Counter,
        Unit::Count,
        "Times that a client ran into a limit (limit)",
    ),
    (
        "tidewire_failed_logins_total",
        Counter,
        Unit::Count,
        "Credentials that were refused and may have been guesses; whether they count against an address (address)",
    ),
    (
        "tidewire_jwks_fetches_total",
        Counter,
        Unit::Count,
        "Fetches of the keys that verify tokens (outcome)",
    ),
    (
        "tidewire_hook_requests_total",
        Counter,
        Unit::Count,
        "Questions to the application, by how they ended (hook, outcome)",
    ),
    (
        "tidewire_hook_seconds",
        Histogram,
        Unit::Seconds,
        "From a question to the application until its answer (hook)",
    ),
    (
        "tidewire_hook_open",
        Gauge,
        Unit::Count,
        "1 while a hook is left alone because it did not answer, else 0 (hook)",
    ),
    ("tidewire_errors_total", Counter, Unit::Count, "Errors answered to clients (code)"),
    (
        "tidewire_history_failures_total",
        Counter,
        Unit::Count,
        "Pages of history that the broker did not give",
    ),
];

/// Tells the present recorder all of them.
pub(super) fn describe() {
    for (name, kind, unit, meaning) in METRICS {
        match kind {
            Gauge => metrics::describe_gauge!(*name, *unit, *meaning),
            Counter => metrics::describe_counter!(*name, *unit, *meaning),
            Histogram => metrics::describe_histogram!(*name, *unit, *meaning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for (name, kind, _, _) in METRICS {
            assert!(name.starts_with("tidewire_"), "{name}");
            assert_eq!(name.ends_with("_total"), matches!(kind, Counter), "{name}");
            // A time is no duration.
            let lasts = name.ends_with("_seconds") && !name.ends_with("_timestamp_seconds");
            assert_eq!(lasts, matches!(kind, Histogram), "{name}");
        }
    }
}

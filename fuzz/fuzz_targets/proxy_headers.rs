//! Any bytes as what a client writes into the headers that proxies speak in: never a panic, nobody
//! is believed who is no trusted proxy, and whatever a client wrote, the address that the trusted
//! proxy behind it adds is the one that counts.

#![no_main]

// Where clients are is the gateway's own affair, and stays private to it.
#[allow(dead_code)]
#[path = "../../crates/gateway/src/address.rs"]
mod address;

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use address::{AddressLimits, Addresses, ForwardedHeader};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const PROXY: &str = "10.0.0.1";
const CLIENT: &str = "198.51.100.7";

static PLAIN: LazyLock<Arc<Addresses>> =
    LazyLock::new(|| addresses(ForwardedHeader::XForwardedFor));
static RFC: LazyLock<Arc<Addresses>> = LazyLock::new(|| addresses(ForwardedHeader::Forwarded));

fn addresses(header: ForwardedHeader) -> Arc<Addresses> {
    Addresses::new(AddressLimits {
        connections: Some(1),
        public_only: false,
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        header,
    })
}

fuzz_target!(|data: &[u8]| {
    let (proxy, client): (IpAddr, IpAddr) = (PROXY.parse().unwrap(), CLIENT.parse().unwrap());
    let quoted = format!(r#", for="{CLIENT}:4711";host="a, for=6.6.6.6;for=7.7.7.7""#);
    let plain = format!(", {CLIENT}");
    let element = format!(", For={CLIENT};proto=https");
    for (all, name, added) in [
        (&PLAIN, "x-forwarded-for", &plain),
        (&RFC, "forwarded", &element),
        (&RFC, "forwarded", &quoted),
    ] {
        // What the client wrote alone: nobody's word.
        let Some(alone) = headers(name, &[data]) else { return };
        assert_eq!(all.client_of(client, &alone), client);
        assert!(all.of_stream(client, &alone).is_ok_and(|place| place.is_none()));
        let _ = all.client_of(proxy, &alone);
        // Behind it the proxy's, in the same line or in one of its own.
        let joined = [data, added.as_bytes()].concat();
        let Some(joined) = headers(name, &[&joined]) else { return };
        assert_eq!(all.client_of(proxy, &joined), client, "{data:?}");
        let own = added.trim_start_matches(", ").as_bytes();
        let Some(apart) = headers(name, &[data, own]) else { return };
        assert_eq!(all.client_of(proxy, &apart), client, "{data:?}");
    }
});

/// None for what is no header's value.
fn headers(name: &'static str, values: &[&[u8]]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for value in values {
        let value = HeaderValue::from_bytes(value).ok()?;
        headers.append(HeaderName::from_static(name), value);
    }
    Some(headers)
}

//! Where clients are, and how many connections each place has.
//!
//! A connection counts for the address of its peer; one through a trusted proxy counts while it is
//! a stream, for the address that the proxy names. What a client writes into a proxy's headers is
//! believed of nobody else.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use ipnet::IpNet;

/// Which header of a trusted proxy names its client. Only one is believed: a proxy that writes the
/// one passes the other on as the client wrote it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// What an address may have, and who is believed about addresses.
#[derive(Debug, Clone, Default)]
pub struct AddressLimits {
    /// Connections of one address at a time (of IPv6: of one /64). Absent: no limit.
    pub connections: Option<usize>,
    /// Only addresses of the internet count: not loopback, not private ones, behind which a proxy
    /// may be that nobody has named.
    pub public_only: bool,
    /// Proxies that are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The header that they write.
    pub header: ForwardedHeader,
}

/// How often an address may do something.
#[derive(Debug, Clone, Copy)]
pub struct AddressRate {
    /// So many in a stretch of time.
    pub rate: u32,
    /// Only addresses of the internet count, as with [`AddressLimits::public_only`].
    pub public_only: bool,
}

/// The connections of every address that has any; as large as there are connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    limits: AddressLimits,
    /// Locked for a look-up.
    counts: Mutex<HashMap<IpAddr, usize>>,
    /// A proxy that hides its clients was told of.
    told_of_hidden: AtomicBool,
}

/// One of an address's connections; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct AddressPlace {
    addresses: Arc<Addresses>,
    key: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// The address has as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Addresses {
    pub(crate) fn new(limits: AddressLimits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default(), told_of_hidden: AtomicBool::new(false) })
    }

    /// A place for a connection of this peer; none where it is not counted here: there is no
    /// limit, or the peer is a proxy, whose streams are counted for their clients.
    pub(crate) fn of_peer(self: &Arc<Self>, peer: IpAddr) -> Result<Option<AddressPlace>, TooMany> {
        if self.is_trusted(peer) { Ok(None) } else { self.take(peer) }
    }

    /// A place for a stream that came through a trusted proxy; none for one that did not.
    pub(crate) fn of_stream(
        self: &Arc<Self>,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<Option<AddressPlace>, TooMany> {
        if !self.is_trusted(peer) {
            return Ok(None);
        }
        match self.counted_as(peer, headers) {
            // A proxy's own, or one that names nobody.
            client if self.is_trusted(client) => Ok(None),
            client => self.take(client),
        }
    }

    /// Where the client of a request is, as far as that can be believed.
    pub(crate) fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if self.is_trusted(peer) { self.client(peer, headers).address } else { peer }
    }

    /// What the client of a request is counted as: where it is, or, if its proxy does not say that in a way
    /// that can be read, something that all such clients of that proxy share.
    pub(crate) fn counted_as(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.is_trusted(peer) {
            return peer;
        }
        match self.client(peer, headers) {
            Client { address, is_hidden: true } => {
                if !self.told_of_hidden.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        proxy = %address,
                        "a trusted proxy does not say where its clients are, or not in a way that can be read: \
                        they are counted as one address (limits.trusted_proxies, limits.forwarded_header)"
                    );
                }
                behind(address)
            }
            Client { address, is_hidden: false } => address,
        }
    }

    pub(crate) fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.limits.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    fn take(self: &Arc<Self>, address: IpAddr) -> Result<Option<AddressPlace>, TooMany> {
        let Some(most) = self.limits.connections else { return Ok(None) };
        let Some(key) = counted(address, self.limits.public_only) else { return Ok(None) };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_insert(0);
        if *count >= most {
            return Err(TooMany);
        }
        *count += 1;
        Ok(Some(AddressPlace { addresses: self.clone(), key }))
    }

    /// From the peer backwards through the proxies that are trusted: the first address that is
    /// none of them. What stands before it, its owner may have made up.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let name = match self.limits.header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        let mut client = peer;
        let values: Vec<_> = headers.get_all(name).iter().collect();
        for value in values.into_iter().rev() {
            for hop in self.hops(value.as_bytes()) {
                // An unreadable hop ends the chain at the last that could be read.
                let Some(address) = hop.and_then(parse) else { return Client::hidden_by(client) };
                client = address;
                if !self.is_trusted(address) {
                    return Client::at(client);
                }
            }
        }
        Client::at(client)
    }

    /// The hops of a header's value, the last first. Each is read by itself: what stands before the
    /// one that the proxy added is its client's, who must not be able to spoil it.
    fn hops<'a>(&self, value: &'a [u8]) -> Box<dyn Iterator<Item = Option<&'a str>> + 'a> {
        let text = |hop| std::str::from_utf8(hop).ok();
        match self.limits.header {
            ForwardedHeader::XForwardedFor => {
                Box::new(value.rsplit(|byte| *byte == b',').map(text))
            }
            ForwardedHeader::Forwarded => {
                Box::new(from_behind(value, b',').map(move |hop| for_parameter(text(hop)?)))
            }
        }
    }
}

/// Where a request is from.
#[derive(Debug, Clone, Copy)]
struct Client {
    address: IpAddr,
    /// It is from somebody behind that address, who cannot be told.
    is_hidden: bool,
}

impl Client {
    const fn at(address: IpAddr) -> Self {
        Self { address, is_hidden: false }
    }

    const fn hidden_by(proxy: IpAddr) -> Self {
        Self { address: proxy, is_hidden: true }
    }
}

/// An address that nobody has (in 100::/64, RFC 6666, as it would be with longer prefixes), for all behind
/// one proxy: the /64 under which it is counted holds the proxy's IPv4 address, or a part of its IPv6 one.
fn behind(proxy: IpAddr) -> IpAddr {
    let (high, low) = match proxy.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        }
        IpAddr::V6(ip) => {
            let [_, a, b, c, ..] = ip.segments();
            (a ^ b, c)
        }
    };
    IpAddr::V6(Ipv6Addr::new(0x100, 0, high, low, 0, 0, 0, 0))
}

/// The `for` of one element (RFC 7239, section 4).
fn for_parameter(element: &str) -> Option<&str> {
    // The first, should there be several.
    from_behind(element.as_bytes(), b';')
        .filter_map(|pair| {
            let (name, value) = std::str::from_utf8(pair).ok()?.trim().split_once('=')?;
            name.eq_ignore_ascii_case("for").then(|| value.trim_matches('"'))
        })
        .last()
}

/// The parts of a text, the last first. A separator within quotes parts nothing: a proxy may quote
/// what its client chose, such as the host. Quotes are paired from the end, where the proxy wrote,
/// so that one that its client left open hides nothing.
fn from_behind(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let whole = rest?;
        let at = last_unquoted(whole, separator);
        rest = at.map(|at| &whole[..at]);
        Some(at.map_or(whole, |at| &whole[at + 1..]))
    })
}

fn last_unquoted(text: &[u8], separator: u8) -> Option<usize> {
    let is_escaped =
        |at: usize| text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1;
    let mut quoted = false;
    for (at, byte) in text.iter().enumerate().rev() {
        if *byte == b'"' && !is_escaped(at) {
            quoted = !quoted;
        } else if *byte == separator && !quoted {
            return Some(at);
        }
    }
    None
}

/// An address, with or without a port or brackets.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split(']').next()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let (address, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    address.parse().ok()
}

/// What an address is counted under, if it is.
pub(crate) fn counted(address: IpAddr, public_only: bool) -> Option<IpAddr> {
    let is_near = public_only && !is_public(address.to_canonical());
    (!is_near).then(|| key(address))
}

/// An IPv4 address, or the /64 of an IPv6 one: what one customer of a provider has at least.
fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(connections: usize, header: ForwardedHeader) -> Arc<Addresses> {
        Addresses::new(AddressLimits {
            connections: Some(connections),
            public_only: false,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            header,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(header: ForwardedHeader, peer: &str, values: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        let name = match header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        for value in values {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        addresses(1, header).client(ip(peer), &headers).address.to_string()
    }

    #[test]
    fn the_client_is_the_first_that_is_no_trusted_proxy() {
        let of =
            |values: &[&'static str]| client(ForwardedHeader::XForwardedFor, "10.0.0.1", values);
        assert_eq!(of(&[]), "10.0.0.1");
        assert_eq!(of(&["1.2.3.4"]), "1.2.3.4");
        assert_eq!(of(&["1.2.3.4, 10.1.1.1"]), "1.2.3.4");
        assert_eq!(of(&["9.9.9.9, 1.2.3.4"]), "1.2.3.4");
        assert_eq!(of(&["9.9.9.9", "1.2.3.4, 10.1.1.1"]), "1.2.3.4");
        assert_eq!(of(&["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(of(&["[2001:db8::1]:80"]), "2001:db8::1");
        assert_eq!(of(&["nonsense"]), "10.0.0.1");
        assert_eq!(of(&["1.2.3.4, nonsense, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(of(&[""]), "10.0.0.1");
    }

    /// A client that put a byte beyond ASCII into the header made the whole of it unreadable, also
    /// what the proxy behind it had added: it counted nowhere, and no limit of addresses held.
    #[test]
    fn a_client_cannot_spoil_what_the_proxy_added() {
        let client = |header, name: &'static str, value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.append(name, http::HeaderValue::from_bytes(value).unwrap());
            addresses(1, header).client_of(ip("10.0.0.1"), &headers).to_string()
        };
        for spoilt in [&b"\xff"[..], b"\"", b"6.6.6.6\\", b"\xc3", b"\"\xff;for=", b""] {
            let [plain, element] =
                [&b", 1.2.3.4"[..], b", for=1.2.3.4"].map(|own| [spoilt, own].concat());
            let shown = spoilt.escape_ascii();
            let of = ForwardedHeader::XForwardedFor;
            assert_eq!(client(of, "x-forwarded-for", &plain), "1.2.3.4", "{shown}");
            let of = ForwardedHeader::Forwarded;
            assert_eq!(client(of, "forwarded", &element), "1.2.3.4", "{shown}");
        }
    }

    /// A proxy quotes what its client chose, such as the host: commas and semicolons in there are
    /// no more than that.
    #[test]
    fn what_a_proxy_quotes_is_no_address() {
        let of = |value: &'static str| client(ForwardedHeader::Forwarded, "10.0.0.1", &[value]);
        assert_eq!(of(r#"for=1.2.3.4;host="x, for=6.6.6.6""#), "1.2.3.4");
        assert_eq!(of(r#"host="x;for=6.6.6.6";for=1.2.3.4"#), "1.2.3.4");
        assert_eq!(of(r#"for=1.2.3.4;host="x\", for=6.6.6.6""#), "1.2.3.4");
        assert_eq!(of(r#"for=9.9.9.9;host="x", for="1.2.3.4:80";host="y\\""#), "1.2.3.4");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_has_it() {
        let of = |values: &[&'static str]| client(ForwardedHeader::Forwarded, "::1", values);
        assert_eq!(of(&["for=192.0.2.60;proto=http;by=203.0.113.43"]), "192.0.2.60");
        assert_eq!(of(&["For=\"[2001:db8:cafe::17]:4711\""]), "2001:db8:cafe::17");
        assert_eq!(of(&["for=6.6.6.6, for=192.0.2.43, for=10.9.9.9"]), "192.0.2.43");
        assert_eq!(of(&["for=unknown"]), "::1");
        assert_eq!(of(&["for=_hidden, for=10.9.9.9"]), "10.9.9.9");
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let all = addresses(2, ForwardedHeader::XForwardedFor);
        let one = all.of_peer(ip("1.2.3.4")).unwrap();
        let two = all.of_peer(ip("::ffff:1.2.3.4")).unwrap();
        assert_eq!(all.of_peer(ip("1.2.3.4")).unwrap_err(), TooMany);
        assert!(all.of_peer(ip("1.2.3.5")).unwrap().is_some());
        drop((one, two));
        assert!(all.counts.lock().unwrap().get(&ip("1.2.3.4")).is_none());
        // One /64 is one place, another one is another.
        let _a = all.of_peer(ip("2001:db8::1")).unwrap();
        let _b = all.of_peer(ip("2001:db8::2")).unwrap();
        assert!(all.of_peer(ip("2001:db8::3")).is_err());
        assert!(all.of_peer(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn a_proxy_is_not_counted_but_its_clients_are() {
        let all = addresses(1, ForwardedHeader::XForwardedFor);
        assert!(all.of_peer(ip("10.0.0.1")).unwrap().is_none());
        let headers = |client: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", client.parse().unwrap());
            headers
        };
        let _one = all.of_stream(ip("10.0.0.1"), &headers("1.2.3.4")).unwrap().unwrap();
        assert!(all.of_stream(ip("10.0.0.1"), &headers("1.2.3.4")).is_err());
        assert!(all.of_stream(ip("10.0.0.1"), &headers("5.6.7.8")).unwrap().is_some());
        // Of nobody else the header is believed: neither to hide nor to harm another.
        assert!(all.of_stream(ip("6.6.6.6"), &headers("1.2.3.4")).unwrap().is_none());
    }

    #[test]
    fn clients_whose_proxy_hides_them_are_counted_as_one() {
        for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
            let all = Addresses::new(AddressLimits {
                // As by default: what is near is not counted, and these are not near.
                public_only: true,
                ..addresses(1, header).limits.clone()
            });
            let take = |proxy: &str, value: &'static [u8]| {
                let mut headers = HeaderMap::new();
                for name in ["x-forwarded-for", "forwarded"] {
                    headers.insert(name, http::HeaderValue::from_bytes(value).unwrap());
                }
                all.of_stream(ip(proxy), &headers)
            };
            let one = take("10.0.0.1", b"unknown").unwrap();
            assert!(one.is_some());
            for hidden in [&b"for=unknown"[..], b"for=_hidden", b"1.2.3.4,", b"01.2.3.4", b"\xff"] {
                assert!(take("10.0.0.1", hidden).is_err(), "{hidden:?}");
            }
            // Others are others, and who sends no header is the proxy itself.
            assert!(take("10.0.0.2", b"unknown").unwrap().is_some());
            assert!(take("::1", b"unknown").unwrap().is_some());
            assert!(all.of_stream(ip("10.0.0.1"), &HeaderMap::new()).unwrap().is_none());
            // The application is told what is known.
            let headers = HeaderMap::from_iter(
                [("forwarded", "for=_x"), ("x-forwarded-for", "x")].map(|(name, value)| {
                    (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())
                }),
            );
            assert_eq!(all.client_of(ip("10.0.0.1"), &headers), ip("10.0.0.1"));
        }
    }

    #[test]
    fn addresses_within_are_no_internet() {
        let limits =
            AddressLimits { connections: Some(1), public_only: true, ..AddressLimits::default() };
        let all = Addresses::new(limits);
        for near in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1"] {
            assert!(all.of_peer(ip(near)).unwrap().is_none(), "{near}");
        }
        assert!(all.of_peer(ip("8.8.8.8")).unwrap().is_some());
    }
}

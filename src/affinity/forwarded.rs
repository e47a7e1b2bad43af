//! Addresses in `X-Forwarded-For`.
//!
//! Each proxy on the way adds the address it saw to the end, so the last entry is the only one
//! that cannot be forged, and the first is what the client's own proxy claims. For spreading
//! clients over servers the first is good enough; for limits and logs it is not.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use crate::config::TrustedProxies;

/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The first address, when it is one.
pub fn first(headers: &HeaderMap) -> Option<IpAddr> {
    entries(headers).next().and_then(address)
}

/// The client as far as proxies that are trusted tell: from the right, the first address that is
/// not one of them. `previous_hop` when that is not trusted itself, or nothing usable is said.
pub fn rightmost_untrusted(headers: &HeaderMap, previous_hop: IpAddr, trusted: &TrustedProxies) -> IpAddr {
    let mut client = previous_hop.to_canonical();
    let mut entries = entries(headers);
    while trusted.contains(client) {
        match entries.next_back().and_then(address) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

fn entries(headers: &HeaderMap) -> impl DoubleEndedIterator<Item = &str> {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(','))
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
}

/// An entry's address: plain, or with a port, or in brackets.
fn address(entry: &str) -> Option<IpAddr> {
    let bracketed = || entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address: IpAddr = entry
        .parse()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(bracketed)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[&str]) -> HeaderMap {
        let fields = fields.iter().map(|field| (X_FORWARDED_FOR, field.parse().expect("a valid field")));
        fields.collect()
    }

    #[test]
    fn the_first_address_is_read_in_every_form() {
        #[track_caller]
        fn check(fields: &[&str], expected: Option<&str>) {
            let expected = expected.map(|address| address.parse().expect("an address"));
            assert_eq!(first(&headers(fields)), expected, "{fields:?}");
        }

        check(&["192.0.2.1"], Some("192.0.2.1"));
        check(&["192.0.2.1, 10.0.0.1"], Some("192.0.2.1"));
        check(&[" 192.0.2.1:4711 ,10.0.0.1"], Some("192.0.2.1"));
        check(&["2001:db8::1"], Some("2001:db8::1"));
        check(&["[2001:db8::1]:443"], Some("2001:db8::1"));
        check(&["[2001:db8::1]"], Some("2001:db8::1"));
        check(&["::ffff:192.0.2.1"], Some("192.0.2.1"));
        check(&["", ", ,192.0.2.1"], Some("192.0.2.1"));

        check(&[], None);
        check(&["unknown, 192.0.2.1"], None);
        check(&["localhost"], None);
        check(&["300.1.1.1"], None);
    }

    #[test]
    fn the_client_is_who_the_last_trusted_proxy_saw() {
        #[track_caller]
        fn check(hop: &str, fields: &[&str], expected: &str) {
            let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]);
            let hop = hop.parse().expect("an address");
            let client = rightmost_untrusted(&headers(fields), hop, &trusted);
            assert_eq!(client.to_string(), expected, "{hop} {fields:?}");
        }

        check("203.0.113.9", &["192.0.2.1"], "203.0.113.9");
        check("10.0.0.1", &["192.0.2.1"], "192.0.2.1");
        check("10.0.0.1", &["6.6.6.6, 192.0.2.1, 10.0.0.2"], "192.0.2.1");
        check("10.0.0.1", &["6.6.6.6", "192.0.2.1", "10.0.0.2"], "192.0.2.1");
        check("10.0.0.1", &["10.0.0.3"], "10.0.0.3");
        check("10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("::ffff:10.0.0.1", &["192.0.2.1"], "192.0.2.1");
    }
}

//! Addresses in `X-Forwarded-For`, `Forwarded`, and what others call theirs.
//!
//! Each proxy on the way adds the address it saw to the end, so the last entry is the only one
//! that cannot be forged, and the first is what the client's own proxy claims. For spreading
//! clients over servers the first is good enough; for limits and logs it is not.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName};

use crate::config::{ClientIp, Pick, TrustedProxies};

/// `X-Forwarded-For`.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// `Forwarded`, its standard successor.
pub const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// An address as text. IPv4 without the machinery of formatting: each request has two.
pub fn text(address: IpAddr) -> String {
    let IpAddr::V4(address) = address.to_canonical() else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        if octet >= 100 {
            text.push(char::from(b'0' + octet / 100));
        }
        if octet >= 10 {
            text.push(char::from(b'0' + octet / 10 % 10));
        }
        text.push(char::from(b'0' + octet % 10));
    }
    text
}

/// The first address, when it is one.
pub fn first(headers: &HeaderMap) -> Option<IpAddr> {
    list(headers, &X_FORWARDED_FOR).next().or_else(|| list_of_forwarded(headers).next()).and_then(address)
}

/// The client as far as proxies that are trusted tell: from the right, the first address that is
/// not one of them. `previous_hop` when that is not trusted itself, or nothing usable is said.
pub fn rightmost_untrusted(headers: &HeaderMap, previous_hop: IpAddr, trusted: &TrustedProxies) -> IpAddr {
    rightmost(headers, &X_FORWARDED_FOR, previous_hop, trusted)
}

/// Who the client is by `rule`. `previous_hop` when that is not trusted, or nothing usable is said.
pub fn client(rule: &ClientIp, headers: &HeaderMap, previous_hop: IpAddr, trusted: &TrustedProxies) -> IpAddr {
    match rule.pick {
        Pick::RightmostUntrusted => rightmost(headers, &rule.header, previous_hop, trusted),
        Pick::First if trusted.contains(previous_hop) => {
            let first = entries(headers, &rule.header).first().copied();
            first.and_then(address).unwrap_or(previous_hop.to_canonical())
        }
        Pick::First => previous_hop.to_canonical(),
    }
}

fn rightmost(headers: &HeaderMap, header: &HeaderName, previous_hop: IpAddr, trusted: &TrustedProxies) -> IpAddr {
    let mut client = previous_hop.to_canonical();
    if !trusted.contains(client) {
        return client;
    }
    let mut entries = entries(headers, header);
    while trusted.contains(client) {
        match entries.pop().and_then(address) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// Why fields of a trusted hop name no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There are none.
    Field,
    /// They say `unknown`, or an obfuscated name (RFC 7239, section 6.3).
    Hidden,
    /// They say something that is no address.
    Garbled,
    /// They name trusted proxies only.
    Client,
}

impl Missing {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Field, Self::Hidden, Self::Garbled, Self::Client];
}

/// Why none of the addresses that proxies have noted could be picked.
pub fn missing(headers: &HeaderMap, pick: Pick) -> Missing {
    let entries = entries(headers, &X_FORWARDED_FOR);
    let is_none = |entry: &&&str| address(entry).is_none();
    let culprit = match pick {
        Pick::First => entries.first().filter(is_none),
        Pick::RightmostUntrusted => entries.iter().rev().find(is_none),
    };
    match culprit {
        None if entries.is_empty() => Missing::Field,
        None => Missing::Client,
        Some(entry) if entry.eq_ignore_ascii_case("unknown") || entry.starts_with('_') => Missing::Hidden,
        Some(_) => Missing::Garbled,
    }
}

/// Whether proxies on the way have noted anything.
pub fn is_there(headers: &HeaderMap) -> bool {
    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(FORWARDED)
}

/// What proxies on the way have noted in `header`, the nearest to the client first. Of `Forwarded`
/// (RFC 7239) the `for` parameters, which also stand in where there is no `X-Forwarded-For`: both
/// together would be counted twice. A header for a single address is a list of one.
fn entries<'a>(headers: &'a HeaderMap, header: &HeaderName) -> Vec<&'a str> {
    if *header == FORWARDED {
        return list_of_forwarded(headers).collect();
    }
    let entries: Vec<&str> = list(headers, header).collect();
    let is_missing = entries.is_empty() && *header == X_FORWARDED_FOR;
    if is_missing { list_of_forwarded(headers).collect() } else { entries }
}

/// The list in the fields called `name`.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    let fields = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).map(str::trim).filter(|entry| !entry.is_empty())
}

/// The `for` parameters of `Forwarded`.
fn list_of_forwarded(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    list(headers, &FORWARDED).filter_map(forwarded_for)
}

/// The value of `for` in one element of `Forwarded`, without its quotes. An element that does not
/// say for whom it is names nobody, but stands for a hop.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut parameters = element.split(';').filter_map(|parameter| parameter.split_once('='));
    let value = parameters.find_map(|(name, value)| name.trim().eq_ignore_ascii_case("for").then(|| value.trim()));
    Some(
        value.map_or("unknown", |value| {
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
        }),
    )
}

/// An entry's address: plain, with a port, in brackets, with a zone. Anything else, such as
/// `unknown` and the obfuscated names of RFC 7239, is none.
fn address(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse::<Ipv4Addr>() {
        return Some(address.into()); // Most are nothing else.
    }
    let host = match entry.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']')?;
            let is_port = |port: &str| port.strip_prefix(':').is_some_and(is_number);
            (port.is_empty() || is_port(port)).then_some(host)?
        }
        None => match entry.split_once(':') {
            Some((host, port)) if !port.contains(':') => is_number(port).then_some(host)?,
            _ => entry,
        },
    };
    // A zone means something on the machine that wrote it, and nowhere else (RFC 4007).
    let host = host.split_once('%').map_or(host, |(host, _)| host);
    Some(host.parse::<IpAddr>().ok()?.to_canonical())
}

fn is_number(port: &str) -> bool {
    port.parse::<u16>().is_ok()
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
        check(&["192.0.2.1,10.0.0.1"], Some("192.0.2.1"));
        check(&["192.0.2.1\t,\t10.0.0.1"], Some("192.0.2.1"));
        check(&["192.0.2.1", "10.0.0.1"], Some("192.0.2.1"));
        check(&["", "192.0.2.1"], Some("192.0.2.1"));
        check(&["", ", ,192.0.2.1"], Some("192.0.2.1"));
        check(&[" 192.0.2.1:4711 ,10.0.0.1"], Some("192.0.2.1"));
        check(&["192.0.2.1:0"], Some("192.0.2.1"));
        check(&["0.0.0.0"], Some("0.0.0.0"));
        check(&["2001:db8::1"], Some("2001:db8::1"));
        check(&["2001:DB8::1"], Some("2001:db8::1"));
        check(&["2001:db8:0:0:0:0:0:1"], Some("2001:db8::1"));
        check(&["[2001:db8::1]:443"], Some("2001:db8::1"));
        check(&["[2001:db8::1]"], Some("2001:db8::1"));
        check(&["fe80::1%eth0"], Some("fe80::1"));
        check(&["[fe80::1%25eth0]:80"], Some("fe80::1"));
        check(&["::1"], Some("::1"));
        check(&["::ffff:192.0.2.1"], Some("192.0.2.1"));
        check(&["[::ffff:192.0.2.1]:80"], Some("192.0.2.1"));

        check(&[], None);
        check(&[""], None);
        check(&[","], None);
        check(&["unknown, 192.0.2.1"], None);
        check(&["_hidden, 192.0.2.1"], None);
        check(&["-"], None);
        check(&["localhost"], None);
        check(&["client.example.com"], None);
        check(&["300.1.1.1"], None);
        check(&["192.0.2"], None);
        check(&["192.0.2.1.5"], None);
        check(&["192.0.2.01"], None);
        check(&["192.0.2.1 10.0.0.1"], None);
        check(&["192.0.2.1;10.0.0.1"], None);
        check(&["192.0.2.1/24"], None);
        check(&["192.0.2.1:"], None);
        check(&["192.0.2.1:99999"], None);
        check(&["192.0.2.1:http"], None);
        check(&["\"192.0.2.1\""], None);
        check(&["0x7f.1"], None);
        check(&["3221225985"], None);
        check(&["2001:db8::1::2"], None);
        check(&["2001:db8::g"], None);
        check(&["[2001:db8::1"], None);
        check(&["2001:db8::1]"], None);
        check(&["[2001:db8::1]443"], None);
        check(&["[2001:db8::1]:"], None);
        check(&["[]"], None);
        check(&["[]:80"], None);
        check(&["%eth0"], None);
        check(&[":80"], None);
        check(&["<script>"], None);
        check(&[&"9".repeat(5000)], None);
    }

    #[test]
    fn forwarded_is_read_where_there_is_no_x_forwarded_for() {
        #[track_caller]
        fn check(field: &str, expected: Option<&str>) {
            let headers = HeaderMap::from_iter([(FORWARDED, field.parse().expect("a valid field"))]);
            assert_eq!(first(&headers), expected.map(|address| address.parse().expect("an address")), "{field}");
        }

        check("for=192.0.2.60;proto=http;by=203.0.113.43", Some("192.0.2.60"));
        check("proto=http; For=\"192.0.2.60:4711\"", Some("192.0.2.60"));
        check("for=\"[2001:db8:cafe::17]:4711\"", Some("2001:db8:cafe::17"));
        check("for=192.0.2.43, for=198.51.100.17", Some("192.0.2.43"));
        check("for=unknown, for=198.51.100.17", None);
        check("for=_gazonk", None);
        check("proto=https, for=198.51.100.17", None);
        check("nonsense", None);

        let both = [(FORWARDED, "for=192.0.2.60"), (X_FORWARDED_FOR, "192.0.2.1")];
        let both = both.map(|(name, field)| (name, field.parse().expect("a valid field")));
        assert_eq!(first(&HeaderMap::from_iter(both)), "192.0.2.1".parse().ok());
    }

    #[test]
    fn what_keeps_a_client_unnamed_has_a_name() {
        #[track_caller]
        fn check(pick: Pick, fields: &[&str], expected: Missing) {
            assert_eq!(missing(&headers(fields), pick), expected, "{pick:?} {fields:?}");
        }

        for pick in [Pick::First, Pick::RightmostUntrusted] {
            check(pick, &[], Missing::Field);
            check(pick, &["", ","], Missing::Field);
            check(pick, &["unknown"], Missing::Hidden);
            check(pick, &["Unknown"], Missing::Hidden);
            check(pick, &["_hidden, 192.0.2.1"], Missing::Hidden);
            check(pick, &["client.example.com"], Missing::Garbled);
        }
        check(Pick::RightmostUntrusted, &["10.0.0.1, 10.0.0.2"], Missing::Client);
        check(Pick::RightmostUntrusted, &["-, unknown, 10.0.0.2"], Missing::Hidden);
        check(Pick::First, &["-, unknown, 10.0.0.2"], Missing::Garbled);
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

    #[test]
    fn the_client_is_who_the_rule_says() {
        #[track_caller]
        fn check(header: &str, pick: Pick, hop: &str, fields: &[(&str, &str)], expected: &str) {
            let rule = ClientIp { header: header.parse().expect("a name"), pick };
            let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]);
            let hop = hop.parse().expect("an address");
            let parsed = |(name, field): &(&str, &str)| -> (HeaderName, http::HeaderValue) {
                (name.parse().expect("a name"), field.parse().expect("a valid field"))
            };
            let headers: HeaderMap = fields.iter().map(parsed).collect();
            let client = client(&rule, &headers, hop, &trusted);
            assert_eq!(client.to_string(), expected, "{rule:?} {hop} {fields:?}");
        }

        let everything = [
            ("X-Forwarded-For", "6.6.6.6, 192.0.2.1, 10.0.0.2"),
            ("Forwarded", "for=6.6.6.7, for=192.0.2.2, for=10.0.0.2"),
            ("CF-Connecting-IP", "192.0.2.3"),
        ];
        for pick in [Pick::First, Pick::RightmostUntrusted] {
            // A header for one address.
            check("CF-Connecting-IP", pick, "10.0.0.1", &everything, "192.0.2.3");
            check("X-Real-IP", pick, "10.0.0.1", &[("X-Real-IP", "[2001:db8::1]:443")], "2001:db8::1");
            // No other header stands in for it.
            check("X-Real-IP", pick, "10.0.0.1", &everything, "10.0.0.1");
            check("Forwarded", pick, "10.0.0.1", &everything[..1], "10.0.0.1");
            check("CF-Connecting-IP", pick, "10.0.0.1", &[("CF-Connecting-IP", "unknown")], "10.0.0.1");
            // A stranger is the client, whatever it says.
            check("CF-Connecting-IP", pick, "203.0.113.9", &everything, "203.0.113.9");
            check("X-Forwarded-For", pick, "::ffff:203.0.113.9", &everything, "203.0.113.9");
        }
        check("X-Forwarded-For", Pick::First, "10.0.0.1", &everything, "6.6.6.6");
        check("X-Forwarded-For", Pick::RightmostUntrusted, "10.0.0.1", &everything, "192.0.2.1");
        check("X-Forwarded-For", Pick::First, "10.0.0.1", &everything[1..], "6.6.6.7");
        check("X-Forwarded-For", Pick::RightmostUntrusted, "10.0.0.1", &everything[1..], "192.0.2.2");
        check("Forwarded", Pick::First, "::ffff:10.0.0.1", &everything, "6.6.6.7");
        check("Forwarded", Pick::RightmostUntrusted, "10.0.0.1", &everything, "192.0.2.2");
        check("X-Forwarded-For", Pick::First, "10.0.0.1", &[("X-Forwarded-For", "unknown, 192.0.2.1")], "10.0.0.1");
    }

    #[test]
    fn addresses_are_written_as_everybody_does() {
        for octet in 0..=255 {
            for address in [[octet, 0, 10, 100], [255, octet, 1, 99], [1, 200, 9, octet]] {
                let address = IpAddr::from(address);
                assert_eq!(text(address), address.to_string());
            }
        }
        for (address, expected) in [("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1"), ("::", "::")] {
            assert_eq!(text(address.parse().expect("an address")), expected);
        }
    }
}

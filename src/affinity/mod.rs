//! Affinity: which client a request belongs to, so that it keeps its server.
//!
//! The sources of an upstream are tried in order, and the first that yields something decides: a
//! session names the server that issued it, anything else is a key. A key is only ever hashed;
//! what a *server* issued must not be: the request that had no session yet went elsewhere.

mod cookie;
pub mod doctor;
pub mod engine_io;
pub mod forwarded;
pub mod learned;
pub mod sticky;
pub mod tag;

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderMap;
use http::request::Parts;
use ipnet::Ipv6Net;

use crate::config::{AffinitySource, Ipv6Prefix, Pick, TrustedProxies};

/// What affinity needs to know of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The head of the request.
    pub request: &'a Parts,
    /// The address of the previous hop.
    pub previous_hop: IpAddr,
    /// Whose forwarded addresses are believed.
    pub trusted: &'a TrustedProxies,
    /// The server that issued the request's Engine.IO session, if it belongs to one.
    pub engine_io: Option<usize>,
    /// The server that the proxy's own cookie names, if the request has it.
    pub sticky: Option<usize>,
}

/// Where a request belongs.
#[derive(Clone, PartialEq, Eq)]
pub struct Affinity<'a> {
    /// The server that holds its session.
    pub server: Option<usize>,
    /// What names its client; never empty. Chooses the server when no session does, or when the
    /// session's cannot be reached. May be a secret, so `Debug` does not show it.
    pub key: Option<Cow<'a, [u8]>>,
    /// What decided: the word for logs.
    pub source: &'static str,
}

/// Where `asker` belongs by the first of `sources` that says so; `None` when none does.
pub fn find<'a>(sources: &[AffinitySource], asker: Asker<'a>) -> Option<Affinity<'a>> {
    let mut held = None;
    for source in sources {
        if held.is_none() {
            held = holder(source, asker).map(|server| (server, label(source)));
        }
        if let Some(key) = key(source, asker).filter(|key| !key.is_empty()) {
            let server = held.map(|(server, _)| server);
            let source = held.map_or(label(source), |(_, source)| source);
            return Some(Affinity { server, key: Some(key), source });
        }
    }
    held.map(|(server, source)| Affinity { server: Some(server), key: None, source })
}

/// What decided when the proxy's own cookie did.
pub const STICKY_COOKIE: &str = "sticky_cookie";

/// What decided when the forwarded address did.
pub const FORWARDED_FOR: &str = "forwarded_for";

/// What decided when the address of the previous hop did.
pub const CLIENT_IP: &str = "client_ip";

/// The server that holds the request's session, by a source that knows of such.
fn holder(source: &AffinitySource, asker: Asker<'_>) -> Option<usize> {
    match source {
        AffinitySource::EngineIo => asker.engine_io,
        AffinitySource::StickyCookie(_) => asker.sticky,
        _ => None,
    }
}

fn key<'a>(source: &AffinitySource, asker: Asker<'a>) -> Option<Cow<'a, [u8]>> {
    let headers = &asker.request.headers;
    match source {
        AffinitySource::Cookie(name) => cookie::find(headers, name).map(Cow::Borrowed),
        AffinitySource::Header(name) => header(headers, name),
        AffinitySource::Query(name) => query(asker.request.uri.query()?, name),
        AffinitySource::ForwardedFor(..) if !asker.trusted.contains(asker.previous_hop) => None,
        AffinitySource::ForwardedFor(Pick::First, prefix) => {
            forwarded::first(headers).map(|address| of_address(address, *prefix))
        }
        AffinitySource::ForwardedFor(Pick::RightmostUntrusted, prefix) => {
            let client = forwarded::rightmost_untrusted(headers, asker.previous_hop, asker.trusted);
            // When only trusted hops are named, none of them is the client.
            (!asker.trusted.contains(client)).then(|| of_address(client, *prefix))
        }
        AffinitySource::ClientIp(prefix) => Some(of_address(asker.previous_hop, *prefix)),
        AffinitySource::EngineIo | AffinitySource::StickyCookie(_) => None,
    }
}

/// The word for `source` in logs.
pub fn label(source: &AffinitySource) -> &'static str {
    match source {
        AffinitySource::Cookie(_) => "cookie",
        AffinitySource::Header(_) => "header",
        AffinitySource::Query(_) => "query",
        AffinitySource::ForwardedFor(..) => FORWARDED_FOR,
        AffinitySource::ClientIp(_) => CLIENT_IP,
        AffinitySource::EngineIo => "engine_io",
        AffinitySource::StickyCookie(_) => STICKY_COOKIE,
    }
}

/// A field as it stands; several fields of the name as one list, as nginx joins them.
fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut fields = headers.get_all(name).iter();
    let first = fields.next()?;
    let mut value = Cow::Borrowed(first.as_bytes());
    for field in fields {
        value.to_mut().extend_from_slice(b", ");
        value.to_mut().extend_from_slice(field.as_bytes());
    }
    Some(value)
}

fn query<'a>(query: &'a str, name: &str) -> Option<Cow<'a, [u8]>> {
    let (_, value) = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name)?;
    Some(match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.as_bytes()),
        Cow::Owned(value) => Cow::Owned(value.into_bytes()),
    })
}

/// An address as a key. It is hashed, so its text is the same in every version, for ever.
fn of_address(address: IpAddr, prefix: Ipv6Prefix) -> Cow<'static, [u8]> {
    let text = match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => of_network(prefix.network(address)),
    };
    Cow::Owned(text.into_bytes())
}

/// A network as RFC 5952 has it, but for two lengths: a whole address is written as such, like one
/// of IPv4, and 64 bits as they always were, with each zero.
fn of_network(network: Ipv6Net) -> String {
    match network.prefix_len() {
        64 => {
            let [a, b, c, d, ..] = network.addr().segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        128 => network.addr().to_string(),
        _ => network.to_string(),
    }
}

impl std::fmt::Debug for Affinity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.key.as_ref().map_or(0, |key| key.len());
        write!(f, "Affinity(server {:?}, {bytes} bytes by {})", self.server, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StickyCookie;

    fn parts(target: &str, fields: &[(&str, &str)]) -> Parts {
        let request = http::Request::builder().uri(target);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a valid request").into_parts().0
    }

    fn all() -> Vec<AffinitySource> {
        vec![
            AffinitySource::Cookie("sid".into()),
            AffinitySource::Header(http::HeaderName::from_static("x-user")),
            AffinitySource::Query("room".into()),
            AffinitySource::ForwardedFor(Pick::First, Ipv6Prefix::default()),
            AffinitySource::ClientIp(Ipv6Prefix::default()),
        ]
    }

    #[test]
    fn the_first_source_that_yields_decides() {
        #[track_caller]
        fn check(target: &str, fields: &[(&str, &str)], source: &str, key: &str) {
            let request = parts(target, fields);
            let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]);
            let hop = "10.1.1.1".parse().expect("an address");
            let asker =
                Asker { request: &request, previous_hop: hop, trusted: &trusted, engine_io: None, sticky: None };
            let found = find(&all(), asker).expect("the previous hop always yields");
            assert_eq!((found.source, String::from_utf8_lossy(&found.key.expect("a key")).as_ref()), (source, key));
        }

        let everything = [("Cookie", "sid=c"), ("X-User", "u"), ("X-Forwarded-For", "192.0.2.1")];
        check("/?room=r", &everything, "cookie", "c");
        check("/?room=r", &everything[1..], "header", "u");
        check("/?room=r", &everything[2..], "query", "r");
        check("/?other=r", &everything[2..], "forwarded_for", "192.0.2.1");
        check("/", &[], "client_ip", "10.1.1.1");

        // What is empty yields nothing.
        check("/?room=", &[("Cookie", "sid="), ("X-User", "")], "client_ip", "10.1.1.1");
        check("/?room=a%20b+c", &[], "query", "a b c");
        check("/", &[("X-User", "a"), ("X-User", "b")], "header", "a, b");
        check("/", &[("X-Forwarded-For", "unknown")], "client_ip", "10.1.1.1");
        check("/", &[("X-Forwarded-For", "2001:db8:1:2:3::4")], "forwarded_for", "2001:db8:1:2::/64");
    }

    #[test]
    fn an_address_of_ipv6_is_cut_to_its_network() {
        #[track_caller]
        fn check(address: &str, bits: u8, expected: &str) {
            let prefix = Ipv6Prefix::new(bits).expect("a prefix");
            let key = of_address(address.parse().expect("an address"), prefix);
            assert_eq!(String::from_utf8_lossy(&key), expected, "{address} to {bits}");
        }

        let address = "2001:db8:1:2ff:3:4:5:6";
        check(address, 64, "2001:db8:1:2ff::/64");
        check("2001:DB8:0:2:0:0:0:1", 64, "2001:db8:0:2::/64");
        check("2001:db8::1", 64, "2001:db8:0:0::/64");
        check("::1", 64, "0:0:0:0::/64");
        check(address, 1, "::/1");
        check("ffff::", 1, "8000::/1");
        check(address, 48, "2001:db8:1::/48");
        check(address, 56, "2001:db8:1:200::/56");
        check(address, 63, "2001:db8:1:2fe::/63");
        check(address, 65, "2001:db8:1:2ff::/65");
        check("2001:db8::1", 48, "2001:db8::/48");
        check(address, 127, "2001:db8:1:2ff:3:4:5:6/127");
        check(address, 128, "2001:db8:1:2ff:3:4:5:6");
        check("2001:db8:0:0::1", 128, "2001:db8::1");
        // IPv4 has no networks here.
        for bits in [1, 64, 128] {
            check("192.0.2.1", bits, "192.0.2.1");
            check("::ffff:192.0.2.1", bits, "192.0.2.1");
        }
        assert_eq!([0, 129, 255].map(Ipv6Prefix::new), [None; 3]);
    }

    #[test]
    fn a_session_names_its_server_at_its_place_in_the_list() {
        use AffinitySource::{EngineIo, Query};
        #[track_caller]
        fn check(sources: &[AffinitySource], expected: Option<(Option<usize>, bool, &str)>) {
            let request = parts("/?room=r", &[]);
            let hop = "10.1.1.1".parse().expect("an address");
            let trusted = TrustedProxies::default();
            let asker =
                Asker { request: &request, previous_hop: hop, trusted: &trusted, engine_io: Some(2), sticky: Some(1) };
            let found = find(sources, asker).map(|found| (found.server, found.key.is_some(), found.source));
            assert_eq!(found, expected, "{sources:?}");
        }

        let client_ip = AffinitySource::ClientIp(Ipv6Prefix::default());
        check(&[EngineIo], Some((Some(2), false, "engine_io")));
        check(&[EngineIo, client_ip.clone()], Some((Some(2), true, "engine_io")));
        check(&[Query("room".into()), EngineIo], Some((None, true, "query")));
        check(&[Query("x".into()), EngineIo, client_ip.clone()], Some((Some(2), true, "engine_io")));
        let sticky = AffinitySource::StickyCookie(StickyCookie { name: "steadfast".into(), max_age: None });
        check(&[sticky.clone(), EngineIo, client_ip.clone()], Some((Some(1), true, "sticky_cookie")));
        check(&[EngineIo, sticky.clone()], Some((Some(2), false, "engine_io")));
        check(&[sticky], Some((Some(1), false, "sticky_cookie")));
        check(&[client_ip], Some((None, true, "client_ip")));
        check(&[], None);
    }

    #[test]
    fn strangers_may_not_say_for_whom_they_forward() {
        let request = parts("/", &[("X-Forwarded-For", "192.0.2.1")]);
        let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]);
        let hop = "203.0.113.9".parse().expect("an address");
        let asker = Asker { request: &request, previous_hop: hop, trusted: &trusted, engine_io: None, sticky: None };
        assert_eq!(find(&all(), asker).map(|found| found.source), Some("client_ip"));
        assert_eq!(find(&[AffinitySource::ForwardedFor(Pick::First, Ipv6Prefix::default())], asker), None);
    }

    #[test]
    fn debug_does_not_leak_the_key() {
        let affinity = Affinity { server: None, key: Some(Cow::Borrowed(b"secret")), source: "cookie" };
        assert_eq!(format!("{affinity:?}"), "Affinity(server None, 6 bytes by cookie)");
    }
}

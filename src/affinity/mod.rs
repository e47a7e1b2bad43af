//! Affinity: which client a request belongs to, so that it keeps its server.
//!
//! The sources of an upstream are tried in order, and the first that yields a key decides. A key
//! is only ever hashed; what a *server* issued must not be (see `conf/README.md`): the request
//! that had no session yet went elsewhere.

mod cookie;
pub mod forwarded;

use std::borrow::Cow;
use std::net::IpAddr;

use http::HeaderMap;
use http::request::Parts;

use crate::config::{AffinitySource, TrustedProxies};

/// What affinity needs to know of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The head of the request.
    pub request: &'a Parts,
    /// The address of the previous hop.
    pub previous_hop: IpAddr,
    /// Whose forwarded addresses are believed.
    pub trusted: &'a TrustedProxies,
}

/// A request's key, and where it was found.
#[derive(Clone, PartialEq, Eq)]
pub struct Affinity<'a> {
    /// What names the client; never empty. May be a session's secret, so `Debug` does not show it.
    pub key: Cow<'a, [u8]>,
    /// The word for logs.
    pub source: &'static str,
}

/// The first of `sources` that yields a key for `asker`.
pub fn find<'a>(sources: &[AffinitySource], asker: Asker<'a>) -> Option<Affinity<'a>> {
    sources.iter().find_map(|source| {
        let key = key(source, asker).filter(|key| !key.is_empty())?;
        Some(Affinity { key, source: label(source) })
    })
}

fn key<'a>(source: &AffinitySource, asker: Asker<'a>) -> Option<Cow<'a, [u8]>> {
    let headers = &asker.request.headers;
    match source {
        AffinitySource::Cookie(name) => cookie::find(headers, name).map(Cow::Borrowed),
        AffinitySource::Header(name) => header(headers, name),
        AffinitySource::Query(name) => query(asker.request.uri.query()?, name),
        AffinitySource::ForwardedFor => {
            if !asker.trusted.contains(asker.previous_hop) {
                return None;
            }
            forwarded::first(headers).map(of_address)
        }
        AffinitySource::ClientIp => Some(of_address(asker.previous_hop)),
    }
}

fn label(source: &AffinitySource) -> &'static str {
    match source {
        AffinitySource::Cookie(_) => "cookie",
        AffinitySource::Header(_) => "header",
        AffinitySource::Query(_) => "query",
        AffinitySource::ForwardedFor => "forwarded_for",
        AffinitySource::ClientIp => "client_ip",
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

/// An address as a key. Of IPv6 the first 64 bits: one client has many addresses in its network.
fn of_address(address: IpAddr) -> Cow<'static, [u8]> {
    let text = match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    };
    Cow::Owned(text.into_bytes())
}

impl std::fmt::Debug for Affinity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Affinity({} bytes by {})", self.key.len(), self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            AffinitySource::ForwardedFor,
            AffinitySource::ClientIp,
        ]
    }

    #[test]
    fn the_first_source_that_yields_decides() {
        #[track_caller]
        fn check(target: &str, fields: &[(&str, &str)], source: &str, key: &str) {
            let request = parts(target, fields);
            let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]);
            let hop = "10.1.1.1".parse().expect("an address");
            let asker = Asker { request: &request, previous_hop: hop, trusted: &trusted };
            let found = find(&all(), asker).expect("the previous hop always yields");
            assert_eq!((found.source, String::from_utf8_lossy(&found.key).as_ref()), (source, key));
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
    fn strangers_may_not_say_for_whom_they_forward() {
        let request = parts("/", &[("X-Forwarded-For", "192.0.2.1")]);
        let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]);
        let hop = "203.0.113.9".parse().expect("an address");
        let asker = Asker { request: &request, previous_hop: hop, trusted: &trusted };
        assert_eq!(find(&all(), asker).map(|found| found.source), Some("client_ip"));
        assert_eq!(find(&[AffinitySource::ForwardedFor], asker), None);
    }

    #[test]
    fn debug_does_not_leak_the_key() {
        let affinity = Affinity { key: Cow::Borrowed(b"secret"), source: "cookie" };
        assert_eq!(format!("{affinity:?}"), "Affinity(6 bytes by cookie)");
    }
}

//! Affinity: which client a request belongs to, so that it keeps its server.
//!
//! The sources of an upstream are asked in order, and the first that finds something decides: a
//! session leads to the server that issued it, anything else is a key. A key is only ever hashed;
//! what a *server* issued must not be: the request that had no session yet went elsewhere. So such
//! an id carries a tag of ours, or who issued it is learned from the response that did.

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

use engine_io::Session;
use learned::{Place, SessionId};
use tag::{Secret, ServerTag};

/// What affinity needs to know of a request.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The head of the request.
    pub request: &'a Parts,
    /// The address of the previous hop.
    pub previous_hop: IpAddr,
    /// Whose forwarded addresses are believed.
    pub trusted: &'a TrustedProxies,
    /// What tags are keyed with.
    pub secret: &'a Secret,
    /// What the request's query says of its Engine.IO session.
    pub engine_io: &'a Session,
}

/// What one source finds in a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Finding<'a> {
    /// Nothing.
    Nothing,
    /// A session that this server holds.
    Server(ServerTag),
    /// A session whose server must have been learned. When nobody has, a key may take its place:
    /// what no server issued, the client brought with it.
    Session(SessionId, Option<Cow<'a, [u8]>>),
    /// What names the client; never empty. May be a secret, so `Debug` does not show it.
    Key(Cow<'a, [u8]>),
}

/// What `source` finds.
pub fn ask<'a>(source: &AffinitySource, asker: Asker<'a>) -> Finding<'a> {
    let headers = &asker.request.headers;
    let server = |tag: Option<ServerTag>| tag.map_or(Finding::Nothing, Finding::Server);
    let key = |key: Option<Cow<'a, [u8]>>| key.filter(|key| !key.is_empty()).map_or(Finding::Nothing, Finding::Key);
    match source {
        AffinitySource::EngineIo => match asker.engine_io {
            Session::Tagged { server, .. } => Finding::Server(*server),
            Session::Issued(sid) => Finding::Session(Place::EngineIo.session(sid.as_bytes()), None),
            Session::Handshake(_) | Session::Foreign => Finding::Nothing,
        },
        AffinitySource::StickyCookie(cookie) => server(sticky::server(headers, cookie, asker.secret)),
        AffinitySource::Session(session) => {
            let place = Place::of(session);
            let id = place.value(asker.request).map(|value| place.session(&value));
            id.map_or(Finding::Nothing, |id| Finding::Session(id, None))
        }
        AffinitySource::Cookie(name) => {
            let place = Place::Cookie(name);
            let value = place.value(asker.request);
            value.map_or(Finding::Nothing, |value| Finding::Session(place.session(&value), Some(value)))
        }
        AffinitySource::Header(name) => key(header(headers, name)),
        AffinitySource::Query(name) => key(query(asker.request, name)),
        AffinitySource::ForwardedFor(..) if !asker.trusted.contains(asker.previous_hop) => Finding::Nothing,
        AffinitySource::ForwardedFor(Pick::First, prefix) => {
            key(forwarded::first(headers).map(|address| of_address(address, *prefix)))
        }
        AffinitySource::ForwardedFor(Pick::RightmostUntrusted, prefix) => {
            let client = forwarded::rightmost_untrusted(headers, asker.previous_hop, asker.trusted);
            // When only trusted hops are named, none of them is the client.
            key((!asker.trusted.contains(client)).then(|| of_address(client, *prefix)))
        }
        AffinitySource::ClientIp(prefix) => key(Some(of_address(asker.previous_hop, *prefix))),
    }
}

/// What decided when the proxy's own cookie did.
pub const STICKY_COOKIE: &str = "sticky_cookie";

/// What decided when the forwarded address did.
pub const FORWARDED_FOR: &str = "forwarded_for";

/// What decided when the address of the previous hop did.
pub const CLIENT_IP: &str = "client_ip";

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
        AffinitySource::Session(_) => "session",
    }
}

/// Every word that [`label`] may say, and the one for none.
const LABELS: [&str; 9] =
    ["none", "cookie", "header", "query", FORWARDED_FOR, CLIENT_IP, "engine_io", STICKY_COOKIE, "session"];

/// A word that [`label`] may say, or the one for none, in a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Label(u8);

impl Label {
    /// The label of this word; that for none if nothing of ours says it.
    pub fn of(word: &str) -> Self {
        let place = LABELS.iter().position(|known| *known == word);
        Self(place.and_then(|place| u8::try_from(place).ok()).unwrap_or_default())
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        LABELS[usize::from(self.0)]
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

fn query<'a>(request: &'a Parts, name: &str) -> Option<Cow<'a, [u8]>> {
    let (_, value) = form_urlencoded::parse(request.uri.query()?.as_bytes()).find(|(key, _)| key == name)?;
    Some(match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.as_bytes()),
        Cow::Owned(value) => Cow::Owned(value.into_bytes()),
    })
}

/// An address as a key. It is hashed, so its text is the same in every version, for ever.
fn of_address(address: IpAddr, prefix: Ipv6Prefix) -> Cow<'static, [u8]> {
    let text = match address.to_canonical() {
        IpAddr::V4(_) => forwarded::text(address),
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

impl std::fmt::Debug for Finding<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => write!(f, "Nothing"),
            Self::Server(_) => write!(f, "Server"),
            Self::Session(_, key) => write!(f, "Session(or a key: {})", key.is_some()),
            Self::Key(key) => write!(f, "Key({} bytes)", key.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Find, Learn, StickyCookie};

    fn parts(target: &str, fields: &[(&str, &str)]) -> Parts {
        let request = http::Request::builder().uri(target);
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a valid request").into_parts().0
    }

    /// What `source` finds in a request by way of the trusted hop 10.1.1.1.
    fn asked(source: &AffinitySource, (target, fields): (&str, &[(&str, &str)]), engine_io: &Session) -> String {
        let request = parts(target, fields);
        let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]);
        let hop = "10.1.1.1".parse().expect("an address");
        let secret = Secret::new(b"0123456789abcdef");
        let asker = Asker { request: &request, previous_hop: hop, trusted: &trusted, secret: &secret, engine_io };
        match ask(source, asker) {
            Finding::Nothing => "nothing".to_owned(),
            Finding::Key(key) => format!("key {}", String::from_utf8_lossy(&key)),
            Finding::Server(tag) if tag == secret.server("red") => "server red".to_owned(),
            Finding::Server(_) => "another server".to_owned(),
            Finding::Session(id, key) => {
                let places = [Place::EngineIo, Place::Cookie("sid"), Place::Header(&X_SESSION), Place::Query("id")];
                let place = places.iter().find(|place| place.session(b"s") == id);
                format!("session {place:?} {}", key.is_some())
            }
        }
    }

    const X_SESSION: http::HeaderName = http::HeaderName::from_static("x-session");

    #[test]
    fn each_source_finds_what_is_its_own() {
        #[track_caller]
        fn check(source: &AffinitySource, request: (&str, &[(&str, &str)]), expected: &str) {
            assert_eq!(asked(source, request, &Session::Foreign), expected, "{source:?} {request:?}");
        }

        let user = AffinitySource::Header(http::HeaderName::from_static("x-user"));
        check(&user, ("/", &[("X-User", "u")]), "key u");
        check(&user, ("/", &[("X-User", "a"), ("X-User", "b")]), "key a, b");
        check(&user, ("/", &[("X-User", "")]), "nothing");
        let room = AffinitySource::Query("room".into());
        check(&room, ("/?room=r", &[]), "key r");
        check(&room, ("/?room=a%20b+c", &[]), "key a b c");
        check(&room, ("/?room=", &[]), "nothing");
        check(&room, ("/?other=r", &[]), "nothing");
        let forwarded = AffinitySource::ForwardedFor(Pick::First, Ipv6Prefix::default());
        check(&forwarded, ("/", &[("X-Forwarded-For", "192.0.2.1")]), "key 192.0.2.1");
        check(&forwarded, ("/", &[("X-Forwarded-For", "2001:db8:1:2:3::4")]), "key 2001:db8:1:2::/64");
        check(&forwarded, ("/", &[("X-Forwarded-For", "unknown")]), "nothing");
        check(
            &AffinitySource::ClientIp(Ipv6Prefix::default()),
            ("/", &[("X-Forwarded-For", "192.0.2.1")]),
            "key 10.1.1.1",
        );

        // A cookie may be a session or a key; whoever has learned it knows.
        let cookie = AffinitySource::Cookie("sid".into());
        check(&cookie, ("/", &[("Cookie", "sid=s")]), "session Some(Cookie(\"sid\")) true");
        check(&cookie, ("/", &[("Cookie", "sid=")]), "nothing");
        check(&cookie, ("/", &[("Cookie", "sid=other")]), "session None true");
    }

    #[test]
    fn sessions_are_found_where_they_stand() {
        #[track_caller]
        fn check(find: Find, request: (&str, &[(&str, &str)]), expected: &str) {
            let source = AffinitySource::Session(config::Session { learn: Learn::ResponseHeader(X_SESSION), find });
            assert_eq!(asked(&source, request, &Session::Foreign), expected, "{source:?} {request:?}");
        }

        check(Find::Header(X_SESSION), ("/", &[("X-Session", "s")]), "session Some(Header(\"x-session\")) false");
        check(Find::Header(X_SESSION), ("/", &[("X-Session", "")]), "nothing");
        check(Find::Query("id".into()), ("/?id=s", &[]), "session Some(Query(\"id\")) false");
        check(Find::Query("id".into()), ("/?id=", &[]), "nothing");
        check(Find::Cookie("sid".into()), ("/", &[("Cookie", "sid=s")]), "session Some(Cookie(\"sid\")) false");
    }

    #[test]
    fn engine_io_and_cookies_of_ours_name_servers() {
        use engine_io::Version;
        #[track_caller]
        fn check(source: &AffinitySource, fields: &[(&str, &str)], session: &Session, expected: &str) {
            assert_eq!(asked(source, ("/", fields), session), expected, "{source:?} {session:?}");
        }
        let secret = Secret::new(b"0123456789abcdef");

        let tagged = Session::Tagged { server: secret.server("red"), query: String::new() };
        check(&AffinitySource::EngineIo, &[], &tagged, "server red");
        check(&AffinitySource::EngineIo, &[], &Session::Issued("s".into()), "session Some(EngineIo) false");
        check(&AffinitySource::EngineIo, &[], &Session::Handshake(Version::From4), "nothing");
        check(&AffinitySource::EngineIo, &[], &Session::Foreign, "nothing");
        check(&AffinitySource::ClientIp(Ipv6Prefix::default()), &[], &tagged, "key 10.1.1.1");

        let sticky = StickyCookie::default();
        let field = sticky::issue(&sticky, &secret, secret.server("red"), 7, false);
        let cookie = field.split(';').next().expect("it has a value").to_owned();
        let sticky = AffinitySource::StickyCookie(sticky);
        check(&sticky, &[("Cookie", &cookie)], &tagged, "server red");
        check(&sticky, &[("Cookie", "steadfast=x")], &tagged, "nothing");
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
    fn strangers_may_not_say_for_whom_they_forward() {
        let request = parts("/", &[("X-Forwarded-For", "192.0.2.1")]);
        let trusted = TrustedProxies(vec!["10.0.0.0/8".parse().expect("a network")]);
        let hop = "203.0.113.9".parse().expect("an address");
        let secret = Secret::new(b"0123456789abcdef");
        let engine_io = &Session::Foreign;
        let asker = Asker { request: &request, previous_hop: hop, trusted: &trusted, secret: &secret, engine_io };
        for pick in [Pick::First, Pick::RightmostUntrusted] {
            assert_eq!(ask(&AffinitySource::ForwardedFor(pick, Ipv6Prefix::default()), asker), Finding::Nothing);
        }
        let key = Finding::Key(Cow::Borrowed(b"203.0.113.9"));
        assert_eq!(ask(&AffinitySource::ClientIp(Ipv6Prefix::default()), asker), key);
    }

    #[test]
    fn debug_does_not_leak_the_key() {
        assert_eq!(format!("{:?}", Finding::Key(Cow::Borrowed(b"secret"))), "Key(6 bytes)");
        let session = Finding::Session(Place::EngineIo.session(b"s"), Some(Cow::Borrowed(b"secret")));
        assert_eq!(format!("{session:?}"), "Session(or a key: true)");
    }
}

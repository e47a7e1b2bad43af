//! What a server gets to see of a request, and a client of a response: hop-by-hop fields end here
//! (RFC 9110, section 7.6.1), and upgrades are the one thing that is passed on, and only then.

use std::net::IpAddr;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora::http::{RequestHeader, ResponseHeader};

use crate::affinity::forwarded::{FORWARDED, X_FORWARDED_FOR};
use crate::affinity::sticky;
use crate::config::{AcceptEncoding, Sse};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Fields that `Connection` may not name away: they frame the message, route it, or tell the
/// server things that the previous hop must not be able to hide.
const NEVER_DROPPED: [HeaderName; 9] = [
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONTENT_TYPE,
    COOKIE,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    FORWARDED,
];

/// The previous hop, as the forwarded fields name it.
#[derive(Clone, Copy, Debug)]
pub struct PreviousHop {
    /// Its address.
    pub address: IpAddr,
    /// Whether what it says of hops before it is believed.
    pub is_trusted: bool,
    /// `http` or `https`: what it spoke to us.
    pub scheme: &'static str,
}

/// The protocol that `request` asks to upgrade to, when it is a well-formed upgrade of HTTP/1.1
/// that may be passed on. HTTP/2 is no such: the server is always spoken to in HTTP/1.1.
pub fn upgrade_of(request: &http::request::Parts) -> Option<&HeaderValue> {
    let protocol = request.headers.get(UPGRADE)?;
    let has_body = request.headers.contains_key(TRANSFER_ENCODING)
        || request.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    let asks = request.version == Version::HTTP_11 && names(&request.headers, UPGRADE.as_str()) && !has_body;
    let is_http2 = protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    (asks && !is_http2).then_some(protocol)
}

/// Whether `response` agrees to the upgrade to `asked`: the same protocol, if it names any.
pub fn agrees_to(response: &HeaderMap, asked: &HeaderValue) -> bool {
    response.get(UPGRADE).is_none_or(|got| {
        let protocols = asked.as_bytes().split(|byte| *byte == b',');
        protocols.into_iter().any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(got.as_bytes().trim_ascii()))
    })
}

/// Turns a client's request into the one its server gets.
///
/// # Errors
/// When a field cannot be written, which a parsed request does not cause.
pub fn to_server(head: &mut RequestHeader, hop: PreviousHop, server: &str) -> pingora::Result<()> {
    let upgrade = upgrade_of(head).cloned();
    drop_hop_by_hop(head);
    head.remove_header(&TE);
    head.remove_header(&HTTP2_SETTINGS);
    head.set_version(Version::HTTP_11);
    if let Some(protocol) = upgrade {
        head.insert_header(CONNECTION, "Upgrade")?;
        head.insert_header(UPGRADE, protocol)?;
    }
    // Behind the absolute form the host is named twice, and servers expect the origin form.
    if !head.raw_path().starts_with(b"/") && head.method != Method::OPTIONS {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        head.set_raw_path(target.as_bytes())?;
    }
    forwarded(head, hop)?;
    if !head.headers.contains_key(HOST) {
        head.insert_header(HOST, server)?; // Only HTTP/1.0 may leave it out.
    }
    Ok(())
}

/// Replaces the query of a request.
///
/// # Errors
/// When the target cannot be written.
pub fn set_query(head: &mut RequestHeader, query: &str) -> pingora::Result<()> {
    let target = format!("{}?{query}", head.uri.path());
    head.set_raw_path(target.as_bytes())
}

/// Drops the cookie called `name` from a request.
///
/// # Errors
/// When a field cannot be written.
pub fn drop_cookie(head: &mut RequestHeader, name: &str) -> pingora::Result<()> {
    let fields: Vec<HeaderValue> = head.headers.get_all(COOKIE).iter().cloned().collect();
    if !fields.iter().any(|field| field.as_bytes().windows(name.len()).any(|text| text == name.as_bytes())) {
        return Ok(());
    }
    head.remove_header(&COOKIE);
    for field in fields {
        match field.to_str() {
            Ok(text) => {
                if let Some(left) = sticky::without(text, name) {
                    head.append_header(COOKIE, left)?;
                }
            }
            // Not text, so not only ours; and what is in it is not ours to lose.
            Err(_) => drop(head.append_header(COOKIE, field)?),
        }
    }
    Ok(())
}

fn forwarded(head: &mut RequestHeader, hop: PreviousHop) -> pingora::Result<()> {
    let address = hop.address.to_canonical().to_string();
    if !hop.is_trusted {
        for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, FORWARDED] {
            head.remove_header(&name);
        }
    }
    let before: Vec<&[u8]> = head.headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes).collect();
    let chain = if before.is_empty() {
        address.into_bytes()
    } else {
        [&before.join(&b", "[..]), b", ".as_slice(), address.as_bytes()].concat()
    };
    head.insert_header(X_FORWARDED_FOR, chain)?;
    if !head.headers.contains_key(X_FORWARDED_PROTO) {
        head.insert_header(X_FORWARDED_PROTO, hop.scheme)?;
    }
    if !head.headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = head.headers.get(HOST).cloned()
    {
        head.insert_header(X_FORWARDED_HOST, host)?;
    }
    Ok(())
}

/// Turns a server's response into the one the client gets. `upgrade` is what was asked for and
/// agreed to.
///
/// # Errors
/// When a field cannot be written, which a parsed response does not cause.
pub fn to_client(head: &mut ResponseHeader, upgrade: Option<&HeaderValue>) -> pingora::Result<()> {
    let protocol = upgrade.map(|asked| head.headers.get(UPGRADE).unwrap_or(asked).clone());
    drop_hop_by_hop(head);
    head.set_version(Version::HTTP_11);
    if let Some(protocol) = protocol {
        head.insert_header(CONNECTION, "Upgrade")?;
        head.insert_header(UPGRADE, protocol)?;
    }
    Ok(())
}

/// Chooses the framing of a response with a body: what the server's length says, or chunks for
/// clients that know them, or the end of the connection.
///
/// # Errors
/// When a field cannot be written.
pub fn frame_for(head: &mut ResponseHeader, client: Version) -> pingora::Result<()> {
    let status = head.status.as_u16();
    let has_no_body = status < 200 || status == 204 || status == 304;
    if has_no_body || client < Version::HTTP_11 {
        head.remove_header(&TRANSFER_ENCODING);
    } else if !head.headers.contains_key(CONTENT_LENGTH) {
        head.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    Ok(())
}

/// Whether `response` is a stream of events that may be looked into: one that is whole or coded
/// passes as it is.
pub fn is_event_stream(response: &ResponseHeader) -> bool {
    response.status.is_success()
        && response.headers.get(CONTENT_TYPE).is_some_and(|kind| is_event_stream_type(kind.as_bytes()))
}

/// Has the server of an event stream send it as it is, where `sse` does not say otherwise: what is
/// compressed is held back by whoever compresses it, and nothing can be inserted.
pub fn for_events(head: &mut RequestHeader, sse: &Sse) {
    if sse.accept_encoding == AcceptEncoding::Remove && accepts_event_stream(&head.headers) {
        head.remove_header(&ACCEPT_ENCODING);
    }
}

/// Whether a request takes a stream of events and nothing else.
pub fn accepts_only_event_stream(request: &HeaderMap) -> bool {
    let mut ranges = request.get_all(ACCEPT).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let first = ranges.next().is_some_and(|range| is_event_stream_type(range) && !is_refused(range));
    first && ranges.next().is_none()
}

/// Whether a request says by name that it takes a stream of events, as every EventSource does.
fn accepts_event_stream(request: &HeaderMap) -> bool {
    let ranges = request.get_all(ACCEPT).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    ranges.into_iter().any(|range| is_event_stream_type(range) && !is_refused(range))
}

/// Whether a range of `Accept` has the weight 0 (RFC 9110, section 12.4.2).
fn is_refused(range: &[u8]) -> bool {
    let weight = range.split(|byte| *byte == b';').skip(1).find_map(|parameter| {
        let parameter = parameter.trim_ascii();
        parameter.strip_prefix(b"q=").or_else(|| parameter.strip_prefix(b"Q="))
    });
    weight.is_some_and(|weight| !weight.is_empty() && weight.iter().all(|byte| b"0.".contains(byte)))
}

fn is_event_stream_type(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether what a client accepts, its field `Accept`, is a stream of events.
pub fn accepts_events(accept: &HeaderValue) -> bool {
    accept.as_bytes().split(|byte| *byte == b',').any(is_event_stream_type)
}

/// Asks every hop between here and the client not to hold events back: nginx and its kin by
/// `X-Accel-Buffering`, CDNs that compress by `no-transform`.
///
/// # Errors
/// When a field cannot be written.
pub fn for_event_stream(head: &mut ResponseHeader) -> pingora::Result<()> {
    head.insert_header(X_ACCEL_BUFFERING, "no")?;
    let mut directives = head.headers.get_all(CACHE_CONTROL).iter();
    let has_it = directives.any(|field| contains_token(field.as_bytes(), b"no-transform"));
    if !has_it {
        head.append_header(CACHE_CONTROL, "no-transform")?;
    }
    Ok(())
}

/// Whether `Connection` names `token`.
pub fn names(headers: &HeaderMap, token: &str) -> bool {
    headers.get_all(CONNECTION).iter().any(|field| contains_token(field.as_bytes(), token.as_bytes()))
}

fn contains_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Requests and responses, as far as dropping fields goes.
trait Head {
    fn fields(&self) -> &HeaderMap;
    fn drop_field(&mut self, name: &HeaderName);
}

impl Head for RequestHeader {
    fn fields(&self) -> &HeaderMap {
        &self.headers
    }

    fn drop_field(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

impl Head for ResponseHeader {
    fn fields(&self) -> &HeaderMap {
        &self.headers
    }

    fn drop_field(&mut self, name: &HeaderName) {
        self.remove_header(name);
    }
}

/// Drops the hop-by-hop fields but `Transfer-Encoding`, which says how the body is framed and is
/// seen to by whoever writes it.
fn drop_hop_by_hop(head: &mut impl Head) {
    let is_usual = |field: &HeaderValue| {
        let field = field.as_bytes();
        field.eq_ignore_ascii_case(b"keep-alive") || field.eq_ignore_ascii_case(b"close")
    };
    let fields = head.fields().get_all(CONNECTION);
    let named: Vec<HeaderName> = fields
        .iter()
        .filter(|field| !is_usual(field))
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !NEVER_DROPPED.contains(name))
        .collect();
    for name in named.iter().chain(&[CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRAILER, UPGRADE]) {
        head.drop_field(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: PreviousHop =
        PreviousHop { address: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)), is_trusted: false, scheme: "http" };
    const TRUSTED: PreviousHop = PreviousHop { is_trusted: true, ..STRANGER };

    fn request(target: &str, fields: &[(&str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", target.as_bytes(), None).expect("a valid request");
        for (name, value) in fields {
            head.append_header((*name).to_owned(), *value).expect("a valid field");
        }
        head
    }

    fn wire(head: &RequestHeader) -> String {
        let mut wire = Vec::new();
        head.header_to_h1_wire(&mut wire);
        String::from_utf8(wire).expect("tests are text")
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        #[track_caller]
        fn check(hop: PreviousHop, fields: &[(&str, &str)], expected: &[&str]) {
            let mut head = request("/", fields);
            to_server(&mut head, hop, "10.0.0.1:3000").expect("a valid request");
            let wire = wire(&head).to_ascii_lowercase();
            let mut lines: Vec<&str> = wire.lines().collect();
            let mut expected = expected.to_vec();
            lines.sort_unstable();
            expected.sort_unstable();
            assert_eq!(lines, expected, "{fields:?}");
        }

        let ours = ["x-forwarded-for: 203.0.113.9", "x-forwarded-proto: http", "x-forwarded-host: a", "host: a"];
        let host = ("Host", "a");
        check(STRANGER, &[host, ("Connection", "keep-alive"), ("Keep-Alive", "5")], &ours);
        check(STRANGER, &[host, ("Connection", "X-Private, close"), ("X-Private", "1")], &ours);
        check(STRANGER, &[host, ("TE", "trailers"), ("Trailer", "X"), ("Proxy-Connection", "close")], &ours);
        // No upgrade without `Connection: upgrade`.
        check(STRANGER, &[host, ("Upgrade", "websocket")], &ours);
        check(
            STRANGER,
            &[host, ("Upgrade", "h2c"), ("Connection", "upgrade, http2-settings"), ("HTTP2-Settings", "x")],
            &ours,
        );
        let mut upgrade = ours.to_vec();
        upgrade.extend(["connection: upgrade", "upgrade: websocket"]);
        check(STRANGER, &[host, ("Upgrade", "websocket"), ("Connection", "keep-alive, Upgrade")], &upgrade);
        // What frames and forwards cannot be named away.
        let mut framed = ours.to_vec();
        framed.push("content-length: 5");
        check(
            STRANGER,
            &[host, ("Connection", "host, content-length, x-forwarded-for"), ("Content-Length", "5")],
            &framed,
        );
        // Strangers' forwarded fields are replaced, those of trusted hops continued.
        let forwarded = [
            host,
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "b"),
            ("Forwarded", "for=b"),
        ];
        check(STRANGER, &forwarded, &ours);
        check(
            TRUSTED,
            &forwarded,
            &[
                "host: a",
                "x-forwarded-for: 192.0.2.1, 203.0.113.9",
                "x-forwarded-proto: https",
                "x-forwarded-host: b",
                "forwarded: for=b",
            ],
        );
        check(
            TRUSTED,
            &[host, ("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", "10.0.0.1")],
            &[
                "host: a",
                "x-forwarded-for: 192.0.2.1, 10.0.0.1, 203.0.113.9",
                "x-forwarded-proto: http",
                "x-forwarded-host: a",
            ],
        );
        check(STRANGER, &[], &["host: 10.0.0.1:3000", "x-forwarded-for: 203.0.113.9", "x-forwarded-proto: http"]);
    }

    #[test]
    fn an_absolute_target_becomes_an_origin_target() {
        #[track_caller]
        fn check(target: &str, expected: &str) {
            let mut head = request(target, &[("Host", "a")]);
            to_server(&mut head, STRANGER, "s").expect("a valid request");
            assert_eq!(String::from_utf8_lossy(head.raw_path()), expected);
        }

        check("http://a/b?c=d", "/b?c=d");
        check("/b?c=d", "/b?c=d");
        check("/", "/");
    }

    #[test]
    fn an_upgrade_is_agreed_to_by_its_own_name() {
        #[track_caller]
        fn check(asked: &str, got: Option<&str>, expected: bool) {
            let got = got.map(|got| (UPGRADE, got.parse().expect("a valid field")));
            let asked = asked.parse().expect("a valid field");
            assert_eq!(agrees_to(&got.into_iter().collect(), &asked), expected);
        }

        check("websocket", Some("websocket"), true);
        check("websocket", Some("WebSocket"), true);
        check("foo, websocket", Some("websocket"), true);
        check("websocket", None, true);
        check("websocket", Some("h2c"), false);
    }

    #[test]
    fn event_streams_are_told_by_their_type() {
        for (kind, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            ("text/event-streams", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_event_stream_type(kind.as_bytes()), expected, "{kind}");
        }
    }

    #[test]
    fn whoever_takes_event_streams_names_them_and_gets_them_as_they_are() {
        #[track_caller]
        fn check(accept: &[&str], expected: bool) {
            let mut head = request("/", &[("Accept-Encoding", "gzip")]);
            for field in accept {
                head.append_header(ACCEPT, *field).expect("a valid field");
            }
            for (choice, is_removed) in [(AcceptEncoding::Remove, expected), (AcceptEncoding::Pass, false)] {
                let mut head = head.clone();
                for_events(&mut head, &Sse { accept_encoding: choice, ..Sse::default() });
                assert_eq!(!head.headers.contains_key(ACCEPT_ENCODING), is_removed, "{accept:?}, {choice:?}");
            }
        }

        check(&["text/event-stream"], true);
        check(&["application/json, Text/Event-Stream;q=0.5"], true);
        check(&["application/json", "text/event-stream"], true);
        check(&["text/event-stream;q=0"], false);
        check(&["text/event-stream; Q=0.000"], false);
        check(&["*/*"], false);
        check(&["text/*"], false);
        check(&[], false);
    }

    #[test]
    fn whoever_takes_only_event_streams_names_nothing_else() {
        #[track_caller]
        fn check(accept: &[&str], expected: bool) {
            let fields: Vec<_> = accept.iter().map(|field| ("Accept", *field)).collect();
            assert_eq!(accepts_only_event_stream(&request("/", &fields).headers), expected, "{accept:?}");
        }

        check(&["text/event-stream"], true);
        check(&["Text/Event-Stream; charset=utf-8;q=0.9"], true);
        check(&["text/event-stream, */*"], false);
        check(&["text/event-stream, application/json"], false);
        check(&["application/json", "text/event-stream"], false);
        check(&["text/event-stream", "*/*"], false);
        check(&["text/event-stream;q=0"], false);
        check(&["text/*"], false);
        check(&["*/*"], false);
        check(&[""], false);
        check(&[], false);
    }

    #[test]
    fn event_streams_ask_not_to_be_held_back() {
        #[track_caller]
        fn check(before: &[&str], after: &[&str]) {
            let mut head = ResponseHeader::build(200, None).expect("a valid response");
            for field in before {
                head.append_header(CACHE_CONTROL, *field).expect("a valid field");
            }
            for_event_stream(&mut head).expect("a valid response");
            let fields: Vec<&[u8]> = head.headers.get_all(CACHE_CONTROL).iter().map(HeaderValue::as_bytes).collect();
            assert_eq!(fields, after.iter().map(|field| field.as_bytes()).collect::<Vec<_>>());
            assert_eq!(head.headers[X_ACCEL_BUFFERING], "no");
        }

        check(&[], &["no-transform"]);
        check(&["no-cache"], &["no-cache", "no-transform"]);
        check(&["no-cache, No-Transform"], &["no-cache, No-Transform"]);
    }
}

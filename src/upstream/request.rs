//! A request as its server gets it: hop-by-hop fields end here (RFC 9110, section 7.6.1), an upgrade
//! is the one thing of theirs that is passed on, and only then, and the hop before us is named.
//!
//! It is written in one go from what the client has sent, in its order and its spelling: no copy is
//! made only to be changed.

use std::net::IpAddr;

use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, COOKIE, TRANSFER_ENCODING};
use http::{HeaderName, Method};
use pingora::http::RequestHeader;

use super::headers::{X_FORWARDED_HOST, X_FORWARDED_PROTO, accepts_event_stream, named, upgrade_of};
use crate::affinity::forwarded::{self, X_FORWARDED_FOR};
use crate::affinity::sticky;
use crate::config::{AcceptEncoding, Sse};
use crate::observe::traces::{Onward, TRACEPARENT, TRACESTATE};

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

/// What becomes different on the way, beside what every proxy changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// A query in the place of the request's own.
    pub query: Option<&'a str>,
    /// The cookie of this name goes no further.
    pub drops_cookie: Option<&'a str>,
    /// The response is to come as it is, not compressed.
    pub drops_accept_encoding: bool,
    /// Its trace, in the place of the one that it says, if any.
    pub trace: Option<Onward>,
}

/// Whether the server of an event stream is to send it as it is, by `sse`: what is compressed is held
/// back by whoever compresses it, and nothing can be inserted.
pub fn wants_plain_events(request: &RequestHeader, sse: &Sse) -> bool {
    sse.accept_encoding == AcceptEncoding::Remove && accepts_event_stream(&request.headers)
}

/// The head of `request` for a server that is called `authority` if the client did not name it.
/// `None` when its target does not fit on a line.
pub fn head(request: &RequestHeader, hop: PreviousHop, authority: &str, changes: Changes<'_>) -> Option<Vec<u8>> {
    /// Few heads are longer.
    const USUAL: usize = 1024;
    let mut head = Vec::with_capacity(USUAL);
    start(&mut head, request, changes.query)?;
    let named: Vec<HeaderName> = named(&request.headers).collect();
    let mut noted = Noted::default();
    for (name, (spelling, value)) in request.headers.iter().map(|(name, _)| name).zip(request.case_header_iter()) {
        let (spelling, value) = (spelling.as_slice(), value.as_bytes());
        if !noted.passes(name.as_str(), value, hop) || named.contains(name) {
            continue;
        }
        match changes {
            Changes { drops_accept_encoding: true, .. } if *name == ACCEPT_ENCODING => {}
            Changes { trace: Some(_), .. } if *name == TRACEPARENT => {}
            Changes { trace: Some(Onward { keeps_state: false, .. }), .. } if *name == TRACESTATE => {}
            Changes { drops_cookie: Some(cookie), .. } if *name == COOKIE => {
                without_cookie(&mut head, spelling, value, cookie);
            }
            _ => field(&mut head, spelling, value),
        }
    }
    frame(&mut head, &noted);
    if noted.asks_upgrade
        && let Some(protocol) = upgrade_of(request)
    {
        field(&mut head, b"Connection", b"Upgrade");
        field(&mut head, b"Upgrade", protocol.as_bytes());
    }
    introduce(&mut head, request, hop, &noted);
    if let Some(trace) = changes.trace {
        field(&mut head, TRACEPARENT.as_bytes(), &trace.traceparent);
    }
    if noted.host.is_none() {
        field(&mut head, b"Host", authority.as_bytes()); // Only HTTP/1.0 may leave it out.
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}

/// The request line.
fn start(head: &mut Vec<u8>, request: &RequestHeader, query: Option<&str>) -> Option<()> {
    let target = request.raw_path();
    // Behind the absolute form the host is named twice, and servers expect the origin form.
    let is_absolute = !target.starts_with(b"/") && request.method != Method::OPTIONS;
    let target = match request.uri.path_and_query() {
        _ if !is_absolute && query.is_none() => target,
        Some(target) if query.is_none() => target.as_str().as_bytes(),
        Some(target) => target.path().as_bytes(),
        None => b"/",
    };
    let is_line = |text: &[u8]| text.iter().all(|byte| !matches!(byte, 0..=b' ' | 0x7F));
    if !is_line(target) || !query.is_none_or(|query| is_line(query.as_bytes())) {
        return None;
    }
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    for part in [request.method.as_str().as_bytes(), b" ", target, mark.as_bytes(), query.as_bytes(), b" HTTP/1.1\r\n"]
    {
        head.extend_from_slice(part);
    }
    Some(())
}

/// How long the body is, or that it comes in chunks. Every length that was announced is the same: it
/// was checked before.
fn frame(head: &mut Vec<u8>, noted: &Noted<'_>) {
    if noted.is_coded {
        return field(head, b"Transfer-Encoding", b"chunked");
    }
    if let Some(lengths) = noted.lengths {
        let length = lengths.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii();
        let zeros = length.iter().take_while(|digit| **digit == b'0').count().min(length.len().saturating_sub(1));
        field(head, b"Content-Length", &length[zeros..]);
    }
}

/// What the fields of a request say that decides what is written behind them: one look at each of
/// them, and none is looked up.
#[derive(Debug, Default)]
struct Noted<'a> {
    host: Option<&'a [u8]>,
    /// The first announced.
    lengths: Option<&'a [u8]>,
    is_coded: bool,
    asks_upgrade: bool,
    /// A trusted hop says how its client came, and for what.
    says_proto: bool,
    says_host: bool,
}

impl<'a> Noted<'a> {
    /// Notes a field, and tells whether it goes on as it is.
    fn passes(&mut self, name: &str, value: &'a [u8], hop: PreviousHop) -> bool {
        match name {
            // These are between the client and us.
            "connection" | "keep-alive" | "proxy-connection" | "trailer" | "te" | "http2-settings" => false,
            "upgrade" => {
                self.asks_upgrade = true;
                false
            }
            // However often they were said, and however they were spelled: once, and plainly.
            "content-length" => {
                self.lengths.get_or_insert(value);
                false
            }
            "transfer-encoding" => {
                self.is_coded = true;
                false
            }
            // Written anew: strangers have nothing to say of hops before them.
            "x-forwarded-for" => false,
            "x-forwarded-proto" => {
                self.says_proto = hop.is_trusted;
                hop.is_trusted
            }
            "x-forwarded-host" => {
                self.says_host = hop.is_trusted;
                hop.is_trusted
            }
            "forwarded" => hop.is_trusted,
            "host" => {
                self.host.get_or_insert(value);
                true
            }
            _ => !is_look_alike(name),
        }
    }
}

/// Whether a field would be one of those that only we write, or that frame the message, to a server
/// that takes `_` for `-`, as all do that have inherited from CGI (RFC 3875, section 4.1.18).
fn is_look_alike(name: &str) -> bool {
    let ours = [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_FORWARDED_HOST, &CONTENT_LENGTH, &TRANSFER_ENCODING];
    let is = |ours: &HeaderName| name.replace('_', "-") == ours.as_str();
    memchr::memchr(b'_', name.as_bytes()).is_some() && ours.into_iter().any(is)
}

/// Names the hop before us, behind those that it has named if it is trusted.
fn introduce(head: &mut Vec<u8>, request: &RequestHeader, hop: PreviousHop, noted: &Noted<'_>) {
    let before = request.headers.get_all(X_FORWARDED_FOR).iter().filter(|_| hop.is_trusted);
    head.extend_from_slice(b"X-Forwarded-For: ");
    for hops in before {
        head.extend_from_slice(hops.as_bytes());
        head.extend_from_slice(b", ");
    }
    head.extend_from_slice(forwarded::text(hop.address).as_bytes());
    head.extend_from_slice(b"\r\n");
    if !noted.says_proto {
        field(head, b"X-Forwarded-Proto", hop.scheme.as_bytes());
    }
    if !noted.says_host
        && let Some(host) = noted.host
    {
        field(head, b"X-Forwarded-Host", host);
    }
}

fn without_cookie(head: &mut Vec<u8>, spelling: &[u8], value: &[u8], cookie: &str) {
    match std::str::from_utf8(value) {
        Ok(text) => {
            if let Some(left) = sticky::without(text, cookie) {
                field(head, spelling, left.as_bytes());
            }
        }
        // Not text, so not only ours; and what is in it is not ours to lose.
        Err(_) => field(head, spelling, value),
    }
}

fn field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::ACCEPT;

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

    fn sent(request: &RequestHeader, hop: PreviousHop, changes: Changes<'_>) -> String {
        let head = head(request, hop, "10.0.0.1:3000", changes).expect("a valid request");
        String::from_utf8(head).expect("tests are text")
    }

    #[test]
    fn a_trace_goes_on_with_its_server() {
        #[track_caller]
        fn check(trace: Option<Onward>, expected: &[&str]) {
            let fields = [
                ("Host", "a"),
                ("Traceparent", "client's"),
                ("TraceParent", "another"),
                ("X-Other", "1"),
                ("tracestate", "a=1"),
                ("tracestate", "b=2"),
            ];
            let sent = sent(&request("/", &fields), STRANGER, Changes { trace, ..Changes::default() });
            let of_trace: Vec<_> = sent.lines().filter(|line| line.to_ascii_lowercase().starts_with("trace")).collect();
            assert_eq!(of_trace, expected, "{sent}");
            assert!(sent.contains("X-Other: 1\r\n") && sent.ends_with("\r\n\r\n"), "{sent}");
        }

        let ours = |keeps_state| Some(Onward { traceparent: [b'x'; 55], keeps_state });
        let traceparent = format!("traceparent: {}", "x".repeat(55));
        // What is not traced is passed on as it came.
        let as_it_came = ["Traceparent: client's", "TraceParent: another", "tracestate: a=1", "tracestate: b=2"];
        check(None, &as_it_came);
        check(ours(true), &["tracestate: a=1", "tracestate: b=2", &traceparent]);
        check(ours(false), &[&traceparent]);
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        #[track_caller]
        fn check(hop: PreviousHop, fields: &[(&str, &str)], expected: &[&str]) {
            let sent = sent(&request("/", fields), hop, Changes::default()).to_ascii_lowercase();
            let (start, fields_sent) = sent.split_once("\r\n").expect("there are lines");
            let mut lines: Vec<&str> = fields_sent.trim_end().lines().collect();
            let mut expected = expected.to_vec();
            lines.sort_unstable();
            expected.sort_unstable();
            assert_eq!((start, lines), ("get / http/1.1", expected), "{fields:?}");
            assert!(sent.ends_with("\r\n\r\n"), "{sent}");
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
    fn a_body_is_framed_once_and_plainly() {
        #[track_caller]
        fn check(fields: &[(&str, &str)], expected: &[&str]) {
            let sent = sent(&request("/", fields), STRANGER, Changes::default());
            let framing: Vec<&str> =
                sent.lines().filter(|line| !line.starts_with("X-F") && line.contains(':')).collect();
            assert_eq!(framing, expected, "{fields:?}");
        }

        let host = ("Host", "a");
        check(&[host, ("content-length", "5")], &["Host: a", "Content-Length: 5"]);
        check(&[host, ("Content-Length", "5"), ("Content-Length", "05")], &["Host: a", "Content-Length: 5"]);
        check(&[host, ("Content-Length", "05, 5")], &["Host: a", "Content-Length: 5"]);
        check(&[host, ("Content-Length", "000")], &["Host: a", "Content-Length: 0"]);
        check(&[host, ("Transfer-Encoding", "CHUNKED")], &["Host: a", "Transfer-Encoding: chunked"]);
        let both = [host, ("Content-Length", "5"), ("Transfer-Encoding", "chunked")];
        check(&both, &["Host: a", "Transfer-Encoding: chunked"]);
    }

    #[test]
    fn look_alikes_of_our_fields_go_no_further() {
        let look_alikes = [
            ("Host", "a"),
            ("X_Forwarded_For", "1"),
            ("x-forwarded_proto", "2"),
            ("Content_Length", "3"),
            ("Transfer_Encoding", "4"),
            ("X_Forwarded_Forth", "5"),
            ("My_Field", "6"),
        ];
        let sent = sent(&request("/", &look_alikes), TRUSTED, Changes::default());
        let with_underscore: Vec<&str> = sent.lines().filter(|line| line.contains('_')).collect();
        assert_eq!(with_underscore, ["X_Forwarded_Forth: 5", "My_Field: 6"]);
    }

    #[test]
    fn an_absolute_target_becomes_an_origin_target() {
        #[track_caller]
        fn check(target: &str, expected: &str) {
            let sent = sent(&request(target, &[("Host", "a")]), STRANGER, Changes::default());
            assert_eq!(sent.lines().next(), Some(format!("GET {expected} HTTP/1.1").as_str()));
        }

        check("http://a/b?c=d", "/b?c=d");
        check("/b?c=d", "/b?c=d");
        check("/", "/");
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
                let sse = Sse { accept_encoding: choice, ..Sse::default() };
                assert_eq!(wants_plain_events(&head, &sse), is_removed, "{accept:?}, {choice:?}");
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
    fn what_is_between_the_client_and_us_is_taken_off() {
        #[track_caller]
        fn check(changes: Changes<'_>, expected: &[&str]) {
            let fields = [
                ("host", "a"),
                ("Accept-Encoding", "gzip"),
                ("COOKIE", "a=b; steadfast=x; c=d"),
                ("cookie", "steadfast=x"),
            ];
            let sent = sent(&request("/p?sid=tagged", &fields), STRANGER, changes);
            let lines: Vec<&str> = sent.lines().filter(|line| !line.starts_with("X-Forwarded-")).collect();
            assert_eq!(lines, [expected, &[""]].concat(), "{changes:?}");
        }

        let (start, cookies) = ("GET /p?sid=tagged HTTP/1.1", ["COOKIE: a=b; steadfast=x; c=d", "cookie: steadfast=x"]);
        check(Changes::default(), &[start, "host: a", "Accept-Encoding: gzip", cookies[0], cookies[1]]);
        let query = Changes { query: Some("sid=own"), ..Changes::default() };
        check(query, &["GET /p?sid=own HTTP/1.1", "host: a", "Accept-Encoding: gzip", cookies[0], cookies[1]]);
        let coding = Changes { drops_accept_encoding: true, ..Changes::default() };
        check(coding, &[start, "host: a", cookies[0], cookies[1]]);
        let cookie = Changes { drops_cookie: Some("steadfast"), ..Changes::default() };
        check(cookie, &[start, "host: a", "Accept-Encoding: gzip", "COOKIE: a=b; c=d"]);
    }

    #[test]
    fn a_target_that_breaks_the_line_is_not_written() {
        for query in ["a b", "a\r\nb", "a\tb", "a\x7Fb", "a\0b"] {
            let changes = Changes { query: Some(query), ..Changes::default() };
            assert_eq!(head(&request("/", &[("Host", "a")]), STRANGER, "s", changes), None, "{query:?}");
        }
    }
}

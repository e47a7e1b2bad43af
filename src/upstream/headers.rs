//! What fields say, and what a client gets to see of a response: hop-by-hop fields end here
//! (RFC 9110, section 7.6.1), and upgrades are the one thing that is passed on, and only then.
//! What a server gets to see of a request is [`super::request`].

use http::header::{
    ACCEPT, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora::http::ResponseHeader;

use crate::affinity::forwarded::{FORWARDED, X_FORWARDED_FOR};

pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(super) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

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

/// Whether a request takes a stream of events and nothing else.
pub fn accepts_only_event_stream(request: &HeaderMap) -> bool {
    let mut ranges = request.get_all(ACCEPT).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let first = ranges.next().is_some_and(|range| is_event_stream_type(range) && !is_refused(range));
    first && ranges.next().is_none()
}

/// Whether a request says by name that it takes a stream of events, as every EventSource does.
pub(super) fn accepts_event_stream(request: &HeaderMap) -> bool {
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

/// Whether the sender of `response` leaves its connection open behind it (RFC 9112, section 9.3).
pub fn stays_open(response: &ResponseHeader) -> bool {
    match response.version {
        Version::HTTP_11 => !names(&response.headers, "close"),
        Version::HTTP_10 => names(&response.headers, KEEP_ALIVE.as_str()) && !names(&response.headers, "close"),
        _ => false,
    }
}

/// Whether `Connection` names `token`.
pub fn names(headers: &HeaderMap, token: &str) -> bool {
    headers.get_all(CONNECTION).iter().any(|field| contains_token(field.as_bytes(), token.as_bytes()))
}

fn contains_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
}

/// Drops the hop-by-hop fields but `Transfer-Encoding`, which says how the body is framed and is
/// seen to by whoever writes it.
fn drop_hop_by_hop(head: &mut ResponseHeader) {
    let named: Vec<HeaderName> = named(&head.headers).collect();
    for name in named.iter().chain(&[CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TRAILER, UPGRADE]) {
        head.remove_header(name);
    }
}

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

/// The fields that `Connection` names and that may go.
pub(super) fn named(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let is_usual = |field: &&HeaderValue| {
        let field = field.as_bytes();
        field.eq_ignore_ascii_case(b"keep-alive") || field.eq_ignore_ascii_case(b"close")
    };
    let fields = headers.get_all(CONNECTION).iter().filter(move |field| !is_usual(field));
    let names = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    names.filter(|name| !NEVER_DROPPED.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn whoever_takes_only_event_streams_names_nothing_else() {
        #[track_caller]
        fn check(accept: &[&str], expected: bool) {
            let fields = accept.iter().map(|field| (ACCEPT, field.parse().expect("a valid field"))).collect();
            assert_eq!(accepts_only_event_stream(&fields), expected, "{accept:?}");
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

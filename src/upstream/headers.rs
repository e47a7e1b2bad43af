//! What fields say. What a server gets to see of a request is [`super::request`], and what a client
//! gets to see of its response is [`super::response`].

use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Version};

use crate::affinity::forwarded::{FORWARDED, X_FORWARDED_FOR};

pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

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

pub(super) fn is_event_stream_type(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether what a client accepts, its field `Accept`, is a stream of events.
pub fn accepts_events(accept: &HeaderValue) -> bool {
    accept.as_bytes().split(|byte| *byte == b',').any(is_event_stream_type)
}

/// Whether `Connection` names `token`.
pub fn names(headers: &HeaderMap, token: &str) -> bool {
    headers.get_all(CONNECTION).iter().any(|field| contains_token(field.as_bytes(), token.as_bytes()))
}

pub(super) fn contains_token(list: &[u8], token: &[u8]) -> bool {
    list.eq_ignore_ascii_case(token)
        || list.split(|byte| *byte == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(token))
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

/// Whether `Connection` may name the field `name` away.
pub(super) fn may_be_dropped(name: &[u8]) -> bool {
    !NEVER_DROPPED.iter().any(|kept| kept.as_str().as_bytes().eq_ignore_ascii_case(name))
}

/// Whether the field `Connection` names nothing that would not go anyway.
pub(super) fn is_usual(connection: &[u8]) -> bool {
    let usual: [&[u8]; 3] = [b"keep-alive", b"close", b"upgrade"];
    usual.into_iter().any(|usual| connection.eq_ignore_ascii_case(usual))
}

/// The fields that `Connection` names and that may go.
pub(super) fn named(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let fields = headers.get_all(CONNECTION).iter().filter(|field| !is_usual(field.as_bytes()));
    let names = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b','));
    let names = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    names.filter(|name| !NEVER_DROPPED.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

//! The heads of requests as servers get them, of HTTP/1 and of HTTP/2: whatever the client's say, one
//! head comes out, with the fields that stand for it and not one more.

#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use pingora::http::RequestHeader;
use steadfast::http2::request::translate;
use steadfast::upstream::request::{Changes, PreviousHop, head};

const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::OPTIONS, Method::CONNECT];

/// That `bytes` are one head and nothing behind it; how many fields it has.
fn fields_of(bytes: &[u8]) -> usize {
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut request = httparse::Request::new(&mut fields);
    let parsed = request.parse(bytes);
    assert_eq!(parsed, Ok(httparse::Status::Complete(bytes.len())), "{}", String::from_utf8_lossy(bytes));
    assert_eq!(request.version, Some(1));
    request.headers.len()
}

fuzz_target!(|input: (u8, &[u8], Vec<(&[u8], &[u8])>, Option<&str>, bool)| {
    let (method, target, fields, query, flag) = input;
    let method = &METHODS[usize::from(method) % METHODS.len()];
    let mut headers = HeaderMap::new();
    for (name, value) in fields.into_iter().take(200) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }

    // What else a target may be is refused before a request goes anywhere, or is not for this parser.
    let is_path = target.first() == Some(&b'/') && target.is_ascii() && query.is_none_or(str::is_ascii);
    if is_path && let Ok(mut request) = RequestHeader::build(method.clone(), target, None) {
        for (name, value) in &headers {
            let _ = request.append_header(name, value);
        }
        let hop = PreviousHop { address: IpAddr::V4(Ipv4Addr::LOCALHOST), is_trusted: flag, scheme: "http" };
        let changes = Changes { query, drops_cookie: Some("a"), drops_accept_encoding: !flag, trace: None };
        if let Some(head) = head(&request, hop, "s:1", changes) {
            // Beside the client's: Connection, Upgrade, Host, and three that name it.
            assert!(fields_of(&head) <= headers.len() + 6);
        }
    }

    let uri = http::Uri::try_from(target);
    if let Ok(uri) = uri {
        let mut request = http::Request::new(());
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method.clone(), uri, headers);
        let count = request.headers().len();
        let (parts, ()) = request.into_parts();
        for protocol in [None, Some("websocket")] {
            if let Ok(request) = translate(&parts, protocol, flag, "dGhlIHNhbXBsZSBub25jZQ==") {
                // Host, the framing, and what makes a handshake.
                assert!(fields_of(&request.head) <= count + 6);
            }
        }
    }
});

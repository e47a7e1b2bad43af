use super::*;

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

/// A request as the framing layer gives it: pseudo-fields taken apart, the rest in a map.
struct Sent {
    pseudo: Vec<(&'static str, String)>,
    fields: Vec<(&'static str, Vec<u8>)>,
}

/// A request from `name: value` lines, pseudo-fields first.
fn sent(lines: &[&'static str]) -> Sent {
    let mut sent = Sent { pseudo: Vec::new(), fields: Vec::new() };
    for line in lines {
        match line.strip_prefix(':') {
            Some(pseudo) => {
                let (name, value) = pseudo.split_once(": ").expect("a name and a value");
                sent.pseudo.push((name, value.to_owned()));
            }
            None => {
                let (name, value) = line.split_once(": ").expect("a name and a value");
                sent.fields.push((name, value.as_bytes().to_vec()));
            }
        }
    }
    sent
}

impl Sent {
    fn pseudo(&self, name: &str) -> Option<&str> {
        self.pseudo.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    fn parts(&self) -> Parts {
        let mut uri = http::uri::Parts::default();
        uri.authority = self.pseudo("authority").map(|it| it.parse().expect("an authority"));
        uri.path_and_query = self.pseudo("path").map(|it| it.parse().expect("a path"));
        if uri.authority.is_some() && uri.path_and_query.is_some() {
            uri.scheme = Some(http::uri::Scheme::HTTP);
        }
        let method = self.pseudo("method").expect("a method");
        let request = http::Request::builder().method(method).uri(http::Uri::from_parts(uri).expect("a target"));
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        for (name, value) in &self.fields {
            let value = HeaderValue::from_bytes(value).expect("a value");
            parts.headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value);
        }
        parts
    }

    fn translated(&self, has_body: bool) -> Result<Request, Malformed> {
        translate(&self.parts(), self.pseudo("protocol"), has_body, KEY)
    }
}

#[track_caller]
fn check(lines: &[&'static str], has_body: bool, expected: &[&str], body: Body) {
    let request = sent(lines).translated(has_body).expect("a request");
    let head = String::from_utf8(request.head).expect("tests are text");
    assert_eq!(head, expected.join("\r\n") + "\r\n\r\n");
    assert_eq!(request.body, body);
}

#[test]
fn a_field_list_becomes_a_head() {
    let get = [":method: GET", ":scheme: http", ":authority: example.com", ":path: /a?b=c"];
    let text = ["GET /a?b=c HTTP/1.1", "host: example.com", "connection: close"];
    check(&get, false, &text, Body::None);
    check(&[&get[..], &["host: EXAMPLE.com"]].concat(), false, &text, Body::None);
    check(&[&get[..], &["te: trailers"]].concat(), false, &text, Body::None);
    check(
        &[&get[..], &["accept: */*", "x-empty: ", "accept: text/html"]].concat(),
        false,
        &[text[0], text[1], "accept: */*", "accept: text/html", "x-empty: ", text[2]],
        Body::None,
    );
    check(
        &[":method: GET", ":scheme: http", ":path: /", "host: example.com:8080"],
        false,
        &["GET / HTTP/1.1", "host: example.com:8080", "connection: close"],
        Body::None,
    );
    check(&[":method: GET", ":scheme: http", ":path: /"], false, &["GET / HTTP/1.1", "connection: close"], Body::None);
    check(
        &[":method: OPTIONS", ":scheme: http", ":authority: [::1]:80", ":path: *"],
        false,
        &["OPTIONS * HTTP/1.1", "host: [::1]:80", "connection: close"],
        Body::None,
    );
    check(
        &[":method: CONNECT", ":authority: example.com:443"],
        true,
        &[
            "CONNECT example.com:443 HTTP/1.1",
            "host: example.com:443",
            "connection: close",
            "transfer-encoding: chunked",
        ],
        Body::Chunked,
    );
}

#[test]
fn crumbs_of_cookies_are_joined() {
    check(
        &[
            ":method: GET",
            ":scheme: http",
            ":authority: a",
            ":path: /",
            "cookie: a=1",
            "user-agent: x",
            "cookie: b=2; c=3",
            "cookie: d",
        ],
        false,
        &["GET / HTTP/1.1", "host: a", "user-agent: x", "cookie: a=1; b=2; c=3; d", "connection: close"],
        Body::None,
    );
}

#[test]
fn a_body_is_framed() {
    let post = [":method: POST", ":scheme: http", ":authority: a", ":path: /"];
    let text = ["POST / HTTP/1.1", "host: a", "connection: close"];
    let with_length = |length| [&post[..], &[length]].concat();
    check(&post, true, &[text[0], text[1], text[2], "transfer-encoding: chunked"], Body::Chunked);
    check(&post, false, &text, Body::None);
    check(&with_length("content-length: 5"), true, &[text[0], text[1], text[2], "content-length: 5"], Body::Length);
    check(&with_length("content-length: 0"), true, &[text[0], text[1], text[2], "content-length: 0"], Body::Length);
    check(&with_length("content-length: 0"), false, &[text[0], text[1], text[2], "content-length: 0"], Body::Length);
}

#[test]
fn a_websocket_becomes_an_upgrade() {
    let connect =
        [":method: CONNECT", ":protocol: websocket", ":scheme: https", ":authority: example.com", ":path: /chat?x=y"];
    let before = ["GET /chat?x=y HTTP/1.1", "host: example.com"];
    let after = ["connection: Upgrade", "upgrade: websocket", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA=="];
    let check = |fields: &[&'static str], expected: &[&str]| {
        let lines = [&connect[..], fields].concat();
        for has_body in [true, false] {
            check(&lines, has_body, &[&before[..], expected, &after].concat(), Body::Raw);
        }
    };
    check(&[], &[]);
    check(
        &[
            "sec-websocket-version: 13",
            "origin: http://a",
            "sec-websocket-protocol: chat",
            "sec-websocket-extensions: x",
        ],
        &[
            "sec-websocket-version: 13",
            "origin: http://a",
            "sec-websocket-protocol: chat",
            "sec-websocket-extensions: x",
        ],
    );
    // A key of the client's is not the one that the answer is checked against.
    check(&["sec-websocket-key: BBBBBBBBBBBBBBBBBBBBBB=="], &[]);
    check(&["cookie: a", "cookie: b"], &["cookie: a; b"]);
    // Behind the head is another protocol, which has no length.
    check(&["content-length: 0"], &[]);
}

#[test]
fn another_protocol_is_a_connect() {
    check(
        &[":method: CONNECT", ":protocol: connect-udp", ":scheme: https", ":authority: a", ":path: /"],
        true,
        &["CONNECT a HTTP/1.1", "host: a", "connection: close", "transfer-encoding: chunked"],
        Body::Chunked,
    );
}

#[test]
fn what_breaks_a_rule_is_no_request() {
    #[track_caller]
    fn check(lines: &[&'static str], has_body: bool) {
        assert_eq!(sent(lines).translated(has_body), Err(Malformed), "{lines:?}");
    }

    let get = [":method: GET", ":scheme: http", ":authority: example.com", ":path: /"];
    let with = |fields: &[&'static str]| [&get[..], fields].concat();
    check(&with(&["host: other.com"]), false);
    check(&with(&["host: example.com", "host: example.com"]), false);
    check(&with(&["host: "]), false);
    check(&with(&["connection: close"]), false);
    check(&with(&["connection: x-forwarded-for"]), false);
    check(&with(&["keep-alive: timeout=5"]), false);
    check(&with(&["proxy-connection: keep-alive"]), false);
    check(&with(&["transfer-encoding: chunked"]), true);
    check(&with(&["upgrade: websocket"]), false);
    check(&with(&["te: gzip"]), false);
    check(&with(&["te: trailers, gzip"]), false);
    check(&with(&["x: \tvalue"]), false);
    check(&with(&["x: value "]), false);
    check(&with(&["cookie:  a"]), false);
    check(&with(&["content-length: 5"]), false);
    check(&with(&["content-length: 5", "content-length: 5"]), true);
    check(&with(&["content-length: 5", "content-length: 6"]), true);
    for length in ["content-length: ", "content-length: +5", "content-length: 5, 5", "content-length: 0x5"] {
        check(&with(&[length]), true);
    }
    check(&with(&["content-length: 1000000000000000000"]), true);
    check(&[":method: GET", ":scheme: http", ":authority: user@example.com", ":path: /"], false);
    check(&[":method: GET", ":scheme: http", ":path: /", "host: user@example.com"], false);
    check(&[":method: GET", ":scheme: http", ":authority: a"], false);
    check(&[":method: GET", ":scheme: http", ":authority: a", ":path: *"], false);
    check(&[":method: GET", ":scheme: http", ":authority: a", ":path: ?a"], false);
    check(&[":method: CONNECT", ":scheme: http", ":path: /"], true);
    check(&[":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: *"], true);
    check(&[":method: GET", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: /"], true);
}

mod any {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = HeaderName> {
        prop_oneof![
            prop::sample::select(vec![
                HOST,
                COOKIE,
                CONTENT_LENGTH,
                TE,
                CONNECTION,
                TRANSFER_ENCODING,
                UPGRADE,
                SEC_WEBSOCKET_KEY,
            ]),
            "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}"
                .prop_map(|name| HeaderName::from_bytes(name.as_bytes()).expect("a token")),
        ]
    }

    fn value() -> impl Strategy<Value = HeaderValue> {
        let bytes = prop::collection::vec(any::<u8>(), 0..12);
        prop_oneof![
            bytes.prop_filter_map("no value", |bytes| HeaderValue::from_bytes(&bytes).ok()),
            prop::sample::select(vec!["trailers", "5", "0", "chunked", "a", "a; b"]).prop_map(HeaderValue::from_static),
        ]
    }

    proptest! {
        /// Whatever the fields say, a parser sees the one request that was meant, with nothing behind
        /// it.
        #[test]
        fn fields_stay_in_their_lines(
            method in "[A-Z]{1,8}|CONNECT",
            path in "/[ -~]{0,16}",
            fields in prop::collection::vec((name(), value()), 0..8),
            (is_websocket, has_body) in any::<(bool, bool)>(),
        ) {
            let request = http::Request::builder().method(method.as_str()).uri(format!("http://a{path}"));
            let Ok(request) = request.body(()) else { return Ok(()) };
            let (mut parts, ()) = request.into_parts();
            for (name, value) in fields {
                parts.headers.append(name, value);
            }
            let protocol = is_websocket.then_some("websocket");
            let Ok(translated) = translate(&parts, protocol, has_body, KEY) else { return Ok(()) };
            let mut room = [httparse::EMPTY_HEADER; 32];
            let mut parsed = httparse::Request::new(&mut room);
            let length = parsed.parse(&translated.head).expect("a head");
            prop_assert_eq!(length, httparse::Status::Complete(translated.head.len()));
            let framing: Vec<_> = parsed.headers.iter().filter(|field| {
                ["content-length", "transfer-encoding"].contains(&field.name)
            }).collect();
            prop_assert_eq!(framing.len(), usize::from(matches!(translated.body, Body::Length | Body::Chunked)));
            prop_assert!(parsed.headers.iter().filter(|field| field.name == "host").count() == 1);
            for field in parsed.headers.iter() {
                let ours = [("connection", "close"), ("connection", "Upgrade"), ("upgrade", "websocket"),
                    ("sec-websocket-key", KEY), ("transfer-encoding", "chunked"), ("host", "a")];
                let is_ours = ours.iter().any(|(name, value)| field.name == *name && field.value == value.as_bytes());
                let is_sent = parts.headers.get_all(field.name).iter().any(|value| value.as_bytes() == field.value);
                prop_assert!(is_ours || is_sent || field.name == "cookie", "{:?}", field);
            }
        }
    }
}

//! What the two sides get to see of each other's heads.

use crate::harness::upstream::ok;
use crate::harness::{Proxy, Upstream, millis, websocket_request};

/// The head a server gets for `request`, as it was on the wire.
async fn seen_by_server(trusted: &str, request: &str) -> String {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).trusting(trusted).run().await;
    let mut client = proxy.send(request).await;
    let mut upstream = server.accept().await;
    let head = String::from_utf8(upstream.until(b"\r\n\r\n").await).expect("heads are text");
    upstream.send(ok("fine")).await;
    assert_eq!(client.response().await.text(), "fine");
    head
}

/// The values of a field in a head; several lines stay several.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let named = |line: &'a str| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    head.lines().filter_map(named).collect()
}

#[tokio::test]
async fn a_server_sees_http_1_1_whatever_the_client_spoke() {
    for request in [
        "GET /a?b=c HTTP/1.1\r\nHost: chat.example.com\r\n\r\n",
        "GET /a?b=c HTTP/1.0\r\nHost: chat.example.com\r\n\r\n",
        "GET /a?b=c HTTP/1.0\r\nHost: chat.example.com\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let head = seen_by_server("[]", request).await;
        assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "for {request:?} the server got {head:?}");
        assert_eq!(values(&head, "host"), ["chat.example.com"], "{head}");
    }
}

#[tokio::test]
async fn a_client_that_speaks_http_1_0_gets_a_close_and_no_chunks() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    upstream.send("6\r\nhello \r\n5\r\nthere\r\n0\r\n\r\n").await;

    let head = client.head().await;
    assert_eq!(head.field("transfer-encoding"), None, "{head:?}");
    assert_eq!(client.rest().await, b"hello there");
}

#[tokio::test]
async fn hop_by_hop_fields_end_at_the_proxy() {
    let head = seen_by_server(
        "[]",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Private\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nTE: trailers\r\nX-Private: secret\r\nX-Public: kept\r\n\r\n",
    )
    .await;
    for gone in ["x-private", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(values(&head, gone), [""; 0], "{gone} in {head}");
    }
    assert_eq!(values(&head, "x-public"), ["kept"]);
    let options = values(&head, "connection").join(",").to_ascii_lowercase();
    assert!(!options.contains("x-private") && !options.contains("upgrade"), "{head}");
}

#[tokio::test]
async fn hop_by_hop_fields_of_a_server_end_at_the_proxy() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream
        .send(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Private\r\nKeep-Alive: timeout=5\r\n\
             X-Private: secret\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
    let answer = client.response().await;
    assert_eq!(answer.head.field("x-private"), None, "{:?}", answer.head);
    assert_eq!(answer.head.field("keep-alive"), None, "{:?}", answer.head);
    assert_eq!(answer.head.field("set-cookie").as_deref(), Some("a=1, b=2"));
}

#[tokio::test]
async fn a_client_whose_body_ends_with_the_connection_is_told_that_it_closes() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let answer = String::from_utf8(client.rest().await).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!((values(head, "connection"), body), (vec!["close"], "hello"), "{head}");
}

#[tokio::test]
async fn an_upgrade_is_passed_on_with_its_key() {
    let head = seen_by_server("[]", &websocket_request("/ws", "")).await;
    assert_eq!(values(&head, "upgrade"), ["websocket"]);
    assert!(values(&head, "connection").join(",").eq_ignore_ascii_case("upgrade"), "{head}");
    assert_eq!(values(&head, "sec-websocket-key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(values(&head, "sec-websocket-version"), ["13"]);
}

#[tokio::test]
async fn an_upgrade_field_without_its_connection_option_is_none() {
    let head = seen_by_server("[]", "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n").await;
    assert_eq!(values(&head, "upgrade"), [""; 0], "{head}");
}

#[tokio::test]
async fn a_stranger_cannot_say_who_the_client_is() {
    let head = seen_by_server(
        "[10.0.0.0/8]",
        "GET / HTTP/1.1\r\nHost: real.example.com\r\nX-Forwarded-For: 1.2.3.4\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: forged.example.com\r\n\r\n",
    )
    .await;
    assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["real.example.com"]);
}

#[tokio::test]
async fn a_trusted_hop_says_who_the_client_is() {
    let head = seen_by_server(
        "[127.0.0.0/8]",
        "GET / HTTP/1.1\r\nHost: inner.example.com\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 10.0.0.7\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Host: outer.example.com\r\n\r\n",
    )
    .await;
    assert_eq!(values(&head, "x-forwarded-for").join(", "), "1.2.3.4, 10.0.0.7, 127.0.0.1");
    assert_eq!(values(&head, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["outer.example.com"]);
}

#[tokio::test]
async fn end_to_end_fields_keep_their_values_and_order() {
    let head = seen_by_server(
        "[]",
        "GET / HTTP/1.1\r\nHost: a\r\nCookie: io=abc; b=\"c d\"\r\nAccept: a/b\r\nAccept: c/d\r\n\
         X-Empty:\r\nX-Latin: caf\u{e9}\r\nAuthorization: Basic Zm9v\r\n\r\n",
    )
    .await;
    assert_eq!(values(&head, "cookie"), ["io=abc; b=\"c d\""]);
    assert_eq!(values(&head, "accept"), ["a/b", "c/d"]);
    assert_eq!(values(&head, "x-empty"), [""]);
    assert_eq!(values(&head, "x-latin"), ["caf\u{e9}"]);
    assert_eq!(values(&head, "authorization"), ["Basic Zm9v"]);
}

#[tokio::test]
async fn a_target_is_passed_on_byte_for_byte() {
    for target in ["/a%2Fb/../c//d?x=%20+&x=;#", "/socket.io/?EIO=4&transport=polling&t=abc", "/%e2%82%ac?"] {
        let target = target.trim_end_matches('#');
        let head = seen_by_server("[]", &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{head}");
    }
}

#[tokio::test]
async fn head_gets_the_length_and_no_body() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.connect().await;
    let mut upstream = None;
    for framing in ["Content-Length: 12345", "Transfer-Encoding: chunked"] {
        client.send("HEAD /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
        if upstream.is_none() {
            upstream = Some(server.accept().await);
        }
        let upstream = upstream.as_mut().expect("just accepted");
        assert!(upstream.request().await.head.start.starts_with("HEAD /big "));
        upstream.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
        let head = client.head().await;
        assert_eq!(head.status(), 200);
        let (name, value) = framing.split_once(": ").expect("a field");
        if name == "Content-Length" {
            assert_eq!(head.field(name).as_deref(), Some(value));
        }
        client.stays_silent(millis(100)).await;
    }
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET /0 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    for (turn, start) in ["204 No Content", "304 Not Modified", "200 OK"].into_iter().enumerate() {
        let request = upstream.request().await;
        assert!(request.head.start.starts_with(&format!("GET /{turn} ")));
        let length = if start.starts_with('2') && turn == 2 { "Content-Length: 0\r\n" } else { "" };
        upstream.send(format!("HTTP/1.1 {start}\r\n{length}ETag: \"x\"\r\n\r\n")).await;
        let head = client.head().await;
        assert_eq!(head.start, format!("HTTP/1.1 {start}"));
        client.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", turn + 1)).await;
    }
}

#[tokio::test]
async fn interim_answers_reach_the_client_before_the_final_one() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n").await;
    let hints = client.head().await;
    assert_eq!(hints.status(), 103);
    assert_eq!(hints.field("link").as_deref(), Some("</style.css>; rel=preload"));
    upstream.send(ok("final")).await;
    assert_eq!(client.response().await.text(), "final");
}

#[tokio::test]
async fn interim_answers_are_kept_from_a_client_that_speaks_http_1_0() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    upstream.send(ok("final")).await;
    assert_eq!(client.head().await.status(), 200);
}

#[tokio::test]
async fn routes_go_by_host_and_path() {
    let (a, b, c) = (Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await);
    let proxy = Proxy::start()
        .upstream("first", &[&a])
        .upstream("second", &[&b])
        .upstream("third", &[&c])
        .route("{ host: a.example.com, path: /socket.io/, upstream: first }")
        .route("{ host: \"*.example.com\", upstream: second }")
        .route("{ path: /public/, upstream: third }")
        .run()
        .await;
    for (host, path, expected) in [
        ("a.example.com", "/socket.io/?EIO=4", "a"),
        ("A.Example.Com:8080", "/socket.io/", "a"),
        ("a.example.com", "/socket.iox", "b"),
        ("x.example.com", "/", "b"),
        ("example.org", "/public/x", "c"),
    ] {
        let answer = proxy.exchange(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((answer.status(), answer.text()), (200, expected.to_owned()), "{host} {path}");
    }
    let nowhere = proxy.exchange("GET /private HTTP/1.1\r\nHost: example.org\r\n\r\n").await;
    assert_eq!(nowhere.status(), 404);
    assert!((1..500).contains(&nowhere.body.len()), "a short body: {:?}", nowhere.text());
}

//! HTTP/2 from clients: requests, bodies, streams, WebSockets, many of them on one connection.

use h2::Reason;
use sha1::{Digest, Sha1};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::harness::http2::{Answered, request};
use crate::harness::proxy::Setup;
use crate::harness::tls::listening;
use crate::harness::upstream::ok;
use crate::harness::websocket::{frame, masked_frame, next_frame};
use crate::harness::{Authority, Http2, Proxy, Random, Upstream, Wire, keyed, millis, seconds, soon};

fn speaking_http2(server: &Upstream) -> Setup {
    Proxy::start().listening("h2c: on").upstream("chat", &[server])
}

async fn settles_empty(proxy: &Proxy) {
    proxy.settles("steadfast_http2_streams", &[], 0.0).await;
    proxy.settles("steadfast_http2_connections", &[], 0.0).await;
    proxy.settles_empty().await;
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// One chunk of an event stream.
fn event(text: &str) -> String {
    let data = format!("data: {text}\n\n");
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// An event stream through the proxy, and its server.
async fn events(client: &mut Http2, server: &Upstream, path: &str) -> (Answered, Wire) {
    let asked = client.get(path).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(EVENTS).await;
    let answered = asked.answer().await;
    assert_eq!((answered.status, answered.field("content-type")), (200, Some("text/event-stream")));
    (answered, upstream)
}

/// The head by which a server accepts the handshake that it got.
fn switching(key: &str) -> String {
    let digest = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    let proof = BASE64_STANDARD.encode(digest);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {proof}\r\n\r\n"
    )
}

/// A WebSocket through the proxy, and its server.
async fn websocket(client: &mut Http2, server: &Upstream) -> (Answered, Wire) {
    let asked = client.websocket("/ws", &[]).await;
    let mut upstream = server.accept().await;
    let request = upstream.request().await;
    upstream.send(switching(&request.head.field("sec-websocket-key").expect("a key"))).await;
    let answered = asked.answer().await;
    assert_eq!(answered.status, 200);
    (answered, upstream)
}

#[tokio::test]
async fn a_request_is_one_of_http_1_1_and_its_response_one_of_http_2() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).threads(1).run().await;
    let mut client = Http2::connect(&proxy).await;
    let asked = client.ask(request("GET", "/a?b=c", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]), true).await;
    let mut upstream = server.accept().await;
    let got = upstream.request().await;
    assert_eq!(got.head.start, "GET /a?b=c HTTP/1.1");
    for (name, value) in [
        ("host", Some("chat.example.com")),
        ("cookie", Some("a=1; b=2")),
        ("x", Some("y")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-for", Some("127.0.0.1")),
        ("connection", None),
        ("transfer-encoding", None),
        ("content-length", None),
    ] {
        assert_eq!(got.head.field(name).as_deref(), value, "{name}");
    }
    upstream.send("HTTP/1.1 201 Created\r\nConnection: keep-alive\r\nX-Z: 1\r\nContent-Length: 4\r\n\r\ngood").await;
    let mut answered = asked.answer().await;
    assert_eq!((answered.status, answered.field("x-z"), answered.field("connection")), (201, Some("1"), None));
    assert_eq!(answered.text().await, "good");
    let line = proxy.logged_path("/a").await;
    assert_eq!((&line["protocol"], &line["end_reason"]), (&"HTTP/2.0".into(), &"complete".into()), "{line}");

    // The server's connection is used again by another stream, and the client's by HTTP/1.1.
    let asked = client.get("/again").await;
    assert_eq!(upstream.request().await.head.start, "GET /again HTTP/1.1");
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(asked.answer().await.status, 204);
    let mut old = proxy.connect().await;
    let (answer, ()) = tokio::join!(keyed(&mut old, "k"), async {
        upstream.request().await;
        upstream.send(ok("old")).await;
    });
    assert_eq!(answer.text(), "old");
    drop(old);
    client.vanish();
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn responses_in_every_framing_come_whole() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    for (method, answer, expected) in [
        ("GET", ok("hello"), (200, "hello")),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n".into(),
            (200, "hello"),
        ),
        ("GET", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello".into(), (200, "hello")),
        ("GET", "HTTP/1.0 200 OK\r\n\r\nhello".into(), (200, "hello")),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n".into(), (304, "")),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".into(), (200, "")),
        ("DELETE", "HTTP/1.1 204 No Content\r\n\r\n".into(), (204, "")),
        ("GET", format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", ok("late")), (200, "late")),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: y\r\n\r\n".into(),
            (200, "ok"),
        ),
    ] {
        let asked = client.ask(request(method, "/", &[("connection-id", "x")]), true).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(&answer).await;
        let closes = !answer.contains("Content-Length") && !answer.contains("chunked");
        if closes {
            upstream.finish().await;
        }
        let mut answered = asked.answer().await;
        assert_eq!((answered.status, answered.text().await.as_str()), expected, "{answer}");
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_reset() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    for begun in ["Content-Length: 9\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let asked = client.get("/broken").await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\n{begun}")).await;
        // What came before the break comes through.
        drop(upstream);
        let mut answered = asked.answer().await;
        assert_eq!(answered.exactly(5).await, b"hello");
        let error = answered.rest().await.expect_err("no end that looks like one");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    }
    assert_eq!(proxy.logged_path("/broken").await["end_reason"], "server_error");
    assert_eq!(client.get("/").await.answer_of(&server, "fine").await, "fine");
}

#[tokio::test]
async fn refusals_come_as_responses() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).route("{ path: /here, upstream: chat }").run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut answered = client.get("/elsewhere").await.answer().await;
    assert_eq!((answered.status, answered.field("cache-control")), (404, Some("no-store")));
    assert!(answered.text().await.contains("no route"));
    let asked = client.get("/here").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("nonsense\r\n\r\n").await;
    assert_eq!(asked.answer().await.status, 502);
    // Refused while the client is still sending.
    let mut posting = client.begin("POST", "/elsewhere", &[]).await;
    posting.send("some of it").await;
    assert_eq!(posting.answer().await.status, 404);
    let line = proxy.logged_path("/elsewhere").await;
    assert_eq!((&line["protocol"], &line["end_reason"]), (&"HTTP/2.0".into(), &"refused".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_megabytes_are_the_same_behind_it() {
    const LENGTH: usize = 5_000_000;
    let echo = |mut wire: Wire| async move {
        while let Some(request) = wire.next_request().await {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len())).await;
            wire.send(&request.body).await;
        }
    };
    let server = Upstream::serving(echo).await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    let length = LENGTH.to_string();
    for fields in [vec![], vec![("content-length", length.as_str())]] {
        let body = Random::seeded(7).bytes(LENGTH);
        let mut asked = client.begin("POST", "/echo", &fields).await;
        for piece in body.chunks(77_777) {
            asked.send(piece.to_vec()).await;
        }
        asked.finish();
        let mut answered = asked.answer().await;
        assert!(answered.rest().await.expect("no reset") == body, "with {fields:?}");
    }
    drop(client);
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn dozens_of_event_streams_live_on_one_connection() {
    const STREAMS: usize = 40;
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).sse("{ keepalive: 1s }").run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut streams = Vec::new();
    for at in 0..STREAMS {
        streams.push(events(&mut client, &server, &format!("/events/{at}")).await);
    }
    proxy.relays_once(STREAMS, "kind=sse").await;
    proxy.settles("steadfast_client_connections", &[], 1.0).await;
    for round in 0..3 {
        for (at, (_, upstream)) in streams.iter_mut().enumerate() {
            upstream.send(event(&format!("{at} in round {round}"))).await;
        }
        for (at, (answered, _)) in streams.iter_mut().enumerate() {
            let expected = format!("data: {at} in round {round}\n\n");
            let mut text = String::new();
            while !text.ends_with(&expected) {
                let data = answered.some().await.expect("no reset").expect("more");
                text.push_str(std::str::from_utf8(&data).expect("text"));
            }
            assert!(text.replace(":keepalive\n", "") == expected, "{text:?}");
        }
    }
    // Silence, and comments through it.
    for (answered, _) in &mut streams {
        assert_eq!(answered.exactly(11).await, b":keepalive\n");
    }
    // A server ends one, its client another; the rest go on.
    let (mut ended, mut upstream) = streams.pop().expect("there are many");
    upstream.send("0\r\n\r\n").await;
    ended.rest().await.expect("a clean end");
    let (left, mut upstream) = streams.pop().expect("there are many");
    left.reset(Reason::CANCEL);
    upstream.rest().await;
    let path = format!("/events/{}", STREAMS - 2);
    assert_eq!(proxy.logged_path(&path).await["end_reason"], "client_closed");
    let (answered, upstream) = &mut streams[0];
    upstream.send(event("still there")).await;
    while !answered.some().await.expect("no reset").expect("more").ends_with(b"data: still there\n\n") {}
    client.vanish();
    for (_, upstream) in &mut streams {
        upstream.rest().await;
    }
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_its_server_and_nobody_else() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).threads(1).run().await;
    let mut client = Http2::connect_narrow(&proxy, 32 * 1024).await;
    let stuck = client.get("/stuck").await;
    let mut slow = server.accept().await;
    slow.narrow();
    slow.request().await;
    slow.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").await;
    let stuck = stuck.answer().await;
    let before = proxy.memory();
    let (reading, mut writing) = slow.split();
    let sent = writing.send_until_stopped(&vec![b'x'; 50_000_000], seconds(2)).await;
    assert!(sent < 25_000_000, "{sent} bytes were taken of it");
    let held = proxy.memory().saturating_sub(before);
    assert!(held < 4_000_000, "{held} bytes are held for it");
    for round in 0..20 {
        assert_eq!(client.get("/quick").await.answer_of(&server, "quick").await, "quick", "round {round}");
    }
    drop((stuck, reading, writing, client));
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn a_server_that_does_not_read_holds_up_its_stream_and_nobody_else() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).threads(1).run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut stuck = client.begin("POST", "/stuck", &[]).await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    let sending = tokio::spawn(async move {
        // Goes on until the window is used up, and then for as long as the test does.
        for _ in 0..1000 {
            stuck.sending.reserve_capacity(100_000);
            let capacity = std::future::poll_fn(|cx| stuck.sending.poll_capacity(cx)).await;
            let Some(Ok(capacity)) = capacity else { return };
            stuck.sending.send_data(vec![b'x'; capacity].into(), false).expect("the stream is open");
        }
        panic!("all of it was taken");
    });
    tokio::time::sleep(millis(500)).await;
    for round in 0..20 {
        assert_eq!(client.get("/quick").await.answer_of(&server, "quick").await, "quick", "round {round}");
    }
    sending.abort();
}

#[tokio::test]
async fn a_parked_poll_ends_when_its_client_takes_it_back() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    for (path, wait) in [("/at-once", millis(0)), ("/parked", millis(1300))] {
        let asked = client.get(path).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        tokio::time::sleep(wait).await;
        asked.reset(Reason::CANCEL);
        upstream.ends().await;
        assert_eq!(proxy.logged_path(path).await["end_reason"], "client_closed", "{path}");
    }
    // One that gets its answer, while its connection is used by others.
    let asked = client.get("/answered").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    tokio::time::sleep(millis(1300)).await;
    assert_eq!(client.get("/quick").await.answer_of(&server, "quick").await, "quick");
    upstream.send(ok("late")).await;
    assert_eq!(asked.answer().await.text().await, "late");
    // The connection is lost.
    let _asked = client.get("/lost").await;
    upstream.request().await;
    client.vanish();
    upstream.ends().await;
    assert_eq!(proxy.logged_path("/lost").await["end_reason"], "client_closed");
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn a_request_that_is_taken_back_while_it_is_sent_is_gone_for_its_server() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut asked = client.begin("POST", "/half", &[]).await;
    asked.send("half").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    assert_eq!(upstream.chunk().await.as_deref(), Some(&b"half"[..]));
    asked.reset(Reason::CANCEL);
    upstream.ends().await;
    assert_eq!(proxy.logged_path("/half").await["end_reason"], "client_closed");
}

#[tokio::test]
async fn an_early_answer_does_not_wait_for_the_request() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut asked = client.begin("POST", "/early", &[]).await;
    asked.send("half").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    let long = "x".repeat(300_000);
    upstream.send(format!("HTTP/1.1 413 Content Too Large\r\nContent-Length: 300000\r\n\r\n{long}")).await;
    let mut answered = asked.answer().await;
    assert_eq!(answered.status, 413);
    assert!(answered.exactly(300_000).await == long.as_bytes());
    // No more is wanted of it, which is no failure (RFC 9113, section 8.1).
    match answered.rest().await {
        Ok(rest) => assert!(rest.is_empty()),
        Err(error) => assert_eq!(error.reason(), Some(Reason::NO_ERROR)),
    }
    assert_eq!(client.get("/quick").await.answer_of(&server, "quick").await, "quick");
}

#[tokio::test]
async fn an_event_stream_begins_while_its_request_is_sent() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut asked = client.begin("POST", "/events", &[]).await;
    asked.send("half").await;
    let mut upstream = server.accept().await;
    upstream.head().await;
    assert_eq!(upstream.chunk().await.as_deref(), Some(&b"half"[..]));
    upstream.send(format!("{EVENTS}{}", event("first"))).await;
    let mut answered = asked.answer().await;
    assert_eq!(answered.exactly(13).await, b"data: first\n\n");
    answered.send("rest").await;
    assert_eq!(upstream.chunk().await.as_deref(), Some(&b"rest"[..]));
    answered.sending.send_data(bytes::Bytes::new(), true).expect("the stream is open");
    assert_eq!(upstream.chunk().await, None);
    proxy.relays_once(1, "kind=sse").await;
    upstream.send(format!("{}0\r\n\r\n", event("second"))).await;
    assert_eq!(answered.text().await, "data: second\n\n");
}

#[tokio::test]
async fn a_websocket_is_an_upgrade_for_its_server() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    let asked = client.websocket("/ws?a=b", &[("sec-websocket-protocol", "chat"), ("origin", "http://a")]).await;
    let mut upstream = server.accept().await;
    let request = upstream.request().await;
    assert_eq!(request.head.start, "GET /ws?a=b HTTP/1.1");
    for (name, value) in [
        ("host", "chat.example.com"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "chat"),
        ("origin", "http://a"),
    ] {
        assert_eq!(request.head.field(name).as_deref(), Some(value), "{name}");
    }
    let key = request.head.field("sec-websocket-key").expect("a key");
    upstream.send(switching(&key).replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n")).await;
    upstream.send(frame("hello")).await;
    let mut answered = asked.answer().await;
    assert_eq!((answered.status, answered.field("sec-websocket-protocol")), (200, Some("chat")));
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert_eq!(answered.field(name), None, "{name}");
    }
    assert_eq!(answered.exactly(7).await, frame("hello"));
    answered.send(masked_frame("there")).await;
    assert_eq!(upstream.exactly(11).await, masked_frame("there"));
    proxy.relays_once(1, "kind=websocket").await;
    // The end of one direction, and then of the other.
    answered.sending.send_data(bytes::Bytes::new(), true).expect("the stream is open");
    upstream.ends().await;
    upstream.send(frame("last")).await;
    assert_eq!(answered.exactly(6).await, frame("last"));
    drop(upstream);
    assert!(answered.rest().await.expect("a clean end").is_empty());
    let line = proxy.logged_path("/ws").await;
    assert_eq!((&line["kind"], &line["status"]), (&"websocket".into(), &101.into()), "{line}");
    assert_eq!((&line["protocol"], &line["end_reason"]), (&"HTTP/2.0".into(), &"client_closed".into()), "{line}");
    client.vanish();
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn websockets_carry_megabytes_beside_each_other() {
    const LENGTH: usize = 2_000_000;
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(websocket(&mut client, &server).await);
    }
    let mut echoing = tokio::task::JoinSet::new();
    for (at, (mut answered, upstream)) in sockets.into_iter().enumerate() {
        let bytes = Random::seeded(at as u64).bytes(LENGTH);
        echoing.spawn(async move {
            // Bytes that are no frames are passed on as well.
            let (mut reading, mut writing) = upstream.split();
            let echo = tokio::spawn(async move {
                let mut left = LENGTH;
                while left > 0 {
                    let some = reading.some().await;
                    left -= some.len();
                    writing.send(some).await;
                }
                (reading, writing)
            });
            let mut got = Vec::new();
            for piece in bytes.chunks(50_001) {
                answered.send(piece.to_vec()).await;
                got.extend(answered.exactly(piece.len()).await);
            }
            assert!(got == bytes, "on WebSocket {at}");
            drop(soon("the echo to end", echo).await);
        });
    }
    while let Some(ended) = echoing.join_next().await {
        ended.expect("every WebSocket carries all");
    }
}

#[tokio::test]
async fn a_websocket_that_is_refused_or_unproven_is_none() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    for (answer, status, text) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_owned(), 403, "no"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npage\r\n0\r\n\r\n".to_owned(), 200, "page"),
        (switching("another key"), 502, ""),
        (switching("").replace("Sec-WebSocket-Accept", "X"), 502, ""),
        (switching("").replace("Upgrade: websocket", "Upgrade: other"), 502, ""),
    ] {
        let asked = client.websocket("/refused", &[]).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(&answer).await;
        let mut answered = asked.answer().await;
        assert_eq!(answered.status, status, "{answer}");
        let got = answered.text().await;
        assert!(text.is_empty() || got == text, "{answer}: {got}");
        drop(upstream);
    }
    let answered = client.websocket("/version", &[("sec-websocket-version", "8")]).await.answer().await;
    assert_eq!((answered.status, answered.field("sec-websocket-version")), (426, Some("13")));
}

#[tokio::test]
async fn what_is_sent_ahead_of_an_upgrade_is_its_protocol_or_nothing() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut asked = client.websocket("/ws", &[]).await;
    asked.send(masked_frame("ahead")).await;
    let mut upstream = server.accept().await;
    let request = upstream.request().await;
    upstream.stays_silent(millis(300)).await;
    upstream.send(switching(&request.head.field("sec-websocket-key").expect("a key"))).await;
    assert_eq!(upstream.exactly(11).await, masked_frame("ahead"));
    assert_eq!(asked.answer().await.status, 200);

    let mut asked = client.websocket("/refused", &[]).await;
    asked.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(asked.answer().await.status, 403);
    let asked = client.get("/next").await;
    assert_eq!(upstream.request().await.head.start, "GET /next HTTP/1.1");
    upstream.send(ok("next")).await;
    assert_eq!(asked.answer().await.text().await, "next");
    assert!(proxy.log().iter().all(|line| !line.contains("smuggled")));
}

#[tokio::test]
async fn a_websocket_that_is_reset_is_over_at_once() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = Http2::connect(&proxy).await;
    let (answered, mut upstream) = websocket(&mut client, &server).await;
    proxy.relays_once(1, "kind=websocket").await;
    answered.reset(Reason::CANCEL);
    upstream.rest().await;
    assert_eq!(proxy.logged_path("/ws").await["end_reason"], "client_error");
    drop(client);
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn websockets_are_kept_alive_and_closed_with_a_code() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).websocket("{ ping: 1s }").run().await;
    let mut client = Http2::connect(&proxy).await;
    let (mut answered, mut upstream) = websocket(&mut client, &server).await;
    let ping = answered.exactly(2).await;
    assert_eq!(ping[0], 0x89, "a Ping");
    let payload = answered.exactly(usize::from(ping[1])).await;
    answered.send(crate::harness::websocket::masked(0x8A, &payload, [0; 4])).await;
    let listing = proxy.relays_once(1, "kind=websocket").await;
    assert_eq!(proxy.end_relay(&listing["relays"][0]["id"]).await, 202);
    let (first, payload) = next_frame(&mut upstream).await;
    assert_eq!((first, &payload[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
    // Pings may have come before the Close.
    let mut rest = Vec::new();
    while !rest.windows(4).any(|window| window[0] == 0x88 && window[2..] == 1001_u16.to_be_bytes()) {
        rest.extend(answered.some().await.expect("no reset").expect("a Close"));
    }
    drop(upstream);
    answered.sending.send_data(bytes::Bytes::new(), true).expect("the stream is open");
    answered.rest().await.expect("a clean end");
    assert_eq!(proxy.logged_path("/ws").await["end_reason"], "operator");
}

#[tokio::test]
async fn the_process_waits_for_streams_when_it_stops() {
    let server = Upstream::start().await;
    let mut proxy = speaking_http2(&server).line("shutdown: { grace: 30s, spread: 0s }").run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut idle = Http2::connect(&proxy).await;
    assert_eq!(idle.get("/").await.answer_of(&server, "idle").await, "idle");
    let running = client.get("/running").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
    let mut running = running.answer().await;
    assert_eq!(running.exactly(4).await, b"half");
    proxy.terminate();
    proxy.is_stopping().await;
    assert_eq!(idle.ended().await, None);
    let refused = async {
        while !client.takes_nothing_new().await {
            tokio::time::sleep(millis(20)).await;
        }
    };
    soon("the connection to take nothing new", refused).await;
    upstream.send("full").await;
    assert_eq!(running.text().await, "full");
    assert_eq!(client.ended().await, None);
    assert_eq!(proxy.exit().await.code(), Some(0));
    assert_eq!(proxy.logged_path("/running").await["end_reason"], "complete");
}

#[tokio::test]
async fn what_lives_long_ends_within_the_grace() {
    let server = Upstream::start().await;
    let mut proxy = speaking_http2(&server).line("shutdown: { grace: 2s, spread: 0s }").run().await;
    let mut client = Http2::connect(&proxy).await;
    let (mut stream, mut events_up) = events(&mut client, &server, "/events").await;
    let (mut socket, mut socket_up) = websocket(&mut client, &server).await;
    proxy.relays_once(2, "").await;
    proxy.terminate();
    events_up.rest().await;
    stream.rest().await.expect("a stream ends as if it were whole");
    let (first, payload) = next_frame(&mut socket_up).await;
    assert_eq!((first, &payload[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
    assert_eq!(socket.exactly(4).await[2..], 1012_u16.to_be_bytes());
    drop(socket_up);
    socket.rest().await.expect("a WebSocket ends cleanly behind its Close");
    assert_eq!(proxy.exit().await.code(), Some(0));
    for path in ["/ws", "/events"] {
        assert_eq!(proxy.logged_path(path).await["end_reason"], "shutdown", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_last_arrives_however_slowly_it_is_read() {
    const LENGTH: usize = 3_000_000;
    let server = Upstream::start().await;
    let mut proxy = speaking_http2(&server).line("shutdown: { grace: 30s, spread: 0s }").run().await;
    let mut client = Http2::connect_narrow(&proxy, 1 << 23).await;
    let running = client.get("/running").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    let half = vec![b'x'; LENGTH / 2];
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
    upstream.send(&half).await;
    let mut running = running.answer().await;
    proxy.terminate();
    proxy.is_stopping().await;
    upstream.send(&half).await;
    let mut got = 0;
    while let Some(data) = running.some().await.expect("no reset") {
        got += data.len();
    }
    assert_eq!(got, LENGTH);
    assert_eq!(client.ended().await, None);
    assert_eq!(proxy.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_client_that_does_not_read_has_stalled() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).timeouts("{ send: 1s }").run().await;
    let mut client = Http2::connect_narrow(&proxy, 1000).await;
    let stuck = client.get("/stuck").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{}", "x".repeat(5000))).await;
    let stuck = stuck.answer().await;
    assert_eq!(proxy.logged_path("/stuck").await["end_reason"], "client_stalled");
    drop(upstream); // It has answered, and would be used again.
    let (events, mut upstream) = events(&mut client, &server, "/events").await;
    upstream.send(event(&"x".repeat(5000))).await;
    upstream.ends().await;
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "client_stalled");
    drop((stuck, events));
    client.vanish();
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn an_event_stream_begins_before_its_server_answers() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).sse("{ early_head: 2s, keepalive: 1s }").run().await;
    let mut client = Http2::connect(&proxy).await;
    let asked = client.ask(request("GET", "/events", &[("accept", "text/event-stream")]), true).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    let mut answered = asked.answer().await;
    assert_eq!((answered.status, answered.field("content-type")), (200, Some("text/event-stream")));
    assert_eq!(answered.exactly(22).await, b":keepalive\n:keepalive\n");
    upstream.send(format!("{EVENTS}{}0\r\n\r\n", event("late"))).await;
    assert!(answered.text().await.ends_with("data: late\n\n"));
    client.vanish();
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn a_connection_without_requests_is_told_to_go() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).timeouts("{ keepalive: 1s, request_head: 1s }").run().await;
    let unused = Http2::connect(&proxy).await;
    let mut used = Http2::connect(&proxy).await;
    assert_eq!(used.get("/").await.answer_of(&server, "used").await, "used");
    let mut busy = Http2::connect(&proxy).await;
    let asked = busy.get("/poll").await;
    assert_eq!(unused.ended().await, None);
    assert_eq!(used.ended().await, None);
    tokio::time::sleep(millis(1500)).await;
    assert_eq!(asked.answer_of(&server, "late").await, "late");
    assert_eq!(busy.ended().await, None);
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn streams_have_limits_as_connections_do() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).line("limits: { max_connections: 3, streams: 5 }").run().await;
    let mut client = Http2::connect(&proxy).await;
    let mut open = Vec::new();
    for at in 0..3 {
        open.push(events(&mut client, &server, &format!("/events/{at}")).await);
    }
    let answered = client.get("/more").await.answer().await;
    assert_eq!(answered.status, 503);
    assert!(answered.field("retry-after").is_some());
    assert_eq!(proxy.logged_path("/more").await["error"], "too_many_connections");
    drop(open.pop());
    let again = async {
        loop {
            let asked = client.get("/again").await;
            let answered = tokio::select! {
                answered = asked.answer() => answered,
                mut upstream = server.accept() => {
                    upstream.request().await;
                    upstream.send(ok("")).await;
                    return;
                }
            };
            assert_eq!(answered.status, 503);
        }
    };
    soon("room for one more", again).await;
    client.vanish();
    settles_empty(&proxy).await;
}

#[tokio::test]
async fn requests_of_one_client_are_counted_wherever_they_come_from() {
    let server = Upstream::start().await;
    let proxy = speaking_http2(&server).line("limits: { per_client: 2 }").run().await;
    let (mut one, mut two) = (Http2::connect(&proxy).await, Http2::connect(&proxy).await);
    let _first = events(&mut one, &server, "/first").await;
    let _second = events(&mut two, &server, "/second").await;
    assert_eq!(one.get("/third").await.answer().await.status, 503);
    assert_eq!(two.get("/third").await.answer().await.status, 503);
}

#[tokio::test]
async fn a_header_names_the_client_of_every_stream() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().listening("h2c: on, proxy_protocol: on").upstream("chat", &[&server]).run().await;
    let mut wire = proxy.send("PROXY TCP4 203.0.113.9 203.0.113.1 4000 80\r\n").await;
    wire.send(crate::harness::http2::PREFACE).await;
    for stream in [1, 3] {
        wire.send(crate::harness::http2::Frame::get(stream, "/named").bytes()).await;
        let mut upstream = server.accept().await;
        assert_eq!(upstream.request().await.head.field("x-forwarded-for").as_deref(), Some("203.0.113.9"));
    }
    drop(wire);
    let line = proxy.logged_path("/named").await;
    assert_eq!((&line["client"], &line["proxied_by"]), (&"203.0.113.9".into(), &"127.0.0.1".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_tls_it_is_the_same() {
    const LENGTH: usize = 2_000_000;
    let authority = Authority::new();
    let files = authority.vouch_for(&["chat.example.com"]);
    let server = Upstream::start().await;
    let mut proxy = Proxy::start().listening(&listening(&[&files])).upstream("chat", &[&server]).threads(1).run().await;
    let mut client = Http2::connect_encrypted(&proxy, &authority.client(), "chat.example.com").await;
    let asked = client.begin("POST", "/echo", &[]).await;
    let mut upstream = server.accept().await;
    let head = upstream.head().await;
    assert_eq!(head.field("x-forwarded-proto").as_deref(), Some("https"));
    let body = Random::seeded(3).bytes(LENGTH);
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut echoed = asked.answer().await;
    let mut got = Vec::new();
    for piece in body.chunks(100_003) {
        let (sent, back) = tokio::join!(echoed.send(piece.to_vec()), async {
            let mut left = piece.len();
            while left > 0 {
                let chunk = upstream.chunk().await.expect("more");
                left -= chunk.len();
                upstream.send([format!("{:x}\r\n", chunk.len()).as_bytes(), &chunk, b"\r\n"].concat()).await;
            }
        });
        let ((), ()) = (sent, back);
        got.extend(echoed.exactly(piece.len()).await);
    }
    assert!(got == body);
    echoed.sending.send_data(bytes::Bytes::new(), true).expect("the stream is open");
    assert_eq!(upstream.chunk().await, None);
    upstream.send("0\r\n\r\n").await;
    assert!(echoed.rest().await.expect("a clean end").is_empty());
    drop(upstream);

    let (mut stream, mut events_up) = events(&mut client, &server, "/events").await;
    let (mut socket, mut socket_up) = websocket(&mut client, &server).await;
    events_up.send(event("hello")).await;
    assert_eq!(stream.exactly(13).await, b"data: hello\n\n");
    socket.send(masked_frame("there")).await;
    assert_eq!(socket_up.exactly(11).await, masked_frame("there"));
    // Who speaks HTTP/1.1 inside is served as well, and who says the one and speaks the other is not.
    let mut old = authority.client().speaking(b"http/1.1").connect(&proxy, "chat.example.com").await;
    let (answer, ()) = tokio::join!(keyed(&mut old, "k"), async {
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(ok("old")).await;
    });
    assert_eq!(answer.text(), "old");
    let mut liar = authority.client().speaking(b"http/1.1").connect(&proxy, "chat.example.com").await;
    liar.send(crate::harness::http2::PREFACE).await;
    assert_eq!(liar.response().await.status(), 400);
    proxy.terminate();
    stream.rest().await.expect("a stream ends as if it were whole");
    assert_eq!(socket.exactly(4).await[2..], 1012_u16.to_be_bytes());
    drop((socket_up, events_up));
    socket.rest().await.expect("a clean end");
    assert_eq!(proxy.exit().await.code(), Some(0));
}

#[tokio::test]
async fn without_h2c_a_preface_is_no_request() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut wire = proxy.send(crate::harness::http2::PREFACE).await;
    let answer = wire.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", crate::harness::show(&answer));
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn http_1_is_served_on_the_same_port_however_it_drips() {
    let server = Upstream::named("a").await;
    let proxy = speaking_http2(&server).run().await;
    let mut client = proxy.connect().await;
    // As far as the preface goes it might be one.
    for piece in ["P", "R", "I", " ", "/ HTTP/1.1\r\nHost: a\r\n\r\n"] {
        client.send(piece).await;
        tokio::time::sleep(millis(20)).await;
    }
    assert_eq!(client.response().await.text(), "a");
    assert_eq!(keyed(&mut client, "k").await.text(), "a");
    // Nothing is upgraded to HTTP/2.
    let fields = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    let answer = proxy.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    assert_eq!((answer.status(), answer.text().as_str()), (200, "a"));
}

#[tokio::test]
async fn half_a_preface_is_not_waited_for_for_ever() {
    let server = Upstream::named("a").await;
    let proxy = speaking_http2(&server).timeouts("{ request_head: 1s }").run().await;
    for begun in ["", "PRI * HT"] {
        proxy.send(begun).await.ends().await;
    }
    settles_empty(&proxy).await;
}

//! Requests whose answers take their time: the proxy takes them apart after a second, and puts them
//! together again when something happens. Nobody may notice.

use crate::harness::client::SWITCHING;
use crate::harness::upstream::ok;
use crate::harness::{Leaving, Message, Proxy, SecretFile, Upstream, Wire, millis, websocket_request};

/// Longer than the proxy waits before it takes an exchange apart.
async fn while_it_is_parked() {
    tokio::time::sleep(millis(1300)).await;
}

const POLL: &str = "GET /poll HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n";

struct Parked {
    server: Upstream,
    proxy: Proxy,
    client: Wire,
    upstream: Wire,
    request: Message,
}

/// A request that waits for its answer.
async fn parked(request: impl AsRef<[u8]>) -> Parked {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let client = proxy.send(request).await;
    let mut upstream = server.accept().await;
    let request = upstream.request().await;
    while_it_is_parked().await;
    Parked { server, proxy, client, upstream, request }
}

#[tokio::test]
async fn answers_come_through_in_every_framing() {
    for (answer, expected) in [
        (ok("late"), "late"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nla\r\n2\r\nte\r\n0\r\n\r\n".to_owned(), "late"),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nlate".to_owned(), "late"),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), ""),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone".to_owned(), "gone"),
        (format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", ok("late")), "late"),
    ] {
        let Parked { proxy, mut client, mut upstream, .. } = parked(POLL).await;
        upstream.send(&answer).await;
        drop(upstream);
        assert_eq!(client.response().await.text(), expected, "{answer}");
        let line = proxy.logged_path("/poll").await;
        assert_eq!((&line["end_reason"], &line["kind"]), (&"complete".into(), &"http".into()));
        assert!(line["duration_ms"].as_u64() >= Some(1000), "{line}");
    }
}

#[tokio::test]
async fn both_connections_are_used_again() {
    let Parked { server, proxy, mut client, mut upstream, request, .. } = parked(POLL).await;
    for round in 0..2 {
        upstream.send(ok("late")).await;
        assert_eq!(client.response().await.text(), "late");
        client.send(POLL).await;
        let again = upstream.request().await;
        assert_eq!(format!("{:?}", again.head), format!("{:?}", request.head), "round {round}");
        while_it_is_parked().await;
    }
    upstream.send(ok("last")).await;
    assert_eq!(client.response().await.text(), "last");
    assert_eq!(server.accepted(), 1);
    drop(client);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn what_the_client_has_sent_behind_its_request_waits() {
    let Parked { mut client, mut upstream, proxy: _proxy, .. } =
        parked(format!("{POLL}{}", POLL.replace("/poll", "/next"))).await;
    client.send(POLL.replace("/poll", "/third")).await;
    for (target, answer) in [("/poll", "1"), ("/next", "2"), ("/third", "3")] {
        if target != "/poll" {
            assert_eq!(upstream.request().await.head.start, format!("GET {target} HTTP/1.1"));
        }
        upstream.send(ok(answer)).await;
        assert_eq!(client.response().await.text(), answer);
    }
}

#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    let Parked { mut client, mut upstream, proxy: _proxy, .. } = parked(POLL.replace("GET", "HEAD")).await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    assert_eq!(client.head().await.field("content-length"), Some("1000".to_owned()));
    client.send(POLL).await;
    upstream.request().await;
    upstream.send(ok("late")).await;
    assert_eq!(client.response().await.text(), "late");
}

#[tokio::test]
async fn an_answer_that_comes_in_single_bytes_comes_through() {
    let Parked { mut client, mut upstream, proxy: _proxy, .. } = parked(POLL).await;
    for byte in ok("late").bytes() {
        upstream.send([byte]).await;
    }
    assert_eq!(client.response().await.text(), "late");
}

#[tokio::test]
async fn an_upgrade_goes_on_as_one() {
    let Parked { mut client, mut upstream, proxy, .. } = parked(websocket_request("/ws", "")).await;
    upstream.send(format!("{SWITCHING}first")).await;
    assert_eq!(client.response().await.status(), 101);
    assert_eq!(client.exactly(5).await, b"first");
    client.send("second").await;
    assert_eq!(upstream.exactly(6).await, b"second");
    drop((client, upstream));
    assert_eq!(proxy.logged_path("/ws").await["kind"], "websocket");
}

#[tokio::test]
async fn an_event_stream_goes_on_as_one() {
    let Parked { mut client, mut upstream, proxy, .. } = parked(POLL).await;
    // At once, or a comment might come first.
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.send(format!("{head}9\r\ndata: 1\n\n\r\n")).await;
    assert_eq!(client.head().await.field("x-accel-buffering"), Some("no".to_owned()));
    assert_eq!(client.chunk().await.as_deref(), Some(&b"data: 1\n\n"[..]));
    drop((client, upstream));
    assert_eq!(proxy.logged_path("/poll").await["kind"], "sse");
}

#[tokio::test]
async fn a_session_that_opens_late_is_tagged() {
    let (server, secret) = (Upstream::start().await, SecretFile::with("sixteen and more bytes"));
    let proxy = Proxy::start().secret(&secret).upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET /?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    while_it_is_parked().await;
    upstream.send(ok(r#"0{"sid":"abc"}"#)).await;
    let opening = client.response().await.text();
    assert!(opening.starts_with(r#"0{"sid":"abc~"#), "{opening}");
    let sid = &opening[r#"0{"sid":""#.len()..opening.len() - 2];
    client.send(format!("GET /?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert_eq!(upstream.request().await.head.start, "GET /?EIO=4&transport=polling&sid=abc HTTP/1.1");
    while_it_is_parked().await;
    upstream.send(ok("6")).await;
    assert_eq!(client.response().await.text(), "6");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    for how in Leaving::ALL {
        let Parked { client, mut upstream, proxy, .. } = parked(POLL).await;
        client.leave(how);
        upstream.ends().await;
        let line = proxy.logged_path("/poll").await;
        assert_eq!((&line["end_reason"], &line["status"]), (&"client_closed".into(), &0.into()), "{how:?}");
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_server_that_leaves_is_a_bad_gateway() {
    for how in Leaving::ALL {
        let Parked { mut client, upstream, proxy, .. } = parked(POLL).await;
        upstream.leave(how);
        let answer = client.response().await;
        assert_eq!(answer.status(), 502, "{how:?}");
        assert_eq!(proxy.logged_path("/poll").await["end_reason"], "refused");
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn nonsense_is_a_bad_gateway() {
    for nonsense in ["nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 101 Switching Protocols\r\n\r\n"] {
        let Parked { mut client, mut upstream, proxy: _proxy, .. } = parked(POLL).await;
        upstream.send(nonsense).await;
        drop(upstream);
        assert_eq!(client.response().await.status(), 502, "{nonsense:?}");
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_a_gateway_timeout() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ response_head: 2s }").run().await;
    let mut client = proxy.send(POLL).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    let answer = client.response().await;
    assert_eq!(answer.status(), 504);
    assert!(answer.text().contains("within 2 s"), "{}", answer.text());
    upstream.ends().await;
    let line = proxy.logged_path("/poll").await;
    assert!(line["duration_ms"].as_u64() >= Some(2000), "{line}");
}

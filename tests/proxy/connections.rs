//! Connections that are used again: by the client, towards the server, and when they have gone stale.

use crate::harness::upstream::ok;
use crate::harness::{Proxy, Upstream, Wire, keyed, millis, seconds};

#[tokio::test]
async fn both_sides_keep_their_connections() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(1).run().await;
    let mut client = proxy.connect().await;
    for _ in 0..50 {
        assert_eq!(keyed(&mut client, "k").await.text(), "a");
    }
    assert_eq!(server.accepted(), 1, "connections to the server for 50 requests of one client");
}

#[tokio::test]
async fn clients_share_the_connections_to_a_server() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for _ in 0..50 {
        assert_eq!(keyed(&mut proxy.connect().await, "k").await.text(), "a");
    }
    // Each of the two threads has a pool of its own.
    assert!(server.accepted() <= 2, "{} connections for 50 clients, one after the other", server.accepted());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Upstream::serving(|mut wire: Wire| async move {
        while let Some(request) = wire.next_request().await {
            let target = request.head.start.split(' ').nth(1).expect("a target").to_owned();
            wire.send(ok(&format!("{target} {}", request.text()))).await;
        }
    })
    .await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let requests: String = (0..20)
        .map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
            _ => format!("POST /{n} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
        })
        .collect();
    let mut client = proxy.send(requests).await;
    for n in 0..20 {
        let body = if n % 3 == 0 { "" } else { "body" };
        assert_eq!(client.response().await.text(), format!("/{n} {body}"));
    }
}

#[tokio::test]
async fn a_client_that_asks_for_close_gets_it() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!(answer.text(), "a");
    let options = answer.head.field("connection").unwrap_or_default();
    assert!(options.eq_ignore_ascii_case("close"), "Connection: {options}");
    client.ends().await;
}

#[tokio::test]
async fn an_old_client_may_keep_its_connection() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.response().await;
        let options = answer.head.field("connection").unwrap_or_default();
        assert!(options.eq_ignore_ascii_case("keep-alive"), "Connection: {options}");
        assert_eq!(answer.text(), "a");
    }
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_does_no_harm() {
    let server = Upstream::serving(|mut wire: Wire| async move {
        wire.request().await;
        wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na").await;
    })
    .await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.connect().await;
    for _ in 0..20 {
        assert_eq!(keyed(&mut client, "k").await.text(), "a");
    }
    assert_eq!(server.accepted(), 20);
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_never_fails_a_request() {
    // Says nothing of closing, and closes: what a server does whose idle time is over.
    let server = Upstream::serving(|mut wire: Wire| async move {
        wire.request().await;
        wire.send(ok("a")).await;
    })
    .await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.connect().await;
    for turn in 0..50 {
        let answer = keyed(&mut client, "k").await;
        assert_eq!((answer.status(), answer.text()), (200, "a".to_owned()), "request {turn}");
        if turn % 2 == 0 {
            // Half of them after the close has surely arrived, half of them as early as can be.
            tokio::time::sleep(millis(5)).await;
        }
    }
}

#[tokio::test]
async fn a_get_that_meets_a_closing_connection_is_sent_again() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(1).run().await;
    let mut client = proxy.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut kept = server.accept().await;
    kept.request().await;
    kept.send(ok("one")).await;
    assert_eq!(client.response().await.text(), "one");

    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    kept.request().await;
    drop(kept);
    let mut fresh = server.accept().await;
    assert!(fresh.request().await.head.start.starts_with("GET /2 "));
    fresh.send(ok("two")).await;
    let answer = client.response().await;
    assert_eq!((answer.status(), answer.text()), (200, "two".to_owned()));
}

#[tokio::test]
async fn a_post_that_reached_a_server_is_never_sent_twice() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(1).run().await;
    let mut client = proxy.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut kept = server.accept().await;
    kept.request().await;
    kept.send(ok("one")).await;
    assert_eq!(client.response().await.text(), "one");

    client.send("POST /pay HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n42").await;
    assert_eq!(kept.request().await.text(), "42");
    drop(kept);
    let answer = client.response().await;
    assert_eq!(answer.status(), 502);
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_with_stray_bytes_is_not_used_again() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(1).run().await;
    let mut client = proxy.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut first = server.accept().await;
    first.request().await;
    first.send(ok("one") + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged").await;
    assert_eq!(client.response().await.text(), "one");

    client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut second = server.accept().await;
    second.request().await;
    second.send(ok("two")).await;
    assert_eq!(client.response().await.text(), "two");
}

#[tokio::test]
async fn an_idle_client_is_let_go() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ keepalive: 1s }").run().await;
    let mut client = proxy.connect().await;
    assert_eq!(keyed(&mut client, "k").await.text(), "a");
    client.stays_silent(millis(300)).await;
    client.ends().await;
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_parked_request_outlives_the_keepalive_time() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ keepalive: 1s, body: 1s }").run().await;
    let mut client = proxy.send("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    client.stays_silent(seconds(3)).await;
    upstream.send(ok("news")).await;
    assert_eq!(client.response().await.text(), "news");
}

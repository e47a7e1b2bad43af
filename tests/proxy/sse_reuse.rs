//! A client's connection behind an event stream that its server has ended: used again, with not a
//! byte lost of what the client sent meanwhile.

use crate::harness::{Proxy, Upstream, Wire, millis, seconds, show, upstream::ok};

const REQUEST: &str = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
const LAST_CHUNK: &str = "0\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

fn stream() -> String {
    format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{}", chunk("data: a\n\n"))
}

/// What is left of a stream of which the head has been read, to its end.
async fn text(client: &mut Wire) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = client.chunk().await {
        text.extend(chunk);
    }
    String::from_utf8(text).expect("the stream is text").replace(":keepalive\n", "")
}

/// A stream of which the client has read the head.
async fn open(proxy: &Proxy, server: &Upstream, request: &str) -> (Wire, Wire) {
    let mut client = proxy.send(request).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(stream()).await;
    client.head().await;
    (client, upstream)
}

/// Answers the next request on a connection of its own, and checks what it was.
async fn answer(server: &Upstream, expected: &str) {
    let mut upstream = server.accept().await;
    let request = upstream.request().await;
    assert_eq!(request.head.start, expected);
    upstream.send(ok(&format!("{} bytes", request.body.len()))).await;
}

#[tokio::test]
async fn a_stream_that_ended_leaves_its_connection_for_the_next_request() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let (mut client, mut upstream) = open(&proxy, &server, REQUEST).await;
    for _ in 0..3 {
        // Another stream on the same connection, and then an ordinary request.
        upstream.send(LAST_CHUNK).await;
        assert_eq!(text(&mut client).await, "data: a\n\n");
        client.send(REQUEST).await;
        upstream = server.accept().await;
        upstream.request().await;
        upstream.send(stream()).await;
        assert_eq!(client.head().await.field("connection").as_deref(), Some("keep-alive"));
    }
    upstream.send(LAST_CHUNK).await;
    text(&mut client).await;
    tokio::time::sleep(millis(500)).await;
    client.send(NEXT).await;
    answer(&server, "GET /next HTTP/1.1").await;
    assert_eq!(client.response().await.text(), "0 bytes");
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "server_closed");
    assert_eq!(proxy.logged_path("/next").await["end_reason"], "complete");
    proxy.settles("steadfast_client_connections", &[], 1.0).await;
    drop(client);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_stream_whose_server_closes_leaves_its_connection_as_well() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send(REQUEST).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(format!("{HEAD}Connection: close\r\n\r\ndata: a\n\n")).await;
    client.head().await;
    drop(upstream);
    assert_eq!(text(&mut client).await, "data: a\n\n");
    client.send(NEXT).await;
    answer(&server, "GET /next HTTP/1.1").await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn a_whole_stream_in_one_packet_leaves_its_connection_too() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send(REQUEST.to_owned() + NEXT).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(stream() + LAST_CHUNK).await;
    assert_eq!(client.response().await.text(), "data: a\n\n");
    answer(&server, "GET /next HTTP/1.1").await;
    assert_eq!(client.response().await.status(), 200);
}

#[tokio::test]
async fn requests_sent_during_a_stream_are_answered_behind_it() {
    let body = "x".repeat(300_000);
    let post = format!("POST /next HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (with_request, during, expected) in [
        ("", NEXT, "GET /next HTTP/1.1"),
        (NEXT, "", "GET /next HTTP/1.1"),
        ("GET /next HT", "TP/1.1\r\nHost: a\r\n\r\n", "GET /next HTTP/1.1"),
        // More than is kept: TCP holds the rest.
        ("", post.as_str(), "POST /next HTTP/1.1"),
    ] {
        for request in [REQUEST, "POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"] {
            let server = Upstream::start().await;
            let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 300ms }").run().await;
            let (client, mut upstream) = open(&proxy, &server, &format!("{request}{with_request}")).await;
            let (mut client, mut to_proxy) = client.split();
            let during = during.to_owned();
            let sending = tokio::spawn(async move {
                to_proxy.send(&during).await;
                to_proxy
            });
            tokio::time::sleep(millis(1000)).await;
            upstream.send(chunk("data: b\n\n") + LAST_CHUNK).await;
            let mut text = String::new();
            while let Some(chunk) = client.chunk().await {
                text += &String::from_utf8(chunk).expect("the stream is text");
            }
            assert!(text.contains(":keepalive\n"), "{text:?}");
            assert_eq!(text.replace(":keepalive\n", ""), "data: a\n\ndata: b\n\n");
            answer(&server, expected).await;
            let length = if expected.starts_with("POST") { body.len() } else { 0 };
            assert_eq!(client.response().await.text(), format!("{length} bytes"));
            drop(sending.await);
        }
    }
}

#[tokio::test]
async fn a_client_that_wants_its_connection_closed_gets_it_closed() {
    for request in [
        REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
        REQUEST.replace("1.1", "1.0"),
        REQUEST.replace("1.1", "1.0").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n"),
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let mut client = proxy.send(&request).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(stream()).await;
        assert_eq!(client.head().await.field("connection").as_deref(), Some("close"), "{request}");
        // Whatever it sends all the same goes nowhere.
        client.send(NEXT).await;
        upstream.send(LAST_CHUNK).await;
        client.rest().await;
        assert_eq!(server.accepted(), 1);
        drop(client);
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_takes_its_connection_along() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let (mut client, upstream) = open(&proxy, &server, REQUEST).await;
    client.send(NEXT).await;
    tokio::time::sleep(millis(200)).await;
    drop(upstream);
    let rest = client.rest().await;
    assert!(!rest.ends_with(LAST_CHUNK.as_bytes()), "it looks complete: {}", show(&rest));
    assert_eq!(server.accepted(), 1);
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "server_error");
    drop(client);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_client_that_leaves_behind_its_next_request_ends_the_stream() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let (mut client, mut upstream) = open(&proxy, &server, REQUEST).await;
    client.send(NEXT).await;
    tokio::time::sleep(millis(200)).await;
    drop(client);
    upstream.ends().await;
    assert_eq!(server.accepted(), 1);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_connection_behind_a_stream_is_not_kept_longer_than_others() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ keepalive: 1s }").run().await;
    let (mut client, mut upstream) = open(&proxy, &server, REQUEST).await;
    upstream.send(LAST_CHUNK).await;
    text(&mut client).await;
    let began = tokio::time::Instant::now();
    client.ends().await;
    assert!((millis(800)..seconds(5)).contains(&began.elapsed()), "after {:?}", began.elapsed());
    proxy.settles_empty().await;
}

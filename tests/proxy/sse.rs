//! Event streams: alive through silence, and not a byte of theirs changed.
//!
//! What happens when the server pauses at an awkward place is in `sse_pauses`.

use crate::harness::{Hop, Leaving, Nginx, Proxy, Reading, Upstream, Wire, millis, seconds, show};

const REQUEST: &str = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A stream through the proxy, its head read: its two ends.
async fn open(proxy: &Proxy, server: &Upstream) -> (Wire, Wire) {
    let mut client = proxy.send(REQUEST).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(STREAM).await;
    assert_eq!(client.head().await.status(), 200);
    (client, upstream)
}

/// Reads chunks up to the one that holds `text`; the whole, with what was inserted.
async fn chunks_until(client: &mut Reading, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let chunk = client.chunk().await.unwrap_or_else(|| panic!("the stream ended after {all:?}"));
        all += &String::from_utf8(chunk).expect("these chunks are text");
    }
    all
}

#[tokio::test]
async fn half_a_minute_of_silence_is_survived_behind_a_hop_that_cuts_after_five_seconds() {
    let server = Upstream::serving(|mut wire: Wire| async move {
        wire.request().await;
        wire.send(STREAM.to_owned() + &chunk("data: first\n\n")).await;
        tokio::time::sleep(seconds(30)).await;
        // Whoever was cut off meanwhile cannot be told.
        let _ = wire.try_send((chunk("data: second\n\n") + "0\r\n\r\n").as_bytes()).await;
    })
    .await;
    let proxy = Proxy::start()
        .upstream("kept", &[&server])
        .sse("{ keepalive: 2s }")
        .upstream("left", &[&server])
        .sse("{ keepalive: off }")
        .route("{ path: /left, upstream: left }")
        .route("{ upstream: kept }")
        .run()
        .await;
    let hop = Hop::cutting_after(seconds(5), proxy.address()).await;
    let nginx = Nginx::hop(proxy.address(), "5s").await;

    let survives = async |mut client: Wire| {
        client.send(REQUEST).await;
        assert_eq!(client.head().await.status(), 200);
        // The first event comes while the stream is open: no hop holds it back.
        let mut text = chunks_until(&mut client, "first\n\n").await;
        text += &chunks_until(&mut client, "second\n\n").await;
        assert_eq!(client.chunk().await, None);
        assert!(text.matches(":keepalive\n").count() >= 10, "{text:?}");
        assert_eq!(text.replace(":keepalive\n", ""), "data: first\n\ndata: second\n\n");
    };
    let is_cut = async |mut client: Wire| {
        client.send(REQUEST.replace("/events", "/left")).await;
        let all = client.rest().await;
        assert!(!all.ends_with(b"0\r\n\r\n"), "the hop does not cut: {}", show(&all));
    };
    tokio::join!(survives(hop.connect().await), survives(nginx.connect().await), is_cut(hop.connect().await));
    assert_eq!(hop.cuts(), 1, "only the stream without keepalives is cut");
    let inserted = proxy.metrics().await.sum("steadfast_sse_keepalives_total", &[("upstream", "kept")]);
    assert!(inserted >= 20.0, "{inserted} keepalives counted");
}

#[tokio::test]
async fn caches_and_hops_are_told_to_leave_the_stream_alone() {
    for (content_type, cache_control) in [
        ("text/event-stream", ""),
        ("Text/Event-Stream;charset=utf-8", "Cache-Control: no-cache\r\n"),
        ("text/event-stream", "Cache-Control: no-cache, no-transform\r\n"),
        ("text/event-stream", "X-Accel-Buffering: yes\r\n"),
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let mut client = proxy.send(REQUEST).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream
            .send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{cache_control}Transfer-Encoding: chunked\r\n\r\n"
            ))
            .await;
        let head = client.head().await;
        assert_eq!(head.field("content-type").as_deref(), Some(content_type));
        assert_eq!(head.field("x-accel-buffering").as_deref(), Some("no"));
        let cache = head.field("cache-control").unwrap_or_default();
        assert_eq!(cache.matches("no-transform").count(), 1, "Cache-Control: {cache}");
        assert_eq!(cache.contains("no-cache"), cache_control.contains("no-cache"), "Cache-Control: {cache}");
    }
}

#[tokio::test]
async fn events_are_passed_on_as_they_come() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: off }").run().await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    for event in 0..100 {
        let text = format!("id: {event}\ndata: x\n\n");
        upstream.send(chunk(&text)).await;
        assert_eq!(chunks_until(&mut client, "x\n\n").await, text);
    }
}

#[tokio::test]
async fn an_event_in_the_same_packet_as_the_head_arrives() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut client = proxy.send(REQUEST).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(STREAM.to_owned() + &chunk("data: first\n\n")).await;
    client.head().await;
    assert_eq!(chunks_until(&mut client, "\n\n").await, "data: first\n\n");
}

#[tokio::test]
async fn a_stream_can_answer_a_post() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 500ms }").run().await;
    let mut client = proxy.send("POST /ask HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}").await;
    let mut upstream = server.accept().await;
    assert_eq!(upstream.request().await.text(), "{}");
    upstream.send(STREAM.to_owned() + &chunk("data: a\n\n")).await;
    client.head().await;
    let text = chunks_until(&mut client, ":keepalive\n").await;
    assert_eq!(text, "data: a\n\n:keepalive\n");
}

#[tokio::test]
async fn the_comment_is_the_operators_choice() {
    let server = Upstream::start().await;
    let proxy =
        Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 500ms, comment: \" still here\" }").run().await;
    let (mut client, _upstream) = open(&proxy, &server).await;
    assert_eq!(chunks_until(&mut client, "\n").await, ": still here\n");
}

#[tokio::test]
async fn a_busy_stream_gets_no_keepalives() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 2s }").run().await;
    let mut client = proxy.send(REQUEST).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(STREAM.to_owned() + &chunk("data: x\n\n")).await;
    client.head().await;
    assert_eq!(chunks_until(&mut client, "x\n\n").await, "data: x\n\n");
    for _ in 0..20 {
        tokio::time::sleep(millis(200)).await;
        upstream.send(chunk("data: x\n\n")).await;
        assert_eq!(chunks_until(&mut client, "x\n\n").await, "data: x\n\n");
    }
    assert!(proxy.metrics().await.sum("steadfast_sse_keepalives_total", &[]) < 0.5);
}

#[tokio::test]
async fn what_cannot_take_a_comment_is_left_untouched() {
    for (fields, request, reason) in [
        ("Content-Length: 24\r\n", REQUEST, "length"),
        ("Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", REQUEST, "encoding"),
        ("Transfer-Encoding: chunked\r\n", "HEAD /events HTTP/1.1\r\nHost: a\r\n\r\n", "head"),
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 300ms, retry: 1s }").run().await;
        let mut client = proxy.send(request).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{fields}\r\n")).await;
        let head = client.head().await;
        let counted = [("upstream", "chat"), ("reason", reason)];
        proxy.settles("steadfast_sse_untouched_total", &counted, 1.0).await;
        proxy.settles("steadfast_sse_untouched_total", &[], 1.0).await;
        if request.starts_with("HEAD") {
            client.stays_silent(seconds(1)).await;
            continue;
        }
        let events = ["data: one\n\n", "data: two!\n\n\n"];
        let mut received = Vec::new();
        for event in events {
            let chunked = fields.contains("chunked");
            upstream.send(if chunked { chunk(event) } else { event.to_owned() }).await;
            let piece =
                if chunked { client.chunk().await.expect("not the end") } else { client.exactly(event.len()).await };
            received.extend(piece);
            client.stays_silent(seconds(1)).await;
        }
        assert_eq!(received, events.concat().as_bytes(), "{fields}");
        assert_eq!(head.field("content-length").is_some(), fields.contains("Length"), "{head:?}");
    }
}

#[tokio::test]
async fn servers_of_event_streams_are_not_asked_to_compress() {
    let asks = |accept: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{accept}Accept-Encoding: gzip, br\r\n\r\n");
    for (accept, sse, expected) in [
        ("Accept: text/event-stream\r\n", "{}", None),
        ("Accept: application/json, text/event-stream\r\n", "{ accept_encoding: remove }", None),
        ("Accept: text/event-stream\r\n", "{ accept_encoding: pass }", Some("gzip, br")),
        ("Accept: */*\r\n", "{}", Some("gzip, br")),
        ("", "{}", Some("gzip, br")),
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse(sse).run().await;
        let _client = proxy.send(asks(accept)).await;
        let seen = server.accept().await.request().await.head;
        assert_eq!(seen.field("accept-encoding").as_deref(), expected, "{accept:?}, {sse}");
    }
}

#[tokio::test]
async fn a_stream_that_names_its_coding_identity_is_kept_alive() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 300ms }").run().await;
    let mut client = proxy.send(REQUEST).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(STREAM.replace("Transfer", "Content-Encoding: identity\r\nTransfer")).await;
    client.head().await;
    assert_eq!(chunks_until(&mut client, "\n").await, ":keepalive\n");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_stream_for_its_server() {
    for how in Leaving::ALL {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let (client, mut upstream) = open(&proxy, &server).await;
        proxy.settles("steadfast_open_connections", &[("kind", "sse")], 1.0).await;
        client.leave(how);
        upstream.ends().await;
        let line = proxy.logged_path("/events").await;
        let reason = line["end_reason"].as_str().unwrap_or_default();
        assert!(["client_closed", "client_error"].contains(&reason), "{line}");
        assert_eq!(line["kind"], "sse");
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_server_that_ends_a_stream_ends_it_cleanly_for_the_client() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: off }").run().await;
    let mut client = proxy.send(REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(STREAM).await;
    client.head().await;
    upstream.send(chunk("data: bye\n\n") + "0\r\n\r\n").await;
    assert_eq!(client.chunk().await.as_deref(), Some(&b"data: bye\n\n"[..]));
    assert_eq!(client.chunk().await, None);
    client.ends().await;
    drop(client);
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "server_closed");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_server_that_breaks_off_breaks_off_for_the_client() {
    for how in Leaving::ALL {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
        let (mut client, mut upstream) = open(&proxy, &server).await;
        upstream.send(chunk("data: half\n")).await;
        chunks_until(&mut client, "half\n").await;
        upstream.leave(how);
        let rest = client.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks complete: {}", show(&rest));
        drop(client);
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_server_whose_chunks_make_no_sense_does_not_look_finished() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    upstream.send(chunk("data: half\n")).await;
    chunks_until(&mut client, "half\n").await;
    upstream.send("this is no size\r\n").await;
    let rest = client.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks complete: {}", show(&rest));
    drop(client);
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "server_error");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn silence_without_keepalives_ends_a_stream_in_the_end() {
    let server = Upstream::start().await;
    let proxy =
        Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: off }").timeouts("{ idle: 1s }").run().await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    client.rest().await;
    upstream.ends().await;
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "idle");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ send: 1s }").run().await;
    let (client, upstream) = open(&proxy, &server).await;
    let (_reading, mut to_client) = upstream.split();
    let event = chunk(&format!("data: {}\n\n", "x".repeat(60_000)));
    assert!(!to_client.flood(event.as_bytes(), 64 * 1024 * 1024).await, "64 MiB taken for one who reads none");
    assert_eq!(proxy.logged_path("/events").await["end_reason"], "client_stalled");
    drop(client);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn what_a_server_said_last_reaches_a_client_that_takes_its_time() {
    // Somewhere in between, the sockets are full to the brim when the server goes.
    const SIZES: std::ops::Range<usize> = 1..20;
    let body = |size: usize| "data: 0123456789abcdef\n".repeat(size * 11_000);
    let server = Upstream::serving(move |mut wire: Wire| async move {
        let request = wire.request().await;
        let size = request.head.start.split(['/', ' ']).nth(2).and_then(|size| size.parse().ok());
        let body = chunk(&body(size.expect("a size")));
        let _ = wire.try_send((STREAM.to_owned() + &body + "0\r\n\r\n").as_bytes()).await;
    })
    .await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: off }").run().await;
    let reads_late = async |size: usize| {
        let mut client = proxy.send(format!("GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        tokio::time::sleep(millis(6500)).await;
        assert_eq!(client.response().await.text().len(), body(size).len(), "of size {size}");
    };
    futures_util::future::join_all(SIZES.map(reads_late)).await;
}

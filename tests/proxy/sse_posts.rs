//! Event streams that answer a request which is still being sent, as those of language models do:
//! kept alive from their first byte, and nothing lost when the request ends.

use crate::harness::{Proxy, Upstream, Wire, millis, seconds, show};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n";
const LAST_CHUNK: &str = "0\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A stream of which the server has sent head and `begun`, for a request that has sent `a`.
async fn begun(proxy: &Proxy, server: &Upstream, fields: &str, begun: &str) -> (Wire, Wire) {
    let mut client = proxy.send(format!("POST /ask HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    let mut upstream = server.accept().await;
    assert_eq!(upstream.head().await.start, "POST /ask HTTP/1.1");
    upstream.send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{begun}")).await;
    let head = client.head().await;
    assert_eq!(head.field("x-accel-buffering").as_deref(), Some("no"));
    (client, upstream)
}

/// Text of the stream up to and with `end`.
async fn text_until(client: &mut Wire, end: &str) -> String {
    let mut all = String::new();
    while !all.ends_with(end) {
        let chunk = client.chunk().await.unwrap_or_else(|| panic!("the stream ended after {all:?}"));
        all += &String::from_utf8(chunk).expect("these chunks are text");
    }
    all
}

#[tokio::test]
async fn a_stream_is_kept_alive_before_and_behind_the_end_of_its_request() {
    for (fields, pieces) in [
        ("Content-Length: 6\r\n", ["abc", "def"]),
        ("Transfer-Encoding: chunked\r\n", ["3\r\nabc\r\n", "3\r\ndef\r\n0\r\n\r\n"]),
    ] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 3s, retry: 2s }").run().await;
        let (mut client, mut upstream) = begun(&proxy, &server, fields, "").await;
        assert_eq!(text_until(&mut client, "\n").await, "retry: 2000\n");
        assert_eq!(text_until(&mut client, "\n").await, ":keepalive\n");
        client.send(pieces[0]).await;
        upstream.until(b"abc").await;
        // Comments stand between lines only, here as well.
        upstream.send(chunk("\u{feff}data: on")).await;
        assert_eq!(text_until(&mut client, "on").await, "data: on");
        client.stays_silent(seconds(4)).await;
        upstream.send(chunk("e\n\n")).await;
        assert_eq!(text_until(&mut client, "e\n\n").await, "e\n\n");
        tokio::time::sleep(seconds(2)).await;
        client.send(pieces[1]).await;
        upstream.until(b"def").await;
        // The silence counts on when the request ends.
        let began = tokio::time::Instant::now();
        assert_eq!(text_until(&mut client, "\n").await, ":keepalive\n");
        assert!(began.elapsed() < millis(2500), "a comment after {:?}", began.elapsed() + seconds(2));
        assert_eq!(text_until(&mut client, "\n").await, ":keepalive\n");
        upstream.send(chunk("data: two\n\n") + LAST_CHUNK).await;
        assert_eq!(text_until(&mut client, "two\n\n").await, "data: two\n\n");
        assert_eq!(client.chunk().await, None);
        drop(client);
        let line = proxy.logged_path("/ask").await;
        assert_eq!((&line["kind"], &line["end_reason"]), (&"sse".into(), &"server_closed".into()), "{line}");
        proxy.settles("steadfast_sse_untouched_total", &[], 0.0).await;
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn much_of_both_at_once_arrives_whole() {
    let length = 3_000_000;
    for version in ["1.1", "1.0"] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 1s }").run().await;
        let client = proxy.connect().await;
        let (mut from_proxy, mut to_proxy) = client.split();
        to_proxy.send(format!("POST /ask HTTP/{version}\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
        let mut upstream = server.accept().await;
        upstream.head().await;
        let (mut from_client, mut to_client) = upstream.split();
        to_client.send(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n")).await;
        let body: Vec<u8> = (0..length).map(|at: usize| b"abcdefg"[at % 7]).collect();
        let sent = body.clone();
        let events: Vec<String> = (0..20_000).map(|event| format!("id: {event}\ndata: {event}\n\n")).collect();
        let stream = events.iter().map(|event| chunk(event)).collect::<String>() + LAST_CHUNK;
        let (_, _, received, answer) = tokio::join!(
            async {
                to_proxy.send(&sent).await;
                to_proxy
            },
            to_client.send(stream),
            from_client.exactly(length),
            from_proxy.response(),
        );
        assert!(received == body, "the request arrived otherwise than it was sent");
        assert!(answer.text().replace(":keepalive\n", "") == events.concat(), "the stream did");
    }
}

#[tokio::test]
async fn a_stream_that_ends_before_its_request_is_whole() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: off }").run().await;
    let (mut client, mut upstream) = begun(&proxy, &server, "Content-Length: 6\r\n", &chunk("data: a\n\n")).await;
    client.send("abc").await;
    upstream.until(b"abc").await;
    upstream.send(chunk("data: b\n\n") + LAST_CHUNK).await;
    assert_eq!(text_until(&mut client, "b\n\n").await, "data: a\n\ndata: b\n\n");
    assert_eq!(client.chunk().await, None);
    // What is left of the request has no taker.
    client.ends().await;
    drop(client);
    assert_eq!(proxy.logged_path("/ask").await["kind"], "sse");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_before_its_request_does_not_look_finished() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let (mut client, upstream) = begun(&proxy, &server, "Content-Length: 6\r\n", &chunk("data: a\n\n")).await;
    text_until(&mut client, "\n\n").await;
    drop(upstream);
    let rest = client.rest().await;
    assert!(!rest.ends_with(LAST_CHUNK.as_bytes()), "it looks complete: {}", show(&rest));
    drop(client);
    assert_eq!(proxy.logged_path("/ask").await["end_reason"], "server_error");
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_client_that_leaves_within_its_request_ends_the_stream() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let (mut client, mut upstream) = begun(&proxy, &server, "Content-Length: 6\r\n", &chunk("data: a\n\n")).await;
    text_until(&mut client, "\n\n").await;
    drop(client);
    upstream.ends().await;
    proxy.settles_empty().await;
}

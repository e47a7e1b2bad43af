//! How an event stream begins: what the client is told first, and that it is told something.

use serde_json::json;

use crate::harness::{Node, Proxy, Upstream, Wire, millis, seconds};

const REQUEST: &str = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
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

/// A client and its server, which has the request and has answered nothing.
async fn asked(proxy: &Proxy, server: &Upstream) -> (Wire, Wire) {
    let client = proxy.send(REQUEST).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    (client, upstream)
}

#[tokio::test]
async fn a_client_is_told_once_how_long_to_wait_before_anything_else() {
    for server_says in ["data: a\n\n", "\u{feff}data: a\n\n", "retry: 10\ndata: a\n\n"] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 300ms, retry: 2500ms }").run().await;
        let (mut client, mut upstream) = asked(&proxy, &server).await;
        upstream.send(STREAM).await;
        client.head().await;
        // With the head, for a hop that holds it back; the comments of an idle stream follow.
        assert_eq!(text_until(&mut client, "\n").await, "retry: 2500\n");
        assert_eq!(text_until(&mut client, "\n").await, ":keepalive\n");
        upstream.send(chunk(server_says)).await;
        let text = text_until(&mut client, "a\n\n").await;
        assert_eq!(text.replace(":keepalive\n", ""), server_says.trim_start_matches('\u{feff}'));
    }
}

#[tokio::test]
async fn a_stream_in_one_packet_still_begins_with_the_time_to_wait() {
    for version in ["1.1", "1.0"] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: off, retry: 3s }").run().await;
        let mut client = proxy.send(REQUEST.replace("1.1", version)).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(STREAM.to_owned() + &chunk("\u{feff}data: a\n\n") + "0\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "retry: 3000\ndata: a\n\n", "HTTP/{version}");
    }
}

#[tokio::test]
async fn a_head_alone_is_soon_followed_by_a_comment() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 5s }").run().await;
    let (mut client, mut upstream) = asked(&proxy, &server).await;
    upstream.send(STREAM).await;
    client.head().await;
    let began = tokio::time::Instant::now();
    assert_eq!(text_until(&mut client, "\n").await, ":keepalive\n");
    assert!(began.elapsed() < seconds(3), "the comment came after {:?}", began.elapsed());
    client.stays_silent(seconds(2)).await;
    // From here on the interval counts.
    assert_eq!(text_until(&mut client, "\n").await, ":keepalive\n");
    proxy.settles("steadfast_sse_keepalives_total", &[("upstream", "chat")], 2.0).await;
}

#[tokio::test]
async fn a_head_with_an_event_needs_no_comment() {
    for comments in ["{ keepalive: 5s }", "{ keepalive: off }"] {
        let server = Upstream::start().await;
        let proxy = Proxy::start().upstream("chat", &[&server]).sse(comments).run().await;
        let (mut client, mut upstream) = asked(&proxy, &server).await;
        let event = if comments.contains("off") { String::new() } else { chunk("data: a\n\n") };
        upstream.send(STREAM.to_owned() + &event).await;
        client.head().await;
        if !event.is_empty() {
            assert_eq!(text_until(&mut client, "\n\n").await, "data: a\n\n");
        }
        client.stays_silent(seconds(2)).await;
    }
}

#[tokio::test]
async fn a_real_event_source_returns_when_it_was_told_to() {
    /// A server whose streams say `first`, and end.
    async fn ending(first: &'static str) -> Upstream {
        Upstream::serving(move |mut wire: Wire| async move {
            while wire.next_request().await.is_some() {
                wire.send(STREAM.to_owned() + &chunk(first)).await;
                tokio::time::sleep(millis(100)).await;
                wire.send("0\r\n\r\n").await;
            }
        })
        .await
    }
    let (silent, hasty) = (ending("data: a\n\n").await, ending("retry: 200\ndata: a\n\n").await);
    let proxy = Proxy::start()
        .upstream("silent", &[&silent])
        .sse("{ retry: 1500ms }")
        .upstream("hasty", &[&hasty])
        .sse("{ retry: 1500ms }")
        .route("{ path: /hasty, upstream: hasty }")
        .route("{ upstream: silent }")
        .run()
        .await;
    let returns = async |path: &str| {
        let url = format!("http://{}{path}", proxy.address());
        let node = Node::script("event_source_returns.js", &json!({ "url": url }));
        node.says("returned").await.as_f64().expect("a number of milliseconds")
    };
    let (told, overruled) = tokio::join!(returns("/silent"), returns("/hasty"));
    // Untold it would wait three seconds.
    assert!((1400.0..2800.0).contains(&told), "returned after {told} ms");
    assert!((150.0..1300.0).contains(&overruled), "returned after {overruled} ms");
}

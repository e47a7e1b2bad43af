//! Event streams that begin before their server has answered, and what becomes of each when it does.

use serde_json::{Value, json};

use crate::harness::upstream::ok;
use crate::harness::{Leaving, Node, Proxy, Upstream, Wire, millis};

const REQUEST: &str = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const SETTINGS: &str = "{ early_head: 1s, keepalive: 10s }";

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A stream that has begun; the server has the request and has answered nothing.
struct Begun {
    server: Upstream,
    proxy: Proxy,
    client: Wire,
    upstream: Wire,
}

/// A proxy whose server is silent.
async fn asked(request: &str, sse: &str, timeouts: &str) -> Begun {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse(sse).timeouts(timeouts).run().await;
    let client = proxy.send(request).await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    Begun { server, proxy, client, upstream }
}

/// The same, when the client has got its head and the first comment.
async fn begun(sse: &str, timeouts: &str) -> Begun {
    let mut begun = asked(REQUEST, sse, timeouts).await;
    let head = begun.client.head().await;
    let fields = ["content-type", "cache-control", "x-accel-buffering", "transfer-encoding"];
    let fields = fields.map(|name| head.field(name).unwrap_or_default());
    assert_eq!(head.status(), 200);
    assert_eq!(fields, ["text/event-stream", "no-cache, no-transform", "no", "chunked"]);
    assert_eq!(begun.client.chunk().await.as_deref(), Some(&b":keepalive\n"[..]));
    begun
}

/// What has ended: why, with which status for the client, and which of the server.
fn ended(line: &Value) -> (&str, &Value, &Value) {
    (line["end_reason"].as_str().unwrap_or_default(), &line["status"], &line["server_status"])
}

#[tokio::test]
async fn the_servers_stream_goes_on_where_ours_stands() {
    for (answer, ends_it) in [
        (STREAM.to_owned() + &chunk("\u{feff}data: a\n\n"), "0\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n\u{feff}data: a\n\n".to_owned(), ""),
        (format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{STREAM}{}", chunk("data: a\n\n")), "0\r\n\r\n"),
    ] {
        let Begun { proxy, mut client, mut upstream, .. } = begun(SETTINGS, "{}").await;
        upstream.send(&answer).await;
        assert_eq!(client.chunk().await.as_deref(), Some(&b"data: a\n\n"[..]), "{answer}");
        upstream.send(ends_it).await;
        drop(upstream);
        assert_eq!(client.chunk().await, None, "{answer}");
        let line = proxy.logged_path("/events").await;
        assert_eq!(ended(&line), ("server_closed", &json!(200), &json!(200)), "{line}");
        assert_eq!(line["kind"], "sse");
        assert!((1000..2000).contains(&line["time_to_head_ms"].as_u64().unwrap_or_default()), "{line}");
        drop(client);
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_stream_is_kept_alive_before_and_behind_the_servers_head() {
    let Begun { proxy, mut client, mut upstream, .. } = begun("{ early_head: 1s, keepalive: 300ms }", "{}").await;
    for _ in 0..2 {
        assert_eq!(client.chunk().await.as_deref(), Some(&b":keepalive\n"[..]));
    }
    // Neither may half a head, or one that is none of ours.
    upstream.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n").await;
    for _ in 0..2 {
        assert_eq!(client.chunk().await.as_deref(), Some(&b":keepalive\n"[..]));
    }
    upstream.send(STREAM.split_once("\r\n").expect("a status line").1).await;
    assert_eq!(client.chunk().await.as_deref(), Some(&b":keepalive\n"[..]));
    client.reset();
    upstream.ends().await;
    let line = proxy.logged_path("/events").await;
    assert_eq!(line["server_status"], 200, "{line}");
}

#[tokio::test]
async fn the_time_to_wait_comes_first_and_once() {
    let sse = "{ early_head: 1s, keepalive: off, retry: 3s, comment: k }";
    let Begun { mut client, mut upstream, proxy: _proxy, .. } = asked(REQUEST, sse, "{}").await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!(client.chunk().await.as_deref(), Some(&b"retry: 3000\n"[..]));
    assert_eq!(client.chunk().await.as_deref(), Some(&b":k\n"[..]));
    client.stays_silent(millis(500)).await;
    upstream.send(STREAM.to_owned() + &chunk("data: a\n\n") + "0\r\n\r\n").await;
    assert_eq!(client.chunk().await.as_deref(), Some(&b"data: a\n\n"[..]));
    assert_eq!(client.chunk().await, None);
}

#[tokio::test]
async fn any_other_answer_ends_the_stream() {
    let cases = [
        ("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops".to_owned(), 500),
        ("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n".to_owned(), 302),
        ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 200),
        (STREAM.replace("Transfer-Encoding: chunked", "Content-Length: 100"), 200),
        (STREAM.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n"), 200),
        (ok("late"), 200),
    ];
    let checks = cases.map(async |(answer, status)| {
        let Begun { server, proxy, mut client, mut upstream } = begun(SETTINGS, "{}").await;
        upstream.send(&answer).await;
        assert_eq!(client.chunk().await, None, "{answer}");
        assert_eq!(ended(&proxy.logged_path("/events").await), ("complete", &json!(200), &json!(status)), "{answer}");
        upstream.ends().await;
        // Nothing of the answer is left on the client's connection.
        client.send(REQUEST).await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send(ok("next")).await;
        assert_eq!(client.response().await.text(), "next", "{answer}");
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn who_is_told_to_stop_is_told_to_stay_away() {
    let Begun { proxy, mut client, mut upstream, .. } = begun(SETTINGS, "{}").await;
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.chunk().await.as_deref(), Some(&b"retry: 3600000\n"[..]));
    assert_eq!(client.chunk().await, None);
    assert_eq!(ended(&proxy.logged_path("/events").await), ("complete", &json!(200), &json!(204)));
}

#[tokio::test]
async fn http_1_0_is_told_by_closing() {
    let request = REQUEST.replace("1.1", "1.0").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n");
    for (answer, body) in [
        (STREAM.to_owned() + &chunk("data: a\n\n") + "0\r\n\r\n", ":keepalive\ndata: a\n\n"),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), ":keepalive\nretry: 3600000\n"),
        (ok("late"), ":keepalive\n"),
    ] {
        let Begun { mut client, mut upstream, proxy: _proxy, .. } = asked(&request, SETTINGS, "{}").await;
        let head = client.head().await;
        assert_eq!((head.status(), head.field("transfer-encoding")), (200, None));
        upstream.send(&answer).await;
        assert_eq!(String::from_utf8_lossy(&client.rest().await), body, "{answer}");
    }
}

#[tokio::test]
async fn a_server_that_leaves_or_talks_nonsense_ends_the_stream() {
    for (nonsense, how) in [("", Leaving::Closed), ("", Leaving::Reset), ("HTTP/1.1 200 OK\r\nCon", Leaving::Closed)] {
        let Begun { proxy, mut client, mut upstream, .. } = begun(SETTINGS, "{}").await;
        upstream.send(nonsense).await;
        upstream.leave(how);
        assert_eq!(client.chunk().await, None);
        let line = proxy.logged_path("/events").await;
        assert_eq!(ended(&line), ("server_error", &json!(200), &Value::Null), "{nonsense:?}, {how:?}");
        drop(client);
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn a_server_that_never_answers_ends_the_stream_in_time() {
    for head in ["", "HTTP/1.1 200 OK\r\n"] {
        let Begun { proxy, mut client, mut upstream, .. } = begun(SETTINGS, "{ response_head: 2s }").await;
        upstream.send(head).await;
        assert_eq!(client.chunk().await, None);
        upstream.ends().await;
        let line = proxy.logged_path("/events").await;
        assert_eq!(ended(&line), ("idle", &json!(200), &Value::Null), "{head:?}");
        assert!((2000..4000).contains(&line["duration_ms"].as_u64().unwrap_or_default()), "{line}");
        proxy.settles("steadfast_errors_total", &[("error", "response_timeout")], 1.0).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    for how in Leaving::ALL {
        let Begun { proxy, client, mut upstream, .. } = begun(SETTINGS, "{}").await;
        client.leave(how);
        upstream.ends().await;
        let line = proxy.logged_path("/events").await;
        assert_eq!(ended(&line), ("client_closed", &json!(200), &Value::Null), "{how:?}");
        proxy.settles_empty().await;
    }
}

#[tokio::test]
async fn what_is_asked_for_behind_it_waits() {
    let Begun { server, mut client, mut upstream, proxy: _proxy } = begun(SETTINGS, "{}").await;
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(millis(200)).await;
    upstream.send(STREAM.to_owned() + &chunk("data: a\n\n") + "0\r\n\r\n").await;
    assert_eq!(client.chunk().await.as_deref(), Some(&b"data: a\n\n"[..]));
    assert_eq!(client.chunk().await, None);
    let mut upstream = server.accept().await;
    assert_eq!(upstream.request().await.head.start, "GET /next HTTP/1.1");
    upstream.send(ok("next")).await;
    assert_eq!(client.response().await.text(), "next");
}

#[tokio::test]
async fn who_may_mean_something_else_waits_for_the_server() {
    let with = |field: &str| REQUEST.replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"));
    let accepting = |accept: &str| REQUEST.replace("text/event-stream", accept);
    let cases = [
        (accepting("*/*"), SETTINGS),
        (accepting("text/event-stream, */*"), SETTINGS),
        (accepting("application/json, text/event-stream"), SETTINGS),
        (REQUEST.replace("Accept: text/event-stream\r\n", ""), SETTINGS),
        (with("Accept: text/html"), SETTINGS),
        // The browser would look for the server's permission.
        (with("Origin: https://b"), SETTINGS),
        (with("Upgrade: other\r\nConnection: upgrade"), SETTINGS),
        (REQUEST.replace("GET", "HEAD"), SETTINGS),
        (REQUEST.replace("GET", "POST"), SETTINGS),
        // It is off.
        (REQUEST.to_owned(), "{ keepalive: 1s }"),
        (REQUEST.to_owned(), "{ early_head: off }"),
    ];
    let checks = cases.map(async |(request, sse)| {
        let Begun { mut client, mut upstream, proxy: _proxy, .. } = asked(&request, sse, "{}").await;
        client.stays_silent(millis(1800)).await;
        upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(client.head().await.status(), 403, "{request}");
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn an_answer_in_time_is_the_servers() {
    let Begun { proxy, mut client, mut upstream, .. } = asked(REQUEST, "{ early_head: 2s }", "{}").await;
    client.stays_silent(millis(1300)).await; // It is parked by now.
    upstream.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 503);
    assert_eq!(ended(&proxy.logged_path("/events").await), ("complete", &json!(503), &Value::Null));
}

#[tokio::test]
async fn a_client_gets_its_cookie_with_the_early_head() {
    let server = Upstream::start().await;
    let proxy =
        Proxy::start().upstream("chat", &[&server]).affinity("[sticky_cookie]").sse("{ early_head: 1s }").run().await;
    let mut client = proxy.send(REQUEST).await;
    let cookie = client.head().await.field("set-cookie").unwrap_or_default();
    assert!(cookie.starts_with("steadfast="), "{cookie:?}");
}

#[tokio::test]
async fn a_real_event_source_comes_back_and_finds_out() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ early_head: 1s, retry: 200ms }").run().await;
    let node = Node::script("event_source_returns.js", &json!({ "url": format!("http://{}/", proxy.address()) }));
    let mut upstream = server.accept().await;
    upstream.request().await;
    assert_eq!(node.says("opened").await, true);
    upstream.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(node.says("ended").await, 0, "it is connecting again, and not closed for good");
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send(STREAM.to_owned() + &chunk("data: here\n\n")).await;
    assert_eq!(node.says("data").await, "here");
    assert_eq!(ended(&proxy.logged_path("/").await), ("complete", &json!(200), &json!(503)));
}

//! Traces: what a collector gets to see of requests and relays, what servers hear of the trace, and that
//! a collector which is away costs nobody anything.

use std::time::Instant;

use serde_json::json;

use crate::harness::client::SWITCHING;
use crate::harness::collector::{Taken, traces};
use crate::harness::node::{Node, NodeServer};
use crate::harness::relay::open_events;
use crate::harness::websocket::{self, close, frame, masked, masked_frame, short};
use crate::harness::{Collector, Proxy, Refusing, ServerEntry, Upstream, seconds, websocket_request};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const SPANS: &str = "steadfast_spans_exported_total";
const LOST: &str = "steadfast_spans_dropped_total";

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

/// What a caller in the same trace says.
fn caller(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{CALLER}-{flags}\r\n")
}

#[track_caller]
fn check(span: &Taken, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(span.says(name).as_deref(), Some(*value), "{name} of {span:?}");
    }
}

#[tokio::test]
async fn a_trace_goes_through_the_proxy_to_a_real_application() {
    let collector = Collector::start().await;
    let url = format!("http://{}/v1/traces", collector.address());
    let script = Node::script("traced_server.js", &json!({ "name": "a", "collector": url }));
    let server = NodeServer::listening(script).await;
    let proxy = Proxy::start()
        .upstream("chat", &[&server])
        .route("{ path: /pages, upstream: chat }")
        .line(&collector.traces(", service_name: edge"))
        .run()
        .await;
    let fields = format!("{}tracestate: vendor=1\r\nX-Forwarded-For: 203.0.113.9\r\n", caller("01"));
    assert_eq!(proxy.exchange(get("/pages/1?secret=2", &fields)).await.text(), "a");

    let exchange = collector.exchange("/pages/1").await;
    assert_eq!((exchange.trace().as_str(), exchange.parent().as_str()), (TRACE, CALLER));
    assert_eq!((exchange.span.name.as_str(), exchange.span.kind), ("GET /pages", 2));
    assert_eq!(exchange.sender_says("service.name").as_deref(), Some("edge"));
    check(
        &exchange,
        &[
            ("http.request.method", "GET"),
            ("http.route", "/pages"),
            ("http.response.status_code", "200"),
            ("client.address", "203.0.113.9"),
            ("steadfast.upstream", "chat"),
            ("steadfast.affinity", "forwarded_for"),
            ("steadfast.bytes_out", "1"),
            ("steadfast.end_reason", "complete"),
        ],
    );
    let leg = collector.child(&exchange, "GET").await;
    check(&leg, &[("http.response.status_code", "200"), ("server.port", &server.address().port().to_string())]);
    assert_eq!(leg.span.kind, 3);

    // The application's own span, by its own SDK: below that of what we have asked it.
    let theirs = collector.child(&leg, "GET").await;
    assert_eq!((theirs.trace().as_str(), theirs.span.kind), (TRACE, 2));
    assert_ne!(theirs.sender_says("service.name").as_deref(), Some("edge"));
    assert!(exchange.span.start_time_unix_nano <= leg.span.start_time_unix_nano);
    assert!(leg.span.end_time_unix_nano <= exchange.span.end_time_unix_nano);
    let said = format!(
        "{:?}",
        collector.all().into_iter().filter(|it| it.says("steadfast.upstream").is_some()).collect::<Vec<_>>()
    );
    assert!(!said.contains("secret"), "queries carry session ids: {said}");
}

#[tokio::test]
async fn a_websocket_is_seen_at_its_hand_off_and_again_at_its_end() {
    let collector = Collector::start().await;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).line(&collector.traces("")).run().await;
    let mut client = proxy.send(websocket_request("/ws", "")).await;
    let mut upstream = server.accept().await;
    let heard = upstream.request().await.head.field("traceparent").expect("it hears of the trace");
    upstream.send(SWITCHING).await;
    client.head().await;

    // It lives.
    let exchange = collector.exchange("/ws").await;
    check(&exchange, &[("http.response.status_code", "101"), ("steadfast.kind", "websocket")]);
    assert_eq!(exchange.says("steadfast.end_reason"), None);
    assert_eq!(exchange.span.events[0].name, "hand_off");
    let leg = collector.child(&exchange, "GET").await;
    assert_eq!(heard, format!("00-{}-{}-01", exchange.trace(), leg.id()));

    for _ in 0..3 {
        client.send(masked_frame("up")).await;
    }
    upstream.until(&masked_frame("up").repeat(3)).await;
    upstream.send(frame("down")).await;
    client.exactly(6).await;
    client.send(masked(0x88, &close(1000, ""), [0; 4])).await;
    upstream.exactly(8).await;
    upstream.send(short(0x88, &close(1000, ""))).await;
    drop((client, upstream));
    let relay = collector.child(&exchange, "relay").await;
    assert_eq!((relay.trace(), relay.span.kind), (exchange.trace(), 1));
    assert!(relay.span.start_time_unix_nano >= exchange.span.start_time_unix_nano);
    check(
        &relay,
        &[
            ("steadfast.kind", "websocket"),
            ("steadfast.messages_in", "3"),
            ("steadfast.messages_out", "1"),
            ("steadfast.close_code", "1000"),
            ("steadfast.end_reason", "client_closed"),
            ("steadfast.bytes_in", "32"),
        ],
    );
    proxy.settles(SPANS, &[], 3.0).await;
    assert_eq!(collector.all().len(), 3, "nothing is told twice");
}

#[tokio::test]
async fn an_event_stream_is_traced_to_the_next_process() {
    let collector = Collector::start().await;
    let server = Upstream::start().await;
    let mut proxy = Proxy::start()
        .upstream("chat", &[&server])
        .line(&collector.traces(""))
        .line("hand_over: { socket: DIRECTORY/hand-over.sock }")
        .run()
        .await;
    let (mut client, mut upstream) = open_events(&proxy, &server).await;
    let mut old = proxy.hand_over().await;
    assert!(old.exit().await.success());
    // What the old process knew it has sent before it was gone.
    let exchange = collector.exchange("/events").await;
    upstream.send("5\r\nd:1\n\n\r\n").await;
    client.until(b"d:1\n\n").await;
    upstream.send("0\r\n\r\n").await;
    let relay = collector.child(&exchange, "relay").await;
    check(&relay, &[("steadfast.kind", "sse"), ("steadfast.end_reason", "server_closed")]);
    let process = |span: &Taken| span.sender_says("process.pid");
    assert_ne!(process(&relay), process(&exchange));
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let collector = Collector::start().await;
    let (server, gone) = (Upstream::start().await, Refusing::start());
    let proxy = Proxy::start()
        .upstream("chat", &[&server])
        .upstream("gone", &[&gone])
        .route("{ path: /ws, upstream: chat }")
        .route("{ path: /gone, upstream: gone }")
        .line("limits: { per_client: 1 }")
        .line(&collector.traces(""))
        .run()
        .await;
    let damaged = get("/ws/damaged", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n");
    assert_eq!(proxy.exchange(damaged).await.status(), 426);
    assert_eq!(proxy.exchange(get("/elsewhere", "")).await.status(), 404);
    assert_eq!(proxy.exchange(get("/gone/1", "")).await.status(), 502);
    proxy.settles_empty().await;
    let _open = websocket::open(&proxy, &server).await;
    assert_eq!(proxy.exchange(get("/ws/full", "")).await.status(), 503);
    // A stream is refused by one that says when to come again, which is an error all the same.
    assert_eq!(proxy.exchange(get("/ws/stream", "Accept: text/event-stream\r\n")).await.status(), 200);
    for (path, name, status, error, is_error) in [
        ("/ws/damaged", "GET /ws", "426", "damaged_handshake", false),
        ("/elsewhere", "GET", "404", "no_route", false),
        ("/gone/1", "GET /gone", "502", "no_server", true),
        ("/ws/full", "GET /ws", "503", "too_many_of_client", true),
        ("/ws/stream", "GET /ws", "200", "too_many_of_client", true),
    ] {
        let span = collector.exchange(path).await;
        assert_eq!((span.span.name.as_str(), span.is_error()), (name, is_error), "{span:?}");
        check(
            &span,
            &[("http.response.status_code", status), ("error.type", error), ("steadfast.end_reason", "refused")],
        );
    }
    let refused = collector.exchange("/gone/1").await;
    let leg = collector.child(&refused, "GET").await;
    check(&leg, &[("error.type", "no_server")]);
    assert!(leg.is_error());
    let asked = collector.all().into_iter().filter(|it| it.span.kind == 3).count();
    assert_eq!(asked, 2, "who is refused before costs no server anything");
}

#[tokio::test]
async fn what_a_server_hears_follows_from_what_the_caller_says() {
    let collector = Collector::start().await;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).line(&collector.traces("")).run().await;
    let heard = async |fields: &str| {
        let _client = proxy.send(get("/x", &format!("{fields}Connection: close\r\n"))).await;
        let head = server.accept().await.request().await.head;
        (head.field("traceparent"), head.field("tracestate"))
    };
    let state = "tracestate: vendor=1\r\n";
    // Who has decided that a trace is not sampled is passed on as it is.
    let not_sampled = Some(format!("00-{TRACE}-{CALLER}-00"));
    assert_eq!(heard(&(caller("00") + state)).await, (not_sampled, Some("vendor=1".to_owned())));
    let (parent, kept) = heard(&(caller("01") + state)).await;
    let parent = parent.expect("a trace");
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && !parent.contains(CALLER), "{parent}");
    assert_eq!(kept.as_deref(), Some("vendor=1"));
    // What makes no sense begins another trace, and takes nothing along.
    for nonsense in [
        format!("traceparent: ff-{TRACE}-{CALLER}-01\r\n"),
        format!("traceparent: 00-{}-{CALLER}-01\r\n", TRACE.to_uppercase()),
        format!("traceparent: 00-{TRACE}-0000000000000000-01\r\n"),
        caller("01") + &caller("01"),
    ] {
        let (parent, kept) = heard(&(nonsense + state)).await;
        let parent = parent.expect("a trace");
        assert!(parent.len() == 55 && parent.ends_with("-01") && !parent.contains(TRACE), "{parent}");
        assert_eq!(kept, None);
    }
    // Off: all is as it came, whatever it is.
    let (on, off) = ("sample: 100%", "sample: 0%, propagate: off");
    assert_eq!(proxy.reload(&[(on, off)]).await.status(), 200);
    let unread = (Some("nonsense".to_owned()), Some("vendor=1".to_owned()));
    assert_eq!(heard(&format!("traceparent: nonsense\r\n{state}")).await, unread);
    assert_eq!(heard("").await, (None, None));
    // None sampled: who comes behind is told so.
    assert_eq!(proxy.reload(&[(off, "sample: 0%")]).await.status(), 200);
    let (parent, _) = heard("").await;
    assert!(parent.expect("a trace").ends_with("-00"));
}

#[tokio::test]
async fn traces_come_and_go_with_a_reload() {
    let collector = Collector::start().await;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).line("traces: off").run().await;
    let (before, upstream) = websocket::open(&proxy, &server).await;
    let on = collector.traces("");
    let answer = proxy.reload(&[("traces: off", &on)]).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let change = format!("traces: off -> {{ endpoint: http://{}, sample: 100% }}", collector.address());
    assert_eq!(answer.json(), json!({ "changes": [change] }));
    // What began untraced stays so.
    drop((before, upstream));
    proxy.settles_empty().await;
    let (during, upstream) = websocket::open(&proxy, &server).await;
    let exchange = collector.exchange("/ws").await;
    assert_eq!(proxy.reload(&[(on.as_str(), "traces: off")]).await.status(), 200);
    // What ends when traces are off is not told of.
    drop((during, upstream));
    proxy.settles_empty().await;
    assert_eq!(proxy.reload(&[("traces: off", &on)]).await.status(), 200);
    let (last, upstream) = websocket::open(&proxy, &server).await;
    drop((last, upstream));
    let relay = collector.span("a relay", |it| it.span.name == "relay").await;
    assert_ne!(relay.trace(), exchange.trace());
    assert_eq!(collector.all().iter().filter(|it| it.span.kind == 2).count(), 2);
}

#[tokio::test]
async fn a_collector_that_is_away_costs_nothing_but_spans() {
    let gone = Refusing::start();
    let server = Upstream::named("a").await;
    let setup = Proxy::start().upstream("chat", &[&server]).line(&traces(gone.address(), ""));
    let mut proxy = setup.run().await;
    for _ in 0..2 {
        let lost = proxy.metrics().await.sum(LOST, &[]);
        assert_eq!(proxy.exchange(get("/x", "")).await.text(), "a");
        // The exchange, and what its server was asked; a batch may have either.
        proxy.settles(LOST, &[("reason", "not_taken")], lost + 2.0).await;
    }
    let said = proxy.heard("traces: http://").await;
    assert!(said.contains("did not take"), "{said}");
    let lines = proxy.said();
    assert_eq!(lines.iter().filter(|line| line.contains("did not take")).count(), 1, "once a minute: {lines:?}");
    proxy.terminate();
    assert!(proxy.exit().await.success());
}

#[tokio::test]
async fn what_is_left_at_the_end_is_sent_and_nobody_waits_long_for_that() {
    let (collector, stuck) = (Collector::start().await, Collector::stuck().await);
    let server = Upstream::named("a").await;
    for (address, is_taken) in [(collector.address(), true), (stuck.address(), false)] {
        let setup = Proxy::start().upstream("chat", &[&server]).line(&traces(address, ""));
        let mut proxy = setup.line("shutdown: { grace: 0s }").run().await;
        assert_eq!(proxy.exchange(get("/last", "Connection: close\r\n")).await.text(), "a");
        proxy.logged_path("/last").await;
        let began = Instant::now();
        proxy.terminate();
        assert!(proxy.exit().await.success());
        if is_taken {
            assert_eq!(collector.all().len(), 2);
        } else {
            assert!(began.elapsed() < seconds(10), "it has taken {:?}", began.elapsed());
            assert!(
                proxy.said().iter().any(|line| line.contains("did not take the last 2 spans")),
                "{:?}",
                proxy.said()
            );
        }
    }
}

//! What spans come of which course of a request, and what they say.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderName, Method, Version};
use opentelemetry::trace::{SpanKind, Status};

use super::*;
use crate::observe::Asked;
use crate::observe::metrics::Metrics;
use crate::relay::{EndReason, Kind};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// A tracer, and where its spans go.
fn tracer(millionths: u32, propagates: bool) -> (Tracer, mpsc::Receiver<SpanData>) {
    let (queue, spans) = mpsc::channel(4);
    let sample = Share::new(millionths).expect("a share");
    (Tracer { sample, propagates, queue, metrics: Metrics::new().spans() }, spans)
}

fn fields(traceparents: &[&str]) -> HeaderMap {
    let name = HeaderName::from_static(TRACEPARENT);
    traceparents.iter().map(|field| (name.clone(), HeaderValue::from_str(field).expect("a field"))).collect()
}

fn asked() -> Asked {
    Asked {
        client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
        previous_hop: IpAddr::V4(Ipv4Addr::LOCALHOST),
        proxied_by: None,
        tls: None,
        method: Method::GET,
        host: "chat.example.com".into(),
        path: "/socket.io/".into(),
        protocol: Version::HTTP_11,
        upgrade: None,
        sec_websocket_key: None,
        error: None,
        browser: None,
    }
}

fn outcome(asked: &Asked) -> Outcome<'_> {
    Outcome {
        asked: Some(asked),
        age: Duration::from_secs(3),
        kind: Kind::Http,
        status: 200,
        upstream: "chat",
        server: Some(("a", ([10, 0, 0, 1], 3000).into())),
        affinity: "forwarded_for",
        bytes: (10, 20),
        messages: (0, 0),
        close_code: None,
        reason: Some(EndReason::Complete),
    }
}

/// Its attributes, as text.
fn said(span: &SpanData) -> BTreeMap<String, String> {
    span.attributes.iter().map(|it| (it.key.to_string(), it.value.to_string())).collect()
}

#[track_caller]
fn check_said(span: &SpanData, expected: &[(&str, &str)]) {
    let said = said(span);
    for (name, value) in expected {
        assert_eq!(said.get(*name).map(String::as_str), Some(*value), "{name} in {said:?}");
    }
    assert_eq!(said.len(), span.attributes.len(), "nothing is said twice: {said:?}");
}

#[test]
fn what_its_server_hears_follows_from_the_request() {
    /// What a server hears: who is the parent of its span, and whether that is sampled.
    #[derive(Debug, PartialEq, Eq)]
    enum Hears {
        /// What the request says.
        TheSame,
        /// Of a trace that began before us.
        TheSameTrace,
        /// Of one that begins here.
        AnotherTrace { is_sampled: bool },
    }
    #[track_caller]
    fn check(millionths: u32, propagates: bool, said: &[String], hears: &Hears, is_sampled: bool) {
        let (tracer, _spans) = tracer(millionths, propagates);
        let said: Vec<_> = said.iter().map(String::as_str).collect();
        let followed = tracer.follow(&fields(&said), (7, 8));
        assert_eq!(followed.as_deref().is_some_and(Followed::is_sampled), is_sampled, "{said:?}");
        let onward = followed.as_deref().and_then(Followed::onward);
        let context = onward.map(|onward| Context::parse(&onward.traceparent).expect("it is right"));
        let heard = match context {
            None => Hears::TheSame,
            Some(Context { trace, is_sampled, .. }) if trace == TraceId::new(7) => Hears::AnotherTrace { is_sampled },
            Some(_) => Hears::TheSameTrace,
        };
        assert_eq!(heard, *hears, "{said:?}");
        let keeps_state = onward.map(|onward| onward.keeps_state);
        assert_eq!(keeps_state.unwrap_or(*hears == Hears::TheSame), !matches!(heard, Hears::AnotherTrace { .. }));
    }

    let field = |flags: &str| format!("00-{TRACE}-{CALLER}-{flags}");
    check(1_000_000, true, &[], &Hears::AnotherTrace { is_sampled: true }, true);
    check(0, true, &[], &Hears::AnotherTrace { is_sampled: false }, false);
    check(0, true, &[field("01")], &Hears::TheSameTrace, true);
    check(1_000_000, true, &[field("00")], &Hears::TheSame, false);
    check(1_000_000, true, &["00-nonsense".to_owned()], &Hears::AnotherTrace { is_sampled: true }, true);
    check(0, true, &["00-nonsense".to_owned()], &Hears::AnotherTrace { is_sampled: false }, false);
    check(0, true, &[field("01"), field("01")], &Hears::AnotherTrace { is_sampled: false }, false);
    // Each for itself.
    check(1_000_000, false, &[field("00")], &Hears::TheSame, true);
    check(0, false, &[field("01")], &Hears::TheSame, false);
}

#[test]
fn an_exchange_is_a_span_with_one_for_each_server_that_was_asked() {
    let (tracer, mut spans) = tracer(0, true);
    let asked = asked();
    let at = |milliseconds| Outcome { age: Duration::from_millis(milliseconds), ..outcome(&asked) };
    let mut followed = tracer.follow(&fields(&[&format!("00-{TRACE}-{CALLER}-01")]), (7, 8)).expect("it is sampled");
    followed.routed("/socket.io/");
    followed.asks(Some(&tracer), &at(1), 21);
    followed.asks(Some(&tracer), &at(5), 22);
    followed.connected(Duration::from_millis(7));
    let heard = followed.onward().expect("its server hears of it");
    assert_eq!(String::from_utf8_lossy(&heard.traceparent), format!("00-{TRACE}-0000000000000016-01"));
    followed.end_leg(Some(&tracer), &Outcome { status: 404, ..at(9) }, None);
    followed.end(&tracer, &Outcome { status: 404, ..at(12) }, 23);

    let [stale, leg, exchange] = [(); 3].map(|()| spans.try_recv().expect("a span"));
    assert!(spans.try_recv().is_err());
    for span in [&stale, &leg, &exchange] {
        assert_eq!(span.span_context.trace_id().to_string(), TRACE);
        assert!(span.span_context.is_sampled());
    }
    let lasted = |span: &SpanData| span.end_time.duration_since(span.start_time).expect("time goes on").as_millis();
    assert_eq!((stale.span_kind.clone(), lasted(&stale)), (SpanKind::Client, 4));
    check_said(&stale, &[("error.type", "stale_connection")]);
    assert_eq!(stale.status, Status::error(""));

    assert_eq!((leg.span_kind.clone(), lasted(&leg), &*leg.name), (SpanKind::Client, 4, "GET"));
    assert_eq!(leg.span_context.span_id().to_string(), "0000000000000016");
    assert_eq!(leg.parent_span_id, exchange.span_context.span_id());
    let connected = &leg.events.events[0];
    assert_eq!(connected.name, "connected");
    assert_eq!(leg.end_time.duration_since(connected.timestamp).expect("it was before").as_millis(), 2);
    let server = [("server.address", "10.0.0.1"), ("server.port", "3000"), ("steadfast.server", "a")];
    check_said(&leg, &server);
    check_said(&leg, &[("http.response.status_code", "404"), ("error.type", "404")]);

    assert_eq!((exchange.span_kind.clone(), lasted(&exchange)), (SpanKind::Server, 12));
    assert_eq!(exchange.name, "GET /socket.io/");
    assert_eq!(exchange.parent_span_id.to_string(), CALLER);
    assert!(exchange.parent_span_is_remote && !leg.parent_span_is_remote);
    // To a server, what a client does wrong is no error.
    assert_eq!(exchange.status, Status::Unset);
    check_said(
        &exchange,
        &[
            ("http.request.method", "GET"),
            ("url.path", "/socket.io/"),
            ("url.scheme", "http"),
            ("http.route", "/socket.io/"),
            ("server.address", "chat.example.com"),
            ("client.address", "203.0.113.9"),
            ("network.peer.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("http.response.status_code", "404"),
            ("steadfast.kind", "http"),
            ("steadfast.upstream", "chat"),
            ("steadfast.server", "a"),
            ("steadfast.affinity", "forwarded_for"),
            ("steadfast.bytes_in", "10"),
            ("steadfast.bytes_out", "20"),
            ("steadfast.end_reason", "complete"),
        ],
    );
    assert!(!said(&exchange).contains_key("error.type"));
}

#[test]
fn errors_are_told_from_answers() {
    #[track_caller]
    fn check(error: Option<&'static str>, status: u16, reason: EndReason, is_error: bool, expected: Option<&str>) {
        let (tracer, mut spans) = tracer(1_000_000, true);
        let asked = Asked { error, ..asked() };
        let followed = tracer.follow(&HeaderMap::new(), (7, 8)).expect("it is sampled");
        followed.end(&tracer, &Outcome { status, reason: Some(reason), ..outcome(&asked) }, 9);
        let span = spans.try_recv().expect("a span");
        assert_eq!(span.status == Status::error(""), is_error, "{error:?} {status} {reason:?}");
        assert_eq!(said(&span).get("error.type").map(String::as_str), expected, "{error:?} {status} {reason:?}");
        assert_eq!(span.name, "GET", "of no route");
    }
    use EndReason::{ClientClosed, Complete, Refused, ServerError, ServerStalled};

    check(None, 200, Complete, false, None);
    check(None, 404, Complete, false, None);
    check(None, 200, ClientClosed, false, None);
    check(None, 500, Complete, true, Some("500"));
    check(None, 200, ServerError, true, Some("server_error"));
    check(None, 0, ServerStalled, true, Some("server_stalled"));
    check(Some("no_server"), 503, Refused, true, Some("no_server"));
    check(Some("no_server"), 200, Refused, true, Some("no_server"));
    check(Some("damaged_handshake"), 426, Refused, false, Some("damaged_handshake"));
}

#[test]
fn a_relay_has_a_span_behind_that_of_its_exchange() {
    let (tracer, mut spans) = tracer(1_000_000, false);
    let asked = asked();
    let followed = tracer.follow(&HeaderMap::new(), (7, 8)).expect("it is sampled");
    let at_hand_off = Outcome { kind: Kind::WebSocket, status: 101, reason: None, ..outcome(&asked) };
    let followed = followed.hand_off(Some(&tracer), &at_hand_off).expect("it goes on");
    let exchange = spans.try_recv().expect("it is seen at once");
    assert_eq!(exchange.events.events[0].name, "hand_off");
    check_said(&exchange, &[("http.response.status_code", "101"), ("steadfast.kind", "websocket")]);
    assert!(!said(&exchange).contains_key("steadfast.end_reason"), "it has not ended");

    let at_end = Outcome {
        asked: None,
        age: Duration::from_secs(3600),
        messages: (5, 6),
        close_code: Some(1000),
        reason: Some(EndReason::ServerError),
        ..at_hand_off
    };
    followed.end(&tracer, &at_end, 9);
    let relay = spans.try_recv().expect("its own");
    assert_eq!((&*relay.name, relay.span_kind.clone()), ("relay", SpanKind::Internal));
    assert_eq!(relay.span_context.trace_id(), exchange.span_context.trace_id());
    assert_eq!(relay.parent_span_id, exchange.span_context.span_id());
    assert_eq!(relay.end_time.duration_since(relay.start_time).expect("time goes on").as_secs(), 3597);
    check_said(
        &relay,
        &[
            ("steadfast.kind", "websocket"),
            ("steadfast.messages_in", "5"),
            ("steadfast.messages_out", "6"),
            ("steadfast.close_code", "1000"),
            ("steadfast.end_reason", "server_error"),
            ("error.type", "server_error"),
        ],
    );
    assert_eq!(relay.status, Status::error(""));
}

#[test]
fn what_clients_say_is_bounded() {
    let (tracer, mut spans) = tracer(1_000_000, true);
    let asked = Asked {
        method: Method::from_bytes(b"BREW").expect("a method"),
        path: format!("/{}", "ü".repeat(5000)).into(),
        ..asked()
    };
    let mut followed = tracer.follow(&HeaderMap::new(), (7, 8)).expect("it is sampled");
    followed.routed("/");
    followed.end(&tracer, &outcome(&asked), 9);
    let span = spans.try_recv().expect("a span");
    assert_eq!(span.name, "HTTP /");
    check_said(&span, &[("http.request.method", "_OTHER"), ("http.request.method_original", "BREW")]);
    assert_eq!(said(&span)["url.path"].len(), 511, "whole characters of at most 512 bytes");
}

#[test]
fn what_finds_no_room_is_counted() {
    let (tracer, spans) = tracer(1_000_000, true);
    let asked = asked();
    let end = || tracer.follow(&HeaderMap::new(), (7, 8)).expect("sampled").end(&tracer, &outcome(&asked), 9);
    (0..7).for_each(|_| end());
    assert_eq!((spans.len(), tracer.metrics.queue_full.get()), (4, 3));
    drop(spans);
    end();
    assert_eq!(tracer.metrics.queue_full.get(), 4);
}

#[test]
fn a_relay_remembers_little() {
    assert!(size_of::<Followed>() <= 32, "{} bytes", size_of::<Followed>());
}

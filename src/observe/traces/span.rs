//! What spans say. Names are those of OpenTelemetry's semantic conventions where they have one, and
//! begin with `steadfast.` where they do not. No query is said: queries carry session ids.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::{Method, Version};
use opentelemetry::trace::{Event, SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::context::{SpanId, TraceId};
use super::{Exchange, Leg, RelaySpan};
use crate::observe::Asked;
use crate::relay::{EndReason, Kind};

/// What the account of a request says when a span of it ends.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// What was asked for.
    pub asked: Option<&'a Asked>,
    /// Time since its head was complete.
    pub age: Duration,
    /// What it has turned out to be.
    pub kind: Kind,
    /// Status that was told to the client, or of the leg by the server; 0 when none was.
    pub status: u16,
    /// The upstream, empty when no route matched.
    pub upstream: &'a str,
    /// Name and address of the server, when one was reached.
    pub server: Option<(&'a str, SocketAddr)>,
    /// What named the client.
    pub affinity: &'static str,
    /// Bytes from and to the client.
    pub bytes: (u64, u64),
    /// Messages of a WebSocket from and to the client.
    pub messages: (u32, u32),
    /// The code of the first Close of a WebSocket.
    pub close_code: Option<u16>,
    /// Why it has ended; `None` when it goes on as a relay.
    pub reason: Option<EndReason>,
}

impl Outcome<'_> {
    /// What has gone wrong, in a word.
    pub fn error(&self) -> &'static str {
        let refusal = self.asked.and_then(|asked| asked.error);
        refusal.unwrap_or_else(|| self.reason.map_or("unknown", EndReason::label))
    }

    /// Whether the server's side has failed, as far as that is no answer.
    fn has_failed(&self) -> bool {
        matches!(self.reason, Some(EndReason::ServerError | EndReason::ServerStalled | EndReason::ServerDown))
    }
}

/// The span of an exchange.
pub(super) fn of_exchange(exchange: &Exchange, outcome: &Outcome<'_>, now: SystemTime) -> SpanData {
    let mut attributes = Vec::with_capacity(20);
    let mut say = |name, value: Value| attributes.push(KeyValue::new(name, value));
    let method = outcome.asked.map_or(OTHER_METHOD, |asked| known_method(&asked.method));
    if let Some(asked) = outcome.asked {
        say("http.request.method", method.into());
        if method == OTHER_METHOD {
            say("http.request.method_original", text(asked.method.as_str()));
        }
        say("url.path", text(&asked.path));
        say("url.scheme", if asked.tls.is_some() { "https" } else { "http" }.into());
        if !asked.host.is_empty() {
            say("server.address", text(&asked.host));
        }
        say("client.address", asked.client.to_string().into());
        say("network.peer.address", asked.previous_hop.to_string().into());
        say("network.protocol.version", protocol(asked.protocol).into());
    }
    if let Some(route) = &exchange.route {
        say("http.route", text(route));
    }
    if outcome.status != 0 {
        say("http.response.status_code", i64::from(outcome.status).into());
    }
    let refusal = outcome.asked.and_then(|asked| asked.error);
    // An event stream is refused by a 200 that says when to come again.
    let is_refused = refusal.is_some() && !(400..500).contains(&outcome.status);
    let is_error = outcome.status >= 500 || is_refused || outcome.has_failed();
    if let Some(refusal) = refusal {
        say("error.type", refusal.into());
    } else if outcome.has_failed() {
        say("error.type", outcome.error().into());
    } else if outcome.status >= 500 {
        say("error.type", outcome.status.to_string().into());
    }
    say_account(&mut attributes, outcome);
    let name = match &exchange.route {
        _ if method == OTHER_METHOD && exchange.route.is_none() => Cow::Borrowed("HTTP"),
        None => Cow::Borrowed(method),
        Some(route) => {
            let method = if method == OTHER_METHOD { "HTTP" } else { method };
            Cow::Owned(format!("{method} {}", cut(route)))
        }
    };
    let mut span = Sketch {
        ids: (exchange.context.trace, exchange.context.span, exchange.parent),
        kind: SpanKind::Server,
        name,
        attributes,
        is_error,
    }
    .lasting(Duration::ZERO, outcome.age, now);
    span.parent_span_is_remote = exchange.parent.is_some();
    if outcome.reason.is_none() {
        span.events.events.push(Event::new("hand_off", now, Vec::new(), 0));
    }
    span
}

/// The span of a `leg`, which has ended with `error`, or with the status of the server's answer.
pub(super) fn of_leg(
    exchange: &Exchange,
    leg: &Leg,
    outcome: &Outcome<'_>,
    error: Option<&'static str>,
    now: SystemTime,
) -> SpanData {
    let mut attributes = Vec::with_capacity(8);
    let mut say = |name, value: Value| attributes.push(KeyValue::new(name, value));
    let method = outcome.asked.map_or(OTHER_METHOD, |asked| known_method(&asked.method));
    say("http.request.method", method.into());
    say("steadfast.upstream", text(outcome.upstream));
    if let Some((name, address)) = outcome.server {
        say("server.address", address.ip().to_string().into());
        say("server.port", i64::from(address.port()).into());
        say("steadfast.server", text(name));
    }
    match error {
        Some(error) => say("error.type", error.into()),
        None => {
            say("http.response.status_code", i64::from(outcome.status).into());
            if outcome.status >= 400 {
                say("error.type", outcome.status.to_string().into());
            }
        }
    }
    let mut span = Sketch {
        ids: (exchange.context.trace, leg.span, Some(exchange.context.span)),
        kind: SpanKind::Client,
        name: Cow::Borrowed(if method == OTHER_METHOD { "HTTP" } else { method }),
        attributes,
        is_error: error.is_some() || outcome.status >= 400,
    }
    .lasting(leg.began, outcome.age, now);
    if let Some(connected) = leg.connected {
        let at = now - outcome.age.saturating_sub(connected);
        span.events.events.push(Event::new("connected", at, Vec::new(), 0));
    }
    span
}

/// The span of a relay, which is `span`.
pub(super) fn of_relay(relay: RelaySpan, span: SpanId, outcome: &Outcome<'_>, now: SystemTime) -> SpanData {
    let mut attributes = Vec::with_capacity(12);
    say_account(&mut attributes, outcome);
    let mut say = |name, value: Value| attributes.push(KeyValue::new(name, value));
    if outcome.kind == Kind::WebSocket {
        say("steadfast.messages_in", i64::from(outcome.messages.0).into());
        say("steadfast.messages_out", i64::from(outcome.messages.1).into());
    }
    if let Some(code) = outcome.close_code {
        say("steadfast.close_code", i64::from(code).into());
    }
    if outcome.has_failed() {
        say("error.type", outcome.error().into());
    }
    Sketch {
        ids: (relay.trace, span, Some(relay.parent)),
        kind: SpanKind::Internal,
        name: Cow::Borrowed("relay"),
        attributes,
        is_error: outcome.has_failed(),
    }
    .lasting(Duration::from_millis(relay.began_after.into()), outcome.age, now)
}

/// What every account says.
fn say_account(attributes: &mut Vec<KeyValue>, outcome: &Outcome<'_>) {
    let mut say = |name, value: Value| attributes.push(KeyValue::new(name, value));
    say("steadfast.kind", outcome.kind.label().into());
    if !outcome.upstream.is_empty() {
        say("steadfast.upstream", text(outcome.upstream));
    }
    if let Some((server, _)) = outcome.server {
        say("steadfast.server", text(server));
    }
    say("steadfast.affinity", outcome.affinity.into());
    say("steadfast.bytes_in", i64::try_from(outcome.bytes.0).unwrap_or(i64::MAX).into());
    say("steadfast.bytes_out", i64::try_from(outcome.bytes.1).unwrap_or(i64::MAX).into());
    if let Some(reason) = outcome.reason {
        say("steadfast.end_reason", reason.label().into());
    }
}

/// What tells spans from each other.
struct Sketch {
    ids: (TraceId, SpanId, Option<SpanId>),
    kind: SpanKind,
    name: Cow<'static, str>,
    attributes: Vec<KeyValue>,
    is_error: bool,
}

impl Sketch {
    /// The span, of an exchange that began `age` ago, from `began` in its life to `now`.
    fn lasting(self, began: Duration, age: Duration, now: SystemTime) -> SpanData {
        let (trace, span, parent) = self.ids;
        let id = |span: SpanId| opentelemetry::trace::SpanId::from_bytes(span.0);
        let trace = opentelemetry::trace::TraceId::from_bytes(trace.0);
        SpanData {
            span_context: SpanContext::new(trace, id(span), TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id: parent.map_or(opentelemetry::trace::SpanId::INVALID, id),
            parent_span_is_remote: false,
            span_kind: self.kind,
            name: self.name,
            start_time: now - age.saturating_sub(began),
            end_time: now,
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if self.is_error { Status::error("") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::builder("steadfast").with_version(VERSION).build(),
        }
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the conventions have said in the place of a method that is not one of theirs, of which there may
/// be any number.
const OTHER_METHOD: &str = "_OTHER";

fn known_method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER_METHOD)
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

/// Bytes of what clients have said that a span repeats: they wait in a queue.
const TEXT_BYTES_MAX: usize = 512;

fn text(text: &str) -> Value {
    cut(text).to_owned().into()
}

fn cut(text: &str) -> &str {
    let ends = (0..=text.len().min(TEXT_BYTES_MAX)).rev();
    let end = ends.into_iter().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

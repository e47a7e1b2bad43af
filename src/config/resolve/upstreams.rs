//! Upstreams: their time-outs, event streams and WebSockets.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{DAY, affinity, balance, fitness, servers, tls};
use crate::config::mistakes::quoted;
use crate::config::reader::{Fields, Item};
use crate::config::{
    AcceptEncoding, AffinitySource, Balance, Drain, Listener, OnDown, Pacing, Records, Sse, Timeouts, TrustedProxies,
    Upstream, WebSocket,
};
use crate::proxy_protocol::Version;

pub(super) fn upstreams(
    entries: &[(&str, Item<'_>)],
    listeners: &[(Item<'_>, Listener)],
    trusted_proxies: &TrustedProxies,
) -> Vec<Upstream> {
    let mut upstreams: Vec<Upstream> = Vec::new();
    for (name, item) in entries {
        let upstream = upstream(name, item, listeners, trusted_proxies);
        complain_of_shared_cookie(item, &upstream, &upstreams);
        upstreams.push(upstream);
    }
    upstreams
}

/// A cookie names one server. Upstreams with other servers would take it from each other, and a
/// client of both would change its server with every request.
fn complain_of_shared_cookie(item: &Item<'_>, upstream: &Upstream, earlier: &[Upstream]) {
    let cookie_of = |upstream: &Upstream| AffinitySource::sticky_cookie(&upstream.affinity).map(|it| it.name.clone());
    let Some(cookie) = cookie_of(upstream) else { return };
    let names = |upstream: &Upstream| upstream.servers.iter().map(|it| it.name.clone()).collect::<BTreeSet<_>>();
    let records =
        |upstream: &Upstream| upstream.discoveries.iter().map(|it| it.records.clone()).collect::<Vec<Records>>();
    let shares_records = |other: &Upstream| records(other).iter().any(|it| records(upstream).contains(it));
    let clashes = |other: &&Upstream| {
        let are_strangers = names(other).is_disjoint(&names(upstream)) && !shares_records(other);
        cookie_of(other).as_ref() == Some(&cookie) && are_strangers
    };
    if let Some(other) = earlier.iter().find(clashes) {
        item.complain(format!(
            "its sticky_cookie {} is that of upstreams.{} too, which has other servers; \
             write sticky_cookie: {{ name: ... }} with another name, or give the same servers the same names",
            quoted(&cookie),
            other.name
        ));
    }
}

fn upstream(
    name: &str,
    item: &Item<'_>,
    listeners: &[(Item<'_>, Listener)],
    trusted_proxies: &TrustedProxies,
) -> Upstream {
    item.kept(checked_name(name));
    let mut upstream = Upstream {
        name: name.to_owned(),
        servers: Vec::new(),
        discoveries: Vec::new(),
        health_check: None,
        tolerance: None,
        slow_start: Duration::ZERO,
        on_down: OnDown::default(),
        drain: Drain::default(),
        rebalance: None,
        affinity: Vec::new(),
        balance: Balance::default(),
        timeouts: Timeouts::default(),
        sse: Sse::default(),
        websocket: WebSocket::default(),
        pacing: None,
        send_proxy_protocol: None,
        tls: None,
    };
    if let Some(mut fields) = item.fields("write a mapping such as { servers: [\"10.0.0.1:3000\"] }") {
        (upstream.servers, upstream.discoveries) = servers::servers(&mut fields, listeners);
        upstream.affinity = affinity::affinity(&mut fields, trusted_proxies);
        upstream.balance = balance::balance(&mut fields);
        upstream.timeouts = timeouts(&mut fields);
        upstream.sse = sse(&mut fields, &upstream.timeouts);
        upstream.websocket = websocket(&mut fields);
        upstream.pacing = limits(&mut fields);
        upstream.send_proxy_protocol = send_proxy_protocol(&mut fields);
        upstream.tls = tls::of_upstream(&mut fields);
        upstream.health_check = fitness::health_check(&mut fields);
        upstream.tolerance = fitness::tolerance(&mut fields);
        upstream.slow_start = fitness::slow_start(&mut fields);
        upstream.on_down =
            fitness::on_down(&mut fields, upstream.health_check.is_some() || upstream.tolerance.is_some());
        upstream.drain = fitness::drain(&mut fields);
        upstream.rebalance = fitness::rebalance(&mut fields);
        fields.finish(&[]);
    }
    upstream
}

/// Names are labels of metrics and fields of logs.
pub(super) fn checked_name(text: &str) -> Result<&str, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text);
    }
    Err(format!("{} is not a name; write 1 to 64 of A-Z a-z 0-9 . _ -", quoted(text)))
}

fn timeouts(upstream: &mut Fields<'_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let item = upstream.optional("timeouts");
    let right = "write a mapping such as { connect: 2s, idle: 1h }";
    let Some(mut fields) = item.and_then(|item| item.fields(right)) else {
        return timeouts;
    };
    for (key, timeout, most) in [
        ("connect", &mut timeouts.connect, DAY),
        ("request_head", &mut timeouts.request_head, DAY),
        ("response_head", &mut timeouts.response_head, DAY),
        ("body", &mut timeouts.body, DAY),
        ("send", &mut timeouts.send, DAY),
        ("idle", &mut timeouts.idle, 30 * DAY),
        ("keepalive", &mut timeouts.keepalive, 30 * DAY),
    ] {
        if let Some(item) = fields.optional(key)
            && let Some(duration) = item.duration(LEAST..=most)
        {
            *timeout = duration;
        }
    }
    if let Some(item) = fields.optional("max_age") {
        timeouts.max_age = match item.as_text() {
            Some("none") => None,
            _ => item.duration(AGE_LEAST..=365 * DAY),
        };
    }
    fields.finish(&[]);
    timeouts
}

/// No time at all is not a time-out.
const LEAST: Duration = Duration::from_millis(1);

/// Shorter, and clients would do little else than connect.
const AGE_LEAST: Duration = Duration::from_secs(1);

fn sse(upstream: &mut Fields<'_>, timeouts: &Timeouts) -> Sse {
    let mut sse = Sse::default();
    let item = upstream.optional("sse");
    let right = "write a mapping such as { keepalive: 15s }";
    let Some(mut fields) = item.and_then(|item| item.fields(right)) else {
        return sse;
    };
    if let Some(item) = fields.optional("keepalive") {
        sse.keepalive = match item.is_off() {
            true => None,
            false => item.duration(LEAST..=DAY),
        };
    }
    if let Some(item) = fields.optional("comment") {
        let text = item.text("write text such as keepalive");
        if let Some(text) = text.and_then(|text| item.kept(comment(text))) {
            text.clone_into(&mut sse.comment);
        }
    }
    if let Some(item) = fields.optional("retry") {
        sse.retry = if item.is_none() { None } else { item.duration(LEAST..=DAY) };
    }
    let accept_encoding = fields.optional("accept_encoding");
    if let Some(choice) = accept_encoding.and_then(|item| item.one_of("choice", ACCEPT_ENCODING)) {
        sse.accept_encoding = choice;
    }
    if let Some(item) = fields.optional("early_head") {
        sse.early_head = if item.is_off() { None } else { item.duration(EARLY_HEAD_LEAST..=DAY) };
        if sse.early_head.is_some_and(|wait| wait >= timeouts.response_head) {
            item.complain("the time-out response_head would be over first; write a shorter time, or a longer time-out");
        }
    }
    sse.resume = resume(&mut fields);
    fields.finish(&[]);
    sse
}

/// On or off, and how often.
fn resume(sse: &mut Fields<'_>) -> Option<u32> {
    let item = sse.optional("resume");
    let is_on = item.as_ref().is_some_and(Item::is_on);
    if let Some(item) = item.filter(|item| !item.is_on() && !item.is_off()) {
        item.complain_of_type("write on or off");
        sse.optional("resume_attempts");
        return None;
    }
    let attempts = sse.optional("resume_attempts");
    if let Some(item) = attempts.as_ref().filter(|_| !is_on) {
        item.complain("no stream is resumed, because resume is off; write resume: on, or remove this");
    }
    let attempts = attempts.and_then(|item| item.number(1..=RESUME_ATTEMPTS_MAX, "write a number from 1 to 10"));
    is_on.then(|| attempts.unwrap_or(Sse::RESUME_ATTEMPTS))
}

/// Who has asked so many has asked all that are up.
const RESUME_ATTEMPTS_MAX: u32 = 10;

/// No exchange is parked sooner, and no hop is that impatient.
const EARLY_HEAD_LEAST: Duration = Duration::from_secs(1);

const ACCEPT_ENCODING: &[(&str, AcceptEncoding)] =
    &[("remove", AcceptEncoding::Remove), ("pass", AcceptEncoding::Pass)];

fn comment(text: &str) -> Result<&str, String> {
    if text.contains(['\r', '\n']) {
        let shown = quoted(text);
        return Err(format!("{shown} has a line break, which would end the comment; write one line"));
    }
    if text.len() > COMMENT_BYTES_MAX {
        let bytes = text.len();
        return Err(format!("this comment has {bytes} bytes; write at most {COMMENT_BYTES_MAX}"));
    }
    Ok(text)
}

const COMMENT_BYTES_MAX: usize = 256;

fn websocket(upstream: &mut Fields<'_>) -> WebSocket {
    let mut websocket = WebSocket::default();
    let item = upstream.optional("websocket");
    let right = "write a mapping such as { ping: 30s }";
    let Some(mut fields) = item.and_then(|item| item.fields(right)) else {
        return websocket;
    };
    if let Some(item) = fields.optional("ping") {
        websocket.ping = match item.is_off() {
            true => None,
            false => item.duration(PING_LEAST..=DAY),
        };
    }
    if let Some(item) = fields.optional("pong_timeout")
        && let Some(timeout) = item.duration(PONG_TIMEOUT_LEAST..=DAY)
    {
        websocket.pong_timeout = timeout;
    }
    fields.finish(&[]);
    websocket
}

fn send_proxy_protocol(upstream: &mut Fields<'_>) -> Option<Version> {
    const WORDS: &[(&str, Option<Version>)] = &[("off", None), ("v1", Some(Version::V1)), ("v2", Some(Version::V2))];
    let item = upstream.optional("send_proxy_protocol")?;
    if item.is_off() { None } else { item.one_of("version", WORDS)? }
}

fn limits(upstream: &mut Fields<'_>) -> Option<Pacing> {
    let right = "write a mapping such as { handshakes_per_second: 500, queue: 1s }";
    let mut fields = upstream.optional("limits")?.fields(right)?;
    let right = "write none or a number from 1 to 1000000";
    let per_second = fields.optional("handshakes_per_second").filter(|item| item.as_text() != Some("none"));
    let per_second = per_second.and_then(|item| item.number(1..=HANDSHAKES_MAX, right));
    let queue = fields.optional("queue").map(|item| (item.duration(Duration::ZERO..=QUEUE_MAX), item));
    if let Some((Some(_), item)) = &queue
        && !fields.has("handshakes_per_second")
    {
        item.complain("nobody waits, because there is no handshakes_per_second beside it; write one, or remove this");
    }
    fields.finish(&[]);
    let queue = queue.and_then(|(queue, _)| queue).unwrap_or(Pacing::QUEUE);
    per_second.map(|per_second| Pacing { per_second, queue })
}

/// More than any upstream takes.
const HANDSHAKES_MAX: u32 = 1_000_000;

/// Who has waited longer has gone.
const QUEUE_MAX: Duration = Duration::from_secs(60);

/// More often is no keepalive but a load.
const PING_LEAST: Duration = Duration::from_secs(1);

/// A relay's time is no finer.
const PONG_TIMEOUT_LEAST: Duration = Duration::from_millis(100);

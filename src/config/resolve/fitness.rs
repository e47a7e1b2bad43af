//! When servers count as fit, and how connections leave those that are not.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderValue;

use super::DAY;
use crate::config::mistakes::quoted;
use crate::config::reader::{Fields, Item};
use crate::config::{Drain, HealthCheck, OnDown, Probe, Rebalance, Removed, Tolerance};

pub(super) fn health_check(upstream: &mut Fields<'_>) -> Option<HealthCheck> {
    let item = upstream.optional("health_check").filter(|item| !item.is_off())?;
    let mut fields = item.fields("write a mapping such as { path: /healthz }, { tcp: on }, or off")?;
    let probe = probe(&mut fields);
    let mut check = HealthCheck::new(probe.unwrap_or(Probe::Tcp));
    let port = fields.optional("port");
    check.port = port.and_then(|item| item.number(1..=u16::MAX, "write a number from 1 to 65535"));
    for (key, duration, least, most) in [
        ("interval", &mut check.interval, INTERVAL_LEAST, HOUR),
        ("timeout", &mut check.timeout, Duration::from_millis(1), CHECK_MOST),
    ] {
        let written = fields.optional(key).and_then(|item| item.duration(least..=most));
        *duration = written.unwrap_or(*duration);
    }
    for (key, number) in [("rise", &mut check.rise), ("fall", &mut check.fall)] {
        let written = fields.optional(key).and_then(|item| item.number(1..=100, "write a number from 1 to 100"));
        *number = written.unwrap_or(*number);
    }
    fields.finish(&[]);
    Some(check)
}

/// More often is no check but a load.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);

/// A server that needs longer for this is not fit for anything else.
const CHECK_MOST: Duration = Duration::from_secs(60);

const HOUR: Duration = Duration::from_secs(3600);

/// One of two questions; what belongs to one is a mistake beside the other.
fn probe(fields: &mut Fields<'_>) -> Option<Probe> {
    let tcp = fields.optional("tcp");
    let is_tcp = tcp.as_ref().is_some_and(Item::is_on);
    let is_odd =
        tcp.filter(|item| !item.is_on() && !item.is_off()).inspect(|it| it.complain_of_type("write on or off"));
    let path = match is_tcp || is_odd.is_some() {
        true => fields.optional("path"),
        false => fields.required("path", "write a path such as /healthz, or tcp: on"),
    };
    if let Some(item) = path.as_ref().filter(|_| is_tcp) {
        item.complain("no path is asked for, because tcp is on; write one of both");
    }
    let host = fields.optional("host");
    let status = fields.optional("status");
    for item in [&host, &status].into_iter().flatten().filter(|_| is_tcp) {
        item.complain("nothing is asked over HTTP, because tcp is on; remove it, or write a path in place of tcp");
    }
    let path = path.and_then(|item| item.parse("write a path such as /healthz", check_path));
    let host = host.and_then(|item| item.parse("write a host such as chat.example.com", host_field));
    let status = status.map_or_else(|| Some(vec![200..=399]), |item| statuses(&item));
    if is_tcp {
        return Some(Probe::Tcp);
    }
    Some(Probe::Http { path: path?, host, status: status? })
}

fn check_path(text: &str) -> Result<String, String> {
    let shown = quoted(text);
    if !text.starts_with('/') {
        return Err(format!("{shown} does not begin with /; write a path such as /healthz"));
    }
    if text.contains('#') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{shown} has a fragment, blanks or characters beyond ASCII; write it as in a request"));
    }
    if text.len() > CHECK_PATH_BYTES_MAX {
        return Err(format!("this path has {} bytes; write at most {CHECK_PATH_BYTES_MAX}", text.len()));
    }
    Ok(text.to_owned())
}

const CHECK_PATH_BYTES_MAX: usize = 2048;

fn host_field(text: &str) -> Result<HeaderValue, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte);
    let is_host = (1..=255).contains(&text.len()) && text.bytes().all(allowed);
    let value = HeaderValue::from_str(text).ok().filter(|_| is_host);
    value.ok_or_else(|| format!("{} is no host; write one such as chat.example.com", quoted(text)))
}

fn statuses(item: &Item<'_>) -> Option<Vec<RangeInclusive<u16>>> {
    let right = "write a list of statuses and ranges, such as [200, \"300-399\"]";
    let items = item.list(right)?;
    let ranges: Vec<_> = items.iter().filter_map(|item| item.parse(right, status_range)).collect();
    (ranges.len() == items.len()).then_some(ranges)
}

fn status_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| text.trim().parse().ok().filter(|status| (100..=599).contains(status));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("{} is no status; write one from 100 to 599, or a range such as \"200-399\"", quoted(text))),
    }
}

pub(super) fn tolerance(upstream: &mut Fields<'_>) -> Option<Tolerance> {
    let mut tolerance = Tolerance::default();
    if let Some(item) = upstream.optional("max_fails") {
        let number = item.number(0..=1000, "write a number from 1 to 1000, or 0 to count no failures");
        tolerance.max_fails = number.unwrap_or(tolerance.max_fails);
    }
    if let Some(item) = upstream.optional("fail_timeout") {
        let written = item.duration(INTERVAL_LEAST..=HOUR);
        tolerance.fail_timeout = written.unwrap_or(tolerance.fail_timeout);
        if tolerance.max_fails == 0 {
            item.complain("no failures are counted, because max_fails is 0; remove one of both");
        }
    }
    (tolerance.max_fails > 0).then_some(tolerance)
}

pub(super) fn slow_start(upstream: &mut Fields<'_>) -> Duration {
    let item = upstream.optional("slow_start").filter(|item| !item.is_off());
    item.and_then(|item| item.duration(Duration::from_secs(1)..=HOUR)).unwrap_or_default()
}

/// `can_go_down` says whether anything could bring that about.
pub(super) fn on_down(upstream: &mut Fields<'_>, can_go_down: bool) -> OnDown {
    const WORDS: &[(&str, OnDown)] = &[("keep", OnDown::Keep), ("close", OnDown::Close)];
    let Some(item) = upstream.optional("on_down") else { return OnDown::default() };
    let on_down = item.one_of("choice", WORDS).unwrap_or_default();
    if on_down == OnDown::Close && !can_go_down {
        item.complain("no server is ever down, because max_fails is 0 and there is no health_check; remove it");
    }
    on_down
}

pub(super) fn drain(upstream: &mut Fields<'_>) -> Drain {
    const REMOVED: &[(&str, Removed)] = &[("keep", Removed::Keep), ("drain", Removed::Drain)];
    let mut drain = Drain::default();
    let right = "write a mapping such as { timeout: 60s, spread: 30s }";
    let Some(mut fields) = upstream.optional("drain").and_then(|item| item.fields(right)) else {
        return drain;
    };
    if let Some(item) = fields.optional("timeout") {
        drain.timeout = item.duration(Duration::ZERO..=DAY).unwrap_or(drain.timeout);
    }
    drain.spread = spread(&mut fields, ("timeout", drain.timeout), drain.spread);
    if let Some(item) = fields.optional("removed") {
        drain.removed = item.one_of("choice", REMOVED).unwrap_or(drain.removed);
    }
    fields.finish(&[]);
    drain
}

/// The part of a time called `name` over which ends are spread. What the file does not say fits into
/// it.
pub(super) fn spread(fields: &mut Fields<'_>, (name, whole): (&str, Duration), default: Duration) -> Duration {
    let Some(item) = fields.optional("spread") else { return default.min(whole) };
    let spread = item.duration(Duration::ZERO..=DAY);
    if spread.is_some_and(|spread| spread > whole) {
        item.complain(format!("{name} would be over before; write at most that, or a longer {name}"));
    }
    spread.unwrap_or(default)
}

pub(super) fn rebalance(upstream: &mut Fields<'_>) -> Option<Rebalance> {
    let item = upstream.optional("rebalance").filter(|item| !item.is_off())?;
    let mut fields = item.fields("write a mapping such as { per_minute: 5, min_age: 5m }, or off")?;
    let mut rebalance = Rebalance::default();
    if let Some(item) = fields.optional("per_minute") {
        let percent = item.number(1..=100, "write a number of percent from 1 to 100");
        rebalance.per_minute = percent.unwrap_or(rebalance.per_minute);
    }
    if let Some(item) = fields.optional("min_age") {
        rebalance.min_age = item.duration(Duration::ZERO..=30 * DAY).unwrap_or(rebalance.min_age);
    }
    fields.finish(&[]);
    Some(rebalance)
}

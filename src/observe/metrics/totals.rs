//! What counters have come to since the start, added up over upstreams: for whoever looks at the whole
//! process. Nothing of it ever gets smaller, so the difference of two moments is what happened between them.

use std::collections::BTreeMap;

use prometheus::IntCounterVec;
use prometheus::core::Collector;
use serde::{Deserialize, Serialize};

use super::Metrics;

/// Counts, by the value of a label.
pub type Sums = BTreeMap<String, u64>;

/// What counters have come to. Labels are those of the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests answered, by class of status.
    pub requests: Sums,
    /// Exchanges and relays that ended, by kind, and then by reason.
    pub ends: BTreeMap<String, Sums>,
    /// Bytes passed on behind the heads, by direction.
    pub bytes: Sums,
    /// Comments inserted into idle event streams.
    pub keepalives: u64,
    /// Pings inserted towards clients of WebSockets.
    pub pings: u64,
    /// Messages passed on by WebSockets, by direction.
    pub messages: Sums,
    /// WebSockets that ended, by the code of the first Close.
    pub closes: Sums,
    /// Event streams that lost their server, or left it, by result.
    pub resumed: Sums,
    /// Requests of sessions whose server is no longer there.
    pub lost_sessions: u64,
    /// Requests that the proxy itself refused or failed, by error.
    pub errors: Sums,
    /// WebSocket handshakes that came damaged, by what is wrong.
    pub damaged_handshakes: Sums,
    /// Those that came to stay where there is a limit per second, by outcome.
    pub paced_handshakes: Sums,
    /// TLS handshakes with clients, by version.
    pub tls_handshakes: Sums,
    /// Connections that were closed before their first request.
    pub refused_connections: RefusedConnections,
    /// Lines of the access log that were lost because its target was too slow.
    pub log_lines_lost: u64,
}

/// Connections that were closed before their first request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedConnections {
    /// Because no TLS came of them, by reason.
    pub tls: Sums,
    /// For want of a PROXY header that can be believed, by reason.
    pub proxy_protocol: Sums,
    /// Because they were too many even to be told so.
    pub untold: u64,
    /// That a listener could not accept.
    pub not_accepted: u64,
}

impl Metrics {
    /// What counters have come to.
    pub fn totals(&self) -> Totals {
        Totals {
            requests: by(&self.requests, "status"),
            ends: by_two(&self.ends, "kind", "end_reason"),
            bytes: by(&self.bytes, "direction"),
            keepalives: all(&self.keepalives),
            pings: all(&self.pings),
            messages: by(&self.messages, "direction"),
            closes: by(&self.closes, "code"),
            resumed: by(&self.resumed, "result"),
            lost_sessions: all(&self.lost_sessions),
            errors: by(&self.errors, "error"),
            damaged_handshakes: by(&self.damaged_handshakes, "kind"),
            paced_handshakes: by(&self.paced, "outcome"),
            tls_handshakes: by(&self.tls_handshakes, "version"),
            refused_connections: RefusedConnections {
                tls: by(&self.tls_refused, "reason"),
                proxy_protocol: by(&self.proxy_protocol_refused, "reason"),
                untold: self.connections_untold.get(),
                not_accepted: self.accept_failures.get(),
            },
            log_lines_lost: self.log_lines_lost.get(),
        }
    }

    /// How often the configuration was read again, by result.
    pub fn reloads(&self) -> Sums {
        by(&self.reloads, "result")
    }
}

/// Over all labels but this one.
fn by(counters: &IntCounterVec, label: &str) -> Sums {
    by_two(counters, label, label)
        .into_iter()
        .filter_map(|(value, mut counts)| Some((value.clone(), counts.remove(&value)?)))
        .collect()
}

fn all(counters: &IntCounterVec) -> u64 {
    each(counters).map(|(_, count)| count).sum()
}

/// Over all labels but these two.
fn by_two(counters: &IntCounterVec, first: &str, second: &str) -> BTreeMap<String, Sums> {
    let mut sums = BTreeMap::<String, Sums>::new();
    for (labels, count) in each(counters) {
        let value = |label: &str| labels.get(label).cloned().unwrap_or_default();
        *sums.entry(value(first)).or_default().entry(value(second)).or_default() += count;
    }
    sums
}

/// Each series of these counters: its labels, and its count.
fn each(counters: &IntCounterVec) -> impl Iterator<Item = (BTreeMap<String, String>, u64)> {
    counters.collect().into_iter().flat_map(|family| family.get_metric().to_vec()).map(|metric| {
        let labels = metric.get_label().iter().map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, as the library shows it")]
        let count = metric.get_counter().get_value() as u64;
        (labels, count)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::Damage;
    use crate::relay::{EndReason, Kind};

    #[test]
    fn counts_of_all_upstreams_are_added_up() {
        let metrics = Metrics::new();
        let (chat, news) = (metrics.upstream("chat"), metrics.upstream("news"));
        for status in [101, 200, 204] {
            chat.answered(status);
            news.answered(200);
        }
        chat.ended(Kind::WebSocket, EndReason::Drained, 1.0);
        news.ended(Kind::WebSocket, EndReason::Drained, 1.0);
        news.ended(Kind::Http, EndReason::Complete, 1.0);
        chat.keepalives.inc_by(2);
        news.keepalives.inc();
        metrics.count_error("no_route");
        for hop in 1..=3 {
            metrics.count_damaged_handshake(Damage::NoUpgrade, [10, 0, 0, hop].into());
        }
        metrics.reloaded(true);
        let totals = metrics.totals();
        let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect();
        assert_eq!(totals.requests, counts(&[("1xx", 1), ("2xx", 5), ("3xx", 0), ("4xx", 0), ("5xx", 0)]));
        let ends =
            [("http".to_owned(), counts(&[("complete", 1)])), ("websocket".to_owned(), counts(&[("drained", 2)]))];
        assert_eq!(totals.ends, ends.into());
        assert_eq!((totals.keepalives, totals.pings), (3, 0));
        // Those are there from the start.
        let counted = |all: BTreeMap<String, u64>| BTreeMap::from_iter(all.into_iter().filter(|(_, count)| *count > 0));
        assert_eq!(counted(totals.errors), counts(&[("no_route", 1)]));
        assert_eq!(totals.damaged_handshakes, counts(&[("no_upgrade", 3)]));
        assert_eq!(counted(metrics.reloads()), counts(&[("ok", 1)]));
    }
}

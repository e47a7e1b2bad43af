//! Every metric: name, help, labels and buckets, in one place.
//!
//! Labels are bounded: what is in them comes from the configuration file or from closed lists,
//! never from a request; of previous hops the first few have one. A server that is gone takes its
//! series along. What the path of each request touches is looked up once, at the start.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use ahash::AHashMap;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::affinity::doctor::Finding;
use crate::handshake::Damage;
use crate::listener::Refusal;
use crate::relay::websocket::Counts;
use crate::relay::{EndReason, Kind, Resumption, Untouched};
use crate::tls;
use crate::upstream::pace::Passage;

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    bytes: IntCounterVec,
    open: IntGaugeVec,
    durations: HistogramVec,
    keepalives: IntCounterVec,
    untouched: IntCounterVec,
    resumed: IntCounterVec,
    pings: IntCounterVec,
    messages: IntCounterVec,
    closes: IntCounterVec,
    opaque: IntCounterVec,
    ends: IntCounterVec,
    lost_sessions: IntCounterVec,
    findings: IntGaugeVec,
    discovery_failing: IntGaugeVec,
    up: IntGaugeVec,
    checks: IntCounterVec,
    transitions: IntCounterVec,
    connect_failures: IntCounterVec,
    series: Arc<AllSeries>,
    errors: IntCounterVec,
    proxy_protocol_refused: IntCounterVec,
    tls_handshakes: IntCounterVec,
    tls_refused: IntCounterVec,
    damaged_handshakes: IntCounterVec,
    paced: IntCounterVec,
    reloads: IntCounterVec,
    /// The hops that have a label: the first ones.
    hops: Mutex<Vec<IpAddr>>,
    sessions: IntGauge,
    sessions_evicted: IntCounter,
    session_store_errors: IntCounterVec,
    http2: Http2Metrics,
    /// Connections of clients, whatever they are doing.
    pub client_connections: IntGauge,
    /// Connections that a listener could not accept.
    pub accept_failures: IntCounter,
    /// Connections that were closed at once, because they were too many even to be told so.
    pub connections_untold: IntCounter,
    /// Lines of the access log that were lost because its target was too slow.
    pub log_lines_lost: IntCounter,
    /// Relays that went on in another process.
    pub relays_given: IntCounter,
    /// Relays that had begun in another process.
    pub relays_taken: IntCounter,
}

/// From a millisecond to a day: exchanges and relays share the buckets.
const SECONDS: [f64; 14] =
    [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0];

/// The classes of status codes, as label values.
const STATUS: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Where things go, as label values: to the server, and to the client.
const DIRECTIONS: [&str; 2] = ["up", "down"];

/// What became of those who came to stay where there is a pace, as label values.
const PACED: [&str; 3] = ["at_once", "waited", "refused"];

/// What checks find out, as label values.
const CHECKS: [&str; 2] = ["passed", "failed"];

/// What servers become, as label values.
const TRANSITIONS: [&str; 2] = ["up", "down"];

/// The codes of Closes, as label values. Those that the standard names have one each.
const CLOSE_CODES: [&str; 20] = [
    "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012", "1013",
    "1014", "1015", "3xxx", "4xxx", "none", "other",
];

/// How many previous hops have a label of their own.
const HOPS_MAX: usize = 16;

/// Which of [`CLOSE_CODES`] `code` is.
fn close_code(code: Option<u16>) -> usize {
    match code {
        Some(code @ 1000..=1015) => usize::from(code - 1000),
        Some(3000..=3999) => 16,
        Some(4000..=4999) => 17,
        None => 18,
        Some(_) => 19,
    }
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Panics
    /// Never: names and labels are constants, and a test builds them.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("a valid metric");
            register(&registry, counters)
        };
        let handed_over = counters(
            "steadfast_relays_handed_over_total",
            "Relays that went on in the next process (given), or had begun in the one before (taken).",
            &["direction"],
        );
        Self {
            requests: counters(
                "steadfast_requests_total",
                "Requests answered, by upstream (empty when none was found) and class of status.",
                &["upstream", "status"],
            ),
            paced: counters(
                "steadfast_paced_handshakes_total",
                "WebSockets, event streams and Engine.IO sessions that came to an upstream with a limit per second, by \
                 outcome: at_once, waited, refused.",
                &["upstream", "outcome"],
            ),
            bytes: counters(
                "steadfast_bytes_total",
                "Bytes passed on behind the heads, of relays within a minute, by direction: up is to the server.",
                &["upstream", "direction"],
            ),
            open: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("steadfast_open_connections", "Exchanges and relays open now, by kind and server."),
                    &["kind", "upstream", "server"],
                )
                .expect("a valid metric"),
            ),
            durations: register(
                &registry,
                HistogramVec::new(
                    HistogramOpts::new("steadfast_duration_seconds", "From the request to the end, by kind.")
                        .buckets(SECONDS.to_vec()),
                    &["kind", "upstream"],
                )
                .expect("a valid metric"),
            ),
            keepalives: counters(
                "steadfast_sse_keepalives_total",
                "Comments inserted into idle event streams.",
                &["upstream"],
            ),
            untouched: counters(
                "steadfast_sse_untouched_total",
                "Event streams into which nothing could be inserted, by what stood against it.",
                &["upstream", "reason"],
            ),
            resumed: counters(
                "steadfast_sse_resumed_total",
                "Event streams that lost their server, or left it, by result: resumed, failed (nobody went on), mid_event \
                 (lost within an event), no_id (nobody could say where to go on).",
                &["upstream", "result"],
            ),
            pings: counters(
                "steadfast_websocket_pings_total",
                "Pings inserted towards clients of WebSockets.",
                &["upstream"],
            ),
            messages: counters(
                "steadfast_websocket_messages_total",
                "Messages passed on by WebSockets, counted within a minute, by direction: up is to the server.",
                &["upstream", "direction"],
            ),
            closes: counters(
                "steadfast_websocket_closes_total",
                "WebSockets that ended, by the code of the first Close: none when there was none.",
                &["upstream", "code"],
            ),
            opaque: counters(
                "steadfast_websocket_opaque_total",
                "WebSockets on which something came that is no frame; no Ping or Close is inserted into them.",
                &["upstream"],
            ),
            ends: counters(
                "steadfast_ends_total",
                "Exchanges and relays that ended, by kind and reason.",
                &["kind", "upstream", "end_reason"],
            ),
            lost_sessions: counters(
                "steadfast_lost_sessions_total",
                "Requests of sessions whose server is no longer among the upstream's, or in maint.",
                &["upstream"],
            ),
            findings: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("steadfast_affinity_findings", "What is wrong with affinity: 1 while it is so."),
                    &["upstream", "finding"],
                )
                .expect("a valid metric"),
            ),
            connect_failures: counters(
                "steadfast_connect_failures_total",
                "Connections to servers that could not be made.",
                &["upstream", "server"],
            ),
            series: Arc::default(),
            up: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new("steadfast_server_up", "Whether a server is fit for clients: 1 while it is so."),
                    &["upstream", "server"],
                )
                .expect("a valid metric"),
            ),
            checks: counters(
                "steadfast_server_health_checks_total",
                "Health checks of servers, by result: passed, failed.",
                &["upstream", "server", "result"],
            ),
            transitions: counters(
                "steadfast_server_transitions_total",
                "How often servers have come up and gone down.",
                &["upstream", "server", "to"],
            ),
            discovery_failing: register(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "steadfast_discovery_failing",
                        "Whether the name of servers has no good answer at the moment: 1 while it is so.",
                    ),
                    &["upstream", "name"],
                )
                .expect("a valid metric"),
            ),
            errors: counters("steadfast_errors_total", "Requests the proxy itself refused or failed.", &["error"]),
            proxy_protocol_refused: counters(
                "steadfast_proxy_protocol_refused_total",
                "Connections closed for want of a PROXY header that can be believed, by reason.",
                &["reason"],
            ),
            tls_handshakes: counters(
                "steadfast_tls_handshakes_total",
                "TLS handshakes with clients, by version and whether both had met before.",
                &["version", "resumed"],
            ),
            tls_refused: counters(
                "steadfast_tls_refused_total",
                "Connections closed because no TLS came of them, by reason.",
                &["reason"],
            ),
            damaged_handshakes: counters(
                "steadfast_damaged_handshakes_total",
                "WebSocket handshakes that came damaged, by what is wrong and previous hop (the first 16, then other).",
                &["kind", "hop"],
            ),
            reloads: counters(
                "steadfast_reloads_total",
                "Times the configuration was read again, by result: ok, or refused when nothing changed.",
                &["result"],
            ),
            hops: Mutex::default(),
            sessions: register(
                &registry,
                IntGauge::new("steadfast_sessions", "Sessions that this process remembers.").expect("a valid metric"),
            ),
            sessions_evicted: register(
                &registry,
                IntCounter::new(
                    "steadfast_sessions_evicted_total",
                    "Sessions forgotten before their time because there were more than session_store.sessions.",
                )
                .expect("a valid metric"),
            ),
            session_store_errors: counters(
                "steadfast_session_store_errors_total",
                "What the session store was asked in vain, by reason; not_asked while it is known to be away.",
                &["reason"],
            ),
            http2: Http2Metrics::new(&registry),
            client_connections: register(
                &registry,
                IntGauge::new("steadfast_client_connections", "Connections of clients open now.")
                    .expect("a valid metric"),
            ),
            accept_failures: register(
                &registry,
                IntCounter::new("steadfast_accept_failures_total", "Connections that a listener could not accept.")
                    .expect("a valid metric"),
            ),
            connections_untold: register(
                &registry,
                IntCounter::new(
                    "steadfast_untold_connections_total",
                    "Connections closed without a word, because they were too many even to be told so.",
                )
                .expect("a valid metric"),
            ),
            log_lines_lost: register(
                &registry,
                IntCounter::new("steadfast_access_log_lost_total", "Log lines lost because their target was too slow.")
                    .expect("a valid metric"),
            ),
            relays_given: handed_over.with_label_values(&["given"]),
            relays_taken: handed_over.with_label_values(&["taken"]),
            registry,
        }
    }

    /// The text that Prometheus scrapes, and its content type.
    pub fn scrape(&self) -> (Vec<u8>, String) {
        let encoder = TextEncoder::new();
        let mut text = Vec::new();
        if let Err(error) = encoder.encode(&self.registry.gather(), &mut text) {
            tracing::error!("metrics could not be written: {error}");
        }
        (text, encoder.format_type().to_owned())
    }

    /// One more request that the proxy itself refused or failed; `error` is a fixed word.
    pub fn count_error(&self, error: &'static str) {
        self.errors.with_label_values(&[error]).inc();
    }

    /// The configuration was read again, and is in force if it was right.
    pub fn reloaded(&self, is_right: bool) {
        self.reloads.with_label_values(&[if is_right { "ok" } else { "refused" }]).inc();
    }

    /// One more WebSocket handshake that `hop` has sent damaged.
    pub fn count_damaged_handshake(&self, damage: Damage, hop: IpAddr) {
        let is_known = {
            let mut hops = self.hops.lock().unwrap_or_else(PoisonError::into_inner);
            if !hops.contains(&hop) && hops.len() < HOPS_MAX {
                hops.push(hop);
            }
            hops.contains(&hop)
        };
        let hop = if is_known { hop.to_string() } else { "other".to_owned() };
        self.damaged_handshakes.with_label_values(&[damage.label(), &hop]).inc();
    }

    /// What says whether the name that the servers of `upstream` are found by has no good answer.
    pub fn discovery_failing(&self, upstream: &str, name: &str) -> IntGauge {
        self.discovery_failing.with_label_values(&[upstream, name])
    }

    /// What the session store counts with.
    pub fn session_store(&self) -> SessionStoreMetrics {
        let errors = |reason| self.session_store_errors.with_label_values(&[reason]);
        SessionStoreMetrics {
            sessions: self.sessions.clone(),
            evicted: self.sessions_evicted.clone(),
            timeout: errors("timeout"),
            unavailable: errors("unavailable"),
            refused: errors("refused"),
            not_asked: errors("not_asked"),
        }
    }

    /// What connections of HTTP/2 count with.
    pub fn http2(&self) -> Http2Metrics {
        self.http2.clone()
    }

    /// What counts the connections that are closed for want of a PROXY header.
    pub fn proxy_protocol_refused(&self, refusal: Refusal) -> IntCounter {
        self.proxy_protocol_refused.with_label_values(&[refusal.label()])
    }

    /// What counts handshakes of TLS that came to their end.
    pub fn tls_handshakes(&self, version: &str, resumed: &str) -> IntCounter {
        self.tls_handshakes.with_label_values(&[version, resumed])
    }

    /// What counts the connections that are closed for want of TLS.
    pub fn tls_refused(&self, refusal: tls::front::Refusal) -> IntCounter {
        self.tls_refused.with_label_values(&[refusal.label()])
    }

    /// What the requests of upstream `name` count with. The empty name is for those without one.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        UpstreamMetrics {
            requests: STATUS.map(|status| self.requests.with_label_values(&[name, status])),
            bytes: DIRECTIONS.map(|direction| self.bytes.with_label_values(&[name, direction])),
            durations: Kind::ALL.map(|kind| self.durations.with_label_values(&[kind.label(), name])),
            keepalives: self.keepalives.with_label_values(&[name]),
            untouched: Untouched::ALL.map(|reason| self.untouched.with_label_values(&[name, reason.label()])),
            resumed: Resumption::ALL.map(|result| self.resumed.with_label_values(&[name, result.label()])),
            pings: self.pings.with_label_values(&[name]),
            messages: DIRECTIONS.map(|direction| self.messages.with_label_values(&[name, direction])),
            closes: Default::default(),
            closes_of_all: self.closes.clone(),
            opaque: self.opaque.with_label_values(&[name]),
            paced: PACED.map(|outcome| self.paced.with_label_values(&[name, outcome])),
            lost_sessions: self.lost_sessions.with_label_values(&[name]),
            findings: Finding::ALL.map(|finding| self.findings.with_label_values(&[name, finding.label()])),
            ends: Default::default(),
            ends_of_all: self.ends.clone(),
            name: name.to_owned(),
        }
    }

    /// What the connections of `server` of `upstream` count with.
    pub fn server(&self, upstream: &str, server: &str) -> ServerMetrics {
        ServerMetrics {
            _series: self.series(upstream, server),
            open: Kind::ALL.map(|kind| self.open.with_label_values(&[kind.label(), upstream, server])),
            connect_failures: self.connect_failures.with_label_values(&[upstream, server]),
            up: self.up.with_label_values(&[upstream, server]),
            checks: CHECKS.map(|result| self.checks.with_label_values(&[upstream, server, result])),
            transitions: TRANSITIONS.map(|to| self.transitions.with_label_values(&[upstream, server, to])),
        }
    }

    fn series(&self, upstream: &str, server: &str) -> Arc<Series> {
        let key = (upstream.to_owned(), server.to_owned());
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get(&key).and_then(Weak::upgrade) {
            return series;
        }
        let series = Arc::new(Series {
            key: key.clone(),
            open: self.open.clone(),
            connect_failures: self.connect_failures.clone(),
            up: self.up.clone(),
            checks: self.checks.clone(),
            transitions: self.transitions.clone(),
            all: self.series.clone(),
        });
        all.insert(key, Arc::downgrade(&series));
        series
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> M {
    registry.register(Box::new(metric.clone())).expect("metric names are unique");
    metric
}

/// What connections of HTTP/2 count with.
#[derive(Clone, Debug)]
pub struct Http2Metrics {
    /// Those of clients that are open now.
    pub connections: IntGauge,
    /// Streams on them: requests, and what has become of them.
    pub streams: IntGauge,
    /// Streams that clients have reset before their response was complete.
    pub resets: IntCounter,
    /// Connections closed because their client has reset too many.
    pub floods: IntCounter,
}

impl Http2Metrics {
    fn new(registry: &Registry) -> Self {
        let gauge = |name, help| register(registry, IntGauge::new(name, help).expect("a valid metric"));
        let counter = |name, help| register(registry, IntCounter::new(name, help).expect("a valid metric"));
        Self {
            connections: gauge("steadfast_http2_connections", "Connections of clients that speak HTTP/2, open now."),
            streams: gauge("steadfast_http2_streams", "Requests of HTTP/2, and what has become of them, open now."),
            resets: counter(
                "steadfast_http2_resets_total",
                "Requests of HTTP/2 that clients took back before they were answered whole.",
            ),
            floods: counter(
                "steadfast_http2_floods_total",
                "Connections of HTTP/2 closed because their client took back more than limits.resets.",
            ),
        }
    }
}

/// What the requests of one upstream count with.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: String,
    requests: [IntCounter; 5],
    bytes: [IntCounter; 2],
    durations: [Histogram; 4],
    /// Comments inserted into idle event streams.
    pub keepalives: IntCounter,
    untouched: [IntCounter; Untouched::ALL.len()],
    resumed: [IntCounter; Resumption::ALL.len()],
    /// Pings inserted towards clients of WebSockets.
    pub pings: IntCounter,
    messages: [IntCounter; 2],
    /// By code, looked up when first needed.
    closes: [OnceLock<IntCounter>; CLOSE_CODES.len()],
    closes_of_all: IntCounterVec,
    opaque: IntCounter,
    paced: [IntCounter; PACED.len()],
    /// Requests of sessions whose server is no longer among the upstream's, or in maint.
    pub lost_sessions: IntCounter,
    findings: [IntGauge; Finding::ALL.len()],
    /// By kind and reason, looked up when first needed.
    ends: [[OnceLock<IntCounter>; EndReason::COUNT]; Kind::ALL.len()],
    ends_of_all: IntCounterVec,
}

impl UpstreamMetrics {
    /// One more request, answered with `status`; 0 when the client got no answer at all.
    pub fn answered(&self, status: u16) {
        if let Some(counter) = (status / 100).checked_sub(1).and_then(|class| self.requests.get(usize::from(class))) {
            counter.inc();
        }
    }

    /// One more that came to stay was let through so, or not at all.
    pub fn paced(&self, passage: Option<Passage>) {
        let outcome = match passage {
            Some(Passage::AtOnce) => 0,
            Some(Passage::Waited) => 1,
            None => 2,
        };
        self.paced[outcome].inc();
    }

    /// So many more bytes went to a server and to a client.
    pub fn passed(&self, to_server: u64, to_client: u64) {
        for (counter, count) in self.bytes.iter().zip([to_server, to_client]) {
            if count > 0 {
                counter.inc_by(count);
            }
        }
    }

    /// Whether `finding` is so.
    pub fn found(&self, finding: Finding, is_so: bool) {
        self.findings[finding as usize].set(is_so.into());
    }

    /// One more event stream that is passed on as it is.
    pub fn untouched(&self, reason: Untouched) {
        self.untouched[reason as usize].inc();
    }

    /// One more event stream that lost its server, or left it.
    pub fn resumed(&self, result: Resumption) {
        self.resumed[result as usize].inc();
    }

    /// What a WebSocket has carried since it last said so.
    pub fn carried(&self, counts: Counts) {
        let [up, down] = &self.messages;
        for (counter, count) in [(up, counts.up), (down, counts.down), (&self.opaque, counts.is_opaque.into())] {
            if count > 0 {
                counter.inc_by(count.into());
            }
        }
    }

    /// One more end of a WebSocket, whose first Close had `code`.
    pub fn closed(&self, code: Option<u16>) {
        let at = close_code(code);
        let look_up = || self.closes_of_all.with_label_values(&[self.name.as_str(), CLOSE_CODES[at]]);
        self.closes[at].get_or_init(look_up).inc();
    }

    /// One more end.
    pub fn ended(&self, kind: Kind, reason: EndReason, seconds: f64) {
        self.durations[kind as usize].observe(seconds);
        let ends = &self.ends[kind as usize][reason as usize];
        let look_up = || self.ends_of_all.with_label_values(&[kind.label(), self.name.as_str(), reason.label()]);
        ends.get_or_init(look_up).inc();
    }
}

/// The series of one server, which end with the last one that has its name.
#[derive(Debug)]
struct Series {
    key: (String, String),
    open: IntGaugeVec,
    connect_failures: IntCounterVec,
    up: IntGaugeVec,
    checks: IntCounterVec,
    transitions: IntCounterVec,
    all: Arc<AllSeries>,
}

/// Those of all servers, by upstream and server.
type AllSeries = Mutex<AHashMap<(String, String), Weak<Series>>>;

impl Drop for Series {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(&self.key).is_some_and(|series| series.strong_count() > 0) {
            return; // Another server of this name has come at this very moment.
        }
        all.remove(&self.key);
        let (upstream, server) = (self.key.0.as_str(), self.key.1.as_str());
        // What was never looked up cannot be removed, and need not be.
        for kind in Kind::ALL {
            let _ = self.open.remove_label_values(&[kind.label(), upstream, server]);
        }
        let _ = self.connect_failures.remove_label_values(&[upstream, server]);
        let _ = self.up.remove_label_values(&[upstream, server]);
        for result in CHECKS {
            let _ = self.checks.remove_label_values(&[upstream, server, result]);
        }
        for to in TRANSITIONS {
            let _ = self.transitions.remove_label_values(&[upstream, server, to]);
        }
    }
}

/// What the connections of one server count with.
#[derive(Debug)]
pub struct ServerMetrics {
    _series: Arc<Series>,
    open: [IntGauge; 4],
    /// Connections that could not be made.
    pub connect_failures: IntCounter,
    /// 1 while it is up.
    pub up: IntGauge,
    checks: [IntCounter; CHECKS.len()],
    transitions: [IntCounter; TRANSITIONS.len()],
}

impl ServerMetrics {
    /// One more check, which it has passed or not.
    pub fn checked(&self, is_passed: bool) {
        self.checks[usize::from(!is_passed)].inc();
    }

    /// It has come up, or gone down.
    pub fn turned(&self, is_up: bool) {
        self.up.set(is_up.into());
        self.transitions[usize::from(!is_up)].inc();
    }

    /// The gauge of open exchanges and relays of `kind`.
    pub fn open(&self, kind: Kind) -> &IntGauge {
        &self.open[kind as usize]
    }
}

/// What the session store counts with.
#[derive(Clone, Debug)]
pub struct SessionStoreMetrics {
    /// Sessions in memory.
    pub sessions: IntGauge,
    /// Sessions that had to go while they were alive.
    pub evicted: IntCounter,
    /// Redis did not answer in time.
    pub timeout: IntCounter,
    /// There was no connection to Redis, or it broke.
    pub unavailable: IntCounter,
    /// Redis answered that it will not.
    pub refused: IntCounter,
    /// Redis was not asked, because it was known to be away.
    pub not_asked: IntCounter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_scraped() {
        let metrics = Metrics::new();
        let chat = metrics.upstream("chat");
        chat.answered(101);
        chat.answered(0);
        chat.passed(70_000, 3);
        chat.passed(5, 0);
        chat.ended(Kind::WebSocket, EndReason::ClientClosed, 3.0);
        chat.found(Finding::ForeignTags, true);
        let server = metrics.server("chat", "a");
        server.open(Kind::EventStream).inc();
        metrics.count_error("no_route");
        for (code, label) in [
            (Some(1000), "1000"),
            (Some(1012), "1012"),
            (Some(1015), "1015"),
            (Some(1016), "other"),
            (Some(3999), "3xxx"),
            (Some(4000), "4xxx"),
            (None, "none"),
            (Some(0), "other"),
        ] {
            assert_eq!(CLOSE_CODES[close_code(code)], label, "{code:?}");
        }
        chat.untouched(Untouched::Encoding);
        for hop in 1..=20 {
            metrics.count_damaged_handshake(Damage::Http10, [10, 0, 0, hop].into());
            metrics.count_damaged_handshake(Damage::NoUpgrade, [10, 0, 0, 1].into());
        }
        chat.closed(Some(1012));
        chat.carried(Counts { up: 2, down: 3, is_opaque: true });
        let (text, content_type) = metrics.scrape();
        let text = String::from_utf8(text).expect("metrics are text");
        assert_eq!(content_type, "text/plain; version=0.0.4");
        for line in [
            r#"steadfast_requests_total{status="1xx",upstream="chat"} 1"#,
            r#"steadfast_requests_total{status="5xx",upstream="chat"} 0"#,
            r#"steadfast_bytes_total{direction="up",upstream="chat"} 70005"#,
            r#"steadfast_bytes_total{direction="down",upstream="chat"} 3"#,
            r#"steadfast_affinity_findings{finding="foreign_tags",upstream="chat"} 1"#,
            r#"steadfast_affinity_findings{finding="one_key",upstream="chat"} 0"#,
            r#"steadfast_ends_total{end_reason="client_closed",kind="websocket",upstream="chat"} 1"#,
            r#"steadfast_duration_seconds_bucket{kind="websocket",upstream="chat",le="10"} 1"#,
            r#"steadfast_open_connections{kind="sse",server="a",upstream="chat"} 1"#,
            r#"steadfast_errors_total{error="no_route"} 1"#,
            r#"steadfast_damaged_handshakes_total{hop="10.0.0.16",kind="http_1_0"} 1"#,
            r#"steadfast_damaged_handshakes_total{hop="other",kind="http_1_0"} 4"#,
            r#"steadfast_damaged_handshakes_total{hop="10.0.0.1",kind="no_upgrade"} 20"#,
            r#"steadfast_websocket_closes_total{code="1012",upstream="chat"} 1"#,
            r#"steadfast_websocket_messages_total{direction="up",upstream="chat"} 2"#,
            r#"steadfast_websocket_messages_total{direction="down",upstream="chat"} 3"#,
            r#"steadfast_websocket_opaque_total{upstream="chat"} 1"#,
            r#"steadfast_sse_untouched_total{reason="encoding",upstream="chat"} 1"#,
            r#"steadfast_sse_untouched_total{reason="length",upstream="chat"} 0"#,
            r#"steadfast_websocket_pings_total{upstream="chat"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}

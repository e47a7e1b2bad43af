//! What is counted, and how it is scraped.
//!
//! Labels are bounded: what is in them comes from the configuration file or from closed lists,
//! never from a request; of previous hops the first few have one. A server that is gone takes its
//! series along. What the path of each request touches is looked up once, at the start.

mod definitions;
mod servers;
mod totals;

use std::net::IpAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use self::definitions::{CLOSE_CODES, DEFINITIONS, DIRECTIONS, ERRORS, HANDED, PACED, RELOADS, STATUS, Type};
use self::servers::AllServers;
pub use self::servers::ServerMetrics;
use crate::affinity::doctor::Finding;
use crate::handshake::Damage;
use crate::listener::Refusal;
use crate::relay::websocket::Counts;
use crate::relay::{EndReason, Kind, Resumption, Untouched};
use crate::tls;
use crate::upstream::pace::Passage;

pub use totals::{RefusedConnections, Sums, Totals};

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    bytes: IntCounterVec,
    durations: HistogramVec,
    heads: HistogramVec,
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
    servers: AllServers,
    errors: IntCounterVec,
    proxy_protocol_refused: IntCounterVec,
    tls_handshakes: IntCounterVec,
    tls_refused: IntCounterVec,
    certificates: IntGaugeVec,
    damaged_handshakes: IntCounterVec,
    paced: IntCounterVec,
    reloads: IntCounterVec,
    is_reloaded: IntGauge,
    reloaded_at: IntGauge,
    /// The hops that have a label: the first ones.
    hops: Mutex<Vec<IpAddr>>,
    sessions: IntGauge,
    sessions_max: IntGauge,
    sessions_evicted: IntCounter,
    session_store_errors: IntCounterVec,
    http2: Http2Metrics,
    /// Connections of clients, whatever they are doing.
    pub client_connections: IntGauge,
    /// How many of them are served at once.
    pub client_connections_max: IntGauge,
    /// Connections that a listener could not accept.
    pub accept_failures: IntCounter,
    /// Connections that were closed at once, because they were too many even to be told so.
    pub connections_untold: IntCounter,
    /// Lines of the access log that were lost because its target was too slow.
    pub log_lines_lost: IntCounter,
    /// Drains that go on.
    pub drains: IntGauge,
    /// Times that another process was to take over, and this one went on.
    pub hand_overs_failed: IntCounter,
    spans_exported: IntCounter,
    spans_dropped: IntCounterVec,
    /// Relays that went on in another process.
    pub relays_given: IntCounter,
    /// Relays that had begun in another process.
    pub relays_taken: IntCounter,
}

/// From a millisecond to a day: exchanges and relays share the buckets.
const SECONDS: [f64; 14] =
    [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0];

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
        let counters = |name| counters(&registry, name);
        let gauges = |name| gauges(&registry, name);
        let histograms = |name| histograms(&registry, name);
        let counter = |name| counters(name).with_label_values(NO_LABELS);
        let gauge = |name| gauges(name).with_label_values(NO_LABELS);
        let handed_over = counters("steadfast_relays_handed_over_total");
        gauges("steadfast_build_info").with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(ProcessCollector::for_self())).expect("metric names are unique");
        let metrics = Self {
            requests: counters("steadfast_requests_total"),
            bytes: counters("steadfast_bytes_total"),
            durations: histograms("steadfast_duration_seconds"),
            heads: histograms("steadfast_response_head_seconds"),
            keepalives: counters("steadfast_sse_keepalives_total"),
            untouched: counters("steadfast_sse_untouched_total"),
            resumed: counters("steadfast_sse_resumed_total"),
            pings: counters("steadfast_websocket_pings_total"),
            messages: counters("steadfast_websocket_messages_total"),
            closes: counters("steadfast_websocket_closes_total"),
            opaque: counters("steadfast_websocket_opaque_total"),
            ends: counters("steadfast_ends_total"),
            lost_sessions: counters("steadfast_lost_sessions_total"),
            findings: gauges("steadfast_affinity_findings"),
            discovery_failing: gauges("steadfast_discovery_failing"),
            servers: AllServers::new(counters, gauges),
            errors: counters("steadfast_errors_total"),
            proxy_protocol_refused: counters("steadfast_proxy_protocol_refused_total"),
            tls_handshakes: counters("steadfast_tls_handshakes_total"),
            tls_refused: counters("steadfast_tls_refused_total"),
            certificates: gauges("steadfast_certificate_expiry_timestamp_seconds"),
            damaged_handshakes: counters("steadfast_damaged_handshakes_total"),
            paced: counters("steadfast_paced_handshakes_total"),
            reloads: counters("steadfast_reloads_total"),
            is_reloaded: gauge("steadfast_config_last_reload_successful"),
            reloaded_at: gauge("steadfast_config_last_reload_success_timestamp_seconds"),
            hops: Mutex::default(),
            sessions: gauge("steadfast_sessions"),
            sessions_max: gauge("steadfast_sessions_max"),
            sessions_evicted: counter("steadfast_sessions_evicted_total"),
            session_store_errors: counters("steadfast_session_store_errors_total"),
            http2: Http2Metrics {
                connections: gauge("steadfast_http2_connections"),
                streams: gauge("steadfast_http2_streams"),
                resets: counter("steadfast_http2_resets_total"),
                floods: counter("steadfast_http2_floods_total"),
            },
            client_connections: gauge("steadfast_client_connections"),
            client_connections_max: gauge("steadfast_client_connections_max"),
            accept_failures: counter("steadfast_accept_failures_total"),
            connections_untold: counter("steadfast_untold_connections_total"),
            log_lines_lost: counter("steadfast_access_log_lost_total"),
            drains: gauge("steadfast_drains_in_progress"),
            hand_overs_failed: counter("steadfast_hand_overs_failed_total"),
            spans_exported: counter("steadfast_spans_exported_total"),
            spans_dropped: counters("steadfast_spans_dropped_total"),
            relays_given: handed_over.with_label_values(&[HANDED[0]]),
            relays_taken: handed_over.with_label_values(&[HANDED[1]]),
            registry,
        };
        metrics.loaded();
        // There from the start: of what begins with one, Prometheus does not see that it grew.
        for error in ERRORS {
            metrics.errors.with_label_values(&[error]);
        }
        for result in RELOADS {
            metrics.reloads.with_label_values(&[result]);
        }
        metrics
    }

    /// A configuration is in force from now on.
    fn loaded(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reloaded_at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        self.is_reloaded.set(1);
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
        debug_assert!(ERRORS.contains(&error), "{error} is missing among the values of the label");
        self.errors.with_label_values(&[error]).inc();
    }

    /// The configuration was read again, and is in force if it was right.
    pub fn reloaded(&self, is_right: bool) {
        self.reloads.with_label_values(&[RELOADS[usize::from(!is_right)]]).inc();
        match is_right {
            true => self.loaded(),
            false => self.is_reloaded.set(0),
        }
    }

    /// These certificates are shown from now on, and no others: where each stands, and when it ends, in
    /// seconds of Unix time.
    pub fn shows(&self, certificates: impl IntoIterator<Item = (String, i64)>) {
        self.certificates.reset();
        for (file, until) in certificates {
            self.certificates.with_label_values(&[&file]).set(until);
        }
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
            max: self.sessions_max.clone(),
            evicted: self.sessions_evicted.clone(),
            timeout: errors("timeout"),
            unavailable: errors("unavailable"),
            refused: errors("refused"),
            not_asked: errors("not_asked"),
        }
    }

    /// What spans are counted with.
    pub fn spans(&self) -> SpanMetrics {
        let dropped = |reason| self.spans_dropped.with_label_values(&[reason]);
        SpanMetrics {
            exported: self.spans_exported.clone(),
            queue_full: dropped("queue_full"),
            not_taken: dropped("not_taken"),
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
            heads: Kind::ALL.map(|kind| self.heads.with_label_values(&[kind.label(), name])),
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
        self.servers.server(upstream, server)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// For metrics of one series.
const NO_LABELS: &[&str] = &[];

fn counters(registry: &Registry, name: &str) -> IntCounterVec {
    let (options, labels) = options(name, Type::Counter);
    register(registry, IntCounterVec::new(options, &labels).expect("a valid metric"))
}

fn gauges(registry: &Registry, name: &str) -> IntGaugeVec {
    let (options, labels) = options(name, Type::Gauge);
    register(registry, IntGaugeVec::new(options, &labels).expect("a valid metric"))
}

fn histograms(registry: &Registry, name: &str) -> HistogramVec {
    let (options, labels) = options(name, Type::Histogram);
    let options = HistogramOpts::from(options).buckets(SECONDS.to_vec());
    register(registry, HistogramVec::new(options, &labels).expect("a valid metric"))
}

/// Help and labels of a metric, which is of this type.
fn options(name: &str, kind: Type) -> (Opts, Vec<&'static str>) {
    let definition = DEFINITIONS.iter().find(|it| it.name == name && it.kind == kind);
    let definition = definition.expect("what is counted is defined");
    (Opts::new(name, definition.help), definition.labels.iter().map(|label| label.name).collect())
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

/// What the requests of one upstream count with.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: String,
    requests: [IntCounter; 5],
    bytes: [IntCounter; 2],
    durations: [Histogram; Kind::ALL.len()],
    heads: [Histogram; Kind::ALL.len()],
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

    /// The head of a response went out, so many seconds behind that of its request.
    pub fn head_came(&self, kind: Kind, seconds: f64) {
        self.heads[kind as usize].observe(seconds);
    }

    /// One more end.
    pub fn ended(&self, kind: Kind, reason: EndReason, seconds: f64) {
        self.durations[kind as usize].observe(seconds);
        let ends = &self.ends[kind as usize][reason as usize];
        let look_up = || self.ends_of_all.with_label_values(&[kind.label(), self.name.as_str(), reason.label()]);
        ends.get_or_init(look_up).inc();
    }
}

/// What spans are counted with.
#[derive(Clone, Debug)]
pub struct SpanMetrics {
    /// A collector has taken them.
    pub exported: IntCounter,
    /// They found no room.
    pub queue_full: IntCounter,
    /// The collector has not taken them.
    pub not_taken: IntCounter,
}

/// What the session store counts with.
#[derive(Clone, Debug)]
pub struct SessionStoreMetrics {
    /// Sessions in memory.
    pub sessions: IntGauge,
    /// Sessions that there is room for.
    pub max: IntGauge,
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
    use super::definitions::{Definition, Values};
    use super::*;
    use crate::reference;

    #[test]
    fn what_is_defined_is_what_is_registered() {
        let metrics = Metrics::new();
        for definition in DEFINITIONS {
            let twin = IntGauge::new(definition.name, definition.help).expect("a valid metric");
            let registered = metrics.registry.register(Box::new(twin));
            assert!(registered.is_err(), "nobody counts {}", definition.name);
            let is_counter = definition.name.ends_with("_total");
            assert_eq!(is_counter, definition.kind == Type::Counter, "{}", definition.name);
        }
        let gathered = metrics.registry.gather();
        assert!(gathered.len() > 20, "{gathered:#?}");
        for family in gathered {
            let definition = DEFINITIONS.iter().find(|it| it.name == family.name());
            let definition = definition.unwrap_or_else(|| panic!("{} is counted and not defined", family.name()));
            assert_eq!(family.help(), definition.help, "{}", definition.name);
        }
    }

    #[test]
    fn the_tables_of_the_reference_are_those_of_the_metrics() {
        reference::check("metrics", |_| {
            let rows = DEFINITIONS.iter().map(row).collect::<String>();
            format!("| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}")
        });
    }

    fn row(definition: &Definition) -> String {
        let kind = format!("{:?}", definition.kind).to_lowercase();
        let name = definition.name.trim_end_matches("_total");
        let unit = match name {
            _ if name.ends_with("_timestamp_seconds") || name.ends_with("_time_seconds") => ", Unix time",
            _ if name.ends_with("_seconds") => ", seconds",
            _ if name.ends_with("_bytes") => ", bytes",
            _ => "",
        };
        let labels: Vec<_> = definition
            .labels
            .iter()
            .map(|label| {
                let words =
                    |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
                let values = match &label.values {
                    Values::Words(known) => words(known),
                    Values::Listed(known) => words(&known()),
                    Values::Told(words) => (*words).to_owned(),
                };
                let colon = if values.is_empty() { "" } else { ": " };
                format!("`{}`{colon}{values}", label.name)
            })
            .collect();
        let labels = if labels.is_empty() { String::new() } else { format!(" {}", labels.join("; ")) };
        format!("| `{}` | {kind}{unit} |{labels} | {} |\n", definition.name, definition.help)
    }

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

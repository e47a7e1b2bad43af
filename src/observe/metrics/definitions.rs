//! Every metric: name, type, labels and help. The reference's table is written from here.
//!
//! The rule: what is not in [`DEFINITIONS`] cannot be counted, and what is in there is counted: a test
//! compares it with what is registered.

use crate::affinity::doctor::Finding;
use crate::handshake::Damage;
use crate::listener;
use crate::relay::{EndReason, Kind, Resumption, Untouched};
use crate::tls::front;

/// A metric.
#[derive(Debug)]
pub(super) struct Definition {
    /// With the unit at its end, by the conventions of Prometheus.
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) labels: &'static [Label],
    /// One sentence.
    pub(super) help: &'static str,
}

/// What becomes of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// They only grow.
    Counter,
    /// They come and go.
    Gauge,
    /// They are counted by size.
    Histogram,
}

/// What tells series of one metric apart.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) name: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "told in the reference, which a test writes"))]
    pub(super) values: Values,
}

/// What a label may say. All of it is bounded.
#[cfg_attr(not(test), expect(dead_code, reason = "told in the reference, which a test writes"))]
#[derive(Debug)]
pub(super) enum Values {
    /// These words.
    Words(&'static [&'static str]),
    /// The words of a closed list elsewhere.
    Listed(fn() -> Vec<&'static str>),
    /// What the configuration file says, or what else bounds it, in words. Empty for upstreams and
    /// servers, of which the reference speaks by itself.
    Told(&'static str),
}

/// The classes of status codes.
pub(super) const STATUS: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Where things go: to the server, and to the client.
pub(super) const DIRECTIONS: [&str; 2] = ["up", "down"];

/// What became of those who came to stay where there is a pace.
pub(super) const PACED: [&str; 3] = ["at_once", "waited", "refused"];

/// What checks find out.
pub(super) const CHECKS: [&str; 2] = ["passed", "failed"];

/// What servers become.
pub(super) const TRANSITIONS: [&str; 2] = ["up", "down"];

/// What servers may get, in the order of `State`.
pub(super) const STATES: [&str; 3] = ["ready", "drain", "maint"];

/// What came of reading the configuration again.
pub(super) const RELOADS: [&str; 2] = ["ok", "refused"];

/// Where relays go that are handed over, seen from this process.
pub(super) const HANDED: [&str; 2] = ["given", "taken"];

/// The labels of `ProxyError`.
pub(super) const ERRORS: [&str; 17] = [
    "malformed",
    "no_host",
    "head_timeout",
    "head_too_long",
    "uri_too_long",
    "too_many_fields",
    "too_many_connections",
    "too_many_of_client",
    "too_many_at_once",
    "method_not_allowed",
    "damaged_handshake",
    "no_route",
    "body_timeout",
    "body_malformed",
    "no_server",
    "no_response",
    "response_timeout",
];

/// The codes of Closes. Those that the standard names have one each.
pub(super) const CLOSE_CODES: [&str; 20] = [
    "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1007", "1008", "1009", "1010", "1011", "1012", "1013",
    "1014", "1015", "3xxx", "4xxx", "none", "other",
];

const UPSTREAM: Label = Label { name: "upstream", values: Values::Told("") };

const SERVER: Label = Label { name: "server", values: Values::Told("") };

const KIND: Label = Label { name: "kind", values: Values::Listed(|| Kind::ALL.map(Kind::label).to_vec()) };

const DIRECTION: Label = Label { name: "direction", values: Values::Words(&DIRECTIONS) };

/// In the order of the reference.
pub(super) const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "steadfast_requests_total",
        kind: Type::Counter,
        labels: &[UPSTREAM, Label { name: "status", values: Values::Words(&STATUS) }],
        help: "Requests that have ended, by class of the status that the client got.",
    },
    Definition {
        name: "steadfast_open_connections",
        kind: Type::Gauge,
        labels: &[KIND, UPSTREAM, SERVER],
        help: "Exchanges and relays open now.",
    },
    Definition {
        name: "steadfast_ends_total",
        kind: Type::Counter,
        labels: &[
            KIND,
            UPSTREAM,
            Label { name: "end_reason", values: Values::Listed(|| EndReason::ALL.map(EndReason::label).to_vec()) },
        ],
        help: "Exchanges and relays that ended, by who ended them and why.",
    },
    Definition {
        name: "steadfast_duration_seconds",
        kind: Type::Histogram,
        labels: &[KIND, UPSTREAM],
        help: "From the head of a request to its end, which for relays may be days.",
    },
    Definition {
        name: "steadfast_response_head_seconds",
        kind: Type::Histogram,
        labels: &[KIND, UPSTREAM],
        help: "From the head of a request to that of its response; a parked long-poll waits here.",
    },
    Definition {
        name: "steadfast_bytes_total",
        kind: Type::Counter,
        labels: &[UPSTREAM, DIRECTION],
        help: "Bytes passed on behind the heads, of relays within a minute; up is to the server.",
    },
    Definition {
        name: "steadfast_errors_total",
        kind: Type::Counter,
        labels: &[Label { name: "error", values: Values::Words(&ERRORS) }],
        help: "Requests the proxy itself refused or failed.",
    },
    Definition {
        name: "steadfast_client_connections",
        kind: Type::Gauge,
        labels: &[],
        help: "Connections of clients open now.",
    },
    Definition {
        name: "steadfast_client_connections_max",
        kind: Type::Gauge,
        labels: &[],
        help: "Connections of clients that are served at once: limits.max_connections, or what the open files are enough for.",
    },
    Definition {
        name: "steadfast_accept_failures_total",
        kind: Type::Counter,
        labels: &[],
        help: "Connections that a listener could not accept.",
    },
    Definition {
        name: "steadfast_untold_connections_total",
        kind: Type::Counter,
        labels: &[],
        help: "Connections closed without a word, because they were too many even to be told so.",
    },
    Definition {
        name: "steadfast_paced_handshakes_total",
        kind: Type::Counter,
        labels: &[UPSTREAM, Label { name: "outcome", values: Values::Words(&PACED) }],
        help: "WebSockets, event streams and Engine.IO sessions that came to an upstream with a limit per second.",
    },
    Definition {
        name: "steadfast_server_up",
        kind: Type::Gauge,
        labels: &[UPSTREAM, SERVER],
        help: "Whether a server is fit for clients: 1 while it is so.",
    },
    Definition {
        name: "steadfast_server_state",
        kind: Type::Gauge,
        labels: &[UPSTREAM, SERVER, Label { name: "state", values: Values::Words(&STATES) }],
        help: "What a server may get, by the file or an operator: 1 for its state, 0 for the others.",
    },
    Definition {
        name: "steadfast_server_weight",
        kind: Type::Gauge,
        labels: &[UPSTREAM, SERVER],
        help: "The share of a server against the others of its upstream.",
    },
    Definition {
        name: "steadfast_server_transitions_total",
        kind: Type::Counter,
        labels: &[UPSTREAM, SERVER, Label { name: "to", values: Values::Words(&TRANSITIONS) }],
        help: "How often servers have come up and gone down.",
    },
    Definition {
        name: "steadfast_server_health_checks_total",
        kind: Type::Counter,
        labels: &[UPSTREAM, SERVER, Label { name: "result", values: Values::Words(&CHECKS) }],
        help: "Health checks of servers.",
    },
    Definition {
        name: "steadfast_connect_failures_total",
        kind: Type::Counter,
        labels: &[UPSTREAM, SERVER],
        help: "Connections to servers that could not be made.",
    },
    Definition {
        name: "steadfast_discovery_failing",
        kind: Type::Gauge,
        labels: &[UPSTREAM, Label { name: "name", values: Values::Told("each dns and srv of the file") }],
        help: "Whether the name of servers has no good answer at the moment: 1 while it is so.",
    },
    Definition {
        name: "steadfast_affinity_findings",
        kind: Type::Gauge,
        labels: &[
            UPSTREAM,
            Label { name: "finding", values: Values::Listed(|| Finding::ALL.map(Finding::label).to_vec()) },
        ],
        help: "What is wrong with affinity: 1 while it is so.",
    },
    Definition {
        name: "steadfast_lost_sessions_total",
        kind: Type::Counter,
        labels: &[UPSTREAM],
        help: "Requests of sessions whose server is no longer among the upstream's, or in maint.",
    },
    Definition {
        name: "steadfast_sessions",
        kind: Type::Gauge,
        labels: &[],
        help: "Sessions that this process remembers.",
    },
    Definition {
        name: "steadfast_sessions_max",
        kind: Type::Gauge,
        labels: &[],
        help: "Sessions that this process remembers at the most: session_store.sessions.",
    },
    Definition {
        name: "steadfast_sessions_evicted_total",
        kind: Type::Counter,
        labels: &[],
        help: "Sessions forgotten before their time because there were more than session_store.sessions.",
    },
    Definition {
        name: "steadfast_session_store_errors_total",
        kind: Type::Counter,
        labels: &[Label { name: "reason", values: Values::Words(&["timeout", "unavailable", "refused", "not_asked"]) }],
        help: "What the session store was asked in vain; not_asked while it is known to be away.",
    },
    Definition {
        name: "steadfast_sse_keepalives_total",
        kind: Type::Counter,
        labels: &[UPSTREAM],
        help: "Comments inserted into idle event streams.",
    },
    Definition {
        name: "steadfast_sse_untouched_total",
        kind: Type::Counter,
        labels: &[
            UPSTREAM,
            Label { name: "reason", values: Values::Listed(|| Untouched::ALL.map(Untouched::label).to_vec()) },
        ],
        help: "Event streams into which nothing could be inserted, by what stood against it.",
    },
    Definition {
        name: "steadfast_sse_resumed_total",
        kind: Type::Counter,
        labels: &[
            UPSTREAM,
            Label { name: "result", values: Values::Listed(|| Resumption::ALL.map(Resumption::label).to_vec()) },
        ],
        help: "Event streams that lost their server, or left it: resumed, failed (nobody went on), mid_event (lost within \
               an event), no_id (nobody could say where to go on).",
    },
    Definition {
        name: "steadfast_websocket_messages_total",
        kind: Type::Counter,
        labels: &[UPSTREAM, DIRECTION],
        help: "Messages passed on by WebSockets, counted within a minute; up is to the server.",
    },
    Definition {
        name: "steadfast_websocket_pings_total",
        kind: Type::Counter,
        labels: &[UPSTREAM],
        help: "Pings inserted towards clients of WebSockets.",
    },
    Definition {
        name: "steadfast_websocket_closes_total",
        kind: Type::Counter,
        labels: &[UPSTREAM, Label { name: "code", values: Values::Words(&CLOSE_CODES) }],
        help: "WebSockets that ended, by the code of the first Close: none when there was none.",
    },
    Definition {
        name: "steadfast_websocket_opaque_total",
        kind: Type::Counter,
        labels: &[UPSTREAM],
        help: "WebSockets on which something came that is no frame; no Ping or Close is inserted into them.",
    },
    Definition {
        name: "steadfast_damaged_handshakes_total",
        kind: Type::Counter,
        labels: &[
            Label { name: "kind", values: Values::Listed(|| Damage::ALL.map(Damage::label).to_vec()) },
            Label { name: "hop", values: Values::Told("addresses of previous hops, the first 16, then `other`") },
        ],
        help: "WebSocket handshakes that came damaged, by what is wrong.",
    },
    Definition {
        name: "steadfast_proxy_protocol_refused_total",
        kind: Type::Counter,
        labels: &[Label {
            name: "reason",
            values: Values::Listed(|| listener::Refusal::ALL.map(listener::Refusal::label).to_vec()),
        }],
        help: "Connections closed for want of a PROXY header that can be believed.",
    },
    Definition {
        name: "steadfast_tls_handshakes_total",
        kind: Type::Counter,
        labels: &[
            Label { name: "version", values: Values::Words(&["1.2", "1.3"]) },
            Label { name: "resumed", values: Values::Words(&["no", "yes"]) },
        ],
        help: "TLS handshakes with clients, by version and whether both had met before.",
    },
    Definition {
        name: "steadfast_tls_refused_total",
        kind: Type::Counter,
        labels: &[Label {
            name: "reason",
            values: Values::Listed(|| front::Refusal::ALL.map(front::Refusal::label).to_vec()),
        }],
        help: "Connections closed because no TLS came of them.",
    },
    Definition {
        name: "steadfast_certificate_expiry_timestamp_seconds",
        kind: Type::Gauge,
        labels: &[Label { name: "file", values: Values::Told("each certificate of listeners and upstreams") }],
        help: "When a certificate that is shown to clients or servers ends, as Unix time.",
    },
    Definition {
        name: "steadfast_http2_connections",
        kind: Type::Gauge,
        labels: &[],
        help: "Connections of clients that speak HTTP/2, open now.",
    },
    Definition {
        name: "steadfast_http2_streams",
        kind: Type::Gauge,
        labels: &[],
        help: "Requests of HTTP/2, and what has become of them, open now.",
    },
    Definition {
        name: "steadfast_http2_resets_total",
        kind: Type::Counter,
        labels: &[],
        help: "Requests of HTTP/2 that clients took back before they were answered whole.",
    },
    Definition {
        name: "steadfast_http2_floods_total",
        kind: Type::Counter,
        labels: &[],
        help: "Connections of HTTP/2 closed because their client took back more than limits.resets.",
    },
    Definition {
        name: "steadfast_drains_in_progress",
        kind: Type::Gauge,
        labels: &[],
        help: "Drains of servers, upstreams or the process that go on.",
    },
    Definition {
        name: "steadfast_relays_handed_over_total",
        kind: Type::Counter,
        labels: &[Label { name: "direction", values: Values::Words(&HANDED) }],
        help: "Relays that went on in the next process (given), or had begun in the one before (taken).",
    },
    Definition {
        name: "steadfast_hand_overs_failed_total",
        kind: Type::Counter,
        labels: &[],
        help: "Times that another process was to take over, and this one went on as before.",
    },
    Definition {
        name: "steadfast_spans_exported_total",
        kind: Type::Counter,
        labels: &[],
        help: "Spans that a collector has taken.",
    },
    Definition {
        name: "steadfast_spans_dropped_total",
        kind: Type::Counter,
        labels: &[Label { name: "reason", values: Values::Words(&["queue_full", "not_taken"]) }],
        help: "Spans lost, by reason: queue_full, not_taken (the collector was away, too slow, or refused them).",
    },
    Definition {
        name: "steadfast_reloads_total",
        kind: Type::Counter,
        labels: &[Label { name: "result", values: Values::Words(&RELOADS) }],
        help: "Times the configuration was read again; refused when nothing changed, because it was wrong.",
    },
    Definition {
        name: "steadfast_config_last_reload_successful",
        kind: Type::Gauge,
        labels: &[],
        help: "Whether the configuration was right when it was last read: 1 while it is so.",
    },
    Definition {
        name: "steadfast_config_last_reload_success_timestamp_seconds",
        kind: Type::Gauge,
        labels: &[],
        help: "When the configuration in force was read, as Unix time.",
    },
    Definition {
        name: "steadfast_access_log_lost_total",
        kind: Type::Counter,
        labels: &[],
        help: "Log lines lost because their target was too slow.",
    },
    Definition {
        name: "steadfast_build_info",
        kind: Type::Gauge,
        labels: &[Label { name: "version", values: Values::Told("that of the process") }],
        help: "Always 1, for its label.",
    },
    Definition {
        name: "process_start_time_seconds",
        kind: Type::Gauge,
        labels: &[],
        help: "Start time of the process since unix epoch in seconds.",
    },
    Definition {
        name: "process_cpu_seconds_total",
        kind: Type::Counter,
        labels: &[],
        help: "Total user and system CPU time spent in seconds.",
    },
    Definition {
        name: "process_resident_memory_bytes",
        kind: Type::Gauge,
        labels: &[],
        help: "Resident memory size in bytes.",
    },
    Definition {
        name: "process_virtual_memory_bytes",
        kind: Type::Gauge,
        labels: &[],
        help: "Virtual memory size in bytes.",
    },
    Definition { name: "process_open_fds", kind: Type::Gauge, labels: &[], help: "Number of open file descriptors." },
    Definition {
        name: "process_max_fds",
        kind: Type::Gauge,
        labels: &[],
        help: "Maximum number of open file descriptors.",
    },
    Definition {
        name: "process_threads",
        kind: Type::Gauge,
        labels: &[],
        help: "Number of OS threads in the process.",
    },
];

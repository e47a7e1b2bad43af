//! What is counted of each server, and that it goes when the server does.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use ahash::AHashMap;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::definitions::{CHECKS, STATES, TRANSITIONS};
use crate::config::State;
use crate::relay::Kind;

/// The metrics that have a label for servers.
#[derive(Clone, Debug)]
pub(super) struct AllServers {
    open: IntGaugeVec,
    connect_failures: IntCounterVec,
    up: IntGaugeVec,
    states: IntGaugeVec,
    weight: IntGaugeVec,
    checks: IntCounterVec,
    transitions: IntCounterVec,
    known: Arc<Known>,
}

/// The series of all servers, by upstream and server.
type Known = Mutex<AHashMap<(String, String), Weak<Series>>>;

impl AllServers {
    /// Of no server yet.
    pub(super) fn new(
        counters: impl Fn(&'static str) -> IntCounterVec,
        gauges: impl Fn(&'static str) -> IntGaugeVec,
    ) -> Self {
        Self {
            open: gauges("steadfast_open_connections"),
            connect_failures: counters("steadfast_connect_failures_total"),
            up: gauges("steadfast_server_up"),
            states: gauges("steadfast_server_state"),
            weight: gauges("steadfast_server_weight"),
            checks: counters("steadfast_server_health_checks_total"),
            transitions: counters("steadfast_server_transitions_total"),
            known: Arc::default(),
        }
    }

    /// What the connections of `server` of `upstream` count with.
    pub(super) fn server(&self, upstream: &str, server: &str) -> ServerMetrics {
        ServerMetrics {
            _series: self.series(upstream, server),
            open: Kind::ALL.map(|kind| self.open.with_label_values(&[kind.label(), upstream, server])),
            connect_failures: self.connect_failures.with_label_values(&[upstream, server]),
            up: self.up.with_label_values(&[upstream, server]),
            states: STATES.map(|state| self.states.with_label_values(&[upstream, server, state])),
            weight: self.weight.with_label_values(&[upstream, server]),
            checks: CHECKS.map(|result| self.checks.with_label_values(&[upstream, server, result])),
            transitions: TRANSITIONS.map(|to| self.transitions.with_label_values(&[upstream, server, to])),
        }
    }

    fn series(&self, upstream: &str, server: &str) -> Arc<Series> {
        let key = (upstream.to_owned(), server.to_owned());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&key).and_then(Weak::upgrade) {
            return series;
        }
        let series = Arc::new(Series { key: key.clone(), all: self.clone() });
        known.insert(key, Arc::downgrade(&series));
        series
    }
}

/// The series of one server, which end with the last one that has its name.
#[derive(Debug)]
struct Series {
    key: (String, String),
    all: AllServers,
}

impl Drop for Series {
    fn drop(&mut self) {
        let AllServers { open, connect_failures, up, states, weight, checks, transitions, known } = &self.all;
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&self.key).is_some_and(|series| series.strong_count() > 0) {
            return; // Another server of this name has come at this very moment.
        }
        known.remove(&self.key);
        let (upstream, server) = (self.key.0.as_str(), self.key.1.as_str());
        // What was never looked up cannot be removed, and need not be.
        for kind in Kind::ALL {
            let _ = open.remove_label_values(&[kind.label(), upstream, server]);
        }
        let _ = connect_failures.remove_label_values(&[upstream, server]);
        let _ = up.remove_label_values(&[upstream, server]);
        let _ = weight.remove_label_values(&[upstream, server]);
        for state in STATES {
            let _ = states.remove_label_values(&[upstream, server, state]);
        }
        for result in CHECKS {
            let _ = checks.remove_label_values(&[upstream, server, result]);
        }
        for to in TRANSITIONS {
            let _ = transitions.remove_label_values(&[upstream, server, to]);
        }
    }
}

/// What the connections of one server count with.
#[derive(Debug)]
pub struct ServerMetrics {
    _series: Arc<Series>,
    open: [IntGauge; Kind::ALL.len()],
    /// Connections that could not be made.
    pub connect_failures: IntCounter,
    /// 1 while it is up.
    pub up: IntGauge,
    states: [IntGauge; STATES.len()],
    /// Its share against the others.
    pub weight: IntGauge,
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

    /// It may get this from now on.
    pub fn is_in(&self, state: State) {
        for (at, gauge) in self.states.iter().enumerate() {
            gauge.set((at == state as usize).into());
        }
    }

    /// The gauge of open exchanges and relays of `kind`.
    pub fn open(&self, kind: Kind) -> &IntGauge {
        &self.open[kind as usize]
    }
}

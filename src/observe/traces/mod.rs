//! Traces: what becomes of requests, as spans that a collector of OpenTelemetry puts together with
//! those of other programs. Off unless the file says where they go.
//!
//! ```text
//! SERVER    exchange   from the head of the request to its end, or to the hand-off
//! CLIENT    ├─ leg     from looking for a server to the head of its answer; its server hears of this one
//! INTERNAL  └─ relay   from the hand-off to its end, which may be hours later
//! ```
//!
//! A span is sent when it has ended, so what leads to a relay is seen while the relay lives.
//!
//! The rule: nobody waits for a collector. Spans go into a bounded queue, and what has no room there is
//! lost, and counted. What is not traced costs one look at [`Observer::tracer`]; a relay that is traced
//! remembers 32 bytes.
//!
//! Whether a trace is sampled says whoever has begun it. Requests that could not be read are of no trace.
//!
//! [`Observer::tracer`]: super::Observer::tracer

pub mod context;
mod exporter;
mod span;

use std::io;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};
use opentelemetry_sdk::trace::SpanData;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::metrics::SpanMetrics;
use crate::config::{self, Share};

use context::{Beginning, Context, SpanId, TraceId};
pub use exporter::Exporter;
pub use span::Outcome;

/// The field by which a trace goes on.
pub const TRACEPARENT: &str = "traceparent";

/// What others add to that, and what is lost with it.
pub const TRACESTATE: &str = "tracestate";

/// Decides what is traced, and takes spans that have ended.
#[derive(Debug)]
pub struct Tracer {
    sample: Share,
    propagates: bool,
    queue: mpsc::Sender<SpanData>,
    metrics: SpanMetrics,
}

/// Spans that wait for a collector: a few megabytes.
const QUEUE_MAX: usize = 4096;

impl Tracer {
    /// Starts what sends spans as `config` says. It ends when this tracer is gone. Not to be called by a
    /// task: what fails drops a runtime.
    ///
    /// # Errors
    /// When there is no room for another thread, or descriptors are used up.
    pub fn open(config: &config::Traces, metrics: SpanMetrics) -> io::Result<(Self, Exporter)> {
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let exporter = Exporter::start(config, spans, metrics.clone())?;
        Ok((Self { sample: config.sample, propagates: config.propagate, queue, metrics }, exporter))
    }

    /// What there is to remember of a request with these fields; `dice` are random numbers.
    pub fn follow(&self, fields: &HeaderMap, dice: (u128, u64)) -> Option<Box<Followed>> {
        let parents = fields.get_all(TRACEPARENT).into_iter().map(HeaderValue::as_bytes);
        let Beginning { context, parent } = Beginning::of(parents.filter(|_| self.propagates), self.sample, dice);
        let followed = match (context.is_sampled, parent) {
            (true, _) => Followed::Exchange(Box::new(Exchange::new(context, parent, self.propagates))),
            // Its server is to decide likewise.
            (false, None) if self.propagates => Followed::Unsampled(context.trace, context.span),
            // What the fields say is true for its server as well.
            (false, _) => return None,
        };
        Some(Box::new(followed))
    }

    fn send(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.metrics.queue_full.inc();
        }
    }
}

/// What is remembered of a request or relay that is of a trace.
#[derive(Debug)]
pub enum Followed {
    /// It has begun a trace that is not sampled.
    Unsampled(TraceId, SpanId),
    /// An exchange under way.
    Exchange(Box<Exchange>),
    /// A relay.
    Relay(RelaySpan),
}

/// An exchange under way.
#[derive(Debug)]
pub struct Exchange {
    context: Context,
    parent: Option<SpanId>,
    propagates: bool,
    /// What the paths of its route begin with.
    route: Option<Box<str>>,
    leg: Option<Leg>,
}

/// What is asked of a server, and not yet answered.
#[derive(Debug)]
struct Leg {
    span: SpanId,
    /// When, since the exchange has begun.
    began: Duration,
    connected: Option<Duration>,
}

/// A relay, or what leads to its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelaySpan {
    trace: TraceId,
    /// The exchange that it was.
    parent: SpanId,
    /// Milliseconds from the beginning of that to the hand-off.
    began_after: u32,
}

/// How a server hears of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onward {
    /// The field `traceparent` that it gets in the place of any other.
    pub traceparent: [u8; 55],
    /// Whether `tracestate` is of this trace, and goes on.
    pub keeps_state: bool,
}

impl Exchange {
    fn new(context: Context, parent: Option<SpanId>, propagates: bool) -> Self {
        Self { context, parent, propagates, route: None, leg: None }
    }
}

impl Followed {
    /// Whether spans come of it.
    pub fn is_sampled(&self) -> bool {
        !matches!(self, Self::Unsampled(..))
    }

    /// What its server is told in place of what the request says; `None`: nothing else.
    pub fn onward(&self) -> Option<Onward> {
        match self {
            Self::Unsampled(trace, span) => {
                let context = Context { trace: *trace, span: *span, is_sampled: false };
                Some(Onward { traceparent: context.to_field(), keeps_state: false })
            }
            Self::Exchange(exchange) if exchange.propagates => {
                let span = exchange.leg.as_ref().map_or(exchange.context.span, |leg| leg.span);
                let context = Context { span, ..exchange.context };
                Some(Onward { traceparent: context.to_field(), keeps_state: exchange.parent.is_some() })
            }
            Self::Exchange(_) | Self::Relay(_) => None,
        }
    }

    /// It belongs to the route of this path.
    pub fn routed(&mut self, path: &str) {
        if let Self::Exchange(exchange) = self {
            exchange.route = Some(path.into());
        }
    }

    /// A server is looked for, `age` after the beginning. One that was asked before has not answered.
    pub fn asks(&mut self, tracer: Option<&Tracer>, outcome: &Outcome<'_>, dice: u64) {
        self.end_leg(tracer, outcome, Some(STALE));
        if let Self::Exchange(exchange) = self {
            exchange.leg = Some(Leg { span: SpanId::new(dice), began: outcome.age, connected: None });
        }
    }

    /// There is a connection to it.
    pub fn connected(&mut self, age: Duration) {
        if let Self::Exchange(exchange) = self
            && let Some(leg) = &mut exchange.leg
        {
            leg.connected = Some(age);
        }
    }

    /// The head of its answer has come, with the status that `outcome` has; or none will, for this `error`.
    pub fn end_leg(&mut self, tracer: Option<&Tracer>, outcome: &Outcome<'_>, error: Option<&'static str>) {
        if let Self::Exchange(exchange) = self
            && let Some(leg) = exchange.leg.take()
            && let Some(tracer) = tracer
        {
            tracer.send(span::of_leg(exchange, &leg, outcome, error, SystemTime::now()));
        }
    }

    /// The exchange goes on as a relay: what is to be remembered of that.
    pub fn hand_off(self, tracer: Option<&Tracer>, outcome: &Outcome<'_>) -> Option<Self> {
        let Self::Exchange(exchange) = self else { return None };
        let Context { trace, span, .. } = exchange.context;
        if let Some(tracer) = tracer {
            tracer.send(span::of_exchange(&exchange, outcome, SystemTime::now()));
        }
        let began_after = u32::try_from(outcome.age.as_millis()).unwrap_or(u32::MAX);
        Some(Self::Relay(RelaySpan { trace, parent: span, began_after }))
    }

    /// It has ended; `dice` is a random number.
    pub fn end(mut self, tracer: &Tracer, outcome: &Outcome<'_>, dice: u64) {
        self.end_leg(Some(tracer), outcome, Some(outcome.error()));
        match self {
            Self::Unsampled(..) => {}
            Self::Exchange(exchange) => tracer.send(span::of_exchange(&exchange, outcome, SystemTime::now())),
            Self::Relay(relay) => tracer.send(span::of_relay(relay, SpanId::new(dice), outcome, SystemTime::now())),
        }
    }

    /// What another process has to remember of it.
    pub fn relay(&self) -> Option<RelaySpan> {
        match self {
            Self::Relay(relay) => Some(*relay),
            Self::Unsampled(..) | Self::Exchange(_) => None,
        }
    }
}

/// What is said of a server that has closed its connection while it was asked, so that another one was
/// opened.
const STALE: &str = "stale_connection";

#[cfg(test)]
mod tests;

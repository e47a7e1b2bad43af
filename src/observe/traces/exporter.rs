//! Sends spans to a collector, from a thread of its own: in batches, one after the other.
//!
//! A collector that is away, or too slow, costs spans and nothing else. They are counted, and the log
//! says why, once a minute at most.

use std::io;
use std::mem;
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use crate::config;
use crate::observe::Sayings;
use crate::observe::metrics::SpanMetrics;

/// Spans in one request to the collector.
const BATCH_MAX: usize = 512;

/// How long the first span of a batch waits for others.
const GATHER: Duration = Duration::from_millis(500);

/// How long a collector may take for a batch, tried again if need be.
const SEND_WITHIN: Duration = Duration::from_secs(5);

/// How long sending may go on when there will be no more spans.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// The thread that sends spans; it ends when the last tracer is gone.
#[derive(Debug)]
pub struct Exporter {
    thread: JoinHandle<()>,
    /// Gone: there will be no more.
    open: oneshot::Sender<()>,
}

impl Exporter {
    /// Sends `spans` as `config` says. Not to be called by a task: what fails drops a runtime.
    pub(super) fn start(
        config: &config::Traces,
        spans: mpsc::Receiver<SpanData>,
        metrics: SpanMetrics,
    ) -> io::Result<Self> {
        let exporter = otlp(config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (open, closing) = oneshot::channel();
        let endpoint = config.endpoint.clone();
        let thread = std::thread::Builder::new().name("traces".into()).spawn(move || {
            let mut sending = Sending { spans, exporter, metrics, sayings: Sayings::default(), endpoint, under_way: 0 };
            runtime.block_on(async {
                tokio::select! {
                    () = sending.send_all() => return,
                    () = over(closing) => {}
                }
                sending.give_up();
            });
            // Not dropped: a name may still be looked up, and nobody waits for that any more.
            runtime.shutdown_background();
        })?;
        Ok(Self { thread, open })
    }

    /// Waits until everything is sent, for a bounded time. To be called when no tracer is left.
    pub fn join(self) {
        drop(self.open);
        if self.thread.join().is_err() {
            tracing::error!("what sends traces panicked");
        }
    }
}

/// Waits until there has been time enough behind the end.
async fn over(closing: oneshot::Receiver<()>) {
    // That nobody holds the other side is what is waited for.
    let _ = closing.await;
    sleep(FLUSH_WITHIN).await;
}

/// What speaks to the collector. Of the environment it reads `OTEL_EXPORTER_OTLP_HEADERS`, which may hold
/// keys, and nothing else that has an effect.
fn otlp(config: &config::Traces) -> io::Result<SpanExporter> {
    let builder = SpanExporter::builder().with_http();
    let builder = builder.with_endpoint(&config.endpoint).with_protocol(Protocol::HttpBinary).with_timeout(SEND_WITHIN);
    let mut exporter = builder.build().map_err(|error| io::Error::other(format!("traces: {error}")))?;
    let host = rustix::system::uname();
    let attributes = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", format!("{}:{}", host.nodename().to_string_lossy(), std::process::id())),
        KeyValue::new("host.name", host.nodename().to_string_lossy().into_owned()),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    // Not the builder that looks into the environment.
    let resource = Resource::builder_empty().with_service_name(config.service_name.clone()).with_attributes(attributes);
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// What the thread does.
struct Sending {
    spans: mpsc::Receiver<SpanData>,
    exporter: SpanExporter,
    metrics: SpanMetrics,
    sayings: Sayings<1>,
    endpoint: String,
    /// Spans that the collector is being sent.
    under_way: u64,
}

impl Sending {
    /// Sends until no tracer is left.
    async fn send_all(&mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while self.spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let gather = async {
                loop {
                    let left = BATCH_MAX - batch.len();
                    if left == 0 || self.spans.recv_many(&mut batch, left).await == 0 {
                        return;
                    }
                }
            };
            // Over when there is a batch, when there will be no more, or when the first has waited enough.
            let _ = timeout(GATHER, gather).await;
            self.send(mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        self.under_way = count;
        match self.exporter.export(batch).await {
            Ok(()) => self.metrics.exported.inc_by(count),
            Err(error) => {
                self.metrics.not_taken.inc_by(count);
                self.sayings.say(0, |more| {
                    tracing::warn!("traces: {} did not take {count} spans: {error}{more}", self.endpoint);
                });
            }
        }
        self.under_way = 0;
    }

    /// There is no more time for what is left.
    fn give_up(&self) {
        let lost = self.under_way + self.spans.len() as u64;
        self.metrics.not_taken.inc_by(lost);
        tracing::warn!("traces: {} did not take the last {lost} spans in time", self.endpoint);
    }
}

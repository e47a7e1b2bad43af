//! A collector of spans: OTLP over HTTP, read by the messages of OpenTelemetry's own protocol files.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::sync::watch;

use super::upstream::ServerEntry;
use super::{PATIENCE, Upstream};

/// Takes spans; gone when dropped.
pub(crate) struct Collector {
    server: Upstream,
    taken: Arc<Mutex<Vec<Taken>>>,
    changed: watch::Receiver<usize>,
}

/// A span, and who has sent it.
#[derive(Clone)]
pub(crate) struct Taken {
    pub(crate) span: Span,
    resource: Vec<KeyValue>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::serving(Upstream::start().await)
    }

    /// One that takes everything and answers nothing.
    pub(crate) async fn stuck() -> Upstream {
        Upstream::serving(|mut wire| async move { while wire.next_request().await.is_some() {} }).await
    }

    fn serving(server: Upstream) -> Self {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (count, changed) = watch::channel(0);
        let keeping = Arc::clone(&taken);
        let server = server.serve(move |mut wire| {
            let (taken, count) = (Arc::clone(&keeping), count.clone());
            async move {
                while let Some(request) = wire.next_request().await {
                    assert_eq!(request.head.start, "POST /v1/traces HTTP/1.1");
                    assert_eq!(request.head.field("content-type").as_deref(), Some("application/x-protobuf"));
                    let message = ExportTraceServiceRequest::decode(&*request.body).expect("it is OTLP");
                    let taken = {
                        let mut taken = taken.lock().expect("nobody has panicked");
                        taken.extend(spans(message));
                        taken.len()
                    };
                    count.send_replace(taken);
                    wire.send("HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
                        .await;
                }
            }
        });
        Self { server, taken, changed }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What makes a proxy send its spans here.
    pub(crate) fn traces(&self, more: &str) -> String {
        traces(self.address(), more)
    }

    /// Everything that it has taken so far.
    pub(crate) fn all(&self) -> Vec<Taken> {
        self.taken.lock().expect("nobody has panicked").clone()
    }

    /// The first span that `matches`, now or soon.
    pub(crate) async fn span(&self, what: &str, matches: impl Fn(&Taken) -> bool) -> Taken {
        let mut changed = self.changed.clone();
        let found = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = self.all().into_iter().find(&matches) {
                    return found;
                }
                changed.changed().await.expect("the collector serves");
            }
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("waited for {what}, and got {:?}", self.all()))
    }

    /// The span of the exchange for this path.
    pub(crate) async fn exchange(&self, path: &str) -> Taken {
        self.span(path, |it| it.says("url.path").as_deref() == Some(path) && it.says("steadfast.kind").is_some()).await
    }

    /// The span below another one that is called so.
    pub(crate) async fn child(&self, of: &Taken, name: &str) -> Taken {
        self.span(name, |it| it.span.name == name && it.span.parent_span_id == of.span.span_id).await
    }
}

/// The line that makes a proxy send the spans of all requests to this address.
pub(crate) fn traces(address: SocketAddr, more: &str) -> String {
    format!("traces: {{ endpoint: \"http://{address}\", sample: 100%{more} }}")
}

fn spans(message: ExportTraceServiceRequest) -> impl Iterator<Item = Taken> {
    message.resource_spans.into_iter().flat_map(|of| {
        let resource = of.resource.map(|it| it.attributes).unwrap_or_default();
        let spans = of.scope_spans.into_iter().flat_map(|of| of.spans);
        spans.map(move |span| Taken { span, resource: resource.clone() })
    })
}

impl Taken {
    /// What an attribute says, as text.
    pub(crate) fn says(&self, name: &str) -> Option<String> {
        value(&self.span.attributes, name)
    }

    /// The same of whoever has sent it.
    pub(crate) fn sender_says(&self, name: &str) -> Option<String> {
        value(&self.resource, name)
    }

    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// Whether it says that something has failed.
    pub(crate) fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code == 2)
    }
}

impl fmt::Debug for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.span.attributes.iter().map(|it| (&it.key, self.says(&it.key).unwrap_or_default()));
        write!(f, "{} {} below {:?}: ", self.span.name, self.id(), self.parent())?;
        f.debug_map().entries(said).finish()
    }
}

fn value(attributes: &[KeyValue], name: &str) -> Option<String> {
    let value = attributes.iter().find(|it| it.key == name)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

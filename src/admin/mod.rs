//! The admin address: metrics and health for orchestrators, the API for operators and their
//! tools, and the dashboard, which is one of these.
//!
//! Nothing here decides or keeps anything: what is asked is read where the facts are, or given to the
//! [`Desk`]. Whoever watches, or reads slowly, holds up nobody else.

mod answer;
pub mod api;
mod body;
mod dashboard;
mod explain;
mod guard;
mod in_force;
mod live;
mod orders;
mod process;
mod relays;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use http::{Method, StatusCode};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::command::Desk;
use crate::config::Token;
use crate::relay::inbox::Workers;
use crate::service::Service;
use crate::socket::{Socket, Transport};

use answer::{Answer, not_allowed, refused, text};
use api::Reply;
use live::Live;
pub use process::{InForce, Process};

/// What the admin address serves.
#[derive(Debug)]
pub struct Admin {
    token: ArcSwapOption<Token>,
    service: Arc<Service>,
    workers: Arc<Workers>,
    desk: Desk,
    /// What is known of the process.
    pub process: Process,
    live: Live,
}

/// Serves the admin address for as long as nobody aborts it.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    const PAUSE: Duration = Duration::from_millis(50);
    let stopping = admin.service.stopping();
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let (app, stopping) = (Arc::new(App(admin.clone())), stopping.clone());
                tokio::spawn(
                    async move { app.process_new(Box::new(Socket::new(Transport::Tcp(tcp))), &stopping).await },
                );
            }
            Err(error) => {
                tracing::warn!("admin: cannot accept connections: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// As Pingora wants it.
struct App(Arc<Admin>);

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        mut request: ServerSession,
        stopping: &watch::Receiver<bool>,
    ) -> Option<ReusedHttpStream> {
        // What is no request gets no answer.
        if !request.read_request().await.unwrap_or_default() {
            return None;
        }
        request.set_keepalive(if *stopping.borrow() { None } else { Some(KEEPALIVE.as_secs()) });
        match self.0.reply(&mut request).await {
            Reply::Whole(answer) => send(&mut request, answer).await.ok()?,
            Reply::Live(seat) => {
                live::follow(&self.0, &mut request, seat).await;
                return None;
            }
        }
        let settings = HttpPersistentSettings::for_session(&request);
        let stream = request.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

/// How long a connection may wait for its next request.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a client may take for an answer.
const READ_WITHIN: Duration = Duration::from_secs(30);

async fn send(request: &mut ServerSession, answer: Answer) -> pingora::Result<()> {
    let (head, body) = answer.into_parts();
    request.set_write_timeout(Some(READ_WITHIN));
    request.write_response_header(Box::new(head.into())).await?;
    if !body.is_empty() {
        request.write_response_body(body.into(), true).await?;
    }
    Ok(())
}

impl Admin {
    /// Serves whoever brings `token`, if there is one.
    pub fn new(service: Arc<Service>, workers: Arc<Workers>, desk: Desk, token: Option<Token>) -> Self {
        Self {
            token: ArcSwapOption::from_pointee(token),
            service,
            workers,
            desk,
            process: Process::new(),
            live: Live::new(),
        }
    }

    /// Another one has to be brought from now on.
    pub fn set_token(&self, token: Option<Token>) {
        self.token.store(token.map(Arc::new));
    }

    /// Waits until all who watch have seen the process end, but not for long.
    pub async fn end(&self) {
        self.live.end().await;
    }

    async fn reply(&self, request: &mut ServerSession) -> Reply {
        let head = request.req_header();
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        let is_reading = head.method == Method::GET || head.method == Method::HEAD;
        if let Some(file) = dashboard::file(&path) {
            return Reply::Whole(if is_reading { file.answer(&head.headers) } else { not_allowed("GET, HEAD") });
        }
        if let Err(refusal) = guard::judge(self.token.load().as_deref(), &path, &head.headers) {
            return Reply::Whole(refused(refusal));
        }
        match path.strip_prefix(api::ROOT) {
            Some(resource) => api::reply(self, request, resource, &query).await,
            None if is_reading => Reply::Whole(self.page(&path)),
            None => Reply::Whole(not_allowed("GET, HEAD")),
        }
    }

    /// What is no part of the API.
    fn page(&self, path: &str) -> Answer {
        match path {
            "/metrics" => self.metrics(),
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.service.is_leaving() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::NOT_FOUND, "try /, /metrics, /healthz, /readyz or /api/v1/status\n"),
        }
    }

    fn metrics(&self) -> Answer {
        let (metrics, content_type) = self.service.observer.metrics.scrape();
        answer::answer(StatusCode::OK, metrics, &content_type)
    }
}

//! The admin address: metrics, health and relays, for operators and orchestrators.

mod answer;
mod drains;
mod guard;
mod process;
mod relays;
pub mod status;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use http::{Method, Response, StatusCode};
use pingora::apps::ServerApp;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use tokio::net::TcpListener;

use crate::command::Desk;
use crate::config::Token;
use crate::relay::inbox::Workers;
use crate::service::Service;
use crate::socket::{Socket, Transport};

use answer::{as_json, not_allowed, refused, text};
pub use process::{InForce, Process};
use status::Status;

/// What the admin address serves.
#[derive(Debug)]
pub struct Admin {
    token: ArcSwapOption<Token>,
    service: Arc<Service>,
    workers: Arc<Workers>,
    desk: Desk,
    /// What is known of the process.
    pub process: Process,
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
impl ServeHttp for App {
    async fn response(&self, request: &mut ServerSession) -> Response<Vec<u8>> {
        self.0.response(request).await
    }
}

impl Admin {
    /// Serves whoever brings `token`, if there is one.
    pub fn new(service: Arc<Service>, workers: Arc<Workers>, desk: Desk, token: Option<Token>) -> Self {
        Self { token: ArcSwapOption::from_pointee(token), service, workers, desk, process: Process::new() }
    }

    /// Another one has to be brought from now on.
    pub fn set_token(&self, token: Option<Token>) {
        self.token.store(token.map(Arc::new));
    }

    async fn response(&self, request: &mut ServerSession) -> Response<Vec<u8>> {
        let head = request.req_header();
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        if let Err(refusal) = guard::judge(self.token.load().as_deref(), path, &head.headers) {
            return refused(refusal);
        }
        let is_reading = head.method == Method::GET || head.method == Method::HEAD;
        match (path, path.strip_prefix("/relays/")) {
            // Nothing but DELETE ends one: a page in a browser on this machine can send a POST here,
            // but no DELETE, for which it would have to ask.
            (_, Some(id)) if head.method == Method::DELETE => relays::end(&self.workers, id).await,
            (_, Some(_)) => not_allowed("DELETE"),
            ("/reload" | "/drain" | "/undrain" | "/state", _) if head.method == Method::POST => {
                match guard::judge_change(&head.headers) {
                    Ok(()) => self.change(path, query).await,
                    Err(refusal) => refused(refusal),
                }
            }
            ("/reload" | "/drain" | "/undrain" | "/state", _) => not_allowed("POST"),
            _ if !is_reading => not_allowed("GET, HEAD"),
            ("/api/v1/status", _) => as_json(&Status::of(self)),
            ("/relays", _) => relays::list(&self.workers, query).await,
            ("/rebalance", _) => drains::plan(&self.desk, query).await,
            ("/drains", _) => drains::list(&self.desk),
            ("/metrics", _) => self.metrics(),
            ("/healthz", _) => text(StatusCode::OK, "ok\n"),
            ("/readyz", _) if self.service.is_leaving() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            ("/readyz", _) => text(StatusCode::OK, "ready\n"),
            _ => text(
                StatusCode::NOT_FOUND,
                "try /metrics, /healthz, /readyz, /relays, /drains, /rebalance, or POST /reload, /drain, /undrain, /state\n",
            ),
        }
    }

    /// What is asked by POST.
    async fn change(&self, path: &str, query: &str) -> Response<Vec<u8>> {
        match path {
            "/drain" => drains::drain(&self.desk, query).await,
            "/undrain" => drains::undrain(&self.desk, query).await,
            "/state" => drains::state(&self.desk, query).await,
            _ => self.reload().await,
        }
    }

    async fn reload(&self) -> Response<Vec<u8>> {
        match self.desk.reload().await {
            Ok(Ok(changes)) if changes.is_empty() => text(StatusCode::OK, "nothing has changed\n"),
            Ok(Ok(changes)) => text(StatusCode::OK, &(changes.join("\n") + "\n")),
            Ok(Err(why)) => text(StatusCode::UNPROCESSABLE_ENTITY, &format!("{why}\n")),
            Err(closed) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{closed}\n")),
        }
    }

    fn metrics(&self) -> Response<Vec<u8>> {
        let (metrics, content_type) = self.service.observer.metrics.scrape();
        answer::answer(StatusCode::OK, metrics, &content_type)
    }
}

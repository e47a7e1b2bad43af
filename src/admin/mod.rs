//! The admin address: metrics, health and relays, for operators and orchestrators.

mod guard;
mod relays;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};
use pingora::apps::ServerApp;
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use tokio::net::TcpListener;

use crate::config::Token;
use crate::exchange::Front;
use crate::relay::inbox::Workers;
use crate::socket::{Socket, Transport};

/// Serves the admin address for as long as the process lives, to whoever brings `token` if there is one.
pub async fn serve(listener: TcpListener, token: Option<Token>, front: Arc<Front>, workers: Workers) {
    const PAUSE: Duration = Duration::from_millis(50);
    let stopping = front.stopping.clone();
    let admin = Arc::new(Admin { token, front, workers });
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let (admin, stopping) = (admin.clone(), stopping.clone());
                tokio::spawn(
                    async move { admin.process_new(Box::new(Socket::new(Transport::Tcp(tcp))), &stopping).await },
                );
            }
            Err(error) => {
                tracing::warn!("admin: cannot accept connections: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

struct Admin {
    token: Option<Token>,
    front: Arc<Front>,
    workers: Workers,
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, request: &mut ServerSession) -> Response<Vec<u8>> {
        let head = request.req_header();
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        if let Err(refusal) = guard::judge(self.token.as_ref(), path, &head.headers) {
            return refused(refusal);
        }
        let is_reading = head.method == Method::GET || head.method == Method::HEAD;
        match (path, path.strip_prefix("/relays/")) {
            // Nothing but DELETE ends one: a page in a browser on this machine can send a POST here,
            // but no DELETE, for which it would have to ask.
            (_, Some(id)) if head.method == Method::DELETE => relays::end(&self.workers, id).await,
            (_, Some(_)) => not_allowed("DELETE"),
            _ if !is_reading => not_allowed("GET, HEAD"),
            ("/relays", _) => relays::list(&self.workers, query).await,
            ("/metrics", _) => self.metrics(),
            ("/healthz", _) => text(StatusCode::OK, "ok\n"),
            ("/readyz", _) if *self.front.stopping.borrow() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            ("/readyz", _) => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::NOT_FOUND, "try /metrics, /healthz, /readyz or /relays\n"),
        }
    }
}

impl Admin {
    fn metrics(&self) -> Response<Vec<u8>> {
        let (metrics, content_type) = self.front.observer.metrics.scrape();
        let mut response = answer(StatusCode::OK, metrics);
        if let Ok(content_type) = content_type.parse() {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
    }
}

fn refused(refusal: guard::Refusal) -> Response<Vec<u8>> {
    match refusal {
        guard::Refusal::Host => {
            text(StatusCode::FORBIDDEN, "without a token only addresses and localhost are answered here\n")
        }
        guard::Refusal::Token => {
            let mut response = text(StatusCode::UNAUTHORIZED, "this needs Authorization: Bearer and the token\n");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"steadfast\""));
            response
        }
    }
}

fn not_allowed(methods: &'static str) -> Response<Vec<u8>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &format!("only {methods} is answered here\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn text(status: StatusCode, text: &str) -> Response<Vec<u8>> {
    answer(status, text.into())
}

fn answer(status: StatusCode, body: Vec<u8>) -> Response<Vec<u8>> {
    let length = body.len();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

//! Checks: each server is asked from time to time whether it is fit, over a connection of its own.
//!
//! They are made as connections for clients are, so that a check that passes says something about
//! those: over TLS if there is any, and with a PROXY header, which says that it is nobody's.
//!
//! Checks go on through every snapshot of an [`Upstream`]: only those begin anew of which something
//! has changed. Otherwise a name server that changes its mind all the time would keep every server
//! from being checked.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use http::HeaderValue;
use httparse::{EMPTY_HEADER, Status};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Server, ServerId, Upstream, connect};
use crate::config::{HealthCheck, Probe};
use crate::proxy_protocol::Version;
use crate::socket::{Socket, Wire};
use crate::tls::Back;

/// All checks of the process. Dropped, they end.
#[derive(Debug, Default)]
pub struct Checks {
    tasks: JoinSet<()>,
    known: AHashMap<ServerId, (Plan, AbortHandle)>,
}

/// How the servers of an upstream are checked.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is asked, and when.
    pub check: HealthCheck,
    /// How they are spoken to over TLS.
    pub tls: Option<Back>,
    /// With which PROXY header.
    pub send_proxy_protocol: Option<Version>,
}

impl Plan {
    fn is_the_same(&self, other: &Self) -> bool {
        let is_same_tls = match (&self.tls, &other.tls) {
            (Some(this), Some(other)) => Arc::ptr_eq(&this.config(), &other.config()),
            (None, None) => true,
            _ => false,
        };
        self.check == other.check && self.send_proxy_protocol == other.send_proxy_protocol && is_same_tls
    }
}

/// The first checks are spread over an interval, and over no more than this.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// How long a server may take over the end of an answer that has been judged already.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Most bytes of a head, with those informational ones before it; and of a body, which is read so that
/// its server sees a connection that ends, and none that breaks.
const HEAD_MAX: usize = 64 * 1024;
const BODY_MAX: usize = 64 * 1024;

/// Most fields of a head.
const FIELDS_MAX: usize = 256;

impl Checks {
    /// Checks the servers of `upstreams`, as these say, and no others.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn follow(&mut self, upstreams: &[Arc<Upstream>]) {
        let mut known = std::mem::take(&mut self.known);
        for upstream in upstreams {
            let Some(plan) = &upstream.checks else { continue };
            for server in &upstream.servers {
                let same = known.remove(&server.id).filter(|(before, task)| {
                    let is_same = before.is_the_same(plan);
                    if !is_same {
                        task.abort();
                    }
                    is_same
                });
                let checking = same.unwrap_or_else(|| {
                    let task = self.tasks.spawn(go_on(server.clone(), plan.clone()));
                    (plan.clone(), task)
                });
                self.known.insert(server.id, checking);
            }
        }
        known.into_values().for_each(|(_, task)| task.abort());
        while self.tasks.try_join_next().is_some() {}
    }
}

async fn go_on(server: Arc<Server>, plan: Plan) {
    sleep(plan.check.interval.min(FIRST_WITHIN).mul_f64(fastrand::f64())).await;
    loop {
        let result = check(server.address, &plan).await;
        server.checked(result.as_ref().map_err(String::as_str).copied());
        sleep(plan.check.interval.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
    }
}

/// Asks whoever is at `address` once.
///
/// # Errors
/// Why it is not fit, in words.
async fn check(mut address: SocketAddr, plan: &Plan) -> Result<(), String> {
    address.set_port(plan.check.port.unwrap_or(address.port()));
    let within = plan.check.timeout;
    let until = Instant::now() + within;
    let late = |_| format!("no answer within {within:?}");
    let header = plan.send_proxy_protocol.map(Version::of_nobody);
    let connecting = connect::open(address, plan.tls.as_ref(), header.unwrap_or_default());
    let socket = timeout_at(until, Box::pin(connecting)).await.map_err(late)?.map_err(|error| in_words(&error))?;
    let Probe::Http { path, host, status } = &plan.check.probe else { return Ok(()) };
    let got = timeout_at(until, status_of(&socket, address, path, host.as_ref())).await.map_err(late)??;
    // Whoever is slow to close is no less fit.
    let _ = timeout_at((Instant::now() + END_WITHIN).min(until), read_to_end(socket.wire())).await;
    match status.iter().any(|range| range.contains(&got)) {
        true => Ok(()),
        false => Err(format!("{got} instead of {}", ranges(status))),
    }
}

/// The status that the server answers with.
async fn status_of(
    socket: &Socket,
    address: SocketAddr,
    path: &str,
    host: Option<&HeaderValue>,
) -> Result<u16, String> {
    let wire = socket.wire();
    let host = host.and_then(|host| host.to_str().ok()).map_or_else(|| address.to_string(), str::to_owned);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: steadfast-health-check\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    wire.collect_all(request.into_bytes());
    wire.flush().await.map_err(|error| in_words(&error))?;
    loop {
        if let Some(status) = wire.peek(status)? {
            return Ok(status);
        }
        if wire.peek(<[u8]>::len) > HEAD_MAX {
            return Err(format!("an answer whose head has more than {HEAD_MAX} bytes"));
        }
        if !wire.read_more().await.map_err(|error| in_words(&error))? {
            return Err("closed without an answer".to_owned());
        }
    }
}

/// The status of the first final head that `bytes` begin with; `None` while it is not whole.
fn status(mut bytes: &[u8]) -> Result<Option<u16>, String> {
    loop {
        let mut fields = [EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        match (head.parse(bytes), head.code) {
            (Ok(Status::Complete(length)), Some(100..=199)) => bytes = &bytes[length..],
            (Ok(Status::Complete(_)), Some(status)) => return Ok(Some(status)),
            (Ok(_), _) => return Ok(None),
            (Err(_), _) => return Err("an answer that is no HTTP/1.1".to_owned()),
        }
    }
}

async fn read_to_end(wire: &Wire) {
    let mut left = BODY_MAX;
    while left > 0 {
        left = left.saturating_sub(wire.take_unread().len());
        if !matches!(wire.read_more().await, Ok(true)) {
            return;
        }
    }
}

fn ranges(status: &[RangeInclusive<u16>]) -> String {
    let range = |range: &RangeInclusive<u16>| match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{}-{}", range.start(), range.end()),
    };
    status.iter().map(range).collect::<Vec<_>>().join(", ")
}

/// What has happened, without the number that the system gives it.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to the host".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn plan(probe: Probe, timeout_ms: u64) -> Plan {
        let timeout = Duration::from_millis(timeout_ms);
        let check = HealthCheck { probe, port: None, interval: timeout, timeout, rise: 1, fall: 1 };
        Plan { check, tls: None, send_proxy_protocol: None }
    }

    fn http(host: Option<&'static str>) -> Probe {
        let host = host.map(HeaderValue::from_static);
        Probe::Http { path: "/healthz?a=b".to_owned(), host, status: vec![200..=299, 304..=304] }
    }

    /// A server that answers one connection with `answer` as soon as something has come; what has come.
    async fn server(answer: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = socket.read(&mut request).await.unwrap();
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
            request.truncate(length);
            String::from_utf8_lossy(&request).into_owned()
        });
        (address, served)
    }

    #[tokio::test]
    async fn the_status_decides() {
        async fn expect(answer: &'static [u8], expected: Result<(), &'static str>) {
            let (address, _served) = server(answer).await;
            let result = check(address, &plan(http(None), 5_000)).await;
            let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]);
            assert_eq!(result, expected.map_err(str::to_owned), "{shown}");
        }

        expect(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(())).await;
        expect(b"HTTP/1.0 204 \r\n\r\n", Ok(())).await;
        expect(b"HTTP/1.1 304 Not Modified\r\n\r\n", Ok(())).await;
        expect(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Ok(())).await;
        expect(b"HTTP/1.1 503 Away\r\n\r\n", Err("503 instead of 200-299, 304")).await;
        expect(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", Err("302 instead of 200-299, 304")).await;
        expect(b"HTTP/1.1 200 OK\r\nA: b\r\n", Err("closed without an answer")).await;
        expect(b"", Err("closed without an answer")).await;
        expect(b"SSH-2.0-OpenSSH\r\n", Err("an answer that is no HTTP/1.1")).await;
        static LONG: [u8; HEAD_MAX + 100] = {
            let mut head = [b'a'; HEAD_MAX + 100];
            let start = b"HTTP/1.1 200 OK\r\nA: ";
            let mut at = 0;
            while at < start.len() {
                head[at] = start[at];
                at += 1;
            }
            head
        };
        expect(&LONG, Err("an answer whose head has more than 65536 bytes")).await;
    }

    #[tokio::test]
    async fn servers_are_asked_as_the_file_says() {
        let (address, served) = server(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let mut plan = plan(http(Some("chat.internal")), 5_000);
        plan.send_proxy_protocol = Some(Version::V1);
        plan.check.port = Some(address.port());
        check(SocketAddr::new(address.ip(), 1), &plan).await.unwrap();
        let request = served.await.unwrap();
        let expected = "PROXY UNKNOWN\r\nGET /healthz?a=b HTTP/1.1\r\nHost: chat.internal\r\n";
        assert!(request.starts_with(expected), "{request:?}");

        let (address, served) = server(b"HTTP/1.1 200 OK\r\n\r\n").await;
        check(address, &self::plan(http(None), 5_000)).await.unwrap();
        assert!(served.await.unwrap().contains(&format!("Host: {address}\r\n")));
    }

    #[tokio::test]
    async fn a_connection_may_be_enough() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(check(address, &plan(Probe::Tcp, 5_000)).await, Ok(()));
        assert_eq!(check(address, &plan(http(None), 50)).await, Err("no answer within 50ms".to_owned()));
        drop(listener);
        for probe in [Probe::Tcp, http(None)] {
            assert_eq!(check(address, &plan(probe, 5_000)).await, Err("connection refused".to_owned()));
        }
    }
}

//! The account of one request, from its head to its end.
//!
//! The rule: whatever happens, each [`Record`] ends once, when it is dropped, and then gives one
//! log line and gives back what it had counted as open. A future that is cancelled drops its
//! record like any other; only shutting down does that, hence the reason it begins with.
//!
//! Only what goes on in another process does not end here: it leaves as an [`Account`], and the
//! record that is made of it there tells of the whole.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use http::{Method, Version};
use serde::{Deserialize, Serialize};

use super::access_log::{AccessLog, Line};
use super::metrics::{Metrics, UpstreamMetrics};
use super::traces::{Followed, Onward, Outcome, RelaySpan, Tracer};
use crate::admission::Seat;
use crate::affinity;
use crate::error::ProxyError;
use crate::relay::{EndReason, Kind};
use crate::tls;
use crate::upstream::Upstream;

/// Where records report to.
#[derive(Debug)]
pub struct Observer {
    /// All metrics.
    pub metrics: Metrics,
    /// The access log, when it is on.
    pub access_log: ArcSwapOption<AccessLog>,
    /// What is traced, when anything is.
    pub tracer: ArcSwapOption<Tracer>,
    /// For requests that belong to no upstream.
    unrouted: UpstreamMetrics,
}

impl Observer {
    /// An observer that counts, and writes lines when there is a log. It traces nothing yet.
    pub fn new(metrics: Metrics, access_log: Option<AccessLog>) -> Self {
        let unrouted = metrics.upstream("");
        let access_log = ArcSwapOption::from_pointee(access_log);
        Self { metrics, access_log, tracer: ArcSwapOption::empty(), unrouted }
    }
}

/// What was asked for; kept for the log line, and for spans.
#[derive(Debug)]
pub struct Asked {
    /// The client, as far as trusted proxies tell.
    pub client: IpAddr,
    /// Who was connected to us, or to the hop that has named it.
    pub previous_hop: IpAddr,
    /// The hop that has named the previous one in a PROXY header. Few have it, so it is boxed.
    pub proxied_by: Option<Box<IpAddr>>,
    /// The version of TLS that the client speaks; `None`: plain text.
    pub tls: Option<tls::front::Version>,
    /// Request method.
    pub method: Method,
    /// Requested host.
    pub host: Box<str>,
    /// Requested path, without its query.
    pub path: Box<str>,
    /// What the client spoke.
    pub protocol: Version,
    /// The protocol the client asked to upgrade to.
    pub upgrade: Option<Box<str>>,
    /// `Sec-WebSocket-Key`.
    pub sec_websocket_key: Option<Box<str>>,
    /// What it is refused for. It stands here because relays have none, and should weigh little.
    pub error: Option<&'static str>,
    /// `User-Agent` and `Referer`, when the log shows them.
    pub browser: Option<Box<(String, String)>>,
}

/// The account of one request. Every relay has one, so its fields are small where they can be.
#[derive(Debug)]
pub struct Record {
    observer: Arc<Observer>,
    began: Instant,
    /// `None` when there is nobody to tell it to.
    asked: Option<Box<Asked>>,
    upstream: Option<Arc<Upstream>>,
    /// Index into the upstream's servers, once one has been reached.
    server: Option<u16>,
    kind: Kind,
    status: u16,
    server_status: Option<u16>,
    affinity: affinity::Label,
    bytes_in: u64,
    bytes_out: u64,
    messages_in: u32,
    messages_out: u32,
    /// Milliseconds to the head of the response, and one more: so that no room is taken by none.
    head_after: Option<NonZeroU32>,
    close_code: Option<u16>,
    /// `None` while another process accounts for it.
    reason: Option<EndReason>,
    /// What its client's connections are counted by, where they are.
    seat: Option<Box<Seat>>,
    /// Its place in a trace, where it has one.
    trace: Option<Box<Followed>>,
}

impl Record {
    /// A request whose head was complete at `began`. `asked` is called when there is a log, which it gets,
    /// or spans are made of it.
    pub fn new(
        observer: Arc<Observer>,
        began: Instant,
        trace: Option<Box<Followed>>,
        asked: impl FnOnce(Option<&AccessLog>) -> Asked,
    ) -> Self {
        let asked = {
            let log = observer.access_log.load();
            let is_told = log.is_some() || trace.as_deref().is_some_and(Followed::is_sampled);
            is_told.then(|| Box::new(asked(log.as_deref())))
        };
        Self {
            observer,
            began,
            asked,
            upstream: None,
            server: None,
            kind: Kind::Http,
            status: 0,
            server_status: None,
            affinity: affinity::Label::default(),
            bytes_in: 0,
            bytes_out: 0,
            messages_in: 0,
            messages_out: 0,
            head_after: None,
            close_code: None,
            reason: Some(EndReason::Shutdown),
            seat: None,
            trace,
        }
    }

    /// What another process needs to account for it. Nothing is known of an error, which relays do
    /// not have.
    pub fn account(&self) -> Account {
        Account {
            age: self.began.elapsed(),
            asked: self.asked.as_deref().map(AskedAccount::of),
            kind: self.kind,
            status: self.status,
            server_status: self.server_status,
            affinity: self.affinity.word().to_owned(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            messages_in: self.messages_in,
            messages_out: self.messages_out,
            head_after: self.head_after,
            close_code: self.close_code,
            trace: self.trace.as_deref().and_then(Followed::relay),
        }
    }

    /// Goes on with what began in another process, over a connection to this `server` of `upstream`.
    /// It counts as open at once, and its end is told here once it is [taken over].
    ///
    /// [taken over]: Record::taken_over
    pub fn from_account(
        observer: Arc<Observer>,
        account: Account,
        upstream: Arc<Upstream>,
        server: u16,
        seat: Option<Box<Seat>>,
    ) -> Self {
        upstream.servers[usize::from(server)].open(account.kind);
        let now = Instant::now();
        Self {
            // No process is older than the machine; where that is not so, it is as old as this one knows.
            began: now.checked_sub(account.age).unwrap_or(now),
            asked: account.asked.map(|asked| Box::new(asked.into_asked())),
            upstream: Some(upstream),
            server: Some(server),
            kind: account.kind,
            status: account.status,
            server_status: account.server_status,
            affinity: affinity::Label::of(&account.affinity),
            bytes_in: account.bytes_in,
            bytes_out: account.bytes_out,
            messages_in: account.messages_in,
            messages_out: account.messages_out,
            head_after: account.head_after,
            close_code: account.close_code,
            reason: None,
            seat,
            trace: account.trace.map(|relay| Box::new(Followed::Relay(relay))),
            observer,
        }
    }

    /// Its end will be told here.
    pub fn taken_over(&mut self) {
        self.reason = Some(EndReason::Shutdown);
    }

    /// Its end will be told by another process: this one only stops to count it as open.
    pub fn handed_over(&mut self) {
        self.reason = None;
    }

    /// Whether its client's connections are counted by it.
    pub fn has_seat(&self) -> bool {
        self.seat.is_some()
    }

    /// It belongs to `upstream`.
    pub fn routed(&mut self, upstream: &Arc<Upstream>) {
        self.upstream = Some(upstream.clone());
    }

    /// It takes its client's `seat` until it ends.
    pub fn takes(&mut self, seat: Box<Seat>) {
        self.seat = Some(seat);
    }

    /// What named its client.
    pub fn named_by(&mut self, affinity: &'static str) {
        self.affinity = affinity::Label::of(affinity);
    }

    /// It belongs to the route of this path.
    pub fn on_route(&mut self, path: &str) {
        if let Some(trace) = &mut self.trace {
            trace.routed(path);
        }
    }

    /// How the server that is asked hears of its trace; `None`: as the request says.
    pub fn onward(&self) -> Option<Onward> {
        self.trace.as_deref().and_then(Followed::onward)
    }

    /// A server is looked for, to be asked.
    pub fn asks(&mut self) {
        self.tell_trace(|trace, tracer, outcome| trace.asks(tracer, &outcome, fastrand::u64(..)));
    }

    /// The head of the final answer of the server that was asked has come.
    pub fn server_spoke(&mut self, status: u16) {
        self.tell_trace(|trace, tracer, outcome| trace.end_leg(tracer, &Outcome { status, ..outcome }, None));
    }

    /// From now on it is a relay.
    pub fn handed_off(&mut self) {
        let Some(trace) = self.trace.take() else { return };
        let relay = {
            let tracer = self.observer.tracer.load();
            trace.hand_off(tracer.as_deref(), &self.outcome(None))
        };
        self.trace = relay.map(Box::new);
        if self.observer.access_log.load().is_none() {
            self.asked = None; // It is of no more use.
        }
    }

    /// Tells of it where there is a trace: what is remembered, to whom, and the account so far.
    fn tell_trace(&mut self, tell: impl FnOnce(&mut Followed, Option<&Tracer>, Outcome<'_>)) {
        let Some(mut trace) = self.trace.take() else { return };
        tell(&mut trace, self.observer.tracer.load().as_deref(), self.outcome(None));
        self.trace = Some(trace);
    }

    fn outcome(&self, reason: Option<EndReason>) -> Outcome<'_> {
        let server = self.server().map(|(upstream, server)| &upstream.servers[server]);
        Outcome {
            asked: self.asked.as_deref(),
            age: self.began.elapsed(),
            kind: self.kind,
            status: self.status,
            upstream: self.upstream.as_deref().map_or("", |upstream| &upstream.name),
            server: server.map(|server| (&*server.name, server.address)),
            affinity: self.affinity.word(),
            bytes: (self.bytes_in, self.bytes_out),
            messages: (self.messages_in, self.messages_out),
            close_code: self.close_code,
            reason,
        }
    }

    /// It holds a connection to this server of its upstream from now on.
    pub fn connected(&mut self, server: usize) {
        self.leave_server();
        self.server = u16::try_from(server).ok();
        if let Some((upstream, server)) = self.server() {
            upstream.servers[server].open(self.kind);
        }
        if let Some(trace) = &mut self.trace {
            trace.connected(self.began.elapsed());
        }
    }

    /// It goes on over a connection to this server of `upstream`, the one it has belonged to or what
    /// stands in its place.
    pub fn moved(&mut self, upstream: &Arc<Upstream>, server: usize) {
        self.leave_server();
        self.routed(upstream);
        self.connected(server);
    }

    /// It turned out to be of `kind`.
    pub fn becomes(&mut self, kind: Kind) {
        if let Some((upstream, server)) = self.server() {
            upstream.servers[server].close(self.kind);
            upstream.servers[server].open(kind);
        }
        self.kind = kind;
    }

    /// The client is told `status`.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
        let after = self.began.elapsed();
        self.metrics().head_came(self.kind, after.as_secs_f64());
        let after = u32::try_from(after.as_millis()).ok();
        self.head_after = after.and_then(|after| NonZeroU32::MIN.checked_add(after));
    }

    /// The server has answered `status` to a client that had been told another one, or the same.
    pub fn server_answered(&mut self, status: u16) {
        self.server_status = Some(status);
    }

    /// So many more bytes went from and to the client. Counted at once: it may be hours to the end.
    pub fn add_bytes(&mut self, from_client: u64, to_client: u64) {
        self.bytes_in += from_client;
        self.bytes_out += to_client;
        self.metrics().passed(from_client, to_client);
    }

    /// So many more messages of a WebSocket went from and to the client.
    pub fn add_messages(&mut self, from_client: u32, to_client: u32) {
        self.messages_in = self.messages_in.saturating_add(from_client);
        self.messages_out = self.messages_out.saturating_add(to_client);
    }

    /// How many bytes went from and to the client so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in, self.bytes_out)
    }

    /// As a WebSocket it was closed with `code`; `None` when nobody said Close.
    pub fn closed(&mut self, code: Option<u16>) {
        self.close_code = code;
    }

    /// This will have been the end.
    pub fn end(&mut self, reason: EndReason) {
        self.reason = Some(reason);
    }

    /// It ends with an error of our own, of which the client is told by `status`.
    pub fn refused(&mut self, error: &ProxyError, status: u16) {
        self.observer.metrics.count_error(error.label());
        self.answered(status);
        self.end(EndReason::Refused);
        if let Some(asked) = &mut self.asked {
            asked.error = Some(error.label());
        }
    }

    /// What it has turned out to be.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Which server of its upstream it holds a connection to; the first when it holds none.
    pub fn server_index(&self) -> u16 {
        self.server.unwrap_or_default()
    }

    /// The time since its head was complete.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    fn metrics(&self) -> &UpstreamMetrics {
        self.upstream.as_deref().map_or(&self.observer.unrouted, |upstream| &upstream.metrics)
    }

    fn server(&self) -> Option<(&Upstream, usize)> {
        Some((self.upstream.as_deref()?, usize::from(self.server?)))
    }

    fn leave_server(&mut self) {
        if let Some((upstream, server)) = self.server() {
            upstream.servers[server].close(self.kind);
        }
        self.server = None;
    }

    fn write_line(&self, log: &AccessLog, asked: &Asked, reason: EndReason, duration: Duration) {
        let (user_agent, referer) = asked.browser.as_deref().map_or(("", ""), |(agent, referer)| (agent, referer));
        let upstream = self.upstream.as_deref();
        let server = self.server();
        log.write(&Line {
            time: SystemTime::now() - duration,
            client: asked.client,
            previous_hop: asked.previous_hop,
            proxied_by: asked.proxied_by.as_deref().copied(),
            tls: asked.tls.map(tls::front::Version::label),
            method: asked.method.as_str(),
            host: &asked.host,
            path: &asked.path,
            user_agent,
            referer,
            status: self.status,
            server_status: self.server_status,
            protocol: protocol(asked.protocol),
            upstream_protocol: if server.is_some() { "HTTP/1.1" } else { "" },
            upgrade: asked.upgrade.as_deref(),
            sec_websocket_key: asked.sec_websocket_key.as_deref(),
            kind: self.kind.label(),
            upstream: upstream.map_or("", |upstream| &upstream.name),
            server: server.map_or("", |(upstream, server)| &upstream.servers[server].name),
            affinity: self.affinity.word(),
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            time_to_head_ms: self.head_after.map(|after| after.get() - 1),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            close_code: self.close_code,
            end_reason: reason.label(),
            error: asked.error,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            let duration = self.began.elapsed();
            let metrics = self.metrics();
            metrics.answered(self.status);
            metrics.ended(self.kind, reason, duration.as_secs_f64());
            if let (Some(log), Some(asked)) = (&*self.observer.access_log.load(), &self.asked) {
                self.write_line(log, asked, reason, duration);
            }
            if let Some(trace) = self.trace.take()
                && let Some(tracer) = &*self.observer.tracer.load()
            {
                trace.end(tracer, &self.outcome(Some(reason)), fastrand::u64(..));
            }
        }
        self.leave_server();
    }
}

/// A record on its way to another process, where the same request is accounted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Time since its head was complete.
    pub age: Duration,
    asked: Option<AskedAccount>,
    /// What it carries.
    pub kind: Kind,
    status: u16,
    server_status: Option<u16>,
    affinity: String,
    bytes_in: u64,
    bytes_out: u64,
    messages_in: u32,
    messages_out: u32,
    head_after: Option<NonZeroU32>,
    close_code: Option<u16>,
    trace: Option<RelaySpan>,
}

/// What was asked for, likewise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AskedAccount {
    client: IpAddr,
    previous_hop: IpAddr,
    proxied_by: Option<IpAddr>,
    method: String,
    host: Box<str>,
    path: Box<str>,
    is_http_10: bool,
    upgrade: Option<Box<str>>,
    sec_websocket_key: Option<Box<str>>,
    browser: Option<(String, String)>,
}

impl AskedAccount {
    /// Of a connection in plain text that speaks HTTP/1: no other can go to another process.
    fn of(asked: &Asked) -> Self {
        Self {
            client: asked.client,
            previous_hop: asked.previous_hop,
            proxied_by: asked.proxied_by.as_deref().copied(),
            method: asked.method.as_str().to_owned(),
            host: asked.host.clone(),
            path: asked.path.clone(),
            is_http_10: asked.protocol == Version::HTTP_10,
            upgrade: asked.upgrade.clone(),
            sec_websocket_key: asked.sec_websocket_key.clone(),
            browser: asked.browser.as_deref().cloned(),
        }
    }

    fn into_asked(self) -> Asked {
        Asked {
            client: self.client,
            previous_hop: self.previous_hop,
            proxied_by: self.proxied_by.map(Box::new),
            tls: None,
            method: Method::from_bytes(self.method.as_bytes()).unwrap_or_default(),
            host: self.host,
            path: self.path,
            protocol: if self.is_http_10 { Version::HTTP_10 } else { Version::HTTP_11 },
            upgrade: self.upgrade,
            sec_websocket_key: self.sec_websocket_key,
            error: None,
            browser: self.browser.map(Box::new),
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small() {
        // As much as before there were traces: with them off no relay weighs more for their sake.
        assert!(size_of::<Record>() <= 104, "{} bytes", size_of::<Record>());
    }
}

//! One request and its answer, phase by phase: the only place that knows the whole order.
//!
//! ```text
//! read the head ─ check ─ route ─ handshake ─ seat ─ affinity ─ reach a server ─ send ─ await the answer
//!                                                                    ▲                        │
//!                                                                    └─ a pooled connection   ├─ 101, events: hand over
//!                                                                       turned out closed     └─ pass the body on
//! ```
//!
//! Pingora's session reads requests. For the rest the exchange speaks for itself, towards the server
//! (`up`, [`crate::upstream::request`]) and the client (`down`, [`crate::upstream::response`]), since
//! a session would hold 64 KiB for every body and copy every head in order to change it. What is
//! decided between them is asked of `route`, `affinity` and `balance`. Large phases are boxed, so that
//! what they needed is freed when they end. A request whose answer takes its time waits in [`parked`];
//! `early` is for those whose client may not be left in silence.

mod bodies;
mod dismissal;
mod down;
mod early;
mod ends;
pub mod explanation;
mod handoff;
mod overlap;
pub mod parked;
pub mod placement;
mod response;
pub mod resumption;
mod scrutiny;
mod up;

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, REFERER, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Version};
use pingora::ErrorType;
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::admission::Admission;
use crate::affinity::engine_io;
use crate::affinity::forwarded;
use crate::affinity::tag::Secret;
use crate::config::{ClientIp, Limits, Route, Shutdown, TcpKeepalive, TrustedProxies};
use crate::error::ProxyError;
use crate::handshake::{self, Handshake};
use crate::observe::access_log::AccessLog;
use crate::observe::traces::Onward;
use crate::observe::{Asked, Observer, Record};
use crate::proxy_protocol::{self, Ends};
use crate::relay::{EndReason, Handover, Resumable};
use crate::route;
use crate::session_store::SessionStore;
use crate::socket::{Socket, Wire};
use crate::tls;
use crate::upstream::request::{self, PreviousHop};
use crate::upstream::{Pool, Upstream, connect, headers};

use bodies::Passed;
use early::Early;
use ends::{keep, leaving, part, refuse};
use parked::{Parked, Waiting, Woken};
use placement::Placement;
use up::Up;

/// What every exchange needs to know: one configuration, as it is in force for all threads.
#[derive(Debug)]
pub struct Front {
    /// In the order of the file.
    pub routes: Vec<Route>,
    /// What the routes refer to.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What tags are keyed with.
    pub secret: Secret,
    /// Who issued the sessions that carry no tag.
    pub sessions: Arc<SessionStore>,
    /// Whose forwarded fields are believed.
    pub trusted: TrustedProxies,
    /// Who the client is, for logs and limits.
    pub client_ip: ClientIp,
    /// What a head may weigh.
    pub limits: Limits,
    /// Who is let in.
    pub admission: Arc<Admission>,
    /// How long a head may take: the upstream is not known before it is read, so this is the
    /// largest of all.
    pub request_head: Duration,
    /// How long a connection of HTTP/2 may be without a request: the largest of all upstreams, for
    /// its requests may be for any of them.
    pub keepalive: Duration,
    /// The largest time-out `send` of all upstreams.
    pub send: Duration,
    /// How TCP finds out that a silent client is gone.
    pub tcp_keepalive: TcpKeepalive,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// Where exchanges report to.
    pub observer: Arc<Observer>,
    /// Turns `true` when the process is stopping: then no connection is kept alive.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// What becomes of the client's connection.
#[derive(Debug)]
pub enum Next {
    /// It is closed, or about to be.
    Close,
    /// Another request may come on it within this time.
    Request(Socket, Duration),
    /// Its request waits for an answer: [`resume`] goes on with it.
    Parked(Box<Parked>),
    /// It stays, and is HTTP no longer.
    Relay(Box<Handover>),
}

/// Why an exchange stops before its response is complete.
enum Failure {
    /// The client is told.
    Refuse(ProxyError),
    /// A pooled connection had been closed by its server, and the server has seen nothing.
    Stale,
    /// There is nobody to tell, or it is too late.
    End(EndReason),
}

/// Serves the next request on `socket`.
pub async fn exchange(front: &Arc<Front>, socket: Socket, previous_hop: IpAddr) -> Next {
    let mut down = client_session(front, socket);
    let head = read_head(front, &mut down).await;
    let began = Instant::now();
    let (mut record, checked) = match head {
        Ok(false) => return Next::Close,
        Ok(true) => (record(front, began, &down, previous_hop), check(front, down.req_header())),
        Err(error) => (unreadable(front, began, &down, previous_hop), Err(error)),
    };
    let upstream = match checked {
        Ok(route) => {
            record.on_route(&route.path);
            front.upstreams[route.upstream].clone()
        }
        Err(error) => return Box::pin(refuse(down, &error, record)).await,
    };
    if let Some(wire) = wire(&down).filter(|_| down.req_header().headers.contains_key(TRANSFER_ENCODING)) {
        wire.expect_chunks();
    }
    record.routed(&upstream);
    let admitted = check_handshake(front, &upstream, down.req_header(), previous_hop)
        .and_then(|()| seat(front, down.req_header(), previous_hop, &mut record));
    if let Err(error) = admitted {
        return Box::pin(refuse(down, &error, record)).await;
    }
    match serve(front, &mut down, &upstream, previous_hop, &mut record).await {
        Ok(Served::Answer(answer)) => finish(front, down, answer, upstream, previous_hop, record).await,
        Ok(Served::Silent(Silent { up, server, place, deadline })) => {
            let early = Early::of(down.req_header(), &upstream, &record, deadline);
            let waiting = Waiting { upstream, server, place, record, deadline, early };
            Parked::new(down, up.into_socket(), waiting).map_or(Next::Close, |parked| Next::Parked(Box::new(parked)))
        }
        Ok(Served::Dismissed(farewell)) => Box::pin(dismissal::dismiss(down, &farewell, record)).await,
        Err(failure) => Box::pin(fail(down, failure, record)).await,
    }
}

/// Tells the client behind `socket` to come later, whatever it asks for.
pub async fn turn_away(front: &Arc<Front>, socket: Socket, previous_hop: IpAddr) -> Next {
    let mut down = client_session(front, socket);
    let head = read_head(front, &mut down).await;
    let began = Instant::now();
    let (record, error) = match head {
        Ok(false) => return Next::Close,
        Ok(true) => (record(front, began, &down, previous_hop), ProxyError::TooManyConnections),
        Err(error) => (unreadable(front, began, &down, previous_hop), error),
    };
    refuse(down, &error, record).await
}

/// Goes on with a request that was parked, because it was `woken`.
pub async fn resume(front: &Arc<Front>, parked: Box<Parked>, woken: Woken, previous_hop: IpAddr) -> Next {
    let (down, socket, mut waiting) = parked.resume(front).await;
    if let Woken::ClientGone(reason) = woken {
        waiting.record.end(reason);
        return Next::Close;
    }
    let Some(mut down) = down else {
        waiting.record.end(EndReason::ClientError);
        return Next::Close;
    };
    if woken == Woken::Early {
        return early::begin(front, down, socket, waiting, previous_hop);
    }
    let Waiting { upstream, server, place, mut record, deadline, mut early } = waiting;
    let answered = async {
        match woken {
            Woken::Answer | Woken::ClientGone(_) | Woken::Early => {}
            Woken::ServerGone => return Err(no_response(&upstream)),
            Woken::Late => return Err(bodies::too_late(&upstream, upstream.timeouts.response_head)),
        }
        let mut up = Box::new(Up::new(socket, down.req_header()));
        match &mut early {
            Early::Begun(begun) => begun.await_head(&down, &mut up, &upstream, &mut record, deadline).await?,
            Early::Never | Early::At(_) => bodies::await_head(&mut down, &mut up, &upstream, deadline).await?,
        }
        record.server_spoke(up.status());
        answered(front, &mut down, &upstream, server, up, true, place).await
    };
    let answered = answered.await.map_err(|failure| blamed(failure, &upstream, server));
    if let Early::Begun(begun) = early {
        return begun.go_on(front, down, answered, upstream, record, previous_hop).await;
    }
    match answered {
        Ok(answer) => finish(front, down, answer, upstream, previous_hop, record).await,
        Err(failure) => fail(down, failure, record).await,
    }
}

/// A session with the client at the other end of `socket`, about to read a head.
fn client_session(front: &Front, socket: Socket) -> Box<ServerSession> {
    socket.wire().expect_head(front.limits.head_bytes);
    let mut down = Box::new(ServerSession::new(Box::new(socket)));
    down.set_pipelining_enabled(true);
    down.set_read_timeout(None); // Each phase has its own.
    down
}

/// Ends an exchange that has failed.
async fn fail(down: Box<ServerSession>, failure: Failure, mut record: Record) -> Next {
    match failure {
        Failure::Refuse(error) => return refuse(down, &error, record).await,
        Failure::Stale => record.end(EndReason::ServerError),
        Failure::End(reason) => record.end(reason),
    }
    Next::Close
}

/// `false` when the client closed instead of asking.
async fn read_head(front: &Front, down: &mut ServerSession) -> Result<bool, ProxyError> {
    let read = read_request(down, front.request_head).await;
    let is_too_long = wire(down).is_some_and(|wire| wire.head_is_too_long());
    let is_malformed = wire(down).is_some_and(|wire| wire.is_malformed());
    match read {
        _ if is_malformed => Err(ProxyError::Malformed),
        _ if is_too_long => Err(ProxyError::HeadTooLong { bytes_max: front.limits.head_bytes }),
        Ok(Ok(read)) => Ok(read.is_some()),
        Ok(Err(error)) => match error.etype() {
            ErrorType::ConnectionClosed | ErrorType::ReadError => Ok(false),
            ErrorType::ReadTimedout => Err(ProxyError::HeadTimeout),
            _ => Err(ProxyError::Malformed),
        },
        Err(_) => Err(ProxyError::HeadTimeout),
    }
}

/// Has the session read a head that has begun to come.
async fn read_request(down: &mut ServerSession, within: Duration) -> Result<pingora::Result<Option<usize>>, Elapsed> {
    let mut read = Box::pin(down.read_request());
    match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
        Poll::Ready(read) => Ok(read), // As a rule all of it is there, and no clock is needed.
        Poll::Pending => timeout(within, read).await,
    }
}

/// Whether the request is no WebSocket handshake, or a whole one; tells those who keep count.
fn check_handshake(
    front: &Front,
    upstream: &Upstream,
    head: &RequestHeader,
    previous_hop: IpAddr,
) -> Result<(), ProxyError> {
    let damage = match handshake::judge(head) {
        Handshake::None => return Ok(()),
        Handshake::Whole => None,
        Handshake::Damaged(damage) => Some(damage),
    };
    upstream.shaken(damage, previous_hop);
    let Some(damage) = damage else { return Ok(()) };
    front.observer.metrics.count_damaged_handshake(damage, previous_hop.to_canonical());
    Err(ProxyError::DamagedHandshake { damage, previous_hop })
}

/// Takes a seat for the client, if they are counted.
fn seat(front: &Front, head: &RequestHeader, previous_hop: IpAddr, record: &mut Record) -> Result<(), ProxyError> {
    let Some(max) = front.limits.per_client else { return Ok(()) };
    let client = forwarded::client(&front.client_ip, &head.headers, previous_hop, &front.trusted);
    let seat = front.admission.seat(client).ok_or(ProxyError::TooManyOfClient { max })?;
    record.takes(seat);
    Ok(())
}

/// Whether the request may be served, and by which route.
fn check<'a>(front: &'a Front, head: &RequestHeader) -> Result<&'a Route, ProxyError> {
    if head.headers.len() > front.limits.headers {
        return Err(ProxyError::TooManyFields { max: front.limits.headers });
    }
    if head.raw_path().len() > front.limits.uri_bytes {
        return Err(ProxyError::UriTooLong { bytes_max: front.limits.uri_bytes });
    }
    if head.method == Method::CONNECT {
        return Err(ProxyError::MethodNotAllowed);
    }
    if head.version == Version::HTTP_11 && !head.headers.contains_key(HOST) {
        return Err(ProxyError::NoHost); // RFC 9112, section 3.2.
    }
    scrutiny::scrutinize(head).map_err(|_| ProxyError::Malformed)?;
    let host = route::host(head);
    let route = route::find(&front.routes, &host, head.uri.path()).map(|route| &front.routes[route]);
    route.ok_or(ProxyError::NoRoute { host })
}

/// The server's side of an exchange whose final head has come.
struct Answer {
    /// Boxed: it is large, and moved from phase to phase.
    up: Box<Up>,
    server: usize,
    /// The protocol the client asked to upgrade to.
    asked: Option<HeaderValue>,
    /// The request's body has been passed on to its end.
    is_sent: bool,
    /// What has been read of the body already, because it may hold a session's id.
    begun: Bytes,
    /// It was all of the body, and now has a tag that the server's length does not know of.
    is_tagged: bool,
    /// Where the request belonged.
    place: Placement,
    /// What it takes to go on with another server, if it becomes an event stream for which that is wanted.
    resumable: Option<Box<Resumable>>,
}

/// What came of a request.
enum Served {
    Answer(Answer),
    Silent(Silent),
    /// By nobody: its session ends, and the client is told so.
    Dismissed(engine_io::Farewell),
}

/// The server's side of an exchange whose server takes its time.
struct Silent {
    up: Box<Up>,
    server: usize,
    place: Placement,
    deadline: tokio::time::Instant,
}

/// Reaches a server and has it answer.
async fn serve(
    front: &Front,
    down: &mut ServerSession,
    upstream: &Arc<Upstream>,
    previous_hop: IpAddr,
    record: &mut Record,
) -> Result<Served, Failure> {
    let mut place = Placement::of(front, upstream, down.req_header(), previous_hop).await;
    record.named_by(place.source);
    let client = passed_on(front, down, upstream, previous_hop)?;
    if let (Some(farewell), Some(server)) = (place.farewell.take(), place.holder) {
        let poll = request_for(down, front, previous_hop, upstream, server, &place, record.onward())?;
        Box::pin(dismissal::tell_server(upstream, server, client, poll, &farewell)).await;
        return Ok(Served::Dismissed(farewell));
    }
    if comes_to_stay(down.req_header()) {
        wait_for_turn(down, upstream).await?;
    }
    let mut may_use_pool = true;
    loop {
        record.asks();
        let Reached { socket, server, is_pooled } = reach(upstream, &place, client, may_use_pool).await?;
        record.connected(server);
        let head = request_for(down, front, previous_hop, upstream, server, &place, record.onward())?;
        let mut up = Box::new(Up::new(socket, down.req_header()));
        let can_repeat = is_pooled && down.is_body_empty() && down.req_header().method.is_idempotent();
        let deadline = tokio::time::Instant::now() + upstream.timeouts.response_head;
        match bodies::ask(down, &mut up, head, upstream, deadline, record).await {
            Ok(bodies::Asked::Answered { is_sent }) => {
                record.server_spoke(up.status());
                return answered(front, down, upstream, server, up, is_sent, place).await.map(Served::Answer);
            }
            Ok(bodies::Asked::Silent) => return Ok(Served::Silent(Silent { up, server, place, deadline })),
            // The server closed an idle connection while the request was on its way.
            Err(Failure::Stale) if can_repeat => may_use_pool = false,
            Err(Failure::Stale) => return Err(no_response(upstream)),
            Err(failure) => return Err(blamed(failure, upstream, server)),
        }
    }
}

/// A failure of an exchange, of which the server hears if it is to blame.
fn blamed(failure: Failure, upstream: &Upstream, server: usize) -> Failure {
    match &failure {
        Failure::Refuse(ProxyError::NoResponse { .. }) => upstream.servers[server].unanswered("no valid response"),
        Failure::Refuse(ProxyError::ResponseTimeout { seconds, .. }) => {
            upstream.servers[server].unanswered(&format!("no answer within {seconds} s"));
        }
        Failure::Refuse(_) | Failure::Stale | Failure::End(_) => {}
    }
    failure
}

/// Whether a request begins what stays, so that an upstream may take it in its own time: a WebSocket or
/// another upgrade, an event stream and nothing else, or an Engine.IO session by polling, which costs
/// its server as much as a WebSocket does. The polls of a session that there is wait for nobody.
fn comes_to_stay(head: &RequestHeader) -> bool {
    let opens_engine_io = |query: &str| {
        let has = |key: &str| query.split('&').any(|pair| pair.starts_with(key));
        has("EIO=") && !has("sid=")
    };
    headers::upgrade_of(head).is_some()
        || headers::accepts_only_event_stream(&head.headers)
        || head.uri.query().is_some_and(opens_engine_io)
}

/// Waits until the upstream takes one more, as long as the client does.
async fn wait_for_turn(down: &ServerSession, upstream: &Upstream) -> Result<(), Failure> {
    let client = wire(down).ok_or(Failure::End(EndReason::ClientError))?;
    tokio::select! {
        biased;
        turn = upstream.turn() => turn.map_err(|_| Failure::Refuse(ProxyError::TooManyAtOnce)),
        reason = leaving(client) => Err(Failure::End(reason)),
    }
}

/// The head of the request as `server` gets it.
fn request_for(
    down: &ServerSession,
    front: &Front,
    previous_hop: IpAddr,
    upstream: &Upstream,
    server: usize,
    place: &Placement,
    trace: Option<Onward>,
) -> Result<Vec<u8>, Failure> {
    let hop =
        PreviousHop { address: previous_hop, is_trusted: front.trusted.contains(previous_hop), scheme: scheme(down) };
    let asked = down.req_header();
    let head = request::head(asked, hop, &upstream.servers[server].authority, place.changes(asked, upstream, trace));
    head.ok_or(Failure::Refuse(ProxyError::Malformed))
}

/// Learns what the final head that `server` has sent says of the client's session.
async fn answered(
    front: &Front,
    down: &mut ServerSession,
    upstream: &Upstream,
    server: usize,
    mut up: Box<Up>,
    is_sent: bool,
    place: Placement,
) -> Result<Answer, Failure> {
    upstream.servers[server].answered(up.status());
    if down.req_header().uri.query().is_some_and(engine_io::is_asked) {
        upstream.answered_engine_io(up.status());
    }
    let mut begun = bodies::read_begun(down, &mut up, &place, upstream).await?;
    let tagged = up.is_done().then(|| place.tagged(&begun, server, upstream, &front.secret)).flatten();
    let is_tagged = tagged.is_some();
    match (tagged, up.head()) {
        (Some(tagged), _) => begun = tagged.into(),
        (None, Some(head)) => place.learn(&front.sessions, upstream, server, head, &begun).await,
        (None, None) => {}
    }
    let asked = headers::upgrade_of(down.req_header()).cloned();
    Ok(Answer { up, server, asked, is_sent, begun, is_tagged, place, resumable: None })
}

/// The connection that a request came on, as the servers of `upstream` are told of it, if they are.
/// They hear of the same client as the log. If a proxy has named it, nobody knows its port: 0.
fn passed_on(
    front: &Front,
    down: &ServerSession,
    upstream: &Upstream,
    previous_hop: IpAddr,
) -> Result<Option<(Ends, proxy_protocol::Version)>, Failure> {
    let Some(version) = upstream.send_proxy_protocol else { return Ok(None) };
    let ends = wire(down).and_then(|wire| wire.passed_on().or_else(|| wire.ends().ok()));
    let mut ends = ends.ok_or(Failure::End(EndReason::ClientClosed))?;
    let client = forwarded::client(&front.client_ip, &down.req_header().headers, previous_hop, &front.trusted);
    if client != ends.source.ip().to_canonical() {
        ends.source = (client, 0).into();
    }
    Ok(Some((ends, version)))
}

struct Reached {
    socket: Socket,
    server: usize,
    is_pooled: bool,
}

/// A connection to the first candidate that can be reached. Nothing of the request is gone yet, so
/// each of them may be tried.
async fn reach(
    upstream: &Upstream,
    place: &Placement,
    client: Option<(Ends, proxy_protocol::Version)>,
    may_use_pool: bool,
) -> Result<Reached, Failure> {
    for server in upstream.candidates(place.holder, place.key.as_deref()) {
        let this = &upstream.servers[server];
        this.tried();
        if may_use_pool && let Some(socket) = Pool::take(this.id, client.map(|(ends, _)| ends), Instant::now()) {
            return Ok(Reached { socket, server, is_pooled: true });
        }
        match Box::pin(connect::connect(this, upstream.tls.as_ref(), upstream.timeouts.connect, client)).await {
            Ok(socket) => {
                this.connected(&upstream.name);
                return Ok(Reached { socket, server, is_pooled: false });
            }
            Err(error) => this.failed(&upstream.name, &error),
        }
    }
    Err(Failure::Refuse(ProxyError::NoServer { upstream: upstream.name.clone() }))
}

/// Passes the answer on: as a relay, or as a response.
async fn finish(
    front: &Front,
    mut down: Box<ServerSession>,
    mut answer: Answer,
    upstream: Arc<Upstream>,
    previous_hop: IpAddr,
    mut record: Record,
) -> Next {
    if *front.stopping.borrow() {
        down.set_server_keepalive(None);
    }
    let asked_upgrade = answer.asked.is_some();
    let mut plan = handoff::plan(&down, &mut answer, &upstream);
    if let Ok(handoff::Plan::Respond(head) | handoff::Plan::Relay(head, _)) = &mut plan {
        let request = (&down.req_header().headers, previous_hop, scheme(&down));
        answer.place.keep(front, &upstream, answer.server, request, head);
    }
    if asked_upgrade {
        // What follows an upgrade may be of the protocol that was refused, and is no request.
        down.set_server_keepalive(None);
    }
    let passed = match plan {
        Ok(handoff::Plan::Respond(head)) => bodies::respond(&mut down, answer, head, &upstream, &mut record).await,
        Ok(handoff::Plan::Relay(head, kind)) => {
            let client = forwarded::client(&front.client_ip, &down.req_header().headers, previous_hop, &front.trusted);
            let opening = handoff::Opening::Head(head);
            answer.resumable =
                resumption::resumable(front, &mut down, &answer, &upstream, previous_hop, record.onward());
            return Box::pin(handoff::hand_over(down, answer, opening, kind, client, upstream, record)).await;
        }
        Err(error) => return Box::pin(refuse(down, &error, record)).await,
    };
    match passed {
        Ok(Passed::Whole) if !asked_upgrade => {
            keep(down, upstream.timeouts.keepalive, upstream.timeouts.send, record).await
        }
        Ok(Passed::Whole | Passed::Early) => Box::pin(part(down, upstream.timeouts.send, record)).await,
        Err(reason) => {
            record.end(reason);
            Next::Close
        }
    }
}

/// The account of a request that could be read.
fn record(front: &Front, began: Instant, down: &ServerSession, previous_hop: IpAddr) -> Record {
    let head = down.req_header();
    let trace = front.observer.tracer.load();
    let dice = || (fastrand::u128(..), fastrand::u64(..));
    let trace = trace.as_deref().and_then(|tracer| tracer.follow(&head.headers, dice()));
    Record::new(front.observer.clone(), began, trace, |log| {
        let text = |name: HeaderName| {
            head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Asked {
            client: forwarded::client(&front.client_ip, &head.headers, previous_hop, &front.trusted),
            previous_hop: previous_hop.to_canonical(),
            proxied_by: proxied_by(down),
            tls: tls(down),
            method: head.method.clone(),
            host: route::host(head).into(),
            path: head.uri.path().into(),
            protocol: protocol(down, head.version),
            upgrade: text(UPGRADE).map(Into::into),
            sec_websocket_key: text(SEC_WEBSOCKET_KEY).map(Into::into),
            error: None,
            browser: log
                .is_some_and(AccessLog::wants_browser)
                .then(|| Box::new((text(USER_AGENT).unwrap_or_default(), text(REFERER).unwrap_or_default()))),
        }
    })
}

/// The account of a request whose head made no sense.
fn unreadable(front: &Front, began: Instant, down: &ServerSession, previous_hop: IpAddr) -> Record {
    Record::new(front.observer.clone(), began, None, |_| Asked {
        client: previous_hop.to_canonical(),
        previous_hop: previous_hop.to_canonical(),
        proxied_by: proxied_by(down),
        tls: tls(down),
        method: Method::from_bytes(b"-").unwrap_or_default(),
        host: "".into(),
        path: "".into(),
        protocol: protocol(down, Version::HTTP_11),
        upgrade: None,
        sec_websocket_key: None,
        error: None,
        browser: None,
    })
}

/// What the client speaks: HTTP/1 as its request `says`, or HTTP/2.
fn protocol(down: &ServerSession, says: Version) -> Version {
    if wire(down).is_some_and(|wire| wire.is_http2()) { Version::HTTP_2 } else { says }
}

/// The hop that has named the previous one in a PROXY header.
fn proxied_by(down: &ServerSession) -> Option<Box<IpAddr>> {
    let wire = wire(down)?;
    wire.passed_on()?;
    Some(Box::new(wire.ends().ok()?.source.ip().to_canonical()))
}

/// The version of TLS that the client speaks.
fn tls(down: &ServerSession) -> Option<tls::front::Version> {
    Some(wire(down)?.encryption()?.version)
}

/// How the client's requests come, as URIs say it.
fn scheme(down: &ServerSession) -> &'static str {
    if wire(down).is_some_and(|wire| wire.encryption().is_some()) { "https" } else { "http" }
}

/// The wire under a session with the client.
fn wire(down: &ServerSession) -> Option<&Arc<Wire>> {
    Socket::wire_of(down.stream())
}

fn no_response(upstream: &Upstream) -> Failure {
    Failure::Refuse(ProxyError::NoResponse { upstream: upstream.name.clone() })
}

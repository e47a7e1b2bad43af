//! An event stream that begins before its server has answered.
//!
//! Hops in front give up on a request that is silent for long, and a server may take longer than
//! that. Who waits for events and nothing else can be told so at once: the proxy answers 200 itself,
//! and keeps the stream alive with comments. The request is parked before and behind that.
//!
//! ```text
//! parked ── early head ── parked, with comments ─┬─ a plain event stream: goes on as a relay
//!                                                └─ anything else, or nothing: the stream ends
//! ```
//!
//! The price is that the status is promised before the server has spoken. What it answers instead
//! cannot be told any more, so the stream ends cleanly, and an EventSource that connects again
//! finds out by itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::ORIGIN;
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::bodies::{bad_response, too_late};
use super::down;
use super::ends::{leaving, reclaim};
use super::handoff::{self, Opening, Plan, client_framing};
use super::parked::{Parked, Waiting, Woken};
use super::up::Up;
use super::{Answer, Failure, Front, Next, resumption, scheme, wire};
use crate::affinity::forwarded;
use crate::error::ProxyError;
use crate::observe::Record;
use crate::relay::{self, ClientFraming, EndReason, Events, Keepalive, Kind, ServerFraming, Tick};
use crate::socket::{Socket, Wire};
use crate::upstream::response::{Head, Name};
use crate::upstream::{Upstream, headers};

/// Whether the stream of an exchange that waits begins without its server.
#[derive(Debug)]
pub(super) enum Early {
    /// It does not.
    Never,
    /// It will, at this time.
    At(Instant),
    /// It has.
    Begun(Begun),
}

/// A stream that has begun, of which the client has lines of ours and nothing else.
#[derive(Debug)]
pub(super) struct Begun {
    framing: ClientFraming,
    /// Silence after which a comment is inserted.
    interval: Option<Duration>,
    sent_at: Instant,
}

impl Early {
    /// For a request that has begun as `record` says and is waited for until `deadline`.
    pub(super) fn of(request: &RequestHeader, upstream: &Upstream, record: &Record, deadline: Instant) -> Self {
        let wait = upstream.sse.early_head.filter(|_| may_begin(request));
        let at = wait.map(|wait| Instant::now() + wait.saturating_sub(record.age()));
        at.filter(|at| *at < deadline).map_or(Self::Never, Self::At)
    }

    /// Waits until the client leaves or is to get its head, and keeps a stream that has begun alive.
    pub(super) async fn wait(&mut self, client: &Wire, upstream: &Upstream, record: &mut Record) -> Woken {
        match self {
            Self::Never => Woken::ClientGone(leaving(client).await),
            // Boxed: every other connection that waits would weigh as much.
            Self::At(at) => match Box::pin(timeout_at(*at, leaving(client))).await {
                Ok(reason) => Woken::ClientGone(reason),
                Err(_) => Woken::Early,
            },
            Self::Begun(begun) => Woken::ClientGone(Box::pin(begun.keep_alive(client, upstream, record)).await),
        }
    }
}

/// Whether nothing but a stream of events can be meant. A browser that names an `Origin` looks in
/// the head for a permission that only the server can give.
fn may_begin(request: &RequestHeader) -> bool {
    request.method == Method::GET
        && headers::accepts_only_event_stream(&request.headers)
        && headers::upgrade_of(request).is_none()
        && !request.headers.contains_key(ORIGIN)
}

/// Begins the stream, and parks the request again.
pub(super) fn begin(
    front: &Front,
    mut down: Box<ServerSession>,
    server: Socket,
    mut waiting: Waiting,
    previous_hop: IpAddr,
) -> Next {
    match write_begin(front, &mut down, &mut waiting, previous_hop) {
        Ok(begun) => waiting.early = Early::Begun(begun),
        Err(reason) => {
            waiting.record.end(reason);
            return Next::Close;
        }
    }
    Parked::new(down, server, waiting).map_or(Next::Close, |parked| Next::Parked(Box::new(parked)))
}

fn write_begin(
    front: &Front,
    down: &mut ServerSession,
    waiting: &mut Waiting,
    previous_hop: IpAddr,
) -> Result<Begun, EndReason> {
    let Waiting { upstream, server, place, record, .. } = waiting;
    let framing = client_framing(down);
    if framing == ClientFraming::UntilClose || *front.stopping.borrow() {
        down.set_server_keepalive(None);
    }
    let request = (&down.req_header().headers, previous_hop, scheme(down));
    let mut head = head(down);
    place.keep(front, upstream, *server, request, &mut head);
    record.becomes(Kind::EventStream);
    record.answered(head.status.as_u16());
    // While we hold the wire, writing never waits: head and lines leave in one packet.
    let client = wire(down).ok_or(EndReason::ClientError)?.clone();
    down::write_head(down, head)?;
    let keepalive = Keepalive::of_events(&upstream.sse);
    let limits = relay::limits(Kind::EventStream, &upstream.timeouts, keepalive, fastrand::u32(..));
    let interval = limits.keepalive.map(|ticks| Tick::LENGTH * ticks);
    let begun = Begun { framing, interval, sent_at: Instant::now() };
    begun.send(&client, &Events::new(ServerFraming::UntilClose, framing).begin(upstream.sse.retry), record);
    // Even without others: who holds back a head that nothing follows is whom it is for.
    begun.comment(&client, upstream, record);
    client.start_sending().map_err(|_| EndReason::ClientError)?;
    Ok(begun)
}

/// The head that the client gets.
fn head(down: &ServerSession) -> Head {
    let mut head = Head::new(StatusCode::OK);
    head.add(Name::ContentType, "text/event-stream");
    head.add(Name::CacheControl, "no-cache, no-transform");
    head.promise_events();
    head.frame_for(down.req_header().version);
    head
}

impl Begun {
    /// Sends comments until the client is gone, or has not taken one for the time-out `send`.
    async fn keep_alive(&mut self, client: &Wire, upstream: &Upstream, record: &mut Record) -> EndReason {
        loop {
            let comment_at = self.interval.map(|interval| self.sent_at + interval).filter(|_| !client.has_unsent());
            let stalled_at = self.sent_at + upstream.timeouts.send;
            tokio::select! {
                reason = leaving(client) => return reason,
                flushed = client.flush(), if client.has_unsent() => if flushed.is_err() {
                    return EndReason::ClientError;
                },
                () = sleep_until(stalled_at), if client.has_unsent() => return EndReason::ClientStalled,
                () = sleep_until(comment_at.unwrap_or(self.sent_at)), if comment_at.is_some() => {
                    self.sent_at = Instant::now();
                    self.comment(client, upstream, record);
                }
            }
        }
    }

    fn comment(&self, client: &Wire, upstream: &Upstream, record: &mut Record) {
        let comment = self.events().comment(&upstream.sse.comment);
        upstream.metrics.keepalives.inc();
        self.send(client, &comment.unwrap_or_default(), record);
    }

    fn send(&self, client: &Wire, bytes: &[u8], record: &mut Record) {
        record.add_bytes(0, bytes.len() as u64);
        client.collect(bytes);
    }

    /// The stream as it stands, as far as lines of ours go.
    fn events(&self) -> Events {
        Events::behind_ours(ServerFraming::UntilClose, self.framing)
    }

    /// Waits for the head of the final response. The informational ones before it come too late.
    pub(super) async fn await_head(
        &mut self,
        down: &ServerSession,
        up: &mut Up,
        upstream: &Upstream,
        record: &mut Record,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let Some(client) = wire(down) else {
            return Err(Failure::End(EndReason::ServerError));
        };
        let read = async {
            while !up.is_final() {
                up.read_head().await.map_err(|error| bad_response(error, upstream))?;
            }
            Ok(())
        };
        tokio::select! {
            read = timeout_at(deadline, read) => read.map_err(|_| too_late(upstream, upstream.timeouts.response_head))??,
            reason = self.keep_alive(client, upstream, record) => return Err(Failure::End(reason)),
        }
        record.server_answered(up.status());
        Ok(())
    }

    /// Goes on with what the server has `answered`: the same stream, or its end.
    pub(super) async fn go_on(
        self,
        front: &Front,
        mut down: Box<ServerSession>,
        answered: Result<Answer, Failure>,
        upstream: Arc<Upstream>,
        mut record: Record,
        previous_hop: IpAddr,
    ) -> Next {
        if self.framing == ClientFraming::UntilClose || *front.stopping.borrow() {
            down.set_server_keepalive(None);
        }
        let planned = answered.and_then(|mut answer| {
            let plan = handoff::plan(&down, &mut answer, &upstream).map_err(Failure::Refuse)?;
            Ok((plan, answer))
        });
        let reason = match planned {
            Ok((Plan::Relay(_, kind @ Kind::EventStream), mut answer)) => {
                answer.resumable =
                    resumption::resumable(front, &mut down, &answer, &upstream, previous_hop, record.onward());
                let opening = Opening::Early(self.sent_at.elapsed());
                let fields = &down.req_header().headers;
                let client = forwarded::client(&front.client_ip, fields, previous_hop, &front.trusted);
                return handoff::hand_over(down, answer, opening, kind, client, upstream, record).await;
            }
            Ok((Plan::Respond(head), _)) if head.status == StatusCode::NO_CONTENT => {
                self.tell_to_stay_away(&down, &mut record);
                EndReason::Complete
            }
            Ok(_) => EndReason::Complete,
            Err(Failure::Refuse(error)) => {
                front.observer.metrics.count_error(error.label());
                if matches!(error, ProxyError::ResponseTimeout { .. }) {
                    EndReason::Idle
                } else {
                    EndReason::ServerError
                }
            }
            Err(Failure::Stale) => EndReason::ServerError,
            Err(Failure::End(reason)) => {
                record.end(reason);
                return Next::Close;
            }
        };
        self.end(down, &upstream, record, reason).await
    }

    /// What 204 would have told an EventSource: not to come back. The nearest to that is not soon.
    fn tell_to_stay_away(&self, down: &ServerSession, record: &mut Record) {
        const AWAY: Duration = Duration::from_secs(3600);
        let line = Events::new(ServerFraming::UntilClose, self.framing).begin(Some(AWAY));
        if let Some(client) = wire(down) {
            self.send(client, &line, record);
        }
    }

    /// Ends the stream as if it had been whole, and keeps the connection if the client may.
    async fn end(self, down: Box<ServerSession>, upstream: &Upstream, mut record: Record, reason: EndReason) -> Next {
        let Some(client) = wire(&down) else {
            record.end(EndReason::ClientError);
            return Next::Close;
        };
        client.collect(&self.events().end(None));
        let failed = match timeout(upstream.timeouts.send, client.flush()).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(EndReason::ClientError),
            Err(_) => Some(EndReason::ClientStalled),
        };
        record.end(failed.unwrap_or(reason));
        if failed.is_some() {
            return Next::Close;
        }
        if !down.will_keepalive() {
            client.say_goodbye();
            return Next::Close;
        }
        let socket = reclaim(down).await;
        socket.map_or(Next::Close, |socket| Next::Request(socket, upstream.timeouts.keepalive))
    }
}

//! Event streams go on with another server when theirs is lost, or has to be left.
//!
//! An EventSource whose connection breaks asks again and says which event it has got last. The proxy
//! can do that in its place: it asks the next server, with the same request and `Last-Event-ID`, and
//! what that server answers follows in the same stream. While one is sought the relay runs on, so
//! comments come, and a client that leaves is noticed.
//!
//! The rule: `resume_attempts` servers are asked at most until an event has passed again. So a server
//! that takes every stream and drops it is not asked for ever.

use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{Method, StatusCode};
use pingora::http::RequestHeader;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use tokio::time::{sleep, timeout};

use super::handoff::untouched;
use super::up::Up;
use super::{Answer, Front, request_for, wire};
use crate::observe::traces::Onward;
use crate::relay::{EndReason, NextServer, Quest, Relay, Resumable, ServerFraming, Stopped};
use crate::service::Service;
use crate::socket::{Parts, Socket};
use crate::upstream::pace::TooMany;
use crate::upstream::{ServerId, Upstream, connect};

/// How long to wait before the second server is asked; before the third twice as long, and so on.
const PAUSE: Duration = Duration::from_millis(100);

/// The field by which a client says what it has got.
const LAST_EVENT_ID: &str = "last-event-id";

/// What is to be kept of the request on `down`, whose `answer` is an event stream, so that another
/// server can go on with it; `None` where that is not wanted, or the request is not one to repeat.
pub(super) fn resumable(
    front: &Front,
    down: &mut ServerSession,
    answer: &Answer,
    upstream: &Upstream,
    previous_hop: IpAddr,
    trace: Option<Onward>,
) -> Option<Box<Resumable>> {
    upstream.sse.resume?;
    let has_no_body = answer.is_sent && down.is_body_empty();
    let asked = down.req_header();
    let is_plain = has_no_body && asked.method == Method::GET && answer.asked.is_none();
    // Without a host the head names the one server that got it.
    if !is_plain || !asked.headers.contains_key(HOST) {
        return None;
    }
    let head = request_for(down, front, previous_hop, upstream, answer.server, &answer.place, trace).ok()?;
    let ends = answer.up.wire().passed_on().or_else(|| wire(down)?.passed_on()).or_else(|| wire(down)?.ends().ok());
    Resumable::new(head, answer.place.key.clone(), ends).map(Box::new)
}

/// Seeks a server that goes on with `relay`, which runs without one meanwhile. Returns it as it is to
/// be run further: with a server, or to its end. Or how it has stopped.
///
/// # Errors
/// That it has stopped, which is no failure.
pub async fn resume(service: &Service, relay: Relay) -> Result<Box<Relay>, Box<Stopped>> {
    let Some(mut quest) = relay.quest() else { return Ok(Box::new(relay)) };
    if !is_wanted(service, &quest) {
        return relay.let_go().map(Box::new).map_err(Box::new);
    }
    let mut running = relay.run();
    let found = {
        let mut seeking = pin!(Box::pin(seek(service, &mut quest)));
        tokio::select! {
            biased;
            stopped = &mut running => return Err(Box::new(stopped)),
            found = &mut seeking => found,
        }
    };
    let relay = running.into_relay().expect("it has not stopped");
    match found {
        Some(next) => Ok(Box::new(relay.go_on(next, quest.asked))),
        None => relay.give_up().map(Box::new).map_err(Box::new),
    }
}

/// Asks one server after the other. `None` when there is none to ask, or enough were asked.
async fn seek(service: &Service, quest: &mut Quest) -> Option<NextServer> {
    let head = head(&quest.head, quest.last_event_id.as_deref());
    let mut asked = Vec::new();
    loop {
        in_force(service, quest)?;
        if quest.asked > 0 {
            sleep(PAUSE * quest.asked * (512 + fastrand::u32(..512)) / 1024).await;
        }
        let upstream = in_force(service, quest)?;
        quest.asked += 1;
        let Some(server) = next(quest, &upstream, &mut asked) else {
            tracing::debug!("upstream {}: no other server to go on with an event stream", quest.upstream);
            continue;
        };
        let refusal = match Box::pin(ask(quest, &upstream, server, &head)).await {
            Ok((connection, framing)) => return Some(NextServer { connection, framing, upstream, server }),
            Err(refusal) => refusal,
        };
        let (upstream, server, nth) = (&upstream.name, &upstream.servers[server].name, quest.asked);
        tracing::debug!("upstream {upstream}: server {server} does not go on with an event stream ({nth}): {refusal}");
    }
}

/// The upstream as it is now, if anybody of it may still be asked.
fn in_force(service: &Service, quest: &Quest) -> Option<Arc<Upstream>> {
    let front = service.front();
    let upstream = front.upstreams.iter().find(|upstream| upstream.name == quest.upstream)?;
    (quest.asked < upstream.sse.resume?).then(|| upstream.clone())
}

/// Whether it helps to go to another server. When not the server is to be left but all of its upstream, or
/// this process, it does not.
fn is_wanted(service: &Service, quest: &Quest) -> bool {
    let front = service.front();
    let server = front.upstreams.iter().flat_map(|upstream| &upstream.servers).find(|server| server.id == quest.from);
    let is_to_be_left = || server.is_none_or(|server| !server.state().takes_clients());
    quest.reason != EndReason::Drained || is_to_be_left()
}

/// Whom to ask next: whom the balance would choose, and the one that was lost when all others were
/// asked. One that was left is not asked.
fn next(quest: &Quest, upstream: &Upstream, asked: &mut Vec<ServerId>) -> Option<usize> {
    let id = |server: usize| upstream.servers[server].id;
    let (others, lost): (Vec<_>, Vec<_>) =
        upstream.candidates(None, quest.key.as_deref()).partition(|server| id(*server) != quest.from);
    let is_left = matches!(quest.reason, EndReason::Drained | EndReason::Rebalanced | EndReason::ServerDown);
    let mut order = others;
    order.extend(lost.into_iter().filter(|_| !is_left));
    let next = order.iter().copied().find(|server| !asked.contains(&id(*server))).or_else(|| {
        asked.clear();
        order.first().copied()
    })?;
    asked.push(id(next));
    Some(next)
}

/// Asks `server` to go on, by `head`.
///
/// # Errors
/// When it cannot be reached, or answers anything but a stream into which lines of ours may be inserted.
async fn ask(
    quest: &Quest,
    upstream: &Upstream,
    server: usize,
    head: &[u8],
) -> Result<(Parts, ServerFraming), Refusal> {
    upstream.turn().await.map_err(|TooMany| Refusal::TooMany)?;
    let this = &upstream.servers[server];
    let client = match upstream.send_proxy_protocol {
        Some(version) => Some((quest.ends.ok_or(Refusal::NoEnds)?, version)),
        None => None,
    };
    let connecting = connect::connect(this, upstream.tls.as_ref(), upstream.timeouts.connect, client);
    let socket = connecting.await.map_err(|error| {
        this.failed(&upstream.name, &error);
        Refusal::Unreachable(error)
    })?;
    this.connected(&upstream.name);
    let up = answered(socket, upstream, head).await?;
    let framing = if up.is_chunked() { ServerFraming::Chunked } else { ServerFraming::UntilClose };
    let parts = up.into_socket().into_parts().ok_or(Refusal::NoAnswer)?;
    let unanswered = upstream.timeouts.send.max(upstream.tcp_keepalive.patience());
    // What fails here has failed already, and the relay will find out.
    let _ = parts.transport.probe_peer(&upstream.tcp_keepalive).and(parts.transport.limit_silence(unanswered));
    Ok((parts, framing))
}

/// Sends the request and waits for a head that begins an event stream.
async fn answered(socket: Socket, upstream: &Upstream, head: &[u8]) -> Result<Box<Up>, Refusal> {
    let request = RequestHeader::build(Method::GET, b"/", None).expect("a slash is a target");
    let mut up = Box::new(Up::new(socket, &request));
    up.wire().collect(head);
    let sent = timeout(upstream.timeouts.send, up.wire().flush()).await;
    sent.map_err(|_| Refusal::Late)?.map_err(|_| Refusal::NoAnswer)?;
    let final_head = async {
        while !up.is_final() {
            up.read_head().await.map_err(|_| Refusal::NoAnswer)?;
        }
        Ok(())
    };
    timeout(upstream.timeouts.response_head, final_head).await.map_err(|_| Refusal::Late)??;
    let answer = up.head().ok_or(Refusal::NoAnswer)?;
    let is_stream = answer.status == StatusCode::OK && answer.is_event_stream();
    match is_stream && untouched(&Method::GET, answer).is_none() {
        true => Ok(up),
        false => Err(Refusal::NoStream(answer.status)),
    }
}

/// Why a server does not go on with a stream.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("more clients come to stay than limits.handshakes_per_second lets through")]
    TooMany,
    #[error("send_proxy_protocol needs the client's connection, which is not known")]
    NoEnds,
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    #[error("no answer in time")]
    Late,
    #[error("it has closed, or answered what is not HTTP")]
    NoAnswer,
    #[error("it answers {0}, and no plain event stream")]
    NoStream(StatusCode),
}

/// The `head` of a request, with this id in the place of any that it says; as it is when there is none.
fn head(head: &[u8], last_event_id: Option<&[u8]>) -> Vec<u8> {
    let Some(id) = last_event_id else { return head.to_vec() };
    let mut said = Vec::with_capacity(head.len() + LAST_EVENT_ID.len() + id.len() + 4);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if line == b"\r\n" {
            for part in [b"Last-Event-ID: ", id, b"\r\n"] {
                said.extend_from_slice(part);
            }
        }
        if !name.eq_ignore_ascii_case(LAST_EVENT_ID.as_bytes()) {
            said.extend_from_slice(line);
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_is_said_once() {
        #[track_caller]
        fn check(fields: &str, id: Option<&str>, expected: &str) {
            let request = |fields: &str| format!("GET /events HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let said = head(request(fields).as_bytes(), id.map(str::as_bytes));
            assert_eq!(String::from_utf8(said).expect("tests are text"), request(expected));
        }

        check("", None, "");
        check("Last-Event-ID: 3\r\n", None, "Last-Event-ID: 3\r\n");
        check("", Some("7"), "Last-Event-ID: 7\r\n");
        check(
            "last-event-id: 3\r\nAccept: */*\r\nLAST-EVENT-ID: 4\r\n",
            Some("7: x"),
            "Accept: */*\r\nLast-Event-ID: 7: x\r\n",
        );
        check("Last-Event-ID-Not: 3\r\n", Some("grün"), "Last-Event-ID-Not: 3\r\nLast-Event-ID: grün\r\n");
    }
}

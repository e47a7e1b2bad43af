//! Bodies, both ways at once, and the heads that come before them.
//!
//! The rule: no more is read for a peer that has not yet taken what it was sent. What is written is
//! collected in the wires, so that writing never waits, and flushing is one more thing to wait for: a
//! server that answers while it is still being asked, and a client that listens only when it has said
//! everything, cannot block each other.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use pingora::{BError, ErrorType};
use tokio::time::{Instant, timeout, timeout_at};

use super::down::{self, Framing};
use super::ends::leaving;
use super::parked::PARK_AFTER;
use super::placement::Placement;
use super::up::{Broken, NoHead, Up};
use super::{Answer, Failure, no_response, wire};
use crate::error::ProxyError;
use crate::observe::Record;
use crate::relay::EndReason;
use crate::socket::Wire;
use crate::upstream::response::{Head, Name};
use crate::upstream::{Pool, Upstream};

/// How a server took a request.
pub(super) enum Asked {
    /// The head of its final response has come; the body of the request has been sent to its end,
    /// or not.
    Answered { is_sent: bool },
    /// It has all of the request, and has not said a word for [`PARK_AFTER`].
    Silent,
}

/// Sends the request, and waits for the head of the final response, at most until `deadline`;
/// informational ones are passed on meanwhile.
pub(super) async fn ask(
    down: &mut ServerSession,
    up: &mut Up,
    head: Vec<u8>,
    upstream: &Upstream,
    deadline: Instant,
    record: &mut Record,
) -> Result<Asked, Failure> {
    up.wire().collect_all(head);
    match up.wire().flush_within(upstream.timeouts.send).await {
        Ok(true) => {}
        Ok(false) => return Err(no_response(upstream)),
        Err(_) => return Err(Failure::Stale),
    }
    if !down.is_body_done() {
        let is_sent = Box::pin(send_body(down, up, upstream, record)).await?;
        return Ok(Asked::Answered { is_sent });
    }
    let asked_at = deadline - upstream.timeouts.response_head;
    if !has_begun(down, up, asked_at + PARK_AFTER, deadline).await? {
        return Ok(Asked::Silent);
    }
    await_head(down, up, upstream, deadline).await?;
    Ok(Asked::Answered { is_sent: true })
}

/// Waits for the first byte of the answer; `false` when it is not there at `parks_at`.
async fn has_begun(down: &ServerSession, up: &Up, parks_at: Instant, deadline: Instant) -> Result<bool, Failure> {
    if deadline <= parks_at {
        return Ok(true); // Not worth the trouble.
    }
    let Some(client) = wire(down) else {
        return Err(Failure::End(EndReason::ServerError));
    };
    tokio::select! {
        begun = timeout_at(parks_at, up.wire().read_ahead()) => match begun {
            Ok(Ok(true)) => Ok(true),
            Ok(Ok(false) | Err(_)) => Err(Failure::Stale),
            Err(_) => Ok(false),
        },
        reason = leaving(client) => Err(Failure::End(reason)),
    }
}

/// Waits for the head of the final response to a request without a body.
pub(super) async fn await_head(
    down: &mut ServerSession,
    up: &mut Up,
    upstream: &Upstream,
    deadline: Instant,
) -> Result<(), Failure> {
    loop {
        let Some(client) = wire(down) else {
            return Err(Failure::End(EndReason::ServerError));
        };
        let read = match up.take_next_head() {
            Ok(false) => tokio::select! {
                biased;
                read = timeout_at(deadline, up.read_head()) => read,
                reason = leaving(client) => return Err(Failure::End(reason)),
            },
            read => Ok(read.map(drop)),
        };
        match read {
            Ok(Ok(())) if up.is_final() => return Ok(()),
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(bad_response(error, upstream)),
            Err(_) => return Err(too_late(upstream, upstream.timeouts.response_head)),
        }
        pass_informational(down, up)?;
        down::flush(client, upstream.timeouts.send).await.map_err(Failure::End)?;
    }
}

/// Passes the body of the request on until the final head has come, which need not wait for it.
async fn send_body(
    down: &mut ServerSession,
    up: &mut Up,
    upstream: &Upstream,
    record: &mut Record,
) -> Result<bool, Failure> {
    let (Some(client), server) = (wire(down).cloned(), up.wire().clone()) else {
        return Err(Failure::End(EndReason::ServerError));
    };
    let mut is_sent = false;
    loop {
        let patience = match (server.has_unsent(), is_sent) {
            (true, _) => upstream.timeouts.send,
            (false, false) => upstream.timeouts.body,
            (false, true) => upstream.timeouts.response_head,
        };
        let event = async {
            tokio::select! {
                piece = down.read_body_bytes(), if !is_sent && !server.is_full() => Event::FromClient(piece),
                read = up.read_head() => Event::Head(read),
                flushed = server.flush(), if server.has_unsent() => Event::Flushed(flushed),
                reason = leaving(&client), if is_sent => Event::ClientGone(reason),
            }
        };
        match timeout(patience, event).await {
            Ok(Event::FromClient(Err(_))) if client.is_malformed() => {
                return Err(Failure::Refuse(ProxyError::BodyMalformed));
            }
            Ok(Event::FromClient(piece)) => {
                is_sent = pass_to_server(up, piece, record)?;
            }
            Ok(Event::Head(Ok(()))) if up.is_final() => return Ok(is_sent),
            Ok(Event::Head(Ok(()))) => {
                pass_informational(down, up)?;
                // A client may wait for this one before it goes on. What it does not take is bounded
                // by the length that all heads of a response may have together.
                client.start_sending().map_err(|_| Failure::End(EndReason::ClientError))?;
            }
            Ok(Event::Head(Err(error))) => return Err(bad_response(error, upstream)),
            Ok(Event::Flushed(Ok(()))) => {}
            Ok(Event::Flushed(Err(_))) => await_last_word(up, upstream).await?,
            Ok(Event::ClientGone(reason)) => return Err(Failure::End(reason)),
            Err(_) if server.has_unsent() => return Err(Failure::End(EndReason::ServerStalled)),
            Err(_) if is_sent => return Err(too_late(upstream, upstream.timeouts.response_head)),
            Err(_) => return Err(Failure::Refuse(ProxyError::BodyTimeout)),
        }
        if up.is_final() {
            return Ok(is_sent);
        }
    }
}

/// What may happen while a body is sent and an answer awaited.
enum Event {
    FromClient(pingora::Result<Option<Bytes>>),
    Head(Result<(), NoHead>),
    Flushed(std::io::Result<()>),
    ClientGone(EndReason),
}

/// Gives the server a piece of the request's body; `true` at its end.
pub(super) fn pass_to_server(
    up: &mut Up,
    piece: pingora::Result<Option<Bytes>>,
    record: &mut Record,
) -> Result<bool, Failure> {
    let Some(piece) = piece.map_err(|error| bad_body(&error))? else {
        up.finish_body();
        return Ok(true);
    };
    if !piece.is_empty() {
        record.add_bytes(piece.len() as u64, 0);
        up.write_body(&piece);
    }
    Ok(false)
}

/// The server takes no more of the request; maybe it has answered before it closed.
async fn await_last_word(up: &mut Up, upstream: &Upstream) -> Result<(), Failure> {
    while !up.is_final() {
        match timeout(upstream.timeouts.send, up.read_head()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(no_response(upstream)),
        }
    }
    Ok(())
}

/// Passes the response on, and what is left of the request meanwhile.
pub(super) async fn respond(
    down: &mut ServerSession,
    mut answer: Answer,
    mut head: Head,
    upstream: &Upstream,
    record: &mut Record,
) -> Result<Passed, EndReason> {
    record.answered(head.status.as_u16());
    let begun = std::mem::take(&mut answer.begun);
    if answer.is_tagged {
        head.remove(Name::TransferEncoding);
        head.set(Name::ContentLength, &begun.len().to_string());
    }
    let pause = if head.is_event_stream() { upstream.timeouts.idle } else { upstream.timeouts.body };
    pass_bodies(down, &mut answer, head, begun, pause, upstream.timeouts.send, record).await?;
    if !answer.is_sent {
        return Ok(Passed::Early);
    }
    give_back(answer, upstream);
    Ok(Passed::Whole)
}

/// A response that was passed on to its end.
pub(super) enum Passed {
    /// And so was the request.
    Whole,
    /// The server answered before it had read all of the request, and wants no more of it.
    Early,
}

/// Reads what may hold the id of a new session, and no more of the body than an id can stand in.
/// Nothing has been answered yet, so what goes wrong meanwhile can still be said.
pub(super) async fn read_begun(
    down: &mut ServerSession,
    up: &mut Up,
    place: &Placement,
    upstream: &Upstream,
) -> Result<Bytes, Failure> {
    let Some(bytes_max) = up.head().and_then(|head| place.reads(head)) else {
        return Ok(Bytes::new());
    };
    Box::pin(read_to(bytes_max, down, up, upstream)).await
}

/// Reads the body to its end, or until it has more than `bytes_max`.
async fn read_to(
    bytes_max: usize,
    down: &mut ServerSession,
    up: &mut Up,
    upstream: &Upstream,
) -> Result<Bytes, Failure> {
    let Some(client) = wire(down) else {
        return Err(Failure::End(EndReason::ServerError));
    };
    let mut begun = Vec::new();
    while !up.is_done() && begun.len() <= bytes_max {
        let piece = tokio::select! {
            piece = timeout(upstream.timeouts.body, up.next()) => piece,
            reason = leaving(client) => return Err(Failure::End(reason)),
        };
        match piece {
            Ok(Ok(Some(piece))) => begun.extend_from_slice(&piece),
            Ok(Ok(None)) => break,
            Ok(Err(Broken)) => return Err(no_response(upstream)),
            Err(_) => return Err(too_late(upstream, upstream.timeouts.body)),
        }
    }
    Ok(begun.into())
}

async fn pass_bodies(
    down: &mut ServerSession,
    answer: &mut Answer,
    head: Head,
    begun: Bytes,
    pause: Duration,
    send: Duration,
    record: &mut Record,
) -> Result<(), EndReason> {
    let up = &mut answer.up;
    let (Some(client), server) = (wire(down).cloned(), up.wire().clone()) else {
        return Err(EndReason::ServerError);
    };
    let framing = down::write_head(down, head)?;
    framing.write(&client, &begun, record);
    pass_what_is_there(up, framing, &client, record)?;
    let mut is_refused = false;
    while !up.is_done() {
        let patience = if client.has_unsent() { send } else { pause };
        let is_sent = answer.is_sent;
        let wants_more = !is_sent && !is_refused;
        let event = async {
            tokio::select! {
                biased;
                piece = up.next(), if !client.is_full() => Pass::FromServer(piece),
                flushed = client.flush(), if client.has_unsent() => Pass::ToClient(flushed),
                piece = down.read_body_bytes(), if wants_more && !server.is_full() => Pass::FromClient(piece),
                flushed = server.flush(), if !is_refused && server.has_unsent() => Pass::ToServer(flushed),
                reason = leaving(&client), if is_sent => Pass::ClientGone(reason),
            }
        };
        match timeout(patience, event).await {
            Ok(Pass::FromServer(Ok(Some(piece)))) => {
                framing.write(&client, &piece, record);
                if !up.is_done() {
                    client.start_sending().map_err(|_| EndReason::ClientError)?;
                }
            }
            Ok(Pass::FromServer(Ok(None))) => break,
            Ok(Pass::FromServer(Err(Broken))) => return Err(EndReason::ServerError),
            Ok(Pass::FromClient(piece)) => {
                answer.is_sent = match pass_to_server(up, piece, record) {
                    Ok(is_sent) => is_sent,
                    Err(_) => return Err(EndReason::ClientError),
                };
            }
            Ok(Pass::ToClient(Ok(()))) => {}
            Ok(Pass::ToClient(Err(_))) => return Err(EndReason::ClientError),
            // The server wants no more of the request: its answer is what counts now.
            Ok(Pass::ToServer(result)) => is_refused = result.is_err(),
            Ok(Pass::ClientGone(reason)) => return Err(reason),
            Err(_) if client.has_unsent() => return Err(EndReason::ClientStalled),
            Err(_) => return Err(EndReason::Idle),
        }
    }
    framing.finish(&client);
    Ok(())
}

/// Passes on what came of the body along with the head: as a rule that is all of it.
fn pass_what_is_there(up: &mut Up, framing: Framing, client: &Wire, record: &mut Record) -> Result<(), EndReason> {
    while !up.is_done()
        && !client.is_full()
        && let Some(piece) = up.take_next().map_err(|Broken| EndReason::ServerError)?
    {
        framing.write(client, &piece, record);
    }
    if up.is_done() { Ok(()) } else { client.start_sending().map_err(|_| EndReason::ClientError) }
}

enum Pass {
    FromServer(Result<Option<Vec<u8>>, Broken>),
    ToClient(std::io::Result<()>),
    FromClient(pingora::Result<Option<Bytes>>),
    ToServer(std::io::Result<()>),
    ClientGone(EndReason),
}

/// Keeps the server's connection for other requests, if it is as it was before this one.
fn give_back(answer: Answer, upstream: &Upstream) {
    let Answer { up, server, .. } = answer;
    if let Some((socket, hint)) = up.reclaim() {
        Pool::put(upstream.servers[server].id, socket, hint, std::time::Instant::now());
    }
}

fn pass_informational(down: &ServerSession, up: &Up) -> Result<(), Failure> {
    let Some(mut head) = up.head().cloned() else { return Ok(()) };
    head.pass_on(None);
    down::write_informational(down, &head).map_err(Failure::End)
}

/// What it means that no head could be read.
pub(super) fn bad_response(error: NoHead, upstream: &Upstream) -> Failure {
    match error {
        NoHead::Closed => Failure::Stale,
        NoHead::Broken => no_response(upstream),
    }
}

fn bad_body(error: &BError) -> Failure {
    match error.etype() {
        ErrorType::ReadTimedout => Failure::Refuse(ProxyError::BodyTimeout),
        ErrorType::ConnectionClosed | ErrorType::ReadError => Failure::End(EndReason::ClientClosed),
        _ => Failure::Refuse(ProxyError::BodyMalformed),
    }
}

pub(super) fn too_late(upstream: &Upstream, limit: Duration) -> Failure {
    Failure::Refuse(ProxyError::ResponseTimeout { upstream: upstream.name.clone(), seconds: limit.as_secs() })
}

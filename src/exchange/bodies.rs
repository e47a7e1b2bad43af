//! Bodies, both ways at once, and the heads that come before them.
//!
//! The rule: no more is read for a peer that has not yet taken what it was sent. While bodies flow
//! both wires are held beside their sessions, so that writes never wait (see [`crate::socket`])
//! and flushing is one more thing to wait for: a server that answers while it is still being
//! asked, and a client that listens only when it has said everything, cannot block each other.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{Method, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::{BError, ErrorType};
use tokio::time::{Instant, timeout, timeout_at};

use super::ends::of_client;
use super::parked::PARK_AFTER;
use super::placement::Placement;
use super::sessions::{ClientSession, ServerSession};
use super::{Answer, Failure, no_response, wire};
use crate::error::ProxyError;
use crate::observe::Record;
use crate::relay::EndReason;
use crate::socket::{Socket, Wire};
use crate::upstream::{Pool, Upstream, headers};

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
    up: &mut ClientSession,
    head: Vec<u8>,
    upstream: &Upstream,
    deadline: Instant,
    record: &mut Record,
) -> Result<Asked, Failure> {
    let Some(server) = Socket::wire_of(up.stream()) else {
        return Err(Failure::End(EndReason::ServerError));
    };
    server.collect_all(head);
    match timeout(upstream.timeouts.send, server.flush()).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(Failure::Stale),
        Err(_) => return Err(no_response(upstream)),
    }
    if !down.is_body_done() {
        let is_sent = Box::pin(send_body(down, up, upstream, record)).await?;
        return Ok(Asked::Answered { is_sent });
    }
    if !has_begun(down, up, deadline).await? {
        return Ok(Asked::Silent);
    }
    await_head(down, up, upstream, deadline).await?;
    Ok(Asked::Answered { is_sent: true })
}

/// Waits for the first byte of the answer; `false` when it is not there after [`PARK_AFTER`].
async fn has_begun(down: &ServerSession, up: &ClientSession, deadline: Instant) -> Result<bool, Failure> {
    let parks_at = Instant::now() + PARK_AFTER;
    if deadline <= parks_at {
        return Ok(true); // Not worth the trouble.
    }
    let (Some(client), Some(server)) = (wire(down), Socket::wire_of(up.stream())) else {
        return Err(Failure::End(EndReason::ServerError));
    };
    tokio::select! {
        begun = timeout_at(parks_at, server.read_ahead()) => match begun {
            Ok(Ok(true)) => Ok(true),
            Ok(Ok(false) | Err(_)) => Err(Failure::Stale),
            Err(_) => Ok(false),
        },
        () = client.closed() => Err(Failure::End(EndReason::ClientClosed)),
    }
}

/// Waits for the head of the final response to a request without a body.
pub(super) async fn await_head(
    down: &mut ServerSession,
    up: &mut ClientSession,
    upstream: &Upstream,
    deadline: Instant,
) -> Result<(), Failure> {
    loop {
        {
            let (Some(client), Some(server)) = (wire(down), Socket::wire_of(up.stream())) else {
                return Err(Failure::End(EndReason::ServerError));
            };
            tokio::select! {
                begun = timeout_at(deadline, server.read_ahead()) => match begun {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false) | Err(_)) if server.head_has_begun() => return Err(no_response(upstream)),
                    Ok(Ok(false) | Err(_)) => return Err(Failure::Stale),
                    Err(_) => return Err(too_late(upstream, upstream.timeouts.response_head)),
                },
                () = client.closed() => return Err(Failure::End(EndReason::ClientClosed)),
            }
        }
        match timeout_at(deadline, Box::pin(up.read_response())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(bad_response(&error, up, upstream)),
            Err(_) => return Err(too_late(upstream, upstream.timeouts.response_head)),
        }
        if is_final(up) {
            return Ok(());
        }
        match timeout(upstream.timeouts.send, pass_informational(down, up)).await {
            Ok(passed) => passed?,
            Err(_) => return Err(Failure::End(EndReason::ClientStalled)),
        }
    }
}

/// Passes the body of the request on until the final head has come, which need not wait for it.
async fn send_body(
    down: &mut ServerSession,
    up: &mut ClientSession,
    upstream: &Upstream,
    record: &mut Record,
) -> Result<bool, Failure> {
    let (Some(client), Some(server)) = (wire(down).cloned(), Socket::wire_of(up.stream()).cloned()) else {
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
                read = up.read_response() => Event::Head(read),
                flushed = server.flush(), if server.has_unsent() => Event::Flushed(flushed),
                () = client.closed(), if is_sent => Event::ClientGone,
            }
        };
        match timeout(patience, event).await {
            Ok(Event::FromClient(piece)) => {
                is_sent = pass_to_server(up, piece, record).await?;
            }
            Ok(Event::Head(Ok(_))) if is_final(up) => return Ok(is_sent),
            Ok(Event::Head(Ok(_))) => {
                pass_informational(down, up).await?;
                // A client may wait for this one before it goes on. What it does not take is bounded
                // by the length that all heads of a response may have together.
                client.start_sending().map_err(|_| Failure::End(EndReason::ClientError))?;
            }
            Ok(Event::Head(Err(error))) => return Err(bad_response(&error, up, upstream)),
            Ok(Event::Flushed(Ok(()))) => {}
            Ok(Event::Flushed(Err(_))) => await_last_word(up, upstream).await?,
            Ok(Event::ClientGone) => return Err(Failure::End(EndReason::ClientClosed)),
            Err(_) if server.has_unsent() => return Err(Failure::End(EndReason::ServerStalled)),
            Err(_) if is_sent => return Err(too_late(upstream, upstream.timeouts.response_head)),
            Err(_) => return Err(Failure::Refuse(ProxyError::BodyTimeout)),
        }
        if is_final(up) {
            return Ok(is_sent);
        }
    }
}

/// What may happen while a body is sent and an answer awaited.
enum Event {
    FromClient(pingora::Result<Option<Bytes>>),
    Head(pingora::Result<usize>),
    Flushed(std::io::Result<()>),
    ClientGone,
}

/// Gives the server a piece of the request's body; `true` at its end.
pub(super) async fn pass_to_server(
    up: &mut ClientSession,
    piece: pingora::Result<Option<Bytes>>,
    record: &mut Record,
) -> Result<bool, Failure> {
    let Some(piece) = piece.map_err(|error| bad_body(&error))? else {
        // A failure to write shows when the answer is read, which the server may have sent before.
        let _ = up.finish_body().await;
        return Ok(true);
    };
    if !piece.is_empty() {
        record.add_bytes(piece.len() as u64, 0);
        let _ = up.write_body(&piece).await;
    }
    Ok(false)
}

/// The server takes no more of the request; maybe it has answered before it closed.
async fn await_last_word(up: &mut ClientSession, upstream: &Upstream) -> Result<(), Failure> {
    while !is_final(up) {
        match timeout(upstream.timeouts.send, up.read_response()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(no_response(upstream)),
        }
    }
    Ok(())
}

/// Passes the response on, and what is left of the request meanwhile.
pub(super) async fn respond(
    down: &mut ServerSession,
    mut answer: Answer,
    mut head: Box<ResponseHeader>,
    upstream: &Upstream,
    record: &mut Record,
) -> Result<Passed, EndReason> {
    record.answered(head.status.as_u16());
    let begun = std::mem::take(&mut answer.begun);
    if answer.is_tagged {
        head.remove_header(&TRANSFER_ENCODING);
        head.insert_header(CONTENT_LENGTH, begun.len()).map_err(|_| EndReason::ServerError)?;
    }
    let pause = if headers::is_event_stream(&head) { upstream.timeouts.idle } else { upstream.timeouts.body };
    pass_bodies(down, &mut answer, head, begun, pause, upstream.timeouts.send, record).await?;
    if !answer.is_sent {
        return Ok(Passed::Early);
    }
    give_back(answer, upstream).await;
    Ok(Passed::Whole)
}

/// The body of a response, as it comes from its server.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes are still to come. They are taken from the wire, past the session: that would
    /// hold 64 KiB for any body.
    Short(usize),
    /// As the session reads it.
    Session,
}

/// What a server sent of a body makes no sense, or breaks off.
pub(super) struct Broken;

impl Body {
    /// Longer ones are the session's to read: it reads more at a time.
    const SHORT_MAX: usize = 16 * 1024;

    /// The one behind the head that `up` has read, in answer to `asked`.
    pub(super) fn of(up: &ClientSession, asked: &Method) -> Self {
        // Where the head alone does not say, it is the session that knows (RFC 9112, section 6.3).
        let length = up.resp_header().filter(|head| {
            head.status.as_u16() >= 200
                && !matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
                && asked != Method::HEAD
                && !head.headers.contains_key(TRANSFER_ENCODING)
        });
        let length = length.and_then(|head| {
            let mut fields = head.headers.get_all(CONTENT_LENGTH).iter();
            let (field, others) = (fields.next()?, fields.next());
            let digits = field.as_bytes().iter().all(u8::is_ascii_digit).then(|| field.to_str().ok())??;
            digits.parse().ok().filter(|length| others.is_none() && *length <= Self::SHORT_MAX)
        });
        length.map_or(Self::Session, Self::Short)
    }

    /// Whether all of it has come.
    pub(super) fn is_done(&self, up: &mut ClientSession) -> bool {
        match self {
            Self::Short(left) => *left == 0,
            Self::Session => up.is_body_done(),
        }
    }

    /// The next piece; `None` at the end. `server` is the wire under the session.
    pub(super) async fn next(&mut self, up: &mut ClientSession, server: &Wire) -> Result<Option<Bytes>, Broken> {
        let Self::Short(left) = self else {
            return up.read_body_bytes().await.map_err(|_| Broken);
        };
        if *left == 0 {
            return Ok(None);
        }
        if !matches!(server.read_ahead().await, Ok(true)) {
            return Err(Broken);
        }
        let mut piece = server.take_unread();
        if piece.len() > *left {
            server.put_back(&piece.split_off(*left)); // Nobody has asked for that.
        }
        *left -= piece.len();
        Ok(Some(piece.into()))
    }

    /// The server's connection behind the body, if it may carry another request.
    async fn reclaim(self, mut up: Box<ClientSession>) -> Option<Socket> {
        match self {
            Self::Short(left) => {
                let stays = left == 0 && up.resp_header().is_some_and(headers::stays_open);
                let socket = Socket::from_stream(stays.then(|| up.into_inner())?)?;
                socket.wire().peek(<[u8]>::is_empty).then_some(socket)
            }
            Self::Session => {
                up.respect_keepalive();
                Box::pin(up.reuse()).await.and_then(Socket::from_stream)
            }
        }
    }
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
    up: &mut ClientSession,
    body: &mut Body,
    place: &Placement,
    upstream: &Upstream,
) -> Result<Bytes, Failure> {
    let Some(bytes_max) = up.resp_header().and_then(|head| place.reads(head)) else {
        return Ok(Bytes::new());
    };
    Box::pin(read_to(bytes_max, down, up, body, upstream)).await
}

/// Reads the body to its end, or until it has more than `bytes_max`.
async fn read_to(
    bytes_max: usize,
    down: &mut ServerSession,
    up: &mut ClientSession,
    body: &mut Body,
    upstream: &Upstream,
) -> Result<Bytes, Failure> {
    let (Some(client), Some(server)) = (wire(down), Socket::wire_of(up.stream()).cloned()) else {
        return Err(Failure::End(EndReason::ServerError));
    };
    let mut begun = Vec::new();
    while !body.is_done(up) && begun.len() <= bytes_max {
        let piece = tokio::select! {
            piece = timeout(upstream.timeouts.body, body.next(up, &server)) => piece,
            () = client.closed() => return Err(Failure::End(EndReason::ClientClosed)),
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
    head: Box<ResponseHeader>,
    begun: Bytes,
    pause: Duration,
    send: Duration,
    record: &mut Record,
) -> Result<(), EndReason> {
    let (up, body) = (&mut answer.up, &mut answer.body);
    let (Some(client), Some(server)) = (wire(down).cloned(), Socket::wire_of(up.stream()).cloned()) else {
        return Err(EndReason::ServerError);
    };
    down.write_response_header(head).await.map_err(|error| of_client(&error))?;
    write(down, &begun, record).await?;
    let mut is_refused = false;
    while !body.is_done(up) {
        let patience = if client.has_unsent() { send } else { pause };
        let is_sent = answer.is_sent;
        let wants_more = !is_sent && !is_refused;
        let event = async {
            tokio::select! {
                biased;
                piece = body.next(up, &server), if !client.is_full() => Pass::FromServer(piece),
                flushed = client.flush(), if client.has_unsent() => Pass::ToClient(flushed),
                piece = down.read_body_bytes(), if wants_more && !server.is_full() => Pass::FromClient(piece),
                flushed = server.flush(), if !is_refused && server.has_unsent() => Pass::ToServer(flushed),
                () = client.closed(), if is_sent => Pass::ClientGone,
            }
        };
        match timeout(patience, event).await {
            Ok(Pass::FromServer(Ok(Some(piece)))) => {
                write(down, &piece, record).await?;
                if !body.is_done(up) {
                    client.start_sending().map_err(|_| EndReason::ClientError)?;
                }
            }
            Ok(Pass::FromServer(Ok(None))) => break,
            Ok(Pass::FromServer(Err(Broken))) => return Err(EndReason::ServerError),
            Ok(Pass::FromClient(piece)) => {
                answer.is_sent = match pass_to_server(up, piece, record).await {
                    Ok(is_sent) => is_sent,
                    Err(_) => return Err(EndReason::ClientError),
                };
            }
            Ok(Pass::ToClient(Ok(()))) => {}
            Ok(Pass::ToClient(Err(_))) => return Err(EndReason::ClientError),
            // The server wants no more of the request: its answer is what counts now.
            Ok(Pass::ToServer(result)) => is_refused = result.is_err(),
            Ok(Pass::ClientGone) => return Err(EndReason::ClientClosed),
            Err(_) if client.has_unsent() => return Err(EndReason::ClientStalled),
            Err(_) => return Err(EndReason::Idle),
        }
    }
    Ok(())
}

enum Pass {
    FromServer(Result<Option<Bytes>, Broken>),
    ToClient(std::io::Result<()>),
    FromClient(pingora::Result<Option<Bytes>>),
    ToServer(std::io::Result<()>),
    ClientGone,
}

/// Passes a piece of the body on to the client.
pub(super) async fn write(down: &mut ServerSession, piece: &[u8], record: &mut Record) -> Result<(), EndReason> {
    if piece.is_empty() {
        return Ok(()); // An empty chunk would be the last one.
    }
    record.add_bytes(0, piece.len() as u64);
    down.write_body(piece).await.map(drop).map_err(|error| of_client(&error))
}

/// Keeps the server's connection for other requests, if it is as it was before this one.
async fn give_back(answer: Answer, upstream: &Upstream) {
    let Answer { up, server, body, .. } = answer;
    let hint = keep_alive_hint(&up);
    if let Some(socket) = body.reclaim(up).await {
        Pool::put(upstream.servers[server].id, socket, hint, std::time::Instant::now());
    }
}

/// `Keep-Alive: timeout=5`: what Node's servers send, and mean.
fn keep_alive_hint(up: &ClientSession) -> Option<Duration> {
    let field = up.get_header("keep-alive")?.to_str().ok()?;
    let seconds = field.split(',').find_map(|parameter| parameter.trim().strip_prefix("timeout="))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

pub(super) fn is_final(up: &ClientSession) -> bool {
    up.get_status().is_some_and(|status| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS)
}

async fn pass_informational(down: &mut ServerSession, up: &ClientSession) -> Result<(), Failure> {
    let Some(head) = up.resp_header() else {
        return Ok(());
    };
    if down.req_header().version < Version::HTTP_11 {
        return Ok(()); // HTTP/1.0 knows none (RFC 9110, section 15.2).
    }
    let mut head = Box::new(head.clone());
    headers::to_client(&mut head, None).map_err(|_| Failure::End(EndReason::ServerError))?;
    head.remove_header(&UPGRADE);
    down.write_response_header(head).await.map_err(|error| Failure::End(of_client(&error)))
}

/// What it means that no head could be read.
pub(super) fn bad_response(error: &BError, up: &ClientSession, upstream: &Upstream) -> Failure {
    if Socket::wire_of(up.stream()).is_some_and(|wire| !wire.head_has_begun()) {
        return Failure::Stale;
    }
    tracing::debug!("upstream {}: no valid response: {error}", upstream.name);
    no_response(upstream)
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

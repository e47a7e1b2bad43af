//! What becomes of an answer: a response that is passed on, or a connection that stays.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Version};
use pingora::protocols::http::v1::server::HttpSession as ServerSession;

use super::down;
use super::ends::{part, reclaim};
use super::overlap::{First, overlap};
use super::{Answer, Failure, Next, no_response, wire};
use crate::error::ProxyError;
use crate::handshake;
use crate::observe::Record;
use crate::relay::{
    self, ClientFraming, EndReason, Events, Handover, Keepalive, Kind, Protocol, ServerFraming, Untouched, WebSocket,
};
use crate::socket::Socket;
use crate::upstream::Upstream;
use crate::upstream::response::{Head, Name};

/// What is to be done with an answer, and the head the client gets.
pub(super) enum Plan {
    /// An ordinary response.
    Respond(Head),
    /// It stays.
    Relay(Head, Kind),
}

/// What the client of an answer that stays has got.
pub(super) enum Opening {
    /// Nothing: this is its head.
    Head(Head),
    /// The head of an event stream and lines of ours, the last one so long ago.
    Early(Duration),
}

/// Decides, and makes the head for the client of the one that has come.
pub(super) fn plan(down: &ServerSession, answer: &mut Answer, upstream: &Upstream) -> Result<Plan, ProxyError> {
    let refused = || match no_response(upstream) {
        Failure::Refuse(error) => error,
        Failure::Stale | Failure::End(_) => ProxyError::Malformed,
    };
    let mut head = answer.up.take_head().ok_or_else(refused)?;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // A 101 that nobody asked for, or to something else, must never become a tunnel.
        let asked = answer.asked.as_ref().filter(|asked| head.agrees_to(asked));
        let asked = asked.ok_or_else(refused)?;
        // Who speaks HTTP/1.1 looks at the proof; for who speaks HTTP/2 the handshake was ours.
        let is_ours = kind_of(asked) == Kind::WebSocket && wire(down).is_some_and(|wire| wire.is_http2());
        if is_ours && !handshake::is_proven(&down.req_header().headers, &head.map()) {
            return Err(refused());
        }
        head.pass_on(Some(asked));
        return Ok(Plan::Relay(head, kind_of(asked)));
    }
    head.pass_on(None);
    head.frame_for(down.req_header().version);
    if !head.is_event_stream() {
        return Ok(Plan::Respond(head));
    }
    head.promise_events();
    let Some(reason) = untouched(&down.req_header().method, &head) else {
        return Ok(Plan::Relay(head, Kind::EventStream));
    };
    upstream.metrics.untouched(reason);
    Ok(Plan::Respond(head))
}

/// What stands against inserting anything into the event stream that `head` begins.
pub(super) fn untouched(method: &Method, head: &Head) -> Option<Untouched> {
    let is_coded = head.all(Name::ContentEncoding).any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    if method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT) {
        Some(Untouched::Head)
    } else if head.has(Name::ContentLength) {
        Some(Untouched::Length)
    } else if is_coded {
        Some(Untouched::Encoding)
    } else {
        None
    }
}

fn kind_of(protocol: &HeaderValue) -> Kind {
    if protocol.as_bytes().eq_ignore_ascii_case(b"websocket") { Kind::WebSocket } else { Kind::Tunnel }
}

/// Writes the head if need be, takes both sockets out of their sessions, and frees everything else.
pub(super) async fn hand_over(
    mut down: Box<ServerSession>,
    mut answer: Answer,
    opening: Opening,
    kind: Kind,
    client_address: IpAddr,
    upstream: Arc<Upstream>,
    mut record: Record,
) -> Next {
    let keepalive = match kind {
        Kind::EventStream => Keepalive::of_events(&upstream.sse),
        Kind::WebSocket => Keepalive::of_websocket(&upstream.websocket),
        Kind::Tunnel | Kind::Http => Keepalive::Off,
    };
    let limits = relay::limits(kind, &upstream.timeouts, keepalive, fastrand::u32(..));
    if kind != Kind::EventStream || client_framing(&down) == ClientFraming::UntilClose {
        down.set_server_keepalive(None);
    }
    let (mut quiet_for, has_begun) = match opening {
        Opening::Early(quiet_for) => (quiet_for, true),
        Opening::Head(head) => {
            record.becomes(kind);
            record.answered(head.status.as_u16());
            if let Err(reason) = write_opening(&mut down, head, upstream.timeouts.send).await {
                record.end(reason);
                return Next::Close;
            }
            (Duration::ZERO, false)
        }
    };
    let protocol = match kind {
        Kind::EventStream => {
            let begin = if has_begun { Events::behind_ours } else { Events::new };
            let mut events = begin(server_framing(&answer), client_framing(&down));
            if !answer.is_sent {
                let passing = overlap(&mut down, &mut answer, &mut events, &upstream, &limits, &mut record);
                match Box::pin(passing).await {
                    Ok(First::Request(quiet)) => quiet_for = quiet,
                    Ok(First::Stream) => return part(down, upstream.timeouts.send, record).await,
                    Err(reason) => {
                        record.end(reason);
                        return Next::Close;
                    }
                }
            }
            events.keep(answer.resumable.take());
            Protocol::Events(events, down.get_keepalive_timeout().map(|_| Vec::new()))
        }
        Kind::WebSocket => Protocol::WebSocket(WebSocket::new(fastrand::u64(..))),
        Kind::Tunnel | Kind::Http => Protocol::Unknown,
    };
    let origin = answer.place.origin(&upstream);
    let client = reclaim(down).await.and_then(Socket::into_parts);
    let server = answer.up.into_socket().into_parts();
    let (Some(client), Some(server)) = (client, server) else {
        record.end(EndReason::ServerError);
        return Next::Close;
    };
    // TCP counts a peer that takes nothing as silent too, hence never less than the time it has for that.
    let unanswered = upstream.timeouts.send.max(upstream.tcp_keepalive.patience());
    // What fails here has failed already, and the relay will find out.
    let _ = client.transport.limit_silence(unanswered);
    let _ = server.transport.probe_peer(&upstream.tcp_keepalive).and(server.transport.limit_silence(unanswered));
    record.handed_off();
    Next::Relay(Box::new(Handover {
        client: client.transport,
        client_unread: client.unread,
        client_unsent: client.unsent,
        server: server.transport,
        server_unsent: server.unsent,
        server_unread: server.unread,
        protocol,
        limits,
        quiet_for,
        client_address,
        origin,
        upstream,
        record,
    }))
}

/// Writes the head of what stays. It leaves at once: what follows it may take its time.
async fn write_opening(down: &mut ServerSession, head: Head, send: Duration) -> Result<(), EndReason> {
    if head.status.is_informational() {
        down::write_informational(down, &head)?;
    } else {
        down::write_head(down, head)?;
    }
    down::flush(wire(down).ok_or(EndReason::ClientError)?, send).await
}

/// How the body of the response comes.
fn server_framing(answer: &Answer) -> ServerFraming {
    if answer.up.is_chunked() { ServerFraming::Chunked } else { ServerFraming::UntilClose }
}

/// How it goes on.
pub(super) fn client_framing(down: &ServerSession) -> ClientFraming {
    let is_modern = down.req_header().version >= Version::HTTP_11;
    if is_modern { ClientFraming::Chunked } else { ClientFraming::UntilClose }
}

//! How an exchange takes leave of its client: the connection is kept, or closed so that what was
//! said last arrives.

use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, RETRY_AFTER};
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::{Next, down, wire};
use crate::error::ProxyError;
use crate::observe::Record;
use crate::relay::EndReason;
use crate::socket::{self, Parts, Socket, Wire};
use crate::upstream::headers;

/// Ends a response that was passed on whole, and keeps the connection if both sides may.
pub(super) async fn keep(
    mut down: Box<ServerSession>,
    keepalive: Duration,
    send: Duration,
    mut record: Record,
) -> Next {
    if let Err(reason) = flush(&down, send).await {
        record.end(reason);
        return Next::Close;
    }
    if !down.will_keepalive() {
        let is_told = timeout(send, down.shutdown()).await.is_ok();
        record.end(if is_told { EndReason::Complete } else { EndReason::ClientStalled });
        return Next::Close;
    }
    record.end(EndReason::Complete);
    reclaim(down).await.map_or(Next::Close, |socket| Next::Request(socket, keepalive))
}

/// The client's connection behind a request whose body has been read.
pub(super) async fn reclaim(mut down: Box<ServerSession>) -> Option<Socket> {
    if down.is_body_empty() || !down.will_keepalive() {
        return Socket::from_stream(down.into_inner()); // The session has read no further than the head.
    }
    // What was read beyond the body of the request is the next request. Nothing is awaited: the
    // body has been read.
    let (stream, beyond) = Box::pin(down.reuse()).await.ok()??.into_parts();
    let socket = Socket::from_stream(stream)?;
    if let Some(beyond) = beyond {
        socket.wire().put_back(&beyond);
    }
    Some(socket)
}

/// Ends a response to a client that is still sending its request.
pub(super) async fn part(down: Box<ServerSession>, send: Duration, mut record: Record) -> Next {
    match flush(&down, send).await {
        Ok(()) => {
            record.end(EndReason::Complete);
            if let Some(socket) = Socket::from_stream(down.into_inner()) {
                linger(socket).await;
            }
        }
        Err(reason) => record.end(reason),
    }
    Next::Close
}

/// Has the client take the rest of its response.
async fn flush(down: &ServerSession, send: Duration) -> Result<(), EndReason> {
    down::flush(wire(down).ok_or(EndReason::ClientError)?, send).await
}

/// Answers with an error of our own.
pub(super) async fn refuse(down: Box<ServerSession>, error: &ProxyError, mut record: Record) -> Next {
    let manner = Manner::of(error, &down);
    record.refused(error, manner.status(error));
    match manner.answer(error, fastrand::u32(..)) {
        Ok(answer) => tell(down, &answer).await,
        Err(_) => Next::Close,
    }
}

/// Gives the client an answer of our own, head and all, and closes its connection.
pub(super) async fn tell(down: Box<ServerSession>, answer: &[u8]) -> Next {
    let Some(mut socket) = Socket::from_stream(down.into_inner()) else { return Next::Close };
    let told = async {
        socket.write_all(answer).await?;
        socket.flush().await
    };
    if let Ok(Ok(())) = timeout(TELL_WITHIN, told).await {
        linger(socket).await;
    }
    Next::Close
}

/// How a client is told of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// By status and text.
    Text,
    /// By the head alone: that is what HEAD asks for.
    Head,
    /// By a stream of events that says when to come again and ends. An `EventSource` that is
    /// answered with any error gives up for good (HTML Living Standard, section 9.2.3).
    Events,
}

impl Manner {
    /// The head may be one that could not be read: what is asked here allows for that.
    fn of(error: &ProxyError, down: &ServerSession) -> Self {
        let asked = down.request_summary();
        let wants_events = || down.get_header(ACCEPT).is_some_and(headers::accepts_events);
        if asked.starts_with("HEAD ") {
            Self::Head
        } else if error.is_for_now() && asked.starts_with("GET ") && wants_events() {
            Self::Events
        } else {
            Self::Text
        }
    }

    fn status(self, error: &ProxyError) -> u16 {
        if self == Self::Events { 200 } else { error.status() }
    }

    /// The whole answer. `dice`, any number, spreads those that are to come again.
    fn answer(self, error: &ProxyError, dice: u32) -> pingora::Result<Vec<u8>> {
        let wait = COME_AGAIN_MIN_MS + dice % (COME_AGAIN_MAX_MS - COME_AGAIN_MIN_MS);
        let (kind, text) = match self {
            Self::Text | Self::Head => ("text/plain; charset=utf-8", format!("{error}\n")),
            Self::Events => ("text/event-stream", format!("retry: {wait}\n\n")),
        };
        let mut head = ResponseHeader::build(self.status(error), Some(8))?;
        head.insert_header(DATE, get_cached_date())?;
        head.insert_header(CONTENT_TYPE, kind)?;
        head.insert_header(CACHE_CONTROL, "no-store")?;
        head.insert_header(CONTENT_LENGTH, text.len())?;
        for (name, value) in error.fields() {
            head.insert_header(name, *value)?;
        }
        if error.is_for_now() {
            head.insert_header(RETRY_AFTER, wait.div_ceil(1000))?;
        }
        let reason = head.get_reason_phrase().unwrap_or_default();
        let mut answer = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_str()).into_bytes();
        head.header_to_h1_wire(&mut answer);
        answer.extend_from_slice(b"\r\n");
        answer.extend_from_slice(if self == Self::Head { b"" } else { text.as_bytes() });
        Ok(answer)
    }
}

/// After how long those may come again for whom there is no room now: all at a different time.
const COME_AGAIN_MIN_MS: u32 = 5_000;
const COME_AGAIN_MAX_MS: u32 = 15_000;

/// How long the client has to take an answer of ours.
const TELL_WITHIN: Duration = Duration::from_secs(5);

/// Reads on for a moment, so that a client which is still sending gets the answer.
async fn linger(socket: Socket) {
    if let Some(Parts { transport, .. }) = socket.into_parts() {
        transport.linger().await;
    }
}

/// Waits until the client of an exchange is gone, and tells how it went.
pub(super) async fn leaving(client: &Wire) -> EndReason {
    match client.closed().await {
        Err(error) if socket::is_peer_gone(&error) => EndReason::PeerGone,
        // A reset is how many clients close that want no answer any more.
        Ok(()) | Err(_) => EndReason::ClientClosed,
    }
}

//! An event stream that begins before its request has ended: an answer to a long POST.
//!
//! Until the request has been passed on, Pingora's session is needed for its body. The stream
//! does not wait for that: its bytes are taken from the server's wire, past the session, by the
//! same [`Events`] that the relay goes on with. So nothing is hidden in a session when the request
//! ends, and comments are inserted from the first byte on.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;
use tokio::time::{Instant, sleep_until};

use super::bodies::pass_to_server;
use super::down::Framing;
use super::{Answer, wire};
use crate::observe::Record;
use crate::relay::chunked::Malformed;
use crate::relay::events::{HEADROOM, TAILROOM};
use crate::relay::life::GREETING;
use crate::relay::{ClientFraming, EndReason, Events, Limits, Tick};
use crate::upstream::Upstream;

/// What ended first.
pub(super) enum First {
    /// The request; the client has been sent nothing for this long.
    Request(Duration),
    /// The stream.
    Stream,
}

/// Passes the request and the stream on until one of them has ended. The head has been written.
pub(super) async fn overlap(
    down: &mut ServerSession,
    answer: &mut Answer,
    events: &mut Events,
    upstream: &Upstream,
    limits: &Limits,
    record: &mut Record,
) -> Result<First, EndReason> {
    let up = &mut answer.up;
    let (Some(client), server) = (wire(down).cloned(), up.wire().clone()) else {
        return Err(EndReason::ServerError);
    };
    let interval = limits.keepalive.map(|ticks| Tick::LENGTH * ticks);
    let mut is_refused = false;
    let (mut sent_at, mut active_at) = (Instant::now(), Instant::now());
    let framing = events.frame(ClientFraming::UntilClose); // Here it is done by piece.
    let written = match framing {
        ClientFraming::Chunked => Framing::Chunked,
        ClientFraming::UntilClose => Framing::Plain,
    };
    written.write(&client, &events.begin(upstream.sse.retry), record);
    loop {
        client.start_sending().map_err(|_| EndReason::ClientError)?;
        let (patience, silence) = match client.has_unsent() {
            true => (upstream.timeouts.send, EndReason::ClientStalled),
            false => (upstream.timeouts.idle, EndReason::Idle),
        };
        let interval = match (interval, events.is_untouched()) {
            (Some(interval), true) => Some(interval.min(Tick::LENGTH * GREETING)),
            (interval, _) => interval.filter(|_| !client.has_unsent()),
        };
        // In no order: neither side may be so busy that the other one waits.
        let event = tokio::select! {
            read = server.read_ahead(), if !client.is_full() => Event::FromServer(read),
            flushed = client.flush(), if client.has_unsent() => Event::ToClient(flushed),
            piece = down.read_body_bytes(), if !is_refused && !server.is_full() => Event::FromClient(piece),
            flushed = server.flush(), if !is_refused && server.has_unsent() => Event::ToServer(flushed),
            () = sleep_until(sent_at + interval.unwrap_or_default()), if interval.is_some() => Event::Quiet,
            () = sleep_until(active_at + patience) => return Err(silence),
        };
        if !matches!(event, Event::Quiet) {
            active_at = Instant::now();
        }
        match event {
            Event::FromServer(Ok(true)) => {
                let passed = pass(events, &server.take_unread()).map_err(|Malformed| EndReason::ServerError)?;
                if !passed.is_empty() {
                    sent_at = Instant::now();
                }
                written.write(&client, &passed, record);
                if events.is_done() {
                    written.finish(&client);
                    return Ok(First::Stream);
                }
            }
            Event::FromServer(Ok(false)) => {
                events.closed().map_err(|Malformed| EndReason::ServerError)?;
                written.finish(&client);
                return Ok(First::Stream);
            }
            Event::FromServer(Err(_)) => return Err(EndReason::ServerError),
            Event::FromClient(piece) => {
                if pass_to_server(up, piece, record).map_err(|_| EndReason::ClientError)? {
                    events.frame(framing);
                    return Ok(First::Request(sent_at.elapsed()));
                }
            }
            Event::ToClient(result) => result.map_err(|_| EndReason::ClientError)?,
            // The server wants no more of the request: its answer is what counts now.
            Event::ToServer(result) => is_refused = result.is_err(),
            Event::Quiet => {
                sent_at = Instant::now();
                if let Some(comment) = events.comment(&upstream.sse.comment) {
                    upstream.metrics.keepalives.inc();
                    written.write(&client, &comment, record);
                }
            }
        }
    }
}

/// What may happen while both are under way.
enum Event {
    FromServer(io::Result<bool>),
    ToClient(io::Result<()>),
    FromClient(pingora::Result<Option<Bytes>>),
    ToServer(io::Result<()>),
    /// The client has got nothing for so long that a comment is due.
    Quiet,
}

/// What the client gets of `bytes` of the server's.
fn pass(events: &mut Events, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut buffer = vec![0; HEADROOM + bytes.len() + TAILROOM];
    buffer[HEADROOM..HEADROOM + bytes.len()].copy_from_slice(bytes);
    let passed = events.pass(&mut buffer, HEADROOM..HEADROOM + bytes.len())?;
    buffer.truncate(passed.end);
    buffer.drain(..passed.start);
    Ok(buffer)
}

//! The client's side of an exchange, as far as it is written to.
//!
//! Pingora's session has read the request and says whether its connection may be kept. Responses go
//! past it: a head as it is, and a body by the framing that its head announces. Writing never waits:
//! what is written is collected in the wire, and whoever owns the exchange flushes it.

use std::fmt::Write;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::v1::server::HttpSession as ServerSession;

use super::wire;
use crate::observe::Record;
use crate::relay::EndReason;
use crate::socket::Wire;
use crate::upstream::response::{Head, Name};

/// How the body of a response goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// As it is: to its length, to the end of the connection, or there is none.
    Plain,
    /// In chunks.
    Chunked,
}

/// Writes the head of the final response. The connection is not kept if only its end can end the body,
/// or if the request has not come to its own end.
pub(super) fn write_head(down: &mut ServerSession, mut head: Head) -> Result<Framing, EndReason> {
    let is_bodiless = down.req_header().method == Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let is_chunked = !is_bodiless && head.has(Name::TransferEncoding);
    let has_end = is_bodiless || is_chunked || head.has(Name::ContentLength);
    if !has_end || !down.is_body_done() {
        down.set_server_keepalive(None);
    }
    head.remove(Name::Date);
    head.remove(Name::Connection);
    let mut text = Vec::new();
    head.write(&mut text);
    text.extend_from_slice(b"Date: ");
    text.extend_from_slice(get_cached_date().as_bytes());
    let is_kept = down.will_keepalive();
    let connection: &[u8] =
        if is_kept { b"\r\nConnection: keep-alive\r\n\r\n" } else { b"\r\nConnection: close\r\n\r\n" };
    text.extend_from_slice(connection);
    wire(down).ok_or(EndReason::ClientError)?.collect_all(text);
    Ok(if is_chunked { Framing::Chunked } else { Framing::Plain })
}

/// Writes a head behind which another one comes, or another protocol.
pub(super) fn write_informational(down: &ServerSession, head: &Head) -> Result<(), EndReason> {
    if down.req_header().version < Version::HTTP_11 {
        return Ok(()); // HTTP/1.0 knows none (RFC 9110, section 15.2).
    }
    let mut text = Vec::new();
    head.write(&mut text);
    text.extend_from_slice(b"\r\n");
    wire(down).ok_or(EndReason::ClientError)?.collect_all(text);
    Ok(())
}

impl Framing {
    /// Writes a piece of the body.
    pub(super) fn write(self, client: &Wire, piece: &[u8], record: &mut Record) {
        if piece.is_empty() {
            return; // An empty chunk would be the last one.
        }
        record.add_bytes(0, piece.len() as u64);
        match self {
            Self::Plain => client.collect(piece),
            Self::Chunked => write_chunk(client, piece),
        }
    }

    /// Writes what ends the body.
    pub(super) fn finish(self, client: &Wire) {
        if self == Self::Chunked {
            client.collect(b"0\r\n\r\n");
        }
    }
}

/// Writes `piece`, which is not empty, as a chunk.
pub(super) fn write_chunk(to: &Wire, piece: &[u8]) {
    let mut size = String::with_capacity("FFFFFFFF\r\n".len());
    // Writing to a String cannot fail.
    let _ = write!(size, "{:X}\r\n", piece.len());
    to.collect(size.as_bytes());
    to.collect(piece);
    to.collect(b"\r\n");
}

/// Has the client take what was written for it, within the time-out `send`.
pub(super) async fn flush(client: &Wire, send: Duration) -> Result<(), EndReason> {
    match client.flush_within(send).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(EndReason::ClientStalled),
        Err(_) => Err(EndReason::ClientError),
    }
}

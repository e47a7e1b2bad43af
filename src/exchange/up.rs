//! The server's side of an exchange: a request goes out, a response comes in.
//!
//! Writing never waits: what is written is collected in the wire, and whoever owns the exchange
//! flushes it beside its reading. Reading takes what has come, and is sound to be cancelled: a head
//! or a piece is taken from the wire when it is there.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{Method, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};

use super::response::{self, Body, Malformed};
use crate::socket::{Socket, Wire};
use crate::upstream::headers;

/// One request to a server, and its response.
#[derive(Debug)]
pub(super) struct Up {
    socket: Socket,
    method: Method,
    /// The body of the request goes out in chunks.
    sends_chunks: bool,
    /// The last head that has come.
    head: Option<Box<ResponseHeader>>,
    /// What is to come of the body behind it.
    body: Body,
    /// Bytes that all heads of the response may still have.
    head_left: usize,
    /// The server leaves its connection open behind the response.
    stays_open: bool,
    /// How long it does, as it says.
    keep_alive: Option<Duration>,
}

/// Why no head could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHead {
    /// The server has closed without a word.
    Closed,
    /// It closed in the middle of it, or it makes no sense, or is too long.
    Broken,
}

/// What a server sent of a body makes no sense, or breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Longest head of a response, those of informational responses before it included: what servers
/// send is bounded too.
const HEAD_MAX: usize = 256 * 1024;

impl Up {
    /// Over the connection to a server that is asked for what `asked` says.
    pub(super) fn new(socket: Socket, asked: &RequestHeader) -> Self {
        Self {
            socket,
            method: asked.method.clone(),
            sends_chunks: asked.headers.contains_key(TRANSFER_ENCODING),
            head: None,
            body: Body::UntilClose,
            head_left: HEAD_MAX,
            stays_open: false,
            keep_alive: None,
        }
    }

    /// The server's wire.
    pub(super) fn wire(&self) -> &Arc<Wire> {
        self.socket.wire()
    }

    /// The connection, with whatever has not been read of the response.
    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// Writes a piece of the request's body.
    pub(super) fn write_body(&mut self, piece: &[u8]) {
        if !self.sends_chunks {
            return self.wire().collect(piece);
        }
        if !piece.is_empty() {
            let mut size = String::with_capacity(8);
            // Writing to a String cannot fail.
            let _ = write!(size, "{:X}\r\n", piece.len());
            self.wire().collect(size.as_bytes());
            self.wire().collect(piece);
            self.wire().collect(b"\r\n");
        }
    }

    /// Writes what ends the request's body.
    pub(super) fn finish_body(&mut self) {
        if self.sends_chunks {
            self.wire().collect(b"0\r\n\r\n");
        }
    }

    /// Reads the next head of the response.
    pub(super) async fn read_head(&mut self) -> Result<(), NoHead> {
        let mut seen = 0;
        loop {
            let length = self.wire().peek(<[u8]>::len);
            let parsed = self.wire().peek(|bytes| response::head(bytes, seen));
            if let Some((head, length)) = parsed.map_err(|Malformed| NoHead::Broken)? {
                self.head_left = self.head_left.checked_sub(length).ok_or(NoHead::Broken)?;
                self.wire().skip(length);
                self.body = Body::of(&head, &self.method);
                self.stays_open = head.status != StatusCode::SWITCHING_PROTOCOLS && headers::stays_open(&head);
                self.keep_alive = keep_alive(&head);
                self.head = Some(head);
                return Ok(());
            }
            if length > self.head_left {
                return Err(NoHead::Broken);
            }
            seen = length;
            if !matches!(self.wire().read_more().await, Ok(true)) {
                let is_silent = length == 0 && self.head.is_none();
                return Err(if is_silent { NoHead::Closed } else { NoHead::Broken });
            }
        }
    }

    /// The last head that has come.
    pub(super) fn head(&self) -> Option<&ResponseHeader> {
        self.head.as_deref()
    }

    /// Its status; 0 before it has come.
    pub(super) fn status(&self) -> u16 {
        self.head().map_or(0, |head| head.status.as_u16())
    }

    /// Whether the final head has come.
    pub(super) fn is_final(&self) -> bool {
        let is_final =
            |head: &ResponseHeader| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS;
        self.head().is_some_and(is_final)
    }

    /// Whether all of the body has come.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// The next piece of the body; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if self.body.is_done() {
                return Ok(None);
            }
            match self.wire().read_ahead().await {
                Ok(true) => {}
                Ok(false) if self.body.ends_by_closing() => {
                    (self.body, self.stays_open) = (Body::Length(0), false);
                    return Ok(None);
                }
                Ok(false) | Err(_) => return Err(Broken),
            }
            let mut piece = self.wire().take_unread();
            let behind = self.body.take(&mut piece).map_err(|Malformed| Broken)?;
            if !behind.is_empty() {
                self.wire().put_back(&behind); // Nobody has asked for that.
            }
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
    }

    /// Whether the body comes in chunks.
    pub(super) fn is_chunked(&self) -> bool {
        matches!(self.body, Body::Chunked(_))
    }

    /// The last head that has come, for the client.
    pub(super) fn take_head(&mut self) -> Option<Box<ResponseHeader>> {
        self.head.take()
    }

    /// The connection behind the response, if it may carry another request, and how long its server
    /// says that it will be left open.
    pub(super) fn reclaim(self) -> Option<(Socket, Option<Duration>)> {
        let is_behind = self.body.is_done() && self.wire().peek(<[u8]>::is_empty);
        (is_behind && self.stays_open).then_some((self.socket, self.keep_alive))
    }
}

/// `Keep-Alive: timeout=5`: how long a server leaves the connection open, as Node's servers say and
/// mean.
fn keep_alive(head: &ResponseHeader) -> Option<Duration> {
    let field = head.headers.get("keep-alive")?.to_str().ok()?;
    let seconds = field.split(',').find_map(|parameter| parameter.trim().strip_prefix("timeout="))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

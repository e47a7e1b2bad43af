//! The server's side of an exchange: a request goes out, a response comes in.
//!
//! Writing never waits: what is written is collected in the wire, and whoever owns the exchange
//! flushes it beside its reading. Reading takes what has come, and is sound to be cancelled: a head
//! or a piece is taken from the wire when it is there.

use std::sync::Arc;
use std::time::Duration;

use http::header::TRANSFER_ENCODING;
use http::{Method, StatusCode};
use pingora::http::RequestHeader;

use super::down::write_chunk;
use super::response::Body;
use crate::socket::{Socket, Wire};
use crate::upstream::response::{Head, Malformed, Name};

/// One request to a server, and its response.
#[derive(Debug)]
pub(super) struct Up {
    socket: Socket,
    method: Method,
    /// The body of the request goes out in chunks.
    sends_chunks: bool,
    /// The last head that has come.
    head: Option<Head>,
    /// Bytes that hold no end of the next one.
    seen: usize,
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
            seen: 0,
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
            write_chunk(self.wire(), piece);
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
        while !self.take_next_head()? {
            if !matches!(self.wire().read_more().await, Ok(true)) {
                let is_silent = self.seen == 0 && self.head.is_none();
                return Err(if is_silent { NoHead::Closed } else { NoHead::Broken });
            }
        }
        Ok(())
    }

    /// Reads the next head of the response if all of it has come; `false` when not.
    pub(super) fn take_next_head(&mut self) -> Result<bool, NoHead> {
        let (come, read) = self.wire().peek(|bytes| (bytes.len(), Head::read(bytes, self.seen)));
        let Some((head, length)) = read.map_err(|Malformed| NoHead::Broken)? else {
            self.seen = come;
            return if come > self.head_left { Err(NoHead::Broken) } else { Ok(false) };
        };
        self.seen = 0;
        self.head_left = self.head_left.checked_sub(length).ok_or(NoHead::Broken)?;
        self.wire().skip(length);
        self.body = Body::of(&head, &self.method);
        self.stays_open = head.status != StatusCode::SWITCHING_PROTOCOLS && head.stays_open();
        self.keep_alive = keep_alive(&head);
        self.head = Some(head);
        Ok(true)
    }

    /// The last head that has come.
    pub(super) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Its status; 0 before it has come.
    pub(super) fn status(&self) -> u16 {
        self.head().map_or(0, |head| head.status.as_u16())
    }

    /// Whether the final head has come.
    pub(super) fn is_final(&self) -> bool {
        let is_final = |head: &Head| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS;
        self.head().is_some_and(is_final)
    }

    /// Whether all of the body has come.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// The next piece of the body; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        loop {
            let piece = self.take_next()?;
            if piece.is_some() || self.body.is_done() {
                return Ok(piece);
            }
            match self.wire().read_ahead().await {
                Ok(true) => {}
                Ok(false) if self.body.ends_by_closing() => {
                    (self.body, self.stays_open) = (Body::Length(0), false);
                    return Ok(None);
                }
                Ok(false) | Err(_) => return Err(Broken),
            }
        }
    }

    /// What has come of the body already.
    pub(super) fn take_next(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        if self.body.is_done() {
            return Ok(None); // What is there is not of it.
        }
        let mut piece = self.wire().take_unread();
        let behind = self.body.take(&mut piece).map_err(|Malformed| Broken)?;
        if !behind.is_empty() {
            self.wire().put_back(&behind); // Nobody has asked for that.
        }
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Whether the body comes in chunks.
    pub(super) fn is_chunked(&self) -> bool {
        matches!(self.body, Body::Chunked(_))
    }

    /// The last head that has come, for the client.
    pub(super) fn take_head(&mut self) -> Option<Head> {
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
fn keep_alive(head: &Head) -> Option<Duration> {
    let field = std::str::from_utf8(head.get(Name::KeepAlive)?).ok()?;
    let seconds = field.split(',').find_map(|parameter| parameter.trim().strip_prefix("timeout="))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

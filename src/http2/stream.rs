//! A stream of HTTP/2 as the connection of HTTP/1.1 that it stands for.
//!
//! What is read is a request, the only one; what is written is its response. The connection is over
//! when the response is complete, when the client resets the stream, or when what carries it is
//! lost.
//!
//! ```text
//!   the client's frames                  what a session or a relay sees
//!   HEADERS                     read     the head of a request
//!   DATA, END_STREAM            read     chunks, or as many bytes as the head says; or a WebSocket
//!   RST_STREAM, lost            read     the end, or an error
//!   HEADERS, DATA, END_STREAM   write    the response, its framing taken off
//! ```
//!
//! The rule: no byte is taken that the client's window has no room for, and none is asked for that
//! nobody has read. The wakers of one stream belong to one task: whoever polls it last.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::Method;
use tokio::io::ReadBuf;

use super::link::Link;
use super::request::{Body, Request};
use super::response::{Decoder, Piece};
use crate::proxy_protocol::Ends;
use crate::relay::chunked;
use crate::socket::Agreed;

/// A stream as a connection.
pub struct Stream {
    both: Mutex<Both>,
    link: Arc<Link>,
    id: i32,
}

/// Its two directions.
struct Both {
    request: Reading,
    response: Writing,
    /// Set when a read has found out.
    gone: Option<Gone>,
}

struct Reading {
    stream: RecvStream,
    body: Body,
    /// What comes next: text of ours, data, text of ours.
    before: Bytes,
    data: Bytes,
    behind: &'static [u8],
    has_ended: bool,
}

struct Writing {
    stream: Sending,
    decoder: Decoder,
    /// The client has reset the stream before its response was complete.
    was_reset: bool,
}

enum Sending {
    /// Nothing but heads of informational responses has been sent.
    Nothing(SendResponse<Bytes>),
    /// The head has.
    Head(SendStream<Bytes>),
    /// All has.
    All(SendStream<Bytes>),
    /// What was begun has been broken off.
    Reset,
}

/// What has become of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    /// The client has no more use for it, or has closed its connection.
    Closed,
    /// It has failed.
    Failed,
}

/// Most bytes of a response that are held until they can be sent.
pub const HELD_MAX: usize = 64 * 1024;

impl Stream {
    /// The connection that `request`, by `method`, comes on; the rest of it comes by `incoming`.
    pub fn new(
        link: Arc<Link>,
        method: &Method,
        request: Request,
        incoming: RecvStream,
        respond: SendResponse<Bytes>,
    ) -> Self {
        // Below zero, where no descriptors are.
        static NEXT: AtomicI32 = AtomicI32::new(-1);
        let Request { head, body } = request;
        let both = Both {
            request: Reading {
                stream: incoming,
                body,
                before: head.into(),
                data: Bytes::new(),
                behind: &[],
                has_ended: body == Body::None,
            },
            response: Writing {
                stream: Sending::Nothing(respond),
                decoder: Decoder::new(method, body),
                was_reset: false,
            },
            gone: None,
        };
        Self { both: Mutex::new(both), link, id: NEXT.fetch_sub(1, Ordering::Relaxed) | i32::MIN }
    }

    fn both(&self) -> MutexGuard<'_, Both> {
        // A panic elsewhere leaves whole values behind.
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other open connection has.
    pub fn id(&self) -> i32 {
        self.id
    }

    /// The ends of the connection that carries it.
    pub fn ends(&self) -> io::Result<Ends> {
        self.link.ends()
    }

    /// Reads into `buf`; nothing is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut both = self.both();
        ready!(both.poll_fill(cx))?;
        both.request.take(buf);
        Poll::Ready(Ok(()))
    }

    /// Ready when a read will bring something.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.both().poll_fill(cx)
    }

    /// Reads what is there; 0 is the end. What can come has been looked for when it was asked
    /// whether anything has.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut both = self.both();
        if !both.request.has_more() {
            return both.end().unwrap_or(Err(io::ErrorKind::WouldBlock.into())).map(|()| 0);
        }
        let mut buf = ReadBuf::new(buffer);
        both.request.take(&mut buf);
        Ok(buf.filled().len())
    }

    /// Takes of `bytes`, which are of a response, what the client has room for.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.both().response.write(bytes)
    }

    /// Ready when a write may be taken; or not after all.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.both().response.poll_room(cx)
    }

    /// Nothing more is written. A response that is not complete then is reset.
    pub fn shutdown(&self) -> io::Result<()> {
        self.both().response.close()
    }

    /// Nothing more is written, whether it is complete or not.
    pub fn cut(&self) {
        self.both().response.part();
    }

    /// How the connection that carries it is encrypted.
    pub fn encryption(&self) -> Option<Agreed> {
        self.link.encryption()
    }

    /// Ready when the client has reset the stream, or its connection is lost.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.both().response.poll_gone(cx).map(drop)
    }
}

impl fmt::Debug for Stream {
    /// Short, because it stands in the text of a session's errors.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.id)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let was_reset = self.both().response.part();
        self.link.ended(was_reset);
    }
}

impl Both {
    /// How reading has ended, if it has.
    fn end(&self) -> Option<io::Result<()>> {
        let has_switched = self.response.decoder.has_switched();
        let is_over = match self.gone {
            // To a tunnel a reset is what it is to TCP (RFC 8441, section 5).
            Some(Gone::Closed) if !has_switched => true,
            Some(_) => return Some(Err(io::ErrorKind::ConnectionReset.into())),
            // Nothing can follow the one response.
            None => self.response.is_complete() && !has_switched,
        };
        let is_tunnel = self.request.body == Body::Raw;
        (is_over || (is_tunnel && self.request.has_ended)).then_some(Ok(()))
    }

    /// Looks for something to read. Behind the request there is nothing but the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.request.has_more() {
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = self.end() {
                return Poll::Ready(end);
            }
            if self.request.has_ended {
                self.gone = Some(ready!(self.response.poll_gone(cx)));
                continue;
            }
            match ready!(self.request.stream.poll_data(cx)) {
                Some(Ok(data)) => self.request.add(data),
                None => self.request.end(),
                Some(Err(error)) => self.gone = Some(of_error(&error)),
            }
        }
    }
}

impl Reading {
    fn has_more(&self) -> bool {
        self.before.has_remaining() || self.data.has_remaining() || !self.behind.is_empty()
    }

    fn add(&mut self, data: Bytes) {
        if self.body == Body::Chunked && !data.is_empty() {
            self.before = format!("{:x}\r\n", data.len()).into();
            self.behind = chunked::CHUNK_END;
        }
        self.data = data;
    }

    fn end(&mut self) {
        self.has_ended = true;
        if self.body == Body::Chunked {
            self.behind = chunked::LAST_CHUNK;
        }
    }

    /// Moves what there is into `buf`. The client may send as much again as was taken of its data.
    fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let fits = self.before.len().min(buf.remaining());
        buf.put_slice(&self.before.split_to(fits));
        let fits = self.data.len().min(buf.remaining());
        buf.put_slice(&self.data.split_to(fits));
        // Fails when the stream is gone, which shows elsewhere.
        let _ = self.stream.flow_control().release_capacity(fits);
        let fits = self.behind.len().min(buf.remaining());
        let (now, later) = self.behind.split_at(fits);
        buf.put_slice(now);
        self.behind = later;
    }
}

impl Writing {
    fn is_complete(&self) -> bool {
        matches!(self.stream, Sending::All(_) | Sending::Reset)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            if self.is_complete() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let room = self.room(bytes.len() - taken);
            let (here, piece) = match self.decoder.take(&bytes[taken..], room) {
                Ok(next) => next,
                Err(malformed) => {
                    self.reset();
                    return Err(io::Error::new(io::ErrorKind::InvalidData, malformed));
                }
            };
            taken += here;
            let is_stuck = here == 0 && matches!(piece, Piece::Nothing);
            self.send(piece)?;
            if taken == bytes.len() {
                return Ok(taken);
            }
            if is_stuck {
                return if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) };
            }
        }
    }

    /// For how much of `wanted` bytes there is room now.
    fn room(&mut self, wanted: usize) -> usize {
        match &mut self.stream {
            Sending::Head(stream) if wanted > 0 => {
                stream.reserve_capacity(wanted.min(HELD_MAX));
                stream.capacity()
            }
            _ => 0,
        }
    }

    fn send(&mut self, piece: Piece) -> io::Result<()> {
        let is_end = self.decoder.is_done();
        let sent = match (&mut self.stream, piece) {
            (Sending::Nothing(respond), Piece::Informational(head)) => respond.send_informational(head),
            (Sending::Nothing(respond), Piece::Head(head)) => respond.send_response(head, is_end).map(|stream| {
                self.stream = if is_end { Sending::All(stream) } else { Sending::Head(stream) };
            }),
            (Sending::Head(_), Piece::Data(data)) => self.send_data(data, is_end),
            // The last frame, which needs no room.
            (Sending::Head(_), Piece::Nothing) if is_end => self.send_data(Bytes::new(), true),
            _ => Ok(()),
        };
        sent.map_err(|_| io::ErrorKind::ConnectionReset.into())
    }

    fn send_data(&mut self, data: Bytes, is_end: bool) -> Result<(), h2::Error> {
        let Sending::Head(stream) = &mut self.stream else { return Ok(()) };
        stream.send_data(data, is_end)?;
        if is_end && let Sending::Head(stream) = std::mem::replace(&mut self.stream, Sending::Reset) {
            self.stream = Sending::All(stream);
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        match self.decoder.close() {
            Ok(()) => self.send(Piece::Nothing),
            Err(malformed) => {
                self.reset();
                Err(io::Error::new(io::ErrorKind::InvalidData, malformed))
            }
        }
    }

    /// Nobody goes on with it: what is cut short must not look finished, but a tunnel has no other
    /// end than this. Says whether the client has cut it short.
    fn part(&mut self) -> bool {
        if self.is_complete() {
            return self.was_reset;
        }
        // Whom this wakes is gone.
        let _ = self.poll_gone(&mut Context::from_waker(Waker::noop()));
        if self.decoder.has_switched() {
            let _ = self.close(); // The client may be gone as well.
        } else {
            self.reset();
        }
        self.was_reset
    }

    fn reset(&mut self) {
        match std::mem::replace(&mut self.stream, Sending::Reset) {
            Sending::Nothing(mut respond) => respond.send_reset(Reason::INTERNAL_ERROR),
            Sending::Head(stream) => reset_behind_data(stream),
            Sending::All(_) | Sending::Reset => {}
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Sending::Head(stream) = &mut self.stream else { return Poll::Ready(Ok(())) };
        if stream.capacity() == 0 {
            stream.reserve_capacity(HELD_MAX);
        }
        if stream.capacity() > 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => Poll::Ready(Ok(())),
            Some(Err(_)) | None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let reset = match &mut self.stream {
            Sending::Nothing(respond) => ready!(respond.poll_reset(cx)),
            Sending::Head(stream) | Sending::All(stream) => ready!(stream.poll_reset(cx)),
            Sending::Reset => return Poll::Ready(Gone::Closed),
        };
        Poll::Ready(match reset {
            Ok(reason) => {
                self.was_reset |= !self.is_complete();
                of_reason(reason)
            }
            Err(error) => of_error(&error),
        })
    }
}

/// Resets a stream behind what it has been sent. A reset takes back what has not left yet, so the
/// connection has its turn first, and all leaves for which there is room.
fn reset_behind_data(mut stream: SendStream<Bytes>) {
    let reset = async move {
        tokio::task::yield_now().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    };
    // Where nothing runs any more there is nobody to tell.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(reset);
    }
}

fn of_reason(reason: Reason) -> Gone {
    if matches!(reason, Reason::CANCEL | Reason::NO_ERROR) { Gone::Closed } else { Gone::Failed }
}

fn of_error(error: &h2::Error) -> Gone {
    match (error.reason(), error.get_io()) {
        (Some(reason), _) => of_reason(reason),
        // What the framing layer calls a stream whose connection has been closed.
        (None, Some(error)) if error.kind() == io::ErrorKind::BrokenPipe => Gone::Closed,
        (None, _) => Gone::Failed,
    }
}

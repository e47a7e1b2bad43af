//! A connection as Pingora's HTTP session with a client sees it, as an exchange reads and writes it
//! past the session, and as we get it back.
//!
//! A session may read no further than the head it parses: what follows stays in the [`Wire`]
//! until it is asked for. So at the hand-off nothing is hidden in a session's buffers, whatever
//! arrived in the same packet as the head, and bytes behind a request wait as they are.
//!
//! Writes are collected until the next flush, so that head and body leave in one packet.
//!
//! While an exchange carries bodies it holds the wire as well as the session does. Then writes and
//! flushes of a session would never wait: they only collect, the exchange flushes beside its reading,
//! and reads no more for a peer that has not taken what it was sent.

mod encrypted;
mod head_gate;
mod transport;

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

pub use encrypted::{Agreed, Encrypted, HandshakeError};
use head_gate::HeadGate;
pub use transport::{LINGER, LINGER_BYTES_MAX, Transport, keepalive};

use crate::proxy_protocol::Ends;
use crate::relay::chunked::Decoder;

/// Most bytes that are read ahead at once.
const READ_AHEAD_MAX: usize = 32 * 1024;

thread_local! {
    /// Where they are read into: one for all connections, so that none has to be cleared for each.
    static READ_AHEAD: RefCell<[u8; READ_AHEAD_MAX]> = const { RefCell::new([0; READ_AHEAD_MAX]) };
}

/// A connection, with what was read ahead and what is not yet sent.
#[derive(Debug)]
pub struct Wire {
    transport: Transport,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Read from the connection, and not yet by a session.
    unread: Vec<u8>,
    /// Written by a session, and not yet to the connection.
    unsent: Vec<u8>,
    /// Open but while a head is read.
    gate: HeadGate,
    /// While a body in chunks is read: how far it has passed. Few have one, so it is boxed.
    chunks: Option<Box<Decoder>>,
    /// The connection that this one passes on, as a PROXY header names it: of a client the one that
    /// came with it, of a server the one that was sent. Few have it, so it is boxed.
    passed_on: Option<Box<Ends>>,
}

impl Waiting {
    /// How many of `bytes` a session may have: no more than the head or the body that it reads.
    fn pass(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(chunks) = &mut self.chunks else { return self.gate.pass(bytes) };
        let passed = chunks.follow(bytes);
        if passed.is_err() {
            self.gate = HeadGate::malformed();
        }
        if passed.is_err() || chunks.is_done() {
            self.chunks = None;
        }
        passed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl Wire {
    /// Writes beyond this many bytes are not collected.
    const COALESCE_MAX: usize = 16 * 1024;

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A panic elsewhere leaves whole values behind.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next bytes are a head of at most `bytes_max`, and a session gets no more than that.
    pub fn expect_head(&self, bytes_max: usize) {
        self.waiting().gate = HeadGate::new(bytes_max);
    }

    /// The next bytes are a body in chunks, and a session gets no more than that. Pingora takes a chunk
    /// without a size for the last one; here it is none.
    pub fn expect_chunks(&self) {
        self.waiting().chunks = Some(Box::default());
    }

    /// Whether the head was longer than allowed; reading it then failed.
    pub fn head_is_too_long(&self) -> bool {
        self.waiting().gate.is_too_long()
    }

    /// Whether the head or the chunks that were expected were none; reading them then failed.
    pub fn is_malformed(&self) -> bool {
        self.waiting().gate.is_malformed()
    }

    /// Whether bytes wait to be sent.
    pub fn has_unsent(&self) -> bool {
        !self.waiting().unsent.is_empty() || self.transport.has_unsent()
    }

    /// Whether so many bytes wait to be sent that no more should be read for this peer.
    pub fn is_full(&self) -> bool {
        self.waiting().unsent.len() >= Self::COALESCE_MAX
    }

    /// Gives bytes back that a session had read beyond its request.
    pub fn put_back(&self, bytes: &[u8]) {
        let mut waiting = self.waiting();
        waiting.unread.splice(..0, bytes.iter().copied());
    }

    /// Writes past the session: `bytes` are collected, and leave with the next flush.
    pub fn collect(&self, bytes: &[u8]) {
        self.waiting().unsent.extend_from_slice(bytes);
    }

    /// The same with bytes that nobody else needs.
    pub fn collect_all(&self, bytes: Vec<u8>) {
        let mut waiting = self.waiting();
        if waiting.unsent.is_empty() {
            waiting.unsent = bytes;
        } else {
            waiting.unsent.extend_from_slice(&bytes);
        }
    }

    /// What was read ahead, for somebody who reads past the session.
    pub fn take_unread(&self) -> Vec<u8> {
        std::mem::take(&mut self.waiting().unread)
    }

    /// Waits until the peer has sent something, and reads that ahead; `false` when it has closed.
    /// Holds no buffer until then.
    ///
    /// # Errors
    /// When the connection has failed.
    pub async fn read_ahead(&self) -> io::Result<bool> {
        if self.peek(<[u8]>::is_empty) { self.read_more().await } else { Ok(true) }
    }

    /// Waits until the peer has sent more than was read ahead already; `false` when it has closed.
    ///
    /// # Errors
    /// When the connection has failed.
    pub async fn read_more(&self) -> io::Result<bool> {
        loop {
            poll_fn(|cx| self.transport.poll_read_ready(cx)).await?; // Which may say so for nothing.
            match self.try_read_ahead() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(|read| read > 0),
            }
        }
    }

    /// What `look` makes of the bytes that were read ahead.
    pub fn peek<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&self.waiting().unread)
    }

    /// Whether it is a stream of HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.transport, Transport::Http2(_))
    }

    /// See [`Transport::limit_silence`].
    ///
    /// # Errors
    /// When the connection has failed already.
    pub fn limit_silence(&self, unanswered: Duration) -> io::Result<()> {
        self.transport.limit_silence(unanswered)
    }

    /// Drops the first `length` bytes of those that were read ahead.
    pub fn skip(&self, length: usize) {
        let mut waiting = self.waiting();
        if length == waiting.unread.len() {
            waiting.unread = Vec::new();
        } else {
            waiting.unread.drain(..length);
        }
    }

    /// The same: the header that says `ends`.
    pub fn introduced(&self, length: usize, ends: Option<Ends>) {
        let mut waiting = self.waiting();
        waiting.unread = waiting.unread.split_off(length);
        waiting.passed_on = ends.map(Box::new);
    }

    /// The connection that a PROXY header has named, if one has.
    pub fn passed_on(&self) -> Option<Ends> {
        self.waiting().passed_on.as_deref().copied()
    }

    /// What was agreed on with the peer so that nobody on the way can read what crosses.
    pub fn encryption(&self) -> Option<Agreed> {
        self.transport.encryption()
    }

    /// The ends of the connection itself.
    ///
    /// # Errors
    /// When it has failed.
    pub fn ends(&self) -> io::Result<Ends> {
        self.transport.ends()
    }

    fn try_read_ahead(&self) -> io::Result<usize> {
        READ_AHEAD.with_borrow_mut(|buffer| {
            let read = self.transport.try_read(&mut buffer[..])?;
            self.waiting().unread.extend_from_slice(&buffer[..read]);
            Ok(read)
        })
    }

    /// Waits until the peer closes, or the connection fails. Never ends once the peer has sent
    /// something that nobody reads: then only writing shows.
    ///
    /// # Errors
    /// When the connection has failed.
    pub async fn closed(&self) -> io::Result<()> {
        poll_fn(|cx| self.transport.poll_closed(cx)).await
    }

    /// Whether the peer is still there and has sent nothing unasked: fit for another request.
    pub fn is_quiet(&self) -> bool {
        self.transport.is_quiet() && self.waiting().unread.is_empty()
    }

    /// Tells the peer, as far as it can be told at once, that the close which follows is no cut.
    pub fn say_goodbye(&self) {
        self.transport.say_goodbye();
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// When the connection has failed.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// The same; `false` when the peer has not taken it `within` that time.
    ///
    /// # Errors
    /// When the connection has failed.
    pub async fn flush_within(&self, within: Duration) -> io::Result<bool> {
        self.start_sending()?;
        if !self.has_unsent() {
            return Ok(true); // As a rule, and then no clock is needed.
        }
        timeout(within, self.flush()).await.map_or(Ok(false), |flushed| flushed.map(|()| true))
    }

    /// Sends what waits as far as the peer takes it now.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn start_sending(&self) -> io::Result<()> {
        let mut waiting = self.waiting();
        while !waiting.unsent.is_empty() {
            match self.transport.try_write(&waiting.unsent) {
                Ok(sent) => drop(waiting.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        waiting.unsent = Vec::new(); // An idle connection holds no buffer.
        self.transport.try_flush().map(drop)
    }

    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.start_sending()?;
            if !self.has_unsent() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.transport.poll_write_ready(cx))?;
        }
    }
}

/// Whether `error` says that a peer is gone: TCP has given up on it. What the network last said on the
/// way to it stands in for a time-out.
pub fn is_peer_gone(error: &io::Error) -> bool {
    let kind = error.kind();
    matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

/// What is left of a connection when HTTP is done with it.
#[derive(Debug)]
pub struct Parts {
    /// The connection.
    pub transport: Transport,
    /// Read from it, and by nobody yet.
    pub unread: Vec<u8>,
    /// To be sent before anything else.
    pub unsent: Vec<u8>,
}

/// A [`Wire`] as Pingora's stream.
#[derive(Debug)]
pub struct Socket(Arc<Wire>);

impl Socket {
    /// A connection of which nothing has been read.
    pub fn new(transport: Transport) -> Self {
        Self(Arc::new(Wire { transport, waiting: Mutex::default() }))
    }

    /// A connection that is put together again.
    pub fn from_parts(parts: Parts) -> Self {
        let Parts { transport, unread, unsent } = parts;
        let waiting = Waiting { unread, unsent, ..Waiting::default() };
        Self(Arc::new(Wire { transport, waiting: Mutex::new(waiting) }))
    }

    /// The socket that `stream` is; `None` when it is something else.
    pub fn from_stream(stream: Stream) -> Option<Self> {
        let socket: Box<Self> = stream.into_any().downcast().ok()?;
        Some(*socket)
    }

    /// The wire of the socket that `stream` is.
    pub fn wire_of(stream: &Stream) -> Option<&Arc<Wire>> {
        let any: &dyn Any = stream.as_any();
        Some(&any.downcast_ref::<Self>()?.0)
    }

    /// The connection itself.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.0
    }

    /// Takes the connection apart; `None` while somebody else holds the wire.
    pub fn into_parts(self) -> Option<Parts> {
        let wire = Arc::into_inner(self.0)?;
        let Waiting { unread, unsent, .. } = wire.waiting.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some(Parts { transport: wire.transport, unread, unsent })
    }

    fn poll_transport(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Arc::get_mut(&mut self.0) {
            Some(wire) => wire.transport.poll_read(cx, buf),
            None => self.0.transport.poll_read_shared(cx, buf),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut waiting = self.0.waiting();
        if !waiting.unread.is_empty() {
            let mut unread = std::mem::take(&mut waiting.unread);
            let fits = unread.len().min(buf.remaining());
            let passed = waiting.pass(&unread[..fits])?;
            buf.put_slice(&unread[..passed]);
            if passed < unread.len() {
                unread.drain(..passed);
                waiting.unread = unread; // An idle connection holds no buffer.
            }
            return Poll::Ready(Ok(()));
        }
        drop(waiting);
        let before = buf.filled().len();
        ready!(self.poll_transport(cx, buf))?;
        let mut waiting = self.0.waiting();
        let passed = waiting.pass(&buf.filled()[before..])?;
        waiting.unread.extend_from_slice(&buf.filled()[before + passed..]);
        buf.set_filled(before + passed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let is_shared = Arc::strong_count(&self.0) > 1;
        let mut waiting = self.0.waiting();
        if !is_shared && waiting.unsent.len() + bytes.len() > Wire::COALESCE_MAX {
            drop(waiting);
            ready!(self.0.poll_send(cx))?;
            if bytes.len() > Wire::COALESCE_MAX {
                return poll_write(&self.0.transport, cx, bytes);
            }
            waiting = self.0.waiting();
        }
        waiting.unsent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if Arc::strong_count(&self.0) > 1 {
            return Poll::Ready(Ok(())); // Who shares the wire flushes it.
        }
        self.0.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.0.transport.poll_shutdown(cx)
    }
}

fn poll_write(transport: &Transport, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        match transport.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(transport.poll_write_ready(cx))?,
            other => return Poll::Ready(other),
        }
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        // Whoever drops it closes it, for a system call less. A connection that has failed already
        // is as closed as it gets.
        if self.flush().await.is_ok() {
            let _ = poll_fn(|cx| self.0.transport.poll_goodbye(cx)).await;
        }
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        self.0.transport.id()
    }
}

impl Ssl for Socket {}

impl Peek for Socket {}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

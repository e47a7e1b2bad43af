//! A TLS connection over TCP: the thin shell around [`Session`].
//!
//! Records are read into the thread's buffer and opened there; what is sealed is sent from there.
//! Of its own a connection keeps only what does not fit now: of a record that has not come whole,
//! of what was opened for somebody who asked for less, of what the kernel did not take.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ProtocolVersion, ServerConfig};
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::transport::try_read_tcp;
use crate::tls::front::{HTTP2, Version};
use crate::tls::session::{Failure, Session};

/// A connection on which both have shaken hands.
#[derive(Debug)]
pub struct Encrypted {
    tcp: TcpStream,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: Session,
    /// Opened, and not yet read.
    opened: Vec<u8>,
    /// Sealed, and not yet sent.
    sealed: Vec<u8>,
    end: End,
}

/// How far the peer's side has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    /// The peer has said that this was all.
    Said,
    /// The connection ended, and the peer has not said so: somebody may have cut it.
    Cut,
    /// It makes no sense, or never did.
    Broken,
}

impl End {
    /// What it means for who reads behind the last byte; `None` when more may come.
    fn as_read(self) -> Option<io::Result<bool>> {
        match self {
            Self::Open => None,
            Self::Said => Some(Ok(false)),
            Self::Cut => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            Self::Broken => Some(Err(io::ErrorKind::InvalidData.into())),
        }
    }
}

/// Why a connection is not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// What the peer says makes no sense, or is not enough.
    #[error(transparent)]
    Session(#[from] Failure),
    /// The connection has failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer has closed it.
    #[error("closed in the middle of the handshake")]
    Closed,
}

/// What is read at once: some records of the longest kind.
const READ_MAX: usize = 64 * 1024;

/// Room for what was kept of a record, too.
const BUFFER: usize = Session::HANDSHAKE_MAX + READ_MAX;

const _: () = assert!(BUFFER >= Session::SEALED_MAX);

thread_local! {
    static RECORDS: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

impl Encrypted {
    /// Shakes hands with a client, which has sent `unread` already.
    ///
    /// # Errors
    /// When that does not come to its end. The client has been told why, as far as TLS has words.
    pub async fn accept(
        tcp: TcpStream,
        unread: &[u8],
        config: Arc<ServerConfig>,
    ) -> Result<Self, (HandshakeError, TcpStream)> {
        match Session::server(config) {
            Ok(session) => Self::shake(tcp, unread, session).await,
            Err(error) => Err((Failure::from(error).into(), tcp)),
        }
    }

    /// Shakes hands with the server `name`.
    ///
    /// # Errors
    /// When that does not come to its end, or it is another server.
    pub async fn connect(
        tcp: TcpStream,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> Result<Self, HandshakeError> {
        let session = Session::client(config, name).map_err(Failure::from)?;
        Self::shake(tcp, &[], session).await.map_err(|(error, _)| error)
    }

    async fn shake(tcp: TcpStream, unread: &[u8], session: Session) -> Result<Self, (HandshakeError, TcpStream)> {
        let state = State { session, opened: Vec::new(), sealed: Vec::new(), end: End::Open };
        let this = Self { tcp, state: Mutex::new(state) };
        match this.shaken(unread).await {
            Ok(()) => Ok(this),
            Err(error) => Err((error, this.tcp)),
        }
    }

    async fn shaken(&self, unread: &[u8]) -> Result<(), HandshakeError> {
        // What a PROXY header came with is less than the buffer; and a client begins with nothing.
        let mut taken = with_buffer(|buffer| {
            let mut state = self.state();
            let fresh = unread.len().min(READ_MAX);
            buffer[..fresh].copy_from_slice(&unread[..fresh]);
            state.take(buffer, fresh, |_| 0)
        });
        loop {
            // An alert goes out before the connection does.
            let flushed = poll_fn(|cx| self.poll_flush(cx)).await;
            taken?;
            flushed?;
            if !self.state().session.is_handshaking() {
                return Ok(());
            }
            poll_fn(|cx| self.tcp.poll_read_ready(cx)).await?;
            taken = match self.receive(READ_MAX, |_| 0) {
                Ok(true) => Ok(()),
                Ok(false) => return Err(HandshakeError::Closed),
                Err(Unread::Failed(failure)) => Err(failure),
                Err(Unread::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Err(Unread::Io(error)) => return Err(error.into()),
            };
        }
    }

    /// What was agreed on.
    pub fn agreed(&self) -> Agreed {
        let state = self.state();
        let common = state.session.common();
        Agreed {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => Version::Tls12,
                _ => Version::Tls13, // There is no other.
            },
            is_resumed: common.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            is_http2: common.alpn_protocol() == Some(HTTP2),
        }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole values behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let room = buf.remaining();
            match self.read(room, |bytes| put(buf, bytes)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
            ready!(self.poll_input(cx))?;
        }
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buffer);
        let room = buf.remaining();
        self.read(room, |bytes| put(&mut buf, bytes))?;
        Ok(buf.filled().len())
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let state = self.state();
            if !state.opened.is_empty() || state.end != End::Open {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_input(cx)
    }

    /// Waits for records, and sees to it that those go out that were made for others.
    fn poll_input(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_unsent() {
            // This wakes the task for that, too; a failure shows with the next write.
            let _ = self.poll_flush(cx);
        }
        self.tcp.poll_read_ready(cx)
    }

    /// Gives what has come to `plain`, which takes as much as it has `room` for; `false` at the end.
    /// `WouldBlock` also when what came was none of anybody's business: then there may be more, and
    /// whoever polls for it lets others have their turn.
    fn read(&self, room: usize, mut plain: impl FnMut(&[u8]) -> usize) -> io::Result<bool> {
        let mut state = self.state();
        if !state.opened.is_empty() {
            let taken = plain(&state.opened);
            state.opened.drain(..taken);
            if state.opened.is_empty() {
                state.opened = Vec::new(); // An idle connection holds no buffer.
            }
            return Ok(true);
        }
        if let Some(end) = state.end.as_read() {
            return end;
        }
        drop(state);
        let mut has_come = false;
        let received = self.receive(room.clamp(Session::RECORD_MAX, READ_MAX), |bytes| {
            has_come |= !bytes.is_empty();
            plain(bytes)
        });
        match received {
            _ if has_come => Ok(true), // What goes wrong behind it is for the next one to see.
            Err(Unread::Io(error)) => Err(error),
            Err(Unread::Failed(failure)) => Err(io::Error::new(io::ErrorKind::InvalidData, failure)),
            Ok(_) => self.state().end.as_read().unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into())),
        }
    }

    /// Reads what has come, at most `length` bytes of records, and opens it; `false` at the end.
    fn receive(&self, length: usize, plain: impl FnMut(&[u8]) -> usize) -> Result<bool, Unread> {
        with_buffer(|buffer| {
            let mut state = self.state();
            let kept = state.session.kept();
            let end = buffer.len().min(kept + length);
            let fresh = try_read_tcp(&self.tcp, &mut buffer[kept..end]).map_err(Unread::Io)?;
            if fresh == 0 {
                state.end = End::Cut;
                return Ok(false);
            }
            let taken = state.take(buffer, fresh, plain);
            if !state.sealed.is_empty() {
                // What fails here shows with the next write.
                let _ = state.send(&self.tcp);
            }
            taken.map(|()| true).map_err(Unread::Failed)
        })
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        state.send(&self.tcp)?;
        if !state.sealed.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = bytes.len().min(Session::SEAL_MAX);
        if taken == 0 {
            return Ok(0);
        }
        with_buffer(|buffer| {
            let length = state.session.seal(&bytes[..taken], buffer).map_err(broken_pipe)?;
            state.send_or_keep(&self.tcp, &buffer[..length])
        })?;
        Ok(taken)
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.state().sealed.is_empty()
    }

    pub(super) fn try_flush(&self) -> io::Result<bool> {
        self.state().send(&self.tcp)
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.try_flush()?;
            if !self.has_unsent() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.tcp.poll_write_ready(cx))?;
        }
    }

    /// Says that this was all, and not an end that somebody else has made.
    pub(super) fn poll_goodbye(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut state = self.state();
            let mut goodbye = [0; 256];
            let length = state.session.close(&mut goodbye).map_err(broken_pipe)?;
            state.sealed.extend_from_slice(&goodbye[..length]);
        }
        self.poll_flush(cx)
    }

    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_goodbye(cx))?;
        Poll::Ready(SockRef::from(&self.tcp).shutdown(Shutdown::Write))
    }

    /// With or without a goodbye: nobody waits for what is missing.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            {
                let state = self.state();
                match state.end {
                    _ if !state.opened.is_empty() => return Poll::Pending,
                    End::Open => {}
                    End::Said | End::Cut => return Poll::Ready(Ok(())),
                    End::Broken => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                }
            }
            ready!(self.poll_input(cx))?;
            // What it says to anybody else is kept for them.
            match self.receive(Session::RECORD_MAX, |_| 0) {
                Err(Unread::Io(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Poll::Ready(Err(error));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        // Tickets come when it pleases the server, and are none of anybody's business.
        const TICKETS_MAX: usize = 4;
        for _ in 0..TICKETS_MAX {
            match self.receive(Session::RECORD_MAX, |_| 0) {
                Err(Unread::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return self.state().is_silent(),
                Ok(true) if self.state().is_silent() => {}
                Ok(_) | Err(_) => return false,
            }
        }
        false
    }
}

/// Why nothing was read.
enum Unread {
    Io(io::Error),
    Failed(Failure),
}

/// What both ends have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Of TLS.
    pub version: Version,
    /// Whether they had met before.
    pub is_resumed: bool,
    /// Whether HTTP/2 is spoken inside.
    pub is_http2: bool,
}

impl State {
    /// Opens what stands in `buffer` behind what the session has kept. What `plain` does not take is
    /// kept here.
    fn take(&mut self, buffer: &mut [u8], fresh: usize, mut plain: impl FnMut(&[u8]) -> usize) -> Result<(), Failure> {
        let Self { session, opened, sealed, end } = self;
        let sink = |bytes: &[u8]| {
            let taken = if opened.is_empty() { plain(bytes) } else { 0 };
            opened.extend_from_slice(&bytes[taken..]);
        };
        let taken = session.open(buffer, fresh, sink, sealed);
        *end = match &taken {
            Err(_) => End::Broken,
            Ok(()) if session.peer_has_closed() => End::Said,
            Ok(()) => *end,
        };
        taken
    }

    fn is_silent(&self) -> bool {
        self.opened.is_empty() && self.sealed.is_empty() && self.end == End::Open
    }

    /// Sends what was kept as far as the kernel takes it; `true` when it took any.
    fn send(&mut self, tcp: &TcpStream) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.sealed.len() {
            match tcp.try_write(&self.sealed[sent..]) {
                Ok(taken) => sent += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if sent == self.sealed.len() {
            self.sealed = Vec::new(); // An idle connection holds no buffer.
        } else {
            self.sealed.drain(..sent);
        }
        Ok(sent > 0)
    }

    /// Sends `records`, behind which nothing else waits, or keeps what is not taken.
    fn send_or_keep(&mut self, tcp: &TcpStream, records: &[u8]) -> io::Result<()> {
        let sent = match tcp.try_write(records) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        self.sealed.extend_from_slice(&records[sent..]);
        Ok(())
    }
}

fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    RECORDS.with_borrow_mut(|buffer| work(buffer))
}

/// Puts what fits of `bytes` into `buf`.
fn put(buf: &mut ReadBuf<'_>, bytes: &[u8]) -> usize {
    let fits = bytes.len().min(buf.remaining());
    buf.put_slice(&bytes[..fits]);
    fits
}

fn broken_pipe(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}

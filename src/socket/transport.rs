//! What carries the bytes of one connection, and all that the rest of the proxy may ask of it.
//!
//! The rule: nobody outside of here knows what a connection is made of. What is asked is small and
//! polled, so that whatever carries bytes both ways can stand in the place of a TCP connection.

use std::future::poll_fn;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::encrypted::{Agreed, Encrypted};
use crate::config::TcpKeepalive;
use crate::http2;
use crate::proxy_protocol::Ends;

/// A connection, whatever carries it. Dropping it closes it.
#[derive(Debug)]
pub enum Transport {
    /// Bytes as they are.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<Encrypted>),
    /// A stream of HTTP/2, made to look like a connection.
    Http2(Box<http2::Stream>),
}

impl Transport {
    /// Reads into `buf`; nothing is the end. For whoever has the connection alone: then a short
    /// read tells tokio that all is read, and saves the read that would only say so.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => tls.poll_read(cx, buf),
            Self::Http2(stream) => stream.poll_read(cx, buf),
        }
    }

    /// The same, for one who shares it.
    pub fn poll_read_shared(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => loop {
                ready!(tcp.poll_read_ready(cx))?;
                match tcp.try_read_buf(buf) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    other => return Poll::Ready(other.map(drop)),
                }
            },
            Self::Tls(tls) => tls.poll_read(cx, buf),
            Self::Http2(stream) => stream.poll_read(cx, buf),
        }
    }

    /// Ready when a read may bring something; or nothing after all.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Tls(tls) => tls.poll_read_ready(cx),
            Self::Http2(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there, or that the connection has failed.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => try_read_tcp(tcp, buffer),
            Self::Tls(tls) => tls.try_read(buffer),
            Self::Http2(stream) => stream.try_read(buffer),
        }
    }

    /// Takes of `bytes` what it can send or has room for now. If it holds more than it could send,
    /// that is [`Self::has_unsent`], and nothing is taken until it is sent.
    ///
    /// # Errors
    /// `WouldBlock` when nothing was taken, or that the connection has failed.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_write(bytes),
            Self::Tls(tls) => tls.try_write(bytes),
            Self::Http2(stream) => stream.try_write(bytes),
        }
    }

    /// Ready when a write may be taken; or not after all.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write_ready(cx),
            Self::Tls(tls) => tls.tcp().poll_write_ready(cx),
            Self::Http2(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Whether it holds bytes that it took, in whatever form, and that the peer has not.
    pub fn has_unsent(&self) -> bool {
        match self {
            Self::Tcp(_) => false, // What the kernel took counts as sent.
            Self::Tls(tls) => tls.has_unsent(),
            Self::Http2(_) => false, // What the client has room for counts as sent.
        }
    }

    /// Sends what it holds as far as the peer takes it now; `true` when it took any.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn try_flush(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(_) | Self::Http2(_) => Ok(false),
            Self::Tls(tls) => tls.try_flush(),
        }
    }

    /// Tells the peer that nothing more will be sent, once it has got what was. It may go on sending.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => Poll::Ready(SockRef::from(tcp).shutdown(Shutdown::Write)),
            Self::Tls(tls) => tls.poll_shutdown(cx),
            Self::Http2(stream) => Poll::Ready(stream.shutdown()),
        }
    }

    /// Ends what is sent, and leaves it open whether that was all.
    pub fn cut(&self) {
        match self.tcp() {
            // The peer may be gone already: then it needs no telling.
            Ok(tcp) => drop(SockRef::from(tcp).shutdown(Shutdown::Write)),
            Err(stream) => stream.cut(),
        }
    }

    /// Tells the peer, where there are words for it, that what it got was all: behind this a close
    /// is an end, and without it a cut.
    pub fn poll_goodbye(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),   // To close is to say so.
            Self::Http2(_) => Poll::Ready(Ok(())), // It has said so itself, or was cut.
            Self::Tls(tls) => tls.poll_goodbye(cx),
        }
    }

    /// The same, as far as it can be said at once.
    pub fn say_goodbye(&self) {
        let _ = self.poll_goodbye(&mut Context::from_waker(Waker::noop()));
    }

    /// Ready when the peer has closed, or the connection has failed. Never ready once the peer has
    /// sent something that nobody reads: then only writing shows.
    ///
    /// # Errors
    /// When the connection has failed.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => match ready!(tcp.poll_peek(cx, &mut ReadBuf::new(&mut [0])))? {
                0 => Poll::Ready(Ok(())),
                1.. => Poll::Pending,
            },
            Self::Tls(tls) => tls.poll_closed(cx),
            Self::Http2(stream) => stream.poll_closed(cx).map(Ok),
        }
    }

    /// Whether the peer is still there and has sent nothing that was not asked for.
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Tcp(tcp) => {
                matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(tls) => tls.is_quiet(),
            Self::Http2(_) => false, // It is never used a second time.
        }
    }

    /// The ends of the connection itself.
    ///
    /// # Errors
    /// When it has failed.
    pub fn ends(&self) -> io::Result<Ends> {
        match self.tcp() {
            Ok(tcp) => Ok(Ends { source: tcp.peer_addr()?, destination: tcp.local_addr()? }),
            Err(stream) => stream.ends(),
        }
    }

    /// Has TCP ask for a sign of life of a peer that will be silent for long, as `config` says. What a
    /// listener has accepted has that from its listener.
    ///
    /// # Errors
    /// When the connection has failed already.
    pub fn probe_peer(&self, config: &TcpKeepalive) -> io::Result<()> {
        let Ok(tcp) = self.tcp() else { return Ok(()) };
        SockRef::from(tcp).set_tcp_keepalive(&keepalive(config))
    }

    /// Has TCP give up on a peer that has acknowledged nothing for `unanswered`: neither bytes, which
    /// it may just not take, nor probes. Without it, one that vanishes with bytes on their way to it
    /// would keep the connection for as long as they are sent again: a quarter of an hour.
    ///
    /// # Errors
    /// When the connection has failed already.
    pub fn limit_silence(&self, unanswered: Duration) -> io::Result<()> {
        // The connection that carries a stream is watched for all of them.
        let Ok(tcp) = self.tcp() else { return Ok(()) };
        SockRef::from(tcp).set_tcp_user_timeout(Some(unanswered))
    }

    /// What was agreed on with the peer so that nobody on the way can read what crosses.
    pub fn encryption(&self) -> Option<Agreed> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(tls) => Some(tls.agreed()),
            Self::Http2(stream) => stream.encryption(),
        }
    }

    /// A number that no other open connection has.
    pub fn id(&self) -> i32 {
        self.tcp().map_or_else(http2::Stream::id, AsRawFd::as_raw_fd)
    }

    /// Closes our side and reads on for a moment: a close with bytes unread is a reset, and would
    /// take what was said last from a peer that is still sending.
    pub async fn linger(mut self) {
        let listening = async {
            if poll_fn(|cx| self.poll_shutdown(cx)).await.is_err() {
                return; // The peer is gone.
            }
            let (mut ignored, mut left) = (vec![0; 4096], LINGER_BYTES_MAX);
            while let Ok(read @ 1..) = self.read(&mut ignored).await {
                if read > left {
                    return;
                }
                left -= read;
            }
        };
        // Over in time or not, the connection is closed now.
        let _ = timeout(LINGER, listening).await;
    }

    /// Reads at least a byte, but for the end.
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        poll_fn(|cx| self.poll_read(cx, &mut buffer)).await?;
        Ok(buffer.filled().len())
    }

    /// The TCP connection of its own, or the stream within another one that it is instead.
    fn tcp(&self) -> Result<&TcpStream, &http2::Stream> {
        match self {
            Self::Tcp(tcp) => Ok(tcp),
            Self::Tls(tls) => Ok(tls.tcp()),
            Self::Http2(stream) => Err(stream),
        }
    }
}

/// How long we listen to a peer that has been told everything while it was still sending.
pub const LINGER: Duration = Duration::from_secs(2);

/// How much of what it still sends is read.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Reads what is there; 0 is the end.
pub(super) fn try_read_tcp(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let result = tcp.try_io(Interest::READABLE, || {
        let count = (&*SockRef::from(tcp)).read(buffer)?;
        read = Some(count);
        // A short read means that all is read: tokio is told, as by `poll_read`.
        if (1..buffer.len()).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match read {
        Some(read) => Ok(read),
        None => result.map(|()| 0),
    }
}

/// How TCP finds out that a silent peer is gone, as the kernel is told.
pub fn keepalive(config: &TcpKeepalive) -> socket2::TcpKeepalive {
    let keepalive = socket2::TcpKeepalive::new();
    keepalive.with_time(config.time).with_interval(config.interval).with_retries(config.probes)
}

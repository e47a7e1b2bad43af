//! The end of a connection: what was sent last must arrive.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::socket::{LINGER, LINGER_BYTES_MAX, Socket};

/// A connection that listens on for a moment when it is shut down: a client that still reads goes
/// on granting windows, and a close with bytes unread is a reset, which would take from it what is
/// on its way.
#[derive(Debug)]
pub struct Lingering {
    socket: Socket,
    /// Our side is closed; for how long, and how much more, the other is listened to.
    last: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Lingering {
    /// The same connection.
    pub fn new(socket: Socket) -> Self {
        Self { socket, last: None }
    }
}

impl AsyncRead for Lingering {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, last } = self.get_mut();
        if last.is_none() {
            ready!(Pin::new(&mut *socket).poll_shutdown(cx))?;
        }
        let (time, bytes) = last.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES_MAX));
        let mut ignored = [0; 4096];
        loop {
            let mut ignored = ReadBuf::new(&mut ignored);
            match Pin::new(&mut *socket).poll_read(cx, &mut ignored) {
                Poll::Pending => return time.as_mut().poll(cx).map(Ok),
                Poll::Ready(Ok(())) if (1..=*bytes).contains(&ignored.filled().len()) => {
                    *bytes -= ignored.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

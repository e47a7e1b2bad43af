//! Messages and descriptors over a Unix socket, with a bound for everything.
//!
//! A message is the count of its bytes and of its descriptors, and then its bytes. The descriptors
//! come with the counts; the kernel keeps them there, for it does not merge what has any.

use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::ANSWER_WITHIN;
use super::message::{self, DESCRIPTORS_MAX, Hello, MESSAGE_BYTES_MAX, Malformed, VERSION};

/// Why a hand-over goes no further.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The other process has ended, or has hung up.
    #[error("the other process has hung up")]
    Closed,
    /// The connection has failed.
    #[error("the connection to the other process has failed: {0}")]
    Io(#[from] io::Error),
    /// The other process is too slow, or stuck.
    #[error("the other process has not answered within {0:?}")]
    Late(Duration),
    /// Who answers is somebody else.
    #[error("the other process runs as user {theirs}, and neither as {ours} nor as root")]
    User {
        /// Whom it runs as.
        theirs: u32,
        /// Whom this one runs as.
        ours: u32,
    },
    /// Something else answers.
    #[error("what answers is no Steadfast")]
    Stranger,
    /// It is another one of us.
    #[error("process {pid} speaks version {theirs} of the hand-over, and this one speaks version {VERSION}")]
    Version {
        /// Which version that is.
        theirs: u32,
        /// Which process it is.
        pid: u32,
    },
    /// Longer than any message is.
    #[error("a message of {0} bytes has come, and {MESSAGE_BYTES_MAX} are the most")]
    TooLong(usize),
    /// It cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Some descriptors got lost: as a rule there is no room for them.
    #[error("{came} of {sent} descriptors have come; is the limit of open files too low?")]
    Descriptors {
        /// How many there should be.
        sent: usize,
        /// How many there are.
        came: usize,
    },
    /// Another message than this one was due.
    #[error("something has come where {0} was due")]
    Unexpected(&'static str),
    /// The other process gives up, and says why.
    #[error("the other process gives up: {0}")]
    Said(String),
}

/// A connection to the other process.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
}

/// Bytes before those of a message: the count of them, and that of descriptors.
const COUNTS_BYTES: usize = 4 + 2;

impl Channel {
    /// A connection to the process at the other end of `stream`, if that may be talked to.
    ///
    /// # Errors
    /// [`Broken::User`] when it runs as somebody else.
    pub fn new(stream: UnixStream) -> Result<Self, Broken> {
        let theirs = stream.peer_cred()?.uid();
        let ours = rustix::process::geteuid().as_raw();
        if theirs != ours && theirs != 0 {
            return Err(Broken::User { theirs, ours });
        }
        Ok(Self { stream })
    }

    #[cfg(test)]
    pub(super) fn stream_for_tests(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Says hello, and returns who answers. Both sides say it before they listen, so that each can tell
    /// its operator about the other one.
    ///
    /// # Errors
    /// When something else answers, or another version.
    pub async fn greet(&mut self, ours: Hello) -> Result<Hello, Broken> {
        let mut theirs = [0; Hello::BYTES];
        bounded(ANSWER_WITHIN, async {
            self.stream.write_all(&ours.to_bytes()).await?;
            self.stream.read_exact(&mut theirs).await?;
            Ok(())
        })
        .await?;
        let theirs = Hello::from_bytes(theirs).ok_or(Broken::Stranger)?;
        if theirs.version != ours.version {
            return Err(Broken::Version { theirs: theirs.version, pid: theirs.pid });
        }
        Ok(theirs)
    }

    /// Sends `message` and, with it, `descriptors`: at most [`DESCRIPTORS_MAX`].
    ///
    /// # Errors
    /// When the other process is gone or does not take it.
    pub async fn send(&mut self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), Broken> {
        let body = message::encode(message);
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(Broken::TooLong(body.len()));
        }
        let count = u16::try_from(descriptors.len()).ok().filter(|count| usize::from(*count) <= DESCRIPTORS_MAX);
        let count = count.ok_or(Broken::Descriptors { sent: descriptors.len(), came: DESCRIPTORS_MAX })?;
        let bytes = u32::try_from(body.len()).map_err(|_| Broken::TooLong(body.len()))?;
        let mut counts = [0; COUNTS_BYTES];
        counts[..4].copy_from_slice(&bytes.to_be_bytes());
        counts[4..].copy_from_slice(&count.to_be_bytes());
        bounded(ANSWER_WITHIN, async {
            let stream = &mut self.stream;
            let sent = stream.async_io(Interest::WRITABLE, || send_with(stream, &counts, descriptors)).await?;
            // The descriptors went with the first byte.
            stream.write_all(&counts[sent..]).await?;
            stream.write_all(&body).await?;
            Ok(())
        })
        .await
    }

    /// The next message, and the descriptors that came with it.
    ///
    /// # Errors
    /// When there is none `within` this time, or none that can be read.
    pub async fn receive<M: DeserializeOwned>(&mut self, within: Duration) -> Result<(M, Vec<OwnedFd>), Broken> {
        bounded(within, async {
            let (mut counts, mut came, mut descriptors) = ([0; COUNTS_BYTES], 0, Vec::new());
            while came < counts.len() {
                let stream = &self.stream;
                let read = || receive_with(stream, &mut counts[came..], &mut descriptors);
                came += match stream.async_io(Interest::READABLE, read).await? {
                    0 => return Err(Broken::Closed),
                    read => read,
                };
            }
            let [b0, b1, b2, b3, d0, d1] = counts;
            let bytes = u32::from_be_bytes([b0, b1, b2, b3]) as usize;
            let sent = usize::from(u16::from_be_bytes([d0, d1]));
            if bytes > MESSAGE_BYTES_MAX {
                return Err(Broken::TooLong(bytes));
            }
            let mut body = vec![0; bytes];
            self.stream.read_exact(&mut body).await?;
            // Not before: a close with bytes unread would take our complaint from the other process.
            if sent != descriptors.len() {
                return Err(Broken::Descriptors { sent, came: descriptors.len() });
            }
            Ok((message::decode(&body)?, descriptors))
        })
        .await
    }
}

/// Does `work` within a time; an end of the connection is told from other failures.
async fn bounded<T>(within: Duration, work: impl Future<Output = Result<T, Broken>>) -> Result<T, Broken> {
    match timeout(within, work).await {
        Ok(Err(Broken::Io(error)))
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Err(Broken::Closed)
        }
        Ok(done) => done,
        Err(_) => Err(Broken::Late(within)),
    }
}

/// Sends of `bytes` what the connection takes, and all of `descriptors` with it.
fn send_with(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

/// Reads into `bytes` what is there, and appends to `descriptors` what has come with it. What the kernel
/// had no room for is missing there, as the counts tell.
fn receive_with(stream: &UnixStream, bytes: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            descriptors.extend(came);
        }
    }
    Ok(received.bytes)
}

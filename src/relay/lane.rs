//! One direction of a relay: bytes from one socket to another, through the thread's buffer.
//!
//! The rule: while bytes wait for the taker, nothing more is read from the giver. So a slow peer
//! costs one read's worth of memory, and stops the other one through TCP's own window.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::ReadBuf;

use super::events::{self, TAILROOM};
use super::websocket;
use crate::socket::Transport;

/// Space before what is read, for what is to be sent before it.
pub const HEADROOM: usize = if events::HEADROOM > websocket::HEADROOM { events::HEADROOM } else { websocket::HEADROOM };

/// The most that is read at once, and so the most that ever waits in a lane.
pub const READ_MAX: usize = 64 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; HEADROOM + READ_MAX + TAILROOM].into_boxed_slice());
}

/// Gives `work` the thread's buffer. Its bytes are nobody's before and after.
pub fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| work(buffer))
}

/// Reads into `buffer` behind its headroom. `Ok(0)` is the end.
pub fn poll_read(from: &mut Transport, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut free = ReadBuf::new(&mut buffer[HEADROOM..HEADROOM + READ_MAX]);
    ready!(from.poll_read(cx, &mut free))?;
    Poll::Ready(Ok(free.filled().len()))
}

/// What waits for the taker of one direction, and whether more will come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    unsent: Vec<u8>,
    /// The taker's transport has taken more than it could send: never of one that can be frozen.
    #[serde(skip)]
    is_held: bool,
    /// Nothing more comes after what waits.
    ending: bool,
    /// The taker has been told so, or need not be.
    ended: bool,
    /// The taker's connection goes on without this lane.
    frees_taker: bool,
    /// What the taker has got is not all there was.
    is_broken: bool,
    /// Bytes that the taker took and that are not accounted for yet.
    #[serde(skip)]
    pub sent: u64,
}

impl Lane {
    /// A lane in which `unsent` waits already.
    pub fn new(unsent: Vec<u8>) -> Self {
        Self { unsent, ..Self::default() }
    }

    /// Has `bytes` wait behind what waits already.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Whether bytes wait.
    pub fn is_blocked(&self) -> bool {
        !self.unsent.is_empty() || self.is_held
    }

    /// Whether more may be read for it.
    pub fn is_open(&self) -> bool {
        !self.ending
    }

    /// Whether the taker has got everything, its end included.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Sends `bytes`, or keeps what `to` does not take now. Returns whether it took any.
    pub fn send(&mut self, to: &Transport, bytes: &[u8]) -> io::Result<bool> {
        let mut taken = 0;
        if !self.is_blocked() && !bytes.is_empty() {
            taken = would_block_is_zero(to.try_write(bytes))?;
            self.sent += taken as u64;
            self.is_held = to.has_unsent();
        }
        self.unsent.extend_from_slice(&bytes[taken..]);
        Ok(taken > 0)
    }

    /// Sends what waits. Ready when nothing waits any more; `true` when anything was taken.
    pub fn poll_flush(&mut self, to: &Transport, cx: &mut Context<'_>, took: &mut bool) -> Poll<io::Result<()>> {
        while self.is_blocked() {
            ready!(to.poll_write_ready(cx))?;
            *took |= to.try_flush()?;
            let taken = would_block_is_zero(to.try_write(&self.unsent))?;
            self.sent += taken as u64;
            *took |= taken > 0;
            self.unsent.drain(..taken);
            self.is_held = to.has_unsent();
        }
        self.unsent = Vec::new(); // A quiet relay holds no buffer.
        if self.ending && !self.ended {
            if self.is_broken {
                to.cut();
            } else if !self.frees_taker {
                let told = to.poll_shutdown(cx);
                self.is_held = told.is_pending();
                // The taker may be gone already: then it needs no telling.
                let _ = ready!(told);
            }
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing more comes: the taker is told once it has taken what waits.
    pub fn end(&mut self) {
        self.ending = true;
    }

    /// Nothing more comes, though more there was: the taker is not told that this was all.
    pub fn break_off(&mut self) {
        self.ending = true;
        self.is_broken = true;
    }

    /// Nothing more comes, and once the taker has got what waits its connection is somebody else's.
    pub fn free_taker(&mut self) {
        self.ending = true;
        self.frees_taker = true;
    }

    /// Whether the taker has got everything, and its connection is free.
    pub fn has_freed_taker(&self) -> bool {
        self.frees_taker && self.ended
    }

    /// Forgets what waits: the taker is gone.
    pub fn abandon(&mut self) {
        self.unsent = Vec::new();
        self.is_held = false;
        self.ending = true;
        self.ended = true;
    }
}

fn would_block_is_zero(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

//! Idle connections to servers, kept for the next request.
//!
//! Each thread has its own: a connection is usable only where its reactor is, and so no wake-up
//! ever crosses threads.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::ServerId;
use crate::socket::Socket;

thread_local! {
    static POOL: RefCell<AHashMap<ServerId, Vec<Idle>>> = RefCell::default();
}

#[derive(Debug)]
struct Idle {
    socket: Socket,
    until: Instant,
}

/// This thread's idle connections.
#[derive(Debug)]
pub struct Pool;

impl Pool {
    /// Idle connections kept per server and thread.
    const IDLE_MAX: usize = 1024;
    /// How long a connection is kept when its server does not say.
    const KEEP_FOR: Duration = Duration::from_secs(60);

    /// A connection to `server` that still stands at `now`, the one used last.
    pub fn take(server: ServerId, now: Instant) -> Option<Socket> {
        POOL.with_borrow_mut(|pool| {
            let idle = pool.get_mut(&server)?;
            while let Some(Idle { socket, until }) = idle.pop() {
                if now < until && socket.wire().is_quiet() {
                    return Some(socket);
                }
            }
            None
        })
    }

    /// Keeps `socket` for other requests to `server`. `hint` is how long the server says that it
    /// leaves an idle connection open.
    pub fn put(server: ServerId, socket: Socket, hint: Option<Duration>, now: Instant) {
        let keep_for = match hint {
            // Less than the server does, so that a request does not meet its close on the way.
            Some(hint) => (hint / 2).max(hint.saturating_sub(Duration::from_secs(1))).min(Self::KEEP_FOR),
            None => Self::KEEP_FOR,
        };
        if socket.wire().has_unsent() {
            return; // The server answered before it had heard everything.
        }
        POOL.with_borrow_mut(|pool| {
            let idle = pool.entry(server).or_default();
            if idle.len() < Self::IDLE_MAX {
                idle.push(Idle { socket, until: now + keep_for });
            }
        });
    }

    /// Closes what has been idle too long, or was closed by its server.
    pub fn sweep(now: Instant) {
        POOL.with_borrow_mut(|pool| {
            pool.retain(|_, idle| {
                idle.retain(|idle| now < idle.until && idle.socket.wire().is_quiet());
                !idle.is_empty()
            });
        });
    }

    /// Closes all.
    pub fn clear() {
        POOL.with_borrow_mut(|pool| pool.clear());
    }
}

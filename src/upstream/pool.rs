//! Idle connections to servers, kept for the next request.
//!
//! Each thread has its own: a connection is usable only where its reactor is, and so no wake-up
//! ever crosses threads.
//!
//! A connection that began with a PROXY header stands for the client it has named. It serves only
//! requests before which the very same header would be sent.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::ServerId;
use crate::proxy_protocol::Ends;
use crate::socket::Socket;

thread_local! {
    static POOL: RefCell<AHashMap<Key, Vec<Idle>>> = RefCell::default();
}

/// A server, and what it was told of the client.
type Key = (ServerId, Option<Ends>);

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
    /// Connections kept for each client that is named, server and thread.
    const NAMED_IDLE_MAX: usize = 8;
    /// Beyond so many clients and servers together, none is kept for another one.
    const NAMED_MAX: usize = 1024;
    /// How long one is kept for a client: its next request follows soon, or it has left.
    const NAMED_KEEP_FOR: Duration = Duration::from_secs(5);

    /// A connection to `server` that still stands at `now`, the one used last, and has begun with the
    /// header that names `ends`, if any.
    pub fn take(server: ServerId, ends: Option<Ends>, now: Instant) -> Option<Socket> {
        POOL.with_borrow_mut(|pool| {
            let idle = pool.get_mut(&(server, ends))?;
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
        let ends = socket.wire().passed_on();
        let longest = if ends.is_some() { Self::NAMED_KEEP_FOR } else { Self::KEEP_FOR };
        let keep_for = match hint {
            // Less than the server does, so that a request does not meet its close on the way.
            Some(hint) => (hint / 2).max(hint.saturating_sub(Duration::from_secs(1))).min(longest),
            None => longest,
        };
        if socket.wire().has_unsent() {
            return; // The server answered before it had heard everything.
        }
        POOL.with_borrow_mut(|pool| {
            let idle_max = match ends {
                Some(_) if pool.len() >= Self::NAMED_MAX => 0,
                Some(_) => Self::NAMED_IDLE_MAX,
                None => Self::IDLE_MAX,
            };
            let idle = pool.entry((server, ends)).or_default();
            if idle.len() < idle_max {
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

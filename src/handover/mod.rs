//! Live connections on their way to the next process: a new binary, or the same one again.
//!
//! ```text
//! old                                                    new
//!  │ ◀───────────── Hello{version, pid} ──────────────▶   │
//!  │ ── Knows, Sockets: what it listens on ──────────▶    │ checks its configuration, binds what is
//!  │                                                      │ missing, starts all but accepting
//!  │ ◀───────────────────────────────────────── Ready ──  │
//!  │ ── Sessions: what was learned, then what since ─▶    │ remembers it as well
//!  │ stops accepting, brings its relays to rest           │
//!  │ ── Notes: what was ordered, and who is down ────▶    │
//!  │ ── Relays: state, two descriptors each ─────────▶    │ has them rest on its own threads
//!  │ ◀───────────────────────────── Took{refused} ──────  │     (again, until there are no more)
//!  │ ── All{count} ──────────────────────────────────▶    │
//!  │ ◀──────────────────────────────── Adopted{count} ──  │
//!  │ ── Commit ──────────────────────────────────────▶    │ goes on with them, and accepts
//!  │ forgets them; finishes what could not go             │
//! ```
//!
//! The rule: at every moment one process has a connection, and only that one reads or writes it. Up
//! to `Commit` that is the old one, which only rests; whatever fails before, it goes on with all of
//! them as if nothing had happened, and accepts again. From `Commit` on it is the new one. A
//! listening socket is never closed by both, so no connection that waits in its queue is lost.
//!
//! What cannot go (TLS, HTTP/2, exchanges between a request and its answer) is for the old process to
//! finish, as on SIGTERM. A relay whose server the new configuration does not have goes all the
//! same: a server that was taken out keeps its relays on a reload too, and a hand-over must not be
//! worse than that.
//!
//! Whoever connects must be the same user, or root.

pub mod channel;
pub mod message;
pub mod moving;
pub mod new;
pub mod old;
#[cfg(test)]
mod tests;

pub use channel::{Broken, Channel};
pub use message::{Drained, Hello, Knowledge, Note, Purpose, Socket};

use std::time::Duration;

/// How long a process may take to say something that is at hand.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long the new process may take to get ready. Meanwhile the old one serves.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long relays may rest, all together. Then the old process goes on with them.
pub const REST_WITHIN: Duration = Duration::from_secs(10);

/// How long the new process waits for a word that the old one says within [`REST_WITHIN`], or not at
/// all. It must be the longer one: so it never gives up what the old one has just given away.
pub const COMMIT_WITHIN: Duration = Duration::from_secs(30);

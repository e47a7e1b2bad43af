//! TLS, as far as it needs no socket: what one connection says, which certificates it is shown, and
//! whom we believe.
//!
//! ```text
//! files ─ certificates   what an operator has put down, checked
//!       ─ front          what clients get to see: certificates by name, versions, protocols
//!       ─ back           what is expected of servers
//! records ─ session      one connection: records in, bytes out, and the other way round
//! ```
//!
//! Nothing here opens a socket or spawns a task; `socket::Transport` moves the records.

pub mod back;
pub mod certificates;
pub mod front;
pub mod session;
#[cfg(test)]
pub(crate) mod tests;

pub use back::Back;
pub use certificates::Certificate;

//! HTTP/2 from clients.
//!
//! The rule: each stream becomes a connection of HTTP/1.1 with exactly one request. So everything
//! that is done for requests, answers and what stays of them is the same whatever a client speaks,
//! and what reaches a server is always one well-formed request of HTTP/1.1.
//!
//! ```text
//! preface       is it HTTP/2 that a connection begins with? (pure)
//! driver        the task of a connection: takes its streams, ends it
//!  ├─ lingering how it is closed
//!  ├─ link      what its streams share
//!  ├─ calm      how many of them a client may reset (pure)
//!  └─ stream    one of them, as the connection that it stands for
//!      ├─ request   a field list, as the head of a request (pure)
//!      └─ response  the bytes of a response, as heads and data (pure)
//! ```
//!
//! A WebSocket comes as an extended CONNECT (RFC 8441) and becomes the upgrade that its server
//! knows. Trailers end here, as they do with HTTP/1.1, and nothing is pushed.

mod calm;
mod driver;
mod lingering;
mod link;
pub mod preface;
pub mod request;
pub mod response;
mod stream;

pub use driver::serve;
pub use stream::Stream;

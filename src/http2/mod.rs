//! HTTP/2 from clients.
//!
//! The rule: each stream becomes a connection of HTTP/1.1 with exactly one request. So everything
//! that is done for requests, answers and what stays of them is the same whatever a client speaks,
//! and what reaches a server is always one well-formed request of HTTP/1.1.
//!
//! ```text
//! preface   is it HTTP/2 that a connection begins with? (pure)
//! request   the field list of a request, as a head of HTTP/1.1 (pure)
//! response  the bytes of a response, as heads and data (pure)
//! calm      how many streams a client may reset (pure)
//! ```

pub mod calm;
pub mod preface;
pub mod request;
pub mod response;

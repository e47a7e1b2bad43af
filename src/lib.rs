//! A reverse proxy and load balancer for connections that stay: WebSocket, server-sent events,
//! long-polling and Socket.IO, beside ordinary HTTP.
//!
//! # The one idea
//!
//! A long-lived connection spends a millisecond being HTTP and hours being two sockets. So it
//! *checks in* through Pingora, which parses what clients send, and *lives* in a small
//! relay of our own: two sockets, a few bytes of state, and one buffer per thread.
//!
//! # The life of a request
//!
//! ```text
//! server ─ listener ─ connection ─ exchange ─┬─ route      which rule owns this host and path?
//! (threads, (PROXY    (requests,  (the only  ├─ handshake  has a hop damaged what was a WebSocket's?
//!  accept)   headers,  keep-alive) place     ├─ affinity   which client is this, across connections?
//!            TLS)                  with the  ├─ session_store   which server issued this session?
//!                                  order)    ├─ balance    which server serves that client?
//!                                            ├─ upstream   which servers are there, are they up, how is one reached?
//!                                            ├─ relay      what does the connection become, when does it end?
//!                                            └─ observe    one log line, a few counters, spans
//! ```
//!
//! Beside all that, [`migrate`] makes a configuration of other programs' files: text in, text out.
//!
//! A connection of HTTP/2 is one for each of its streams ([`http2`]), and the same from there on.
//!
//! To follow a request, read [`exchange`]. To follow a connection that stays, go on in [`relay`]. What
//! changes while all of that goes on is up to [`server`]: a configuration is put in force for the requests
//! that begin from then on ([`service`]), and everything goes over to the next process ([`handover`]).
//!
//! # Words
//!
//! A **listener** takes connections of a **client**; a **route** sends a request to an
//! **upstream**, a group of **servers**. An **exchange** is one request and its answer; a
//! **relay** is what a long-lived exchange becomes. **Affinity** is what names a client across
//! connections. *Up* is towards the server, *down* towards the client. Every exchange and relay
//! has one **end reason**. *Session*, *stream* and *peer* are Pingora's words for its own types;
//! [`tls::session`] alone has a `Session` of its own, which is one connection of TLS.
//!
//! # What may call what
//!
//! The *core* (`admission`, `route`, `handshake`, `affinity`, `balance`, `proxy_protocol`,
//! `tls` but for its files, and the parts of `relay`, `http2` and `upstream` marked pure) decides. It
//! opens no socket, spawns no task and reads no clock: time and randomness come in as arguments, so
//! its tests are plain function calls. The *shell*
//! (`server`, `service`, `handover`, `listener`, `http2`, `connection`, `exchange`, `session_store`,
//! `upstream`, `socket`, `relay::run`, `admin`, `command`, `cli`) does all that, and decides next to
//! nothing.
//!
//! - Only `exchange` knows the order of phases; the modules it calls do not know each other.
//! - Past [`config::load`] no configuration mistake can be found: there are only types.
//! - Every queue, table and wait has a bound, and the bound has a name.
//! - Each request ends in exactly one access-log line, each relay in exactly one end reason.
//! - Nothing in a connection's life crosses threads; who wants something of a relay asks its worker.
//! - An exchange or relay keeps the configuration that it began with; servers live through all of them.
//! - A socket handed to a session comes back whole: no byte is hidden in a session's buffers.

pub mod admin;
pub mod admission;
pub mod affinity;
pub mod balance;
pub mod cli;
pub mod command;
pub mod config;
pub mod connection;
pub mod demo;
pub mod error;
pub mod exchange;
pub mod handover;
pub mod handshake;
pub mod http2;
pub mod listener;
pub mod migrate;
pub mod observe;
pub mod proxy_protocol;
#[cfg(test)]
mod reference;
pub mod relay;
pub mod route;
pub mod server;
pub mod service;
pub mod session_store;
pub mod socket;
pub mod tls;
pub mod upstream;

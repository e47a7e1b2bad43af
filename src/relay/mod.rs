//! Relays: what a long-lived exchange becomes after the hand-off.
//!
//! A connection that stays spends a millisecond being HTTP and hours being two sockets. Once the
//! heads are exchanged, both sockets are taken out of the HTTP sessions, all request state is
//! freed, and a [`Relay`] owns what is left. It reads into one buffer per thread and keeps bytes
//! of its own only while a peer cannot take them.
//!
//! ```text
//! run        the task: two sockets, polled            inbox     what other threads ask for
//!  ├─ frozen what goes on in another process
//!  ├─ interruption  an event stream without its server
//!  ├─ lane   bytes one way, and back-pressure         registry  this thread's relays
//!  │                                                  departures  who leaves when (pure)
//!  │                                                  strays      who belongs elsewhere (pure)
//!  ├─ events what happens to an event stream (pure)  timers    coarse time (pure)
//!  │    ├─ chunked   framing off and on (pure)
//!  │    ├─ sse       where a comment may stand (pure)
//!  │    └─ resumable what another server needs to go on (pure)
//!  │         └─ last_event_id  behind which event (pure)
//!  ├─ websocket  what happens to a WebSocket (pure)
//!  │    └─ frames    where a frame may stand (pure)
//!  └─ life   what is due when, why it ends (pure)
//! ```

pub mod chunked;
pub mod departures;
pub mod events;
pub mod frames;
pub mod inbox;
mod lane;
pub mod last_event_id;
pub mod life;
pub mod registry;
pub mod resumable;
mod run;
pub mod sse;
pub mod strays;
pub mod timers;
pub mod websocket;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use events::{ClientFraming, Events, ServerFraming, Untouched};
pub use life::Limits;
pub use resumable::{Resumable, Resumption};
#[cfg(test)]
pub(crate) use run::sample;
pub use run::{Freed, Frozen, Handover, Home, NewHome, NextServer, Protocol, Quest, Relay, Running, Stopped, Unsound};
pub use timers::Tick;
pub use websocket::WebSocket;

use crate::config::{self, Timeouts};

/// What an exchange turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A request and its response.
    Http,
    /// A WebSocket (RFC 6455).
    WebSocket,
    /// Any other protocol that was upgraded to.
    Tunnel,
    /// A stream of server-sent events.
    EventStream,
}

impl Kind {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Http, Self::WebSocket, Self::Tunnel, Self::EventStream];

    /// The word for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::WebSocket => "websocket",
            Self::Tunnel => "tunnel",
            Self::EventStream => "sse",
        }
    }

    /// The kind of relay that has this label.
    pub fn of_relay(label: &str) -> Option<Self> {
        [Self::WebSocket, Self::Tunnel, Self::EventStream].into_iter().find(|kind| kind.label() == label)
    }
}

/// Why an exchange or a relay ended: exactly one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The response was sent to its end.
    Complete,
    /// The client closed first.
    ClientClosed,
    /// The server closed first.
    ServerClosed,
    /// The client's connection failed.
    ClientError,
    /// The server's connection failed, or what it sent made no sense.
    ServerError,
    /// A peer no longer answers: TCP gave up on it, or the client answered no Ping.
    PeerGone,
    /// The client took no byte for the time-out `send`.
    ClientStalled,
    /// The server took no byte for the time-out `send`.
    ServerStalled,
    /// Neither side sent a byte for the time-out `idle`, or a body paused longer than `body`, or the
    /// server of a stream that began without it was silent for `response_head`.
    Idle,
    /// It has lived for the time-out `max_age`.
    MaxAge,
    /// The operator ended it by its id.
    Operator,
    /// Its server is drained, or its upstream, or the process.
    Drained,
    /// It belongs to another server by now.
    Rebalanced,
    /// Its server is down, and relays of such end.
    ServerDown,
    /// The proxy is stopping.
    Shutdown,
    /// The proxy itself answered, with an error.
    Refused,
}

impl EndReason {
    /// How many there are.
    pub const COUNT: usize = Self::Refused as usize + 1;

    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Complete,
        Self::ClientClosed,
        Self::ServerClosed,
        Self::ClientError,
        Self::ServerError,
        Self::PeerGone,
        Self::ClientStalled,
        Self::ServerStalled,
        Self::Idle,
        Self::MaxAge,
        Self::Operator,
        Self::Drained,
        Self::Rebalanced,
        Self::ServerDown,
        Self::Shutdown,
        Self::Refused,
    ];

    /// Whether the proxy ends something whole for it, and not because a peer is gone or fails.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Idle | Self::MaxAge | Self::Operator) || self.is_move()
    }

    /// Whether the client is to come back at once, and will be served: elsewhere, or by another process.
    pub fn is_move(self) -> bool {
        matches!(self, Self::Drained | Self::Rebalanced | Self::ServerDown | Self::Shutdown)
    }

    /// The word for logs and metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientClosed => "client_closed",
            Self::ServerClosed => "server_closed",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::PeerGone => "peer_gone",
            Self::ClientStalled => "client_stalled",
            Self::ServerStalled => "server_stalled",
            Self::Idle => "idle",
            Self::MaxAge => "max_age",
            Self::Operator => "operator",
            Self::Drained => "drained",
            Self::Rebalanced => "rebalanced",
            Self::ServerDown => "server_down",
            Self::Shutdown => "shutdown",
            Self::Refused => "refused",
        }
    }
}

/// What is inserted towards the client when, and what is expected of it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// Nothing.
    Off,
    /// A comment, which needs no answer, after this silence.
    Comment(Duration),
    /// A Ping, after the first time, and a sign of life within the second.
    Ping(Duration, Duration),
}

impl Keepalive {
    /// That of event streams.
    pub fn of_events(sse: &config::Sse) -> Self {
        sse.keepalive.map_or(Self::Off, Self::Comment)
    }

    /// That of WebSockets.
    pub fn of_websocket(websocket: &config::WebSocket) -> Self {
        websocket.ping.map_or(Self::Off, |ping| Self::Ping(ping, websocket.pong_timeout))
    }
}

/// The limits of a relay of `kind` under `timeouts`, which is kept alive by `keepalive`.
///
/// `jitter`, any number, shortens the interval and the age by up to a tenth each, so that relays
/// which began together neither tick together nor end together.
pub fn limits(kind: Kind, timeouts: &Timeouts, keepalive: Keepalive, jitter: u32) -> Limits {
    let (interval, pong) = match keepalive {
        Keepalive::Off => (None, None),
        Keepalive::Comment(interval) => (Some(interval), None),
        Keepalive::Ping(interval, pong) => (Some(interval), Some(Tick::count(pong))),
    };
    let jittered = |interval| {
        let ticks = Tick::count(interval);
        ticks - jitter % (ticks / 10 + 1)
    };
    let closing = match kind {
        // Nothing but the client's own close is missing.
        Kind::EventStream | Kind::Http => Duration::from_secs(5),
        Kind::WebSocket | Kind::Tunnel => Duration::from_secs(30),
    };
    Limits {
        closing: Tick::count(closing),
        idle: Tick::count(timeouts.idle),
        send: Tick::count(timeouts.send),
        age: timeouts.max_age.map(jittered),
        keepalive: interval.map(jittered),
        pong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_order() {
        assert!((0..).zip(EndReason::ALL).all(|(at, reason)| reason as usize == at), "{:?}", EndReason::ALL);
        assert!((0..).zip(Kind::ALL).all(|(at, kind)| kind as usize == at), "{:?}", Kind::ALL);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_tenth_at_most() {
        let timeouts = Timeouts {
            connect: Duration::ZERO,
            request_head: Duration::ZERO,
            response_head: Duration::ZERO,
            body: Duration::ZERO,
            send: Duration::from_secs(60),
            idle: Duration::from_secs(3600),
            keepalive: Duration::ZERO,
            max_age: Some(Duration::from_secs(100)),
        };
        for jitter in [0, 1, 7, 14, 15, 16, u32::MAX] {
            let (every, within) = (Duration::from_secs(15), Duration::from_secs(10));
            for (keepalive, pong) in [(Keepalive::Comment(every), None), (Keepalive::Ping(every, within), Some(100))] {
                let short = limits(Kind::EventStream, &timeouts, keepalive, jitter);
                let keepalive = short.keepalive.expect("it is on");
                assert!((135..=150).contains(&keepalive), "{keepalive} ticks with jitter {jitter}");
                assert_eq!((short.idle, short.send, short.pong), (36_000, 600, pong));
                let age = short.age.expect("there is a limit");
                assert!((900..=1000).contains(&age), "{age} ticks with jitter {jitter}");
            }
        }
        let off = limits(Kind::EventStream, &timeouts, Keepalive::Off, 7);
        assert_eq!((off.keepalive, off.pong), (None, None));
        let ageless = Timeouts { max_age: None, ..timeouts };
        assert_eq!(limits(Kind::Tunnel, &ageless, Keepalive::Off, 7).age, None);
    }
}

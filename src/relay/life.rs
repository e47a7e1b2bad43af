//! The life of one relay, apart from the bytes it carries: what is due when, and why it ends.
//!
//! ```text
//!            one side ends            the other ends, or is silent too long
//! Open ───────────────────▶ Closing ───────────────────────────────────────▶ ended
//!  │ │                                                                         ▲ ▲
//!  │ └─ ended by us ──────▶ Leaving: farewell said, for a bounded time ────────┘ │
//!  └── a peer lost, gone or stalled; ended by us where there is no farewell ─────┘
//! ```
//!
//! A relay never goes back a state. The first cause wins: what follows from it is no cause. Only an
//! event stream that moves to another server has [begun again](Life::begun_again).

use serde::{Deserialize, Serialize};

use super::EndReason;
use super::timers::Tick;

/// How long a relay may do what, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Silence in both directions that ends it.
    pub idle: u32,
    /// How long a peer may leave bytes waiting that are meant for it.
    pub send: u32,
    /// Silence that ends it when one side has closed. While bytes still flow it goes on.
    pub closing: u32,
    /// How old it may become.
    pub age: Option<u32>,
    /// Silence after which something is inserted towards the client: a comment, or a Ping.
    pub keepalive: Option<u32>,
    /// For Pings: silence from the client behind one after which it is gone. Then `keepalive` is
    /// silence in either direction between proxy and client; else towards the client alone.
    pub pong: Option<u32>,
}

/// Where a relay stands in time.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    began_at: Tick,
    /// When a byte last came from either side.
    active_at: Tick,
    /// When the client was last sent something.
    client_sent_at: Tick,
    /// Whether the client has a head and nothing behind it.
    is_greeting: bool,
    /// When the client last gave a sign of life.
    client_heard_at: Tick,
    /// Since when the client owes a sign of life.
    pinged_at: Option<Tick>,
    /// Since when bytes wait for the client.
    client_stalled_at: Option<Tick>,
    /// Since when bytes wait for the server.
    server_stalled_at: Option<Tick>,
    /// Why it is closing.
    closing: Option<EndReason>,
    /// When it ends, come what may.
    ends_by: Option<Tick>,
}

/// A life as the clock of another thread or process takes it up: how many ticks ago everything was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ages {
    began: u32,
    active: u32,
    client_sent: u32,
    is_greeting: bool,
    client_heard: u32,
    pinged: Option<u32>,
    client_stalled: Option<u32>,
    server_stalled: Option<u32>,
    closing: Option<EndReason>,
    /// How many ticks are left, where it is leaving.
    ends_in: Option<u32>,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this tick.
    Later(Tick),
    /// A comment or a Ping to the client.
    Keepalive,
    /// The end.
    End(EndReason),
}

/// One of the two peers of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// Who connected to us.
    Client,
    /// Whom we connected to.
    Server,
}

/// How long a server has to say something behind its head, in ticks: time enough for one that does
/// so at once, and too short to be felt by a client behind a hop that holds back the head alone.
pub const GREETING: u32 = 2;

impl Life {
    /// A relay that begins at `now`.
    pub fn new(now: Tick) -> Self {
        Self {
            began_at: now,
            active_at: now,
            client_sent_at: now,
            is_greeting: false,
            client_heard_at: now,
            pinged_at: None,
            client_stalled_at: None,
            server_stalled_at: None,
            closing: None,
            ends_by: None,
        }
    }

    /// The same relay, as if it had begun its course at `now`: another server goes on with what the first
    /// one had begun.
    pub fn begun_again(&self, now: Tick) -> Self {
        Self {
            began_at: self.began_at,
            client_sent_at: self.client_sent_at,
            client_stalled_at: self.client_stalled_at,
            ..Self::new(now)
        }
    }

    /// How old everything is at `now`.
    pub fn ages(&self, now: Tick) -> Ages {
        let age = |at: Tick| now.0.saturating_sub(at.0);
        Ages {
            began: age(self.began_at),
            active: age(self.active_at),
            client_sent: age(self.client_sent_at),
            is_greeting: self.is_greeting,
            client_heard: age(self.client_heard_at),
            pinged: self.pinged_at.map(age),
            client_stalled: self.client_stalled_at.map(age),
            server_stalled: self.server_stalled_at.map(age),
            closing: self.closing,
            ends_in: self.ends_by.map(|by| by.0.saturating_sub(now.0)),
        }
    }

    /// A life that goes on at `now` and is as old as `ages`.
    pub fn aged(ages: &Ages, now: Tick) -> Self {
        let at = |age: u32| Tick(now.0.saturating_sub(age));
        Self {
            began_at: at(ages.began),
            active_at: at(ages.active),
            client_sent_at: at(ages.client_sent),
            is_greeting: ages.is_greeting,
            client_heard_at: at(ages.client_heard),
            pinged_at: ages.pinged.map(at),
            client_stalled_at: ages.client_stalled.map(at),
            server_stalled_at: ages.server_stalled.map(at),
            closing: ages.closing,
            // Nothing leaves without a reason.
            ends_by: ages.ends_in.filter(|_| ages.closing.is_some()).map(|left| now.plus(left)),
        }
    }

    /// The client had been sent nothing for so many ticks when it began.
    pub fn quiet_for(&mut self, ticks: u32) {
        self.client_sent_at = Tick(self.client_sent_at.0.saturating_sub(ticks));
    }

    /// The client has a head and nothing behind it: something is to follow soon.
    pub fn greet(&mut self) {
        self.is_greeting = true;
    }

    /// Something has followed.
    pub fn greeted(&mut self) {
        self.is_greeting = false;
    }

    /// Either side sent at least one byte.
    pub fn heard(&mut self, now: Tick) {
        self.active_at = now;
    }

    /// The client gave a sign of life: any byte, or it took what had waited for it.
    pub fn client_lives(&mut self, now: Tick) {
        self.client_heard_at = now;
        self.pinged_at = None;
    }

    /// Since when neither side has sent a byte.
    pub fn quiet_since(&self) -> Tick {
        self.active_at
    }

    /// A peer took all that waited for it, or some of it.
    pub fn sent(&mut self, to: Side, now: Tick) {
        match to {
            Side::Client => {
                self.client_sent_at = now;
                self.client_stalled_at = None;
            }
            Side::Server => self.server_stalled_at = None,
        }
    }

    /// A comment or a Ping was due, and the next one is due an interval later.
    pub fn kept_alive(&mut self, now: Tick) {
        self.client_sent_at = now;
        self.client_heard_at = now;
        self.is_greeting = false;
    }

    /// A Ping went to the client. One that is not yet answered counts on.
    pub fn pinged(&mut self, now: Tick) {
        self.kept_alive(now);
        self.pinged_at.get_or_insert(now);
    }

    /// Bytes wait that `side` did not take.
    pub fn stalled(&mut self, side: Side, now: Tick) {
        let since = match side {
            Side::Client => &mut self.client_stalled_at,
            Side::Server => &mut self.server_stalled_at,
        };
        since.get_or_insert(now);
    }

    /// One side ended, for `reason`; the other may still speak.
    pub fn close(&mut self, reason: EndReason) {
        self.closing.get_or_insert(reason);
    }

    /// Why it is closing, if it is.
    pub fn closing(&self) -> Option<EndReason> {
        self.closing
    }

    /// The proxy ends it for `reason`: farewell is said, and answered until `by`.
    pub fn leave(&mut self, reason: EndReason, by: Tick) {
        self.close(reason);
        self.ends_by = Some(self.ends_by.map_or(by, |earlier| earlier.min(by)));
    }

    /// Whether farewell was said.
    pub fn is_leaving(&self) -> bool {
        self.ends_by.is_some()
    }

    /// What is to be done at `now`.
    pub fn due(&self, now: Tick, limits: &Limits) -> Due {
        if let (Some(by), Some(reason)) = (self.ends_by, self.closing) {
            return if by <= now { Due::End(reason) } else { Due::Later(by) };
        }
        let is_stalled = self.client_stalled_at.is_some() || self.server_stalled_at.is_some();
        let mut next = match self.closing {
            // What waits for a peer is not cut short: that is for `send` to bound.
            Some(reason) if is_stalled => (Tick::NEVER, Due::End(reason)),
            Some(reason) => {
                let moved_at = self.active_at.max(self.client_sent_at);
                (moved_at.plus(limits.closing.min(limits.idle)), Due::End(reason))
            }
            None => (self.active_at.plus(limits.idle), Due::End(EndReason::Idle)),
        };
        if let Some(age) = limits.age {
            let reason = self.closing.unwrap_or(EndReason::MaxAge);
            next = earlier(next, (self.began_at.plus(age), Due::End(reason)));
        }
        for (since, reason) in
            [(self.client_stalled_at, EndReason::ClientStalled), (self.server_stalled_at, EndReason::ServerStalled)]
        {
            if let Some(since) = since {
                let reason = self.closing.unwrap_or(reason);
                next = earlier(next, (since.plus(limits.send), Due::End(reason)));
            }
        }
        if let (Some(patience), Some(since), None) = (limits.pong, self.pinged_at, self.closing) {
            next = earlier(next, (since.plus(patience), Due::End(EndReason::PeerGone)));
        }
        // A client that does not even take what there is needs no comment.
        if let (Some(interval), None, None) = (limits.keepalive, self.client_stalled_at, self.closing) {
            let is_pinged = limits.pong.is_some();
            let quiet_since =
                if is_pinged { self.client_sent_at.min(self.client_heard_at) } else { self.client_sent_at };
            let interval = if self.is_greeting { interval.min(GREETING) } else { interval };
            next = earlier(next, (quiet_since.plus(interval), Due::Keepalive));
        }
        if next.0 <= now { next.1 } else { Due::Later(next.0) }
    }
}

fn earlier(a: (Tick, Due), b: (Tick, Due)) -> (Tick, Due) {
    if b.0 < a.0 { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { idle: 1000, send: 100, closing: 300, age: None, keepalive: Some(50), pong: None };
    const PINGED: Limits = Limits { pong: Some(20), ..LIMITS };
    const QUIET: Limits = Limits { keepalive: None, ..LIMITS };
    const AGING: Limits = Limits { age: Some(5000), ..QUIET };

    #[test]
    fn what_is_due_follows_from_what_happened() {
        #[track_caller]
        fn check(events: impl Fn(&mut Life), now: u32, limits: &Limits, expected: Due) {
            let mut life = Life::new(Tick(0));
            events(&mut life);
            assert_eq!(life.due(Tick(now), limits), expected);
        }
        use Due::{End, Keepalive, Later};
        use Side::{Client, Server};

        check(|_| {}, 0, &LIMITS, Later(Tick(50)));
        check(|_| {}, 50, &LIMITS, Keepalive);
        check(|life| life.sent(Client, Tick(30)), 50, &LIMITS, Later(Tick(80)));
        // What the server takes is no sign of life to the client.
        check(|life| life.sent(Server, Tick(30)), 50, &LIMITS, Keepalive);

        check(|life| life.quiet_for(30), 30, &LIMITS, Later(Tick(50))); // No thread is younger than its relays.
        // A head alone is soon followed by a comment, and only once.
        check(Life::greet, 1, &LIMITS, Later(Tick(2)));
        check(Life::greet, 2, &LIMITS, Keepalive);
        check(Life::greet, 2, &QUIET, Later(Tick(1000)));
        check(Life::greet, 1, &Limits { keepalive: Some(1), ..LIMITS }, Keepalive);
        check(
            |life| {
                life.greet();
                life.sent(Client, Tick(1)); // The head.
            },
            3,
            &LIMITS,
            Keepalive,
        );
        check(
            |life| {
                life.greet();
                life.greeted();
            },
            2,
            &LIMITS,
            Later(Tick(50)),
        );
        check(
            |life| {
                life.greet();
                life.kept_alive(Tick(2));
            },
            3,
            &LIMITS,
            Later(Tick(52)),
        );

        check(|_| {}, 999, &QUIET, Later(Tick(1000)));
        check(|_| {}, 1000, &QUIET, End(EndReason::Idle));
        check(|life| life.heard(Tick(400)), 1000, &QUIET, Later(Tick(1400)));
        // Comments keep the client's connection alive, not a stream whose server is silent.
        check(|life| life.sent(Client, Tick(990)), 1000, &LIMITS, End(EndReason::Idle));

        check(|life| life.stalled(Client, Tick(10)), 60, &LIMITS, Later(Tick(110)));
        check(|life| life.stalled(Client, Tick(10)), 110, &LIMITS, End(EndReason::ClientStalled));
        check(|life| life.stalled(Server, Tick(10)), 110, &QUIET, End(EndReason::ServerStalled));
        check(
            |life| {
                life.stalled(Client, Tick(10));
                life.stalled(Client, Tick(90));
            },
            110,
            &LIMITS,
            End(EndReason::ClientStalled),
        );
        check(
            |life| {
                life.stalled(Client, Tick(10));
                life.sent(Client, Tick(20));
            },
            60,
            &LIMITS,
            Later(Tick(70)),
        );

        check(|life| life.close(EndReason::ServerClosed), 299, &LIMITS, Later(Tick(300)));
        check(|life| life.close(EndReason::ServerClosed), 300, &LIMITS, End(EndReason::ServerClosed));
        // Nor does it end while a peer has yet to take what there is.
        check(
            |life| {
                life.close(EndReason::ServerClosed);
                life.stalled(Client, Tick(250));
            },
            320,
            &LIMITS,
            Later(Tick(350)),
        );
        check(
            |life| {
                life.close(EndReason::ServerClosed);
                life.stalled(Client, Tick(250));
                life.sent(Client, Tick(340));
            },
            345,
            &LIMITS,
            Later(Tick(640)),
        );
        // Bytes that still flow keep a half-closed relay.
        check(
            |life| {
                life.close(EndReason::ClientClosed);
                life.heard(Tick(299));
            },
            300,
            &LIMITS,
            Later(Tick(599)),
        );
        // Pings are due when nothing came from the client, or nothing went to it.
        check(|_| {}, 50, &PINGED, Keepalive);
        check(|life| life.client_lives(Tick(30)), 50, &PINGED, Keepalive);
        check(|life| life.sent(Client, Tick(30)), 50, &PINGED, Keepalive);
        check(
            |life| {
                life.sent(Client, Tick(30));
                life.client_lives(Tick(40));
            },
            50,
            &PINGED,
            Later(Tick(80)),
        );
        // Whom no Ping reaches yet is not late.
        check(|life| life.kept_alive(Tick(50)), 70, &PINGED, Later(Tick(100)));
        check(|life| life.pinged(Tick(50)), 69, &PINGED, Later(Tick(70)));
        check(|life| life.pinged(Tick(50)), 70, &PINGED, End(EndReason::PeerGone));
        check(
            |life| {
                life.pinged(Tick(50));
                life.sent(Client, Tick(60));
            },
            70,
            &PINGED,
            End(EndReason::PeerGone),
        );
        check(
            |life| {
                life.pinged(Tick(50));
                life.pinged(Tick(65));
            },
            70,
            &PINGED,
            End(EndReason::PeerGone),
        );
        check(
            |life| {
                life.pinged(Tick(50));
                life.client_lives(Tick(69));
            },
            70,
            &PINGED,
            Later(Tick(100)),
        );
        // Nor do they keep a WebSocket on which nobody says anything.
        check(
            |life| {
                life.pinged(Tick(990));
                life.client_lives(Tick(991));
            },
            1000,
            &PINGED,
            End(EndReason::Idle),
        );

        // However busy it is, it grows old.
        check(|life| life.heard(Tick(4500)), 4999, &AGING, Later(Tick(5000)));
        check(|life| life.heard(Tick(4500)), 5000, &AGING, End(EndReason::MaxAge));
        check(
            |life| {
                life.close(EndReason::ClientClosed);
                life.heard(Tick(4999));
            },
            5000,
            &AGING,
            End(EndReason::ClientClosed),
        );

        // Farewell has its own time, whatever else would be due.
        check(|life| life.leave(EndReason::Idle, Tick(1050)), 1000, &PINGED, Later(Tick(1050)));
        check(
            |life| {
                life.leave(EndReason::Idle, Tick(1050));
                life.leave(EndReason::Shutdown, Tick(1020));
                life.leave(EndReason::Shutdown, Tick(1030));
                life.stalled(Client, Tick(0));
            },
            1020,
            &PINGED,
            End(EndReason::Idle),
        );

        // The first cause wins.
        check(
            |life| {
                life.close(EndReason::ClientClosed);
                life.close(EndReason::ServerClosed);
                life.stalled(Client, Tick(0));
            },
            100,
            &LIMITS,
            End(EndReason::ClientClosed),
        );
    }
}

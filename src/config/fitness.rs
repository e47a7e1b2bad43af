//! When servers count as fit for clients, and what becomes of their connections when they do not, or
//! are to be left.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderValue;
use serde::{Deserialize, Serialize};

/// How servers are asked whether they are fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What they are asked.
    pub probe: Probe,
    /// The port that is asked, not 0; `None`: the one where clients are served.
    pub port: Option<u16>,
    /// From the end of one check to the next; 100 ms to an hour.
    pub interval: Duration,
    /// For the whole of a check; 1 ms to a minute.
    pub timeout: Duration,
    /// Passed checks in a row until a server that is down is up; 1 to 100.
    pub rise: u32,
    /// Failed ones in a row until a server that is up is down; 1 to 100.
    pub fall: u32,
}

/// One question to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether it takes a connection, and with TLS shakes hands.
    Tcp,
    /// What it answers to a GET.
    Http {
        /// Begins with `/`; visible ASCII.
        path: String,
        /// What `Host` says; `None`: the server's address.
        host: Option<HeaderValue>,
        /// The statuses that are good; at least one range, each within 100 to 599.
        status: Vec<RangeInclusive<u16>>,
    },
}

/// How many failures of clients a server may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// So many in a row until it is down; 1 to 1000.
    pub max_fails: u32,
    /// Within so long, and for so long; 100 ms to an hour.
    pub fail_timeout: Duration,
}

/// What becomes of relays whose server goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDown {
    /// They stay as long as they can.
    #[default]
    Keep,
    /// They are ended, so that their clients come back and get another server.
    Close,
}

/// How a server, an upstream or the process is emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// How long it may take in all; up to a day.
    pub timeout: Duration,
    /// The part of that over which relays are told to end; no more than `timeout`.
    pub spread: Duration,
    /// What becomes of the relays of a server that is no longer there.
    pub removed: Removed,
}

/// What becomes of the relays of a server that was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Removed {
    /// They stay until they end.
    #[default]
    Keep,
    /// They are drained.
    Drain,
}

/// At which pace relays move to the server where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    /// Percent of the relays of an upstream; 1 to 100.
    pub per_minute: u32,
    /// Younger ones stay; up to 30 days.
    pub min_age: Duration,
}

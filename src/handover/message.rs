//! What two processes say to each other.
//!
//! The first words, [`Hello`], have a fixed form: any version can read those of any other one, and say
//! why it does not go on. All else is of one version, and changes with [`VERSION`] alone.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::{ServerOf, Target};
use crate::config::{Rebalance, State};
use crate::connection::Frozen;
use crate::session_store::Learned;
use crate::upstream::health::FoundBy;

/// Which form messages, and the states of relays in them, have. To be raised with every change; a test
/// knows what they look like.
pub const VERSION: u32 = 3;

/// The most bytes that a message may have, and so the most that are ever allocated for one.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The most descriptors that come with a message: the kernel's `SCM_MAX_FD`.
pub const DESCRIPTORS_MAX: usize = 253;

/// Descriptors of a relay: its client's and its server's socket.
pub const DESCRIPTORS_PER_RELAY: usize = 2;

/// Sessions that go with a message: each takes up to 31 bytes.
pub const SESSIONS_MAX: usize = 30_000;

/// The most notes that a process is believed to have.
pub const NOTES_MAX: usize = 64 * 1024;

/// What a process says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Which version of the hand-over it speaks.
    pub version: u32,
    /// Which process it is.
    pub pid: u32,
}

impl Hello {
    const MAGIC: [u8; 8] = *b"STEADFST";

    /// Bytes of a hello.
    pub const BYTES: usize = 16;

    /// As it is sent.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&Self::MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_be_bytes());
        bytes[12..].copy_from_slice(&self.pid.to_be_bytes());
        bytes
    }

    /// As it came; `None` when it was said by something else.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Option<Self> {
        let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, v2, v3, p0, p1, p2, p3] = bytes;
        ([m0, m1, m2, m3, m4, m5, m6, m7] == Self::MAGIC).then_some(Self {
            version: u32::from_be_bytes([v0, v1, v2, v3]),
            pid: u32::from_be_bytes([p0, p1, p2, p3]),
        })
    }
}

/// What the old process knows and no file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Knowledge {
    /// What it keys tags with, where the configuration names no file: sessions that it has tagged stay
    /// whole with it.
    pub secret: Option<Vec<u8>>,
}

/// What the old process knows of servers and upstreams, and no file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    /// An operator has given a server a state or a weight.
    Ordered {
        /// Which.
        server: ServerOf,
        /// Where it listens.
        address: SocketAddr,
        /// In the place of the state in the file.
        state: Option<State>,
        /// In the place of the weight in the file.
        weight: Option<NonZeroU32>,
    },
    /// A server is down.
    Down {
        /// Which.
        server: ServerOf,
        /// Where it listens.
        address: SocketAddr,
        /// Who has found that out.
        found_by: FoundBy,
        /// What has happened, in words.
        reason: Box<str>,
        /// For how long it has been.
        elapsed: Duration,
    },
    /// Something is drained, or was, and that has not been undone.
    Drained(Drained),
    /// An operator has ordered the relays of an upstream to where they belong.
    Rebalanced {
        /// Its name.
        upstream: String,
        /// How fast.
        pace: Rebalance,
    },
}

impl Note {
    /// Whether an operator could have ordered that: what comes from elsewhere weighs no more than what the
    /// API takes.
    pub fn is_sound(&self) -> bool {
        match self {
            Self::Ordered { weight, .. } => weight.is_none_or(|weight| weight.get() <= 256),
            Self::Rebalanced { pace, .. } => (1..=100).contains(&pace.per_minute),
            Self::Down { .. } | Self::Drained(_) => true,
        }
    }
}

/// A drain that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// What is drained.
    pub target: Target,
    /// Where that listens, if it is a server.
    pub address: Option<SocketAddr>,
    /// How long it has taken so far.
    pub elapsed: Duration,
    /// Over what time ends are spread.
    pub spread: Duration,
    /// How long it may take in all.
    pub timeout: Duration,
    /// Exchanges and relays when it began.
    pub open_before: usize,
    /// The server is none of its upstream's any more.
    pub is_of_removed: bool,
}

/// What the old process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromOld {
    /// What it knows.
    Knows(Knowledge),
    /// What it listens on, each with one descriptor; more follow unless these are the last.
    Sockets {
        /// What the descriptors are, in their order.
        sockets: Vec<Socket>,
        /// No more follow.
        is_last: bool,
    },
    /// Who has issued which session, as far as only this process knows: at any time before [`Self::All`].
    Sessions(Vec<Learned>),
    /// What it knows of servers: when its relays rest, and nothing changes any more.
    Notes(Vec<Note>),
    /// Relays, each with two descriptors, the client's first; each in a form of its own, so that one
    /// that makes no sense is not the end of the others.
    Relays(Vec<Vec<u8>>),
    /// That was all: so many relays were sent, those that were refused included.
    All(u32),
    /// They are the new process's from now on.
    Commit,
    /// It gives up, because of this.
    Failed(String),
}

/// What the new process says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNew {
    /// It could accept and go on with relays at once. It will listen on these addresses; what else
    /// came is the old one's to close.
    Ready(Vec<SocketAddr>),
    /// It has the relays that have just come, but for those at these places.
    Took {
        /// Places among those that have just come, in order.
        refused: Vec<u16>,
    },
    /// It has so many relays, and everything that they need.
    Adopted(u32),
    /// It gives up, because of this.
    Failed(String),
}

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// Where.
    pub address: SocketAddr,
    /// Whom for.
    pub purpose: Purpose,
}

/// Whom a socket listens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Clients.
    Clients,
    /// Operators.
    Admin,
}

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message that makes no sense")]
pub struct Malformed;

/// A message as it is sent.
///
/// # Panics
/// Never: what is sent are plain values, and memory is all that they need.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).expect("plain values can be written down")
}

/// A message as it came.
///
/// # Errors
/// [`Malformed`] when it is cut, or longer than it should be, or something else.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(Malformed),
    }
}

/// A relay as it came, if it is in a state that relays can be in.
///
/// # Errors
/// [`Malformed`] when it is not.
pub fn decode_relay(bytes: &[u8]) -> Result<Frozen, Malformed> {
    let frozen: Frozen = decode(bytes)?;
    frozen.relay.check().map_err(|_| Malformed)?;
    Ok(frozen)
}

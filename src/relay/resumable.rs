//! What is kept of an event stream so that another server can go on with it. Pure.
//!
//! It is plain data, and goes to another process with its relay.

use serde::{Deserialize, Serialize};

use super::EndReason;
use super::last_event_id::LastEventId;
use crate::proxy_protocol::Ends;

/// What is kept of a request so that another server can be asked to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumable {
    /// Its head, as the server got it.
    pub(super) head: Vec<u8>,
    /// What names its client to the balance.
    pub(super) key: Option<Vec<u8>>,
    /// The connection that servers are told of.
    pub(super) ends: Option<Ends>,
    /// How many servers were asked since an event has passed.
    pub(super) asked: u32,
    /// What the client has got.
    pub(super) ids: LastEventId,
    /// A stream whose server is sought stays in its process.
    #[serde(skip)]
    pub(super) course: Course,
}

/// Whether a stream has a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Course {
    /// There is a server.
    #[default]
    Flows,
    /// It is no more, for this reason: its relay is about to stop.
    Interrupted(EndReason),
    /// Another one is sought.
    Sought(EndReason),
}

impl Resumable {
    /// The longest head that is kept, in bytes.
    pub const HEAD_MAX: usize = 16 * 1024;
    /// The longest key that is kept, in bytes.
    const KEY_MAX: usize = 16 * 1024;

    /// A request whose `head` its server got, whose `key` chose that server if any did, and which came
    /// on the connection `ends` if servers are told so. `None` when that is too long to be kept.
    pub fn new(head: Vec<u8>, key: Option<Vec<u8>>, ends: Option<Ends>) -> Option<Self> {
        let this = Self { head, key, ends, asked: 0, ids: LastEventId::default(), course: Course::Flows };
        this.is_sound().then_some(this)
    }

    /// Whether it can be one. What came from elsewhere may be none.
    pub fn is_sound(&self) -> bool {
        self.ids.is_sound()
            && self.head.len() <= Self::HEAD_MAX
            && self.key.as_ref().is_none_or(|key| key.len() <= Self::KEY_MAX)
    }
}

/// What has become of attempts to go on with streams, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumption {
    /// Another server goes on, or the same one again.
    Resumed,
    /// None did.
    Failed,
    /// The server was lost within an event.
    MidEvent,
    /// What the client has got has no id.
    NoId,
}

impl Resumption {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Resumed, Self::Failed, Self::MidEvent, Self::NoId];

    /// The word for metric labels.
    pub fn label(self) -> &'static str {
        match self {
            Self::Resumed => "resumed",
            Self::Failed => "failed",
            Self::MidEvent => "mid_event",
            Self::NoId => "no_id",
        }
    }
}

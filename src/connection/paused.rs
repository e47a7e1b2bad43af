//! Relays at rest, with what their tasks held: on their way to another process, or back to work.
//!
//! The rule: whoever has a [`Paused`] has the whole connection. It goes on, or it has gone to another
//! process; else it would be lost.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Connection, Open};
use crate::proxy_protocol::Ends;
use crate::relay::{self, NewHome, Relay, registry};
use crate::service::Service;

thread_local! {
    /// The relays of this thread that have come to rest, while somebody collects them.
    static COLLECTED: RefCell<Option<Vec<Paused>>> = const { RefCell::new(None) };
}

/// A connection whose relay rests.
#[derive(Debug)]
pub struct Paused {
    relay: Box<Relay>,
    connection: Connection,
}

/// The same as plain data, but for its sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// What the connection is.
    pub relay: relay::Frozen,
    previous_hop: IpAddr,
    /// Whom a PROXY header has named.
    ends: Option<Box<Ends>>,
}

#[cfg(test)]
impl Frozen {
    /// That of a connection that has come directly.
    pub(crate) fn of(relay: relay::Frozen) -> Self {
        Self { relay, previous_hop: [127, 0, 0, 1].into(), ends: None }
    }
}

/// Where a connection that comes from another process belongs to.
#[derive(Debug)]
pub struct Arrival {
    /// What its requests behind an event stream need.
    pub service: Arc<Service>,
    /// What counts it as open.
    pub open: Open,
    /// Where its relay belongs to.
    pub home: NewHome,
}

/// Brings every relay of this thread to rest that can go to another process, all between two turns of
/// theirs, and freezes them. What cannot go goes on.
pub async fn freeze_all() -> Vec<(Paused, Frozen)> {
    COLLECTED.set(Some(Vec::new()));
    registry::pause_all();
    while registry::is_pausing() {
        // All of them are awake, and no turn is long.
        tokio::task::yield_now().await;
    }
    let paused = COLLECTED.take().unwrap_or_default();
    let frozen = paused.into_iter().filter_map(|paused| match paused.freeze() {
        Some(frozen) => Some((paused, frozen)),
        None => {
            paused.go_on();
            None
        }
    });
    frozen.collect()
}

impl Paused {
    pub(super) fn new(relay: Box<Relay>, connection: Connection) -> Self {
        Self { relay, connection }
    }

    /// Gives it to whoever collects. When nobody does any more, it goes on.
    pub(super) fn collect(self) {
        let left = COLLECTED.with_borrow_mut(|collected| match collected {
            Some(collected) => {
                collected.push(self);
                None
            }
            None => Some(self),
        });
        if let Some(left) = left {
            left.go_on();
        }
    }

    /// What another process needs besides its sockets.
    fn freeze(&self) -> Option<Frozen> {
        let Connection { previous_hop, ends, .. } = &self.connection;
        Some(Frozen { relay: self.relay.freeze()?, previous_hop: *previous_hop, ends: ends.clone() })
    }

    /// Its sockets, the client's first.
    ///
    /// # Panics
    /// Never: only relays whose sockets can go come to rest.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        self.relay.descriptors().expect("it could not have come to rest otherwise")
    }

    /// Goes on as if it had never rested. To be called on the thread it belongs to.
    pub fn go_on(self) {
        self.connection.relay(*self.relay);
    }

    /// It goes on in another process.
    pub fn handed_over(self) {
        self.connection.open.observer.metrics.relays_given.inc();
        self.relay.handed_over();
    }

    /// One that has come from another process, at rest on this thread.
    ///
    /// # Errors
    /// When one of its sockets cannot be waited for here.
    pub fn thaw(frozen: Frozen, sockets: [TcpStream; 2], arrival: Arrival) -> io::Result<Self> {
        let Arrival { service, open, home } = arrival;
        let Frozen { relay, previous_hop, ends } = frozen;
        let relay = Box::new(Relay::thaw(relay, sockets, home)?);
        Ok(Self { relay, connection: Connection { service, previous_hop, ends, open } })
    }

    /// It is this process that goes on with it, from now on. To be called on the thread it was made on.
    pub fn taken_over(mut self) {
        self.connection.open.observer.metrics.relays_taken.inc();
        self.relay.taken_over();
        self.go_on();
    }
}

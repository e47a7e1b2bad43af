//! A relay at rest, and what another process needs to go on with it.
//!
//! A relay comes to rest between two turns, on its own thread: then all that it knows is in its
//! fields, and all else in the kernel's two sockets. Both descriptors and a [`Frozen`] are therefore
//! the whole relay, and who has them goes on as if nothing had happened. What arrives meanwhile waits
//! in the kernel; a socket counts as ready when it is taken up again, so it is seen.
//!
//! The rule: between them, the two processes count each byte, each end and each line of the log
//! once. What was carried is counted before a relay rests; the line at its end tells of both.
//!
//! Only what is TCP on both sides can go: keys and counters of TLS, and streams of HTTP/2, stay.

use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::{NEXT_REQUEST_MAX, Protocol, Relay, Standing};
use crate::admission::Seat;
use crate::observe::{Account, Observer, Record};
use crate::relay::inbox::Id;
use crate::relay::lane::Lane;
use crate::relay::life::{Ages, Life, Limits};
use crate::relay::strays::Origin;
use crate::relay::timers::Tick;
use crate::relay::{Kind, registry};
use crate::socket::Transport;
use crate::upstream::Upstream;

/// A relay without its sockets, as plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    id: u64,
    client_address: IpAddr,
    up: Lane,
    down: Lane,
    client_ended: bool,
    protocol: Protocol,
    life: Ages,
    limits: Limits,
    origin: Origin,
    /// Where its server belongs to.
    pub home: Home,
    account: Account,
    /// Whether its client's connections are counted.
    pub has_seat: bool,
}

/// The server of a relay, and what its upstream does for relays: enough to go on where the next
/// configuration knows neither.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Home {
    /// Name of the upstream.
    pub upstream: String,
    /// Name of the server.
    pub server: String,
    /// Where the server listens.
    pub address: SocketAddr,
    /// What is said on idle event streams.
    pub comment: String,
    /// How long a client's connection may wait for its next request behind an event stream.
    pub keepalive: Duration,
}

/// What is no state that a relay can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a relay in a state that none can be in")]
pub struct Unsound;

impl Frozen {
    /// Whose it is, as far as trusted proxies tell.
    pub fn client_address(&self) -> IpAddr {
        self.client_address
    }

    /// What it carries.
    pub fn protocol(&self) -> &Protocol {
        &self.protocol
    }

    /// Whether this is a state that a relay can be in.
    ///
    /// # Errors
    /// [`Unsound`] when it is none: then it was not one of ours that wrote it.
    pub fn check(&self) -> Result<(), Unsound> {
        let is_sound = match (&self.protocol, self.account.kind) {
            (Protocol::Events(events, next), Kind::EventStream) => {
                events.is_sound() && next.as_ref().is_none_or(|next| next.len() <= NEXT_MAX)
            }
            (Protocol::WebSocket(websocket), Kind::WebSocket) => websocket.is_sound(),
            (Protocol::Unknown, Kind::Tunnel) => true,
            _ => false,
        };
        let is_sound = is_sound
            && self.limits.keepalive != Some(0)
            && self.account.age <= AGE_MAX
            && !self.home.comment.contains(['\r', '\n']);
        if is_sound { Ok(()) } else { Err(Unsound) }
    }
}

/// No relay is older: six years.
const AGE_MAX: Duration = Duration::from_millis(100 << 31);

/// What may stand of a next request: as much as is read on, and one read.
const NEXT_MAX: usize = NEXT_REQUEST_MAX + crate::relay::lane::READ_MAX;

impl Relay {
    /// Whether it could go on in another process.
    pub(super) fn can_pause(&self) -> bool {
        matches!((&self.client, &self.server), (Transport::Tcp(_), Transport::Tcp(_))) && !self.is_sought()
    }

    /// Comes to rest; `id` is its own.
    pub(super) fn pause(&mut self, id: Id) {
        self.count();
        self.place = Standing::Again(id);
        self.wakes_at = Tick::default();
    }

    /// What another process needs of it besides its sockets while it rests; `None` of one that has never
    /// run. To be asked on its own thread, whose clock it is.
    pub fn freeze(&self) -> Option<Frozen> {
        let Standing::Again(id) = self.place else { return None };
        let server = &self.upstream.servers[usize::from(self.record.server_index())];
        Some(Frozen {
            id: id.0,
            client_address: self.client_address,
            up: self.up.clone(),
            down: self.down.clone(),
            client_ended: self.client_ended,
            protocol: self.protocol.clone(),
            life: self.life.ages(registry::now()),
            limits: self.limits,
            origin: self.origin,
            home: Home {
                upstream: self.upstream.name.clone(),
                server: server.name.clone(),
                address: server.address,
                comment: self.upstream.sse.comment.clone(),
                keepalive: self.upstream.timeouts.keepalive,
            },
            account: self.record.account(),
            has_seat: self.record.has_seat(),
        })
    }

    /// Its sockets, the client's first, while it rests; `None` of one that cannot go.
    pub fn descriptors(&self) -> Option<[BorrowedFd<'_>; 2]> {
        let (Transport::Tcp(client), Transport::Tcp(server)) = (&self.client, &self.server) else { return None };
        Some([client.as_fd(), server.as_fd()])
    }

    /// It goes on in another process: here it only stops to count as open. Its sockets are closed and
    /// not shut down, so that its peers notice nothing.
    pub fn handed_over(mut self) {
        self.record.handed_over();
    }

    /// A relay that has come from another process as `frozen`, between `client` and `server`. It has
    /// this `place`, rests, and its end is told here once it is [taken over]. To be made on the thread
    /// on which it is to run.
    ///
    /// [taken over]: Relay::taken_over
    ///
    /// # Errors
    /// When one of the sockets cannot be waited for here.
    pub fn thaw(frozen: Frozen, sockets: [net::TcpStream; 2], place: NewHome) -> io::Result<Self> {
        let [client, server] = sockets;
        let NewHome { observer, upstream, server: index, seat } = place;
        Ok(Self {
            client: Transport::Tcp(TcpStream::from_std(client)?),
            server: Transport::Tcp(TcpStream::from_std(server)?),
            up: frozen.up,
            down: frozen.down,
            client_ended: frozen.client_ended,
            protocol: frozen.protocol,
            life: Life::aged(&frozen.life, registry::now()),
            limits: frozen.limits,
            origin: frozen.origin,
            place: Standing::Again(Id(frozen.id)),
            wakes_at: Tick::default(),
            client_address: frozen.client_address,
            record: Record::from_account(observer, frozen.account, upstream.clone(), index, seat),
            upstream,
        })
    }

    /// From now on it is this process that tells of its end.
    pub fn taken_over(&mut self) {
        self.record.taken_over();
    }
}

/// Where a relay that comes from another process belongs to.
#[derive(Debug)]
pub struct NewHome {
    /// What accounts for it.
    pub observer: Arc<Observer>,
    /// What its server belongs to.
    pub upstream: Arc<Upstream>,
    /// Which of the upstream's servers it is.
    pub server: u16,
    /// Its client's seat, if clients are counted.
    pub seat: Option<Box<Seat>>,
}

#[cfg(test)]
pub(crate) mod tests;

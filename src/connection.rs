//! One connection of a client: its requests one after the other, and what it turns into.

mod paused;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::admission::Ticket;
use crate::exchange::{Front, Next, exchange, resume, resumption, turn_away};
use crate::observe::Observer;
use crate::proxy_protocol::Ends;
use crate::relay::{Freed, Relay, Stopped};
use crate::service::{Service, stopped};
use crate::socket::Socket;

/// Serves what comes on `socket` until it closes.
pub fn serve(
    service: Arc<Service>,
    socket: Socket,
    previous_hop: IpAddr,
    open: Open,
) -> impl Future<Output = ()> + Send {
    let patience = service.front().request_head;
    let ends = socket.wire().passed_on().map(Box::new);
    requests(Connection { service, previous_hop, ends, open }, socket, patience)
}

pub use paused::{Arrival, Frozen, Paused, freeze_all};

/// What is known of a connection besides its socket.
#[derive(Debug)]
struct Connection {
    service: Arc<Service>,
    previous_hop: IpAddr,
    /// Whom a PROXY header has named.
    ends: Option<Box<Ends>>,
    open: Open,
}

impl Connection {
    /// Has `relay` run: in a task of its own, so that what exchanges need is freed with theirs. Not an
    /// async block: that would hold the relay twice, as captured and as awaited.
    fn relay(self, relay: Relay) {
        tokio::spawn(relay.run().map(|stopped| self.behind(stopped)));
    }

    /// Goes on with requests behind a relay that has left the connection as it was.
    fn behind(self, stopped: Stopped) {
        match stopped {
            Stopped::Ended => {}
            Stopped::Freed(Freed { client, patience }) => {
                let socket = Socket::from_parts(client);
                socket.wire().introduced(0, self.ends.as_deref().copied());
                tokio::spawn(requests(self, socket, patience));
            }
            Stopped::Paused(relay) => Paused::new(relay, self).collect(),
            Stopped::Interrupted(relay) => drop(tokio::spawn(self.resumed(relay))),
        }
    }

    /// Goes on with an event stream that has lost its server.
    async fn resumed(self, relay: Box<Relay>) {
        match resumption::resume(&self.service, *relay).await {
            Ok(relay) => self.relay(*relay),
            Err(stopped) => self.behind(*stopped),
        }
    }
}

/// Serves the requests that come on `socket` until it closes or stays for long. The first one may
/// take `patience` to come.
///
/// Between requests, and before the first one, it holds a socket and nothing else.
async fn requests(connection: Connection, mut socket: Socket, mut patience: Duration) {
    let Connection { service, previous_hop, open, .. } = &connection;
    let mut stopping = service.stopping();
    loop {
        tokio::select! {
            biased;
            begun = timeout(patience, socket.wire().read_ahead()) => match begun {
                Ok(Ok(true)) => {}
                Ok(Ok(false) | Err(_)) => return,
                Err(_) => return socket.wire().say_goodbye(),
            },
            () = stopped(&mut stopping) => return socket.wire().say_goodbye(),
        }
        match request(&service.front(), socket, *previous_hop, open.is_served()).await {
            Next::Close | Next::Parked(_) => return,
            Next::Request(same, keepalive) => (socket, patience) = (same, keepalive),
            Next::Relay(handover) => return connection.relay(Relay::new(*handover)),
        }
    }
}

/// Serves the one request that comes on `socket`, and what it turns into; `held` is dropped at the
/// end of that.
pub async fn serve_one<T: Send + 'static>(
    service: Arc<Service>,
    front: Arc<Front>,
    socket: Socket,
    previous_hop: IpAddr,
    is_served: bool,
    held: T,
) {
    if let Next::Relay(handover) = request(&front, socket, previous_hop, is_served).await {
        relay_one(service, Relay::new(*handover), held);
    }
}

fn relay_one<T: Send + 'static>(service: Arc<Service>, relay: Relay, held: T) {
    tokio::spawn(relay.run().map(move |stopped| {
        let Stopped::Interrupted(relay) = stopped else { return drop(held) };
        tokio::spawn(async move {
            if let Ok(relay) = resumption::resume(&service, *relay).await {
                relay_one(service, *relay, held);
            }
        });
    }));
}

/// Serves the request that has begun to come on `socket`, or tells its client to come later. What is
/// left is never [`Next::Parked`].
async fn request(front: &Arc<Front>, socket: Socket, previous_hop: IpAddr, is_served: bool) -> Next {
    let mut next = if is_served {
        Box::pin(exchange(front, socket, previous_hop)).await
    } else {
        Box::pin(turn_away(front, socket, previous_hop)).await
    };
    while let Next::Parked(mut parked) = next {
        let woken = parked.wait().await;
        next = Box::pin(resume(front, parked, woken, previous_hop)).await;
    }
    next
}

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Live {
    count: AtomicUsize,
    fewer: Notify,
}

impl Live {
    /// How many are open.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until one has closed.
    pub async fn fewer(&self) {
        self.fewer.notified().await;
    }
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub struct Open {
    observer: Arc<Observer>,
    live: Arc<Live>,
    ticket: Ticket,
}

impl Open {
    /// One more connection, which was let in by `ticket`.
    pub fn new(observer: Arc<Observer>, live: Arc<Live>, ticket: Ticket) -> Self {
        observer.metrics.client_connections.inc();
        live.count.fetch_add(1, Ordering::Relaxed);
        Self { observer, live, ticket }
    }

    /// Whether its requests are served, or only told to come later.
    pub fn is_served(&self) -> bool {
        self.ticket.is_served()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.observer.metrics.client_connections.dec();
        self.live.count.fetch_sub(1, Ordering::Relaxed);
        self.live.fewer.notify_one();
    }
}

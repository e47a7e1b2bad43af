//! A worker: a thread with its own runtime, its own sockets, connections to servers, and relays.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::posts::{Duty, Post};
use crate::config::Shutdown;
use crate::connection::{self, Live, Open};
use crate::relay::departures::{Began, Drain, DrainId, Whose};
use crate::relay::inbox::Inbox;
use crate::relay::{EndReason, Tick, registry};
use crate::service::{Service, stopped};
use crate::socket::{self, Transport};
use crate::upstream::Pool;

/// Where a worker is to accept connections.
#[derive(Debug)]
pub(super) struct Assignment {
    /// The address.
    pub(super) post: Arc<Post>,
    /// The worker's socket there.
    pub(super) socket: std::net::TcpListener,
}

/// Assignments that may wait for a worker: more addresses than anybody listens on.
pub(super) const ASSIGNMENTS_MAX: usize = 4096;

/// A runtime for one thread.
pub(super) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Starts the worker of this number, which accepts wherever it is assigned to.
pub(super) fn spawn(
    number: usize,
    service: Arc<Service>,
    live: Arc<Live>,
    assignments: mpsc::Receiver<Assignment>,
    inbox: Inbox,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        runtime.block_on(work(service, live, assignments, inbox));
        Pool::clear();
    })
}

/// One worker, from its first connection to the end of its last one or of the grace.
async fn work(service: Arc<Service>, live: Arc<Live>, mut assignments: mpsc::Receiver<Assignment>, inbox: Inbox) {
    tokio::spawn(keep_time());
    tokio::spawn(inbox.obey());
    let mut accepting = JoinSet::new();
    let mut stopping = service.stopping();
    loop {
        tokio::select! {
            Some(assignment) = assignments.recv() => drop(accepting.spawn(accept(assignment, service.clone(), live.clone()))),
            Some(ended) = accepting.join_next() => tell_of_panic(ended),
            () = stopped(&mut stopping) => break,
        }
    }
    while let Some(ended) = accepting.join_next().await {
        tell_of_panic(ended);
    }
    end(&service, &live).await;
}

fn tell_of_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!("accepting failed: {error}");
    }
}

/// Lets exchanges finish and has relays end, all within the grace.
async fn end(service: &Service, live: &Live) {
    let Shutdown { grace, spread } = service.front().shutdown;
    let until = Instant::now() + grace;
    // What is left then has some time to take leave, so that nothing has to be cut.
    let last_call = until - LAST_CALL.min(grace / 2);
    registry::end_within(grace.saturating_sub(2 * Tick::LENGTH));
    let spread = spread.min(last_call.saturating_duration_since(Instant::now()));
    let (id, whose, reason) = (DrainId(0), Whose::All, EndReason::Shutdown);
    registry::drain(Arc::new(Drain { id, whose, reason, spread, began: Began::AnyTime }));
    while live.count() > 0 {
        // Exchanges may still become relays.
        let changed = tokio::time::timeout(Tick::LENGTH, live.fewer());
        let _ = tokio::time::timeout_at(until.into(), changed).await;
        let now = Instant::now();
        if now >= last_call {
            registry::end_all(EndReason::Shutdown);
        }
        if now >= until {
            tracing::warn!("the grace of {grace:?} is over with {} connections left", live.count());
            return;
        }
    }
}

/// How long before the end of the grace no relay may wait for its moment any more.
const LAST_CALL: Duration = Duration::from_secs(6);

/// Lets time pass for this thread's relays, and sweeps its pool.
async fn keep_time() {
    const SWEEP_EVERY: Duration = Duration::from_secs(1);
    let mut ticks = tokio::time::interval(Tick::LENGTH);
    let mut swept = Instant::now();
    loop {
        ticks.tick().await;
        registry::tick();
        if swept.elapsed() >= SWEEP_EVERY {
            swept = Instant::now();
            Pool::sweep(swept);
        }
    }
}

/// Accepts connections for as long as that is the duty there.
async fn accept(Assignment { post, socket }: Assignment, service: Arc<Service>, live: Arc<Live>) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("a listener cannot be used: {error}"),
    };
    let mut duty = post.duty();
    let mut pause = PAUSE_MIN;
    loop {
        let now = *duty.borrow_and_update();
        match now {
            Duty::Accept => {}
            Duty::Pause => {
                let _ = duty.changed().await; // The post is ours as well, so somebody can say so.
                continue;
            }
            Duty::Leave => break,
            Duty::Yield => return,
        }
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((tcp, peer)) => {
                    pause = PAUSE_MIN;
                    begin(&post, tcp, peer, &service, &live);
                }
                Err(error) => {
                    service.observer.metrics.accept_failures.inc();
                    pause = wait_for_others(&error, pause).await;
                }
            },
            _ = duty.changed() => {}
        }
    }
    // What the kernel had accepted before we left has a client that believes to be connected.
    while let Some(Ok((tcp, peer))) = socket.accept().now_or_never() {
        begin(&post, tcp, peer, &service, &live);
    }
}

fn begin(post: &Post, tcp: TcpStream, peer: SocketAddr, service: &Arc<Service>, live: &Arc<Live>) {
    let Some(ticket) = service.front().admission.ticket() else {
        service.observer.metrics.connections_untold.inc();
        return;
    };
    let open = Open::new(service.observer.clone(), live.clone(), ticket);
    let (listener, service, socket) = (post.listener(), service.clone(), socket::Socket::new(Transport::Tcp(tcp)));
    if listener.is_plain() {
        tokio::spawn(connection::serve(service, socket, peer.ip(), open));
    } else {
        tokio::spawn(listener.arrive(service, socket, peer.ip(), open));
    }
}

/// The first and the longest pause when connections cannot be accepted.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Out of descriptors or memory, as a rule: others must end first, idle connections to servers at
/// once. Says so the first time, waits for `pause`, and returns how long to wait the next time.
async fn wait_for_others(error: &io::Error, pause: Duration) -> Duration {
    if pause == PAUSE_MIN {
        tracing::warn!("cannot accept connections: {error}; trying again until it works");
    }
    Pool::clear();
    tokio::time::sleep(pause).await;
    PAUSE_MAX.min(2 * pause)
}

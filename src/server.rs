//! Builds everything from a configuration and runs it: threads, listeners, signals, the end.
//!
//! Each worker thread has its own runtime, its own socket on every listener's address
//! (`SO_REUSEPORT`: the kernel spreads connections over them), its own pool of connections to
//! servers, and its own relays. Nothing in a connection's life crosses threads; what an operator
//! wants of a relay goes through the inbox of its worker.
//!
//! ```text
//! main thread   signals, admin              watch: stopping
//!   ├─ worker 0   accept ─ connection ─ exchange ─ relay
//!   └─ worker n   ...
//! ```

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin;
use crate::admission::{Admission, Descriptors};
use crate::affinity::tag::Secret;
use crate::config::{AffinitySource, Config, TcpKeepalive, Timeouts, Token};
use crate::connection::{self, Live, Open};
use crate::exchange::Front;
use crate::listener::{Listener, TlsError};
use crate::observe::Observer;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::relay::inbox::{Inbox, Workers};
use crate::relay::{EndReason, Tick, registry};
use crate::session_store::SessionStore;
use crate::socket::{self, Transport};
use crate::upstream::{Pool, Upstream};

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        error: io::Error,
    },
    /// TLS cannot work with what was configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The access log, a runtime or a thread.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A proxy that is bound and about to serve.
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// For each listener the sockets of all workers.
    listeners: Vec<Vec<std::net::TcpListener>>,
    admin: Option<std::net::TcpListener>,
}

impl Server {
    /// Binds every address of `config`, or none.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let bind = |address, count| {
            bind_shared(address, count, &config.tcp_keepalive).map_err(|error| StartError::Bind { address, error })
        };
        let workers = config.threads.get();
        let listeners = config.listeners.iter().map(|listener| bind(listener.bind, workers));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let admin = match &config.admin {
            Some(admin) => bind(admin.bind, 1)?.pop(),
            None => None,
        };
        Ok(Self { config, listeners, admin })
    }

    /// The addresses clients can connect to, in the order of the file, with the ports the kernel
    /// chose.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().filter_map(|sockets| sockets.first()).map(std::net::TcpListener::local_addr).collect()
    }

    /// Serves until SIGTERM or SIGINT, then until everything has ended or the grace is over.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be made, or the access log not be opened.
    pub fn run(self) -> Result<(), StartError> {
        let addresses = self.addresses()?;
        let (stop, stopping) = watch::channel(false);
        let metrics = Metrics::new();
        let log = AccessLog::open(&self.config.access_log, metrics.log_lines_lost.clone())?;
        let (log, writer) = log.map_or((None, None), |(log, writer)| (Some(log), Some(writer)));
        let observer = Arc::new(Observer::new(metrics, log));
        let front = Arc::new(front(&self.config, observer, stopping));
        tell_of_tls(&self.config);

        let grace = self.config.shutdown.grace;
        let (workers, inboxes) = Workers::new(self.config.threads.get());
        let listeners = self.config.listeners.iter();
        let listeners = listeners.map(|it| Listener::new(it, &front.observer.metrics).map(Arc::new));
        let listeners = listeners.collect::<Result<Vec<_>, _>>()?;
        let mut sockets: Vec<_> = self.listeners.into_iter().map(Vec::into_iter).collect();
        let threads = inboxes.into_iter().enumerate().map(|(worker, inbox)| {
            let sockets = listeners.iter().cloned().zip(sockets.iter_mut().filter_map(Iterator::next)).collect();
            spawn_worker(worker, front.clone(), sockets, inbox, grace)
        });
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        for address in addresses {
            tracing::info!("listening on {address}");
        }
        let runtime = runtime()?;
        let token = self.config.admin.as_ref().and_then(|admin| admin.token.clone());
        let admin = self.admin.map(|socket| (socket, token));
        let end = runtime.block_on(watch_over(&front, admin, &stop, workers, threads));
        // Not dropped: that would wait for the workers, of whom the operator may have had enough.
        runtime.shutdown_background();
        if end? == End::Graceful
            && let Some(writer) = writer
        {
            drop(front);
            writer.join();
        }
        tracing::info!("stopped");
        Ok(())
    }
}

fn front(config: &Config, observer: Arc<Observer>, stopping: watch::Receiver<bool>) -> Front {
    let secret = config.affinity_secret.clone().unwrap_or_else(|| secret_of_this_process(config));
    let longest = |of: fn(&Timeouts) -> Duration| {
        config.upstreams.iter().map(|upstream| of(&upstream.timeouts)).max().unwrap_or_default()
    };
    Front {
        routes: config.routes.clone(),
        upstreams: Upstream::all(config, &secret, &observer.metrics),
        secret,
        sessions: SessionStore::new(&config.session_store, &observer.metrics),
        trusted: config.trusted_proxies.clone(),
        client_ip: config.client_ip.clone(),
        limits: config.limits,
        admission: Arc::new(admission(config)),
        request_head: longest(|timeouts| timeouts.request_head),
        keepalive: longest(|timeouts| timeouts.keepalive),
        send: longest(|timeouts| timeouts.send),
        tcp_keepalive: config.tcp_keepalive,
        observer,
        stopping,
    }
}

/// What should be known of how servers are spoken to.
fn tell_of_tls(config: &Config) {
    let encrypted = config.upstreams.iter().filter_map(|upstream| Some((&upstream.name, upstream.tls.as_ref()?)));
    for (name, tls) in encrypted {
        if !tls.is_verified {
            tracing::warn!("upstream {name}: tls.verify is off: whoever answers there is taken for its server");
        }
        for concern in tls.certificate.iter().flat_map(|it| it.concerns(OffsetDateTime::now_utc())) {
            tracing::warn!("upstream {name}: {concern}");
        }
    }
}

fn admission(config: &Config) -> Admission {
    // Where the system does not tell, nothing is kept in reserve.
    let max = rlimit::Resource::NOFILE.get_soft().map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    let descriptors = Descriptors { max, threads: config.threads.get(), listeners: config.listeners.len() };
    let admission = Admission::new(&config.limits, descriptors);
    let served = admission.max();
    match config.limits.max_connections {
        Some(wanted) if wanted > served => {
            tracing::warn!("limits.max_connections is {wanted}, but {max} open files are enough for {served}");
        }
        _ => tracing::info!("up to {served} connections of clients, with {max} open files"),
    }
    admission
}

/// Good for one proxy that is never restarted; the operator is told.
fn secret_of_this_process(config: &Config) -> Secret {
    let needs_secret =
        |source: &AffinitySource| matches!(source, AffinitySource::EngineIo | AffinitySource::StickyCookie(_));
    let is_needed = config.upstreams.iter().any(|upstream| upstream.affinity.iter().any(needs_secret));
    if is_needed {
        tracing::warn!(
            "affinity_secret_file is not set: sessions stay whole through this process alone; \
             several proxies, or one that is restarted, need the same file"
        );
    }
    let bytes: [u64; 4] = std::array::from_fn(|_| RandomState::new().build_hasher().finish());
    Secret::new(&bytes.map(u64::to_le_bytes).concat())
}

/// What the main thread does: serves the admin address, waits for a signal, then for the workers.
async fn watch_over(
    front: &Arc<Front>,
    admin: Option<(std::net::TcpListener, Option<Token>)>,
    stop: &watch::Sender<bool>,
    workers: Workers,
    threads: Vec<JoinHandle<()>>,
) -> io::Result<End> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if let Some((admin, token)) = admin {
        tracing::info!("admin on {}", admin.local_addr()?);
        tokio::spawn(admin::serve(TcpListener::from_std(admin)?, token, front.clone(), workers));
    }
    tracing::info!("ready");
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    tracing::info!("{name}: stopping; no new connections, what is under way may finish");
    stop.send_replace(true);
    // The admin address answers until the last worker is done.
    let joined = tokio::task::spawn_blocking(move || threads.into_iter().map(JoinHandle::join).any(|end| end.is_err()));
    tokio::select! {
        joined = joined => {
            if joined.unwrap_or(true) {
                tracing::error!("a worker panicked");
            }
            return Ok(End::Graceful);
        }
        _ = interrupt.recv() => tracing::warn!("SIGINT again: stopping at once"),
        _ = terminate.recv() => tracing::warn!("SIGTERM again: stopping at once"),
    }
    Ok(End::AtOnce)
}

/// How the process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Every worker has ended by itself.
    Graceful,
    /// The operator asked a second time.
    AtOnce,
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The sockets of one worker, each with the listener that it belongs to.
type Sockets = Vec<(Arc<Listener>, std::net::TcpListener)>;

fn spawn_worker(
    worker: usize,
    front: Arc<Front>,
    sockets: Sockets,
    inbox: Inbox,
    grace: Duration,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime()?;
    std::thread::Builder::new().name(format!("worker-{worker}")).spawn(move || {
        runtime.block_on(work(front, sockets, inbox, grace));
        Pool::clear();
    })
}

/// One worker, from its first connection to the end of its last one or of the grace.
async fn work(front: Arc<Front>, sockets: Sockets, inbox: Inbox, grace: Duration) {
    tokio::spawn(keep_time());
    tokio::spawn(inbox.obey());
    let live = Arc::new(Live::default());
    let accepting = sockets
        .into_iter()
        .map(|(listener, socket)| tokio::spawn(accept(listener, socket, front.clone(), live.clone())));
    for accepting in accepting.collect::<Vec<_>>() {
        if let Err(error) = accepting.await {
            tracing::error!("accepting failed: {error}");
        }
    }
    let until = Instant::now() + grace;
    // Relays end before the grace does, so that none has to be cut.
    let end_relays = || {
        let left = until.saturating_duration_since(Instant::now());
        registry::end_all(EndReason::Shutdown, left.saturating_sub(2 * Tick::LENGTH));
    };
    end_relays();
    while live.count() > 0 {
        // Exchanges may still become relays.
        let changed = tokio::time::timeout(Tick::LENGTH, live.fewer());
        let _ = tokio::time::timeout_at(until.into(), changed).await;
        end_relays();
        if Instant::now() >= until {
            tracing::warn!("the grace of {grace:?} is over with {} connections left", live.count());
            return;
        }
    }
}

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

/// Accepts connections until the process is stopping.
async fn accept(listener: Arc<Listener>, socket: std::net::TcpListener, front: Arc<Front>, live: Arc<Live>) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("a listener cannot be used: {error}"),
    };
    let mut stopping = front.stopping.clone();
    let mut pause = PAUSE_MIN;
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((tcp, peer)) => {
                    pause = PAUSE_MIN;
                    begin(&listener, tcp, peer, &front, &live);
                }
                Err(error) => {
                    front.observer.metrics.accept_failures.inc();
                    pause = wait_for_others(&error, pause).await;
                }
            },
            () = connection::stopped(&mut stopping) => break,
        }
    }
    // What the kernel had accepted before we stopped has a client that believes to be connected.
    while let Some(Ok((tcp, peer))) = futures_util::FutureExt::now_or_never(socket.accept()) {
        begin(&listener, tcp, peer, &front, &live);
    }
}

fn begin(listener: &Arc<Listener>, tcp: TcpStream, peer: SocketAddr, front: &Arc<Front>, live: &Arc<Live>) {
    let Some(ticket) = front.admission.ticket() else {
        front.observer.metrics.connections_untold.inc();
        return;
    };
    let open = Open::new(front.observer.clone(), live.clone(), ticket);
    let (front, socket) = (front.clone(), socket::Socket::new(Transport::Tcp(tcp)));
    if listener.is_plain() {
        tokio::spawn(connection::serve(front, socket, peer.ip(), open));
    } else {
        tokio::spawn(listener.clone().arrive(front, socket, peer.ip(), open));
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

/// `count` sockets that listen on one address together.
fn bind_shared(address: SocketAddr, count: usize, keepalive: &TcpKeepalive) -> io::Result<Vec<std::net::TcpListener>> {
    // With SO_REUSEPORT alone, a second process of the same user would quietly take half of our
    // connections. One socket without it finds out whether the address is taken.
    let address = listen(address, false, keepalive)?.local_addr()?;
    (0..count).map(|_| listen(address, true, keepalive)).collect()
}

fn listen(address: SocketAddr, is_shared: bool, keepalive: &TcpKeepalive) -> io::Result<std::net::TcpListener> {
    const BACKLOG: i32 = 4096;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    // Accepted sockets inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&socket::keepalive(keepalive))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // As nginx does: `0.0.0.0` may stand beside `[::]`.
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

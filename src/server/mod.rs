//! Builds everything from a configuration and runs it: threads, listeners, signals, the end.
//!
//! Each worker thread has its own runtime, its own socket on every listener's address
//! (`SO_REUSEPORT`: the kernel spreads connections over them), its own pool of connections to
//! servers, and its own relays. Nothing in a connection's life crosses threads; what an operator
//! wants of a relay goes through the inbox of its worker.
//!
//! ```text
//! main thread   control: signals, commands, admin      watch: stopping
//!   │             ├─ assembly: a configuration to what serves by it
//!   │             └─ succession: the process before, and the one behind
//!   ├─ worker 0   posts: accept ─ connection ─ exchange ─ relay
//!   └─ worker n   ...
//! ```

mod assembly;
mod control;
mod drains;
mod manager;
mod notes;
mod posts;
mod rebalance;
mod sockets;
mod succession;
mod upkeep;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::admin::Admin;
use crate::command::Desk;
use crate::config::Config;
use crate::connection::Live;
use crate::handover::new::Offer;
use crate::handover::{Broken, Purpose, Socket};
use crate::listener::TlsError;
use crate::observe::Observer;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::observe::traces::Tracer;
use crate::relay::inbox::Workers;
use crate::service::Service;

use assembly::Assembly;
use control::{Control, End};
use drains::Drains;
use manager::Manager;
use posts::Post;
use rebalance::Rebalancer;
pub use succession::Address;
use succession::{Door, Program};
use upkeep::Upkeep;

/// Why the proxy could not start, or not change.
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
    /// The next process cannot ask where it should.
    #[error("cannot wait for the next process at {path}: {error}")]
    Door {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The process before this one cannot be asked.
    #[error("cannot ask at {address} for connections to take over: {error}")]
    Ask {
        /// Where.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// The process before this one keeps what it has.
    #[error("nothing is handed over: {0}")]
    HandOver(#[from] Broken),
    /// TLS cannot work with what was configured.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The access log, traces, a runtime or a thread.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A proxy that is bound and about to serve.
#[derive(Debug)]
pub struct Server {
    config: Config,
    file: Option<PathBuf>,
    bound: Bound,
    /// What the process before this one offers.
    offer: Option<Offer>,
    runtime: Runtime,
}

/// All that is listened on.
#[derive(Debug)]
struct Bound {
    metrics: Metrics,
    posts: Vec<Arc<Post>>,
    admin: Option<std::net::TcpListener>,
    door: Option<Door>,
}

impl Server {
    /// Binds every address of `config`, or none. It comes from `file`, which is read again when
    /// somebody asks for that.
    ///
    /// # Errors
    /// The first address that cannot be bound, or what TLS cannot work with.
    pub fn bind(config: Config, file: Option<PathBuf>) -> Result<Self, StartError> {
        let runtime = worker::runtime()?;
        let bound = Bound::new(&config, &runtime, &mut Vec::new())?;
        Ok(Self { config, file, bound, offer: None, runtime })
    }

    /// The same in the place of the process that is to be asked at `address`: what it listens on is not
    /// bound again, and [`Server::run`] begins with its connections.
    ///
    /// # Errors
    /// Likewise, or why that process hands nothing over. It goes on as if nothing had happened.
    pub fn take_over(config: Config, file: Option<PathBuf>, address: &Address) -> Result<Self, StartError> {
        let runtime = worker::runtime()?;
        let mut offer = runtime.block_on(succession::ask(address))?;
        let mut sockets = std::mem::take(&mut offer.sockets);
        match Bound::new(&config, &runtime, &mut sockets) {
            Ok(bound) => Ok(Self { config, file, bound, offer: Some(offer), runtime }),
            Err(error) => {
                runtime.block_on(offer.decline(error.to_string()));
                Err(error)
            }
        }
    }

    /// The addresses clients can connect to, in the order of the file, with the ports the kernel
    /// chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.bound.posts.iter().map(|post| post.address).collect()
    }

    /// The address that operators can connect to, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.bound.admin.as_ref().and_then(|admin| admin.local_addr().ok())
    }

    /// Serves until SIGTERM or SIGINT, or until the next process takes over, then until everything has
    /// ended or the grace is over.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be made, or the access log not be opened; or when the process
    /// before this one goes on after all.
    pub fn run(self) -> Result<(), StartError> {
        let Self { config, file, bound, mut offer, runtime } = self;
        let Bound { metrics, posts, admin: admin_socket, door } = bound;
        let (stop, stopping) = watch::channel(false);
        let log = AccessLog::open(&config.access_log, metrics.log_lines_lost.clone())?;
        let (log, writer) = log.map_or((None, None), |(log, writer)| (Some(log), Some(writer)));
        let traces = config.traces.as_ref().map(|traces| Tracer::open(traces, metrics.spans())).transpose()?;
        let (tracer, exporter) = traces.unzip();
        let assembly = Assembly::new(&config, Arc::new(Observer::new(metrics, log)), stopping);
        assembly.observer.tracer.store(tracer.map(Arc::new));
        if let Some(offer) = &mut offer {
            assembly.inherit(std::mem::take(&mut offer.knowledge));
        }
        let drains = assembly.observer.metrics.drains.clone();
        let mut upkeep = runtime.block_on(Upkeep::begin(&config, &assembly.servers, &assembly.observer.metrics));
        let service = Arc::new(Service::new(Arc::new(assembly.front(&config, &upkeep.findings(), None))));

        let (workers, inboxes) = Workers::new(config.threads.get());
        let lives: Vec<_> = inboxes.iter().map(|_| Arc::new(Live::default())).collect();
        let (crew, assignments): (Vec<_>, Vec<_>) =
            inboxes.iter().map(|_| mpsc::channel(worker::ASSIGNMENTS_MAX)).unzip();
        let threads = inboxes.into_iter().zip(assignments).enumerate();
        let threads = threads.map(|(number, (inbox, assignments))| {
            worker::spawn(number, service.clone(), lives[number].clone(), assignments, inbox)
        });
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        let (desk, commands) = Desk::new();
        let board = desk.board.clone();
        let token = config.admin.as_ref().and_then(|admin| admin.token.clone());
        let workers = Arc::new(workers);
        let admin = Arc::new(Admin::new(service.clone(), workers.clone(), desk, token));
        let mut control = Control {
            config,
            file,
            assembly,
            service,
            upkeep,
            posts,
            crew,
            workers,
            drains: Drains::new(board.clone(), drains),
            rebalancer: Rebalancer::new(board),
            admin,
            admin_task: None,
            admin_socket: None,
            door,
            program: Program::of_this_process(),
            manager: Manager::of_this_process(),
            log: writer,
            exporter,
            stop,
        };
        let end = runtime.block_on(async {
            control.upkeep.look_after(&control.service.front().upstreams);
            if let Some(offer) = offer {
                control.take_over(offer, lives).await?;
            }
            control.tell_admin();
            control.door.iter_mut().for_each(Door::hang);
            control.posts.iter().for_each(|post| control.assign(post));
            if let Some(socket) = admin_socket {
                control.listen_for_admin(socket)?;
            }
            Ok::<_, StartError>(control.run(commands, threads).await?)
        });
        // Not dropped: that would wait for the workers, of whom the operator may have had enough.
        runtime.shutdown_background();
        if end? == End::Graceful {
            let observer = &control.assembly.observer;
            observer.access_log.store(None);
            observer.tracer.store(None);
            if let Some(writer) = control.log.take() {
                writer.join();
            }
            if let Some(exporter) = control.exporter.take() {
                exporter.join();
            }
        }
        tracing::info!("stopped");
        Ok(())
    }
}

impl Bound {
    /// Takes of `sockets`, which another process listens on, those that `config` has, and binds the rest.
    fn new(config: &Config, runtime: &Runtime, sockets: &mut Vec<(Socket, OwnedFd)>) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        let workers = config.threads.get();
        let mut inherited = |address, purpose| {
            let of = Socket { address, purpose };
            let sockets: Vec<_> = sockets.extract_if(.., |(socket, _)| *socket == of).collect();
            sockets.into_iter().map(|(_, socket)| socket.into()).collect::<Vec<std::net::TcpListener>>()
        };
        let mut posts = Vec::new();
        for listener in &config.listeners {
            let sockets = inherited(listener.bind, Purpose::Clients);
            posts.push(Arc::new(if sockets.is_empty() {
                Post::bind(listener, workers, &config.tcp_keepalive, &metrics)?
            } else {
                Post::inherit(listener, sockets, &config.tcp_keepalive, &metrics)?
            }));
        }
        let admin = match config.admin.as_ref().map(|admin| admin.bind) {
            Some(address) => match inherited(address, Purpose::Admin).pop() {
                Some(socket) => Some(socket),
                None => Some(control::bind_admin(address, config)?),
            },
            None => None,
        };
        let door = {
            let _guard = runtime.enter();
            config.hand_over.as_deref().map(Door::make).transpose()?
        };
        Ok(Self { metrics, posts, admin, door })
    }
}

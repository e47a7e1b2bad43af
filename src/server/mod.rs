//! Builds everything from a configuration and runs it: threads, listeners, signals, the end.
//!
//! Each worker thread has its own runtime, its own socket on every listener's address
//! (`SO_REUSEPORT`: the kernel spreads connections over them), its own pool of connections to
//! servers, and its own relays. Nothing in a connection's life crosses threads; what an operator
//! wants of a relay goes through the inbox of its worker.
//!
//! ```text
//! main thread   control: signals, commands, admin      watch: stopping
//!   │             └─ assembly: a configuration to what serves by it
//!   ├─ worker 0   posts: accept ─ connection ─ exchange ─ relay
//!   └─ worker n   ...
//! ```

mod assembly;
mod control;
mod drains;
mod posts;
mod rebalance;
mod sockets;
mod upkeep;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::admin::Admin;
use crate::command::Desk;
use crate::config::Config;
use crate::listener::TlsError;
use crate::observe::Observer;
use crate::observe::access_log::AccessLog;
use crate::observe::metrics::Metrics;
use crate::relay::inbox::Workers;
use crate::service::Service;

use assembly::Assembly;
use control::{Control, End};
use drains::Drains;
use posts::Post;
use rebalance::Rebalancer;
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
    file: Option<PathBuf>,
    metrics: Metrics,
    posts: Vec<Arc<Post>>,
    admin: Option<std::net::TcpListener>,
}

impl Server {
    /// Binds every address of `config`, or none. It comes from `file`, which is read again when
    /// somebody asks for that.
    ///
    /// # Errors
    /// The first address that cannot be bound, or what TLS cannot work with.
    pub fn bind(config: Config, file: Option<PathBuf>) -> Result<Self, StartError> {
        let metrics = Metrics::new();
        let workers = config.threads.get();
        let post = |listener| Post::bind(listener, workers, &config.tcp_keepalive, &metrics).map(Arc::new);
        let posts = config.listeners.iter().map(post).collect::<Result<Vec<_>, _>>()?;
        let admin = config.admin.as_ref().map(|admin| control::bind_admin(admin.bind, &config)).transpose()?;
        Ok(Self { config, file, metrics, posts, admin })
    }

    /// The addresses clients can connect to, in the order of the file, with the ports the kernel
    /// chose.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.posts.iter().map(|post| post.address).collect()
    }

    /// Serves until SIGTERM or SIGINT, then until everything has ended or the grace is over.
    ///
    /// # Errors
    /// When a thread or a runtime cannot be made, or the access log not be opened.
    pub fn run(self) -> Result<(), StartError> {
        let Self { config, file, metrics, posts, admin: admin_socket } = self;
        let (stop, stopping) = watch::channel(false);
        let log = AccessLog::open(&config.access_log, metrics.log_lines_lost.clone())?;
        let (log, writer) = log.map_or((None, None), |(log, writer)| (Some(log), Some(writer)));
        let assembly = Assembly::new(&config, Arc::new(Observer::new(metrics, log)), stopping);
        let runtime = worker::runtime()?;
        let mut upkeep = runtime.block_on(Upkeep::begin(&config, &assembly.servers, &assembly.observer.metrics));
        let service = Arc::new(Service::new(Arc::new(assembly.front(&config, &upkeep.findings(), None))));

        let (workers, inboxes) = Workers::new(config.threads.get());
        let (crew, assignments): (Vec<_>, Vec<_>) = inboxes.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let threads = inboxes.into_iter().zip(assignments).enumerate();
        let threads =
            threads.map(|(number, (inbox, assignments))| worker::spawn(number, service.clone(), assignments, inbox));
        let threads = threads.collect::<io::Result<Vec<_>>>()?;
        let (desk, commands) = Desk::new();
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
            drains: Drains::default(),
            rebalancer: Rebalancer::default(),
            admin,
            admin_task: None,
            log: writer,
            stop,
        };
        let end = runtime.block_on(async {
            control.upkeep.look_after(&control.service.front().upstreams);
            control.posts.iter().for_each(|post| control.assign(post));
            if let Some(socket) = admin_socket {
                control.listen_for_admin(socket)?;
            }
            control.run(commands, threads).await
        });
        // Not dropped: that would wait for the workers, of whom the operator may have had enough.
        runtime.shutdown_background();
        if end? == End::Graceful
            && let Some(writer) = control.log.take()
        {
            control.assembly.observer.access_log.store(None);
            writer.join();
        }
        tracing::info!("stopped");
        Ok(())
    }
}

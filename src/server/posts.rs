//! The addresses that clients connect to, while the configuration changes around them.
//!
//! A post is an address for as long as it is in the configuration. What is spoken there may change
//! under it, certificates for one; then whoever is connected already keeps what it found. The rule:
//! a connection that the kernel has taken in is served, also at a post that is given up.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use arc_swap::ArcSwap;
use socket2::SockRef;
use tokio::sync::watch;

use super::StartError;
use super::sockets::bind_shared;
use crate::config::{self, TcpKeepalive};
use crate::listener::Listener;
use crate::observe::metrics::Metrics;
use crate::socket;

/// One address.
#[derive(Debug)]
pub(super) struct Post {
    /// As it stands in the file.
    pub(super) bind: SocketAddr,
    /// With the port that the kernel chose.
    pub(super) address: SocketAddr,
    listener: ArcSwap<Listener>,
    /// One for each worker, which has a copy of its own; more where the process before had more workers.
    sockets: Vec<TcpListener>,
    duty: watch::Sender<Duty>,
}

/// What is to be done at a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Connections are accepted.
    Accept,
    /// They wait with the kernel.
    Pause,
    /// Those that wait are accepted, and then no more.
    Leave,
    /// No more is accepted: somebody else does it from now on, those that wait included.
    Yield,
}

impl Post {
    /// Binds the address of `config` for `workers`.
    pub(super) fn bind(
        config: &config::Listener,
        workers: usize,
        keepalive: &TcpKeepalive,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let sockets = bind_shared(config.bind, workers, keepalive);
        Self::new(config, sockets.map_err(|error| StartError::Bind { address: config.bind, error })?, metrics)
    }

    /// Takes the address of `config` over from another process, whose `sockets` these are.
    pub(super) fn inherit(
        config: &config::Listener,
        sockets: Vec<TcpListener>,
        keepalive: &TcpKeepalive,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let post = Self::new(config, sockets, metrics)?;
        post.keep_alive(keepalive);
        Ok(post)
    }

    fn new(config: &config::Listener, sockets: Vec<TcpListener>, metrics: &Metrics) -> Result<Self, StartError> {
        let failed = |error| StartError::Bind { address: config.bind, error };
        let listener = Listener::new(config, metrics)?;
        let address = sockets.first().map_or(Ok(config.bind), TcpListener::local_addr).map_err(failed)?;
        let (duty, _) = watch::channel(Duty::Accept);
        Ok(Self { bind: config.bind, address, listener: ArcSwap::from_pointee(listener), sockets, duty })
    }

    /// Whether it is at the address of `config`.
    pub(super) fn is_at(&self, config: &config::Listener) -> bool {
        self.bind == config.bind
    }

    /// What is spoken there now.
    pub(super) fn listener(&self) -> Arc<Listener> {
        self.listener.load_full()
    }

    /// Has `listener` spoken from now on, as `config` has it.
    pub(super) fn replace(&self, listener: Listener, config: &config::Listener, keepalive: &TcpKeepalive) {
        self.keep_alive(keepalive);
        listener.succeed(&self.listener(), config);
        self.listener.store(Arc::new(listener));
    }

    fn keep_alive(&self, keepalive: &TcpKeepalive) {
        for socket in &self.sockets {
            // Which cannot fail for a socket that has it already; if it does, connections have the old one.
            let _ = SockRef::from(socket).set_tcp_keepalive(&socket::keepalive(keepalive));
        }
    }

    /// Its sockets.
    pub(super) fn sockets(&self) -> &[TcpListener] {
        &self.sockets
    }

    /// A copy of each socket, and whose of so many `workers` it is. Each socket has a worker: what the
    /// kernel puts into its queue must be taken out. Each worker has a socket, if need be with another one.
    pub(super) fn copies(&self, workers: usize) -> impl Iterator<Item = (usize, io::Result<TcpListener>)> {
        let count = self.sockets.len();
        (0..workers.max(count)).map(move |nth| (nth % workers, self.sockets[nth % count].try_clone()))
    }

    /// What is to be done there, and when that changes.
    pub(super) fn duty(&self) -> watch::Receiver<Duty> {
        self.duty.subscribe()
    }

    /// Says what is to be done.
    pub(super) fn order(&self, duty: Duty) {
        self.duty.send_replace(duty);
    }
}

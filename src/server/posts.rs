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
    bind: SocketAddr,
    /// With the port that the kernel chose.
    pub(super) address: SocketAddr,
    listener: ArcSwap<Listener>,
    /// One for each worker, which has a copy of its own.
    sockets: Vec<TcpListener>,
    duty: watch::Sender<Duty>,
}

/// What is to be done at a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Connections are accepted.
    Accept,
    /// They wait with the kernel.
    #[expect(dead_code, reason = "a hand-over orders it, and comes next")]
    Pause,
    /// Those that wait are accepted, and then no more.
    Leave,
    /// No more is accepted: somebody else does it from now on, those that wait included.
    #[expect(dead_code, reason = "a hand-over orders it, and comes next")]
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
        let failed = |error| StartError::Bind { address: config.bind, error };
        let listener = Listener::new(config, metrics)?;
        let sockets = bind_shared(config.bind, workers, keepalive).map_err(failed)?;
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

    /// Has `listener` spoken from now on.
    pub(super) fn replace(&self, listener: Listener, keepalive: &TcpKeepalive) {
        for socket in &self.sockets {
            // Which cannot fail for a socket that has it already; if it does, connections have the old one.
            let _ = SockRef::from(socket).set_tcp_keepalive(&socket::keepalive(keepalive));
        }
        self.listener.store(Arc::new(listener));
    }

    /// A copy of the socket of `worker`.
    pub(super) fn socket(&self, worker: usize) -> io::Result<TcpListener> {
        self.sockets[worker % self.sockets.len()].try_clone()
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

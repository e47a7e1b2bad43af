//! One server, and all of them: who is the same server as before, whatever the configuration says
//! today.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use ahash::AHashMap;

use super::leaving::Leaving;
use crate::balance::{Candidate, WARM};
use crate::config::{self, State};
use crate::observe::metrics::{Metrics, ServerMetrics};
use crate::relay::Kind;

/// One server.
#[derive(Debug)]
pub struct Server {
    /// Names it among all servers of the process, for the pool.
    pub id: ServerId,
    /// Its name in logs and metrics.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The address as text.
    pub authority: String,
    /// What its connections count with.
    pub metrics: ServerMetrics,
    weight: AtomicU32,
    /// The [`State`] in the file, as its discriminant.
    state: AtomicU8,
    /// That which the operator has put in its place; [`NO_STATE`] if none.
    ordered: AtomicU8,
    /// How its sessions leave it, while it is drained.
    leaving: Mutex<Option<Leaving>>,
    open: AtomicUsize,
    /// Whether the last try to connect failed: so that the log says it once.
    is_failing: AtomicBool,
}

/// No [`State`]'s discriminant.
const NO_STATE: u8 = u8::MAX;

/// Names a server among all of the process, also of those that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId(usize);

/// The servers that there are for the process: those in force, and those that still have relays.
///
/// A server is the same one as long as upstream, name and address are. So one that leaves and comes
/// back while somebody is still connected to it comes back with these connections.
#[derive(Debug, Default)]
pub struct Servers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    next_id: usize,
    servers: AHashMap<(String, String, SocketAddr), Weak<Server>>,
}

impl Servers {
    /// The server of `upstream` that `config` describes, with the weight and the state that it has
    /// there.
    pub fn server(&self, upstream: &str, config: &config::Server, metrics: &Metrics) -> Arc<Server> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (upstream.to_owned(), config.name.clone(), config.address);
        if let Some(server) = known.servers.get(&key).and_then(Weak::upgrade) {
            server.weight.store(config.weight, Ordering::Relaxed);
            server.state.store(config.state as u8, Ordering::Relaxed);
            return server;
        }
        known.servers.retain(|_, server| server.strong_count() > 0);
        let id = ServerId(known.next_id);
        known.next_id += 1;
        let server = Arc::new(Server::new(config, id, upstream, metrics));
        known.servers.insert(key, Arc::downgrade(&server));
        server
    }
}

#[cfg(test)]
impl Servers {
    /// Some ids, for tests of others.
    pub fn ids(count: usize) -> Vec<ServerId> {
        (0..count).map(ServerId).collect()
    }
}

impl Server {
    fn new(config: &config::Server, id: ServerId, upstream: &str, metrics: &Metrics) -> Self {
        Self {
            id,
            name: config.name.clone(),
            address: config.address,
            authority: config.address.to_string(),
            metrics: metrics.server(upstream, &config.name),
            weight: AtomicU32::new(config.weight),
            state: AtomicU8::new(config.state as u8),
            ordered: AtomicU8::new(NO_STATE),
            leaving: Mutex::default(),
            open: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
        }
    }

    /// What balancing needs to know of it.
    pub fn candidate(&self) -> Candidate {
        Candidate {
            weight: self.weight.load(Ordering::Relaxed),
            open: self.connections(),
            is_up: true,
            warmth: WARM,
            state: self.state(),
        }
    }

    /// What it may get at this moment.
    pub fn state(&self) -> State {
        self.ordered_state().unwrap_or(State::ALL[usize::from(self.state.load(Ordering::Relaxed))])
    }

    /// The state that the operator has put in the place of that in the file.
    pub fn ordered_state(&self) -> Option<State> {
        State::ALL.get(usize::from(self.ordered.load(Ordering::Relaxed))).copied()
    }

    /// Puts `state` in the place of that in the file, whatever that says from now on; `None`: the
    /// file counts again. Whoever had to leave stays.
    pub fn order(&self, state: Option<State>) {
        *self.leaving() = None;
        self.ordered.store(state.map_or(NO_STATE, |state| state as u8), Ordering::Relaxed);
    }

    /// Nobody new comes from now on, and its sessions leave it.
    pub fn leave(&self, leaving: Leaving) {
        self.order(Some(State::Drain));
        *self.leaving() = Some(leaving);
    }

    /// Whether its sessions leave it.
    pub fn is_leaving(&self) -> bool {
        self.state() == State::Drain && self.leaving().is_some()
    }

    /// Whether the session that `name` hashes is to be at another server by `now`.
    pub fn is_left(&self, name: u64, now: Instant) -> bool {
        self.state() == State::Drain && self.leaving().is_some_and(|leaving| leaving.is_gone(name, now))
    }

    fn leaving(&self) -> MutexGuard<'_, Option<Leaving>> {
        // There is nothing that could be half done.
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its exchanges and relays of every kind.
    pub fn connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether the last try to connect to it failed.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// A connection to it was made.
    pub fn connected(&self, upstream: &str) {
        if self.is_failing() && self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!("upstream {upstream}: server {} can be reached again", self.name);
        }
    }

    /// A connection to it could not be made.
    pub fn failed(&self, upstream: &str, error: &io::Error) {
        self.metrics.connect_failures.inc();
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            let Self { name, address, .. } = self;
            tracing::warn!(
                "upstream {upstream}: cannot connect to server {name} at {address}: {error}; its clients go to the others"
            );
        }
    }

    /// One more exchange or relay of `kind` holds a connection.
    pub fn open(&self, kind: Kind) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.metrics.open(kind).inc();
    }

    /// One less.
    pub fn close(&self, kind: Kind) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.metrics.open(kind).dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, port: u16) -> config::Server {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        config::Server { name: name.into(), address, weight: 1, state: State::Ready }
    }

    #[test]
    fn a_server_is_the_same_while_anybody_knows_it() {
        let (servers, metrics) = (Servers::default(), Metrics::new());
        let first = servers.server("chat", &config("a", 1), &metrics);
        first.open(Kind::WebSocket);
        let changed = config::Server { weight: 3, state: State::Drain, ..config("a", 1) };
        let again = servers.server("chat", &changed, &metrics);
        assert!(Arc::ptr_eq(&first, &again));
        let candidate = first.candidate();
        assert_eq!((candidate.weight, candidate.state, candidate.open), (3, State::Drain, 1));
        for (upstream, other) in [("chat", config("a", 2)), ("chat", config("b", 1)), ("other", config("a", 1))] {
            assert_ne!(servers.server(upstream, &other, &metrics).id, first.id, "{upstream} {other:?}");
        }
        let id = first.id;
        drop((first, again));
        assert_ne!(servers.server("chat", &config("a", 1), &metrics).id, id, "nobody knew it any more");
    }

    #[test]
    fn what_a_server_counted_with_goes_with_the_last_one_of_its_name() {
        let (servers, metrics) = (Servers::default(), Metrics::new());
        let shown = || String::from_utf8(metrics.scrape().0).expect("metrics are text").contains(r#"server="a""#);
        let (here, moved) =
            (servers.server("chat", &config("a", 1), &metrics), servers.server("chat", &config("a", 2), &metrics));
        drop(here);
        assert!(shown(), "another one has its name");
        drop(moved);
        assert!(!shown());
    }
}

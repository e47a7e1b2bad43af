//! One server, and all of them: who is the same server as before, whatever the configuration says
//! today, and how it is.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use ahash::AHashMap;
use tokio::sync::broadcast;

use super::health::{FoundBy, HealthCell, Report, Rules, Transition};
use super::leaving::Leaving;
use crate::balance::Candidate;
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
    /// That in the file, or the record that it was found by.
    weight: AtomicU32,
    /// That which the operator has put in its place; [`NO_WEIGHT`] if none.
    ordered_weight: AtomicU32,
    /// The [`State`] in the file, as its discriminant.
    state: AtomicU8,
    /// That which the operator has put in its place; [`NO_STATE`] if none.
    ordered: AtomicU8,
    /// How its sessions leave it, while it is drained.
    leaving: Mutex<Option<Leaving>>,
    open: AtomicUsize,
    /// Whether the last try to connect failed: so that the log says it once.
    is_failing: AtomicBool,
    health: HealthCell,
    /// Whose it is, in the news.
    upstream: String,
    news: broadcast::Sender<Turn>,
}

/// A server has come up or gone down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub server: ServerId,
    /// The name of its upstream.
    pub upstream: String,
    /// What it is now.
    pub is_up: bool,
}

/// Whether a server joins others that serve clients already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joins {
    /// They do, so it can take its time.
    Others,
    /// There is nobody yet.
    Nobody,
}

/// No [`State`]'s discriminant.
const NO_STATE: u8 = u8::MAX;

/// Nobody's weight.
const NO_WEIGHT: u32 = 0;

/// Names a server among all of the process, also of those that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId(usize);

/// The servers that there are for the process: those in force, and those that still have relays.
///
/// A server is the same one as long as upstream, name and address are. So one that leaves and comes
/// back while somebody is still connected to it comes back with these connections.
#[derive(Debug)]
pub struct Servers {
    known: Mutex<Known>,
    news: broadcast::Sender<Turn>,
}

/// News that may wait for somebody to hear them.
const NEWS_MAX: usize = 1024;

#[derive(Debug, Default)]
struct Known {
    next_id: usize,
    servers: AHashMap<(String, String, SocketAddr), Weak<Server>>,
}

impl Default for Servers {
    fn default() -> Self {
        Self { known: Mutex::default(), news: broadcast::Sender::new(NEWS_MAX) }
    }
}

impl Servers {
    /// The server of `upstream` that `config` describes, with the weight and the state that it has
    /// there. A new one `joins` those of its upstream.
    pub fn server(
        &self,
        upstream: &config::Upstream,
        config: &config::Server,
        joins: Joins,
        metrics: &Metrics,
    ) -> Arc<Server> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (upstream.name.clone(), config.name.clone(), config.address);
        let (rules, now) = (Rules::of(upstream), Instant::now());
        if let Some(server) = known.servers.get(&key).and_then(Weak::upgrade) {
            server.weight.store(config.weight, Ordering::Relaxed);
            server.state.store(config.state as u8, Ordering::Relaxed);
            server.tell_of_share();
            server.turn(server.health.follow(rules, now));
            return server;
        }
        known.servers.retain(|_, server| server.strong_count() > 0);
        let id = ServerId(known.next_id);
        known.next_id += 1;
        let health = match joins {
            Joins::Others => HealthCell::joined(rules, now),
            Joins::Nobody => HealthCell::new(rules, now),
        };
        let metrics = metrics.server(&upstream.name, &config.name);
        metrics.up.set(1);
        let server = Arc::new(Server {
            id,
            name: config.name.clone(),
            address: config.address,
            authority: config.address.to_string(),
            metrics,
            weight: AtomicU32::new(config.weight),
            ordered_weight: AtomicU32::new(NO_WEIGHT),
            state: AtomicU8::new(config.state as u8),
            ordered: AtomicU8::new(NO_STATE),
            leaving: Mutex::default(),
            open: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
            health,
            upstream: upstream.name.clone(),
            news: self.news.clone(),
        });
        server.tell_of_share();
        known.servers.insert(key, Arc::downgrade(&server));
        server
    }

    /// What servers become from now on. Who is too slow to hear of all misses the first.
    pub fn news(&self) -> broadcast::Receiver<Turn> {
        self.news.subscribe()
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
    /// What balancing needs to know of it at `now`.
    pub fn candidate(&self, now: Instant) -> Candidate {
        Candidate {
            weight: self.weight(),
            open: self.connections(),
            is_up: self.health.is_open(now),
            warmth: self.health.warmth(now),
            state: self.state(),
        }
    }

    /// Whether it is up, as far as checks and clients know.
    pub fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// How it is at `now`, in every respect.
    pub fn report(&self, now: Instant) -> Report {
        self.health.report(now)
    }

    /// Since when it is down, and what has put it down, in words.
    pub fn down(&self) -> Option<(Instant, Box<str>)> {
        self.health.down()
    }

    /// Its share of the clients against its siblings: 1 to 256. An upstream balances by what this was when it was
    /// made.
    pub fn weight(&self) -> u32 {
        self.ordered_weight().unwrap_or(self.weight.load(Ordering::Relaxed))
    }

    /// The weight that the operator has put in the place of that in the file.
    pub fn ordered_weight(&self) -> Option<u32> {
        Some(self.ordered_weight.load(Ordering::Relaxed)).filter(|weight| *weight != NO_WEIGHT)
    }

    /// Puts `weight` in the place of that in the file, whatever that says from now on; `None`: the file counts
    /// again. Upstreams that are made behind it balance by it.
    pub fn weigh(&self, weight: Option<NonZeroU32>) {
        self.ordered_weight.store(weight.map_or(NO_WEIGHT, NonZeroU32::get), Ordering::Relaxed);
        self.tell_of_share();
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
        self.tell_of_share();
    }

    /// Puts into its metrics what it may get, and how much of it.
    fn tell_of_share(&self) {
        self.metrics.is_in(self.state());
        self.metrics.weight.set(self.weight().into());
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

    /// A client is sent there.
    pub fn tried(&self) {
        if !self.is_up() {
            self.health.tried(Instant::now());
        }
    }

    /// It has answered a client with `status`. By 502 and 504 it says that somebody behind it is away.
    pub fn answered(&self, status: u16) {
        match status {
            502 | 504 => self.unanswered(&format!("it answers {status}")),
            _ if self.health.is_troubled() => self.turn(self.health.succeeded(Instant::now())),
            _ => {}
        }
    }

    /// It has not answered a client, for the reason given.
    pub fn unanswered(&self, reason: &str) {
        self.turn(self.health.failed(reason, Instant::now()));
    }

    /// It has passed a check, or not, for the reason given.
    pub fn checked(&self, result: Result<(), &str>) {
        self.metrics.checked(result.is_ok());
        self.turn(self.health.checked(result, Instant::now()));
    }

    /// Another process had looked after it, and it was down there, since `since`.
    pub fn was_down(&self, why: (FoundBy, &str), since: Instant) {
        self.turn(self.health.was_down(why, since, Instant::now()));
    }

    /// Tells everybody, if there is anything to tell.
    fn turn(&self, transition: Option<Transition>) {
        let Self { name, address, upstream, .. } = self;
        let is_up = match transition {
            None => return,
            Some(Transition::Down { found_by, reason }) => {
                let by = match found_by {
                    FoundBy::Checks => "a health check",
                    FoundBy::Clients => "requests",
                };
                tracing::warn!("upstream {upstream}: server {name} at {address} is down, by {by}: {reason}");
                false
            }
            Some(Transition::Up { after }) => {
                let seconds = after.as_secs_f64();
                tracing::info!("upstream {upstream}: server {name} at {address} is up again after {seconds:.1} s");
                true
            }
        };
        self.metrics.turned(is_up);
        // Nobody may be listening.
        let _ = self.news.send(Turn { server: self.id, upstream: upstream.clone(), is_up });
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
        self.unanswered(&error.to_string());
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

    fn upstream(name: &str) -> config::Upstream {
        let file = format!(
            "listeners: [{{ bind: \"127.0.0.1:1\" }}]\nroutes: [{{ upstream: {name} }}]\n\
             upstreams: {{ {name}: {{ servers: [\"127.0.0.1:2\"], max_fails: 1, slow_start: 1h }} }}\n"
        );
        config::parse(&file, "test.yaml").expect("a right file").upstreams.remove(0)
    }

    fn config(name: &str, port: u16) -> config::Server {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        config::Server { name: name.into(), address, weight: 1, state: State::Ready }
    }

    #[test]
    fn a_server_is_the_same_while_anybody_knows_it() {
        let (servers, metrics) = (Servers::default(), Metrics::new());
        let first = servers.server(&upstream("chat"), &config("a", 1), Joins::Nobody, &metrics);
        first.open(Kind::WebSocket);
        let changed = config::Server { weight: 3, state: State::Drain, ..config("a", 1) };
        let again = servers.server(&upstream("chat"), &changed, Joins::Others, &metrics);
        assert!(Arc::ptr_eq(&first, &again));
        let candidate = first.candidate(Instant::now());
        assert_eq!((candidate.weight, candidate.state, candidate.open), (3, State::Drain, 1));
        for (name, other) in [("chat", config("a", 2)), ("chat", config("b", 1)), ("other", config("a", 1))] {
            let other = servers.server(&upstream(name), &other, Joins::Nobody, &metrics);
            assert_ne!(other.id, first.id, "{name} {other:?}");
        }
        let id = first.id;
        drop((first, again));
        assert_ne!(
            servers.server(&upstream("chat"), &config("a", 1), Joins::Nobody, &metrics).id,
            id,
            "nobody knew it any more"
        );
    }

    #[test]
    fn what_a_server_counted_with_goes_with_the_last_one_of_its_name() {
        let (servers, metrics) = (Servers::default(), Metrics::new());
        let shown = || String::from_utf8(metrics.scrape().0).expect("metrics are text").contains(r#"server="a""#);
        let (here, moved) = (
            servers.server(&upstream("chat"), &config("a", 1), Joins::Nobody, &metrics),
            servers.server(&upstream("chat"), &config("a", 2), Joins::Nobody, &metrics),
        );
        drop(here);
        assert!(shown(), "another one has its name");
        drop(moved);
        assert!(!shown());
    }

    #[test]
    fn turns_are_news_once() {
        let (servers, metrics) = (Servers::default(), Metrics::new());
        let mut news = servers.news();
        let server = servers.server(&upstream("chat"), &config("a", 1), Joins::Nobody, &metrics);
        assert_eq!(server.metrics.up.get(), 1);
        for status in [200, 101, 404, 500, 503] {
            server.answered(status);
        }
        assert!(server.is_up() && news.try_recv().is_err());
        server.answered(504);
        server.answered(502);
        let turn = Turn { server: server.id, upstream: "chat".to_owned(), is_up: false };
        assert_eq!(news.try_recv(), Ok(turn.clone()));
        assert!(news.try_recv().is_err());
        assert!(!server.candidate(Instant::now()).is_up);
        assert_eq!((server.metrics.up.get(), &*server.down().expect("it is down").1), (0, "it answers 502"));
        server.tried();
        server.answered(503);
        assert_eq!(news.try_recv(), Ok(Turn { is_up: true, ..turn }));
        assert!(server.candidate(Instant::now()).is_up);
        assert!(server.candidate(Instant::now()).warmth < 1000, "it has an hour to warm up");
        let joined = servers.server(&upstream("chat"), &config("b", 2), Joins::Others, &metrics);
        assert!(joined.candidate(Instant::now()).warmth < 1000);
    }
}

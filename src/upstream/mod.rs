//! Upstreams: groups of servers, with what is known of them while the proxy runs.

pub mod connect;
pub mod headers;
pub mod pace;
mod pool;
pub mod request;

use std::io;
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub use pool::Pool;

use pace::{Pace, TooMany};

use crate::affinity::doctor::{self, Doctor, News, Patient};
use crate::affinity::learned::ServerName;
use crate::affinity::tag::{Secret, ServerTag};
use crate::balance::{Balancer, Candidate, Chance};
use crate::config::{self, AffinitySource, Config, Sse, State, StickyCookie, TcpKeepalive, Timeouts, WebSocket};
use crate::handshake::Damage;
use crate::observe::Sayings;
use crate::observe::metrics::{Metrics, ServerMetrics, UpstreamMetrics};
use crate::proxy_protocol::Version;
use crate::relay::Kind;
use crate::tls::Back;

/// A group of servers that serve the same thing.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the file.
    pub name: String,
    /// Its servers, in the order of the file.
    pub servers: Vec<Server>,
    /// Where its clients' keys are looked for.
    pub affinity: Vec<AffinitySource>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// What is done for event streams.
    pub sse: Sse,
    /// What is done for WebSockets.
    pub websocket: WebSocket,
    /// How fast it takes those who come to stay, if that is limited.
    pace: Option<Pace>,
    /// What the log has said of those for whom that was not fast enough.
    said_too_many: Sayings<1>,
    /// How its servers are told whose connection is passed on; `None`: not at all.
    pub send_proxy_protocol: Option<Version>,
    /// How TCP finds out that a silent peer of a relay is gone.
    pub tcp_keepalive: TcpKeepalive,
    /// How its servers are spoken to over TLS; `None`: in plain text.
    pub tls: Option<Back>,
    /// What its requests count with.
    pub metrics: UpstreamMetrics,
    /// Who notices when its affinity has collapsed.
    doctor: Doctor,
    /// What stands for each server in tags.
    tags: Vec<ServerTag>,
    /// What stands for each server in the session store.
    names: Vec<ServerName>,
    balancer: Balancer,
    /// Counts the requests that no key names.
    keyless: AtomicUsize,
}

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
    weight: u32,
    state: State,
    open: AtomicUsize,
    /// Whether the last try to connect failed: so that the log says it once.
    is_failing: AtomicBool,
}

/// Names a server among all of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId(usize);

impl Upstream {
    /// The upstreams of a configuration, in its order.
    pub fn all(config: &Config, secret: &Secret, metrics: &Metrics) -> Vec<Arc<Self>> {
        let mut ids = (0..).map(ServerId);
        let upstream = |it| Arc::new(Self::new(it, config.tcp_keepalive, secret, metrics, &mut ids));
        config.upstreams.iter().map(upstream).collect()
    }

    fn new(
        config: &config::Upstream,
        tcp_keepalive: TcpKeepalive,
        secret: &Secret,
        metrics: &Metrics,
        ids: &mut impl Iterator<Item = ServerId>,
    ) -> Self {
        let servers = config.servers.iter().zip(ids);
        Self {
            name: config.name.clone(),
            balancer: Balancer::new(config.balance, &config.servers),
            servers: servers.map(|(server, id)| Server::new(server, id, &config.name, metrics)).collect(),
            tags: config.servers.iter().map(|server| secret.server(&server.name)).collect(),
            names: config.servers.iter().map(|server| ServerName::of(&server.name)).collect(),
            affinity: config.affinity.clone(),
            doctor: Doctor::new(Patient { upstream: config.name.clone(), sources: config.affinity.clone() }),
            timeouts: config.timeouts,
            sse: config.sse.clone(),
            websocket: config.websocket,
            pace: config.pacing.map(Pace::new),
            said_too_many: Sayings::default(),
            send_proxy_protocol: config.send_proxy_protocol,
            tcp_keepalive,
            tls: config.tls.as_ref().map(|tls| tls.back.clone()),
            metrics: metrics.upstream(&config.name),
            keyless: AtomicUsize::new(0),
        }
    }

    /// The servers in the order in which to try them, each once: the one that holds the session, if
    /// it still keeps any, then those that `key` leads to, or whom the balance chooses without one.
    pub fn candidates(&self, session: Option<usize>, key: Option<&[u8]>) -> impl Iterator<Item = usize> {
        let session = session.filter(|server| self.servers[*server].state().keeps_sessions());
        // Not before they are asked for: a session takes no turn of others.
        let others = iter::once_with(move || self.balanced(key)).flatten();
        session.into_iter().chain(others.filter(move |server| Some(*server) != session))
    }

    fn balanced(&self, key: Option<&[u8]>) -> impl Iterator<Item = usize> {
        let chance = match key {
            Some(_) => Chance::default(),
            None => Chance { turn: self.keyless.fetch_add(1, Ordering::Relaxed), dice: fastrand::u64(..) },
        };
        self.balancer.order(key, |server| self.servers[server].candidate(), chance)
    }

    /// Waits for the turn of somebody who comes to stay, if they have to.
    ///
    /// # Errors
    /// When it would take too long.
    pub async fn turn(&self) -> Result<(), TooMany> {
        let Some(pace) = &self.pace else { return Ok(()) };
        let passage = Box::pin(pace.token()).await;
        self.metrics.paced(passage.ok());
        if passage.is_err() {
            self.said_too_many.say(0, |more| {
                let name = &self.name;
                tracing::warn!(
                    "upstream {name}: more clients come to stay than limits.handshakes_per_second lets through; \
                     told one to come later{more}"
                );
            });
        }
        passage.map(drop)
    }

    /// The server that `tag` stands for, while it is one of these and keeps sessions.
    pub fn tagged(&self, tag: ServerTag) -> Option<usize> {
        let server = self.tags.iter().position(|known| *known == tag)?;
        self.servers[server].state().keeps_sessions().then_some(server)
    }

    /// The server that `name` stands for, while it is one of these and keeps sessions.
    pub fn named(&self, name: ServerName) -> Option<usize> {
        let server = self.names.iter().position(|known| *known == name)?;
        self.servers[server].state().keeps_sessions().then_some(server)
    }

    /// The cookie that is issued to its clients, if any.
    pub fn sticky_cookie(&self) -> Option<&StickyCookie> {
        AffinitySource::sticky_cookie(&self.affinity)
    }

    /// A request was placed: tells the doctor.
    pub fn asked(&self, asked: &doctor::Asked<'_>) {
        self.spread(self.doctor.asked(asked, || self.census()));
    }

    /// A server answered a request of Engine.IO with `status`: tells the doctor.
    pub fn answered_engine_io(&self, status: u16) {
        self.spread(self.doctor.answered(status));
    }

    /// A WebSocket handshake came from `hop`, whole or damaged: tells the doctor.
    pub fn shaken(&self, damage: Option<Damage>, hop: IpAddr) {
        self.spread(self.doctor.shaken(damage, hop));
    }

    fn census(&self) -> doctor::Servers {
        let open = || self.servers.iter().map(|server| server.open.load(Ordering::Relaxed));
        let is_ready = |server: &&Server| server.state().takes_clients() && !server.is_failing.load(Ordering::Relaxed);
        doctor::Servers {
            ready: self.servers.iter().filter(is_ready).count(),
            open: open().sum(),
            fullest: open().max().unwrap_or(0),
        }
    }

    fn spread(&self, news: Vec<News>) {
        for News { finding, is_so, line } in news {
            self.metrics.found(finding, is_so);
            let (name, label) = (&self.name, finding.label());
            match line {
                Some(line) if is_so => tracing::warn!("upstream {name}: affinity {label}: {line}"),
                Some(line) => tracing::info!("upstream {name}: affinity {label}: {line}"),
                None => {}
            }
        }
    }

    /// What stands for `server` in tags.
    pub fn tag(&self, server: usize) -> ServerTag {
        self.tags[server]
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
            weight: config.weight,
            state: config.state,
            open: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
        }
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            weight: self.weight,
            open: self.open.load(Ordering::Relaxed),
            is_failing: self.is_failing.load(Ordering::Relaxed),
            state: self.state(),
        }
    }

    /// What it may get at this moment.
    pub fn state(&self) -> State {
        self.state
    }

    /// A connection to it was made.
    pub fn connected(&self, upstream: &str) {
        if self.is_failing.load(Ordering::Relaxed) && self.is_failing.swap(false, Ordering::Relaxed) {
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

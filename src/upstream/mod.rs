//! Upstreams: groups of servers, with what is known of them while the proxy runs.
//!
//! An [`Upstream`] is a snapshot: what one configuration says, over the servers that there were at
//! that moment. It never changes; a new configuration, or other answers of DNS, make a new one, and
//! exchanges and relays keep the one that they began with. A [`Server`] lives on through all of
//! them, so what is known of it, and who is connected to it, outlives every snapshot.

pub mod check;
pub mod connect;
pub mod discovery;
pub mod headers;
pub mod health;
pub mod leaving;
pub mod pace;
mod pool;
pub mod request;
pub mod response;
mod servers;
#[cfg(test)]
mod simulation;

use std::iter;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

pub use pool::Pool;
pub use servers::{Joins, Server, ServerId, Servers, Turn};

use check::Plan;
use discovery::Findings;
use pace::{Pace, TooMany};

use crate::affinity::doctor::{self, Doctor, News, Patient};
use crate::affinity::learned::ServerName;
use crate::affinity::tag::{Secret, ServerTag};
use crate::balance::{Balancer, Candidate, Chance, WARM};
use crate::config::{self, AffinitySource, Config, OnDown, Sse, StickyCookie, TcpKeepalive, Timeouts, WebSocket};
use crate::handshake::Damage;
use crate::observe::Sayings;
use crate::observe::metrics::{Metrics, UpstreamMetrics};
use crate::proxy_protocol::Version;
use crate::tls::Back;

/// Connections above its share that a server may always have: few are uneven by chance.
const SHARE_SLACK: u64 = 5;

/// A group of servers that serve the same thing.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the file.
    pub name: String,
    /// Its servers: those of the file, then those that were found.
    pub servers: Vec<Arc<Server>>,
    /// How they are checked, if they are.
    pub checks: Option<Plan>,
    /// Where its clients' keys are looked for.
    pub affinity: Vec<AffinitySource>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// What is done for event streams.
    pub sse: Sse,
    /// What is done for WebSockets.
    pub websocket: WebSocket,
    /// How fast it takes those who come to stay, if that is limited.
    pace: Option<Arc<Pace>>,
    /// What the log has said of those for whom that was not fast enough.
    said_too_many: Arc<Sayings<1>>,
    /// How its servers are told whose connection is passed on; `None`: not at all.
    pub send_proxy_protocol: Option<Version>,
    /// How it and its servers are drained.
    pub drain: config::Drain,
    /// At which pace its relays move to where they belong; `None`: they stay.
    pub rebalance: Option<config::Rebalance>,
    /// What becomes of relays whose server goes down.
    pub on_down: OnDown,
    /// How TCP finds out that a silent peer of a relay is gone.
    pub tcp_keepalive: TcpKeepalive,
    /// How its servers are spoken to over TLS; `None`: in plain text.
    pub tls: Option<Back>,
    /// What its requests count with.
    pub metrics: UpstreamMetrics,
    /// Who notices when its affinity has collapsed.
    doctor: Arc<Doctor>,
    /// What stands for each server in tags.
    tags: Vec<ServerTag>,
    /// What stands for each server in the session store.
    names: Vec<ServerName>,
    balancer: Balancer,
    /// Counts the requests that no key names.
    keyless: Arc<AtomicUsize>,
}

impl Upstream {
    /// The upstreams of a configuration, in its order, over servers of `servers`, with those among them
    /// that were `found`. What `before` has gathered goes on, where it is about the same thing.
    pub fn all(
        config: &Config,
        found: &Findings,
        secret: &Secret,
        metrics: &Metrics,
        servers: &Servers,
        before: &[Arc<Self>],
    ) -> Vec<Arc<Self>> {
        let upstream = |(number, it): (usize, &config::Upstream)| {
            let before = before.iter().find(|before| before.name == it.name).map(|before| &**before);
            let all = it.servers_with(&found.of(number));
            Arc::new(Self::new((it, &all), config.tcp_keepalive, secret, metrics, servers, before))
        };
        config.upstreams.iter().enumerate().map(upstream).collect()
    }

    fn new(
        (config, all): (&config::Upstream, &[config::Server]),
        tcp_keepalive: TcpKeepalive,
        secret: &Secret,
        metrics: &Metrics,
        servers: &Servers,
        before: Option<&Self>,
    ) -> Self {
        let doctor = before.filter(|before| before.affinity == config.affinity).map(|before| before.doctor.clone());
        let new_doctor = || Doctor::new(Patient { upstream: config.name.clone(), sources: config.affinity.clone() });
        let pace = |pacing| {
            let same = before.and_then(|before| before.pace.clone()).filter(|pace| pace.is_of(pacing));
            same.unwrap_or_else(|| Arc::new(Pace::new(pacing)))
        };
        let tls = config.tls.as_ref().map(|tls| tls.back.clone());
        let plan = |check| Plan { check, tls: tls.clone(), send_proxy_protocol: config.send_proxy_protocol };
        let joins = match before.is_some_and(|before| !before.servers.is_empty()) {
            true => Joins::Others,
            false => Joins::Nobody,
        };
        let servers: Vec<_> = all.iter().map(|server| servers.server(config, server, joins, metrics)).collect();
        let weighed = |(config, server): (&config::Server, &Arc<Server>)| {
            // The operator may have put another weight in the place of that in the file.
            config::Server { weight: server.weight(), ..config.clone() }
        };
        let weighed: Vec<_> = all.iter().zip(&servers).map(weighed).collect();
        Self {
            name: config.name.clone(),
            balancer: Balancer::new(config.balance, &weighed),
            servers,
            checks: config.health_check.clone().map(plan),
            tags: all.iter().map(|server| secret.server(&server.name)).collect(),
            names: all.iter().map(|server| ServerName::of(&server.name)).collect(),
            affinity: config.affinity.clone(),
            doctor: doctor.unwrap_or_else(|| Arc::new(new_doctor())),
            timeouts: config.timeouts,
            sse: config.sse.clone(),
            websocket: config.websocket,
            pace: config.pacing.map(pace),
            said_too_many: before.map(|before| before.said_too_many.clone()).unwrap_or_default(),
            send_proxy_protocol: config.send_proxy_protocol,
            drain: config.drain,
            rebalance: config.rebalance,
            on_down: config.on_down,
            tcp_keepalive,
            tls,
            metrics: metrics.upstream(&config.name),
            keyless: before.map(|before| before.keyless.clone()).unwrap_or_default(),
        }
    }

    /// The servers in the order in which to try them, each once: the one that holds the session, if
    /// it still keeps any and is up, or nobody is; then those that `key` leads to, or whom the balance
    /// chooses without one. Those that are down come last.
    pub fn candidates(&self, session: Option<usize>, key: Option<&[u8]>) -> impl Iterator<Item = usize> {
        let now = Instant::now();
        let is_fit = |server: &usize| self.servers[*server].candidate(now).is_up || !self.has_servers_up(now);
        let keeps = |server: &usize| self.servers[*server].state().keeps_sessions();
        let session = session.filter(keeps).filter(is_fit);
        // Not before they are asked for: a session takes no turn of others.
        let others = iter::once_with(move || self.balanced(key, now)).flatten();
        session.into_iter().chain(others.filter(move |server| Some(*server) != session))
    }

    /// Whether anybody who takes clients is open to them.
    fn has_servers_up(&self, now: Instant) -> bool {
        let works = |server: &Arc<Server>| server.state().takes_clients() && server.candidate(now).is_up;
        self.servers.iter().any(works)
    }

    fn balanced(&self, key: Option<&[u8]>, now: Instant) -> impl Iterator<Item = usize> {
        let chance = match key {
            Some(_) => Chance::default(),
            None => Chance { turn: self.keyless.fetch_add(1, Ordering::Relaxed), dice: fastrand::u64(..) },
        };
        let key = key.map(|key| self.balancer.hash(key));
        self.balancer.order(key, move |server| self.servers[server].candidate(now), chance)
    }

    /// What is to be remembered of `key`, so that [`Upstream::owner`] can tell where it leads.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.balancer.hash(key)
    }

    /// Where a key of this hash leads at this moment.
    pub fn owner(&self, hash: u64) -> Option<&Arc<Server>> {
        let now = Instant::now();
        let candidate = |server: usize| self.servers[server].candidate(now);
        self.balancer.order(Some(hash), candidate, Chance::default()).next().map(|server| &self.servers[server])
    }

    /// Whether a key of this hash leads to `server` when everybody is up and warm.
    pub fn is_home(&self, hash: u64, server: ServerId) -> bool {
        let now = Instant::now();
        let candidate = |server: usize| Candidate { is_up: true, warmth: WARM, ..self.servers[server].candidate(now) };
        let home = self.balancer.order(Some(hash), candidate, Chance::default()).next();
        home.is_some_and(|home| self.servers[home].id == server)
    }

    /// How many connections each of its servers has above its share of all of them, which is by
    /// weight, as far as they are warm, among those that take clients and are up, if any is. A tenth and
    /// a few more than that are no matter.
    pub fn excess(&self) -> Vec<(ServerId, usize)> {
        let now = Instant::now();
        let weights = self.portions(now);
        let (open, all) = (self.servers.iter().map(|it| it.connections()).sum::<usize>(), weights.iter().sum::<u64>());
        let above = |(server, weight): (&Arc<Server>, u64)| {
            let share = (open as u64 * weight).div_ceil(all.max(1));
            let enough = share + share / 10 + SHARE_SLACK;
            let above = (server.connections() as u64).saturating_sub(enough);
            (server.id, usize::try_from(above).unwrap_or_default())
        };
        self.servers.iter().zip(weights).map(above).collect()
    }

    /// What of its clients each of its servers should have at `now`, as a number beside those of the others: by
    /// weight, as far as they are warm, among those that take clients and are up, if any is.
    pub fn portions(&self, now: Instant) -> Vec<u64> {
        let is_any_up = self.has_servers_up(now);
        let portion = |server: &Arc<Server>| {
            let Candidate { weight, warmth, is_up, state, .. } = server.candidate(now);
            let takes_some = state.takes_clients() && (is_up || !is_any_up);
            if takes_some { u64::from(weight) * u64::from(warmth) } else { 0 }
        };
        self.servers.iter().map(portion).collect()
    }

    /// What the doctor finds wrong with its affinity at the moment, each with its sentence.
    pub fn findings(&self) -> Vec<(doctor::Finding, String)> {
        self.doctor.findings()
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

    /// The server of this name.
    pub fn server(&self, name: &str) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.name == name)
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
        let open = || self.servers.iter().map(|server| server.connections());
        let is_ready = |server: &&Arc<Server>| server.state().takes_clients() && server.is_up() && !server.is_failing();
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

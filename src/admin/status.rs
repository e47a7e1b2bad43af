//! `/api/v1/status`: the process, its upstreams and what it has counted, at one moment. Whoever reads it in
//! Rust, as the command line does, reads these types.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Admin;
use super::process::{self, InForce};
use crate::affinity::doctor;
use crate::balance::WARM;
use crate::command::{Progress, Rebalanced, ServerOf, Target};
use crate::config::{self, ProxyProtocol, State};
use crate::observe::metrics::{Metrics, Sums, Totals};
use crate::relay::Kind;
use crate::upstream;
use crate::upstream::health::Report;

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The process itself.
    pub process: Process,
    /// Where clients connect, in the order of the file.
    pub listeners: Vec<Listener>,
    /// Connections of clients that are open, whatever they are doing.
    pub client_connections: u64,
    /// In the order of the file.
    pub upstreams: Vec<Upstream>,
    /// What is wrong with affinity at the moment.
    pub findings: Vec<Finding>,
    /// The drains there are.
    pub drains: Vec<Drain>,
    /// What has been counted since the start; never less than before.
    pub totals: Totals,
}

/// The process itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Of the program.
    pub version: String,
    /// Its number.
    pub pid: u32,
    /// RFC 3339.
    pub started_at: String,
    /// Seconds since then.
    pub uptime_seconds: f64,
    /// `ready`, `drained`, `handing_over` or `stopping`.
    pub state: String,
    /// Worker threads.
    pub threads: usize,
    /// How often the configuration was read again, by result.
    pub reloads: Sums,
    /// What became of the last time.
    pub last_reload: Option<Reload>,
    /// Relays that had begun in the process before this one.
    pub relays_taken: u64,
    /// Relays that went on in the process behind this one.
    pub relays_given: u64,
}

/// What became of a configuration that was to be put in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reload {
    /// RFC 3339.
    pub at: String,
    /// `ok`, or `refused` when nothing changed.
    pub result: String,
    /// What has changed, a sentence each.
    pub changes: Vec<String>,
    /// Why nothing has.
    pub error: Option<String>,
}

/// An address that clients connect to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listener {
    /// With the port that the kernel chose.
    pub address: String,
    /// Whether clients encrypt.
    pub tls: bool,
    /// Whether clients may speak HTTP/2 without.
    pub h2c: bool,
    /// `off`, `on` or `optional`.
    pub proxy_protocol: String,
}

/// An upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Those of the file, then those that were found.
    pub servers: Vec<Server>,
    /// Exchanges and relays, by kind: those of all servers.
    pub open: BTreeMap<String, u64>,
    /// The names that servers are found by.
    pub discoveries: Vec<Discovery>,
    /// How relays move to where they belong; `null`: they stay.
    pub rebalance: Option<Rebalance>,
    /// Requests of sessions whose server was no longer there, since the start.
    pub lost_sessions: u64,
    /// Over what time ends are spread when it or a server of it is drained and nothing else is said.
    pub drain_spread_seconds: f64,
    /// How long that may take in all.
    pub drain_timeout_seconds: f64,
}

/// A name that servers are found by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Discovery {
    /// As the file writes it.
    pub name: String,
    /// It has no good answer at the moment.
    pub is_failing: bool,
}

/// How relays move to where they belong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rebalance {
    /// Percent of the upstream's relays that move in a minute.
    pub percent_per_minute: u32,
    /// Who says so: `file`, or `operator` until none strays.
    pub by: String,
    /// How many are elsewhere, as of some seconds ago; 1000 stands for more as well.
    pub strays: usize,
}

/// A server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// `ready`, `drain` or `maint`.
    pub state: String,
    /// Who says so: `file` or `operator`.
    pub state_by: String,
    /// Whether it is fit for clients.
    pub is_up: bool,
    /// How that is known.
    pub health: Health,
    /// Its weight.
    pub weight: u32,
    /// Who says so: `file` or `operator`.
    pub weight_by: String,
    /// While it warms up, the part of its clients that it gets: more than 0, less than 1.
    pub slow_start: Option<f64>,
    /// Exchanges and relays, by kind.
    pub open: BTreeMap<String, u64>,
    /// The part that it has of all that is open in its upstream: 0 to 1.
    pub share: f64,
    /// The part that it should have: by weight among those that take clients and are up, as far as they are warm.
    pub ideal_share: f64,
    /// How far its drain has got.
    pub drain: Option<Drain>,
    /// Connections to it that could not be made, since it is there.
    pub connect_failures: u64,
}

/// The health of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Health {
    /// How long it has been up, or down.
    pub since_seconds: f64,
    /// What has put it down last, in words, also when it is up again.
    pub reason: Option<String>,
    /// Who has found that out: `checks` or `clients`.
    pub found_by: Option<String>,
    /// What checks say: `unchecked`, `passing` or `failing`; `null`: there are none.
    pub checks: Option<String>,
    /// What clients have met: `well`, `failing`, `out` or `on_trial`; `null`: it does not matter.
    pub clients: Option<String>,
}

/// What the doctor finds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Its word.
    pub kind: String,
    /// Whose affinity it is.
    pub upstream: String,
    /// What was seen, what it means and what to change.
    pub sentence: String,
}

/// How far a drain has got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// What is drained; `null`: the whole process.
    pub upstream: Option<String>,
    /// `null`: the whole upstream.
    pub server: Option<String>,
    /// Since it began.
    pub elapsed_seconds: f64,
    /// Over what time ends are spread.
    pub spread_seconds: f64,
    /// How long it may take in all.
    pub timeout_seconds: f64,
    /// Exchanges and relays when it began.
    pub open_before: usize,
    /// Those there are now; of an upstream or the process also those that have begun since.
    pub open: usize,
    /// Whether nobody is left, or the time is over.
    pub is_over: bool,
}

impl Status {
    /// How it is now.
    pub(super) fn of(admin: &Admin) -> Self {
        let (now, front) = (Instant::now(), admin.service.front());
        let metrics = &admin.service.observer.metrics;
        let drains: Vec<_> = admin.desk.drains().iter().map(Drain::of).collect();
        let rebalanced = admin.desk.board.rebalanced.load();
        let in_force = admin.process.in_force();
        let of_upstream = |upstream: &Arc<upstream::Upstream>| {
            let config =
                in_force.as_ref().and_then(|it| it.config.upstreams.iter().find(|it| it.name == upstream.name));
            let rebalanced = rebalanced.get(&upstream.name).copied();
            Upstream::of(upstream, config, rebalanced, &drains, metrics, now)
        };
        let findings = |upstream: &Arc<upstream::Upstream>| {
            let name = upstream.name.clone();
            let finding = |(kind, sentence): (doctor::Finding, String)| Finding {
                kind: kind.label().to_owned(),
                upstream: name.clone(),
                sentence,
            };
            upstream.findings().into_iter().map(finding).collect::<Vec<_>>()
        };
        Self {
            process: Process::of(admin, in_force.as_deref()),
            listeners: in_force.as_deref().map(Listener::all).unwrap_or_default(),
            client_connections: count(metrics.client_connections.get()),
            upstreams: front.upstreams.iter().map(of_upstream).collect(),
            findings: front.upstreams.iter().flat_map(findings).collect(),
            drains,
            totals: metrics.totals(),
        }
    }
}

impl Process {
    fn of(admin: &Admin, in_force: Option<&InForce>) -> Self {
        let (process, service) = (&admin.process, &admin.service);
        let metrics = &service.observer.metrics;
        let state = match () {
            () if *service.stopping().borrow() => "stopping",
            () if process.is_handing_over() => "handing_over",
            () if service.is_drained() => "drained",
            () => "ready",
        };
        let reload = |reload: process::Reload| Reload {
            at: written(reload.at),
            result: if reload.result.is_ok() { "ok" } else { "refused" }.to_owned(),
            error: reload.result.as_ref().err().cloned(),
            changes: reload.result.unwrap_or_default(),
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: written(process.began_at),
            uptime_seconds: process.began.elapsed().as_secs_f64(),
            state: state.to_owned(),
            threads: in_force.map_or(0, |it| it.config.threads.get()),
            reloads: metrics.reloads(),
            last_reload: process.last_reload().map(reload),
            relays_taken: metrics.relays_taken.get(),
            relays_given: metrics.relays_given.get(),
        }
    }
}

impl Listener {
    fn all(in_force: &InForce) -> Vec<Self> {
        let listener = |(address, listener): (&SocketAddr, &config::Listener)| Self {
            address: address.to_string(),
            tls: listener.tls.is_some(),
            h2c: listener.h2c,
            proxy_protocol: match listener.proxy_protocol {
                ProxyProtocol::Off => "off",
                ProxyProtocol::On => "on",
                ProxyProtocol::Optional => "optional",
            }
            .to_owned(),
        };
        in_force.addresses.iter().zip(&in_force.config.listeners).map(listener).collect()
    }
}

impl Upstream {
    fn of(
        upstream: &upstream::Upstream,
        config: Option<&config::Upstream>,
        rebalanced: Option<Rebalanced>,
        drains: &[Drain],
        metrics: &Metrics,
        now: Instant,
    ) -> Self {
        let portions = upstream.portions(now);
        let all: u64 = portions.iter().sum();
        let open: usize = upstream.servers.iter().map(|server| server.connections()).sum();
        let server = |(server, portion): (&Arc<upstream::Server>, u64)| {
            let is_it = |drain: &&Drain| {
                drain.upstream.as_ref() == Some(&upstream.name) && drain.server.as_ref() == Some(&server.name)
            };
            let drain = drains.iter().find(is_it).cloned();
            let (share, ideal) = (part(server.connections() as u64, open as u64), part(portion, all));
            Server::of(server, share, ideal, drain, now)
        };
        let discovery = |discovery: &config::Discovery| {
            let name = discovery.records.to_string();
            Discovery { is_failing: metrics.discovery_failing(&upstream.name, &name).get() != 0, name }
        };
        let servers: Vec<_> = upstream.servers.iter().zip(portions).map(server).collect();
        let of_kind = |kind: Kind| {
            let open = servers.iter().filter_map(|server| server.open.get(kind.label())).sum();
            (kind.label().to_owned(), open)
        };
        Self {
            name: upstream.name.clone(),
            open: Kind::ALL.into_iter().map(of_kind).collect(),
            servers,
            discoveries: config.map(|it| it.discoveries.iter().map(discovery).collect()).unwrap_or_default(),
            rebalance: rebalanced.map(Rebalance::of),
            lost_sessions: upstream.metrics.lost_sessions.get(),
            drain_spread_seconds: upstream.drain.spread.as_secs_f64(),
            drain_timeout_seconds: upstream.drain.timeout.as_secs_f64(),
        }
    }
}

impl Rebalance {
    fn of(rebalanced: Rebalanced) -> Self {
        Self {
            percent_per_minute: rebalanced.pace.per_minute,
            by: by(rebalanced.is_ordered),
            strays: rebalanced.strays,
        }
    }
}

impl Server {
    fn of(server: &upstream::Server, share: f64, ideal_share: f64, drain: Option<Drain>, now: Instant) -> Self {
        let candidate = server.candidate(now);
        let Report { is_up, since, last_down, checks, clients } = server.report(now);
        let (found_by, reason) = last_down.unzip();
        let open = |kind: Kind| (kind.label().to_owned(), count(server.metrics.open(kind).get()));
        let is_cold = candidate.warmth < WARM;
        Self {
            name: server.name.clone(),
            address: server.authority.clone(),
            state: state(candidate.state).to_owned(),
            state_by: by(server.ordered_state().is_some()),
            is_up,
            health: Health {
                since_seconds: now.saturating_duration_since(since).as_secs_f64(),
                reason: reason.map(Into::into),
                found_by: found_by.map(|it| it.label().to_owned()),
                checks: checks.map(str::to_owned),
                clients: clients.map(str::to_owned),
            },
            weight: candidate.weight,
            weight_by: by(server.ordered_weight().is_some()),
            slow_start: is_cold.then(|| f64::from(candidate.warmth) / f64::from(WARM)),
            open: Kind::ALL.into_iter().map(open).collect(),
            share,
            ideal_share,
            drain,
            connect_failures: server.metrics.connect_failures.get(),
        }
    }
}

impl Drain {
    /// One of the process.
    pub(super) fn of(progress: &Progress) -> Self {
        let (upstream, server) = names(&progress.target);
        Self {
            upstream,
            server,
            elapsed_seconds: progress.elapsed.as_secs_f64(),
            spread_seconds: progress.spread.as_secs_f64(),
            timeout_seconds: progress.timeout.as_secs_f64(),
            open_before: progress.open_before,
            open: progress.open,
            is_over: progress.is_over,
        }
    }
}

/// The word of the file for it.
pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::Drain => "drain",
        State::Maint => "maint",
    }
}

/// The upstream and the server that are meant; `None`: all of them.
pub(super) fn names(target: &Target) -> (Option<String>, Option<String>) {
    match target {
        Target::Process => (None, None),
        Target::Upstream(name) => (Some(name.clone()), None),
        Target::Server(ServerOf { upstream, server }) => (Some(upstream.clone()), Some(server.clone())),
    }
}

/// Who says something.
pub(super) fn by(is_ordered: bool) -> String {
    if is_ordered { "operator" } else { "file" }.to_owned()
}

fn written(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).expect("the years of clocks have four digits")
}

/// A gauge that is read between two changes may be below zero.
fn count(gauge: i64) -> u64 {
    u64::try_from(gauge).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "nobody looks at the sixteenth digit of a share")]
fn part(of: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { of as f64 / all as f64 }
}

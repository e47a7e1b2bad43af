//! What a window of requests says of affinity: counts in, findings and their sentences out. Pure.
//!
//! A sentence is for somebody tired: what was seen, what it means, what to change, by its key in
//! the file. It shows addresses and names from the file, never the value of a cookie, a header or
//! a query, for that may be a secret.
//!
//! One client alone has one key, and there is nothing wrong with that. So a key with most of the
//! requests is a finding only when there are *signs of a crowd* behind it: several `User-Agent`s,
//! or many open connections, most of them at one server.

use std::net::IpAddr;

use crate::affinity;
use crate::config::AffinitySource;
use crate::handshake::Damage;

use super::super::forwarded::Missing;

/// What can be wrong with affinity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// One key has most of the requests.
    OneKey,
    /// A trusted hop names no client.
    NoAddress,
    /// A hop that is not trusted names clients.
    UntrustedHop,
    /// Servers refuse Engine.IO requests.
    SessionUnknown,
    /// Sessions are of servers that the upstream does not have.
    UnknownServers,
    /// Tags were made with another secret.
    ForeignTags,
    /// A hop takes away what makes a WebSocket handshake one.
    DamagedHandshakes,
}

impl Finding {
    /// Every finding.
    pub const ALL: [Self; 7] = [
        Self::OneKey,
        Self::NoAddress,
        Self::UntrustedHop,
        Self::SessionUnknown,
        Self::UnknownServers,
        Self::ForeignTags,
        Self::DamagedHandshakes,
    ];

    /// The word for logs and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::OneKey => "one_key",
            Self::NoAddress => "no_address",
            Self::UntrustedHop => "untrusted_hop",
            Self::SessionUnknown => "session_unknown",
            Self::UnknownServers => "unknown_servers",
            Self::ForeignTags => "foreign_tags",
            Self::DamagedHandshakes => "damaged_handshakes",
        }
    }
}

/// Whose affinity is judged.
#[derive(Debug)]
pub struct Patient {
    /// The name of the upstream.
    pub upstream: String,
    /// Where its clients' keys are looked for.
    pub sources: Vec<AffinitySource>,
}

/// A window of requests that belong to no session: a key placed them, or nothing did.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// All of them.
    pub requests: u32,
    /// The key that most of them have.
    pub leader: Option<Leader>,
    /// Requests by way of a trusted hop in which `forwarded_for` found no client, by the reason.
    pub missing: [u32; Missing::ALL.len()],
    /// Requests by way of other hops that were forwarded all the same.
    pub untrusted: u32,
    /// One of those hops.
    pub untrusted_hop: Option<String>,
}

/// The key that most requests of a window have.
#[derive(Clone, Debug)]
pub struct Leader {
    /// Where it comes from.
    pub source: &'static str,
    /// What it is, if that is an address: the client's, or the previous hop's.
    pub address: Option<String>,
    /// It is a previous hop among `trusted_proxies`.
    pub is_trusted: bool,
    /// Requests with it: never more than there were.
    pub requests: u32,
    /// Different `User-Agent`s among them: never more than there were.
    pub user_agents: u32,
}

/// The servers of the upstream, at the end of a window.
#[derive(Clone, Copy, Debug, Default)]
pub struct Servers {
    /// How many can be reached.
    pub ready: usize,
    /// Connections open to all of them.
    pub open: usize,
    /// Connections open to the one with most of them.
    pub fullest: usize,
}

/// A window of requests with a tag or cookie that has the shape of ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tagged {
    /// All of them.
    pub requests: u32,
    /// They name a server that the upstream does not have.
    pub unknown: u32,
    /// They were made with another secret.
    pub foreign: u32,
}

/// A window of WebSocket handshakes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shaken {
    /// All of them.
    pub handshakes: u32,
    /// Those that a hop has damaged.
    pub damaged: u32,
    /// One of these, and that hop.
    pub first: Option<(Damage, IpAddr)>,
}

/// Percent of a window that make a key, or a way to forward, that of most requests.
const MOST: u32 = 60;

/// Percent of a window from which on what goes wrong is no accident.
const MANY: u32 = 5;

/// So few handshakes may be somebody's who tries what happens.
const FEW: u32 = 2;

/// As many kinds of clients as nobody has on one desk.
const USER_AGENTS: u32 = 6;

/// As many open connections as nobody has on one desk,
const OPEN: usize = 50;

/// and percent of them at one server when one key has most of the clients.
const FULLEST: usize = 70;

/// What decided when no source did.
pub(super) const NONE: &str = "none";

impl Patient {
    /// Findings by requests that belong to no session.
    pub fn judge_placed(&self, placed: &Placed, servers: Servers) -> Vec<(Finding, String)> {
        let mut findings = Vec::new();
        if placed.untrusted * 100 >= placed.requests * MOST && placed.requests > 0 {
            findings.push((Finding::UntrustedHop, self.untrusted_hop(placed)));
            return findings; // What it makes of keys is not the cause.
        }
        let Some(leader) = &placed.leader else { return findings };
        let has_most = leader.requests * 100 >= placed.requests * MOST;
        if !has_most || servers.ready < 2 {
            return findings;
        }
        let Some(crowd) = signs_of_a_crowd(leader, servers) else { return findings };
        let share = self.share(leader.requests, placed.requests);
        let address = leader.address.as_deref().unwrap_or_default();
        findings.push(match leader.source {
            NONE if self.has_sessions() => return findings, // Their first request may go anywhere.
            affinity::CLIENT_IP | NONE if self.has_forwarded_for() && leader.is_trusted => {
                (Finding::NoAddress, self.no_address(&share, address, &crowd, placed, leader.source))
            }
            affinity::CLIENT_IP | NONE => (Finding::OneKey, self.one_hop(&share, address, &crowd, leader)),
            affinity::FORWARDED_FOR => (Finding::OneKey, self.one_client(&share, address, &crowd)),
            source => (Finding::OneKey, self.one_value(&share, source, &crowd)),
        });
        findings
    }

    /// Findings by answers to requests of Engine.IO: of `answers` so many were 400.
    pub fn judge_answers(&self, answers: u32, refused: u32) -> Option<(Finding, String)> {
        let cure = match self.sources.first() {
            Some(AffinitySource::EngineIo) => {
                format!(
                    "see whether they have restarted or clients speak protocol 3, which has no tags, and give each \
                     worker process a port and an entry of its own in upstreams.{}.servers",
                    self.upstream
                )
            }
            _ => format!("put engine_io first in {}", self.affinity()),
        };
        is_many(refused, answers).then(|| {
            let sentence = format!(
                "servers answered {} % of the last {answers} Engine.IO requests with 400, as they do to sessions that \
                 they do not know; {cure}",
                percent(refused, answers)
            );
            (Finding::SessionUnknown, sentence)
        })
    }

    /// Findings by tags and cookies.
    pub fn judge_tags(&self, tagged: Tagged) -> Vec<(Finding, String)> {
        let Tagged { requests, unknown, foreign } = tagged;
        let what = |count| format!("{} % of the last {requests} session tags and cookies", percent(count, requests));
        let unknown = is_many(unknown, requests).then(|| {
            let sentence = format!(
                "{} name servers that upstream {} does not have, so those sessions are lost; give servers the same \
                 names on every proxy, and remove a server only when its sessions have ended",
                what(unknown),
                self.upstream
            );
            (Finding::UnknownServers, sentence)
        });
        let foreign = is_many(foreign, requests).then(|| {
            let sentence = format!(
                "{} were made with another secret, so they lead nowhere; give every proxy the same \
                 affinity_secret_file, and keep it when they restart",
                what(foreign)
            );
            (Finding::ForeignTags, sentence)
        });
        unknown.into_iter().chain(foreign).collect()
    }

    /// Findings by WebSocket handshakes.
    pub fn judge_handshakes(&self, shaken: Shaken) -> Option<(Finding, String)> {
        let Shaken { handshakes, damaged, first } = shaken;
        let (damage, hop) = first.filter(|_| damaged > FEW && is_many(damaged, handshakes))?;
        let sentence = format!(
            "previous hop {} passes WebSocket handshakes {}, so {} % of the last {handshakes} were refused; {}",
            hop.to_canonical(),
            damage.state(),
            percent(damaged, handshakes),
            damage.cure()
        );
        Some((Finding::DamagedHandshakes, sentence))
    }

    fn untrusted_hop(&self, placed: &Placed) -> String {
        let share = self.share(placed.untrusted, placed.requests);
        let hop = placed.untrusted_hop.as_deref().unwrap_or("unknown");
        format!(
            "{share} came with X-Forwarded-For or Forwarded by way of hops that are not among trusted_proxies, such as \
             {hop}, so their clients are not told apart; add {hop} to trusted_proxies if it is your proxy"
        )
    }

    fn no_address(&self, share: &str, hop: &str, crowd: &str, placed: &Placed, source: &str) -> String {
        let reasons = Missing::ALL.into_iter().zip(placed.missing);
        let (reason, _) = reasons.max_by_key(|(_, count)| *count).unwrap_or((Missing::Field, 0));
        let without = match reason {
            Missing::Field => "without X-Forwarded-For",
            Missing::Hidden => "with unknown in X-Forwarded-For instead of an address",
            Missing::Garbled => "with no readable address in X-Forwarded-For",
            Missing::Client => "with none but trusted_proxies in X-Forwarded-For",
        };
        let cure = match reason {
            Missing::Client => "take the clients' own network out of trusted_proxies".to_owned(),
            Missing::Field => format!(
                "have {hop} send X-Forwarded-For with their addresses, or PROXY headers if it is below HTTP (see \
                 proxy_protocol)"
            ),
            Missing::Hidden | Missing::Garbled => format!("have {hop} send X-Forwarded-For with their addresses"),
        };
        format!(
            "{share} came from {hop} {without}, {crowd}, so it seems to hide its clients, and {}; {cure}, or leave only \
             engine_io or sticky_cookie in {}",
            meaning(source),
            self.affinity()
        )
    }

    fn one_hop(&self, share: &str, hop: &str, crowd: &str, leader: &Leader) -> String {
        let source = format!("and put forwarded_for before client_ip in {}", self.affinity());
        let trust = "add it to trusted_proxies if it is yours";
        let cure = match (self.has_forwarded_for(), leader.is_trusted) {
            (true, _) => format!("and {trust}"),
            (false, true) => source,
            (false, false) => format!("{trust}, {source}"),
        };
        format!(
            "{share} came from {hop}, {crowd}, so it is likely a proxy, and {}; have {hop} send X-Forwarded-For, {cure}",
            meaning(leader.source)
        )
    }

    fn one_client(&self, share: &str, client: &str, crowd: &str) -> String {
        format!(
            "{share} have {client} as their client in X-Forwarded-For, {crowd}, so a hop hides many clients behind that \
             address, or they share one network, and one server gets them all; have that hop pass on their addresses, \
             or leave only engine_io or sticky_cookie in {}",
            self.affinity()
        )
    }

    fn one_value(&self, share: &str, source: &str, crowd: &str) -> String {
        format!(
            "{share} have one and the same value of {}, {crowd}, and one server gets them all; if that is not meant, \
             name something in {} that tells clients apart",
            self.spelled(source),
            self.affinity()
        )
    }

    /// A source as the file spells it, when there is only one of its kind.
    fn spelled(&self, label: &str) -> String {
        let mut alike = self.sources.iter().filter(|source| affinity::label(source) == label);
        let name = match (alike.next(), alike.next()) {
            (Some(AffinitySource::Cookie(name) | AffinitySource::Query(name)), None) => name.as_str(),
            (Some(AffinitySource::Header(name)), None) => name.as_str(),
            _ => return format!("a {label}"),
        };
        format!("{label} {name}")
    }

    fn share(&self, count: u32, requests: u32) -> String {
        let apart = if self.has_sessions() { " without a session" } else { "" };
        format!("{} % of the last {requests} requests{apart}", percent(count, requests))
    }

    fn affinity(&self) -> String {
        format!("upstreams.{}.affinity", self.upstream)
    }

    fn has_sessions(&self) -> bool {
        let is_session =
            |source: &AffinitySource| matches!(source, AffinitySource::EngineIo | AffinitySource::StickyCookie(_));
        self.sources.iter().any(is_session)
    }

    fn has_forwarded_for(&self) -> bool {
        self.sources.iter().any(|source| matches!(source, AffinitySource::ForwardedFor(..)))
    }
}

/// What becomes of clients whose hop is all that is known of them.
fn meaning(source: &str) -> &'static str {
    match source {
        NONE => "nothing keeps its clients at their servers",
        _ => "one server gets all of its clients",
    }
}

/// What tells that a key stands for more than one client, in words.
fn signs_of_a_crowd(leader: &Leader, servers: Servers) -> Option<String> {
    let Servers { open, fullest, .. } = servers;
    if leader.user_agents >= USER_AGENTS {
        return Some(format!("with at least {} different User-Agents", leader.user_agents));
    }
    let is_crowded = open >= OPEN && fullest * 100 >= open * FULLEST;
    is_crowded.then(|| format!("while one server holds {fullest} of {open} open connections"))
}

fn is_many(count: u32, requests: u32) -> bool {
    requests > 0 && count * 100 >= requests * MANY
}

/// Rounded down. Counts of one window are not taken at one moment, hence the bound.
fn percent(count: u32, requests: u32) -> u32 {
    (count * 100).checked_div(requests).unwrap_or(0).min(100)
}

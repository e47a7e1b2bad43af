//! From a configuration to the [`Front`] that serves by it. What lives longer than a configuration,
//! servers above all, goes over from the one before.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;

use crate::admission::{Admission, Descriptors, Seat, Ticket};
use crate::affinity::tag::Secret;
use crate::config::{self, AffinitySource, Config, State, Timeouts};
use crate::exchange::Front;
use crate::handover::Knowledge;
use crate::observe::Observer;
use crate::relay::Home;
use crate::session_store::SessionStore;
use crate::tls::Certificate;
use crate::upstream::discovery::Findings;
use crate::upstream::{Servers, Upstream};

/// What lives as long as the process.
#[derive(Debug)]
pub(super) struct Assembly {
    pub(super) observer: Arc<Observer>,
    pub(super) servers: Servers,
    admission: Arc<Admission>,
    stopping: watch::Receiver<bool>,
    /// What tags are keyed with where no file says.
    own_secret: OnceLock<Vec<u8>>,
}

impl Assembly {
    pub(super) fn new(config: &Config, observer: Arc<Observer>, stopping: watch::Receiver<bool>) -> Self {
        let admission = Arc::new(Admission::new(&config.limits, descriptors(config)));
        Self { observer, servers: Servers::default(), admission, stopping, own_secret: OnceLock::new() }
    }

    /// What the process before this one knew.
    pub(super) fn inherit(&self, knowledge: Knowledge) {
        if let Some(secret) = knowledge.secret {
            // Nothing has been tagged here yet.
            let _ = self.own_secret.set(secret);
        }
    }

    /// What the process after this one should know.
    pub(super) fn knowledge(&self) -> Knowledge {
        Knowledge { secret: self.own_secret.get().cloned() }
    }

    /// An upstream of the one server that a relay from another process has, and that is not in
    /// `config`. It is part of nothing, so it gets no clients, and is gone with its last relay.
    pub(super) fn departed(&self, config: &Config, home: &Home) -> Arc<Upstream> {
        let like = config.upstreams.iter().find(|upstream| upstream.name == home.upstream);
        let mut upstream = like.unwrap_or(&config.upstreams[0]).clone();
        upstream.name.clone_from(&home.upstream);
        upstream.sse.comment.clone_from(&home.comment);
        upstream.timeouts.keepalive = home.keepalive;
        upstream.discoveries = Vec::new();
        let state = State::Maint;
        upstream.servers = vec![config::Server { name: home.server.clone(), address: home.address, weight: 1, state }];
        let config = Config { upstreams: vec![upstream], ..config.clone() };
        let secret = Secret::new(&[]); // Nothing will be tagged.
        let found = Findings::default();
        Upstream::all(&config, &found, &secret, &self.observer.metrics, &self.servers, &[]).remove(0)
    }

    /// Lets in what another process has let in, and counts its client if that is counted.
    pub(super) fn let_in(&self, client: Option<IpAddr>) -> (Ticket, Option<Box<Seat>>) {
        (self.admission.ticket_of_arrival(), client.map(|client| self.admission.seat_of_arrival(client)))
    }

    /// What serves by `config`, with the servers that were `found`, in the place of `before`.
    pub(super) fn front(&self, config: &Config, found: &Findings, before: Option<&Front>) -> Front {
        self.admission.change(&config.limits, descriptors(config));
        let (served, metrics) = (self.admission.max(), &self.observer.metrics);
        metrics.client_connections_max.set(i64::try_from(served).unwrap_or(i64::MAX));
        metrics.shows(certificates(config));
        tell_of_admission(config, served);
        tell_of_tls(config);
        self.front_with(config, found, before)
    }

    /// The same where only the servers are others, which is nothing to tell of.
    pub(super) fn front_with(&self, config: &Config, found: &Findings, before: Option<&Front>) -> Front {
        let secret = config.affinity_secret.clone().unwrap_or_else(|| self.own_secret(config));
        let longest = |of: fn(&Timeouts) -> Duration| {
            config.upstreams.iter().map(|upstream| of(&upstream.timeouts)).max().unwrap_or_default()
        };
        let metrics = &self.observer.metrics;
        let upstreams_before = before.map_or(&[][..], |before| &before.upstreams);
        let sessions = before.map(|before| before.sessions.clone()).filter(|it| it.is_of(&config.session_store));
        Front {
            routes: config.routes.clone(),
            upstreams: Upstream::all(config, found, &secret, metrics, &self.servers, upstreams_before),
            secret,
            sessions: sessions.unwrap_or_else(|| Arc::new(SessionStore::new(&config.session_store, metrics))),
            trusted: config.trusted_proxies.clone(),
            client_ip: config.client_ip.clone(),
            limits: config.limits,
            admission: self.admission.clone(),
            request_head: longest(|timeouts| timeouts.request_head),
            keepalive: longest(|timeouts| timeouts.keepalive),
            send: longest(|timeouts| timeouts.send),
            tcp_keepalive: config.tcp_keepalive,
            shutdown: config.shutdown,
            observer: self.observer.clone(),
            stopping: self.stopping.clone(),
        }
    }

    /// Good for one proxy that is never restarted; the operator is told.
    fn own_secret(&self, config: &Config) -> Secret {
        let needs_secret =
            |source: &AffinitySource| matches!(source, AffinitySource::EngineIo | AffinitySource::StickyCookie(_));
        let is_needed = config.upstreams.iter().any(|upstream| upstream.affinity.iter().any(needs_secret));
        let new = || {
            if is_needed {
                tracing::warn!(
                    "affinity_secret_file is not set: sessions stay whole through this process alone; \
                     several proxies, or one that is restarted, need the same file"
                );
            }
            let bytes: [u64; 4] = std::array::from_fn(|_| RandomState::new().build_hasher().finish());
            bytes.map(u64::to_le_bytes).concat()
        };
        Secret::new(self.own_secret.get_or_init(new))
    }
}

/// What there is, and what `config` needs of it.
fn descriptors(config: &Config) -> Descriptors {
    // Where the system does not tell, nothing is kept in reserve.
    let max = rlimit::Resource::NOFILE.get_soft().map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    Descriptors { max, threads: config.threads.get(), listeners: config.listeners.len() }
}

/// Where the certificates of `config` stand, and when they end.
fn certificates(config: &Config) -> impl Iterator<Item = (String, i64)> {
    let of_listeners = config.listeners.iter().flat_map(|listener| &listener.tls).flat_map(|tls| &tls.certificates);
    let of_upstreams = config.upstreams.iter().flat_map(|upstream| &upstream.tls).flat_map(|tls| &tls.certificate);
    let end = |it: &Certificate| (it.file.display().to_string(), it.valid.1.unix_timestamp());
    of_listeners.chain(of_upstreams).map(end)
}

/// How many are let in.
fn tell_of_admission(config: &Config, served: usize) {
    let max = descriptors(config).max;
    match config.limits.max_connections {
        Some(wanted) if wanted > served => {
            tracing::warn!("limits.max_connections is {wanted}, but {max} open files are enough for {served}");
        }
        _ => tracing::info!("up to {served} connections of clients, with {max} open files"),
    }
}

/// What should be known of how servers are spoken to.
fn tell_of_tls(config: &Config) {
    let encrypted = config.upstreams.iter().filter_map(|upstream| Some((&upstream.name, upstream.tls.as_ref()?)));
    for (name, tls) in encrypted {
        if !tls.is_verified {
            tracing::warn!("upstream {name}: tls.verify is off: whoever answers there is taken for its server");
        }
        for concern in tls.certificate.iter().flat_map(|it| it.concerns(OffsetDateTime::now_utc())) {
            tracing::warn!("upstream {name}: {concern}");
        }
    }
}

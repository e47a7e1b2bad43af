//! What is seen to while workers serve: names are asked for, servers are checked, and whoever comes up
//! or goes down is noticed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use crate::config::Config;
use crate::observe::metrics::Metrics;
use crate::upstream::check::Checks;
use crate::upstream::discovery::{Discoveries, Findings};
use crate::upstream::{Servers, Turn, Upstream};

/// For one process; changes with its configuration.
#[derive(Debug)]
pub(super) struct Upkeep {
    discoveries: Discoveries,
    findings: watch::Receiver<Findings>,
    checks: Checks,
    turns: broadcast::Receiver<Turn>,
    /// The upstreams in which nobody is up, by name.
    dark: BTreeSet<String>,
}

/// Something has changed by itself.
#[derive(Debug)]
pub(super) enum News {
    /// Other servers are found.
    Found,
    /// A server has come up or gone down.
    Turned(Turn),
    /// More of that than can be told.
    Missed,
}

/// The longest that the start waits for the first servers.
const FIRST_ANSWERS_WITHIN: Duration = Duration::from_secs(5);

impl Upkeep {
    /// Asks for the names in `config`, and waits for what is found first, but not for ever. Checks nobody
    /// yet.
    pub(super) async fn begin(config: &Config, servers: &Servers, metrics: &Metrics) -> Self {
        let discoveries = Discoveries::start(config, None, metrics);
        if !discoveries.first_answers(FIRST_ANSWERS_WITHIN).await {
            tracing::warn!("not all names of servers have an answer yet; starting without");
        }
        let findings = discoveries.findings();
        Self { discoveries, findings, checks: Checks::default(), turns: servers.news(), dark: BTreeSet::new() }
    }

    /// Asks for the names in `config` from now on. What is known of them stays.
    pub(super) fn ask(&mut self, config: &Config, metrics: &Metrics) {
        self.discoveries = Discoveries::start(config, Some(&self.discoveries), metrics);
        self.findings = self.discoveries.findings();
    }

    /// What is found; other findings than these are news.
    pub(super) fn findings(&mut self) -> Findings {
        self.findings.borrow_and_update().clone()
    }

    /// Checks the servers of `upstreams`, and looks whether they are up.
    pub(super) fn look_after(&mut self, upstreams: &[Arc<Upstream>]) {
        self.checks.follow(upstreams);
        self.dark.retain(|name| upstreams.iter().any(|upstream| upstream.name == *name));
        upstreams.iter().for_each(|upstream| self.look_at(upstream));
    }

    /// Says when nobody of `upstream` is up any more, and when somebody is again.
    pub(super) fn look_at(&mut self, upstream: &Upstream) {
        let mut takers = upstream.servers.iter().filter(|server| server.state().takes_clients()).peekable();
        let is_dark = takers.peek().is_some() && takers.all(|server| !server.is_up());
        let name = &upstream.name;
        if is_dark && self.dark.insert(name.clone()) {
            tracing::error!("upstream {name}: no server is up, so all are tried, down or not");
        } else if !is_dark && self.dark.remove(name) {
            tracing::info!("upstream {name}: a server is up again, and the others are left alone");
        }
    }

    /// Waits for the next change. Sound to be cancelled.
    pub(super) async fn news(&mut self) -> News {
        tokio::select! {
            // Without any discovery nobody can change anything, and the channel closes.
            Ok(()) = self.findings.changed() => News::Found,
            turn = self.turns.recv() => match turn {
                Ok(turn) => News::Turned(turn),
                Err(RecvError::Lagged(_)) => News::Missed,
                Err(RecvError::Closed) => std::future::pending().await,
            },
        }
    }
}

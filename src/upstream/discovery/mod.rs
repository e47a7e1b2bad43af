//! Servers that are found: each name of the file is asked for again and again, and what is found goes
//! out whenever it changes.
//!
//! The rule: only a good answer changes anything. One without addresses, an error or silence leaves
//! what was found before, for a name server that has lost its mind must not take the servers along.
//! It is said once, and once more when it is over.
//!
//! ```text
//! each discovery   ask ── good answer ── another one than before? ──► Findings, for everyone
//!                   ▲          └── or not: say so, keep what there is
//!                   └── wait ◄─┘
//! ```
//!
//! Does not know what becomes of it: [`config::Upstream::servers_with`] makes servers of it.

mod answer;
mod dns;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{self, Config, Discovery, Found, Resolver};
use crate::observe::metrics::Metrics;

use dns::Dns;

/// What all discoveries of one configuration have found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// By upstream and discovery, in the order of the file; `None` before the first good answer.
    upstreams: Vec<Vec<Option<Vec<Found>>>>,
}

impl Findings {
    /// What the discoveries of upstream number `upstream` have found.
    pub fn of(&self, upstream: usize) -> Vec<Vec<Found>> {
        let found = self.upstreams.get(upstream).map(Vec::as_slice).unwrap_or_default();
        found.iter().map(|found| found.clone().unwrap_or_default()).collect()
    }

    /// Whether each of them has found something.
    fn is_complete(&self) -> bool {
        self.upstreams.iter().flatten().all(Option::is_some)
    }
}

/// The discoveries of one configuration. Dropped, they end.
#[derive(Debug)]
pub struct Discoveries {
    findings: watch::Receiver<Findings>,
    config: Vec<(String, Vec<Discovery>)>,
    _tasks: JoinSet<()>,
}

impl Discoveries {
    /// Asks for everything that `config` names, on this runtime, from now on. What was found `before`
    /// for the same records is there at once.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(config: &Config, before: Option<&Self>, metrics: &Metrics) -> Self {
        let named = |upstream: &config::Upstream| (upstream.name.clone(), upstream.discoveries.clone());
        let upstreams: Vec<_> = config.upstreams.iter().map(named).collect();
        let known = |discovery: &Discovery| before.and_then(|before| before.known(discovery));
        let findings =
            Findings { upstreams: upstreams.iter().map(|(_, all)| all.iter().map(known).collect()).collect() };
        let (sender, receiver) = watch::channel(findings);
        let mut tasks = JoinSet::new();
        for (upstream, (name, discoveries)) in upstreams.iter().enumerate() {
            for (index, discovery) in discoveries.iter().enumerate() {
                let search = Search {
                    upstream: name.clone(),
                    discovery: discovery.clone(),
                    place: (upstream, index),
                    findings: sender.clone(),
                    failing: metrics.discovery_failing(name, &discovery.records.to_string()),
                    is_failing: false,
                };
                tasks.spawn(search.go_on(config.resolver.clone()));
            }
        }
        Self { findings: receiver, config: upstreams, _tasks: tasks }
    }

    /// What has been found so far, and news of it.
    pub fn findings(&self) -> watch::Receiver<Findings> {
        self.findings.clone()
    }

    /// Waits until everything has been found once, but not longer than `within`. Whether it was.
    pub async fn first_answers(&self, within: Duration) -> bool {
        let mut findings = self.findings.clone();
        let complete = findings.wait_for(Findings::is_complete);
        tokio::time::timeout(within, complete).await.is_ok_and(|complete| complete.is_ok())
    }

    fn known(&self, discovery: &Discovery) -> Option<Vec<Found>> {
        let findings = self.findings.borrow();
        let mut all =
            self.config.iter().zip(&findings.upstreams).flat_map(|((_, asked), found)| asked.iter().zip(found));
        all.find(|(asked, found)| asked.records == discovery.records && found.is_some())?.1.clone()
    }
}

/// One discovery.
struct Search {
    upstream: String,
    discovery: Discovery,
    place: (usize, usize),
    findings: watch::Sender<Findings>,
    failing: prometheus::IntGauge,
    is_failing: bool,
}

impl Search {
    async fn go_on(mut self, resolver: Resolver) {
        let mut dns = Dns::new(resolver);
        loop {
            let known = self.known();
            let answer = dns.ask(&self.discovery.records, known.as_deref().unwrap_or_default()).await;
            let ttl = answer.as_ref().ok().map(|answer| answer.ttl);
            match answer {
                Ok(answer) => self.found(known, answer.found),
                Err(why) => self.failed(known.map_or(0, |known| known.len()), &why),
            }
            tokio::time::sleep(answer::wait(self.discovery.refresh, ttl, fastrand::f64())).await;
        }
    }

    fn known(&self) -> Option<Vec<Found>> {
        let (upstream, index) = self.place;
        self.findings.borrow().upstreams[upstream][index].clone()
    }

    fn found(&mut self, known: Option<Vec<Found>>, found: Vec<Found>) {
        let (name, records, count) = (&self.upstream, &self.discovery.records, found.len());
        if std::mem::take(&mut self.is_failing) {
            self.failing.set(0);
            tracing::info!("upstream {name}: {records} is answered again, with {count} server(s)");
        }
        if known.as_ref() == Some(&found) {
            return;
        }
        if count == answer::SERVERS_MAX {
            tracing::warn!("upstream {name}: {records} has {count} servers or more; no more than these are taken");
        }
        let known = known.unwrap_or_default();
        let news = [("added", differing(&found, &known)), ("removed", differing(&known, &found))];
        let news = news.iter().filter(|(_, those)| !those.is_empty());
        let news: Vec<_> = news.map(|(what, those)| format!("{what} {}", listed(those))).collect();
        tracing::info!("upstream {name}: {records} has {count} server(s): {}", news.join("; "));
        let (upstream, index) = self.place;
        self.findings.send_modify(|findings| findings.upstreams[upstream][index] = Some(found));
    }

    fn failed(&mut self, known: usize, why: &str) {
        if std::mem::replace(&mut self.is_failing, true) {
            return;
        }
        self.failing.set(1);
        let (name, records) = (&self.upstream, &self.discovery.records);
        match known {
            0 => tracing::warn!("upstream {name}: {records}: {why}; no server is known from there yet"),
            count => tracing::warn!("upstream {name}: {records}: {why}; the {count} server(s) found before stay"),
        }
    }
}

impl Drop for Search {
    /// Nobody asks any more, so nobody waits for an answer.
    fn drop(&mut self) {
        self.failing.set(0);
    }
}

/// Who is in `these` and, with the same weight, not in `others`.
fn differing<'a>(these: &'a [Found], others: &[Found]) -> Vec<&'a Found> {
    these.iter().filter(|this| others.binary_search(this).is_err()).collect()
}

/// The first few in words.
fn listed(those: &[&Found]) -> String {
    const SHOWN_MAX: usize = 8;
    let shown = those.iter().take(SHOWN_MAX).map(|found| match found.weight {
        1 => found.address.to_string(),
        weight => format!("{} (weight {weight})", found.address),
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match those.len().checked_sub(SHOWN_MAX) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}

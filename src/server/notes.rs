//! What operators have ordered and what was found out about servers: told to the next process, and heeded
//! when it was told. Whoever replaces the binary must not have a server that is under repair get clients
//! again by that.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use super::control::Control;
use super::drains;
use crate::command::{ServerOf, Target};
use crate::config::Removed;
use crate::exchange::Front;
use crate::handover::{Drained, Note};
use crate::upstream::{Server, Upstream};

impl Control {
    /// All that is known beside the file.
    pub(super) fn noted(&self) -> Vec<Note> {
        let front = self.service.front();
        let servers = front.upstreams.iter().flat_map(|upstream| upstream.servers.iter().map(move |it| (upstream, it)));
        // Orders first: a drain is one more on top of them.
        let mut notes: Vec<_> = servers.flat_map(|(upstream, server)| of_server(upstream, server)).collect();
        notes.extend(self.drains.notes().map(Note::Drained));
        let rebalanced = self.rebalancer.notes();
        notes.extend(rebalanced.map(|(upstream, pace)| Note::Rebalanced { upstream: upstream.clone(), pace }));
        notes
    }

    /// Does as the process before this one did. Of its relays, some are with servers that have `departed`.
    pub(super) async fn heed(&mut self, notes: Vec<Note>, departed: &[Arc<Upstream>]) {
        let front = self.service.front();
        let (mut drained, mut has_weights) = (Vec::new(), false);
        for note in notes {
            match note {
                Note::Ordered { server, address, state, weight } => {
                    let Some(found) = find(&front, &server, address) else {
                        tracing::warn!("{}: gone, and with it what was ordered for it", Target::Server(server));
                        continue;
                    };
                    if state.is_some() {
                        found.order(state);
                    }
                    if weight.is_some() {
                        found.weigh(weight);
                        has_weights = true;
                    }
                    let (state, weight) = (found.state(), found.weight());
                    tracing::info!("{}: {state:?} with weight {weight}, by order as before", Target::Server(server));
                }
                Note::Down { server, address, found_by, reason, elapsed } => {
                    if let Some(found) = find(&front, &server, address) {
                        found.was_down((found_by, &reason), drains::ago(elapsed));
                    }
                }
                Note::Drained(of) => drained.push(of),
                Note::Rebalanced { upstream, pace } => self.rebalancer.go_on(upstream, pace),
            }
        }
        if has_weights {
            self.balance_anew().await;
        }
        self.heed_drains(drained, departed).await;
    }

    async fn heed_drains(&mut self, drained: Vec<Drained>, departed: &[Arc<Upstream>]) {
        let (front, workers) = (self.service.front(), self.workers.clone());
        // One that was drained first and removed then is as gone as one that was drained for it.
        let is_gone = |drained: &Drained| match (&drained.target, drained.address) {
            (Target::Server(of), Some(address)) => drained.is_of_removed || find(&front, of, address).is_none(),
            _ => false,
        };
        let (of_removed, drained): (Vec<_>, Vec<_>) = drained.into_iter().partition(is_gone);
        for drained in drained {
            if drained.target == Target::Process {
                self.service.drain(true);
            }
            if let Err(gone) = self.drains.go_on(drained, &front, &workers).await {
                tracing::warn!("drain: {gone}; nothing of it goes on");
            }
        }
        for upstream in departed {
            let goes_on = of_removed.iter().find(|drained| is_of(drained, upstream));
            let removes = |it: &Arc<Upstream>| it.name == upstream.name && it.drain.removed == Removed::Drain;
            if goes_on.is_some() || front.upstreams.iter().any(removes) {
                self.drains.go_on_with_removed(upstream, goes_on, &workers).await;
            }
        }
    }
}

/// Whether what is drained is a server of `upstream`.
fn is_of(drained: &Drained, upstream: &Upstream) -> bool {
    let Target::Server(of) = &drained.target else { return false };
    let is_it = |server: &Arc<Server>| server.name == of.server && Some(server.address) == drained.address;
    of.upstream == upstream.name && upstream.servers.iter().any(is_it)
}

fn of_server(upstream: &Upstream, server: &Server) -> impl Iterator<Item = Note> {
    let of = ServerOf { upstream: upstream.name.clone(), server: server.name.clone() };
    let address = server.address;
    let (state, weight) = (server.ordered_state(), server.ordered_weight().and_then(NonZeroU32::new));
    let is_ordered = state.is_some() || weight.is_some();
    let ordered = is_ordered.then(|| Note::Ordered { server: of.clone(), address, state, weight });
    let now = Instant::now();
    let report = server.report(now);
    let last_down = report.last_down.filter(|_| !report.is_up);
    let down = last_down.map(|(found_by, reason)| {
        let elapsed = now.saturating_duration_since(report.since);
        Note::Down { server: of, address, found_by, reason, elapsed }
    });
    ordered.into_iter().chain(down)
}

/// The same server here. One at another address is another one.
fn find<'a>(front: &'a Front, server: &ServerOf, address: SocketAddr) -> Option<&'a Arc<Server>> {
    let upstream = front.upstreams.iter().find(|upstream| upstream.name == server.upstream)?;
    upstream.servers.iter().find(|it| it.name == server.server && it.address == address)
}

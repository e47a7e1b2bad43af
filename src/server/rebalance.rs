//! Relays move to where they belong after servers have come or gone, at the pace of the file and never
//! faster, the oldest first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::command::{Board, Plan};
use crate::config::Rebalance;
use crate::exchange::Front;
use crate::relay::EndReason;
use crate::relay::inbox::Workers;
use crate::relay::strays::{Budget, Found, Search};
use crate::upstream::{ServerId, Upstream};

/// How often strays are looked for: often enough for an even pace, and seldom enough to cost nothing.
pub(super) const EVERY: Duration = Duration::from_secs(3);

/// The most that move at once, whatever the pace would allow.
const MOVES_MAX: usize = 1000;

/// The pace of each upstream that has one.
#[derive(Debug)]
pub(super) struct Rebalancer {
    budgets: AHashMap<String, (Budget, Instant)>,
    /// Where it is shown how many strays there are.
    board: Arc<Board>,
}

impl Rebalancer {
    /// None yet; the strays that are found are shown on `board`.
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { budgets: AHashMap::new(), board }
    }

    /// Moves those whose time has come. To be called about [`EVERY`] so often.
    pub(super) async fn look(&mut self, front: &Front, workers: &Workers, now: Instant) {
        self.budgets.retain(|name, _| front.upstreams.iter().any(|it| it.name == *name && it.rebalance.is_some()));
        let mut strays = AHashMap::new();
        for upstream in &front.upstreams {
            if let Some(rebalance) = upstream.rebalance {
                let found = self.rebalance(upstream, rebalance, workers, now).await;
                strays.insert(upstream.name.clone(), found);
            }
        }
        self.board.strays.store(Arc::new(strays));
    }

    /// Returns how many strays there were.
    async fn rebalance(
        &mut self,
        upstream: &Arc<Upstream>,
        rebalance: Rebalance,
        workers: &Workers,
        now: Instant,
    ) -> usize {
        let found = find(upstream, rebalance.min_age, MOVES_MAX, workers).await;
        let (budget, since) = self.budgets.entry(upstream.name.clone()).or_insert((Budget::default(), now));
        // A look that came late is not made up for.
        let elapsed = now.saturating_duration_since(*since).min(2 * EVERY);
        *since = now;
        let moves = budget.take(found.relays, rebalance.per_minute, elapsed);
        let moving: ahash::AHashSet<_> = found.oldest.iter().take(moves).map(|stray| stray.id).collect();
        if moving.is_empty() {
            return found.strays;
        }
        let name = &upstream.name;
        tracing::info!("rebalance: upstream {name}: {} of {} strays move on", moving.len(), found.strays);
        if !workers.end_these(moving, EndReason::Rebalanced).await {
            tracing::error!("rebalance: upstream {name}: a worker has not heard of it");
        }
        found.strays
    }
}

/// What would move in the upstream of this name, and from where to where; `None` when there is none.
pub(super) async fn plan(name: &str, front: &Front, workers: &Workers) -> Option<Plan> {
    let upstream = front.upstreams.iter().find(|upstream| upstream.name == name)?;
    let min_age = upstream.rebalance.map_or(Duration::ZERO, |rebalance| rebalance.min_age);
    let found = find(upstream, min_age, usize::MAX, workers).await;
    let server = |id: ServerId| {
        let known = upstream.servers.iter().find(|server| server.id == id);
        known.map_or_else(|| "(removed)".to_owned(), |server| server.name.clone())
    };
    let mut moves = BTreeMap::new();
    for stray in &found.oldest {
        let to = stray.to.map(server);
        *moves.entry((server(stray.from), to)).or_insert(0) += 1;
    }
    Some(Plan {
        upstream: name.to_owned(),
        relays: found.relays,
        strays: found.oldest.len(),
        per_minute: upstream.rebalance.map(|rebalance| rebalance.per_minute),
        moves: moves.into_iter().map(|((from, to), count)| (from, to, count)).collect(),
    })
}

async fn find(upstream: &Arc<Upstream>, min_age: Duration, limit: usize, workers: &Workers) -> Found {
    let search = Search { upstream: upstream.name.clone(), min_age, limit, excess: upstream.excess() };
    workers.find_strays(search, upstream).await
}

//! Relays move to where they belong after servers have come or gone, at the pace of the file and never
//! faster, the oldest first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use crate::command::{Board, Moves, NoTarget, Plan, Rebalanced, Target};
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
    /// What operators have ordered, by upstream, until nobody strays there.
    ordered: AHashMap<String, Rebalance>,
    /// Where it is shown how far that is.
    board: Arc<Board>,
}

impl Rebalancer {
    /// None yet; what is found is shown on `board`.
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { budgets: AHashMap::new(), ordered: AHashMap::new(), board }
    }

    /// Moves those whose time has come. To be called about [`EVERY`] so often.
    pub(super) async fn look(&mut self, front: &Front, workers: &Workers, now: Instant) {
        self.ordered.retain(|name, _| front.upstreams.iter().any(|it| it.name == *name));
        let mut rebalanced = AHashMap::new();
        for upstream in &front.upstreams {
            if let Some(pace) = self.pace(upstream) {
                let strays = self.rebalance(upstream, pace, workers, now).await;
                if strays == 0 && self.ordered.remove(&upstream.name).is_some() {
                    tracing::info!("rebalance: upstream {}: everybody is where they belong", upstream.name);
                }
                let is_ordered = self.ordered.contains_key(&upstream.name);
                if let Some(pace) = self.pace(upstream) {
                    rebalanced.insert(upstream.name.clone(), Rebalanced { pace, is_ordered, strays });
                }
            }
        }
        self.budgets.retain(|name, _| rebalanced.contains_key(name));
        self.board.rebalanced.store(Arc::new(rebalanced));
    }

    /// Does what an operator wants in the upstream of this name, from the next look on; says what strays there.
    pub(super) async fn order(
        &mut self,
        name: &str,
        moves: Moves,
        front: &Front,
        workers: &Workers,
    ) -> Result<Plan, NoTarget> {
        let upstream = upstream_of(name, front)?;
        match moves {
            Moves::Begin(per_minute) => {
                let mut pace =
                    upstream.rebalance.unwrap_or(Rebalance { min_age: Duration::ZERO, ..Rebalance::default() });
                pace.per_minute = per_minute.unwrap_or(pace.per_minute);
                tracing::info!("rebalance: upstream {name}: by order, {} percent a minute", pace.per_minute);
                self.ordered.insert(name.to_owned(), pace);
            }
            Moves::Stop => {
                if self.ordered.remove(name).is_some() {
                    tracing::info!("rebalance: upstream {name}: stopped by order");
                }
            }
        }
        self.plan(name, front, workers).await
    }

    /// What operators have ordered, by upstream, and it goes on.
    pub(super) fn notes(&self) -> impl Iterator<Item = (&String, Rebalance)> {
        self.ordered.iter().map(|(upstream, pace)| (upstream, *pace))
    }

    /// Goes on with what was ordered of the process before this one.
    pub(super) fn go_on(&mut self, upstream: String, pace: Rebalance) {
        tracing::info!("rebalance: upstream {upstream}: by order as before, {} percent a minute", pace.per_minute);
        self.ordered.insert(upstream, pace);
    }

    /// What would move in the upstream of this name, and from where to where.
    pub(super) async fn plan(&self, name: &str, front: &Front, workers: &Workers) -> Result<Plan, NoTarget> {
        let upstream = upstream_of(name, front)?;
        let pace = self.pace(upstream);
        let found = find(upstream, pace.map_or(Duration::ZERO, |pace| pace.min_age), usize::MAX, workers).await;
        let server = |id: ServerId| {
            let known = upstream.servers.iter().find(|server| server.id == id);
            known.map_or_else(|| "(removed)".to_owned(), |server| server.name.clone())
        };
        let mut moves = BTreeMap::new();
        for stray in &found.oldest {
            let to = stray.to.map(server);
            *moves.entry((server(stray.from), to)).or_insert(0) += 1;
        }
        Ok(Plan {
            upstream: name.to_owned(),
            relays: found.relays,
            strays: found.oldest.len(),
            per_minute: pace.map(|pace| pace.per_minute),
            is_ordered: self.ordered.contains_key(name),
            moves: moves.into_iter().map(|((from, to), count)| (from, to, count)).collect(),
        })
    }

    /// What is ordered for `upstream`, or stands in the file.
    fn pace(&self, upstream: &Upstream) -> Option<Rebalance> {
        self.ordered.get(&upstream.name).copied().or(upstream.rebalance)
    }

    /// Returns how many strays there were, as far as they could move.
    async fn rebalance(&mut self, upstream: &Arc<Upstream>, pace: Rebalance, workers: &Workers, now: Instant) -> usize {
        let found = find(upstream, pace.min_age, MOVES_MAX, workers).await;
        let (budget, since) = self.budgets.entry(upstream.name.clone()).or_insert((Budget::default(), now));
        // A look that came late is not made up for.
        let elapsed = now.saturating_duration_since(*since).min(2 * EVERY);
        *since = now;
        let moves = budget.take(found.relays, pace.per_minute, elapsed);
        let moving: ahash::AHashSet<_> = found.oldest.iter().take(moves).map(|stray| stray.id).collect();
        let strays = found.oldest.len();
        if moving.is_empty() {
            return strays;
        }
        let name = &upstream.name;
        tracing::info!("rebalance: upstream {name}: {} of {strays} strays move on", moving.len());
        if !workers.end_these(moving, EndReason::Rebalanced).await {
            tracing::error!("rebalance: upstream {name}: a worker has not heard of it");
        }
        strays
    }
}

fn upstream_of<'a>(name: &str, front: &'a Front) -> Result<&'a Arc<Upstream>, NoTarget> {
    super::drains::upstream(name, &Target::Upstream(name.to_owned()), front)
}

async fn find(upstream: &Arc<Upstream>, min_age: Duration, limit: usize, workers: &Workers) -> Found {
    let search = Search { upstream: upstream.name.clone(), min_age, limit, excess: upstream.excess() };
    workers.find_strays(search, upstream).await
}

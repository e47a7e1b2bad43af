//! The drains that operators have asked for: how they begin, how far they have got, how they end.
//!
//! A server that is drained gets nobody new, keeps each of its sessions until its moment, and ends
//! its relays over `spread`. An upstream, or the process, ends what is there: whoever comes back is
//! served as ever. Behind `timeout` what is left is ended at once, but for exchanges under way,
//! which their time-outs bound.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntGauge;

use crate::command::{Board, NoTarget, Pace, Progress, ServerOf, Target, Underway};
use crate::config::{Removed, State};
use crate::exchange::Front;
use crate::handover::Drained;
use crate::relay::EndReason;
use crate::relay::departures::{Began, Drain, DrainId, Whose};
use crate::relay::inbox::Workers;
use crate::upstream::leaving::Leaving;
use crate::upstream::{Server, ServerId, Upstream};

/// All of them, by target: there is one at a time for each.
#[derive(Debug)]
pub(super) struct Drains {
    next_id: u64,
    known: Vec<Underway>,
    /// Where they are shown.
    board: Arc<Board>,
    /// The servers that are down and whose relays end for it, and until when they do.
    lost: Vec<(ServerId, DrainId, Instant)>,
    /// How many of the known ones go on.
    count: IntGauge,
}

impl Drains {
    /// None yet; those that come are shown on `board`, and `count` says how many of them go on.
    pub(super) fn new(board: Arc<Board>, count: IntGauge) -> Self {
        Self { next_id: 0, known: Vec::new(), board, lost: Vec::new(), count }
    }

    /// Begins to drain `target` of what `front` serves; again from the start if it is drained
    /// already.
    pub(super) async fn begin(
        &mut self,
        target: Target,
        pace: Pace,
        front: &Front,
        workers: &Workers,
    ) -> Result<Progress, NoTarget> {
        let mut found = find(&target, front)?;
        found.spread = pace.spread.unwrap_or(found.spread);
        found.timeout = pace.timeout.unwrap_or(found.timeout).max(found.spread);
        if let (Target::Server(_), Some(server)) = (&target, found.servers.first()) {
            server.leave(Leaving { since: Instant::now(), spread: found.spread });
        }
        Ok(self.start(target, found, false, None, workers).await)
    }

    /// What the next process is to go on with.
    pub(super) fn notes(&self) -> impl Iterator<Item = Drained> {
        self.known.iter().map(|known| {
            let Progress { target, elapsed, spread, timeout, open_before, .. } = known.progress();
            let address = known.servers.first().map(|server| server.address).filter(|_| target.is_server());
            Drained { target, address, elapsed, spread, timeout, open_before, is_of_removed: known.is_of_removed }
        })
    }

    /// Goes on with what the process before this one has `drained`.
    pub(super) async fn go_on(&mut self, drained: Drained, front: &Front, workers: &Workers) -> Result<(), NoTarget> {
        let mut found = find(&drained.target, front)?;
        (found.spread, found.timeout) = (drained.spread, drained.timeout);
        if let (Target::Server(_), Some(server)) = (&drained.target, found.servers.first()) {
            server.leave(Leaving { since: ago(drained.elapsed), spread: drained.spread });
        }
        self.start(drained.target.clone(), found, false, Some(&drained), workers).await;
        Ok(())
    }

    /// The servers of `upstream`, with which the process before this one had relays, are not configured any
    /// more: drains them, from where that process was with it, or from the start.
    pub(super) async fn go_on_with_removed(
        &mut self,
        upstream: &Upstream,
        drained: Option<&Drained>,
        workers: &Workers,
    ) {
        for server in &upstream.servers {
            let target = Target::Server(ServerOf { upstream: upstream.name.clone(), server: server.name.clone() });
            let (spread, timeout) = drained
                .map_or((upstream.drain.spread, upstream.drain.timeout), |drained| (drained.spread, drained.timeout));
            let found = Found { servers: vec![server.clone()], whose: Whose::Server(server.id), spread, timeout };
            self.start(target, found, true, drained, workers).await;
        }
    }

    /// Begins, or goes on with what was `drained` already.
    async fn start(
        &mut self,
        target: Target,
        found: Found,
        is_of_removed: bool,
        drained: Option<&Drained>,
        workers: &Workers,
    ) -> Progress {
        self.forget(&target, workers).await;
        let Found { servers, whose, spread, timeout } = found;
        let elapsed = drained.map_or(Duration::ZERO, |drained| drained.elapsed);
        let (began, left) = (ago(elapsed), spread.saturating_sub(elapsed));
        let open_before = drained.map_or_else(|| open(&servers), |drained| drained.open_before);
        tracing::info!("drain: {target}: {} open, relays end over {left:?}", open(&servers));
        self.next_id += 1;
        let id = DrainId(self.next_id);
        let of = match target {
            Target::Server(_) => Began::AnyTime,
            // Whoever has left and come back is served as ever.
            Target::Process | Target::Upstream(_) => Began::Before(elapsed),
        };
        tell(workers, Drain { id, whose, reason: EndReason::Drained, spread: left, began: of }).await;
        let is_over = false;
        let known = Underway { id, target, began, spread, timeout, open_before, servers, is_of_removed, is_over };
        let progress = known.progress();
        self.known.push(known);
        self.show();
        progress
    }

    /// Another configuration is in force, or other servers were found. Those that are gone since
    /// `before` are drained where that is wanted, and those that are back are drained no more.
    pub(super) async fn follow(&mut self, before: &Front, after: &Front, workers: &Workers) {
        let ids = |front: &Front| front.upstreams.iter().flat_map(|it| &it.servers).map(|it| it.id).collect::<Vec<_>>();
        let there = ids(after);
        let is_back = |known: &&Underway| known.is_of_removed && known.servers.iter().any(|it| there.contains(&it.id));
        let back: Vec<_> = self.known.iter().filter(is_back).map(|known| known.target.clone()).collect();
        for target in back {
            tracing::info!("drain: {target}: it is back, so whoever has not left stays");
            self.forget(&target, workers).await;
        }
        for upstream in before.upstreams.iter().filter(|upstream| upstream.drain.removed == Removed::Drain) {
            for server in upstream.servers.iter().filter(|it| !there.contains(&it.id) && it.connections() > 0) {
                let target = Target::Server(ServerOf { upstream: upstream.name.clone(), server: server.name.clone() });
                let (servers, whose) = (vec![server.clone()], Whose::Server(server.id));
                let (spread, timeout) = (upstream.drain.spread, upstream.drain.timeout);
                self.start(target, Found { servers, whose, spread, timeout }, true, None, workers).await;
            }
        }
    }

    /// Who has not left `target` stays, and whoever comes is let in.
    pub(super) async fn undo(&mut self, target: &Target, front: &Front, workers: &Workers) -> Result<(), NoTarget> {
        let found = find(target, front)?;
        self.forget(target, workers).await;
        if let (Target::Server(_), Some(server)) = (target, found.servers.first()) {
            server.order(None);
        }
        tracing::info!("drain: {target}: undone");
        Ok(())
    }

    /// Has `server` be in `state`; it is drained no more.
    pub(super) async fn set_state(
        &mut self,
        server: ServerOf,
        state: Option<State>,
        front: &Front,
        workers: &Workers,
    ) -> Result<(), NoTarget> {
        let target = Target::Server(server);
        let found = find(&target, front)?;
        self.forget(&target, workers).await;
        if let Some(server) = found.servers.first() {
            server.order(state);
            tracing::info!("{target}: {:?} by order", server.state());
        }
        Ok(())
    }

    /// Whether any is to be looked after.
    pub(super) fn is_any(&self) -> bool {
        !self.lost.is_empty() || self.known.iter().any(|known| !known.is_over || known.is_of_removed)
    }

    /// `server` is down, and its relays end over `spread`, unless it is up before.
    pub(super) async fn lose(&mut self, server: ServerId, spread: Duration, workers: &Workers) {
        self.regain(server, workers).await;
        self.next_id += 1;
        let (id, whose) = (DrainId(self.next_id), Whose::Server(server));
        tell(workers, Drain { id, whose, reason: EndReason::ServerDown, spread, began: Began::ALREADY }).await;
        self.lost.push((server, id, Instant::now() + spread));
    }

    /// `server` is up: whoever is still there stays.
    pub(super) async fn regain(&mut self, server: ServerId, workers: &Workers) {
        while let Some(at) = self.lost.iter().position(|(lost, ..)| *lost == server) {
            workers.cancel(self.lost.swap_remove(at).1).await;
        }
    }

    /// Sees who is done, and to the end of whose time is over. To be called every second.
    pub(super) async fn look(&mut self, workers: &Workers) {
        let now = Instant::now();
        // A moment later, for whoever was to be the last.
        while let Some(at) = self.lost.iter().position(|(.., until)| *until + Duration::from_secs(1) < now) {
            workers.cancel(self.lost.swap_remove(at).1).await;
        }
        let mut next_id = self.next_id;
        for known in self.known.iter_mut().filter(|known| !known.is_over) {
            let Progress { target, elapsed, open, .. } = known.progress();
            let is_late = elapsed >= known.timeout;
            // Of an upstream or the process somebody is always there.
            let is_done = if !target.is_server() { elapsed >= known.spread } else { open == 0 };
            if is_done || is_late {
                known.is_over = true;
                tracing::info!("drain: {target}: done after {}s, {open} open", elapsed.as_secs());
            }
            if is_late && let (Target::Server(_), Some(server)) = (&target, known.servers.first()) {
                next_id += 1;
                let (id, whose) = (DrainId(next_id), Whose::Server(server.id));
                let spread = Duration::ZERO;
                tell(workers, Drain { id, whose, reason: EndReason::Drained, spread, began: Began::ALREADY }).await;
                workers.cancel(id).await;
            }
        }
        self.next_id = next_id;
        // An exchange may have begun with a removed server before that was over, so it goes on for newcomers.
        let is_past = |known: &Underway| {
            known.is_over && known.is_of_removed && known.began.elapsed() >= known.timeout && open(&known.servers) == 0
        };
        while let Some(at) = self.known.iter().position(is_past) {
            // The server may come back, and then nobody has to leave it.
            cancel(&self.known.remove(at), workers).await;
        }
        self.show();
    }

    async fn forget(&mut self, target: &Target, workers: &Workers) {
        while let Some(at) = self.known.iter().position(|known| known.target == *target) {
            cancel(&self.known.remove(at), workers).await;
        }
        self.show();
    }

    fn show(&self) {
        let count = self.known.iter().filter(|known| !known.is_over).count();
        self.count.set(i64::try_from(count).unwrap_or(i64::MAX));
        // Of what is gone nothing has to be undone.
        let shown = self.known.iter().filter(|known| !(known.is_over && known.is_of_removed));
        self.board.drains.store(Arc::new(shown.cloned().collect()));
    }
}

/// Has nobody leave by it any more.
async fn cancel(known: &Underway, workers: &Workers) {
    if !workers.cancel(known.id).await {
        tracing::error!("drain: {}: a worker has not heard that it is over", known.target);
    }
}

/// When that began.
pub(super) fn ago(elapsed: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(elapsed).unwrap_or(now)
}

/// What a target is.
struct Found {
    servers: Vec<Arc<Server>>,
    whose: Whose,
    spread: Duration,
    timeout: Duration,
}

fn find(target: &Target, front: &Front) -> Result<Found, NoTarget> {
    let of = |upstream: &Upstream, servers, whose| {
        let config = upstream.drain;
        Found { servers, whose, spread: config.spread, timeout: config.timeout }
    };
    Ok(match target {
        Target::Process => {
            let servers = front.upstreams.iter().flat_map(|upstream| &upstream.servers).cloned().collect();
            Found { servers, whose: Whose::All, spread: front.shutdown.spread, timeout: front.shutdown.grace }
        }
        Target::Upstream(name) => {
            let upstream = upstream(name, target, front)?;
            of(upstream, upstream.servers.clone(), Whose::Upstream(name.clone()))
        }
        Target::Server(of_upstream) => {
            let (upstream, server) = server(of_upstream, front)?;
            of(upstream, vec![server.clone()], Whose::Server(server.id))
        }
    })
}

/// The server of `front` that is meant, and its upstream.
pub(super) fn server<'a>(
    server: &ServerOf,
    front: &'a Front,
) -> Result<(&'a Arc<Upstream>, &'a Arc<Server>), NoTarget> {
    let target = Target::Server(server.clone());
    let upstream = upstream(&server.upstream, &target, front)?;
    let known = || upstream.servers.iter().map(|server| server.name.clone()).collect();
    let found = upstream.server(&server.server).ok_or_else(|| NoTarget { target, known: known() })?;
    Ok((upstream, found))
}

/// The upstream of `front` of this name, which `target` needs.
pub(super) fn upstream<'a>(name: &str, target: &Target, front: &'a Front) -> Result<&'a Arc<Upstream>, NoTarget> {
    let known = || front.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
    let found = front.upstreams.iter().find(|upstream| upstream.name == name);
    found.ok_or_else(|| NoTarget { target: target.clone(), known: known() })
}

fn open(servers: &[Arc<Server>]) -> usize {
    servers.iter().map(|server| server.connections()).sum()
}

async fn tell(workers: &Workers, drain: Drain) {
    if !workers.drain(&Arc::new(drain)).await {
        tracing::error!("drain: a worker has not heard of it: its relays stay");
    }
}

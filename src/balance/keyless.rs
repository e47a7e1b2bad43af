//! Servers for clients that nothing names: whoever has the least to do, or whose turn it is.
//!
//! The choice is among those that take clients and are up, so that what would fall on another one
//! does not all fall on its neighbour. Who warms up counts as if it had so much less weight.

use super::{Candidate, Distinct};

/// The servers by open connections per weight, those that are down last; `tie`, any number, decides
/// among equals.
pub fn least_loaded(count: usize, candidate: impl Fn(usize) -> Candidate, tie: usize) -> Vec<usize> {
    let candidates = (0..count).map(|server| (server, candidate(server)));
    let takers = candidates.filter(|(_, candidate)| candidate.state.takes_clients());
    let (up, down): (Vec<_>, Vec<_>) = takers.partition(|(_, candidate)| candidate.is_up);
    [up, down].into_iter().flat_map(|servers| by_load(servers, tie)).collect()
}

fn by_load(servers: Vec<(usize, Candidate)>, tie: usize) -> impl Iterator<Item = usize> {
    let mut servers: Vec<(f64, usize)> = servers.into_iter().map(|(server, it)| (load(it), server)).collect();
    let turns = tie % servers.len().max(1);
    servers.rotate_right(turns);
    servers.sort_by(|a, b| a.0.total_cmp(&b.0));
    servers.into_iter().map(|(_, server)| server)
}

/// The less loaded of two servers, drawn from `dice`, any random number, each as often as its `part`
/// of all; then the other, and then the rest.
///
/// The second choice keeps loads nearly as even as looking at all of them would, and proxies that
/// do not know of each other do not all run to the same idle server (Mitzenmacher, "The Power of
/// Two Choices in Randomized Load Balancing", 2001).
pub fn random_two(
    count: usize,
    candidate: impl Fn(usize) -> Candidate,
    part: impl Fn(usize) -> u32,
    dice: u64,
) -> impl Iterator<Item = usize> {
    let one = drawn(count, &part, dice >> 32);
    let others = |server| if server == one { 0 } else { part(server) };
    let two = drawn(count, others, dice & u64::from(u32::MAX));
    let (better, worse) = if load(candidate(two)) < load(candidate(one)) { (two, one) } else { (one, two) };
    let rest = (1..count).map(move |step| (better + step) % count);
    Distinct::new([better, worse].into_iter().chain(rest), count)
}

/// One more connection than there are, so that empty servers compare by weight.
fn load(candidate: Candidate) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no process has 2^52 connections")]
    let open = (candidate.open + 1) as f64;
    open / f64::from(candidate.part())
}

/// The server that `dice`, below 2^32, falls on; each is as wide as its part. The first if none has
/// any.
fn drawn(count: usize, part: impl Fn(usize) -> u32, dice: u64) -> usize {
    let total: u64 = (0..count).map(|server| u64::from(part(server))).sum();
    let mut left = (dice * total) >> 32;
    for server in 0..count {
        let width = u64::from(part(server));
        if left < width {
            return server;
        }
        left -= width;
    }
    0
}

/// Turns by weight, those of one server evenly apart.
#[derive(Clone, Debug)]
pub struct RoundRobin {
    /// One round: a server has as many turns as its weight, all divided by what they have in common.
    turns: Vec<u32>,
}

impl RoundRobin {
    /// The round of servers with these weights.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Vec<u32> = weights.into_iter().collect();
        let common = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
        let count = weights.len() as u64;
        let mut turns = Vec::new();
        for (server, weight) in (0..).zip(weights) {
            let weight = u64::from(weight / common);
            turns.extend((0..weight).map(|nth| Turn { server, at: count * nth + u64::from(server), weight }));
        }
        turns.sort_by(|a, b| (a.at * b.weight).cmp(&(b.at * a.weight)));
        Self { turns: turns.into_iter().map(|turn| turn.server).collect() }
    }

    /// The servers that take turns, from this turn of theirs on, each as often as it comes.
    pub fn walk(&self, turn: usize, takes_turns: impl Fn(usize) -> bool + Copy) -> impl Iterator<Item = usize> {
        let turns = self.turns.iter().map(|server| *server as usize).filter(move |server| takes_turns(*server));
        let count = turns.clone().count();
        turns.cycle().skip(turn % count.max(1)).take(count)
    }
}

/// The nth turn of a server stands at `(nth + server / count) / weight` of the round: servers of
/// equal weight do not all begin at once.
struct Turn {
    server: u32,
    /// The dividend, times `count`.
    at: u64,
    weight: u64,
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::WARM;
    use crate::config::State;

    fn candidates(loads: &[(u32, usize)]) -> impl Fn(usize) -> Candidate + Copy {
        |server| Candidate {
            weight: loads[server].0,
            open: loads[server].1,
            is_up: true,
            warmth: WARM,
            state: State::Ready,
        }
    }

    /// Parts of those that work.
    fn parts(candidate: impl Fn(usize) -> Candidate + Copy) -> impl Fn(usize) -> u32 {
        move |server| if candidate(server).works() { candidate(server).part() } else { 0 }
    }

    /// `candidates`, of which one is in `state`.
    fn with(
        state: State,
        who: usize,
        candidates: impl Fn(usize) -> Candidate + Copy,
    ) -> impl Fn(usize) -> Candidate + Copy {
        move |server| match server == who {
            true => Candidate { state, ..candidates(server) },
            false => candidates(server),
        }
    }

    #[test]
    fn the_least_loaded_comes_first() {
        #[track_caller]
        fn check(loads: &[(u32, usize)], expected: [usize; 3]) {
            assert_eq!(least_loaded(loads.len(), candidates(loads), 0), expected, "loads: {loads:?}");
        }

        check(&[(1, 3), (1, 1), (1, 2)], [1, 2, 0]);
        // 4 of weight 4 are less than 2 of weight 1.
        check(&[(1, 2), (4, 4), (1, 3)], [1, 0, 2]);
        // A heavier server takes the first connection.
        check(&[(1, 0), (2, 0), (1, 0)], [1, 0, 2]);
    }

    #[test]
    fn who_is_down_comes_last_and_who_is_cold_late() {
        let loads = [(1, 0), (1, 8), (1, 9), (1, 3)];
        let candidate = |server| Candidate {
            is_up: server != 0 && server != 3,
            // 9 of a half are more than 9 of a whole, and less than the 80 that a tenth counts for.
            warmth: [1000, 100, 500, 1000][server],
            ..candidates(&loads)(server)
        };
        assert_eq!(least_loaded(4, candidate, 0), [2, 1, 0, 3]);
        assert_eq!(least_loaded(4, candidate, 7), [2, 1, 0, 3]);
    }

    #[test]
    fn equals_take_turns() {
        let idle = candidates(&[(1, 0), (1, 0), (1, 0)]);
        let firsts: Vec<usize> = (0..3).map(|tie| least_loaded(3, idle, tie)[0]).collect();
        assert_eq!(firsts, [0, 2, 1]);
    }

    #[test]
    fn who_takes_no_clients_is_left_out_evenly() {
        for state in [State::Drain, State::Maint] {
            let loads = [(1, 0), (1, 0), (1, 0)];
            let two = with(state, 1, candidates(&loads));
            let firsts: Vec<usize> = (0..4).map(|tie| least_loaded(3, two, tie)[0]).collect();
            assert_eq!(firsts, [0, 2, 0, 2]);

            let round = RoundRobin::new([2, 5, 1]);
            let takes_turns = |server| server != 1;
            let firsts: Vec<_> = (0..6).map(|turn| round.walk(turn, takes_turns).next()).collect();
            assert_eq!(firsts, [0, 0, 2, 0, 0, 2].map(Some));

            let mut counts = [0; 3];
            for dice in 0..1_024_u64 {
                counts[random_two(3, two, parts(two), dice << 54).next().expect("there are servers")] += 1;
            }
            assert_eq!(counts, [512, 0, 512]);
        }
    }

    #[test]
    fn a_round_is_fair_and_smooth() {
        #[track_caller]
        fn check(weights: &[u32], expected: &[u32]) {
            assert_eq!(RoundRobin::new(weights.iter().copied()).turns, expected, "weights: {weights:?}");
        }

        check(&[1], &[0]);
        check(&[1, 1, 1], &[0, 1, 2]);
        check(&[256, 256], &[0, 1]);
        check(&[2, 1, 1], &[0, 1, 0, 2]);
        check(&[4, 2], &[0, 0, 1]);
        check(&[5, 1, 1], &[0, 0, 1, 0, 0, 2, 0]);
        check(&[1, 2, 3], &[0, 1, 2, 2, 1, 2]);
    }

    #[test]
    fn turns_go_round_for_ever() {
        let round = RoundRobin::new([2, 1]);
        let first = |turn: usize| round.walk(turn, |_| true).next();
        assert_eq!([0, 1, 2, 3, 4].map(first), [0, 0, 1, 0, 0].map(Some));
        assert!(first(usize::MAX).is_some());
        assert_eq!(round.walk(1, |_| true).collect::<Vec<_>>(), [0, 1, 0]);
    }

    #[test]
    fn of_two_drawn_the_less_loaded_comes_first() {
        #[track_caller]
        fn check(loads: &[(u32, usize)], (one, two): (u64, u64), expected: &[usize]) {
            let dice = one << 32 | two;
            let order: Vec<usize> =
                random_two(loads.len(), candidates(loads), parts(candidates(loads)), dice).collect();
            assert_eq!(order, expected, "{one:#x} and {two:#x} over {loads:?}");
        }

        let most = u64::from(u32::MAX);
        // The second is drawn among the others, so the same number never means the same server.
        check(&[(1, 0), (1, 0), (1, 0)], (0, 0), &[0, 1, 2]);
        check(&[(1, 9), (1, 0), (1, 0)], (0, 0), &[1, 0, 2]);
        check(&[(1, 9), (1, 5), (1, 0)], (0, most), &[2, 0, 1]);
        check(&[(1, 0), (1, 5), (1, 9)], (most, most), &[1, 2, 0]);
        // Three quarters of the draws fall on the heavy one.
        check(&[(1, 0), (3, 9)], (1 << 30, 0), &[0, 1]);
        check(&[(1, 3), (3, 8)], (most / 2, 0), &[1, 0]);
        check(&[(1, 7)], (most, most), &[0]);
    }

    #[test]
    fn draws_fall_by_weight() {
        let loads = [(1, 0), (2, 0), (5, 0)];
        let mut counts = [0; 3];
        for dice in 0..8_000_u64 {
            counts[drawn(3, |server| loads[server].0, dice * (1 << 32) / 8_000)] += 1;
        }
        assert_eq!(counts, [1_000, 2_000, 5_000]);
    }
}

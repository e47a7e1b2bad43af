//! Bounded load: a key passes by servers that hold too many of the open connections (Mirrokni,
//! Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016; `hash-balance-factor`
//! of HAProxy).
//!
//! A server is full when one connection more would exceed `factor` percent of its fair share, which
//! is its part by weight of all open connections and the one to come. A key whose server is full
//! goes to the next one of its walk: where to depends on the loads alone. Full servers come behind
//! the others, for they are better than none. The weight of a server that warms up counts as far as
//! it is warm.
//!
//! # What it costs
//!
//! A hash promises that a key stays as long as its server can be reached, and a session of many
//! requests (long-polling, or a stream beside POSTs) lives by that promise. A bound breaks it: when
//! a server becomes full *between* two requests of a client, the second one goes elsewhere, to a
//! server that does not know the session. No stateless rule has both, for whether the client was
//! here before is just what is not known. Proxies of a fleet each count their own connections, and
//! may disagree on who is full. So:
//!
//! - It is off unless the file says otherwise: sessions come before evenness. It is for clients
//!   whose session is one connection (a WebSocket, an event stream) or that could go anywhere.
//! - It is asked for keys alone. A tag or a cookie of ours leads to the server that holds the
//!   session, full or not, and so makes a bound harmless to all who carry one.
//! - A server with fewer than [`OPEN_MIN`] open connections is never full. Few connections are
//!   uneven by chance, and without a floor a client's own parked poll could fill its server.
//!
//! Loads are those of the moment of choosing: connections made at the same time may exceed a bound
//! by as many as they are.

use super::Candidate;

/// What each server may hold at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Percents of all open connections and one more.
    percents: u64,
    /// A hundred times the parts that share them.
    parts: u64,
}

/// Open connections below which no server is full. At a hundred, 25 percent more is two and a half
/// standard deviations of a share that is left to chance; with fewer a bound fights the dice.
pub const OPEN_MIN: usize = 100;

impl Bound {
    /// The bound of `factor` percent over `candidates`. Those that are down or take no clients have no
    /// part: the others have to do their work, and must not count as full for it.
    pub fn new(factor: u32, candidates: impl Iterator<Item = Candidate>) -> Self {
        let (mut open, mut parts) = (0, 0);
        for candidate in candidates.filter(|candidate| candidate.works()) {
            open += candidate.open as u64;
            parts += u64::from(candidate.part());
        }
        Self { percents: u64::from(factor) * (open + 1), parts: 100 * parts }
    }

    /// Whether `open + 1` exceeds `percents × part / parts`, rounded up; for a whole number `open`
    /// that is so when it is not below the quotient. Nobody is full if everybody is down.
    pub fn is_full(&self, candidate: Candidate) -> bool {
        let (open, part) = (candidate.open, u128::from(candidate.part()));
        open >= OPEN_MIN && open as u128 * u128::from(self.parts) >= u128::from(self.percents) * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::WARM;
    use crate::config::State;

    fn candidate(&(weight, open): &(u32, usize)) -> Candidate {
        Candidate { weight, open, is_up: true, warmth: WARM, state: State::Ready }
    }

    #[track_caller]
    fn check(factor: u32, candidates: &[Candidate], expected: &[bool]) {
        let bound = Bound::new(factor, candidates.iter().copied());
        let full: Vec<bool> = candidates.iter().map(|candidate| bound.is_full(*candidate)).collect();
        assert_eq!(full, expected, "{factor} percent of {candidates:?}");
    }

    #[test]
    fn a_server_is_full_at_its_share_and_the_factor() {
        #[track_caller]
        fn check_loads(factor: u32, loads: &[(u32, usize)], expected: &[bool]) {
            check(factor, &loads.iter().map(candidate).collect::<Vec<_>>(), expected);
        }

        // 1.25 × 1201 / 3 = 500.4
        check_loads(125, &[(1, 500), (1, 350), (1, 350)], &[false, false, false]);
        check_loads(125, &[(1, 501), (1, 350), (1, 349)], &[true, false, false]);
        // 1.5 × 1201 × 2 / 4 = 900.75, and 450.4 for the others
        check_loads(150, &[(2, 900), (1, 151), (1, 149)], &[false, false, false]);
        check_loads(150, &[(2, 901), (1, 149), (1, 150)], &[true, false, false]);
        check_loads(150, &[(2, 300), (1, 450), (1, 450)], &[false, false, false]);
        check_loads(150, &[(2, 299), (1, 451), (1, 450)], &[false, true, false]);
        // Ten times the share of three servers is more than there is.
        check_loads(1000, &[(1, 100_000), (1, 0), (1, 0)], &[false, false, false]);
        check_loads(125, &[(1, 1_000_000)], &[false]);
    }

    #[test]
    fn few_connections_fill_nobody() {
        for open in 0..OPEN_MIN {
            check(101, &[(1, open), (1, 0), (1, 0)].map(|load| candidate(&load)), &[false; 3]);
        }
        check(101, &[(1, OPEN_MIN), (1, 0), (1, 0)].map(|load| candidate(&load)), &[true, false, false]);
    }

    #[test]
    fn who_is_down_leaves_its_part_to_the_others() {
        let mut candidates = [(1, 400), (1, 400), (1, 400), (1, 0)].map(|load| candidate(&load));
        check(125, &candidates, &[true, true, true, false]);
        candidates[3].is_up = false;
        check(125, &candidates, &[false; 4]);
        candidates.iter_mut().for_each(|candidate| candidate.is_up = false);
        check(125, &candidates, &[false; 4]);
    }

    #[test]
    fn who_takes_no_clients_leaves_its_part_to_the_others() {
        for state in [State::Drain, State::Maint] {
            // 1.25 × 1201 / 3 = 500.4: what the fourth still holds is none of the others' business.
            let mut candidates = [(1, 501), (1, 350), (1, 349), (1, 5_000)].map(|load| candidate(&load));
            candidates[3].state = state;
            check(125, &candidates[..3], &[true, false, false]);
            let bound = Bound::new(125, candidates.into_iter());
            assert_eq!([0, 1, 2].map(|server| bound.is_full(candidates[server])), [true, false, false]);
        }
    }

    #[test]
    fn who_is_cold_has_a_smaller_part() {
        let mut candidates = [(1, 400), (1, 400), (1, 400), (1, 110)].map(|load| candidate(&load));
        check(125, &candidates, &[false, false, false, false]);
        // 1.25 × 1311 / 3.1 = 528.6, and a tenth of that.
        candidates[3].warmth = 100;
        check(125, &candidates, &[false, false, false, true]);
    }
}

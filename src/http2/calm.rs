//! How many streams a client may reset: an attack is a flood of requests that cost it nothing
//! because it takes them back at once (CVE-2023-44487). Pure.

use std::time::{Duration, Instant};

/// Counts the resets of one connection.
///
/// As many as the limit are let pass at once, for a browser that leaves a page gives up everything
/// it has asked for; and as many again in each [`Calm::SPAN`].
#[derive(Debug)]
pub struct Calm {
    max: u32,
    /// Resets that have not been forgotten.
    count: u32,
    /// Up to when some have been forgotten.
    since: Instant,
}

impl Calm {
    /// The time in which as many resets as the limit are forgotten.
    pub const SPAN: Duration = Duration::from_secs(10);

    /// Lets `max` resets pass at a time, at least one.
    pub fn new(max: u32, now: Instant) -> Self {
        Self { max: max.max(1), count: 0, since: now }
    }

    /// One more; `false` when it is one too many.
    #[must_use]
    pub fn reset(&mut self, now: Instant) -> bool {
        let every = Self::SPAN / self.max;
        let elapsed = now.saturating_duration_since(self.since);
        let forgotten = u32::try_from(elapsed.as_nanos() / every.as_nanos().max(1)).unwrap_or(u32::MAX);
        if forgotten >= self.count {
            (self.count, self.since) = (0, now);
        } else {
            self.count -= forgotten;
            self.since += every * forgotten;
        }
        self.count += 1;
        self.count <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_does_not() {
        let began = Instant::now();
        let mut calm = Calm::new(100, began);
        for at in 1..=100 {
            assert!(calm.reset(began), "reset {at}");
        }
        assert!(!calm.reset(began));
    }

    #[test]
    fn what_is_slow_enough_may_go_on_for_ever() {
        let began = Instant::now();
        let mut calm = Calm::new(100, began);
        for at in 0..10_000 {
            assert!(calm.reset(began + Calm::SPAN / 100 * at), "reset {at}");
        }
    }

    #[test]
    fn what_is_twice_as_fast_is_stopped() {
        let began = Instant::now();
        let mut calm = Calm::new(100, began);
        let stopped = (0..1_000).find(|at| !calm.reset(began + Calm::SPAN / 200 * *at));
        assert!(stopped.is_some_and(|at| (190..210).contains(&at)), "{stopped:?}");
    }

    #[test]
    fn all_are_forgotten_in_time() {
        let began = Instant::now();
        let mut calm = Calm::new(1, began);
        assert!(calm.reset(began));
        assert!(!calm.reset(began + Calm::SPAN / 2));
        assert!(calm.reset(began + Calm::SPAN * 3));
        assert!(!calm.reset(began + Calm::SPAN * 3));
    }
}

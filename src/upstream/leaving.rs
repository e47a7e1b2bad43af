//! How the sessions of a server that is drained leave it: each has its moment, as relays have. Pure.
//!
//! A session of many requests is at home at one server, so it cannot move from one request to the
//! next without being lost there. Until its moment it stays; behind it its client is told, or finds
//! out, that it has to begin a new one, which another server gets. The moment follows from what
//! names the session, so every request of it finds the same.

use std::time::{Duration, Instant};

/// The sessions of a server leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// When they have begun to.
    pub since: Instant,
    /// Over what time.
    pub spread: Duration,
}

impl Leaving {
    /// Whether the moment of the session that `name` hashes has come by `now`. Its upper bits decide.
    pub fn is_gone(&self, name: u64, now: Instant) -> bool {
        let spread = u64::try_from(self.spread.as_millis()).unwrap_or(u64::MAX);
        let moment = (u128::from(spread) * u128::from(name)) >> 64;
        now.saturating_duration_since(self.since).as_millis() >= moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_leave_evenly_and_stay_gone() {
        let since = Instant::now();
        let leaving = Leaving { since, spread: Duration::from_secs(20) };
        let names = |count: u64| (0..count).map(move |at| u64::MAX / count * at);
        let gone =
            |seconds| names(1000).filter(|name| leaving.is_gone(*name, since + Duration::from_secs(seconds))).count();
        assert_eq!([0, 5, 10, 15, 20, 3600].map(gone), [1, 251, 501, 751, 1000, 1000]);
        assert!(names(1000).all(|name| Leaving { spread: Duration::ZERO, ..leaving }.is_gone(name, since)));
    }
}

//! Whether to ask a store that may be away: so that not every request waits for it, and so that
//! its comings and goings are said once each.
//!
//! ```text
//!            failed                 after PAUSE, to one
//! Closed ────────────▶ Open ───────────────────────────▶ probe
//!   ▲                   ▲   failed, or never heard of       │ │
//!   │                   └───────────────────────────────────┘ │
//!   └─────────────────────────────────────────────────────────┘ answered
//! ```
//!
//! Pure: time is an argument.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// See the module's picture. Shared by all threads.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the next one may ask, while open.
    open_until: Option<Instant>,
    /// When it was closed the last time.
    closed_at: Option<Instant>,
    /// Whether the store was said to be away, and not yet to be back.
    is_said: bool,
}

/// The right to ask once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Usual,
    /// To see whether the store is back.
    Probe,
}

impl Breaker {
    /// How long nobody asks after a failure.
    const PAUSE: Duration = Duration::from_secs(1);
    /// How long a store answers before it is said to be back: one that is slow now and then would
    /// come and go every second.
    const CALM: Duration = Duration::from_secs(2);

    /// May somebody ask at `now`?
    pub(super) fn pass(&self, now: Instant) -> Option<Pass> {
        let mut state = self.state();
        match state.open_until {
            None => Some(Pass::Usual),
            Some(until) if now < until => None,
            Some(_) => {
                state.open_until = Some(now + Self::PAUSE);
                Some(Pass::Probe)
            }
        }
    }

    /// An answer came. Whether it is to be said that the store is back.
    pub(super) fn answered(&self, pass: Pass, now: Instant) -> bool {
        let mut state = self.state();
        // What was asked before the failure says nothing about the time after.
        if pass == Pass::Probe && state.open_until.take().is_some() {
            state.closed_at = Some(now);
        }
        let is_calm = state.closed_at.is_some_and(|at| Self::CALM <= now.saturating_duration_since(at));
        let is_news = state.is_said && state.open_until.is_none() && is_calm;
        if is_news {
            state.is_said = false;
        }
        is_news
    }

    /// No answer came. Whether it is to be said that the store is away.
    pub(super) fn failed(&self, now: Instant) -> bool {
        let mut state = self.state();
        state.open_until = Some(now + Self::PAUSE);
        !std::mem::replace(&mut state.is_said, true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Event {
        /// Somebody wants to ask, and gets this.
        Asks(Option<Pass>),
        /// An answer comes; whether that is news.
        Answered(Pass, bool),
        /// None comes; whether that is news.
        Failed(bool),
    }

    #[test]
    fn a_store_that_is_away_is_asked_once_a_second_and_spoken_of_twice() {
        use Event::{Answered, Asks, Failed};
        use Pass::{Probe, Usual};

        let breaker = Breaker::default();
        let start = Instant::now();
        for (at, event) in [
            (0, Asks(Some(Usual))),
            (0, Answered(Usual, false)),
            (100, Failed(true)),
            // Whoever asked at the same time fails as well, or is lucky.
            (110, Failed(false)),
            (120, Answered(Usual, false)),
            (900, Asks(None)),
            (1110, Asks(Some(Probe))),
            (1110, Asks(None)),
            (1160, Failed(false)),
            (2100, Asks(None)),
            (2160, Asks(Some(Probe))),
            // A probe that is never heard of, because its client has left, is followed by another.
            (3150, Asks(None)),
            (3160, Asks(Some(Probe))),
            (3161, Answered(Probe, false)),
            (3162, Asks(Some(Usual))),
            // Back, but not for long: no word of it.
            (4000, Failed(false)),
            (5000, Asks(Some(Probe))),
            (5001, Answered(Probe, false)),
            (6000, Answered(Usual, false)),
            (7001, Answered(Usual, true)),
            (7002, Answered(Usual, false)),
            (7003, Failed(true)),
        ] {
            let now = start + Duration::from_millis(at);
            match event {
                Asks(expected) => assert_eq!(breaker.pass(now), expected, "at {at} ms"),
                Answered(pass, expected) => assert_eq!(breaker.answered(pass, now), expected, "at {at} ms"),
                Failed(expected) => assert_eq!(breaker.failed(now), expected, "at {at} ms"),
            }
        }
    }
}

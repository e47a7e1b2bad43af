//! What is said in the log of what any client may do wrong, as often as it likes: once a minute, and
//! how often it was left out.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What has been said for each of `REASONS` reasons.
#[derive(Debug)]
pub struct Sayings<const REASONS: usize>(Mutex<[Said; REASONS]>);

impl<const REASONS: usize> Default for Sayings<REASONS> {
    fn default() -> Self {
        Self(Mutex::new([Said::default(); REASONS]))
    }
}

impl<const REASONS: usize> Sayings<REASONS> {
    /// Has `say` said unless the same reason was spoken of just now. It gets what to add of those
    /// that were left out.
    pub fn say(&self, reason: usize, say: impl FnOnce(&str)) {
        let again = self.0.lock().unwrap_or_else(PoisonError::into_inner)[reason].again(Instant::now());
        match again {
            None => {}
            Some(0) => say(""),
            Some(left_out) => say(&format!(" ({left_out} more since the last line)")),
        }
    }
}

/// What the log has said of a reason.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    at: Option<Instant>,
    /// How often it was not said since.
    left_out: u64,
}

impl Said {
    /// Least time between two lines of one reason.
    const EVERY: Duration = Duration::from_secs(60);

    /// Whether to say it again at `now`, and how often it was left out before.
    fn again(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now < at + Self::EVERY) {
            self.left_out += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_a_minute() {
        let began = Instant::now();
        let mut said = Said::default();
        assert_eq!(said.again(began), Some(0));
        assert_eq!(said.again(began), None);
        assert_eq!(said.again(began + Said::EVERY / 2), None);
        assert_eq!(said.again(began + Said::EVERY), Some(2));
        assert_eq!(said.again(began + Said::EVERY), None);
        assert_eq!(said.again(began + Said::EVERY * 3), Some(1));
    }
}

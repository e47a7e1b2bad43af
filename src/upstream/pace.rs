//! How fast an upstream takes those who come to stay: after a restart all of them come back at once,
//! and servers that could carry them for hours cannot greet them in a second.
//!
//! ```text
//! a newcomer ─┬─ the bucket has a token: on
//!             ├─ fewer than `waiting_max` wait: in line, one by one as tokens come, at most `queue`
//!             └─ the line is full, or it took too long: to come later
//! ```
//!
//! The line is a fair lock: whoever stands first holds it until there is a token, and whoever leaves,
//! wherever in the line, drops their place in it. So nothing has to be given back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::{sleep_until, timeout};

use crate::config::Pacing;

/// The pace of one upstream, the same for all threads.
#[derive(Debug)]
pub struct Pace {
    pacing: Pacing,
    bucket: Mutex<Bucket>,
    waiting: AtomicUsize,
    /// As many as get a token within `queue`: anybody behind them would wait in vain.
    waiting_max: usize,
}

/// How somebody was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// At once.
    AtOnce,
    /// After some time in line.
    Waited,
}

/// There is no token for it soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

impl Pace {
    /// The pace that `pacing` allows, from now on.
    pub fn new(pacing: Pacing) -> Self {
        let Pacing { per_second, queue } = pacing;
        let in_time = (queue.as_secs_f64() * f64::from(per_second)).ceil();
        Self {
            pacing,
            bucket: Mutex::new(Bucket::new(per_second, Instant::now())),
            waiting: AtomicUsize::new(0),
            waiting_max: in_time as usize, // Saturates, and both factors have bounds.
        }
    }

    /// Whether it is what `pacing` allows.
    pub fn is_of(&self, pacing: Pacing) -> bool {
        self.pacing == pacing
    }

    /// Waits for a token. Dropped before that, it leaves nothing behind.
    ///
    /// # Errors
    /// When too many wait already, or it took too long.
    pub async fn token(&self) -> Result<Passage, TooMany> {
        // Fails while anybody is in line: nobody is overtaken.
        if let Ok(mut bucket) = self.bucket.try_lock()
            && bucket.take(Instant::now()).is_ok()
        {
            return Ok(Passage::AtOnce);
        }
        let _place = Place::among(&self.waiting, self.waiting_max).ok_or(TooMany)?;
        let in_line = async {
            let mut bucket = self.bucket.lock().await;
            while let Err(at) = bucket.take(Instant::now()) {
                sleep_until(at.into()).await;
            }
        };
        timeout(self.pacing.queue, in_line).await.map_err(|_| TooMany)?;
        Ok(Passage::Waited)
    }
}

/// Counts one who waits, until dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn among(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tokens, as many per second as are taken at most in the long run. Pure.
///
/// All it knows is when it will be full again; a token makes that one interval later.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    interval: Duration,
    /// How long an empty one takes to be full.
    depth: Duration,
    full_at: Instant,
}

impl Bucket {
    /// What may go at once after a pause is a tenth of a second's worth, at least one.
    fn new(per_second: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, depth: interval * (per_second / 10).max(1), full_at: now }
    }

    /// Takes a token at `now`.
    ///
    /// # Errors
    /// When there will be one.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.max(now) + self.interval;
        match full_at.checked_sub(self.depth).filter(|at| *at > now) {
            Some(at) => Err(at),
            None => {
                self.full_at = full_at;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn tokens_come_at_their_pace() {
        let began = Instant::now();
        let mut bucket = Bucket::new(100, began);
        for _ in 0..10 {
            assert_eq!(bucket.take(began), Ok(()));
        }
        assert_eq!(bucket.take(began), Err(began + 10 * MS));
        assert_eq!(bucket.take(began + 9 * MS), Err(began + 10 * MS));
        assert_eq!(bucket.take(began + 10 * MS), Ok(()));
        assert_eq!(bucket.take(began + 10 * MS), Err(began + 20 * MS));
        // A long pause saves no more than a tenth of a second.
        let later = began + 10_000 * MS;
        assert_eq!((0..20).filter(|_| bucket.take(later).is_ok()).count(), 10);

        let mut slow = Bucket::new(1, began);
        assert_eq!(slow.take(began), Ok(()));
        assert_eq!(slow.take(began + 999 * MS), Err(began + 1000 * MS));
        assert_eq!(slow.take(began + 1000 * MS), Ok(()));
    }

    proptest! {
        /// In no span of time are more taken than its length and the depth allow.
        #[test]
        fn never_more_than_the_pace(per_second in 1_u32..2000, steps in prop::collection::vec(0_u64..50, 1..300)) {
            let began = Instant::now();
            let (mut bucket, mut now, mut taken) = (Bucket::new(per_second, began), began, 0_u32);
            for step in steps {
                now += MS * step as u32;
                taken += u32::from(bucket.take(now).is_ok());
                let most = (per_second / 10).max(1) + ((now - began).as_secs_f64() * f64::from(per_second)) as u32;
                prop_assert!(taken <= most + 1, "{taken} in {:?}", now - began);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_bounded_and_whoever_leaves_frees_a_place() {
        let pace = Pace::new(Pacing { per_second: 1, queue: Duration::from_secs(2) });
        assert_eq!(pace.token().await, Ok(Passage::AtOnce));
        {
            let mut first = Box::pin(pace.token());
            let mut second = Box::pin(pace.token());
            assert!(futures_util::poll!(&mut first).is_pending());
            assert!(futures_util::poll!(&mut second).is_pending());
            assert_eq!(pace.token().await, Err(TooMany));
            drop(second);
            let mut third = Box::pin(pace.token());
            assert!(futures_util::poll!(&mut third).is_pending());
            assert_eq!(pace.token().await, Err(TooMany));
        }
        assert_eq!(pace.waiting.load(Ordering::Relaxed), 0);
        assert!(pace.bucket.try_lock().is_ok());
    }
}

//! Which server issued a session, for sessions that carry no tag of ours.
//!
//! One process remembers by itself, in [`memory`]; several proxies share a Redis, and then the
//! memory is a cache in front of it. A store never fails: what it cannot tell in time is unknown.

mod breaker;
mod link;
pub mod memory;
mod redis;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::memory::{Memory, Second};
use self::redis::{Near, Redis};
use crate::affinity::learned::{ServerName, SessionId};
use crate::config;
use crate::observe::metrics::{Metrics, SessionStoreMetrics};

/// When a store begins: so that sessions may be older than it is, by years.
const FIRST: Second = Second(1 << 31);

/// What is known of a session, on its way to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// Which session.
    pub session: SessionId,
    /// The server that issued it.
    pub server: ServerName,
    /// Seconds since it was used.
    pub unused: u32,
}

/// Remembers who issued a session. All threads share it.
#[derive(Debug)]
pub struct SessionStore {
    config: config::SessionStore,
    memory: Memory,
    redis: Option<Redis>,
    began: Instant,
    metrics: SessionStoreMetrics,
}

impl SessionStore {
    /// A store that knows nothing yet. Connects to nothing either, before it is first asked.
    pub fn new(config: &config::SessionStore, metrics: &Metrics) -> Self {
        let metrics = metrics.session_store();
        metrics.max.set(i64::try_from(config.sessions).unwrap_or(i64::MAX));
        Self {
            config: config.clone(),
            memory: Memory::new(config.sessions, config.idle),
            redis: config.redis.as_ref().map(|redis| Redis::new(redis, config.idle, metrics.clone())),
            began: Instant::now(),
            metrics,
        }
    }

    /// Whether it is the one that `config` describes.
    pub fn is_of(&self, config: &config::SessionStore) -> bool {
        self.config == *config
    }

    /// The server that issued `session`, which counts as a use. `None` when it is unknown, or
    /// cannot be found out in time.
    pub async fn find(&self, session: SessionId) -> Option<ServerName> {
        let near = self.near();
        let found = match &self.redis {
            None => self.memory.find(session, near.now).map(|known| known.server),
            // Boxed, so that those who ask memory do not carry the weight of Redis.
            Some(redis) => Box::pin(redis.find(session, &near)).await,
        };
        self.count();
        found
    }

    /// Remembers that the server called `server` issued `session`. Returns when that is stored, or
    /// when the time for it is over.
    pub async fn learn(&self, session: SessionId, server: &str) {
        let near = self.near();
        match &self.redis {
            None => near.learn(session, ServerName::of(server), None),
            Some(redis) => Box::pin(redis.learn(session, server, &near)).await,
        }
        self.count();
    }

    /// What this process alone remembers of the sessions that were used within this time; nothing where
    /// several share what they know.
    pub fn used_within(&self, time: Duration) -> impl Iterator<Item = Learned> {
        let now = self.near().now;
        let seconds = memory::seconds_up(time);
        let memory = self.redis.is_none().then_some(&self.memory);
        let known = memory.into_iter().flat_map(move |memory| memory.used_within(seconds, now));
        known.map(move |(session, known, used)| Learned { session, server: known.server, unused: now.since(used) })
    }

    /// Remembers what another process has, if this one alone has to.
    pub fn inherit(&self, learned: &[Learned]) {
        if self.redis.is_some() {
            return;
        }
        let near = self.near();
        for Learned { session, server, unused } in learned {
            let used = Second(near.now.0.saturating_sub(*unused));
            Near { now: used, ..near }.learn(*session, *server, None);
        }
        self.count();
    }

    fn near(&self) -> Near<'_> {
        let now = u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX);
        let now = Second(FIRST.0.saturating_add(now));
        Near { memory: &self.memory, metrics: &self.metrics, now }
    }

    /// Of two threads that do this at once the later one may have looked earlier; the next puts
    /// that right.
    fn count(&self) {
        self.metrics.sessions.set(i64::try_from(self.memory.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u32) -> SessionId {
        SessionId::of("cookie:sid", &number.to_be_bytes())
    }

    #[tokio::test]
    async fn what_was_learned_is_found_and_counted() {
        let metrics = Metrics::new();
        let store = SessionStore::new(&config::SessionStore { sessions: 1000, ..Default::default() }, &metrics);
        assert_eq!(store.find(session(1)).await, None);
        store.learn(session(1), "a").await;
        store.learn(session(2), "b").await;
        store.learn(session(2), "c").await;
        assert_eq!(store.find(session(1)).await, Some(ServerName::of("a")));
        assert_eq!(store.find(session(2)).await, Some(ServerName::of("c")));
        assert_eq!(metrics.session_store().sessions.get(), 2);
        assert_eq!(metrics.session_store().evicted.get(), 0);
        for number in 0..2000 {
            store.learn(session(number), "a").await;
        }
        let held = metrics.session_store().sessions.get();
        assert!((900..=1000).contains(&held), "{held}");
        assert_eq!(metrics.session_store().evicted.get(), 2000 - held as u64);
    }

    #[tokio::test]
    async fn another_process_inherits_what_this_one_alone_has_learned() {
        let store = || {
            let config = config::SessionStore { idle: Duration::from_secs(100), ..Default::default() };
            SessionStore::new(&config, &Metrics::new())
        };
        let (old, new) = (store(), store());
        old.learn(session(1), "a").await;
        old.learn(session(2), "b").await;
        let mut learned: Vec<_> = old.used_within(Duration::MAX).collect();
        assert_eq!(learned.len(), 2);
        // One of them was last used some time before the new process began, and long ago for its own clock.
        learned.sort_by_key(|it| it.server == ServerName::of("b"));
        learned[0].unused = 90;
        learned[1].unused = 101;
        new.inherit(&learned);
        assert_eq!(new.find(session(1)).await, Some(ServerName::of("a")));
        assert_eq!(new.find(session(2)).await, None);
    }

    #[test]
    fn whoever_asks_memory_carries_little() {
        let store = SessionStore::new(&config::SessionStore::default(), &Metrics::new());
        let bytes = size_of_val(&store.find(session(1)));
        assert!(bytes <= 128, "{bytes} bytes");
    }
}

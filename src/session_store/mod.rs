//! Which server issued a session, for sessions that carry no tag of ours.
//!
//! One process remembers by itself, in [`memory`]; several proxies share a Redis, and then the
//! memory is a cache in front of it. A store never fails: what it cannot tell in time is unknown.

mod breaker;
mod link;
pub mod memory;
mod redis;

use std::time::{Duration, Instant};

use self::memory::{Memory, Second};
use self::redis::{Near, Redis};
use crate::affinity::learned::{ServerName, SessionId};
use crate::config;
use crate::observe::metrics::{Metrics, SessionStoreMetrics};

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

    fn near(&self) -> Near<'_> {
        let now = self.began.elapsed().min(Duration::from_secs(u64::from(u32::MAX))).as_secs();
        let now = Second(u32::try_from(now).unwrap_or(u32::MAX));
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

    #[test]
    fn whoever_asks_memory_carries_little() {
        let store = SessionStore::new(&config::SessionStore::default(), &Metrics::new());
        let bytes = size_of_val(&store.find(session(1)));
        assert!(bytes <= 128, "{bytes} bytes");
    }
}

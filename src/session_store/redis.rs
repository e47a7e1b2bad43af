//! Sessions in a Redis that several proxies share, behind a cache in this process.
//!
//! ```text
//! find ─ near cache ─ heard within FRESH ──▶ answer
//!            │ else
//!            ▼
//!          Redis ─┬─ a name ─▶ remember it near, answer
//!                 ├─ nothing ─▶ tell it what is known near, answer that
//!                 └─ away, or too slow ─▶ answer what is known near, of whatever age
//! ```
//!
//! A request waits for Redis for `timeout` at most, all in all, and never when the [`Breaker`] is
//! open. Nothing here fails: what cannot be found out is unknown, and then the next source of
//! affinity decides.
//!
//! A session is one key, `steadfast:session:` and its id in hex; the value is the name of its
//! server, for people to read. GET, SET and EXPIRE are all that is used, so Redis 5 will do.

use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use redis::{Pipeline, Value};

use super::breaker::{Breaker, Pass};
use super::link::{Broken, Links, refusal};
use super::memory::{Known, Memory, Second, seconds_up};
use crate::affinity::learned::{ServerName, SessionId};
use crate::config;
use crate::observe::metrics::SessionStoreMetrics;

/// A Redis, and what this process knows of it.
#[derive(Debug)]
pub(super) struct Redis {
    links: Links,
    breaker: Breaker,
    names: Names,
    /// How it is called in the log: without a login.
    place: String,
    timeout: Duration,
    /// Time to live of a key, in seconds.
    idle: u32,
    /// What was heard so many seconds ago is not asked again.
    fresh: u32,
    /// Seconds after which a refusal may be told again.
    refusal_told: AtomicU32,
    metrics: SessionStoreMetrics,
}

impl Redis {
    /// Redis does not hear of the use of a session for so many seconds; the session must be much
    /// longer-lived than that.
    const FRESH_MAX: u32 = 10;
    /// Between two warnings of refusals.
    const REFUSALS_EVERY: u32 = 60;

    pub(super) fn new(redis: &config::Redis, idle: Duration, metrics: SessionStoreMetrics) -> Self {
        let host = if redis.host.contains(':') { format!("[{}]", redis.host) } else { redis.host.clone() };
        let idle = seconds_up(idle);
        Self {
            links: Links::new(redis.clone()),
            breaker: Breaker::default(),
            names: Names::default(),
            place: format!("redis://{host}:{}/{}", redis.port, redis.db),
            timeout: redis.timeout,
            idle,
            fresh: Self::FRESH_MAX.min(idle / 4),
            refusal_told: AtomicU32::new(0),
            metrics,
        }
    }

    /// Who issued `session`, when `near` does not know for certain.
    pub(super) async fn find(&self, session: SessionId, near: &Near<'_>) -> Option<ServerName> {
        let known = near.memory.find(session, near.now);
        if known.is_some_and(|known| self.is_fresh(known, near.now)) {
            return known.map(|known| known.server);
        }
        let deadline = tokio::time::Instant::now() + self.timeout;
        let server = known.map(|known| known.server);
        let mut look_up = redis::pipe();
        let key = key(session);
        look_up.cmd("GET").arg(&key).cmd("EXPIRE").arg(&key).arg(self.idle);
        let Some(answers) = self.ask(&look_up, deadline, near.now).await else {
            return server;
        };
        match answers.first() {
            Some(Value::BulkString(value)) => {
                let Some(found) = self.names.read(value) else { return server };
                near.learn(session, found, Some(near.now));
                Some(found)
            }
            Some(Value::Nil) => {
                if let Some(name) = server.and_then(|server| self.names.text(server)) {
                    // NX: another proxy may have been faster, and know better.
                    self.tell(session, &name, Some("NX"), deadline, near).await;
                }
                server
            }
            _ => server,
        }
    }

    /// Remembers who issued `session`, here and there.
    pub(super) async fn learn(&self, session: SessionId, name: &str, near: &Near<'_>) {
        let server = self.names.learn(name);
        let known = near.memory.find(session, near.now);
        if known.is_some_and(|known| known.server == server && self.is_fresh(known, near.now)) {
            return; // A server that sets its cookie with every response says nothing new.
        }
        // Not confirmed: if Redis cannot hear it now, it will when the session is next looked up.
        near.learn(session, server, None);
        let deadline = tokio::time::Instant::now() + self.timeout;
        self.tell(session, name, None, deadline, near).await;
    }

    async fn tell(
        &self,
        session: SessionId,
        name: &str,
        only_if: Option<&str>,
        deadline: tokio::time::Instant,
        near: &Near<'_>,
    ) {
        let mut store = redis::pipe();
        store.cmd("SET").arg(key(session)).arg(name).arg("EX").arg(self.idle).arg(only_if);
        let answers = self.ask(&store, deadline, near.now).await;
        if answers.is_some_and(|answers| answers == [Value::Okay]) {
            near.learn(session, ServerName::of(name), Some(near.now));
        }
    }

    /// The answers to `commands`; `None` when there are none in time. Counts and says what is wrong.
    async fn ask(&self, commands: &Pipeline, deadline: tokio::time::Instant, now: Second) -> Option<Vec<Value>> {
        let Some(pass) = self.breaker.pass(Instant::now()) else {
            self.metrics.not_asked.inc();
            return None;
        };
        let is_made = self.links.is_made();
        match tokio::time::timeout_at(deadline, self.links.send(commands)).await {
            Ok(Ok(answers)) => {
                self.answered(pass);
                if let Some(refusal) = answers.iter().find_map(refusal) {
                    self.refused(&refusal, now);
                }
                Some(answers)
            }
            Ok(Err(broken)) => {
                match &broken {
                    Broken::Refused(_) => self.metrics.refused.inc(),
                    Broken::Unavailable(_) => self.metrics.unavailable.inc(),
                }
                self.failed(&broken.to_string());
                None
            }
            Err(_) => {
                self.metrics.timeout.inc();
                // A connection that is silent may be dead. One in the making goes on: on a long
                // way to Redis it needs more time than any request has.
                if is_made {
                    self.links.renew();
                }
                self.failed(&format!("no answer within {:?}", self.timeout));
                None
            }
        }
    }

    fn answered(&self, pass: Pass) {
        if self.breaker.answered(pass, Instant::now()) {
            tracing::info!("session_store {}: answers again, and proxies share sessions again", self.place);
        }
    }

    fn failed(&self, why: &str) {
        if self.breaker.failed(Instant::now()) {
            tracing::warn!(
                "session_store {}: unavailable: {why}; sessions that this process has met keep their servers, others \
                 go on by the next source of their affinity; it is asked again every second",
                self.place
            );
        }
    }

    /// Redis answers, but does not do what it was asked: it is a replica, or full, or locked.
    fn refused(&self, refusal: &str, now: Second) {
        self.metrics.refused.inc();
        let told = self.refusal_told.load(Ordering::Relaxed);
        let next = now.0.saturating_add(Self::REFUSALS_EVERY);
        let is_due = now.0 >= told;
        if is_due && self.refusal_told.compare_exchange(told, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(
                "session_store {}: refuses: {refusal}; sessions that this process has met keep their servers, but \
                 other proxies may not find them (said once a minute at most)",
                self.place
            );
        }
    }

    fn is_fresh(&self, known: Known, now: Second) -> bool {
        known.confirmed.is_some_and(|confirmed| now.since(confirmed) < self.fresh)
    }
}

/// What this process remembers, at one moment.
pub(super) struct Near<'a> {
    pub(super) memory: &'a Memory,
    pub(super) metrics: &'a SessionStoreMetrics,
    pub(super) now: Second,
}

impl Near<'_> {
    pub(super) fn learn(&self, session: SessionId, server: ServerName, confirmed: Option<Second>) {
        if self.memory.learn(session, Known { server, confirmed }, self.now) {
            self.metrics.evicted.inc();
        }
    }
}

fn key(session: SessionId) -> String {
    let mut key = String::with_capacity(50);
    key.push_str("steadfast:session:");
    for byte in session.bytes() {
        write!(key, "{byte:02x}").expect("a string takes everything");
    }
    key
}

/// The texts of the names that sessions are remembered with.
#[derive(Debug, Default)]
struct Names(Mutex<AHashMap<ServerName, Arc<str>>>);

impl Names {
    /// Ten times the servers of any fleet. What is beyond can be found, but not told again.
    const MAX: usize = 10_000;
    const BYTES_MAX: usize = 64;

    fn learn(&self, text: &str) -> ServerName {
        let name = ServerName::of(text);
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < Self::MAX {
            names.entry(name).or_insert_with(|| text.into());
        }
        name
    }

    /// The name that a value is; `None` for what no server can be called.
    fn read(&self, value: &[u8]) -> Option<ServerName> {
        let is_name = (1..=Self::BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        let text = std::str::from_utf8(value).ok().filter(|_| is_name)?;
        Some(self.learn(text))
    }

    fn text(&self, name: ServerName) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }
}

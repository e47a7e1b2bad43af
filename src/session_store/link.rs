//! Connections to Redis: one for each thread, made when first needed.
//!
//! All requests of a thread share its connection, their commands in a row behind each other. A
//! connection is made by a task of its own, so that it comes to be even if nobody can wait for it
//! that long. A thread does not know the connections of another; when one has met a Redis that is
//! silent, [`Links::renew`] makes all of them take a new one.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, Pipeline, RedisError, ServerError, Value};
use tokio::sync::watch;

use crate::config::Redis;

thread_local! {
    static LINKS: RefCell<Vec<Link>> = RefCell::default();
}

/// A thread's connection to one Redis, made or in the making.
#[derive(Clone)]
struct Link {
    /// Which Redis.
    owner: Weak<Shared>,
    number: u64,
    outcome: watch::Receiver<Outcome>,
}

/// `None` while it is in the making.
type Outcome = Option<Result<MultiplexedConnection, Broken>>;

/// Why there is no connection, in Redis's words or the system's.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("{0}")]
    Unavailable(String),
    /// Redis said no.
    #[error("{0}")]
    Refused(String),
}

/// The connections of all threads to one Redis.
#[derive(Debug)]
pub(super) struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    redis: Redis,
    /// Links below this number are not used any more.
    fresh_from: AtomicU64,
    /// The number of the next link.
    next: AtomicU64,
}

impl Links {
    pub(super) fn new(redis: Redis) -> Self {
        Self { shared: Arc::new(Shared { redis, fresh_from: AtomicU64::new(0), next: AtomicU64::new(0) }) }
    }

    /// Sends commands, none of which may do harm when done twice, and gets an answer to each.
    pub(super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, Broken> {
        loop {
            let link = self.link();
            let is_used = link.outcome.borrow().is_some();
            let error = match self.connection(&link).await {
                Err(broken) => broken,
                Ok(mut connection) => match connection.req_packed_commands(commands, 0, commands.len()).await {
                    Ok(answers) => return Ok(answers),
                    Err(error) => Broken::Unavailable(text(&error)),
                },
            };
            forget(&link);
            // A connection may have been closed while nobody used it: that is no failure.
            if !is_used {
                return Err(error);
            }
        }
    }

    /// Whether this thread's connection is past its making.
    pub(super) fn is_made(&self) -> bool {
        let owner = Arc::downgrade(&self.shared);
        let is_made = |link: &Link| link.owner.ptr_eq(&owner) && link.outcome.borrow().is_some();
        LINKS.with_borrow(|links| links.iter().any(is_made))
    }

    /// Makes every thread take a new connection.
    pub(super) fn renew(&self) {
        self.shared.fresh_from.store(self.shared.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    async fn connection(&self, link: &Link) -> Result<MultiplexedConnection, Broken> {
        let mut outcome = link.outcome.clone();
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(Broken::Unavailable("the thread that connected has ended".to_owned())),
        }
    }

    /// This thread's link; begins one if there is none.
    fn link(&self) -> Link {
        let owner = Arc::downgrade(&self.shared);
        let fresh_from = self.shared.fresh_from.load(Ordering::Relaxed);
        LINKS.with_borrow_mut(|links| {
            // Also those of stores that are gone.
            links.retain(|link| {
                let is_stale = link.owner.ptr_eq(&owner) && link.number < fresh_from;
                link.owner.strong_count() > 0 && !is_stale
            });
            if let Some(link) = links.iter().find(|link| link.owner.ptr_eq(&owner)) {
                return link.clone();
            }
            let (report, outcome) = watch::channel(None);
            let redis = self.shared.redis.clone();
            tokio::spawn(async move {
                let outcome = connect(&redis).await;
                report.send_replace(Some(outcome));
            });
            let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let link = Link { owner, number, outcome };
            links.push(link.clone());
            link
        })
    }
}

/// Takes `link` away, unless a later one has its place already.
fn forget(link: &Link) {
    let is_it = |other: &Link| other.owner.ptr_eq(&link.owner) && other.number == link.number;
    LINKS.with_borrow_mut(|links| links.retain(|other| !is_it(other)));
}

async fn connect(redis: &Redis) -> Result<MultiplexedConnection, Broken> {
    match tokio::time::timeout(CONNECT_MAX, connect_and_log_in(redis)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Broken::Unavailable(format!("no connection within {CONNECT_MAX:?}"))),
    }
}

/// Logs in by commands of our own: the crate would not pass on what Redis says to them.
async fn connect_and_log_in(redis: &Redis) -> Result<MultiplexedConnection, Broken> {
    let unavailable = |error: RedisError| Broken::Unavailable(text(&error));
    let address = ConnectionAddr::Tcp(redis.host.clone(), redis.port);
    let client = Client::open(address).map_err(unavailable)?;
    let client = client.get_connection_info().clone();
    let quiet = client.redis_settings().clone().set_skip_set_lib_name();
    let client = Client::open(client.set_redis_settings(quiet)).map_err(unavailable)?;
    let times = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&times).await.map_err(unavailable)?;

    let mut commands = redis::pipe();
    if let Some(password) = &redis.password {
        commands.cmd("AUTH");
        if let Some(user) = &redis.user {
            commands.arg(user);
        }
        commands.arg(&password.0);
    }
    if redis.db != 0 {
        commands.cmd("SELECT").arg(redis.db);
    }
    if !commands.is_empty() {
        let answers = connection.req_packed_commands(&commands, 0, commands.len()).await.map_err(unavailable)?;
        if let Some(refusal) = answers.iter().find_map(refusal) {
            return Err(Broken::Refused(refusal));
        }
    }
    Ok(connection)
}

/// What Redis says against a command, as it said it.
pub(super) fn refusal(answer: &Value) -> Option<String> {
    let Value::ServerError(error) = answer else { return None };
    Some(words(error))
}

fn words(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

fn text(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// Until a connection is made, the name resolved and the login done.
const CONNECT_MAX: Duration = Duration::from_secs(5);

//! Sessions in a real Redis that several proxies share, and what happens when it is away.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use steadfast::affinity::learned::{ServerName, SessionId};
use steadfast::config;
use steadfast::observe::metrics::{Metrics, SessionStoreMetrics};
use steadfast::session_store::SessionStore;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

use crate::harness::{Hop, PATIENCE, Redis, millis, seconds, soon};

/// The store of one proxy.
struct Store {
    store: SessionStore,
    metrics: SessionStoreMetrics,
}

/// A bound that only somebody who hangs exceeds.
const AMPLE: Duration = PATIENCE;
/// A bound that is exceeded soon.
const SHORT: Duration = millis(250);
/// So short that what Redis says is never out of question.
const DISTRUSTFUL: Duration = seconds(3);
const DAY: Duration = seconds(86_400);

impl Store {
    fn over(redis: config::Redis, idle: Duration) -> Self {
        let metrics = Metrics::new();
        let config = config::SessionStore { sessions: 10_000, idle, redis: Some(redis) };
        Self { store: SessionStore::new(&config, &metrics), metrics: metrics.session_store() }
    }

    async fn learn(&self, value: &str, server: &str) {
        self.store.learn(session(value), server).await;
    }

    async fn finds(&self, value: &str, server: Option<&str>) {
        assert_eq!(self.store.find(session(value)).await, server.map(ServerName::of), "session {value}");
    }

    /// As [`Store::finds`], and within [`SHORT`] as far as a busy machine can tell.
    async fn finds_at_once(&self, value: &str, server: Option<&str>) {
        let begin = Instant::now();
        self.finds(value, server).await;
        assert!(begin.elapsed() < SHORT + seconds(1), "{:?}", begin.elapsed());
    }

    /// Asks until Redis answers again.
    async fn is_back(&self, value: &str, server: &str) {
        let comes_back = async {
            while self.store.find(session(value)).await != Some(ServerName::of(server)) {
                tokio::time::sleep(millis(50)).await;
            }
        };
        soon("Redis to be back", comes_back).await;
    }

    /// Learns until Redis knows, on a machine that may be too busy for the bound the first time.
    async fn tells(&self, redis: &Redis, value: &str, server: &str) {
        let told = async {
            while redis.ask::<Option<String>>(&format!("GET {}", key(value))).await.as_deref() != Some(server) {
                self.learn(value, server).await;
            }
        };
        soon("Redis to be told", told).await;
    }

    /// The log has spoken of the failure once, and speaks of its end once.
    async fn says_that_it_is_back(&self, log: &Log) {
        let is_said = async {
            while !log.lines().iter().any(|line| line.contains("answers again")) {
                self.finds("nobody", None).await;
                tokio::time::sleep(millis(50)).await;
            }
        };
        soon("the log to say that Redis is back", is_said).await;
        let lines = log.lines();
        let is_right = lines.len() == 2
            && lines[0].contains("WARN")
            && lines[0].contains("unavailable: ")
            && lines[1].contains("INFO")
            && lines[1].contains("answers again");
        assert!(is_right, "{lines:#?}");
    }

    fn failures(&self) -> [u64; 4] {
        let SessionStoreMetrics { timeout, unavailable, refused, not_asked, .. } = &self.metrics;
        [timeout, unavailable, refused, not_asked].map(prometheus::IntCounter::get)
    }
}

fn session(value: &str) -> SessionId {
    SessionId::of("cookie:sid", value.as_bytes())
}

fn key(value: &str) -> String {
    let hex: String = session(value).bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("steadfast:session:{hex}")
}

fn at(address: std::net::SocketAddr, timeout: Duration) -> config::Redis {
    let (host, port) = (address.ip().to_string(), address.port());
    config::Redis { host, port, db: 0, user: None, password: None, timeout }
}

/// What the operator reads, of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("nobody panics").clone()).expect("a log is text");
        text.lines().map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn what_one_proxy_has_learned_another_finds() {
    let redis = Redis::start().await;
    let (one, other) =
        (Store::over(at(redis.address(), AMPLE), DAY), Store::over(at(redis.address(), AMPLE), seconds(1000)));
    one.learn("s", "chat-1").await;
    assert_eq!(redis.ask::<String>(&format!("GET {}", key("s"))).await, "chat-1");
    assert_eq!(redis.ask::<u64>(&format!("TTL {}", key("s"))).await, 86_400);

    other.finds("s", Some("chat-1")).await;
    other.finds("unknown", None).await;
    // A use is a use wherever it happens.
    assert_eq!(redis.ask::<u64>(&format!("TTL {}", key("s"))).await, 1000);

    one.learn("s", "chat-2").await;
    Store::over(at(redis.address(), AMPLE), DAY).finds("s", Some("chat-2")).await;
    assert_eq!((one.failures(), other.failures()), ([0; 4], [0; 4]));
    assert_eq!((one.metrics.sessions.get(), other.metrics.sessions.get()), (1, 1));
}

#[tokio::test]
async fn what_was_just_heard_is_not_asked_again() {
    let redis = Redis::start().await;
    let (one, other) = (Store::over(at(redis.address(), AMPLE), DAY), Store::over(at(redis.address(), AMPLE), DAY));
    one.learn("s", "chat-1").await;
    other.finds("s", Some("chat-1")).await;
    let calls = || async {
        let statistics: String = redis.ask("INFO commandstats").await;
        let of = |command: &str| {
            let line = statistics.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
            line.and_then(|line| line.split(['=', ',']).nth(1)?.parse::<u64>().ok()).unwrap_or(0)
        };
        (of("get"), of("set"))
    };
    assert_eq!(calls().await, (1, 1));
    for _ in 0..100 {
        one.finds("s", Some("chat-1")).await;
        other.finds("s", Some("chat-1")).await;
        one.learn("s", "chat-1").await;
    }
    let (get, set) = calls().await;
    assert!(get <= 3 && set <= 3, "{get} lookups, {set} learned");
}

#[tokio::test]
async fn lookups_of_a_thread_share_a_connection() {
    let redis = Redis::start().await;
    let hop = Hop::delaying(millis(200), redis.address()).await;
    let store = Arc::new(Store::over(at(hop.address(), AMPLE), DAY));
    let begin = Instant::now();
    let lookups: Vec<_> = (0..300)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.finds(&number.to_string(), None).await })
        })
        .collect();
    for lookup in lookups {
        lookup.await.expect("a lookup does not panic");
    }
    // One after the other they would take a minute.
    assert!(begin.elapsed() < seconds(10), "{:?}", begin.elapsed());
    let clients: String = redis.ask("CLIENT LIST").await;
    assert_eq!(clients.lines().count(), 2, "the store's and our own: {clients}");
}

#[tokio::test]
async fn each_thread_has_its_own_connection() {
    let redis = Redis::start().await;
    let store = Arc::new(Store::over(at(redis.address(), AMPLE), DAY));
    let barrier = Arc::new(std::sync::Barrier::new(4));
    let threads: Vec<_> = (0..3)
        .map(|thread: usize| {
            let (store, barrier) = (Arc::clone(&store), Arc::clone(&barrier));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                for number in 0..20 {
                    let value = format!("{thread}-{number}");
                    runtime.block_on(store.learn(&value, "chat-1"));
                    runtime.block_on(store.finds(&value, Some("chat-1")));
                }
                barrier.wait();
                barrier.wait();
            })
        })
        .collect();
    tokio::task::spawn_blocking({
        let barrier = Arc::clone(&barrier);
        move || barrier.wait()
    })
    .await
    .expect("a wait");
    let clients: String = redis.ask("CLIENT LIST").await;
    assert_eq!(clients.lines().count(), 4, "three of the store and our own: {clients}");
    assert_eq!(redis.ask::<u64>("DBSIZE").await, 60);
    barrier.wait();
    for thread in threads {
        thread.join().expect("a thread does not panic");
    }
    assert_eq!(store.failures(), [0; 4]);
}

#[tokio::test]
async fn a_redis_that_hangs_holds_nobody_up() {
    let (log, _guard) = Log::listen();
    let redis = Redis::start().await;
    let store = Store::over(at(redis.address(), SHORT), DISTRUSTFUL);
    store.tells(&redis, "s", "chat-1").await;
    redis.pause();
    store.finds_at_once("s", Some("chat-1")).await;
    store.finds_at_once("unknown", None).await;
    // One that waits for the bound, and many that do not.
    let begin = Instant::now();
    for number in 0..500 {
        store.finds(&number.to_string(), None).await;
        store.learn(&number.to_string(), "chat-2").await;
    }
    assert!(begin.elapsed() < seconds(5), "{:?}", begin.elapsed());
    let [timeout, unavailable, refused, not_asked] = store.failures();
    assert!(timeout >= 1 && unavailable == 0 && refused == 0 && not_asked > 900, "{:?}", store.failures());
    store.finds_at_once("7", Some("chat-2")).await;

    redis.go_on();
    let learned_elsewhere = Store::over(at(redis.address(), AMPLE), DISTRUSTFUL * 100);
    learned_elsewhere.learn("elsewhere", "chat-3").await;
    store.is_back("elsewhere", "chat-3").await;
    store.tells(&redis, "late", "chat-1").await;
    store.says_that_it_is_back(&log).await;
}

#[tokio::test]
async fn a_redis_that_is_gone_is_found_again() {
    let (log, _guard) = Log::listen();
    let mut redis = Redis::start().await;
    let store = Store::over(at(redis.address(), AMPLE), seconds(1000));
    store.learn("s", "chat-1").await;
    redis.kill();
    store.learn("t", "chat-2").await;
    store.finds_at_once("t", Some("chat-2")).await;
    store.finds_at_once("unknown", None).await;
    let [timeout, unavailable, refused, _] = store.failures();
    assert!(timeout == 0 && unavailable >= 1 && refused == 0, "{:?}", store.failures());

    redis.restart().await;
    let told = async {
        // What could not be told is told as soon as it is asked for.
        while redis.ask::<u64>(&format!("EXISTS {}", key("t"))).await == 0 {
            store.finds("t", Some("chat-2")).await;
            tokio::time::sleep(millis(50)).await;
        }
    };
    soon("Redis to be told", told).await;
    store.says_that_it_is_back(&log).await;
    assert!(
        log.lines().iter().any(|line| line.contains("refused") && line.contains("os error 111")),
        "{:?}",
        log.lines()
    );
}

#[tokio::test]
async fn a_redis_that_has_forgotten_is_told_again() {
    let mut redis = Redis::start().await;
    let store = Store::over(at(redis.address(), AMPLE), DISTRUSTFUL);
    store.learn("s", "chat-1").await;
    // The connection is gone with it, and nobody notices.
    redis.restart().await;
    store.finds("s", Some("chat-1")).await;
    assert_eq!(redis.ask::<String>(&format!("GET {}", key("s"))).await, "chat-1");
    assert!((1..=3).contains(&redis.ask::<u64>(&format!("TTL {}", key("s"))).await));
    assert_eq!(store.failures(), [0; 4]);
}

#[tokio::test]
async fn a_long_way_to_redis_is_gone_once() {
    let redis = Redis::start().await;
    // Time enough for a lookup, but not for a connection and a lookup.
    let hop = Hop::delaying(millis(600), redis.address()).await;
    let store = Store::over(config::Redis { db: 1, ..at(hop.address(), millis(1150)) }, DAY);
    let near = Store::over(config::Redis { db: 1, ..at(redis.address(), AMPLE) }, DAY);
    near.learn("s", "chat-1").await;
    store.finds("s", None).await;
    store.is_back("s", "chat-1").await;
    assert_eq!(store.failures()[0], 1, "{:?}", store.failures());
}

#[tokio::test]
async fn a_redis_that_is_too_slow_is_done_without() {
    let redis = Redis::start().await;
    let hop = Hop::delaying(seconds(5), redis.address()).await;
    let store = Store::over(at(hop.address(), SHORT), DAY);
    Store::over(at(redis.address(), AMPLE), DAY).learn("s", "chat-1").await;
    store.finds_at_once("s", None).await;
    store.learn("s", "chat-1").await;
    store.finds_at_once("s", Some("chat-1")).await;
    assert!(store.failures()[0] >= 1, "{:?}", store.failures());
}

#[tokio::test]
async fn whatever_redis_refuses_is_told_in_its_own_words() {
    async fn check(redis: config::Redis, words: &str) {
        let (log, _guard) = Log::listen();
        let store = Store::over(redis, DISTRUSTFUL);
        for number in 0..5 {
            store.finds(&number.to_string(), None).await;
            store.learn(&number.to_string(), "chat-1").await;
            store.finds(&number.to_string(), Some("chat-1")).await;
        }
        let [timeout, unavailable, refused, _] = store.failures();
        assert!(timeout == 0 && unavailable == 0 && refused >= 1, "{:?}", store.failures());
        let lines = log.lines();
        assert!(lines.len() == 1 && lines[0].contains(words), "not one line with {words}: {lines:#?}");
        assert!(!lines[0].contains("s3cret"), "{lines:?}");
    }

    let locked = Redis::start_with(&["--requirepass", "right"]).await;
    let login = |user: Option<&str>, password: &str| config::Redis {
        user: user.map(str::to_owned),
        password: Some(config::Password(password.to_owned())),
        ..at(locked.address(), AMPLE)
    };
    check(at(locked.address(), AMPLE), "refuses: NOAUTH Authentication required.").await;
    check(login(None, "s3cret"), "unavailable: WRONGPASS invalid username-password pair").await;
    check(login(Some("steadfast"), "s3cret"), "unavailable: WRONGPASS invalid username-password pair").await;
    let store = Store::over(login(None, "right"), DAY);
    store.learn("s", "chat-1").await;
    Store::over(login(Some("default"), "right"), DAY).finds("s", Some("chat-1")).await;
    assert_eq!(store.failures(), [0; 4]);

    let open = Redis::start().await;
    let there = at(open.address(), AMPLE);
    check(config::Redis { db: 99, ..there.clone() }, "unavailable: ERR DB index is out of range").await;
    let _: String = open.ask("CONFIG SET maxmemory 1").await;
    check(there.clone(), "refuses: OOM command not allowed when used memory > 'maxmemory'").await;
    let _: String = open.ask("CONFIG SET maxmemory 0").await;
    let _: String = open.ask("REPLICAOF 127.0.0.1 1").await;
    check(there.clone(), "refuses: READONLY You can't write against a read only replica").await;
}

#[tokio::test]
async fn a_user_with_the_documented_rights_will_do() {
    let redis = Redis::start().await;
    let rights = "~steadfast:session:* +get +set +expire +select";
    assert!(include_str!("../../conf/README.md").contains(rights));
    let _: String = redis.ask(&format!("ACL SETUSER steadfast on >right {rights}")).await;
    let login = || config::Redis {
        db: 1,
        user: Some("steadfast".to_owned()),
        password: Some(config::Password("right".to_owned())),
        ..at(redis.address(), AMPLE)
    };
    let (one, other) = (Store::over(login(), DAY), Store::over(login(), DAY));
    one.learn("s", "chat-1").await;
    other.finds("s", Some("chat-1")).await;
    assert_eq!((one.failures(), other.failures()), ([0; 4], [0; 4]));
}

#[tokio::test]
async fn a_value_that_is_no_name_is_ignored() {
    let redis = Redis::start().await;
    let store = Store::over(at(redis.address(), AMPLE), DISTRUSTFUL);
    let long = "x".repeat(65);
    for value in ["", "\u{1}", "é", "{\"a\":\t1}", &long] {
        store.learn("s", "chat-1").await;
        let _: String = redis.ask(&format!("SET {} {value}", key("s"))).await;
        let _: String = redis.ask(&format!("SET {} {value}", key("t"))).await;
        store.finds("s", Some("chat-1")).await;
        store.finds("t", None).await;
    }
    assert_eq!(store.failures(), [0; 4]);
    // No value at all, but something else.
    let _: u64 = redis.ask(&format!("RPUSH {} a", key("list"))).await;
    store.finds("list", None).await;
    assert_eq!(store.failures(), [0, 0, 1, 0]);
}

#[tokio::test]
async fn whatever_is_no_redis_is_unavailable() {
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = server.local_addr().expect("a bound socket has an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = server.accept().await {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = client.read(&mut [0; 1024]).await;
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let store = Store::over(at(address, AMPLE), DAY);
    store.finds("s", None).await;
    store.learn("s", "chat-1").await;
    store.finds("s", Some("chat-1")).await;
    let [timeout, unavailable, refused, _] = store.failures();
    assert!(timeout == 0 && unavailable >= 1 && refused == 0, "{:?}", store.failures());
}

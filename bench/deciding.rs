//! What deciding costs each request, in nanoseconds of one thread: where a key leads, whose tag it
//! is, who issued a session.
//!
//! Run it by `cargo bench --bench deciding`; words behind `--` choose what is measured. Figures are
//! medians of rounds, and belong to the machine they were taken on.

use std::fs;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use steadfast::affinity::doctor::{Asked, Doctor, Patient, Servers, Tag};
use steadfast::affinity::engine_io::Session;
use steadfast::affinity::forwarded;
use steadfast::affinity::learned::Place;
use steadfast::affinity::tag::Secret;
use steadfast::balance::{Balancer, Candidate, Chance, WARM};
use steadfast::config::{
    AffinitySource, Balance, Hash, Ipv6Prefix, Pick, Server, SessionStore as StoreConfig, State, TrustedProxies,
};
use steadfast::observe::metrics::Metrics;
use steadfast::session_store::SessionStore;

/// As the proxy itself: memory is weighed with its allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 9;
const KEYS: usize = 10_000;

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    type Measure = fn(&[String]);
    let measures: [(&str, Measure); 5] = [
        ("lookup", lookup),
        ("share", share),
        ("identity", identity),
        ("doctor", doctor),
        ("session-store", session_store),
    ];
    let keys: Vec<String> = (0..KEYS).map(|key| format!("10.{}.{}.7", key / 256, key % 256)).collect();
    for (name, measure) in measures {
        if is_wanted(name) {
            measure(&keys);
        }
    }
}

/// Says how long `work` takes for each of `keys`: the median of some rounds.
fn time(what: &str, keys: &[String], mut work: impl FnMut(&str)) {
    let mut rounds: Vec<Duration> = (0..=ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            keys.iter().for_each(|key| work(key));
            begun.elapsed()
        })
        .skip(1)
        .collect();
    rounds.sort();
    println!("{what:<44} {:>8.1} ns", rounds[ROUNDS / 2].as_nanos() as f64 / keys.len() as f64);
}

fn servers(count: u8) -> Vec<Server> {
    let server = |number: u8| {
        let address = SocketAddr::from(([10, 0, 20, number], 3000));
        Server { name: format!("chat-{number}"), address, weight: 1, state: State::Ready }
    };
    (1..=count).map(server).collect()
}

fn idle(_: usize) -> Candidate {
    Candidate { weight: 1, open: 0, is_up: true, warmth: WARM, state: State::Ready }
}

const HASHES: [Hash; 2] = [Hash::Ketama, Hash::Rendezvous];

fn lookup(keys: &[String]) {
    for hash in HASHES {
        for count in [3, 10, 100] {
            let balancer = Balancer::new(Balance { hash, ..Balance::default() }, &servers(count));
            time(&format!("lookup, {hash:?}, {count} servers"), keys, |key| {
                black_box(balancer.order(Some(balancer.hash(key.as_bytes())), idle, Chance::default()).next());
            });
        }
    }
}

/// How even a hash is, which is no time at all.
fn share(_: &[String]) {
    for hash in HASHES {
        for count in [3, 10, 100] {
            let balancer = Balancer::new(Balance { hash, ..Balance::default() }, &servers(count));
            let mut shares = vec![0_u32; usize::from(count)];
            for key in 0..100_000 {
                let key = format!("user-{key}");
                let server = balancer.order(Some(balancer.hash(key.as_bytes())), idle, Chance::default()).next();
                shares[server.expect("there are servers")] += 1;
            }
            let most = f64::from(shares.into_iter().max().unwrap_or_default());
            let fair = 100_000.0 / f64::from(count);
            println!("{:<44} {:>8.3}", format!("largest share, {hash:?}, {count} servers"), most / fair);
        }
    }
}

fn identity(keys: &[String]) {
    let secret = Secret::new(b"0123456789abcdef");
    let server = secret.server("chat-1");
    time("tag made", keys, |key| {
        black_box(secret.seal(key.as_bytes(), server));
    });
    let queries: Vec<String> = keys
        .iter()
        .map(|key| format!("EIO=4&transport=polling&t=kx2v1p9z&sid={key}~{}", secret.seal(key.as_bytes(), server)))
        .collect();
    time("tagged session read from a query", &queries, |query| {
        black_box(Session::of(query, &secret));
    });
    let mut number = 0;
    let heads: Vec<http::HeaderMap> = keys
        .iter()
        .map(|key| {
            let field = format!("{key}, 10.0.0.1").parse().expect("a valid field");
            http::HeaderMap::from_iter([(forwarded::X_FORWARDED_FOR, field)])
        })
        .collect();
    time("first address of X-Forwarded-For", keys, |_| {
        black_box(forwarded::first(&heads[number % heads.len()]));
        number += 1;
    });
}

fn doctor(keys: &[String]) {
    let sources = vec![
        AffinitySource::EngineIo,
        AffinitySource::ForwardedFor(Pick::First, Ipv6Prefix::default()),
        AffinitySource::ClientIp(Ipv6Prefix::default()),
    ];
    let doctor = Doctor::new(Patient { upstream: "chat".to_owned(), sources });
    let agent =
        http::HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
    let headers = http::HeaderMap::from_iter([(http::header::USER_AGENT, agent)]);
    let trusted = TrustedProxies::private();
    let previous_hop = "10.0.0.1".parse().expect("an address");
    let servers = || Servers { ready: 3, open: 100, fullest: 40 };
    for (what, source, has_session) in [
        ("doctor, a request placed by its address", "forwarded_for", false),
        ("doctor, of a session", "engine_io", true),
    ] {
        let tag = if has_session { Tag::Known } else { Tag::None };
        time(what, keys, |key| {
            let key = Some(key.as_bytes());
            let asked = Asked { headers: &headers, previous_hop, trusted: &trusted, source, has_session, key, tag };
            black_box(doctor.asked(&asked, servers));
        });
    }
    time("doctor, an answer of Engine.IO", keys, |_| {
        black_box(doctor.answered(200));
    });
}

fn session_store(keys: &[String]) {
    const SESSIONS: usize = 1_000_000;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = SessionStore::new(&StoreConfig::default(), &Metrics::new());
    let session = |key: &str| Place::Cookie("sid").session(key.as_bytes());
    let before = private_bytes();
    runtime.block_on(async {
        for number in 0..SESSIONS {
            store.learn(session(&number.to_string()), "chat-1").await;
        }
    });
    println!("{:<44} {:>8.1} B", "memory of a session", (private_bytes() - before) as f64 / SESSIONS as f64);
    time("session named by its cookie's value", keys, |key| {
        black_box(session(key));
    });
    let sessions: Vec<_> = keys.iter().map(|key| session(key)).collect();
    let mut number = 0;
    time("session found in memory, of a million", keys, |_| {
        black_box(runtime.block_on(store.find(sessions[number % KEYS])));
        number += 1;
    });
}

/// What only this process has.
fn private_bytes() -> usize {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux tells");
    let line = rollup.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).expect("it has this line");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

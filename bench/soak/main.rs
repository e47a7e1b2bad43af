//! Minutes of everything at once: thousands of connections of every kind, while servers are killed and come
//! back, are drained, added and removed, and the proxy is replaced by the next process.
//!
//! ```text
//!   WebSockets, EventSources,  ──▶ steadfast ──▶ servers that can be killed (servers)
//!   long-polls (clients)           (proxy)   ──▶ Socket.IO on one Redis (chat)
//!   Socket.IO (chat)                  ▲
//!                                  chaos, from a seed
//! ```
//!
//! Run it by `make soak`. It ends with a page (report) and a plot, and with exit code 1 if a connection or a
//! message was lost, if memory grows, or if a gauge does not return to zero.

mod chaos;
mod chat;
mod clients;
#[path = "../http.rs"]
mod http;
mod ledger;
mod plot;
mod proxy;
mod report;
mod servers;
mod talk;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::chaos::Chaos;
use crate::chat::{Crowd, Heard, Redis};
use crate::clients::World;
use crate::ledger::{Kind, Ledger, Wrong};
use crate::proxy::Proxy;
use crate::report::{Run, Sample};
use crate::servers::{Server, Shared, count_events};
use crate::talk::Phase;

/// Minutes of everything at once, and a page about what was lost.
#[derive(Parser)]
struct Arguments {
    /// How long it goes on
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Connections that are open
    #[arg(long, default_value_t = 6000)]
    connections: usize,
    /// What chance begins with; each run prints it
    #[arg(long)]
    seed: Option<u64>,
    /// Where the page and the plot go
    #[arg(long, default_value = "target/soak")]
    directory: PathBuf,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Longer than what is under way takes to come, and than all clients take to leave.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the proxy is weighed.
const SAMPLES_EVERY: Duration = Duration::from_secs(2);
/// Gauges that are zero when nothing is open.
const GAUGES: [&str; 4] = [
    "steadfast_open_connections",
    "steadfast_client_connections",
    "steadfast_http2_connections",
    "steadfast_http2_streams",
];

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    chat::check_installed()?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(0..1_000_000));
    println!("seed {seed}");
    let run = Box::pin(soak(&arguments, seed)).await?;
    let page = run.page();
    fs::create_dir_all(&arguments.directory)?;
    fs::write(arguments.directory.join("report.md"), &page)?;
    fs::write(arguments.directory.join("soak.svg"), plot::svg(&run))?;
    println!("{page}");
    Ok(if run.faults().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn soak(arguments: &Arguments, seed: u64) -> io::Result<Run> {
    let directory = tempfile::tempdir()?;
    let redis = Redis::start().await?;
    let (proxy, mut cast) = set_up(arguments, seed, &redis, directory.path()).await?;
    let (ledger, mut samples, began) = (cast.ledger.clone(), Vec::new(), Instant::now());
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let (heard, gauges) = tokio::select! {
        played = cast.play(&proxy, time) => played?,
        failed = weigh(&proxy, &ledger, &mut samples) => return Err(failed),
    };
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    let (has_ended_well, said) = proxy.stop().await?;
    Ok(Run {
        seed,
        connections: arguments.connections,
        minutes,
        samples,
        acts: cast.chaos.acts,
        ends: ledger.ends(&said.reasons),
        messages: ledger.messages(),
        wrong: ledger.wrong(),
        heard,
        gauges,
        complaints: said.complaints,
        has_ended_well,
    })
}

/// Starts everything, and waits until everybody is connected.
async fn set_up(arguments: &Arguments, seed: u64, redis: &Redis, directory: &Path) -> io::Result<(Proxy, Cast)> {
    let mut random = Rng::with_seed(seed);
    let (phase, talking) = watch::channel(Phase::Talking);
    let (events, newest) = watch::channel(0);
    let ledger = Arc::new(Ledger::new());
    tokio::spawn(count_events(events, talking.clone()));
    let shared = Shared { ledger: ledger.clone(), phase: talking.clone(), newest: newest.clone() };
    let numbers: io::Result<Vec<_>> =
        ["a", "b", "c", "d", "e"].map(|name| Server::start(name, &shared)).into_iter().collect();
    let mut chat = Vec::new();
    for name in ["red", "green", "blue"] {
        chat.push(chat::Server::start(name, redis).await?);
    }
    let chaos = Chaos::new(numbers?, chat, random.fork());
    let (numbers, chat) = chaos.entries();
    let proxy = Proxy::start(directory.join("steadfast.yaml"), &numbers, &chat).await?;

    // Those of Socket.IO are real ones, which cost far more than the rest.
    let each = (arguments.connections / 300).max(2);
    let rest = arguments.connections.saturating_sub(each * 3);
    let world = Arc::new(World { ledger: ledger.clone(), proxy: proxy.listen, phase: talking, newest: newest.clone() });
    let mut clients = JoinSet::new();
    for number in 0..rest {
        let kind = match number % 10 {
            0..5 => Kind::WebSocket,
            5..8 => Kind::Stream,
            _ => Kind::Poll,
        };
        clients.spawn(clients::live(world.clone(), kind, number, random.fork()));
    }
    let crowd = Crowd::come(proxy.listen, each).await?;
    let all_open = async {
        while (proxy.gauge(GAUGES[0]).await? as usize) < rest {
            sleep(Duration::from_millis(200)).await;
        }
        io::Result::Ok(())
    };
    timeout(PATIENCE, all_open).await.map_err(|_| io::Error::other("not everybody could connect"))??;
    Ok((proxy, Cast { chaos, ledger, phase, newest, clients, crowd }))
}

/// Everybody but the proxy.
struct Cast {
    chaos: Chaos,
    ledger: Arc<Ledger>,
    phase: watch::Sender<Phase>,
    newest: watch::Receiver<u64>,
    clients: JoinSet<()>,
    crowd: Crowd,
}

impl Cast {
    /// Has everything happen for so long, then everything arrive, and then everybody leave. Returns what the
    /// clients of Socket.IO have heard, and the gauges in the end.
    async fn play(&mut self, proxy: &Proxy, time: Duration) -> io::Result<(Heard, Vec<(&'static str, f64)>)> {
        // For what was drained last to be over, and everybody to be back.
        const SETTLING: Duration = Duration::from_secs(10);
        self.chaos.reign(proxy, &self.ledger, time).await?;
        self.chaos.settle(proxy).await?;
        sleep(SETTLING).await;
        self.phase.send_replace(Phase::Quiet);
        let heard = self.crowd.finish().await?;
        self.everything_arrives().await;
        self.phase.send_replace(Phase::Leaving);
        let leaving = async { while self.clients.join_next().await.is_some() {} };
        if timeout(PATIENCE, leaving).await.is_err() {
            let lost = self.ledger.count_open() as u64;
            self.is_lost(lost, "clients cannot leave");
            self.clients.shutdown().await;
        }
        Ok((heard, gauges(proxy).await?))
    }

    async fn everything_arrives(&self) {
        let under_way = || self.ledger.under_way(*self.newest.borrow());
        let arrived = async {
            while under_way() > 0 {
                sleep(Duration::from_millis(50)).await;
            }
        };
        if timeout(PATIENCE, arrived).await.is_err() {
            self.is_lost(under_way(), "messages never came, on connections that are open");
        }
    }

    fn is_lost(&self, lost: u64, what: &str) {
        self.ledger.is_wrong(Wrong { lost, ..Wrong::default() }, format!("{lost} {what}"));
    }
}

/// The gauges when they are zero, or as they are when they do not become so.
async fn gauges(proxy: &Proxy) -> io::Result<Vec<(&'static str, f64)>> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut all = Vec::new();
        for name in GAUGES {
            all.push((name, proxy.gauge(name).await?));
        }
        if all.iter().all(|(_, value)| *value == 0.0) || Instant::now() > end {
            return Ok(all);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Weighs the proxy again and again, until that fails.
async fn weigh(proxy: &Proxy, ledger: &Ledger, samples: &mut Vec<Sample>) -> io::Error {
    loop {
        match proxy.memory() {
            Ok((memory, processes)) => {
                samples.push(Sample { at: ledger.now(), memory, processes, open: ledger.count_open() });
            }
            Err(error) => return error,
        }
        sleep(SAMPLES_EVERY).await;
    }
}

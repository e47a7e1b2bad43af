//! Compares Steadfast with nginx, HAProxy, Envoy and Caddy: time per operation, memory per connection.
//!
//! ```text
//!             this process                 one proxy at a time        this program again
//!   client ── connections, requests ──▶  nginx | ... | steadfast      ──▶  server
//!   measure ─ /proc/PID: CPU, memory ──────┘                                  ▲
//!      └───── steers: wake the streams, answer the parked requests ───────────┘
//! ```
//!
//! Run it by `cargo bench --bench proxies`; `bench/README.md` says how to read it.

mod client;
mod door;
mod floor;
mod http;
mod measure;
mod plot;
mod process;
mod proxies;
mod report;
mod scenario;
mod server;
mod websocket;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use client::within;
use measure::Bench;
use proxies::{Proxy, Running};
use report::Figures;
use scenario::{SCENARIOS, Scenario, Sizes};
use server::Server;

/// Compares Steadfast with nginx and HAProxy, and with Envoy and Caddy where they are installed.
#[derive(Parser)]
#[command(name = "cargo bench --bench proxies --")]
struct Arguments {
    /// Only scenarios whose name contains one of these words.
    filters: Vec<String>,
    /// A rough look within 2 minutes.
    #[arg(long)]
    quick: bool,
    /// List the scenarios and do nothing else.
    #[arg(long)]
    list: bool,
    /// How often the CPU scenarios are run.
    #[arg(long)]
    rounds: Option<usize>,
    /// How often the memory scenarios are run.
    #[arg(long)]
    memory_rounds: Option<usize>,
    /// How many milliseconds the operations of one CPU scenario are counted.
    #[arg(long)]
    window_ms: Option<u64>,
    /// Connections of the memory scenarios.
    #[arg(long)]
    connections: Option<usize>,
    /// Handshakes of the storm.
    #[arg(long)]
    handshakes: Option<usize>,
    /// Which proxies to compare; all that are installed if nothing is said.
    #[arg(long, value_enum, value_delimiter = ',')]
    proxies: Vec<Proxy>,
    /// Draw ratios.svg and memory.svg into this directory.
    #[arg(long)]
    plot: Option<PathBuf>,
    /// The command that runs Steadfast, for example an older build; {config}, {listen} and {server}
    /// are filled in.
    #[arg(long, default_value = STEADFAST)]
    steadfast: String,
    /// No further round begins that would probably end later than this.
    #[arg(long, default_value_t = 12)]
    minutes: u64,
    /// Be the server behind the proxies.
    #[arg(long, hide = true)]
    serve: bool,
    /// Be the bare relay: where it listens, and its server.
    #[arg(long, hide = true, num_args = 2)]
    relay: Vec<SocketAddr>,
    /// What `cargo bench` adds, and `cargo test --all-targets` does not.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The binary that Cargo built beside this one.
const STEADFAST: &str = concat!(env!("CARGO_BIN_EXE_steadfast"), " run -c {config}");

impl Arguments {
    fn sizes(&self) -> Sizes {
        let sizes = if self.quick { Sizes::QUICK } else { Sizes::FULL };
        Sizes {
            rounds: self.rounds.unwrap_or(sizes.rounds),
            memory_rounds: self.memory_rounds.unwrap_or(sizes.memory_rounds),
            window: self.window_ms.map_or(sizes.window, Duration::from_millis),
            idle_connections: self.connections.unwrap_or(sizes.idle_connections),
            handshakes: self.handshakes.unwrap_or(sizes.handshakes),
            ..sizes
        }
    }

    fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> {
        SCENARIOS
            .iter()
            .filter(|scenario| self.filters.is_empty() || self.filters.iter().any(|word| scenario.name.contains(word)))
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.proxies.is_empty() {
        arguments.proxies = Proxy::usual();
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    if arguments.list {
        arguments.scenarios().for_each(|scenario| println!("{}", scenario.name));
        return Ok(ExitCode::SUCCESS);
    }
    if let [listen, server] = arguments.relay[..] {
        floor::relay(listen, server)?;
    }
    if !arguments.bench && !arguments.serve {
        println!("nothing to test; the benchmark is run by `cargo bench --bench proxies`");
        return Ok(ExitCode::SUCCESS);
    }
    raise_open_files_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if arguments.serve {
        runtime.block_on(server::serve())?;
        return Ok(ExitCode::SUCCESS);
    }
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Returning drops what runs, and with it every child process.
        tokio::select! {
            code = compare(arguments) => code,
            _ = tokio::signal::ctrl_c() => Err(io::Error::other("interrupted")),
            _ = terminate.recv() => Err(io::Error::other("terminated")),
        }
    })
}

/// Starts this program again with room for the largest scenario, unless it has that room.
///
/// A shell raises the limit; the children inherit it.
fn raise_open_files_limit() -> io::Result<()> {
    const OPEN_FILES: u64 = 20_000;
    const MARK: &str = "STEADFAST_BENCH_LIMIT_RAISED";
    let limits = fs::read_to_string("/proc/self/limits")?;
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|limits| limits.split_whitespace().next());
    if soft.is_none_or(|soft| soft.parse().is_ok_and(|soft: u64| soft >= OPEN_FILES)) {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        let text = format!("the limit of open files cannot be raised to {OPEN_FILES}");
        return Err(io::Error::other(text));
    }
    Err(Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n {OPEN_FILES}; exec \"$0\" \"$@\""))
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(MARK, "1")
        .exec())
}

/// Runs all rounds and prints the table; fails at the end if anything failed.
async fn compare(arguments: &Arguments) -> io::Result<ExitCode> {
    let sizes = arguments.sizes();
    if arguments.scenarios().next().is_none() {
        return Err(io::Error::other("no scenario has such a name; see --list"));
    }
    let mut versions = Vec::new();
    for proxy in &arguments.proxies {
        versions.push(proxy.version()?);
    }
    let mut comparison = Comparison {
        server: Server::start()?,
        sizes,
        arguments,
        figures: arguments.scenarios().map(Figures::of).collect(),
        failures: Vec::new(),
    };
    comparison.run_rounds().await;
    let machine = format!("{}; {}", report::machine(), versions.join(", "));
    println!("{machine}.\n");
    print!("{}", report::table(&comparison.figures, &arguments.proxies));
    if let Some(directory) = &arguments.plot {
        fs::write(directory.join("ratios.svg"), plot::ratios(&comparison.figures, &machine))?;
        fs::write(directory.join("memory.svg"), plot::memory(&comparison.figures, &machine))?;
    }
    for failure in &comparison.failures {
        println!("\nFailed: {}", failure.text);
    }
    Ok(match comparison.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Everything that the rounds need and leave behind.
struct Comparison<'a> {
    server: Server,
    sizes: Sizes,
    arguments: &'a Arguments,
    figures: Vec<Figures>,
    failures: Vec<Failure>,
}

/// What did not work; it is not tried again in later rounds.
struct Failure {
    scenario: &'static str,
    proxy: Proxy,
    text: String,
}

impl Comparison<'_> {
    async fn run_rounds(&mut self) {
        let start = Instant::now();
        let end = start + Duration::from_secs(60 * self.arguments.minutes);
        for round in 0..self.sizes.rounds.max(self.sizes.memory_rounds) {
            let round_start = Instant::now();
            for index in 0..self.figures.len() {
                self.run_scenario(round, index).await;
            }
            if Instant::now() + round_start.elapsed() > end {
                eprintln!("no time for another round");
                break;
            }
        }
    }

    /// Puts every proxy into one scenario, each round in another order.
    async fn run_scenario(&mut self, round: usize, index: usize) {
        let scenario = self.figures[index].scenario;
        let rounds = match scenario.plan.measures_operations() {
            true => self.sizes.rounds,
            false => self.sizes.memory_rounds,
        };
        if round >= rounds {
            return;
        }
        let mut order = self.arguments.proxies.clone();
        order.retain(|proxy| scenario.concerns(*proxy));
        if order.is_empty() {
            return;
        }
        let first = (round + index) % order.len();
        order.rotate_left(first);
        let mut figures = Vec::new();
        for proxy in order {
            if let Some(of_proxy) = self.run_one(round, scenario, proxy).await {
                figures.push((proxy, of_proxy));
            }
        }
        self.figures[index].push(figures);
    }

    /// The figures of one proxy in one scenario; tells them, or what failed.
    async fn run_one(&mut self, round: usize, scenario: &'static Scenario, proxy: Proxy) -> Option<Vec<f64>> {
        let has_failed = |failure: &Failure| failure.scenario == scenario.name && failure.proxy == proxy;
        if self.failures.iter().any(has_failed) {
            return None;
        }
        let name = format!("round {}, {}, {}", round + 1, scenario.name, proxy.name());
        match self.measure(scenario, proxy).await {
            Ok(figures) => {
                let shown = scenario.rows.iter().zip(&figures);
                let shown: Vec<_> = shown.map(|(row, value)| row.unit.show(*value)).collect();
                eprintln!("{name}: {}", shown.join(", "));
                Some(figures)
            }
            Err(error) => {
                let text = format!("{name}: {error}");
                eprintln!("{text}");
                self.failures.push(Failure { scenario: scenario.name, proxy, text });
                None
            }
        }
    }

    async fn measure(&self, scenario: &Scenario, proxy: Proxy) -> io::Result<Vec<f64>> {
        const LIMIT: Duration = Duration::from_secs(60);
        let limit = LIMIT + self.sizes.idle_window;
        let running = Running::start(proxy, scenario.over, self.server.address, &self.arguments.steadfast).await?;
        let bench = Bench { proxy: &running, server: &self.server, sizes: &self.sizes };
        within(limit, "the scenario", bench.measure(scenario.plan)).await.map_err(|error| running.explain(&error))
    }
}

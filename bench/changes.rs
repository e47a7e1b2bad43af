//! What a change costs those who are connected: reloads and hand-overs under WebSockets in traffic.
//!
//! ```text
//!   clients ── WebSockets, a message each now and then ──▶ steadfast ──▶ echo
//!      └─ SIGHUP, again and again; then the next process takes over
//! ```
//!
//! Run it by `cargo bench --bench changes`; what it prints stands in `bench/README.md`. There is nobody to
//! compare with: nginx, HAProxy and the others keep their old process for those who are connected.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// What a change costs those who are connected.
#[derive(Parser)]
struct Arguments {
    /// WebSockets that are open.
    #[arg(long, default_value_t = 3000)]
    connections: usize,
    /// Reloads.
    #[arg(long, default_value_t = 100)]
    reloads: usize,
    /// Hand-overs.
    #[arg(long, default_value_t = 5)]
    hand_overs: usize,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How often each WebSocket says something.
const EVERY: Duration = Duration::from_millis(500);

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

const MESSAGE: [u8; 14] = [0x81, 0x88, 0, 0, 0, 0, b'm', b'e', b's', b's', b'a', b'g', b'e', b'!'];

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    let directory = tempfile::tempdir()?;
    let echo = echo().await?;
    let listen = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let file = directory.path().join("steadfast.yaml");
    write_configuration(&file, listen, echo, 0)?;
    let mut proxy = start(&file, false).await?;

    let clients = Clients::open(listen, arguments.connections).await?;
    let quiet = clients.latencies(Duration::from_secs(4)).await;
    println!("| {} WebSockets, a message each every {EVERY:?} | p50 | p99 | p99.9 | longest |", arguments.connections);
    println!("|---|--:|--:|--:|--:|");
    println!("| nothing changes | {} |", shown(&quiet));

    let before = memory(&proxy)?;
    let mut took = Vec::new();
    let reloading = async {
        for number in 1..=arguments.reloads {
            write_configuration(&file, listen, echo, number)?;
            let began = Instant::now();
            signal(&proxy, Signal::HUP);
            while asked(listen, number).await? != 404 {}
            took.push(began.elapsed());
        }
        io::Result::Ok(())
    };
    let (latencies, reloaded) = clients.latencies_during(reloading).await;
    reloaded?;
    println!("| {} reloads, one behind the other | {} |", arguments.reloads, shown(&latencies));
    let after = memory(&proxy)?;

    let mut rest = Vec::new();
    let handing_over = async {
        for _ in 0..arguments.hand_overs {
            let next = start(&file, true).await?;
            rest.push(rested(std::mem::replace(&mut proxy, next)).await?);
            sleep(Duration::from_secs(1)).await;
        }
        io::Result::Ok(())
    };
    let (latencies, handed) = clients.latencies_during(handing_over).await;
    handed?;
    println!("| {} hand-overs, a second apart | {} |", arguments.hand_overs, shown(&latencies));
    took.sort_unstable();
    println!("\nSIGHUP to the first request by the new configuration: {}", shown(&took));
    println!("Memory before and after {} reloads: {} KiB, {} KiB", arguments.reloads, before / 1024, after / 1024);
    println!("Old processes on their hand-overs:\n{}", rest.concat());
    println!("Connections lost: {}", clients.lost());
    Ok(())
}

/// Route number `number` leads nowhere, and is 404 by that; others are echoed.
fn write_configuration(file: &Path, listen: SocketAddr, echo: SocketAddr, number: usize) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/")).display();
    let text = format!(
        "listeners: [{{ bind: \"{listen}\" }}]\nadmin: off\naccess_log: off\nthreads: 1\nshutdown: {{ spread: 0s }}\n\
         hand_over: {{ socket: {directory}/hand-over.sock }}\n\
         upstreams:\n  echo: {{ servers: [\"{echo}\"] }}\nroutes:\n  - {{ host: \"n{number}.example\", path: /ws, upstream: echo }}\n  \
         - {{ path: /ws, upstream: echo }}\n  - {{ host: \"*.example\", path: /x{number}, upstream: echo }}\n"
    );
    fs::write(file, text)
}

/// The status of a request that only the configuration before `number` has a route for.
async fn asked(listen: SocketAddr, number: usize) -> io::Result<u16> {
    let mut tcp = TcpStream::connect(listen).await?;
    let path = number - 1;
    let request = format!("GET /x{path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = [0; 12];
    tcp.read_exact(&mut answer).await?;
    Ok(std::str::from_utf8(&answer[9..]).ok().and_then(|status| status.parse().ok()).unwrap_or_default())
}

/// A running proxy, whose log is read all the time: with a full pipe it would wait for us.
struct Proxy {
    process: Child,
    /// What it says of relays, once it has ended.
    log: JoinHandle<Vec<String>>,
}

/// Starts a proxy and waits until it is ready; one that takes over says so by itself.
async fn start(file: &Path, takes_over: bool) -> io::Result<Proxy> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.arg("run").arg("-c").arg(file).stderr(Stdio::piped()).kill_on_drop(true).env("NO_COLOR", "1");
    if takes_over {
        command.arg("--take-over");
    }
    let mut process = command.spawn()?;
    let log = process.stderr.take().ok_or_else(|| io::Error::other("there is no log"))?;
    let (ready, is_ready) = oneshot::channel();
    let log = tokio::spawn(async move {
        let (mut lines, mut ready, mut kept) = (BufReader::new(log).lines(), Some(ready), Vec::new());
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(ready) = ready.take_if(|_| line.contains("ready")) {
                let _ = ready.send(()); // Who waits for it may have given up.
            }
            if line.contains("relays") {
                kept.push(line);
            }
        }
        kept
    });
    let ready = timeout(PATIENCE, is_ready).await.map_err(io::Error::other)?;
    ready.map_err(|_| io::Error::other("the proxy did not start"))?;
    Ok(Proxy { process, log })
}

/// What the old process says of its hand-over, once it has ended.
async fn rested(mut old: Proxy) -> io::Result<String> {
    timeout(PATIENCE, old.process.wait()).await.map_err(io::Error::other)??;
    let lines = old.log.await.map_err(io::Error::other)?;
    Ok(lines.iter().fold(String::new(), |mut all, line| {
        let _ = writeln!(all, "    {}", line.split_once("INFO ").map_or(line.as_str(), |(_, said)| said));
        all
    }))
}

fn signal(proxy: &Proxy, signal: Signal) {
    let pid = proxy.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let _ = pid.map(|pid| kill_process(pid, signal)); // If it is gone, the next request says so.
}

/// Bytes that are nobody else's.
fn memory(proxy: &Proxy) -> io::Result<usize> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", proxy.process.id().unwrap_or_default()))?;
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    Ok(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok()).sum::<usize>() * 1024)
}

/// A server of WebSockets that sends back what comes, without its mask, which is zero.
async fn echo() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                let read = tcp.read(&mut bytes).await?;
                let is_upgrade = bytes[..read].windows(7).any(|part| part.eq_ignore_ascii_case(b"upgrade"));
                let head: &[u8] = if is_upgrade {
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                } else {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                };
                tcp.write_all(head).await?;
                if !is_upgrade {
                    return Ok(());
                }
                let mut frame = [0; MESSAGE.len()];
                loop {
                    tcp.read_exact(&mut frame).await?;
                    tcp.write_all(&[&[0x81, 8][..], &frame[6..]].concat()).await?;
                }
                #[expect(unreachable_code, reason = "it names the error")]
                io::Result::Ok(())
            });
        }
    });
    Ok(address)
}

/// Open WebSockets, each of which measures how long its messages take.
struct Clients {
    samples: Arc<std::sync::Mutex<Vec<Duration>>>,
    stopped: Arc<AtomicBool>,
    open: std::sync::Mutex<JoinSet<io::Result<()>>>,
}

impl Clients {
    async fn open(listen: SocketAddr, count: usize) -> io::Result<Self> {
        let (samples, stopped) = (Arc::<std::sync::Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let mut open = JoinSet::new();
        for number in 0..count {
            let mut tcp = TcpStream::connect(listen).await?;
            tcp.set_nodelay(true)?;
            tcp.write_all(
                b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )
            .await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await?);
            }
            let (samples, stopped) = (samples.clone(), stopped.clone());
            let first = EVERY.mul_f64(number as f64 / count as f64);
            open.spawn(async move {
                sleep(first).await;
                while !stopped.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    tcp.write_all(&MESSAGE).await?;
                    tcp.read_exact(&mut [0; MESSAGE.len() - 4]).await?;
                    let took = began.elapsed();
                    samples.lock().map_err(|_| io::Error::other("a client panicked"))?.push(took);
                    sleep(EVERY.saturating_sub(took)).await;
                }
                Ok(())
            });
        }
        Ok(Self { samples, stopped, open: open.into() })
    }

    async fn latencies(&self, time: Duration) -> Vec<Duration> {
        self.latencies_during(sleep(time)).await.0
    }

    /// How long messages took during `work`, the shortest first.
    async fn latencies_during<T>(&self, work: impl Future<Output = T>) -> (Vec<Duration>, T) {
        self.take();
        let done = work.await;
        let mut samples = self.take();
        samples.sort_unstable();
        (samples, done)
    }

    fn take(&self) -> Vec<Duration> {
        self.samples.lock().map(|mut samples| std::mem::take(&mut *samples)).unwrap_or_default()
    }

    /// How many have failed so far.
    fn lost(&self) -> usize {
        self.stopped.store(true, Ordering::Relaxed);
        let mut open = self.open.lock().expect("no client panicked");
        std::iter::from_fn(|| open.try_join_next()).filter(|end| !matches!(end, Ok(Ok(())))).count()
    }
}

fn shown(sorted: &[Duration]) -> String {
    let at = |part: f64| {
        let at = ((sorted.len() as f64 * part) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or_else(|| "none".to_owned(), |time| format!("{:.2} ms", time.as_secs_f64() * 1e3))
    };
    [0.5, 0.99, 0.999, 1.0].map(at).join(" | ")
}

//! The proxy under a supervisor: its file, its signals, its admin address, what it logs and what it takes.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::ledger::lock;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The file beside the proxy's own that keys the tags of sessions.
const SECRET: &str = "secret";

/// A server as the file has it.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) weight: u32,
}

/// What the proxy has said so far.
#[derive(Default)]
pub(crate) struct Said {
    /// Why what stayed has ended, by the number in its path.
    pub(crate) reasons: HashMap<u64, String>,
    /// How often it said what at WARN or above.
    pub(crate) complaints: BTreeMap<String, u64>,
    /// How often a process was ready.
    ready: u64,
}

/// The running proxy, and whatever takes its place.
pub(crate) struct Proxy {
    supervisor: Child,
    file: PathBuf,
    pub(crate) listen: SocketAddr,
    admin: SocketAddr,
    said: Arc<Mutex<Said>>,
}

impl Proxy {
    /// Starts it over these servers, and waits until it is ready.
    pub(crate) async fn start(file: PathBuf, numbers: &[Entry], chat: &[Entry]) -> io::Result<Self> {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let (listen, admin) = (free()?, free()?);
        let secret = file.with_file_name(SECRET);
        fs::write(&secret, "sixteen and more bytes")?;
        fs::set_permissions(secret, fs::Permissions::from_mode(0o600))?;
        fs::write(&file, configuration(&file, (listen, admin), numbers, chat))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
        command.args(["run", "--supervise", "-c"]).arg(&file).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut supervisor = command.spawn()?;
        let said = Arc::<Mutex<Said>>::default();
        for (output, note) in [
            (supervisor.stdout.take().map(|it| Box::new(it) as Output), note_request as Note),
            (supervisor.stderr.take().map(|it| Box::new(it) as Output), note_complaint as Note),
        ] {
            let output = output.ok_or_else(|| io::Error::other("there is no output"))?;
            let said = said.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    note(&mut lock(&said), &line);
                }
            });
        }
        let this = Self { supervisor, file, listen, admin, said };
        this.is_ready_again(0).await?;
        Ok(this)
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        lock(&self.said)
    }

    /// Puts other servers in force.
    pub(crate) async fn reload(&self, numbers: &[Entry], chat: &[Entry]) -> io::Result<()> {
        fs::write(&self.file, configuration(&self.file, (self.listen, self.admin), numbers, chat))?;
        self.order("reload", &json!({})).await
    }

    /// Has another process take its place, and waits until the old one is gone.
    pub(crate) async fn hand_over(&self) -> io::Result<()> {
        let before = self.said().ready;
        self.signal(Signal::USR2)?;
        self.is_ready_again(before).await?;
        self.until(|this| Ok(this.processes()?.len() == 1)).await
    }

    /// Gives an order to the admin address, as its API takes them.
    pub(crate) async fn order(&self, name: &str, order: &Value) -> io::Result<()> {
        let (status, body) = self.ask("POST", &format!("/api/v1/{name}"), &order.to_string()).await?;
        if status == 200 { Ok(()) } else { Err(io::Error::other(format!("{name} {order}: {status} {body}"))) }
    }

    /// The sum of a gauge over all of its labels.
    pub(crate) async fn gauge(&self, name: &str) -> io::Result<f64> {
        let (_, metrics) = self.ask("GET", "/metrics", "").await?;
        let of_it = metrics.lines().filter_map(|line| {
            let behind = line.strip_prefix(name)?;
            behind.starts_with(['{', ' ']).then(|| behind.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        Ok(of_it.sum())
    }

    /// Stops it; returns whether it has ended well.
    pub(crate) async fn stop(mut self) -> io::Result<(bool, Said)> {
        self.signal(Signal::TERM)?;
        let status = timeout(PATIENCE, self.supervisor.wait()).await??;
        sleep(Duration::from_millis(500)).await; // For the last lines.
        Ok((status.success(), std::mem::take(&mut *self.said())))
    }

    /// Bytes of memory that are its own, and how many processes share them.
    pub(crate) fn memory(&self) -> io::Result<(u64, usize)> {
        let (processes, mut kib) = (self.processes()?, 0);
        for process in &processes {
            // One that has ended since has none.
            let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
            let dirty = text.lines().filter_map(|line| line.strip_prefix("Private_Dirty:"));
            kib += dirty.filter_map(|it| it.split_whitespace().next()?.parse::<u64>().ok()).sum::<u64>();
        }
        Ok((kib * 1024, processes.len()))
    }

    /// The processes below the supervisor, which is none of them.
    fn processes(&self) -> io::Result<Vec<u32>> {
        let (mut all, mut next) = (Vec::new(), vec![self.supervisor.id().unwrap_or_default()]);
        while let Some(process) = next.pop() {
            for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                next.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
            all.push(process);
        }
        Ok(all.split_off(1))
    }

    async fn is_ready_again(&self, before: u64) -> io::Result<()> {
        self.until(|this| Ok(this.said().ready > before)).await
    }

    async fn until(&self, is_so: impl Fn(&Self) -> io::Result<bool>) -> io::Result<()> {
        let waiting = async {
            while !is_so(self)? {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        timeout(PATIENCE, waiting).await.map_err(|_| io::Error::other("the proxy is not where it should be"))?
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.supervisor.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(kill_process(pid.ok_or_else(|| io::Error::other("the proxy has ended"))?, signal)?)
    }

    async fn ask(&self, method: &str, target: &str, body: &str) -> io::Result<(u16, String)> {
        let mut tcp = TcpStream::connect(self.admin).await?;
        let fields = format!("Host: localhost\r\nX-Steadfast: 1\r\nContent-Length: {}\r\n", body.len());
        let head = format!("{method} {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        tcp.write_all((head + body).as_bytes()).await?;
        let mut answer = String::new();
        timeout(PATIENCE, tcp.read_to_string(&mut answer)).await??;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("half an answer"))?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| io::Error::other("no status"))?, body.to_owned()))
    }
}

impl Drop for Proxy {
    /// With all of its processes: the supervisor passes this on.
    fn drop(&mut self) {
        // Twice is at once. It may have ended long ago.
        let _ = self.signal(Signal::TERM).and_then(|()| self.signal(Signal::TERM));
    }
}

type Output = Box<dyn tokio::io::AsyncRead + Send + Unpin>;
type Note = fn(&mut Said, &str);

/// Keeps why a relay ended, and a poll that did not end well.
fn note_request(said: &mut Said, line: &str) {
    let Ok(line) = serde_json::from_str::<Value>(line) else { return };
    let mut path = line["path"].as_str().unwrap_or_default().split('/').skip(1);
    let (kind, id) = (path.next(), path.next().and_then(|id| id.parse().ok()));
    let (Some(id), Some(reason)) = (id, line["end_reason"].as_str()) else { return };
    if kind != Some("poll") || line["status"] != 200 || reason != "complete" {
        said.reasons.insert(id, reason.to_owned());
    }
}

/// Counts what it complains of, without the numbers in it.
fn note_complaint(said: &mut Said, line: &str) {
    said.ready += u64::from(line.ends_with(" ready"));
    let Some(at) = [" WARN ", "ERROR ", "panicked"].into_iter().find_map(|word| line.find(word)) else { return };
    let mut text = String::new();
    for c in line[at..].trim().chars() {
        match c.is_ascii_digit() {
            true if text.ends_with('#') => {}
            true => text.push('#'),
            false => text.push(c),
        }
    }
    *said.complaints.entry(text).or_default() += 1;
}

/// The file with these servers in it.
fn configuration(file: &Path, (listen, admin): (SocketAddr, SocketAddr), numbers: &[Entry], chat: &[Entry]) -> String {
    let secret = file.with_file_name(SECRET);
    let list = |entries: &[Entry]| {
        entries.iter().fold(String::new(), |mut list, Entry { name, address, weight }| {
            let _ = write!(list, "\n      - {{ address: \"{address}\", name: {name}, weight: {weight} }}");
            list
        })
    };
    format!(
        "listeners: [{{ bind: \"{listen}\" }}]
admin: {{ bind: \"{admin}\" }}
access_log: {{ path: stdout, format: json }}
affinity_secret_file: {}
shutdown: {{ grace: 30s, spread: 5s }}
upstreams:
  numbers:
    servers: {}
    affinity: [forwarded_for]
    health_check: {{ tcp: on, interval: 1s }}
    sse: {{ keepalive: 5s, resume: on, retry: 1s }}
    websocket: {{ ping: 5s, pong_timeout: 60s }}
    rebalance: {{ per_minute: 20, min_age: 10s }}
    drain: {{ timeout: 20s, spread: 5s, removed: drain }}
  chat:
    servers: {}
    # All clients have one address, and no key spreads them.
    affinity: [engine_io]
    health_check: {{ path: /healthz, interval: 1s }}
    drain: {{ timeout: 20s, spread: 5s }}
routes:
  - {{ path: /socket.io/, upstream: chat }}
  - {{ upstream: numbers }}
",
        secret.display(),
        list(numbers),
        list(chat)
    )
}

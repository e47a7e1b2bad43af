//! Socket.IO for real: the servers and the client's half of `conf/examples/socket-io-redis`, a Redis, and
//! clients that check that everything said reaches everybody once.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A server that can be killed.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    redis: SocketAddr,
    process: Option<Child>,
}

/// A Redis that forgets everything, and ends with this.
pub(crate) struct Redis {
    address: SocketAddr,
    _process: Child,
    _directory: tempfile::TempDir,
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

async fn is_there(address: SocketAddr) -> io::Result<()> {
    let connecting = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, connecting).await.map_err(|_| io::Error::other(format!("nobody listens at {address}")))
}

impl Redis {
    pub(crate) async fn start() -> io::Result<Self> {
        let (address, directory) = (free_address()?, tempfile::tempdir()?);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        command.arg(address.port().to_string()).arg("--dir").arg(directory.path());
        let process = command.stdout(Stdio::null()).kill_on_drop(true).spawn()?;
        is_there(address).await?;
        Ok(Self { address, _process: process, _directory: directory })
    }
}

impl Server {
    pub(crate) async fn start(name: &str, redis: &Redis) -> io::Result<Self> {
        let mut this = Self { name: name.to_owned(), address: free_address()?, redis: redis.address, process: None };
        this.come_back().await?;
        Ok(this)
    }

    /// Whether it is there.
    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// Ends it without a farewell.
    pub(crate) async fn kill(&mut self) -> io::Result<()> {
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Starts it where it was.
    pub(crate) async fn come_back(&mut self) -> io::Result<()> {
        let mut command = Command::new("node");
        command.arg(root().join("conf/examples/socket-io-redis/server.js"));
        command.env("NODE_PATH", root().join("tests/clients/node_modules"));
        command.env("PORT", self.address.port().to_string()).env("NAME", &self.name);
        command.env("REDIS_URL", format!("redis://{}", self.redis));
        self.process = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn()?);
        is_there(self.address).await
    }
}

/// The clients.
pub(crate) struct Crowd {
    _process: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// What has become of what they said.
pub(crate) struct Heard {
    /// How many clients there were.
    pub(crate) clients: usize,
    /// How often they connected.
    pub(crate) connects: u64,
    /// What was said.
    pub(crate) said: u64,
    /// How often something was shown that should not have been shown then.
    pub(crate) wrong: Vec<String>,
}

impl Crowd {
    /// So many clients of each transport, once all of them are there.
    pub(crate) async fn come(proxy: SocketAddr, each: usize) -> io::Result<Self> {
        let argument = json!({
            "client": PathBuf::from(root()).join("conf/examples/socket-io-redis/client.mjs"),
            "url": format!("http://{proxy}"),
            "crowds": { "polling": each, "websocket": each, "upgrade": each },
            "every": 5000,
        });
        let mut command = Command::new("node");
        command.arg(root().join("tests/clients/chat_crowd.mjs")).arg(argument.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let missing = || io::Error::other("a pipe is missing");
        let (commands, output) = (process.stdin.take(), process.stdout.take());
        let lines = BufReader::new(output.ok_or_else(missing)?).lines();
        let mut this = Self { _process: process, commands: commands.ok_or_else(missing)?, lines };
        this.says("ready").await?;
        Ok(this)
    }

    /// Has them say no more; returns what has come when everybody has everything.
    pub(crate) async fn finish(&mut self) -> io::Result<Heard> {
        self.commands.write_all(b"{\"stop\":true}\n").await?;
        let report = self.says("report").await?;
        let clients = report["clients"].as_array().map(Vec::as_slice).unwrap_or_default();
        let wrong = clients.iter().flat_map(|client| client["wrong"].as_array().cloned().unwrap_or_default());
        Ok(Heard {
            clients: clients.len(),
            connects: clients.iter().filter_map(|client| client["connects"].as_u64()).sum(),
            said: report["said"].as_u64().unwrap_or_default(),
            wrong: wrong.map(|it| it.to_string()).collect(),
        })
    }

    async fn says(&mut self, key: &str) -> io::Result<Value> {
        let saying = async {
            while let Some(line) = self.lines.next_line().await? {
                let line: Value = serde_json::from_str(&line).unwrap_or_default();
                if let Some(value) = line.get(key) {
                    return Ok(value.clone());
                }
            }
            Err(io::Error::other("the clients of Socket.IO have ended"))
        };
        timeout(PATIENCE, saying).await.map_err(|_| io::Error::other(format!("they do not say {key:?} in time")))?
    }
}

/// What has to be there, and how it gets there.
pub(crate) fn check_installed() -> io::Result<()> {
    match fs::metadata(root().join("tests/clients/node_modules")) {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::other("the clients of Socket.IO are missing: run tests/install.sh soak")),
    }
}

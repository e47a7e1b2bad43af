//! A real Redis, empty at every start.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use redis::{FromRedisValue, aio::MultiplexedConnection};
use tempfile::TempDir;

use super::process::Process;
use super::soon;

/// A Redis; gone when dropped.
pub(crate) struct Redis {
    address: SocketAddr,
    options: Vec<String>,
    process: Option<Process>,
    directory: TempDir,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One with more options, such as `--requirepass`.
    ///
    /// Redis cannot listen on a port of the kernel's choice, so one is chosen that was free just
    /// now, and another if somebody was faster.
    pub(crate) async fn start_with(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let options = options.iter().map(|it| (*it).to_owned()).collect();
        let mut redis = Self { address: free_address(), options, process: None, directory };
        while !redis.try_start().await {
            redis.address = free_address();
        }
        redis
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, and everything it remembers.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again where it was, remembering nothing.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        let started = async { while !self.try_start().await {} };
        soon("Redis to get its port back", started).await;
    }

    /// Stops it where it is: connections can be made, and nothing is answered.
    pub(crate) fn pause(&self) {
        self.process().pause();
    }

    /// Lets it go on after [`Redis::pause`].
    pub(crate) fn go_on(&self) {
        self.process().go_on();
    }

    /// The answer to a command.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        let mut words = command.split(' ');
        let mut command_line = redis::cmd(words.next().expect("split yields at least one"));
        for word in words {
            command_line.arg(word);
        }
        let mut connection = self.connect().await;
        let answer = soon("Redis to answer", command_line.query_async(&mut connection)).await;
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(format!("redis://{}", self.address)).expect("a right url");
        let connecting = Box::pin(client.get_multiplexed_async_connection());
        let connection = soon("a connection to Redis", connecting).await;
        connection.expect("Redis takes connections")
    }

    async fn try_start(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.address.port().to_string()]);
        command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(self.directory.path());
        command.args(&self.options);
        let process = Process::start(command);
        let started = |line: &str| match line {
            _ if line.contains("Ready to accept connections") => Some(true),
            _ if line.contains("Failed listening on port") => Some(false),
            _ => None,
        };
        let is_started = process.stdout_line("Redis to start", started).await;
        self.process = is_started.then_some(process);
        is_started
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("Redis runs")
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

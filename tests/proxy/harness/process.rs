//! A child process that never outlives its test and whose output can be awaited.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_getfd, pidfd_open,
    setrlimit,
};
use serde_json::Value;
use socket2::Socket;
use tokio::sync::watch;

use super::{PATIENCE, soon, within};

/// A running program, killed when dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
    at_the_end: Signal,
    readers: Vec<JoinHandle<()>>,
    stdout: watch::Receiver<Vec<String>>,
    stderr: watch::Receiver<Vec<String>>,
}

impl Process {
    /// Starts `command`; stdin is left as the command says.
    pub(crate) fn start(mut command: Command) -> Self {
        allow_many_files();
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let (out, stdout) = lines(child.stdout.take().expect("stdout is piped"));
        let (err, stderr) = lines(child.stderr.take().expect("stderr is piped"));
        Self { child, name, at_the_end: Signal::KILL, readers: vec![out, err], stdout, stderr }
    }

    /// Terminates it when dropped instead of killing it: it has children of its own to end.
    pub(crate) fn ended_gently(mut self) -> Self {
        self.at_the_end = Signal::TERM;
        self
    }

    /// The first line on stdout that `pick` takes, now or soon.
    pub(crate) async fn stdout_line<T>(&self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        soon(what, self.line(&self.stdout, pick)).await
    }

    /// The value under `key` in the first line of JSON on stdout that has it, without a limit.
    pub(crate) async fn says(&self, key: &str) -> Value {
        let pick = |line: &str| {
            let mut line: Value = serde_json::from_str(line).ok()?;
            line.get_mut(key).map(Value::take)
        };
        self.line(&self.stdout, pick).await
    }

    /// The first line on stderr that `pick` takes, now or soon.
    pub(crate) async fn stderr_line<T>(&self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        soon(what, self.line(&self.stderr, pick)).await
    }

    /// What stdout has said so far.
    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.borrow().clone()
    }

    /// What stderr has said so far.
    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.borrow().clone()
    }

    pub(crate) fn stdin(&mut self) -> &mut std::process::ChildStdin {
        self.child.stdin.as_mut().expect("stdin is piped")
    }

    /// Waits until it ends by itself, all output read.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.exit_within(PATIENCE).await
    }

    /// The same for one that has much to do.
    pub(crate) async fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        for output in [&mut self.stdout, &mut self.stderr] {
            let ended = async { while output.changed().await.is_ok() {} };
            within(limit, "the process to end", ended).await;
        }
        self.child.wait().expect("it is our child")
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Tells it to read its configuration again.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Stops it where it is: its sockets stay open, and nothing answers.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Asks it to start the next process.
    pub(crate) fn signal_user_2(&self) {
        self.signal(Signal::USR2);
    }

    /// The processes that it has started and that run.
    pub(crate) fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = std::fs::read_to_string(path).expect("it runs");
        children.split_whitespace().map(|pid| pid.parse().expect("a number")).collect()
    }

    /// Whether it has ended, whoever may still hold its output.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Ends a process that is not the test's own child.
    pub(crate) fn terminate_other(pid: u32) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process has a number");
        kill_process(pid, Signal::TERM).expect("it runs");
    }

    /// Lets it go on after [`Process::pause`].
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Bytes of memory that are its own: no files, nothing shared.
    pub(crate) fn memory(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux tells");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib * 1024
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its own socket whose peer has this address; `None` where nobody may look at other processes'
    /// descriptors, of which the test's log tells.
    pub(crate) fn socket_to(&self, peer: SocketAddr) -> Option<Socket> {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("it runs");
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("it runs");
        for descriptor in descriptors.flatten() {
            let number = descriptor.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number");
            match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
                Ok(descriptor) => {
                    let socket = Socket::from(descriptor);
                    if socket.peer_addr().ok().and_then(|address| address.as_socket()) == Some(peer) {
                        return Some(socket);
                    }
                }
                Err(Errno::PERM | Errno::NOSYS) => {
                    // Not by the macros, whose output is only shown for tests that fail.
                    let _ = writeln!(std::io::stderr(), "NOT RUN, for want of pidfd_getfd: looking at sockets");
                    return None;
                }
                Err(_) => {} // It has just been closed.
            }
        }
        panic!("{} has no socket to {peer}", self.name);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is our child");
    }

    async fn line<T>(&self, output: &watch::Receiver<Vec<String>>, pick: impl Fn(&str) -> Option<T>) -> T {
        let mut output = output.clone();
        let mut looked_at = 0;
        loop {
            {
                let lines = output.borrow_and_update();
                if let Some(found) = lines[looked_at..].iter().find_map(|line| pick(line)) {
                    return found;
                }
                looked_at = lines.len();
            }
            assert!(output.changed().await.is_ok(), "{} ended before it said what was waited for", self.name);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(self.at_the_end);
            let _ = self.child.wait();
        }
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            for (kind, output) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
                let lines = output.borrow();
                let first = lines.len().saturating_sub(SHOWN);
                println!("--- {kind} of {}, last {SHOWN} lines\n{}", self.name, lines[first..].join("\n"));
            }
        }
    }
}

const SHOWN: usize = 60;

/// Reads lines on a thread of its own: they arrive also while the test's runtime stands still.
fn lines(output: impl Read + Send + 'static) -> (JoinHandle<()>, watch::Receiver<Vec<String>>) {
    let (sender, receiver) = watch::channel(Vec::new());
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            sender.send_modify(|lines: &mut Vec<String>| lines.push(line));
        }
    });
    (reader, receiver)
}

/// Raises the soft limit of open files to the hard one, here and for every child after.
pub(crate) fn allow_many_files() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised to the hard one");
    });
}

//! A network of the test's own, with a place behind it that can vanish: from one moment to the next
//! no packet comes from there or arrives, and nobody is told.
//!
//! Such networks are namespaces of Linux. To enter one a process must be alone in its own, so a
//! test that needs one runs itself again there, and nothing of this machine's network is touched.
//!
//! ```text
//! the test, run again, with the proxy       away: a shell that holds the place open
//!    127.0.0.1    192.0.2.1 near ══════════ far 192.0.2.2
//! ```

use std::any::type_name;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::process::Process;
use super::{Upstream, Wire, seconds};

/// The network, as the test within sees it.
pub(crate) struct Network {
    away: Process,
    namespace: File,
    told: usize,
}

/// How a place vanishes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Vanishing {
    /// Packets are dropped on the way, as a NAT does that has forgotten a connection.
    OnTheWay,
    /// The machine next door is switched off: nobody answers for its address any more.
    NextDoor,
    /// The way there is cut on this side.
    OnThisSide,
}

impl Network {
    /// Where the proxy is, as seen from away.
    pub(crate) const HERE: &str = "192.0.2.1";

    /// The network for the test that asks, which must be given: `None` when it has been run again
    /// in one, and there is nothing left to do, or when this machine allows none.
    pub(crate) async fn of_its_own<T>(_test: T) -> Option<Self> {
        if std::env::var_os(WITHIN).is_some() {
            return Some(Self::build().await);
        }
        let (_, name) = type_name::<T>().split_once("::").expect("a test has a path");
        let Some(isolated) = isolated() else {
            // Not by the macros, whose output is only shown for tests that fail.
            let _ = writeln!(std::io::stderr(), "NOT RUN, for want of network namespaces (unshare, ip): {name}");
            return None;
        };
        let mut command = Command::new("unshare");
        command.args(isolated).arg(std::env::current_exe().expect("a test has a program"));
        command.args(["--exact", name, "--nocapture"]).env(WITHIN, "1").stdin(Stdio::null());
        let mut process = Process::start(command);
        let status = process.exit_within(seconds(90)).await;
        let has_run = process.stdout().iter().any(|line| line.contains("1 passed"));
        println!("{}", process.stdout().join("\n"));
        assert!(status.success() && has_run, "{name} failed in a network of its own: {status}");
        None
    }

    async fn build() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh"]).stdin(Stdio::piped());
        let away = Process::start(command);
        let mut network = Self { namespace: File::open("/dev/null").expect("there is one"), away, told: 0 };
        // Once it answers, it is where it should be.
        network.tell("ip link set lo up").await;
        let id = network.away.id();
        network.namespace = File::open(format!("/proc/{id}/ns/net")).expect("the shell runs");
        ip("link set lo up");
        ip(&format!("link add near address {NEAR} type veth peer name far address {FAR} netns {id}"));
        network.tell("ip address add 192.0.2.2/24 dev far && ip link set far up").await;
        ip("address add 192.0.2.1/24 dev near");
        ip("link set near up");
        network
    }

    /// A connection from away.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Wire {
        let connected = self.enter(move || TcpStream::connect_timeout(&address, super::PATIENCE));
        let stream = connected.await.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        stream.set_nonblocking(true).expect("a socket");
        Wire::new(tokio::net::TcpStream::from_std(stream).expect("a runtime"), "client away")
    }

    /// A server that is away.
    pub(crate) async fn server(&self) -> Upstream {
        let listener = self.enter(|| TcpListener::bind("192.0.2.2:0")).await.expect("a free port");
        Upstream::listening(listener)
    }

    /// Everything away vanishes.
    pub(crate) async fn vanish(&mut self, how: Vanishing) {
        match how {
            Vanishing::OnTheWay => {
                ip(&format!("neighbour replace 192.0.2.2 lladdr {FAR} nud permanent dev near"));
                self.tell("ip address flush dev far").await;
            }
            Vanishing::NextDoor => self.tell("ip link set far arp off && ip address flush dev far").await,
            Vanishing::OnThisSide => ip("link set near down"),
        }
    }

    /// What `action` gives when it is done away. Sockets stay where they are made.
    async fn enter<T: Send + 'static>(&self, action: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = self.namespace.try_clone().expect("a descriptor");
        // A thread of its own, that nobody uses again from there.
        let thread = std::thread::spawn(move || {
            let moved = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
            moved.expect("the namespace is ours");
            action()
        });
        let joined = tokio::task::spawn_blocking(|| thread.join()).await.expect("it was not cancelled");
        joined.expect("what is done away does not panic")
    }

    /// Has the shell that is away run `command`, which must succeed.
    async fn tell(&mut self, command: &str) {
        self.told += 1;
        let told = format!("told {}", self.told);
        writeln!(self.away.stdin(), "set -e; {command}; echo {told}").expect("the shell runs");
        self.away.stdout_line(command, |line| (line == told).then_some(())).await;
    }
}

/// Set for a test that is run again in a network of its own.
const WITHIN: &str = "STEADFAST_TEST_NETWORK";

/// The hardware addresses of the two ends.
const NEAR: &str = "02:00:00:00:00:01";
const FAR: &str = "02:00:00:00:00:02";

/// The options by which `unshare` gives a process a network of its own: as root, or as somebody who
/// may become root in a namespace of users. `None` where nobody may.
fn isolated() -> Option<&'static [&'static str]> {
    static FOUND: OnceLock<Option<&[&str]>> = OnceLock::new();
    const WAYS: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    // All that is needed: a second network within, and a link to it.
    const TRY: &str = "unshare --net true && ip link add near type veth peer name far && ip link set near up";
    let works = |way: &&&[&str]| {
        let mut command = Command::new("unshare");
        command.args(**way).args(["sh", "-c", TRY]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    *FOUND.get_or_init(|| WAYS.iter().find(works).copied())
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip was there a moment ago");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

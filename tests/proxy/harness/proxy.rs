//! The proxy under test: the real binary, with a configuration file written for the test.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use socket2::Socket;
use tempfile::{NamedTempFile, TempDir};
use tokio::net::{TcpSocket, TcpStream};

use super::process::Process;
use super::{Message, ServerEntry, Wire, metrics::Metrics, soon};

/// The program that Cargo built for these tests.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_steadfast");

/// What will be in the configuration file.
pub(crate) struct Setup {
    ip: String,
    listener: String,
    admin: String,
    threads: usize,
    descriptors: Option<usize>,
    binary: PathBuf,
    is_supervised: bool,
    notify: Option<PathBuf>,
    access_log: String,
    lines: Vec<String>,
    upstreams: Vec<Vec<String>>,
    routes: Vec<String>,
}

impl Setup {
    /// An upstream; what follows up to the next one belongs to it.
    pub(crate) fn upstream(mut self, name: &str, servers: &[&dyn ServerEntry]) -> Self {
        let entry = |server: &&dyn ServerEntry| {
            let name = server.name().map(|name| format!(", name: {name}")).unwrap_or_default();
            let state = server.state().map(|state| format!(", state: {state}")).unwrap_or_default();
            format!("{{ address: \"{}\", weight: {}{name}{state} }}", server.address(), server.weight())
        };
        let servers: Vec<_> = servers.iter().map(entry).collect();
        self.upstreams.push(vec![format!("  {name}:"), format!("    servers: [{}]", servers.join(", "))]);
        self
    }

    /// An upstream whose list of servers is written as it stands in the file.
    pub(crate) fn upstream_of(mut self, name: &str, servers: &str) -> Self {
        self.upstreams.push(vec![format!("  {name}:"), format!("    servers: [{servers}]")]);
        self
    }

    /// Affinity of the last upstream, as a YAML list.
    pub(crate) fn affinity(self, list: &str) -> Self {
        self.of_upstream("affinity", list)
    }

    /// Which server a client gets from the last upstream, as a YAML map.
    pub(crate) fn balance(self, map: &str) -> Self {
        self.of_upstream("balance", map)
    }

    /// Timeouts of the last upstream, as a YAML map.
    pub(crate) fn timeouts(self, map: &str) -> Self {
        self.of_upstream("timeouts", map)
    }

    /// Event-stream settings of the last upstream, as a YAML map.
    pub(crate) fn sse(self, map: &str) -> Self {
        self.of_upstream("sse", map)
    }

    /// WebSocket settings of the last upstream, as a YAML map.
    pub(crate) fn websocket(self, map: &str) -> Self {
        self.of_upstream("websocket", map)
    }

    /// How fast the last upstream takes those who come to stay, as a YAML map.
    pub(crate) fn paced(self, map: &str) -> Self {
        self.of_upstream("limits", map)
    }

    /// A route, as a YAML map. Without any, everything goes to the first upstream.
    pub(crate) fn route(mut self, map: &str) -> Self {
        self.routes.push(format!("  - {map}"));
        self
    }

    /// The hops whose forwarded headers are believed, as a YAML list.
    pub(crate) fn trusting(self, list: &str) -> Self {
        self.line(&format!("trusted_proxies: {list}"))
    }

    /// What keys the tags of sessions.
    pub(crate) fn secret(self, file: &SecretFile) -> Self {
        self.line(&format!("affinity_secret_file: {}", file.path().display()))
    }

    /// Where it listens, instead of the loopback address.
    pub(crate) fn bind(mut self, ip: &str) -> Self {
        ip.clone_into(&mut self.ip);
        self
    }

    /// What its listener has beside its address, as keys of a YAML map.
    pub(crate) fn listening(mut self, keys: &str) -> Self {
        self.listener = format!(", {keys}");
        self
    }

    /// What its admin address has beside it, as keys of a YAML map.
    pub(crate) fn admin(mut self, keys: &str) -> Self {
        self.admin = format!(", {keys}");
        self
    }

    /// The PROXY header that servers of the last upstream get.
    pub(crate) fn send_proxy_protocol(self, version: &str) -> Self {
        self.of_upstream("send_proxy_protocol", version)
    }

    /// How servers of the last upstream are spoken to over TLS, as a YAML map.
    pub(crate) fn tls(self, map: &str) -> Self {
        self.of_upstream("tls", map)
    }

    /// Worker threads, instead of two.
    pub(crate) fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Open files that it may have, instead of as many as the test may.
    pub(crate) fn descriptors(mut self, descriptors: usize) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    /// The program, instead of the one that Cargo built.
    pub(crate) fn binary(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// Below a supervisor.
    pub(crate) fn supervised(mut self) -> Self {
        self.is_supervised = true;
        self
    }

    /// With a socket that hears how it is, as systemd does.
    pub(crate) fn notifying(mut self, socket: &Path) -> Self {
        self.notify = Some(socket.to_owned());
        self
    }

    /// Where and how the access log goes, as a YAML map, instead of JSON to the test.
    pub(crate) fn access_log(mut self, map: &str) -> Self {
        self.access_log = map.to_owned();
        self
    }

    /// A line of the file's top level, for what has no method here.
    pub(crate) fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// Starts the proxy and waits until it is ready.
    pub(crate) async fn run(self) -> Proxy {
        let yaml = self.yaml();
        self.run_as(&yaml).await
    }

    /// The same with another file than this setup would write.
    pub(crate) async fn run_as(self, yaml: &str) -> Proxy {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let file = directory.path().join("steadfast.yaml");
        let yaml = yaml.replace("DIRECTORY", &directory.path().display().to_string());
        std::fs::write(&file, yaml).expect("the file is ours");
        let mut command = match self.descriptors {
            Some(descriptors) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]).arg(&self.binary);
                shell
            }
            None => Command::new(&self.binary),
        };
        command.arg("run").arg("-c").arg(&file).stdin(Stdio::null()).env("NO_COLOR", "1");
        if self.is_supervised {
            command.arg("--supervise");
        }
        if let Some(socket) = &self.notify {
            command.env("NOTIFY_SOCKET", socket);
        }
        let mut process = Process::start(command);
        if self.is_supervised {
            process = process.ended_gently();
        }
        Proxy::of(process, self.binary, file, directory).await
    }

    /// Another key of the last upstream, as YAML.
    pub(crate) fn of_upstream(mut self, key: &str, value: &str) -> Self {
        let upstream = self.upstreams.last_mut().expect("an upstream comes first");
        upstream.push(format!("    {key}: {value}"));
        self
    }

    fn yaml(&self) -> String {
        let mut lines = vec![
            format!("listeners: [{{ bind: \"{}:0\"{} }}]", self.ip, self.listener),
            format!("admin: {{ bind: \"127.0.0.1:0\"{} }}", self.admin),
            format!("access_log: {}", self.access_log),
            format!("threads: {}", self.threads),
        ];
        if !self.lines.iter().any(|line| line.starts_with("shutdown:")) {
            lines.push("shutdown: { spread: 0s }".to_owned());
        }
        lines.extend(self.lines.iter().cloned());
        lines.push("upstreams:".to_owned());
        lines.extend(self.upstreams.iter().flatten().cloned());
        lines.push("routes:".to_owned());
        lines.extend(self.routes.iter().cloned());
        if self.routes.is_empty() {
            let first = self.upstreams[0][0].trim().trim_end_matches(':');
            lines.push(format!("  - {{ upstream: {first} }}"));
        }
        lines.join("\n") + "\n"
    }
}

/// A secret that the proxies of a fleet share.
pub(crate) struct SecretFile(NamedTempFile);

impl SecretFile {
    pub(crate) fn with(secret: &str) -> Self {
        let mut file = NamedTempFile::new().expect("a temporary file");
        file.write_all(secret.as_bytes()).expect("the file is ours");
        Self(file)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// The running proxy.
pub(crate) struct Proxy {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    binary: PathBuf,
    file: PathBuf,
    directory: Arc<TempDir>,
}

impl Proxy {
    /// Begins a setup. JSON access log to the test, two threads, an admin address.
    pub(crate) fn start() -> Setup {
        Setup {
            ip: "127.0.0.1".to_owned(),
            listener: String::new(),
            admin: String::new(),
            threads: 2,
            descriptors: None,
            binary: BINARY.into(),
            is_supervised: false,
            notify: None,
            access_log: "{ path: stdout, format: json }".to_owned(),
            lines: Vec::new(),
            upstreams: Vec::new(),
            routes: Vec::new(),
        }
    }

    /// One that runs on this file as it stands. It listens somewhere, and has an admin address.
    pub(crate) async fn of_file(yaml: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let file = directory.path().join("steadfast.yaml");
        std::fs::write(&file, yaml).expect("the file is ours");
        let mut command = Command::new(BINARY);
        command.arg("run").arg("-c").arg(&file).stdin(Stdio::null()).env("NO_COLOR", "1");
        Self::of(Process::start(command), BINARY.into(), file, directory).await
    }

    /// The proxy that this process is, once it is ready.
    async fn of(process: Process, binary: PathBuf, file: PathBuf, directory: Arc<TempDir>) -> Self {
        let ready = |line: &str| line.ends_with("ready").then_some(());
        process.stderr_line("the proxy to be ready", ready).await;
        let said = process.stderr();
        let address = |word: &str| {
            let found = said.iter().find_map(|line| address_after(line, word));
            found.unwrap_or_else(|| panic!("no {word:?} in:\n{}", said.join("\n")))
        };
        let (address, admin) = (address("listening on "), address("admin on "));
        Self { process, address, admin, binary, file, directory }
    }

    /// A process with its file that is to take over from it.
    pub(crate) fn start_next(&self) -> Process {
        let mut command = Command::new(&self.binary);
        command.args(["run", "--take-over", "-c"]).arg(&self.file).stdin(Stdio::null()).env("NO_COLOR", "1");
        Process::start(command)
    }

    /// Hands everything over to another process, which is this proxy from then on; returns the old one.
    pub(crate) async fn hand_over(&mut self) -> Process {
        let (binary, file, directory) = (self.binary.clone(), self.file.clone(), self.directory.clone());
        let next = Self::of(self.start_next(), binary, file, directory).await;
        assert_eq!((next.address, next.admin), (self.address, self.admin));
        std::mem::replace(self, next).process
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The process that it is.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client's connection.
    pub(crate) async fn connect(&self) -> Wire {
        connect(self.address()).await
    }

    /// That of a client with little room for what it does not read, neither in its own kernel nor in
    /// the proxy's: a sender has room for ten segments at least, and on loopback one is 64 KiB.
    pub(crate) async fn connect_narrow(&self) -> Wire {
        Self::narrow(self.address()).await
    }

    /// The same to the admin address.
    pub(crate) async fn connect_admin_narrow(&self) -> Wire {
        Self::narrow(self.admin).await
    }

    async fn narrow(address: SocketAddr) -> Wire {
        const ETHERNET_MSS: u32 = 1460;
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(8 * 1024).expect("a socket can be narrow");
        socket2::SockRef::from(&socket).set_tcp_mss(ETHERNET_MSS).expect("a socket can have small segments");
        let stream = soon("a connection", socket.connect(address)).await;
        Wire::new(stream.expect("the proxy listens"), "client")
    }

    /// Its configuration file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Changes its configuration file: each of these texts becomes another one.
    pub(crate) fn rewrite(&self, changes: &[(&str, &str)]) {
        let mut text = std::fs::read_to_string(&self.file).expect("the file is ours");
        for (from, to) in changes {
            assert!(text.contains(from), "{from:?} is not in:\n{text}");
            text = text.replace(from, to);
        }
        std::fs::write(&self.file, text).expect("the file is ours");
    }

    /// Has it read its configuration file again, in which these texts become others; returns the
    /// answer.
    pub(crate) async fn reload(&self, changes: &[(&str, &str)]) -> Message {
        self.rewrite(changes);
        self.order("reload", json!({})).await
    }

    /// What the admin address answers to an order of this name.
    pub(crate) async fn order(&self, name: &str, order: Value) -> Message {
        self.order_of(name, &order.to_string()).await
    }

    /// The same to any text in its place.
    pub(crate) async fn order_of(&self, name: &str, body: &str) -> Message {
        let mut client = self.connect_admin().await;
        let fields = format!("Host: localhost\r\nX-Steadfast: 1\r\nContent-Length: {}\r\n", body.len());
        client.send(format!("POST /api/v1/{name} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n{body}")).await;
        client.response().await
    }

    /// Tells it to read its configuration file again, without waiting for that.
    pub(crate) fn hang_up(&self) {
        self.process.hang_up();
    }

    /// Its own socket whose peer has this address; `None` where nobody may look.
    pub(crate) fn socket_to(&self, peer: SocketAddr) -> Option<Socket> {
        self.process.socket_to(peer)
    }

    /// Bytes of memory that it uses and that are nobody else's.
    pub(crate) fn memory(&self) -> usize {
        self.process.memory()
    }

    /// A connection on which `request` was sent.
    pub(crate) async fn send(&self, request: impl AsRef<[u8]>) -> Wire {
        let mut client = self.connect().await;
        client.send(request).await;
        client
    }

    /// One request on a connection of its own, and its response.
    pub(crate) async fn exchange(&self, request: impl AsRef<[u8]>) -> Message {
        self.send(request).await.response().await
    }

    /// Where operators connect.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Its file as an operator has it, for commands that ask a running proxy: with the admin address in
    /// the place of a port that the kernel was to choose.
    pub(crate) fn operators_file(&self) -> PathBuf {
        const CHOSEN: &str = "admin: { bind: \"127.0.0.1:0\"";
        let text = std::fs::read_to_string(&self.file).expect("the file is ours");
        assert!(text.contains(CHOSEN), "another admin address in:\n{text}");
        let file = self.directory.path().join("operators.yaml");
        let text = text.replacen(CHOSEN, &format!("admin: {{ bind: \"{}\"", self.admin), 1);
        std::fs::write(&file, text).expect("the directory is ours");
        file
    }

    /// A connection to the admin address.
    pub(crate) async fn connect_admin(&self) -> Wire {
        connect(self.admin).await
    }

    /// What the admin address answers to a GET.
    pub(crate) async fn admin(&self, path: &str) -> Message {
        self.admin_asked("GET", path).await
    }

    /// What the admin address answers to a request of any method.
    pub(crate) async fn admin_asked(&self, method: &str, path: &str) -> Message {
        let mut client = self.connect_admin().await;
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
        client.response().await
    }

    /// The relays that a query string asks for.
    pub(crate) async fn relays(&self, query: &str) -> Value {
        let page = self.admin(&format!("/api/v1/relays?{query}")).await;
        assert_eq!(page.status(), 200, "{}", page.text());
        page.json()
    }

    /// The listing of relays once there are `count` of them: a head may be seen before its relay is.
    pub(crate) async fn relays_once(&self, count: usize, query: &str) -> Value {
        let listing = async {
            loop {
                let listing = self.relays(query).await;
                if listing["count"] == count {
                    return listing;
                }
                tokio::time::sleep(super::millis(20)).await;
            }
        };
        let listing = tokio::time::timeout(super::PATIENCE, listing).await;
        listing.unwrap_or_else(|_| panic!("there should be {count} relays of {query:?}"))
    }

    /// Ends the relay of this id; the status of the answer.
    pub(crate) async fn end_relay(&self, id: &Value) -> u16 {
        self.admin_asked("DELETE", &format!("/api/v1/relays/{id}")).await.status()
    }

    /// The metrics of this moment.
    pub(crate) async fn metrics(&self) -> Metrics {
        let page = self.admin("/metrics").await;
        assert_eq!(page.status(), 200, "{}", page.text());
        Metrics::parse(&page.text())
    }

    /// Waits until a metric has a value. It can only be asked again and again.
    pub(crate) async fn settles(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = None;
        let settled = async {
            while last != Some(value) {
                last = Some(self.metrics().await.sum(name, labels));
                tokio::time::sleep(super::millis(20)).await;
            }
        };
        let settled = tokio::time::timeout(super::PATIENCE, settled).await;
        assert!(settled.is_ok(), "{name}{labels:?} should become {value}, is {last:?}");
    }

    /// Waits until nothing is open any more.
    pub(crate) async fn settles_empty(&self) {
        self.settles("steadfast_open_connections", &[], 0.0).await;
        self.settles("steadfast_client_connections", &[], 0.0).await;
    }

    /// The first access-log line that `matches`, now or soon.
    pub(crate) async fn logged(&self, matches: impl Fn(&Value) -> bool) -> Value {
        let pick = |line: &str| serde_json::from_str(line).ok().filter(&matches);
        self.process.stdout_line("an access-log line", pick).await
    }

    /// The first access-log line of this path.
    pub(crate) async fn logged_path(&self, path: &str) -> Value {
        self.logged(|line| line["path"] == path).await
    }

    /// Every access-log line so far, as text.
    pub(crate) fn log(&self) -> Vec<String> {
        self.process.stdout()
    }

    /// Every line of its own log so far.
    pub(crate) fn said(&self) -> Vec<String> {
        self.process.stderr()
    }

    /// A line of its own log that has `part`, now or soon.
    pub(crate) async fn heard(&self, part: &str) -> String {
        self.process.stderr_line(part, |line| line.contains(part).then(|| line.to_owned())).await
    }

    /// Waits until it answers `/readyz` with 503: it has heard that it should stop.
    pub(crate) async fn is_stopping(&self) {
        let stopping = async {
            while self.admin("/readyz").await.status() != 503 {
                tokio::time::sleep(super::millis(10)).await;
            }
        };
        soon("the proxy to begin to stop", stopping).await;
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.process.exit().await
    }
}

/// A connection to any address.
pub(crate) async fn connect(address: SocketAddr) -> Wire {
    let stream = soon("a connection", TcpStream::connect(address)).await;
    Wire::new(stream.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}")), "client")
}

/// Reads the address behind a word of a log line.
fn address_after(line: &str, word: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once(word)?;
    let is_address = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
    rest.split(|c| !is_address(c)).next()?.parse().ok()
}

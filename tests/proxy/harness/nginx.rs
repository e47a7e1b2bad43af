//! A real nginx: as the hop in front of the proxy, and as the peer it is compared with.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::Process;
use super::{ServerEntry, Wire, proxy};

/// A running nginx with one listener.
pub(crate) struct Nginx {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

/// What a hop tells the next one about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// Its address, behind those that were told to the hop.
    Address,
    /// The same address for all: they are behind one NAT.
    OneAddress,
    /// Nothing: a hop below HTTP hides it.
    Nothing,
    /// Another address at every request: it roams.
    AnotherAddress,
    /// Its address, but cookies pass neither way.
    NoCookies,
}

impl Nginx {
    /// A hop as most people have it: appends the client's address, gives up after `silence`.
    pub(crate) async fn hop(to: SocketAddr, silence: &str) -> Self {
        Self::start(&Site { silence, ..Site::over(&format!("server {to}; keepalive 64;")) }).await
    }

    /// A hop that was told nothing of the WebSockets at `/ws`, and speaks this version of HTTP.
    pub(crate) async fn without_websockets(to: SocketAddr, version: &str) -> Self {
        let server = format!("location = /ws {{ proxy_pass http://servers; proxy_http_version {version}; }}");
        Self::start(&Site { server: &server, ..Site::over(&format!("server {to};")) }).await
    }

    /// A hop that sends each request to the next of `hops`.
    pub(crate) async fn in_turn(hops: &[SocketAddr], telling: Telling) -> Self {
        Self::start(&Site { telling, ..Site::over(&in_turn(hops)) }).await
    }

    /// A hop that sends each request to the next of `opening` while it has no Engine.IO session,
    /// and to the next of `following` when it has one.
    pub(crate) async fn in_turn_by_age(opening: &[SocketAddr], following: &[SocketAddr], telling: Telling) -> Self {
        let (opening, following) = (in_turn(opening), in_turn(following));
        let groups = format!(
            "upstream opening {{ {opening} }} upstream following {{ {following} }}
            map $arg_sid $age {{ default following; '' opening; }}"
        );
        Self::start(&Site { groups, group: "$age", telling, ..Site::over("") }).await
    }

    /// A server that is told of its clients by the PROXY protocol, and answers what it was told.
    pub(crate) async fn telling_clients() -> Self {
        let server = "location = /told {
            return 200 '$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr';
        }";
        Self::start(&Site { listen: "proxy_protocol", server, ..Site::over("server 127.0.0.1:1;") }).await
    }

    /// Balances by the address of the previous hop.
    pub(crate) async fn ip_hash(servers: &[&dyn ServerEntry]) -> Self {
        Self::start(&Site::over(&format!("ip_hash; {}", list(servers)))).await
    }

    /// Balances by the address of the client, as far as local hops tell.
    pub(crate) async fn ip_hash_of_clients(servers: &[&dyn ServerEntry]) -> Self {
        let ip_hash = Site::over(&format!("ip_hash; {}", list(servers)));
        let server = "set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For; real_ip_recursive on;";
        Self::start(&Site { server, ..ip_hash }).await
    }

    /// Balances by consistent hashing (ketama) of a variable.
    pub(crate) async fn consistent(key: &str, servers: &[&dyn ServerEntry]) -> Self {
        Self::start(&Site::over(&format!("hash {key} consistent; {} keepalive 64;", list(servers)))).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn connect(&self) -> Wire {
        proxy::connect(self.address).await
    }

    /// nginx cannot listen on a port of the kernel's choice. But it takes listening sockets from
    /// an older nginx by descriptor number, and descriptor 0 is the one a child always inherits.
    async fn start(site: &Site<'_>) -> Self {
        Self::of_file(|address| site.configuration(address)).await
    }

    /// One whose whole file is written for the address where it will listen. It says `daemon off`, and logs to
    /// standard error.
    pub(crate) async fn of_file(configuration: impl FnOnce(SocketAddr) -> String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        let file = path.join("nginx.conf");
        std::fs::write(&file, configuration(address)).expect("the file is ours");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(path).arg("-c").arg(&file).args(["-e", "stderr"]);
        command.env("NGINX", "0;").stdin(Stdio::from(OwnedFd::from(listener)));
        let process = Process::start(command).ended_gently();
        let started = |line: &str| line.contains("start worker process").then_some(());
        process.stderr_line("nginx to start", started).await;
        Self { address, _process: process, _directory: directory }
    }
}

impl ServerEntry for Nginx {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

fn list(servers: &[&dyn ServerEntry]) -> String {
    let entry = |server: &&dyn ServerEntry| format!("server {} weight={};", server.address(), server.weight());
    servers.iter().map(entry).collect::<Vec<_>>().join(" ")
}

fn in_turn(hops: &[SocketAddr]) -> String {
    let mut group = String::new();
    for hop in hops {
        write!(group, "server {hop}; ").expect("a string takes everything");
    }
    group + "keepalive 64;"
}

/// What makes one nginx differ from another.
struct Site<'a> {
    /// Groups of servers, at the level of `http`.
    groups: String,
    /// The group that gets a request.
    group: &'a str,
    /// Parameters of `listen`.
    listen: &'a str,
    /// Directives at the level of `server`.
    server: &'a str,
    telling: Telling,
    silence: &'a str,
}

impl Site<'_> {
    /// One group of servers, which gets everything.
    fn over(group: &str) -> Self {
        let groups = format!("upstream servers {{ {group} }}");
        Self { groups, group: "servers", listen: "", server: "", telling: Telling::Address, silence: "60s" }
    }

    fn configuration(&self, address: SocketAddr) -> String {
        let Self { groups, group, listen, server, silence, .. } = self;
        let (forwarded_for, more) = match self.telling {
            Telling::Address => ("$proxy_add_x_forwarded_for", ""),
            Telling::OneAddress => ("192.0.2.1", ""),
            Telling::Nothing => ("''", ""),
            Telling::AnotherAddress => ("$another_address", ""),
            Telling::NoCookies => {
                ("$proxy_add_x_forwarded_for", "proxy_set_header Cookie ''; proxy_hide_header Set-Cookie;")
            }
        };
        format!(
            "daemon off; user root; pid nginx.pid; error_log stderr notice;
            worker_rlimit_nofile 8192;
            events {{ worker_connections 4096; }}
            http {{
                access_log off;
                client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
                uwsgi_temp_path uwsgi; scgi_temp_path scgi;
                keepalive_requests 100000;
                map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
                map $request_id $another_address {{ '~^(?<a>....)(?<b>....)' 2001:db8:$a:$b::1; }}
                {groups}
                server {{
                    listen {address} {listen};
                    {server}
                    location / {{
                        proxy_pass http://{group};
                        proxy_http_version 1.1;
                        proxy_read_timeout {silence};
                        proxy_set_header Host $http_host;
                        proxy_set_header Upgrade $http_upgrade;
                        proxy_set_header Connection $connection_upgrade;
                        proxy_set_header X-Forwarded-For {forwarded_for};
                        {more}
                    }}
                }}
            }}"
        )
    }
}

//! A real nginx: as the hop in front of the proxy, and as the peer it is compared with.

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

impl Nginx {
    /// A hop as most people have it: appends the client's address, gives up after `silence`.
    pub(crate) async fn hop(to: SocketAddr, silence: &str) -> Self {
        Self::start(&format!("server {to}; keepalive 64;"), silence).await
    }

    /// Balances by the address of the previous hop.
    pub(crate) async fn ip_hash(servers: &[&dyn ServerEntry]) -> Self {
        Self::start(&format!("ip_hash; {}", list(servers)), "60s").await
    }

    /// Balances by consistent hashing (ketama) of a variable.
    pub(crate) async fn consistent(key: &str, servers: &[&dyn ServerEntry]) -> Self {
        let upstream = format!("hash {key} consistent; {} keepalive 64;", list(servers));
        Self::start(&upstream, "60s").await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn connect(&self) -> Wire {
        proxy::connect(self.address).await
    }

    /// nginx cannot listen on a port of the kernel's choice. But it takes listening sockets from
    /// an older nginx by descriptor number, and descriptor 0 is the one a child always inherits.
    async fn start(upstream: &str, silence: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        let file = path.join("nginx.conf");
        std::fs::write(&file, configuration(address, upstream, silence)).expect("the file is ours");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(path).arg("-c").arg(&file).args(["-e", "stderr"]);
        command.env("NGINX", "0;").stdin(Stdio::from(OwnedFd::from(listener)));
        let process = Process::start(command).ended_gently();
        let started = |line: &str| line.contains("start worker process").then_some(());
        process.stderr_line("nginx to start", started).await;
        Self { address, _process: process, _directory: directory }
    }
}

fn list(servers: &[&dyn ServerEntry]) -> String {
    let entry = |server: &&dyn ServerEntry| format!("server {} weight={};", server.address(), server.weight());
    servers.iter().map(entry).collect::<Vec<_>>().join(" ")
}

fn configuration(address: SocketAddr, upstream: &str, silence: &str) -> String {
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
            upstream servers {{ {upstream} }}
            server {{
                listen {address};
                location / {{
                    proxy_pass http://servers;
                    proxy_http_version 1.1;
                    proxy_read_timeout {silence};
                    proxy_set_header Host $http_host;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection $connection_upgrade;
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                }}
            }}
        }}"
    )
}

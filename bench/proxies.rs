//! The proxies that are compared, each with one worker and a configuration for long-lived
//! connections.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::client::{Connection, within};
use crate::door::{self, Door};
use crate::process::Group;
use crate::scenario::Over;

/// One of the compared.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Proxy {
    /// What the others are measured against.
    Nginx,
    /// The other usual choice.
    Haproxy,
    /// What many clusters have.
    Envoy,
    /// What many begin with.
    Caddy,
    /// This project.
    Steadfast,
    /// No proxy, but what the kernel takes in any case: [`floor`](crate::floor).
    Bare,
}

impl Proxy {
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 6] =
        [Self::Nginx, Self::Haproxy, Self::Envoy, Self::Caddy, Self::Steadfast, Self::Bare];

    /// Those to compare where nobody says which: all there are, and the two that nobody may miss.
    pub(crate) fn usual() -> Vec<Self> {
        let is_there = |proxy: &Self| !matches!(proxy, Self::Envoy | Self::Caddy) || proxy.version().is_ok();
        Self::ALL.into_iter().filter(is_there).collect()
    }

    /// As its makers write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::Envoy => "Envoy",
            Self::Caddy => "Caddy",
            Self::Steadfast => "Steadfast",
            Self::Bare => "bare relay",
        }
    }

    /// The classes of what pictures show of it.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
            Self::Steadfast => "steadfast",
            Self::Bare => "bare",
        }
    }

    /// What it says of its version.
    ///
    /// # Errors
    /// When it cannot be started, which is said with its name.
    pub(crate) fn version(self) -> io::Result<String> {
        let (program, flag) = match self {
            Self::Nginx => ("nginx", "-v"),
            Self::Haproxy => ("haproxy", "-v"),
            Self::Envoy => ("envoy", "--version"),
            Self::Caddy => ("caddy", "version"),
            Self::Steadfast => return Ok(format!("Steadfast {}", env!("CARGO_PKG_VERSION"))),
            Self::Bare => return Ok(self.name().to_owned()),
        };
        let output = Command::new(installed(program)).arg(flag).output().map_err(|error| {
            let text = format!("cannot run {program}, which the comparison needs: {error}");
            io::Error::new(error.kind(), text)
        })?;
        // nginx tells it on the standard error.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        // Beside it there are dates and hashes.
        let is_version = |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
        let version = text.split([' ', '/', '-', '\n']).map(|word| word.trim_start_matches('v')).find(is_version);
        Ok(format!("{} {}", self.name(), version.unwrap_or("?")))
    }

    fn configuration(self, door: Door, server: SocketAddr, directory: &Path) -> String {
        let (template, tls) = match self {
            Self::Nginx => (NGINX, " ssl"),
            Self::Haproxy => (HAPROXY, " ssl crt DIRECTORY/bench.pem"),
            Self::Envoy => (ENVOY, ENVOY_TLS),
            Self::Caddy => (CADDY, r#", "tls_connection_policies": [{}]"#),
            Self::Steadfast => {
                (STEADFAST, ", tls: { certificates: [{ cert: DIRECTORY/bench.pem, key: DIRECTORY/bench.pem.key }] }")
            }
            Self::Bare => ("", ""),
        };
        let tls = if door.over == Over::Tls { tls } else { "" };
        let mut filled = template.replace("ENCRYPTED", tls).replace("DIRECTORY", &directory.to_string_lossy());
        for (word, address) in [("LISTEN", door.address), ("SERVER", server)] {
            filled = filled.replace(&format!("{word}HOST"), &address.ip().to_string());
            filled = filled.replace(&format!("{word}PORT"), &address.port().to_string());
            filled = filled.replace(word, &address.to_string());
        }
        filled
    }

    /// The command that runs it in the foreground, for a shell in the directory of `config`.
    fn command(self, steadfast: &str) -> io::Result<String> {
        Ok(match self {
            Self::Nginx => "nginx -p . -e error.log -c config".to_owned(),
            Self::Haproxy => "haproxy -db -f config".to_owned(),
            // The file's name does not say that it is YAML.
            Self::Envoy => {
                let envoy = installed("envoy").display().to_string();
                envoy + r#" --concurrency 1 --disable-hot-restart -l error --config-yaml "$(cat config)""#
            }
            Self::Caddy => {
                format!("env GOMAXPROCS=1 HOME=. {} run --config config", installed("caddy").display())
            }
            Self::Steadfast => steadfast.to_owned(),
            Self::Bare => format!("{} --relay {{listen}} {{server}}", std::env::current_exe()?.display()),
        })
    }
}

/// A program: the one in `bench/.venv`, where `tests/install.sh bench` puts what no distribution has,
/// or that of this name.
fn installed(program: &str) -> PathBuf {
    let ours = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/bench/.venv/bin")).join(program);
    if ours.exists() { ours } else { program.into() }
}

/// A proxy that runs. It ends, and its files go, when this is dropped.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) door: Door,
    /// Its processes.
    pub(crate) group: Group,
    directory: Directory,
}

impl Running {
    /// Starts `proxy` before `server`; returns when it serves.
    ///
    /// In `steadfast`, the command, the words `{config}`, `{listen}` and `{server}` are replaced.
    pub(crate) async fn start(proxy: Proxy, over: Over, server: SocketAddr, steadfast: &str) -> io::Result<Self> {
        let address = free_address()?;
        let door = Door { address, over };
        let directory = Directory::create(address.port())?;
        // Where each of them looks for them.
        let (cert, key) = door::certificate();
        fs::write(directory.path.join("bench.pem"), cert)?;
        fs::write(directory.path.join("bench.pem.key"), key)?;
        let config = directory.path.join("config");
        fs::write(&config, proxy.configuration(door, server, &directory.path))?;
        let command = proxy
            .command(steadfast)?
            .replace("{config}", &config.to_string_lossy())
            .replace("{listen}", &address.to_string())
            .replace("{server}", &server.to_string());
        let group = spawn(&command, &directory.path)?;
        let mut running = Self { door, group, directory };
        running.become_ready().await?;
        Ok(running)
    }

    async fn become_ready(&mut self) -> io::Result<()> {
        const LIMIT: Duration = Duration::from_secs(10);
        const PAUSE: Duration = Duration::from_millis(10);
        within(LIMIT, "the start", async {
            while let Err(error) = self.answer().await {
                if self.group.has_ended() {
                    return Err(self.explain(&io::Error::other("it ended at once")));
                }
                if error.kind() != io::ErrorKind::ConnectionRefused {
                    return Err(error);
                }
                sleep(PAUSE).await;
            }
            Ok(())
        })
        .await
    }

    /// Asks for one response.
    pub(crate) async fn answer(&self) -> io::Result<()> {
        let mut connection = Connection::open(self.door).await?;
        connection.get_small("/small").await
    }

    /// The error, and the end of what the proxy wrote.
    pub(crate) fn explain(&self, error: &io::Error) -> io::Error {
        const LINES: usize = 5;
        let log = fs::read_to_string(self.directory.path.join("output")).unwrap_or_default();
        let mut lines: Vec<_> = log.lines().rev().take(LINES).collect();
        lines.reverse();
        let words = match lines.is_empty() {
            true => "nothing".to_owned(),
            false => lines.join("; "),
        };
        io::Error::new(error.kind(), format!("{error}; it wrote: {words}"))
    }
}

/// Starts the command with its output in the file `output`.
fn spawn(command: &str, directory: &Path) -> io::Result<Group> {
    let output = File::create(directory.join("output"))?;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {command}"));
    shell.current_dir(directory);
    shell.stdout(output.try_clone()?).stderr(output);
    Group::spawn(&mut shell)
}

/// An address that nobody listens on, below the ports that the kernel gives to clients.
fn free_address() -> io::Result<SocketAddr> {
    const FIRST: u16 = 21_000;
    const COUNT: u16 = 5_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (0..COUNT)
        .map(|_| FIRST + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| io::Error::other("no free port"))
}

/// A directory for one proxy's files, removed when this is dropped.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn create(port: u16) -> io::Result<Self> {
        let name = format!("steadfast-bench-{}-{port}", process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

const NGINX: &str = "\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log error;
events { worker_connections 19000; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 100000000;
    map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
    upstream bench {
        server SERVER;
        keepalive 1024;
        keepalive_requests 100000000;
    }
    server {
        listen LISTENENCRYPTED backlog=4096;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate bench.pem;
        ssl_certificate_key bench.pem.key;
        location / {
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
        }
        location /sse {
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection '';
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_buffering off;
            proxy_read_timeout 1h;
        }
    }
}
";

const HAPROXY: &str = "\
global
    nbthread 1
    maxconn 9500
defaults
    mode http
    option forwardfor
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend bench
    bind LISTENENCRYPTED backlog 4096
    default_backend bench
backend bench
    server bench SERVER
";

const STEADFAST: &str = "\
listeners: [{ bind: \"LISTEN\"ENCRYPTED }]
upstreams: { bench: { servers: [\"SERVER\"] } }
routes: [{ upstream: bench }]
admin: off
access_log: off
threads: 1
";

const ENVOY: &str = r#"
static_resources:
  listeners:
    - address: { socket_address: { address: LISTENHOST, port_value: LISTENPORT } }
      tcp_backlog_size: 4096
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: bench
                use_remote_address: true
                stream_idle_timeout: 0s
                upgrade_configs: [{ upgrade_type: websocket }]
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
                route_config:
                  virtual_hosts:
                    - name: bench
                      domains: ["*"]
                      routes: [{ match: { prefix: / }, route: { cluster: bench, timeout: 0s } }]
ENCRYPTED
  clusters:
    - name: bench
      connect_timeout: 5s
      circuit_breakers:
        thresholds: [{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }]
      load_assignment:
        cluster_name: bench
        endpoints:
          - lb_endpoints: [{ endpoint: { address: { socket_address: { address: SERVERHOST, port_value: SERVERPORT } } } }]
"#;

const ENVOY_TLS: &str = r#"
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                tls_certificates:
                  - certificate_chain: { filename: DIRECTORY/bench.pem }
                    private_key: { filename: DIRECTORY/bench.pem.key }
"#;

const CADDY: &str = r#"{
  "admin": { "disabled": true },
  "logging": { "logs": { "default": { "level": "ERROR" } } },
  "apps": {
    "tls": { "certificates": { "load_files": [{ "certificate": "DIRECTORY/bench.pem", "key": "DIRECTORY/bench.pem.key" }] } },
    "http": { "servers": { "bench": {
      "listen": ["LISTEN"],
      "automatic_https": { "disable": true },
      "protocols": ["h1"],
      "routes": [{ "handle": [{
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": "SERVER" }],
        "transport": { "protocol": "http", "keep_alive": { "max_idle_conns_per_host": 1024 } }
      }] }]
      ENCRYPTED
    } } }
  }
}
"#;

//! The command line.

mod ask;
mod demo;
mod drain;
mod explain;
mod health;
mod import;
mod orders;
mod relays;
mod reload;
mod say;
mod schema;
mod status;
mod supervise;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use self::say::say;
use crate::config::{self, Config};
use crate::server::{Address, Server, StartError};

/// A reverse proxy and load balancer for connections that stay: WebSocket, server-sent events,
/// long-polling, Socket.IO.
///
/// Give it a YAML file that names listeners, upstreams and routes; conf/README.md describes every
/// key. To see it at work without one, run `steadfast demo`.
#[derive(Debug, Parser)]
#[command(name = "steadfast", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong configuration or usage.\n\
    Signals: SIGTERM and SIGINT stop accepting, let exchanges finish within shutdown.grace, end relays, exit 0;\n\
    a second one exits at once. SIGHUP reads the configuration file again; a wrong one changes nothing.\n\
    SIGUSR2 starts the binary again, as it stands on the disk now, and hands all connections over to it.\n\
    Environment: RUST_LOG=debug shows more in the log on standard error.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy until SIGTERM or SIGINT
    Run {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Take over the connections of the running proxy, which then ends; it is asked at hand_over.socket
        /// of the configuration, or at SOCKET (@NAME is an abstract one)
        #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true)]
        take_over: Option<Option<Address>>,
        /// Stay as the proxy's parent while one proxy hands over to the next: for process 1 of a container
        #[arg(long)]
        supervise: bool,
    },
    /// Check a configuration file: every mistake with its line, and what would be right
    Check {
        /// The configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Ask a running proxy whether it is up: exits with 0 or 1
    Health {
        /// Its configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say how a running proxy is: servers, their health, connections and shares, what the doctor finds, drains
    Status(status::Asked),
    /// List the connections that stay, or end one
    Relays(relays::Relays),
    /// Have a running proxy read its configuration file again: no connection is touched
    Reload {
        /// Its configuration file
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Empty a server, an upstream or a whole running proxy: ends are spread over a time
    Drain(drain::Drain),
    /// Let those stay that a drain has not ended yet, and in whoever comes
    Undrain(drain::Target),
    /// Say what a server gets: everybody, only its sessions, nobody, or what the file says
    State(orders::State),
    /// Say what part of the clients a server gets
    Weight(orders::Weight),
    /// Say which connections are with another server than theirs, or have them move there
    Rebalance(orders::Rebalance),
    /// Say what would become of a request: its route, what names its client, the servers in order
    Explain(explain::Request),
    /// Write the configuration that says what a file of nginx says, and tell what cannot be said
    ImportNginx(import::Nginx),
    /// Write the configuration that says what Ingresses of ingress-nginx say, and tell what cannot be said
    ImportIngress(import::Ingress),
    /// Print a JSON Schema of the configuration file, for editors: yaml-language-server reads it where a file
    /// begins with "# yaml-language-server: $schema=FILE"
    Schema,
    /// Run the proxy over three embedded demo servers, and say what to open and try
    Demo {
        /// Where to listen; port 0 lets the kernel choose
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
        bind: std::net::SocketAddr,
    },
}

/// Done, or the exit code for what went wrong, which has been said.
pub(crate) type Done = Result<(), ExitCode>;

const FAILED: u8 = 1;
const WRONG: u8 = 2;

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse(); // Exits with 2 by itself.
    start_log();
    let done = match arguments.command {
        Command::Run { supervise: true, .. } => return supervise::supervise(),
        Command::Run { config, take_over, .. } => load(&config).and_then(|loaded| run(loaded, config, take_over)),
        Command::Check { config } => load(&config).and_then(|loaded| say_fine(&config, &loaded)),
        Command::Health { config } => health::health(&config),
        Command::Reload { config } => reload::reload(&config),
        Command::Status(asked) => status::status(&asked),
        Command::Relays(asked) => relays::relays(&asked),
        Command::State(order) => orders::state(&order),
        Command::Weight(order) => orders::weight(&order),
        Command::Rebalance(order) => orders::rebalance(&order),
        Command::Drain(drain) => drain::drain(&drain),
        Command::Undrain(target) => drain::undrain(&target),
        Command::Explain(request) => explain::explain(&request),
        Command::ImportNginx(import) => import::nginx(&import),
        Command::ImportIngress(import) => import::ingress(&import),
        Command::Schema => schema::schema(),
        Command::Demo { bind } => demo::demo(bind),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(code) => code,
    }
}

/// The operator's log: standard error, one line per event, `info` unless `RUST_LOG` says otherwise.
/// Of Pingora only errors: it warns of what any client may do wrong, as often as one likes.
fn start_log() {
    let filter = EnvFilter::builder().try_from_env().unwrap_or_else(|_| EnvFilter::new("info,pingora_core=error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

fn load(path: &Path) -> Result<Config, ExitCode> {
    config::load(path).map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(WRONG)
    })
}

/// Serves until told to stop, in the place of the process that is to be asked at `take_over`, if any.
fn run(config: Config, file: PathBuf, take_over: Option<Option<Address>>) -> Done {
    raise_open_files();
    let server = match take_over {
        None => Server::bind(config, Some(file)),
        Some(address) => {
            let address = address.or_else(|| config.hand_over.clone().map(Address::Path)).ok_or_else(|| {
                eprintln!("steadfast: --take-over: nobody to ask: set hand_over.socket, or say --take-over=SOCKET");
                ExitCode::from(WRONG)
            })?;
            Server::take_over(config, Some(file), &address)
        }
    };
    server.and_then(Server::run).map_err(|error| failed(&error))
}

pub(crate) fn failed(error: &StartError) -> ExitCode {
    eprintln!("steadfast: {error}");
    ExitCode::from(FAILED)
}

/// Each relay takes two descriptors, and the usual soft limit is 1,024.
fn raise_open_files() {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

fn say_fine(path: &Path, config: &Config) -> Done {
    say(format_args!(
        "{}: fine: {} listener(s), {} route(s), {} upstream(s), {} server(s)\n",
        path.display(),
        config.listeners.len(),
        config.routes.len(),
        config.upstreams.len(),
        config.upstreams.iter().map(|upstream| upstream.servers.len()).sum::<usize>(),
    ))
}

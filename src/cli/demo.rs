//! `steadfast demo`: the proxy over three embedded servers, so that there is something to see.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use super::say::say;
use super::{Done, failed, raise_open_files};
use crate::affinity::tag::Secret;
use crate::config;
use crate::demo;
use crate::server::{Server, StartError};

const NAMES: [&str; 3] = ["red", "green", "blue"];

/// Starts the servers, then the proxy on `bind`, and says what to open and try.
pub(super) fn demo(bind: SocketAddr) -> Done {
    let servers = start_servers().map_err(|error| failed(&error.into()))?;
    let text = configuration(bind, &servers);
    let mut config = config::parse(&text, "demo.yaml").map_err(|mistakes| {
        eprintln!("{mistakes}");
        ExitCode::from(super::FAILED)
    })?;
    config.affinity_secret = Some(Secret::new(b"no secret: there is nothing to protect"));
    raise_open_files();
    let server = Server::bind(config, None).map_err(|error| failed(&error))?;
    if let (Some(address), Some(admin)) = (server.addresses().first(), server.admin_address()) {
        say_what_to_try(*address, admin, &text)?;
    }
    server.run().map_err(|error: StartError| failed(&error))
}

/// Three servers on ports of the kernel's choice, in a thread of their own.
fn start_servers() -> std::io::Result<Vec<(&'static str, SocketAddr)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut servers = Vec::new();
    for name in NAMES {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        servers.push((name, listener.local_addr()?));
        runtime.spawn(async move {
            if let Err(error) = demo::serve(listener, name).await {
                tracing::error!("demo server {name}: {error}");
            }
        });
    }
    std::thread::Builder::new()
        .name("demo-servers".into())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(servers)
}

fn configuration(bind: SocketAddr, servers: &[(&str, SocketAddr)]) -> String {
    let servers: Vec<String> =
        servers.iter().map(|(name, address)| format!("      - {{ address: \"{address}\", name: {name} }}\n")).collect();
    format!(
        "listeners:\n  - bind: \"{bind}\"\n\
         upstreams:\n  demo:\n    servers:\n{}    affinity: [ engine_io, {{ query: client }}, forwarded_for, client_ip ]\n    \
         sse: {{ keepalive: 5s }}\n\
         routes:\n  - upstream: demo\n\
         admin: {{ bind: \"127.0.0.1:0\" }}\naccess_log: {{ path: stdout, format: combined }}\nshutdown: {{ grace: 3s, spread: 0s }}\n",
        servers.concat()
    )
}

fn say_what_to_try(address: SocketAddr, admin: SocketAddr, configuration: &str) -> Done {
    say(format_args!(
        "\nSteadfast is in front of three demo servers: red, green and blue.\n\n\
         Open  http://{address}/  in a few tabs: each is a client of its own, and stays on its server\n      \
         with its WebSocket, its event stream and its Socket.IO session alike.\n\
         Watch http://{admin}/ meanwhile: the dashboard, where you can drain one of them.\n\n\
         Or try:\n  \
         curl 'http://{address}/whoami?client=anna'         # always the same server for anna\n  \
         curl 'http://{address}/whoami?client=bert'         # perhaps another one for bert\n  \
         curl -H 'X-Forwarded-For: 192.0.2.7' http://{address}/whoami\n  \
         curl -N 'http://{address}/events?client=anna'      # comments keep it alive between events\n\n\
         The configuration:\n\n{}\n\
         Stop with Ctrl-C. The access log follows.\n\n",
        configuration.lines().map(|line| format!("  {line}\n")).collect::<String>()
    ))
}

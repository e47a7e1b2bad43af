//! A real HAProxy that balances TCP: the hop below HTTP, which names clients by the PROXY protocol.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::Process;

/// A running HAProxy with one listener.
pub(crate) struct Haproxy {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Haproxy {
    /// Leads to `to`; `options` are those of its server, such as `send-proxy`.
    pub(crate) fn hop(to: SocketAddr, options: &str) -> Self {
        // As with nginx: it takes a socket that listens already, so the port is the kernel's choice.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("haproxy.cfg");
        let configuration = format!(
            "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1m\n    timeout server 1m\n\
             listen hop\n    bind fd@0\n    server proxy {to} {options}\n"
        );
        std::fs::write(&file, configuration).expect("the file is ours");
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::from(OwnedFd::from(listener)));
        // It needs no moment to start: connections wait in the socket.
        Self { address, _process: Process::start(command), _directory: directory }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

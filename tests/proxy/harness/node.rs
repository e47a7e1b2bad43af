//! Real clients and servers: scripts in `tests/clients`, run by Node.
//!
//! A script takes one JSON argument, prints one JSON object per line, takes commands as lines of
//! JSON on stdin, and ends when stdin does.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::process::Process;
use super::{ServerEntry, soon};

/// A running script.
pub(crate) struct Node {
    process: Process,
}

impl Node {
    pub(crate) fn script(name: &str, argument: &Value) -> Self {
        Self::script_with(name, argument, &[])
    }

    /// The same, with more in its environment.
    pub(crate) fn script_with(name: &str, argument: &Value, environment: &[(&str, String)]) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let modules = directory.join("node_modules");
        assert!(modules.is_dir(), "the real clients are missing; npm ci --prefix {}", directory.display());
        let mut command = Command::new("node");
        command.arg(directory.join(name)).arg(argument.to_string()).stdin(Stdio::piped());
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        Self { process: Process::start(command) }
    }

    /// The value that the script prints under `key`. How long that takes is the test's to say.
    pub(crate) async fn says(&self, key: &str) -> Value {
        self.process.says(key).await
    }

    /// The values that it has printed under `key` so far.
    pub(crate) fn said(&self, key: &str) -> Vec<Value> {
        let lines = self.lines();
        let values = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok()?.get(key).cloned());
        values.collect()
    }

    /// The same once there are `count` of them, which must be soon.
    pub(crate) async fn says_all(&self, key: &str, count: usize) -> Vec<Value> {
        let all = async {
            while self.said(key).len() < count {
                tokio::time::sleep(super::millis(20)).await;
            }
        };
        soon("a script to say enough", all).await;
        self.said(key)
    }

    /// Every line it has printed so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.process.stdout()
    }

    /// Gives the script a command.
    pub(crate) fn tell(&mut self, command: &Value) {
        writeln!(self.process.stdin(), "{command}").expect("the script still runs");
    }

    /// Ends it without a farewell.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }
}

/// A server that is a script; it prints the port it chose.
pub(crate) struct NodeServer {
    pub(crate) node: Node,
    address: SocketAddr,
}

impl NodeServer {
    /// A Socket.IO server that answers and pushes.
    pub(crate) async fn socket_io(name: &str) -> Self {
        Self::listening(Node::script("socket_io_server.js", &json!({ "name": name }))).await
    }

    /// A WebSocket server that echoes, sends a ping of its own to everybody, and tells how they end.
    pub(crate) async fn websocket() -> Self {
        Self::listening(Node::script("websocket_server.js", &json!({}))).await
    }

    /// A server of `conf/examples` as it stands there, with this in its environment.
    pub(crate) async fn example(file: &str, environment: &[(&str, String)]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = root.join("conf/examples").join(file);
        let mut all = vec![
            ("PORT", "0".to_owned()),
            ("NODE_PATH", root.join("tests/clients/node_modules").display().to_string()),
        ];
        all.extend_from_slice(environment);
        Self::listening(Node::script_with("example.js", &file.display().to_string().into(), &all)).await
    }

    /// The server that `node` runs.
    pub(crate) async fn listening(node: Node) -> Self {
        let port =
            soon("a script to listen", node.says("port")).await.as_u64().and_then(|port| u16::try_from(port).ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port is a number")));
        Self { node, address }
    }
}

impl ServerEntry for NodeServer {
    fn address(&self) -> SocketAddr {
        self.address
    }
}

//! Real servers that keep their sessions to themselves: a request that goes to the wrong one is
//! refused, and they say so.

use serde_json::{Value, json};

use super::node::NodeServer;
use super::{Node, ServerEntry, Weighted};

const NAMES: [&str; 4] = ["red", "green", "blue", "white"];

/// Servers of one kind, with names of their own.
pub(crate) struct Cluster(Vec<NodeServer>);

impl Cluster {
    /// Socket.IO servers for clients of versions 2 to 4.
    pub(crate) async fn socket_io(count: usize) -> Self {
        Self::of("socket_io_server.js", count, json!({})).await
    }

    /// MCP servers.
    pub(crate) async fn mcp(count: usize) -> Self {
        Self::of("mcp_server.js", count, json!({})).await
    }

    /// SignalR servers that negotiate in this version.
    pub(crate) async fn signalr(count: usize, version: u8) -> Self {
        Self::of("signalr_server.js", count, json!({ "negotiateVersion": version })).await
    }

    /// Servers that set a session cookie.
    pub(crate) async fn cookies(count: usize) -> Self {
        Self::of("cookie_server.js", count, json!({})).await
    }

    async fn of(script: &str, count: usize, mut argument: Value) -> Self {
        let start = |name: &&str| {
            argument["name"] = (*name).into();
            Node::script(script, &argument)
        };
        let nodes: Vec<_> = NAMES[..count].iter().map(start).collect();
        let mut servers = Vec::new();
        for node in nodes {
            servers.push(NodeServer::listening(node).await);
        }
        Self(servers)
    }

    /// Equal weights, and high ones: the ring is even, whatever the ports are.
    pub(crate) fn first(&self, count: usize) -> Vec<Weighted<'_>> {
        self.weighted(&[4; NAMES.len()][..count])
    }

    /// As many servers as there are weights.
    pub(crate) fn weighted(&self, weights: &[u32]) -> Vec<Weighted<'_>> {
        self.0.iter().zip(weights).map(|(server, weight)| Weighted(server, *weight)).collect()
    }

    /// Requests that a server refused for an unknown session.
    pub(crate) fn unknown(&self) -> usize {
        self.refused().iter().filter(|line| line.contains("unknown")).count()
    }

    /// Requests that a server refused for whatever reason.
    pub(crate) fn refused(&self) -> Vec<String> {
        let lines = self.0.iter().flat_map(|server| server.node.lines());
        lines.filter(|line| line.contains("refused")).collect()
    }
}

/// The servers as a list for a proxy.
pub(crate) fn entries<'a>(servers: &'a [Weighted<'a>]) -> Vec<&'a dyn ServerEntry> {
    servers.iter().map(|server| server as &dyn ServerEntry).collect()
}

//! Crowds of real clients with one session each, which none of them takes up again, and what
//! becomes of the sessions.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Node, Python, seconds, within};

/// Clients of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crowd {
    /// Of socket.io-client 4.
    SocketIo { polling: usize, upgrade: usize },
    /// Of socket.io-client 2, which speaks protocol 3 of Engine.IO.
    SocketIo2 { polling: usize, upgrade: usize },
    /// Of python-socketio.
    PythonSocketIo { polling: usize, upgrade: usize },
    /// Of the MCP SDK, over Streamable HTTP.
    Mcp { count: usize },
    /// Of SignalR, so many over each of the three transports.
    SignalR { each: usize },
    /// Of nothing but HTTP with cookies.
    Cookies { count: usize },
}

/// What becomes of the sessions of all clients that come to `to` at the same time, as they tell.
pub(crate) async fn sessions(to: SocketAddr, crowds: &[Crowd]) -> Vec<Value> {
    let mut coming = JoinSet::new();
    for (network, crowd) in crowds.iter().copied().enumerate() {
        coming.spawn(crowd.sessions(to, network));
    }
    within(seconds(60), "every session to end", coming.join_all()).await.concat()
}

/// How many sessions each server has.
pub(crate) fn loads(sessions: &[Value]) -> BTreeMap<&str, usize> {
    let mut loads = BTreeMap::new();
    for session in sessions {
        *loads.entry(session["server"].as_str().unwrap_or("none")).or_default() += 1;
    }
    loads
}

/// Every message was acknowledged and every push came, over the transport that was asked for.
#[track_caller]
pub(crate) fn check_whole(sessions: &[Value], with: impl Debug) {
    for session in sessions {
        let transport = if session["mode"] == "upgrade" { "websocket" } else { "polling" };
        // Not every kind of session has pushes, or changes its transport.
        let mut whole = session.clone();
        for (key, value) in [("pushed", json!(MESSAGES)), ("inOrder", json!(true)), ("transport", json!(transport))] {
            whole.as_object_mut().expect("a report is a map").entry(key).and_modify(|reported| *reported = value);
        }
        whole["broken"] = Value::Null;
        whole["acknowledged"] = MESSAGES.into();
        assert_eq!(session, &whole, "with {with:?}");
    }
}

/// How often the two sides of a session speak to each other.
const MESSAGES: usize = 4;

impl Crowd {
    /// Every client has an address of its own in `network`.
    async fn sessions(self, to: SocketAddr, network: usize) -> Vec<Value> {
        let mut argument = self.argument();
        argument["url"] = format!("http://{to}").into();
        argument["network"] = network.into();
        argument["messages"] = MESSAGES.into();
        let sessions = match self {
            Self::PythonSocketIo { .. } => {
                Python::script("python_socketio_sessions.py", &argument).says("sessions").await
            }
            Self::SocketIo { .. } | Self::SocketIo2 { .. } => {
                Node::script("socket_io_sessions.js", &argument).says("sessions").await
            }
            Self::Mcp { .. } => Node::script("mcp_sessions.js", &argument).says("sessions").await,
            Self::SignalR { .. } => Node::script("signalr_sessions.js", &argument).says("sessions").await,
            Self::Cookies { .. } => Node::script("cookie_sessions.js", &argument).says("sessions").await,
        };
        match sessions {
            Value::Array(sessions) => sessions,
            other => panic!("no list: {other}"),
        }
    }

    /// What makes the script send this crowd and no other.
    fn argument(self) -> Value {
        let crowds = |polling, upgrade| json!({ "polling": polling, "upgrade": upgrade });
        match self {
            Self::SocketIo { polling, upgrade } => {
                json!({ "client": "socket.io-client", "crowds": crowds(polling, upgrade) })
            }
            Self::SocketIo2 { polling, upgrade } => {
                json!({ "client": "socket.io-client-2", "crowds": crowds(polling, upgrade) })
            }
            Self::PythonSocketIo { polling, upgrade } => json!({ "crowds": crowds(polling, upgrade) }),
            Self::SignalR { each } => {
                json!({ "crowds": { "WebSockets": each, "ServerSentEvents": each, "LongPolling": each } })
            }
            Self::Mcp { count } | Self::Cookies { count } => json!({ "count": count }),
        }
    }
}

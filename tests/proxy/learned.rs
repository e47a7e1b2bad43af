//! Sessions whose ids nobody may change on the way, because clients see them or servers sign them:
//! Socket.IO 2, MCP, SignalR, and whatever a cookie of the server's names. Every request comes
//! from another address.

use crate::harness::cluster::entries;
use crate::harness::crowd::sessions;
use crate::harness::{Cluster, Crowd, Nginx, Proxy, Telling};

const SOCKET_IO_2: Crowd = Crowd::SocketIo2 { polling: 15, upgrade: 15 };
const MCP: Crowd = Crowd::Mcp { count: 15 };
const SIGNALR: Crowd = Crowd::SignalR { each: 7 };
const COOKIES: Crowd = Crowd::Cookies { count: 20 };

/// Shows that the checks of this module can fail: who is known by its address loses its session.
async fn check_addresses_are_not_enough(cluster: Cluster, crowd: Crowd) {
    let servers = cluster.first(3);
    let proxy = Proxy::start().upstream("chat", &entries(&servers)).affinity("[forwarded_for]");
    let proxy = proxy.trusting("[127.0.0.0/8]").run().await;
    let hop = Nginx::in_turn(&[proxy.address()], Telling::AnotherAddress).await;
    let sessions = sessions(hop.address(), &[crowd]).await;
    let broken = sessions.iter().filter(|session| !session["broken"].is_null()).count();
    assert!(broken > sessions.len() / 2, "{broken} of {} broken", sessions.len());
    assert!(cluster.unknown() >= broken, "{broken} broken, refused: {:?}", cluster.refused());
}

#[tokio::test]
async fn addresses_are_not_enough_for_socket_io_2() {
    check_addresses_are_not_enough(Cluster::socket_io(3).await, SOCKET_IO_2).await;
}

#[tokio::test]
async fn addresses_are_not_enough_for_mcp() {
    check_addresses_are_not_enough(Cluster::mcp(3).await, MCP).await;
}

#[tokio::test]
async fn addresses_are_not_enough_for_signalr() {
    check_addresses_are_not_enough(Cluster::signalr(3, 1).await, SIGNALR).await;
}

#[tokio::test]
async fn addresses_are_not_enough_for_cookies() {
    check_addresses_are_not_enough(Cluster::cookies(3).await, COOKIES).await;
}

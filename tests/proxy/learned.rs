//! Sessions whose ids nobody may change on the way, because clients see them or servers sign them:
//! Socket.IO 2, MCP, SignalR, and whatever a cookie of the server's names. Every request comes
//! from another address.

use std::net::SocketAddr;

use crate::harness::cluster::entries;
use crate::harness::crowd::{check_whole, loads, sessions};
use crate::harness::proxy::Setup;
use crate::harness::{Cluster, Crowd, Nginx, Proxy, Redis, SecretFile, Telling};

const SOCKET_IO_2: Crowd = Crowd::SocketIo2 { polling: 15, upgrade: 15 };
const MCP: Crowd = Crowd::Mcp { count: 15 };
const SIGNALR: Crowd = Crowd::SignalR { each: 7 };
const COOKIES: Crowd = Crowd::Cookies { count: 20 };

/// What finds a session of each kind, before all that finds no more than an address.
const BY_ENGINE_IO: &str = "[engine_io, forwarded_for, client_ip]";
const BY_MCP: &str = "[{ session: mcp }, forwarded_for, client_ip]";
const BY_SIGNALR: &str = "[{ session: signalr }, forwarded_for, client_ip]";
const BY_COOKIE: &str = "[{ cookie: connect.sid }, forwarded_for, client_ip]";

/// A proxy in front of three servers, whose sessions `affinity` finds.
fn learning(cluster: &Cluster, affinity: &str) -> Setup {
    let servers = cluster.first(3);
    Proxy::start().upstream("chat", &entries(&servers)).affinity(affinity).trusting("[127.0.0.0/8]")
}

/// Everybody who comes by way of `proxies` in turn keeps the session, and no server has them all.
async fn check_sessions_stay_whole(cluster: &Cluster, proxies: &[&Proxy], telling: Telling, crowds: &[Crowd]) {
    let addresses: Vec<SocketAddr> = proxies.iter().map(|proxy| proxy.address()).collect();
    let hop = Nginx::in_turn(&addresses, telling).await;
    let sessions = sessions(hop.address(), crowds).await;
    check_whole(&sessions, telling);
    assert!(cluster.refused().is_empty(), "with {telling:?}: {:?}", cluster.refused());
    let spread = matches!(telling, Telling::AnotherAddress | Telling::NoCookies);
    assert!(!spread || loads(&sessions).len() > 1, "with {telling:?}: {:?}", loads(&sessions));
}

/// One proxy remembers in its own memory where sessions of `crowd` live.
async fn check_a_proxy_remembers(cluster: Cluster, affinity: &str, crowd: Crowd) {
    let proxy = learning(&cluster, affinity).run().await;
    check_sessions_stay_whole(&cluster, &[&proxy], Telling::AnotherAddress, &[crowd]).await;
}

#[tokio::test]
async fn a_proxy_remembers_sessions_of_socket_io_2() {
    check_a_proxy_remembers(Cluster::socket_io(3).await, BY_ENGINE_IO, SOCKET_IO_2).await;
}

#[tokio::test]
async fn a_proxy_remembers_connections_of_signalr() {
    // With one id for all, and with a token that takes its place.
    for version in [0, 1] {
        check_a_proxy_remembers(Cluster::signalr(3, version).await, BY_SIGNALR, SIGNALR).await;
    }
}

#[tokio::test]
async fn a_proxy_remembers_cookies_that_servers_set() {
    check_a_proxy_remembers(Cluster::cookies(3).await, BY_COOKIE, COOKIES).await;
}

/// Three proxies that share what they remember, whom a hop asks in turn.
async fn check_a_fleet_shares(cluster: Cluster, affinity: &str, tellings: &[Telling], crowds: &[Crowd]) {
    let (redis, secret) = (Redis::start().await, SecretFile::with("known to all proxies of the fleet"));
    let store = format!("session_store: {{ url: \"redis://{}\", timeout: 10s }}", redis.address());
    let member = || learning(&cluster, affinity).secret(&secret).line(&store).run();
    let fleet = [member().await, member().await, member().await];
    for telling in tellings {
        check_sessions_stay_whole(&cluster, &fleet.each_ref(), *telling, crowds).await;
    }
}

#[tokio::test]
async fn a_fleet_shares_sessions_of_socket_io_whatever_is_told_of_clients() {
    let crowds =
        [SOCKET_IO_2, Crowd::SocketIo { polling: 8, upgrade: 8 }, Crowd::PythonSocketIo { polling: 3, upgrade: 3 }];
    let tellings = [Telling::OneAddress, Telling::Nothing, Telling::AnotherAddress, Telling::NoCookies];
    check_a_fleet_shares(Cluster::socket_io(3).await, BY_ENGINE_IO, &tellings, &crowds).await;
}

#[tokio::test]
async fn a_fleet_shares_sessions_of_mcp() {
    check_a_fleet_shares(Cluster::mcp(3).await, BY_MCP, &[Telling::AnotherAddress], &[MCP]).await;
}

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

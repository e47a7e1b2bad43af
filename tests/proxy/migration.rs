//! A fleet that moves from nginx to the proxy, machine by machine: while both are there, every
//! client has to reach the same server through either.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::harness::cluster::entries;
use crate::harness::crowd::{check_whole, loads, sessions};
use crate::harness::{Cluster, Crowd, Nginx, Proxy, ServerEntry, Telling, Upstream, Wire};

const AS_NGINX: &str = "[{ header: X-Forwarded-For }]";
const KEYS: usize = 500;

/// Half of the machines have been moved.
struct Fleet {
    nginx: [Nginx; 2],
    moved: [Proxy; 2],
}

impl Fleet {
    /// All of them in front of `servers`, with this affinity on those that have been moved.
    async fn of(servers: &[&dyn ServerEntry], affinity: &str) -> Self {
        let nginx = async || Nginx::consistent("$http_x_forwarded_for", servers).await;
        let moved = || Proxy::start().upstream("chat", servers).affinity(affinity).trusting("[127.0.0.0/8]").run();
        Self { nginx: [nginx().await, nginx().await], moved: [moved().await, moved().await] }
    }

    /// A hop that sends each request to the next of all machines.
    async fn hop(&self) -> Nginx {
        let nginx = self.nginx.iter().map(Nginx::address);
        let all: Vec<SocketAddr> = nginx.chain(self.moved.iter().map(Proxy::address)).collect();
        Nginx::in_turn(&all, Telling::Address).await
    }
}

/// What a client says of itself: an address of one family or the other, with or without hops.
fn client(number: usize) -> String {
    let (high, low) = (number / 250, number % 250);
    match number % 4 {
        0 => format!("2001:db8:{high:x}::{low:x}"),
        1 => format!("203.0.{high}.{low}, 10.0.0.1"),
        _ => format!("203.0.{high}.{low}"),
    }
}

/// The name of the server that `client` reaches.
async fn owner(wire: &mut Wire, client: &str) -> String {
    wire.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n")).await;
    let answer = wire.response().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

#[tokio::test]
async fn every_machine_leads_a_client_to_the_same_server() {
    let servers = [Upstream::named("a").await, Upstream::named("b").await, Upstream::named("c").await];
    let fleet = Fleet::of(&[&servers[0], &servers[1], &servers[2]], AS_NGINX).await;
    let hop = fleet.hop().await;
    let (mut wire, mut owners) = (hop.connect().await, BTreeSet::new());
    for number in 0..KEYS {
        let client = client(number);
        let first = owner(&mut wire, &client).await;
        for _ in 1..4 {
            assert_eq!(owner(&mut wire, &client).await, first, "{client}");
        }
        owners.insert(first);
    }
    assert_eq!(owners.len(), 3, "{owners:?}");
    for moved in &fleet.moved {
        // Each machine took its turn.
        moved.settles("steadfast_requests_total", &[], KEYS as f64).await;
    }
}

/// Clients of every version, who poll and upgrade.
const EVERYBODY: [Crowd; 3] = [
    Crowd::SocketIo { polling: 30, upgrade: 10 },
    Crowd::SocketIo2 { polling: 15, upgrade: 5 },
    Crowd::PythonSocketIo { polling: 5, upgrade: 5 },
];

#[tokio::test]
async fn sessions_stay_whole_while_a_fleet_moves() {
    let cluster = Cluster::socket_io(3).await;
    let fleet = Fleet::of(&entries(&cluster.first(3)), AS_NGINX).await;
    let hop = fleet.hop().await;
    let sessions = sessions(hop.address(), &EVERYBODY).await;
    check_whole(&sessions, AS_NGINX);
    assert!(cluster.refused().is_empty(), "{:?}", cluster.refused());
    assert_eq!(loads(&sessions).len(), 3, "{:?}", loads(&sessions));
}

/// Tags are for later: nginx would take one for a part of the id.
#[tokio::test]
async fn sessions_break_where_only_some_machines_tag_them() {
    let cluster = Cluster::socket_io(3).await;
    let fleet = Fleet::of(&entries(&cluster.first(3)), "[engine_io, { header: X-Forwarded-For }]").await;
    let hop = fleet.hop().await;
    let sessions = sessions(hop.address(), &[Crowd::SocketIo { polling: 20, upgrade: 0 }]).await;
    assert!(cluster.unknown() > 0, "{:?}", loads(&sessions));
    assert!(sessions.iter().any(|session| !session["broken"].is_null()));
}

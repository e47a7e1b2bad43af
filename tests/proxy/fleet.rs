//! Three proxies that know nothing of each other, behind a hop that sends every request to the next
//! of them, in front of three Socket.IO servers: what becomes of sessions by polling, depending
//! on what the hop tells about its clients.
//!
//! nginx in the place of the proxies loses sessions, which shows that these checks can fail.

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::cluster::entries;
use crate::harness::crowd::{check_whole, loads, sessions};
use crate::harness::proxy::Setup;
use crate::harness::{Cluster, Crowd, InState, Nginx, Proxy, SecretFile, ServerEntry, Telling, Weighted};

const MODES: [Telling; 4] = [Telling::OneAddress, Telling::Nothing, Telling::AnotherAddress, Telling::NoCookies];

/// Clients of every kind.
const EVERYBODY: [Crowd; 2] =
    [Crowd::SocketIo { polling: 30, upgrade: 30 }, Crowd::PythonSocketIo { polling: 5, upgrade: 5 }];

/// Clients that never leave polling.
const POLLERS: [Crowd; 1] = [Crowd::SocketIo { polling: 60, upgrade: 0 }];

/// A proxy of a fleet.
fn member(secret: &SecretFile, servers: &[Weighted<'_>]) -> Setup {
    Proxy::start().secret(secret).upstream("chat", &entries(servers)).trusting("[127.0.0.0/8]")
}

/// No server was asked for a session that is not its own, and no proxy saw a refusal.
#[track_caller]
fn check_nobody_was_refused(cluster: &Cluster, fleet: &[Proxy], telling: Telling) {
    let refused = cluster.refused();
    assert!(refused.is_empty(), "with {telling:?}: {refused:?}");
    let lines = fleet.iter().flat_map(Proxy::log);
    let refused: Vec<_> = lines.filter(|line| line.contains("\"status\":400")).collect();
    assert!(refused.is_empty(), "with {telling:?}: {refused:?}");
}

/// Every proxy had a part, and each request but those that opened a session went where the
/// session's own id said.
#[track_caller]
fn check_ids_led(fleet: &[Proxy], sessions: usize) {
    let mut others = 0;
    for proxy in fleet {
        let log = proxy.log();
        let led = log.iter().filter(|line| line.contains("\"affinity\":\"engine_io\"")).count();
        assert!(led >= sessions, "{led} of {} requests: {log:?}", log.len());
        others += log.len() - led;
    }
    assert!(others <= sessions, "{others} requests for {sessions} sessions");
}

fn addresses(fleet: &[Proxy]) -> Vec<SocketAddr> {
    fleet.iter().map(Proxy::address).collect()
}

#[tokio::test]
async fn sessions_stay_whole_whatever_is_told_of_clients() {
    let (cluster, secret) = (Cluster::socket_io(3).await, SecretFile::with(SECRET));
    let servers = cluster.first(3);
    let member = || member(&secret, &servers).run();
    let fleet = [member().await, member().await, member().await];
    let mut opened = 0;
    for telling in MODES {
        let hop = Nginx::in_turn(&addresses(&fleet), telling).await;
        let sessions = sessions(hop.address(), &EVERYBODY).await;
        check_whole(&sessions, telling);
        check_nobody_was_refused(&cluster, &fleet, telling);
        opened += sessions.len();
    }
    check_ids_led(&fleet, opened);
}

#[tokio::test]
async fn sessions_spread_and_stay_whole_when_only_their_ids_tell_them_apart() {
    let (cluster, secret) = (Cluster::socket_io(3).await, SecretFile::with(SECRET));
    let servers = cluster.first(3);
    let member = || member(&secret, &servers).affinity("[engine_io]").run();
    let fleet = [member().await, member().await, member().await];
    let hop = Nginx::in_turn(&addresses(&fleet), Telling::OneAddress).await;
    let sessions = sessions(hop.address(), &EVERYBODY).await;
    check_whole(&sessions, Telling::OneAddress);
    check_nobody_was_refused(&cluster, &fleet, Telling::OneAddress);
    assert_eq!(loads(&sessions).len(), 3, "{:?}", loads(&sessions));
}

#[tokio::test]
async fn a_server_that_joins_disturbs_no_session() {
    let (cluster, secret) = (Cluster::socket_io(4).await, SecretFile::with(SECRET));
    let (three, four) = (cluster.first(3), cluster.first(4));
    let fleet = [
        member(&secret, &three).run().await,
        member(&secret, &three).run().await,
        // The first to have the new configuration.
        member(&secret, &four).run().await,
    ];
    // Sessions open where the fourth server is unknown, and go on at all three.
    let addresses = addresses(&fleet);
    let hop = Nginx::in_turn_by_age(&addresses[..2], &addresses, Telling::Address).await;
    let sessions = sessions(hop.address(), &EVERYBODY).await;
    check_whole(&sessions, Telling::Address);
    check_nobody_was_refused(&cluster, &fleet, Telling::Address);
}

#[tokio::test]
async fn a_server_that_drains_keeps_its_sessions_and_gets_no_others() {
    let (cluster, secret) = (Cluster::socket_io(3).await, SecretFile::with(SECRET));
    let servers = cluster.first(3);
    let drains = InState(&servers[1], "drain");
    let draining: [&dyn ServerEntry; 3] = [&servers[0], &drains, &servers[2]];
    let new = || Proxy::start().secret(&secret).upstream("chat", &draining).trusting("[127.0.0.0/8]");
    // One proxy has yet to get the new configuration.
    let fleet = [member(&secret, &servers).run().await, new().run().await, new().run().await];
    let addresses = addresses(&fleet);
    for (openers, expected) in
        [(&addresses[..1], &["red", "green", "blue"][..]), (&addresses[1..], &["red", "blue"][..])]
    {
        let hop = Nginx::in_turn_by_age(openers, &addresses, Telling::AnotherAddress).await;
        let sessions = sessions(hop.address(), &EVERYBODY).await;
        check_whole(&sessions, Telling::AnotherAddress);
        check_nobody_was_refused(&cluster, &fleet, Telling::AnotherAddress);
        let loads = loads(&sessions);
        assert!(loads.keys().all(|name| expected.contains(name)) && loads.len() == expected.len(), "{loads:?}");
    }
}

#[tokio::test]
async fn proxies_that_disagree_on_weights_agree_on_sessions() {
    let (cluster, secret) = (Cluster::socket_io(4).await, SecretFile::with(SECRET));
    let fleet = [
        member(&secret, &cluster.weighted(&[64, 64, 64, 1])).run().await,
        member(&secret, &cluster.weighted(&[1, 1, 1, 64])).run().await,
        member(&secret, &cluster.weighted(&[1, 64, 1, 64])).run().await,
    ];
    let hop = Nginx::in_turn(&addresses(&fleet), Telling::Address).await;
    let sessions = sessions(hop.address(), &EVERYBODY).await;
    check_whole(&sessions, Telling::Address);
    check_nobody_was_refused(&cluster, &fleet, Telling::Address);
    assert!(loads(&sessions).len() >= 2, "{:?}", loads(&sessions));
}

/// What nginx makes of sixty sessions.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// Requests went to servers that did not know their session.
    Unknown,
    /// Nothing was lost, but one server had all the work.
    OnOneServer,
    /// Nothing was lost, and the servers shared the work.
    Shared,
}

/// Sends sessions through `fleet` in every mode.
async fn outcomes(cluster: &Cluster, fleet: &[Nginx]) -> Vec<(Telling, Outcome)> {
    let addresses: Vec<_> = fleet.iter().map(Nginx::address).collect();
    let mut outcomes = Vec::new();
    for telling in MODES {
        let before = cluster.unknown();
        let hop = Nginx::in_turn(&addresses, telling).await;
        let sessions = sessions(hop.address(), &POLLERS).await;
        let broken = sessions.iter().filter(|session| session["broken"] != Value::Null);
        let (broken, unknown) = (broken.count(), cluster.unknown() - before);
        let outcome = match loads(&sessions).len() {
            _ if unknown > 0 && broken > 0 => Outcome::Unknown,
            1 => Outcome::OnOneServer,
            _ => Outcome::Shared,
        };
        eprintln!("{telling:?}: {unknown} unknown, {broken} broken, {:?}", loads(&sessions));
        if outcome != Outcome::Unknown {
            check_whole(&sessions, telling);
        }
        outcomes.push((telling, outcome));
    }
    outcomes
}

#[tokio::test]
async fn nginx_ip_hash_loses_sessions_or_collapses() {
    let cluster = Cluster::socket_io(3).await;
    let servers = cluster.first(3);
    let member = || async { Nginx::ip_hash_of_clients(&entries(&servers)).await };
    let fleet = [member().await, member().await, member().await];
    assert_eq!(
        outcomes(&cluster, &fleet).await,
        [
            (Telling::OneAddress, Outcome::OnOneServer),
            (Telling::Nothing, Outcome::OnOneServer),
            (Telling::AnotherAddress, Outcome::Unknown),
            (Telling::NoCookies, Outcome::Shared),
        ]
    );
}

#[tokio::test]
async fn nginx_hash_loses_sessions_or_collapses() {
    let cluster = Cluster::socket_io(3).await;
    let servers = cluster.first(3);
    let member = || async { Nginx::consistent("$http_x_forwarded_for", &entries(&servers)).await };
    let fleet = [member().await, member().await, member().await];
    assert_eq!(
        outcomes(&cluster, &fleet).await,
        [
            (Telling::OneAddress, Outcome::OnOneServer),
            // Without a key it takes servers in turn.
            (Telling::Nothing, Outcome::Unknown),
            (Telling::AnotherAddress, Outcome::Unknown),
            (Telling::NoCookies, Outcome::Shared),
        ]
    );
}

#[tokio::test]
async fn nginx_hash_loses_sessions_when_a_server_joins() {
    let cluster = Cluster::socket_io(4).await;
    let member = async |count| Nginx::consistent("$http_x_forwarded_for", &entries(&cluster.first(count))).await;
    let fleet = [member(3).await, member(3).await, member(4).await];
    let addresses: Vec<_> = fleet.iter().map(Nginx::address).collect();
    let hop = Nginx::in_turn_by_age(&addresses[..2], &addresses, Telling::Address).await;
    let sessions = sessions(hop.address(), &POLLERS).await;
    eprintln!("{} unknown, {:?}", cluster.unknown(), loads(&sessions));
    assert!(cluster.unknown() > 0, "{:?}", loads(&sessions));
    assert!(sessions.iter().any(|session| session["broken"] != Value::Null));
}

const SECRET: &str = "known to all proxies of the fleet";

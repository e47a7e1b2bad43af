//! A Socket.IO cluster behind the proxy, with a hop in front that hides every client's address.
//!
//! The same cluster behind nginx `ip_hash` collapses onto one server, which shows that these
//! checks can fail.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::harness::node::NodeServer;
use crate::harness::{Nginx, Node, Proxy, Weighted, seconds, within};

const NAMES: [&str; 3] = ["red", "green", "blue"];
const CLIENTS: usize = 200;
const MESSAGES: usize = 4;

async fn cluster() -> Vec<NodeServer> {
    let mut servers = Vec::new();
    for name in NAMES {
        servers.push(NodeServer::socket_io(name).await);
    }
    servers
}

/// Equal weights, and high ones: 640 points each make the ring even, whatever the ports are.
fn even(server: &NodeServer) -> Weighted<'_> {
    Weighted(server, 4)
}

/// Two hundred clients with addresses of their own, who meet the cluster at `address`.
fn clients(address: SocketAddr, mode: &str, network: u8) -> Node {
    let argument = json!({
        "url": format!("http://{address}"),
        "mode": mode,
        "network": network,
        "count": CLIENTS,
        "messages": MESSAGES,
    });
    Node::script("socket_io_clients.js", &argument)
}

/// What the clients report under `key`, one report each.
async fn reports(node: &Node, key: &str) -> Vec<Value> {
    let reports = within(seconds(60), key, node.says(key)).await;
    let reports = reports.as_array().expect("a list of reports").clone();
    assert_eq!(reports.len(), CLIENTS);
    reports
}

/// How many clients each server has.
fn loads<'a>(reports: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, usize> {
    let mut loads = BTreeMap::new();
    for report in reports {
        *loads.entry(report["server"].as_str().unwrap_or("none").to_owned()).or_default() += 1;
    }
    loads
}

#[track_caller]
fn check_nobody_missed_anything(report: &Value, rounds: usize, transport: &str) {
    let whole = json!([rounds * MESSAGES, rounds * MESSAGES, true, transport]);
    let got = json!([report["acknowledged"], report["pushed"], report["inOrder"], report["transport"]]);
    assert_eq!(got, whole, "{report}");
}

/// No server was ever asked for a session that is not its own.
#[track_caller]
fn check_nobody_was_refused(servers: &[NodeServer], proxy: &Proxy) {
    for server in servers {
        let lines = server.node.lines();
        assert!(!lines.iter().any(|line| line.contains("refused")), "{lines:?}");
    }
    let refused: Vec<_> = proxy.log().into_iter().filter(|line| line.contains("\"status\":400")).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn clients_behind_one_hop_spread_over_the_cluster_and_survive_the_loss_of_a_server() {
    let servers = cluster().await;
    let proxy = Proxy::start()
        .upstream("chat", &[&even(&servers[0]), &even(&servers[1]), &even(&servers[2])])
        .affinity("[forwarded_for]")
        .trusting("[127.0.0.0/8]")
        .run()
        .await;
    let hop = Nginx::hop(proxy.address(), "60s").await;
    let modes = [("polling", "polling"), ("upgrade", "websocket"), ("websocket", "websocket")];
    let mut crowds: Vec<_> =
        (1..).zip(modes).map(|(network, (mode, _))| clients(hop.address(), mode, network)).collect();

    let mut all = Vec::new();
    for (crowd, (mode, transport)) in crowds.iter().zip(modes) {
        let reports = reports(crowd, "talked").await;
        for report in &reports {
            check_nobody_missed_anything(report, 1, transport);
            assert_eq!((&report["disconnects"], &report["errors"]), (&json!(0), &json!([])), "{mode}: {report}");
        }
        assert_eq!(loads(&reports).len(), NAMES.len(), "{mode}: {:?}", loads(&reports));
        all.extend(reports);
    }
    check_nobody_was_refused(&servers, &proxy);
    let loads_before = loads(&all);
    let (least, most) = (loads_before.values().min(), loads_before.values().max());
    assert!(most <= least.map(|least| 2 * least).as_ref(), "{loads_before:?}");

    servers[0].node.kill();
    for crowd in &mut crowds {
        crowd.tell(&json!({ "without": NAMES[0] }));
    }
    let mut after = Vec::new();
    for (crowd, (_, transport)) in crowds.iter().zip(modes) {
        let reports = reports(crowd, "settled").await;
        reports.iter().for_each(|report| check_nobody_missed_anything(report, 2, transport));
        after.extend(reports);
    }
    for (before, after) in all.iter().zip(&after) {
        if before["server"] == NAMES[0] {
            assert_ne!(after["server"], NAMES[0], "{after}");
        } else {
            assert_eq!(after["server"], before["server"], "moved without need: {after}");
            assert_eq!(after["disconnects"], 0, "disturbed without need: {after}");
        }
    }
    assert_eq!(loads(&after).len(), 2, "{:?}", loads(&after));
    drop(crowds);
    drop(hop);
    proxy.settles_empty().await;
}

#[tokio::test]
async fn nginx_ip_hash_collapses_onto_one_server_behind_the_same_hop() {
    let servers = cluster().await;
    let nginx = Nginx::ip_hash(&[&servers[0], &servers[1], &servers[2]]).await;
    let hop = Nginx::hop(nginx.address(), "60s").await;
    let crowd = clients(hop.address(), "polling", 1);
    let loads = loads(&reports(&crowd, "talked").await);
    assert_eq!(loads.len(), 1, "{loads:?}");
    assert_eq!(loads.values().sum::<usize>(), CLIENTS);
}

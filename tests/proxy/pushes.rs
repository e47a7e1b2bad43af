//! What is published at any server reaches the clients of all of them, through a fleet of proxies: the
//! servers, the client's half and the configuration are those of `conf/examples`, as they stand there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::node::NodeServer;
use crate::harness::process::Process;
use crate::harness::proxy::{BINARY, connect};
use crate::harness::{Nginx, Node, Proxy, Redis, SecretFile, ServerEntry, Telling, millis, seconds, within};

const NAMES: [&str; 3] = ["red", "green", "blue"];

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples").join(file)
}

/// Three servers of an example, on one Redis.
async fn servers(file: &str, redis: &Redis) -> Vec<NodeServer> {
    let mut servers = Vec::new();
    for name in NAMES {
        let environment = [("REDIS_URL", format!("redis://{}", redis.address())), ("NAME", name.to_owned())];
        servers.push(NodeServer::example(file, &environment).await);
    }
    servers
}

/// Proxies with the file of an example, in which only addresses and the place of the secret are others.
async fn fleet(directory: &str, found: &str, servers: &[NodeServer], secret: &SecretFile) -> Vec<Proxy> {
    let entry = |(name, server): (&str, &NodeServer)| format!("{{ address: \"{}\", name: {name} }}", server.address());
    let entries: Vec<_> = NAMES.into_iter().zip(servers).map(entry).collect();
    let mut yaml = std::fs::read_to_string(example(directory).join("steadfast.yaml")).expect("it is there");
    for (from, to) in [
        (found, entries.join(", ").as_str()),
        ("0.0.0.0:8080", "127.0.0.1:0"),
        ("127.0.0.1:9900", "127.0.0.1:0"),
        ("/run/secrets/affinity", &secret.path().display().to_string()),
    ] {
        assert!(yaml.contains(from) || from.starts_with("/run"), "{from:?} is not in:\n{yaml}");
        yaml = yaml.replace(from, to);
    }
    let mut fleet = Vec::new();
    for _ in 0..2 {
        fleet.push(Proxy::start().run_as(&yaml).await);
    }
    fleet
}

/// `steadfast drain` at each proxy of the fleet, as an operator does it, until the server is empty there.
async fn drain(fleet: &[Proxy], upstream: &str, server: &str) {
    let drains = fleet.iter().map(|proxy| {
        let mut command = Command::new(BINARY);
        command.arg("drain").arg("-c").arg(proxy.operators_file()).args(["--upstream", upstream, "--server", server]);
        command.args(["--spread", "2s", "--wait"]).stdin(Stdio::null());
        Process::start(command)
    });
    for mut drain in drains.collect::<Vec<_>>() {
        assert!(drain.exit_within(seconds(40)).await.success(), "{:?}", drain.stderr());
    }
}

fn addresses(fleet: &[Proxy]) -> Vec<SocketAddr> {
    fleet.iter().map(Proxy::address).collect()
}

#[tokio::test]
async fn socket_io_servers_reach_everybody_once() {
    const EACH: usize = 12;
    let (redis, secret) = (Redis::start().await, SecretFile::with("sixteen and more bytes"));
    let servers = servers("socket-io-redis/server.js", &redis).await;
    let fleet = fleet("socket-io-redis", "{ dns: \"chat:3000\", refresh: 2s }", &servers, &secret).await;
    // Each request of a poller comes through another proxy, and from another address.
    let hop = Nginx::in_turn(&addresses(&fleet), Telling::AnotherAddress).await;
    let argument = json!({
        "client": example("socket-io-redis/client.mjs"),
        "url": format!("http://{}", hop.address()),
        "crowds": { "polling": EACH, "websocket": EACH, "upgrade": EACH },
        "every": 250,
    });
    let mut clients = Node::script("chat_crowd.mjs", &argument);
    within(seconds(60), "everybody to be there", clients.says("ready")).await;

    drain(&fleet, "chat", "red").await;
    // It takes sessions along that nobody could end politely.
    servers[1].node.kill();
    clients.tell(&json!({ "stop": true }));
    let report = within(seconds(60), "everybody to have everything", clients.says("report")).await;
    let said = &report["said"];
    assert!(said.as_u64() > Some(3 * EACH as u64 * 4), "only {said}");
    let clients = report["clients"].as_array().expect("a list");
    for client in clients {
        assert_eq!((&client["shown"], &client["wrong"]), (said, &json!([])), "{client}");
        for name in NAMES {
            assert!(client["from"][name].as_u64() > Some(0), "nothing from {name}: {client}");
        }
    }
    let moved = clients.iter().filter(|client| client["connects"].as_u64() > Some(1)).count();
    assert!(moved >= EACH, "only {moved} clients had to move");
    assert_eq!(redis.ask::<u64>("XLEN chat:log").await, said.as_u64().expect("a number"));
}

/// Publishes `text` by a POST to `address`; returns its number.
async fn publish(address: SocketAddr, text: &str) -> u64 {
    let mut client = connect(address).await;
    let head =
        format!("POST /messages HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", text.len());
    client.send(head + text).await;
    let answer = client.response().await;
    assert_eq!(answer.status(), 201, "{}", answer.text());
    answer.text().trim().parse().expect("it answers with a number")
}

#[tokio::test]
async fn event_stream_servers_reach_everybody_once() {
    const READERS: usize = 36;
    let (redis, secret) = (Redis::start().await, SecretFile::with("sixteen and more bytes"));
    let servers = servers("sse-redis/server.js", &redis).await;
    let mut fleet = fleet("sse-redis", "{ dns: \"events:3000\", refresh: 2s }", &servers, &secret).await;
    let hop = Nginx::in_turn(&addresses(&fleet), Telling::AnotherAddress).await;
    let url = format!("http://{}/events", hop.address());
    let mut readers = Node::script("event_crowd.js", &json!({ "urls": vec![url; READERS] }));
    within(seconds(60), "everybody to be there", readers.says("open")).await;

    let address = |nth: usize| servers[nth].address();
    let publishing = async |from: &[SocketAddr], count: usize| {
        let mut last = 0;
        for number in 0..count {
            let lines = number % 3;
            let text = format!("{}{}", json!({ "number": number, "lines": lines + 1 }), "\nanother line".repeat(lines));
            last = publish(from[number % from.len()], &text).await;
            tokio::time::sleep(millis(20)).await;
        }
        last
    };
    // Past the proxies, at each server, while one of them is emptied.
    let all = [address(0), address(1), address(2)];
    tokio::join!(publishing(&all, 100), drain(&fleet, "events", "red"));
    // One is killed, and then one of the proxies is gone: its readers come back by themselves.
    servers[1].node.kill();
    publishing(&[address(0), address(2)], 20).await;
    let mut leaving = fleet.remove(0);
    leaving.process().kill();
    let last = publishing(&[fleet[0].address()], 40).await;

    readers.tell(&json!({ "until": last }));
    let reports = within(seconds(60), "everybody to have everything", readers.says("readers")).await;
    let reports = reports.as_array().expect("a list");
    for reader in reports {
        assert_eq!((&reader["last"], &reader["wrong"]), (&json!(last), &json!([])), "{reader}");
    }
    let came_back = |reader: &&Value| reader["opens"].as_u64() > Some(1);
    assert!(reports.iter().filter(came_back).count() > 0, "nobody had to come back");
    let resumed = fleet[0].metrics().await.sum("steadfast_sse_resumed_total", &[("result", "resumed")]);
    assert!(resumed > 0.0, "the other proxy has moved nobody");
    assert_eq!(redis.ask::<u64>("XLEN events:log").await, last);
}

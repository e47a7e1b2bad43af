//! One of three real Socket.IO servers is drained under 150 real clients: each of its own comes back
//! once, to another server, and neither a message nor a push is lost.

use serde_json::{Value, json};

use crate::harness::node::NodeServer;
use crate::harness::{Named, Node, Proxy, Redis, SecretFile, ServerEntry, millis, seconds, within};

const SPREAD: u64 = 8;

async fn servers(redis: &Redis) -> Vec<NodeServer> {
    let start = |name: &str| {
        let url = format!("redis://{}", redis.address());
        let argument = json!({ "name": name, "redis": url, "publishes": name == "blue" });
        Node::script("socket_io_recovering_server.js", &argument)
    };
    let nodes = ["red", "green", "blue"].map(start);
    let mut servers = Vec::new();
    for node in nodes {
        servers.push(NodeServer::listening(node).await);
    }
    servers
}

/// When a WebSocket ended that was drained, by a line of the access log: in milliseconds of the day.
fn drained_at(line: &str) -> Option<u64> {
    let line: Value = serde_json::from_str(line).ok()?;
    if line["kind"] != "websocket" || line["end_reason"] != "drained" {
        return None;
    }
    let (_, time) = line["time"].as_str()?.split_once('T')?;
    let digits: Vec<u64> = time.split([':', '.', 'Z']).filter_map(|digits| digits.parse().ok()).collect();
    let [hours, minutes, seconds, millis] = digits[..] else { panic!("a time without milliseconds: {line}") };
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + millis + line["duration_ms"].as_u64()?)
}

#[tokio::test]
async fn each_client_comes_back_once_and_misses_nothing() {
    const CROWD: usize = 50;
    let redis = Redis::start().await;
    let servers = servers(&redis).await;
    let secret = SecretFile::with("sixteen and more bytes");
    let entries: Vec<_> =
        ["red", "green", "blue"].into_iter().zip(&servers).map(|(name, it)| Named(it, name)).collect();
    let entries: Vec<&dyn ServerEntry> = entries.iter().map(|entry| entry as &dyn ServerEntry).collect();
    let proxy = Proxy::start().secret(&secret).upstream("chat", &entries).trusting("[127.0.0.0/8]").run().await;
    let url = format!("http://{}", proxy.address());
    let crowds = json!({ "polling": CROWD, "websocket": CROWD, "upgrade": CROWD });
    let argument = json!({ "url": url, "crowds": crowds, "every": 1000 });
    let mut clients = Node::script("socket_io_wanderers.js", &argument);
    within(seconds(60), "all clients to be connected", clients.says("connected")).await;
    tokio::time::sleep(seconds(2)).await; // Those that upgrade do.

    let of_red = servers[0].node.said("begun").len();
    assert!((25..=75).contains(&of_red), "{of_red} of 150");
    let answer =
        proxy.order("drain", json!({ "upstream": "chat", "server": "red", "spread": format!("{SPREAD}s") })).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    // A poll that is parked is answered by the server's next push, and the one behind it is told.
    tokio::time::sleep(seconds(SPREAD + 5)).await;
    clients.tell(&json!({ "stop": true }));
    let reports = within(seconds(40), "the clients to be done", clients.says("clients")).await;
    let reports = reports.as_array().expect("a list").clone();
    let number = |report: &Value, key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
    for report in &reports {
        assert_eq!(number(report, "acknowledged"), number(report, "sent"), "a message is lost: {report}");
        assert_eq!((number(report, "twice"), number(report, "failed")), (0, 0), "{report}");
        assert!(number(report, "news") > 100 && number(report, "connects") <= 2, "{report}");
        // Between reading what was missed and having the socket listen again, the adapter itself may lose
        // what is sent, or send it twice: what comes within that moment, however busy the machine is.
        // Without recovery it would be seconds.
        let moment = if number(report, "connects") == 1 { 0 } else { 20 };
        assert!(number(report, "gaps") + number(report, "repeated") <= moment, "{report}");
        assert_eq!(number(report, "recovered"), number(report, "connects") - 1, "{report}");
    }
    let moved: Vec<_> = reports.iter().filter(|report| number(report, "connects") == 2).collect();
    assert_eq!(moved.len(), of_red, "who was not with the server that is drained stays");
    // The relays that the proxy has ended, by its own clock.
    let ends: Vec<_> = proxy.log().iter().filter_map(|line| drained_at(line)).collect();
    let first = *ends.iter().min().expect("there were relays");
    let mut histogram = vec![0; usize::try_from(SPREAD / 2).expect("a few seconds")];
    for end in &ends {
        let part = usize::try_from((end - first) / 2000).expect("a few seconds").min(histogram.len() - 1);
        histogram[part] += 1;
    }
    let least = ends.len() / histogram.len() / 3;
    assert!(ends.len() > 15 && histogram.iter().all(|count| *count >= least), "{histogram:?}");

    // Each message counts once for the servers too.
    let sent: u64 = reports.iter().map(|report| number(report, "sent")).sum();
    let counted: u64 = redis.ask("GET messages").await;
    assert_eq!(counted, sent);
    assert_eq!(servers.iter().map(|server| server.node.said("recovered").len()).sum::<usize>(), of_red);
    assert!(servers[0].node.said("recovered").is_empty(), "nobody comes back to a server that is drained");
    drop(clients);
    tokio::time::sleep(millis(100)).await;
    proxy.settles("steadfast_open_connections", &[("server", "red")], 0.0).await;
}

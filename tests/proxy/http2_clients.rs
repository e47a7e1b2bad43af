//! HTTP/2 of real clients: curl, nghttp2's, Node's, and the package `ws`.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::harness::node::NodeServer;
use crate::harness::process::Process;
use crate::harness::{Node, Proxy, Random, Upstream, Wire, seconds, within};

/// What a client prints and ends with.
async fn run(program: &str, arguments: &[&str]) -> (bool, Vec<String>) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    let mut process = Process::start(command);
    let status = process.exit().await;
    (status.success(), process.stdout())
}

async fn echoing() -> Upstream {
    Upstream::serving(|mut wire: Wire| async move {
        while let Some(request) = wire.next_request().await {
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len())).await;
            wire.send(&request.body).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_posts_megabytes_and_gets_them_back() {
    let server = echoing().await;
    let proxy = Proxy::start().listening("h2c: on").upstream("chat", &[&server]).run().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (sent, got) = (directory.path().join("sent"), directory.path().join("got"));
    let body = Random::seeded(1).bytes(3_000_000);
    std::fs::write(&sent, &body).expect("the file is ours");
    let (data, output) = (format!("@{}", sent.display()), got.display().to_string());
    let url = format!("http://{}/echo", proxy.address());
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"], &["-H", "Expect: 100-continue"]] {
        let arguments = ["-sS", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}\n"];
        let arguments = [&arguments[..], &["--data-binary", &data, "-o", &output], more, &[&url]].concat();
        let (is_well, lines) = run("curl", &arguments).await;
        assert!(is_well && lines == ["2 200"], "with {more:?}: {lines:?}");
        assert!(std::fs::read(&got).expect("curl has written it") == body, "with {more:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_of_h2load_are_answered() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().listening("h2c: on").upstream("chat", &[&server]).access_log("off").run().await;
    let url = format!("http://{}/", proxy.address());
    let (is_well, lines) = run("h2load", &["-n", "2000", "-c", "5", "-m", "50", &url]).await;
    let done = "requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
    assert!(is_well && lines.iter().any(|line| line == done), "{lines:#?}");
    let (is_well, lines) = run("nghttp", &["-s", "-m", "20", "-n", &url]).await;
    assert!(is_well && lines.iter().any(|line| line.contains(" 200 ")), "{lines:#?}");
    proxy.settles("steadfast_http2_streams", &[], 0.0).await;
    proxy.settles_empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_websockets_of_node_live_on_one_connection() {
    const STREAMS: usize = 30;
    const SOCKETS: usize = 5;
    let server = NodeServer::listening(Node::script("browser_server.js", &json!({ "silence": 4000 }))).await;
    let proxy = Proxy::start().listening("h2c: on").upstream("chat", &[&server]).sse("{ keepalive: 1s }");
    let proxy = proxy.websocket("{ ping: 1s }").run().await;
    let argument = json!({ "url": format!("http://{}", proxy.address()), "streams": STREAMS, "sockets": SOCKETS });
    let mut client = Node::script("http2_client.js", &argument);
    let report = within(seconds(60), "all to have said both", client.says("report")).await;
    assert_eq!(report, json!({ "streams": STREAMS, "sockets": SOCKETS, "comments": STREAMS }));
    assert_eq!(client.said("settings")[0], json!({ "enableConnectProtocol": true, "maxConcurrentStreams": 100 }));
    proxy.settles("steadfast_client_connections", &[], 1.0).await;
    proxy.settles("steadfast_http2_streams", &[], 35.0).await;
    proxy.relays_once(SOCKETS, "kind=websocket").await;
    client.tell(&json!({ "leave": true }));
    within(seconds(60), "the client to leave", client.says("left")).await;
    assert_eq!(client.said("failed"), Vec::<serde_json::Value>::new());
    proxy.settles("steadfast_http2_streams", &[], 0.0).await;
    proxy.settles_empty().await;
}

//! What a real browser makes of many streams and WebSockets at once.

use serde_json::json;

use crate::harness::node::NodeServer;
use crate::harness::tls::listening;
use crate::harness::{Authority, Chromium, Node, Proxy, seconds, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_has_dozens_of_streams_and_websockets_on_one_connection() {
    const STREAMS: usize = 30;
    const SOCKETS: usize = 5;
    let argument = json!({ "streams": STREAMS, "sockets": SOCKETS, "silence": 5_000 });
    let server = NodeServer::listening(Node::script("browser_crowd.js", &argument)).await;
    let authority = Authority::new();
    let files = authority.vouch_for(&["localhost"]);
    let proxy = Proxy::start().listening(&listening(&[&files])).upstream("chat", &[&server]);
    let proxy = proxy.sse("{ keepalive: 2s }").websocket("{ ping: 2s }").run().await;
    let browser = Chromium::open(&format!("https://localhost:{}/", proxy.address().port()));
    let report = within(seconds(60), "the page to tell", server.node.says("report")).await;
    let expected = json!({ "protocol": "h2", "streams": STREAMS, "sockets": SOCKETS, "errors": 0, "closed": 0 });
    assert_eq!(report, expected);
    proxy.relays_once(STREAMS, "kind=sse").await;
    proxy.relays_once(SOCKETS, "kind=websocket").await;
    let metrics = proxy.metrics().await;
    // All of them live on one; a browser may have connected another one ahead.
    let streams = metrics.sum("steadfast_http2_streams", &[]);
    assert!(streams >= 35.0, "{streams} streams");
    let connections = metrics.sum("steadfast_client_connections", &[]);
    assert!(connections <= 3.0, "{connections} connections");
    drop(browser);
    proxy.settles("steadfast_http2_streams", &[], 0.0).await;
    proxy.settles_empty().await;
}

//! What a real browser makes of streams and WebSockets that come by way of the proxy.

use serde_json::json;

use crate::harness::node::NodeServer;
use crate::harness::{Chromium, Hop, Node, Proxy, seconds, within};

#[tokio::test]
async fn streams_and_websockets_of_a_browser_survive_silence_behind_a_hop_that_cuts() {
    let server = NodeServer::listening(Node::script("browser_server.js", &json!({ "silence": 12_000 }))).await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 2s }").websocket("{ ping: 2s }");
    let proxy = proxy.run().await;
    let hop = Hop::cutting_after(seconds(5), proxy.address()).await;
    let _browser = Chromium::open(&format!("http://{}/", hop.address()));
    let report = within(seconds(60), "the page to tell", server.node.says("report")).await;
    let words = json!(["first", "second"]);
    assert_eq!(report, json!({ "opened": 1, "events": words, "messages": words, "closed": 0 }));
}

//! What real clients make of a minute in which nothing is said, behind a hop that cuts after five
//! seconds. Its name has it begin among the first, for it ends among the last.

use serde_json::json;

use crate::harness::node::NodeServer;
use crate::harness::{Chromium, Hop, Node, Proxy, seconds, within};

#[tokio::test]
async fn is_survived_by_a_browser_and_by_libraries_for_streams_and_for_websockets() {
    const MINUTE_MS: u64 = 60_000;
    let server = NodeServer::listening(Node::script("browser_server.js", &json!({ "silence": MINUTE_MS }))).await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 2s }").websocket("{ ping: 2s }");
    let proxy = proxy.run().await;
    let hop = Hop::cutting_after(seconds(5), proxy.address()).await;
    let words = json!(["first", "second"]);

    let browser = async {
        let _browser = Chromium::open(&format!("http://{}/", hop.address()));
        let report = within(seconds(120), "the page to tell", server.node.says("report")).await;
        assert_eq!(report, json!({ "opened": 1, "events": words, "messages": words, "closed": 0 }));
    };
    let event_source = async {
        let client =
            Node::script("event_source.js", &json!({ "urls": [format!("http://{}/events?ends", hop.address())] }));
        let events = within(seconds(120), "the events", client.says("events")).await;
        let event = |data| json!({ "type": "message", "data": data, "lastEventId": "" });
        assert_eq!(events, json!([[event("first"), event("second")]]));
    };
    let websocket = async {
        let url = format!("ws://{}/ws", hop.address());
        let mut client =
            Node::script("websocket_client.js", &json!({ "url": url, "compresses": false, "answers": true }));
        within(seconds(20), "a WebSocket to open", client.says("open")).await;
        client.tell(&json!({ "say": ["first"] }));
        let both = async {
            while client.said("echoed").len() < 2 {
                tokio::time::sleep(seconds(1)).await;
            }
        };
        within(seconds(120), "both messages", both).await;
        assert_eq!(client.said("echoed"), [json!(["first"]), json!(["second"])]);
        assert_eq!(client.said("closed").len() + client.said("failed").len(), 0, "{:?}", client.lines());
        assert!(client.said("pinged").len() >= 15, "{:?}", client.lines());
    };
    tokio::join!(browser, event_source, websocket);
    assert_eq!(hop.cuts(), 0);
}

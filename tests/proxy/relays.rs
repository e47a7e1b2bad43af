//! Every relay by itself: how old it may become.

use std::time::Instant;

use serde_json::json;

use crate::harness::relay::{open_events, open_tunnel};
use crate::harness::websocket::{close, frame, masked, next_frame, open};
use crate::harness::{Proxy, Upstream, millis, seconds};

const CLOSE: u8 = 0x88;

#[tokio::test]
async fn age_ends_what_is_busy_and_tells_both_sides() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ max_age: 2s }").run().await;
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let (mut listener, mut source) = open_events(&proxy, &server).await;
    let (mut near, mut far) = open_tunnel(&proxy, &server).await;
    let began = Instant::now();
    while began.elapsed() < millis(1500) {
        upstream.send(frame("busy")).await;
        assert_eq!(next_frame(&mut client).await, (0x81, b"busy".to_vec()));
        source.send("9\r\ndata: x\n\n\r\n").await;
        listener.until(b"9\r\ndata: x\n\n\r\n").await;
        far.send("busy").await;
        near.exactly(4).await;
        tokio::time::sleep(millis(100)).await;
    }
    assert_eq!(next_frame(&mut client).await, (CLOSE, close(1001, "going away")));
    assert_eq!(next_frame(&mut upstream).await, (CLOSE, close(1001, "going away")));
    client.send(masked(CLOSE, &close(1001, ""), [0; 4])).await;
    drop(upstream);
    client.ends().await;
    // A stream ends as its server would have ended it.
    assert_eq!(listener.rest().await, b"0\r\n\r\n");
    source.ends().await;
    near.ends().await;
    far.ends().await;
    assert!((millis(1700)..seconds(6)).contains(&began.elapsed()), "it took {:?}", began.elapsed());
    for path in ["/ws", "/events", "/tunnel"] {
        assert_eq!(proxy.logged_path(path).await["end_reason"], "max_age", "{path}");
    }
    assert_eq!(proxy.logged_path("/ws").await["close_code"], json!(1001));
    proxy.settles_empty().await;
}

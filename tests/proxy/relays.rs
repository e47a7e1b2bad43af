//! Every relay by itself: listed, ended by its id, and how old it may become.

use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::client::SWITCHING;
use crate::harness::relay::{open_events, open_tunnel};
use crate::harness::websocket::{close, frame, masked, masked_frame, next_frame, open};
use crate::harness::{Named, Proxy, Upstream, Wire, millis, seconds, websocket_request};

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

fn ids(listing: &Value) -> Vec<u64> {
    let relays = listing["relays"].as_array().expect("there is a list");
    relays.iter().map(|relay| relay["id"].as_u64().expect("an id is a number")).collect()
}

#[tokio::test]
async fn relays_are_listed_with_what_they_are() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&one, "a")])
        .upstream("push", &[&Named(&two, "b")])
        .route("{ path: /events, upstream: push }")
        .route("{ upstream: chat }")
        .run()
        .await;
    assert_eq!(proxy.relays("").await, json!({ "count": 0, "complete": true, "next": null, "relays": [] }));

    let mut client = proxy.send(websocket_request("/ws", "X-Forwarded-For: 192.0.2.7\r\n")).await;
    let mut upstream = one.accept().await;
    upstream.request().await;
    upstream.send(SWITCHING).await;
    client.head().await;
    client.send(masked_frame("up")).await;
    upstream.exactly(8).await;
    upstream.send(frame("down")).await;
    client.exactly(6).await;
    // Each is a relay before the next one is: heads are seen earlier.
    proxy.relays_once(1, "").await;
    let _events = open_events(&proxy, &two).await;
    proxy.relays_once(2, "").await;
    let _tunnel = open_tunnel(&proxy, &one).await;
    proxy.relays_once(3, "").await;
    tokio::time::sleep(millis(300)).await;

    let listing = proxy.relays("kind=websocket").await;
    let relay = &listing["relays"][0];
    let expected = json!({
        "id": relay["id"], "kind": "websocket", "upstream": "chat", "server": "a", "client": "192.0.2.7",
        "age_ms": relay["age_ms"], "idle_ms": relay["idle_ms"], "bytes_in": 8, "bytes_out": 6, "ending": null,
    });
    assert_eq!(listing, json!({ "count": 1, "complete": true, "next": null, "relays": [expected] }));
    let times = [&relay["age_ms"], &relay["idle_ms"]].map(|time| time.as_u64().expect("a number"));
    assert!(times[0] >= 300 && (200..=times[0] + 100).contains(&times[1]), "{relay}");

    // In the order in which they began, or against it.
    let all = ids(&proxy.relays("first=oldest").await);
    assert!(all.len() == 3 && all.is_sorted(), "{all:?}");
    let [first, second, third] = all[..] else { panic!("there are three") };
    for (query, count, expected) in [
        ("", 3, vec![third, second, first]),
        ("limit=1", 3, vec![third]),
        (&format!("limit=1&after={third}"), 3, vec![second]),
        (&format!("first=oldest&after={first}"), 3, vec![second, third]),
        ("kind=sse", 1, vec![second]),
        ("kind=tunnel", 1, vec![third]),
        ("upstream=push", 1, vec![second]),
        ("upstream=chat", 2, vec![third, first]),
        ("server=a&kind=websocket", 1, vec![first]),
        ("server=b&kind=websocket", 0, vec![]),
        ("upstream=nobody", 0, vec![]),
        ("client=192.0.2.7", 1, vec![first]),
        ("client=192.0.2.8", 0, vec![]),
        ("min_age=200ms", 3, vec![third, second, first]),
        ("min_age=1h", 0, vec![]),
    ] {
        let listing = proxy.relays(query).await;
        assert_eq!((&listing["count"], ids(&listing)), (&json!(count), expected), "{query}");
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_a_gap() {
    const RELAYS: usize = 60;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut open_ones = Vec::new();
    for _ in 0..RELAYS {
        open_ones.push(open(&proxy, &server).await);
    }
    proxy.relays_once(RELAYS, "").await;
    for first in ["newest", "oldest"] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = ids(&proxy.relays(&format!("first={first}&limit=7{after}")).await);
            let Some(last) = page.last() else { break };
            after = format!("&after={last}");
            assert!(page.len() <= 7);
            seen.extend(page);
        }
        if first == "newest" {
            seen.reverse();
        }
        assert!(seen.is_sorted() && seen.len() == RELAYS, "{first}: {seen:?}");
    }
}

#[tokio::test]
async fn a_silent_relay_ends_by_its_id_and_no_other_does() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(4).run().await;
    let mut others: Vec<(Wire, Wire)> = Vec::new();
    for _ in 0..8 {
        others.push(open(&proxy, &server).await);
    }
    proxy.relays_once(8, "").await; // So that the newest is the next one.
    let (mut client, mut upstream) = open(&proxy, &server).await;
    let (mut listener, mut source) = open_events(&proxy, &server).await;
    let (mut near, mut far) = open_tunnel(&proxy, &server).await;
    proxy.relays_once(11, "").await;
    for (kind, status) in [("websocket", 202), ("sse", 202), ("tunnel", 202)] {
        let id = proxy.relays(&format!("kind={kind}&limit=1")).await["relays"][0]["id"].clone();
        assert_eq!(proxy.end_relay(&id).await, status, "{kind}");
    }
    assert_eq!(next_frame(&mut client).await, (CLOSE, close(1001, "going away")));
    assert_eq!(next_frame(&mut upstream).await, (CLOSE, close(1001, "going away")));
    assert_eq!(listener.rest().await, b"0\r\n\r\n");
    source.ends().await;
    near.ends().await;
    far.ends().await;
    // While it waits for the answers it can be seen, and told again.
    let leaving = proxy.relays("kind=websocket&limit=1").await["relays"][0].clone();
    assert_eq!(leaving["ending"], "operator", "{leaving}");
    assert_eq!(proxy.end_relay(&leaving["id"]).await, 202);
    client.send(masked(CLOSE, &close(1001, ""), [0; 4])).await;
    drop(upstream);
    client.ends().await;
    for path in ["/ws", "/events", "/tunnel"] {
        assert_eq!(proxy.logged_path(path).await["end_reason"], "operator", "{path}");
    }
    proxy.relays_once(8, "").await;
    assert_eq!(proxy.end_relay(&leaving["id"]).await, 404);
    for (client, upstream) in &mut others {
        client.send(masked_frame("still here")).await;
        assert_eq!(upstream.exactly(16).await, masked_frame("still here"));
    }
}

#[tokio::test]
async fn an_id_names_one_relay_for_ever() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).threads(1).run().await;
    let mut before = 0;
    for _ in 0..3 {
        let (near, far) = open_tunnel(&proxy, &server).await;
        let id = ids(&proxy.relays_once(1, "").await)[0];
        assert!(id > before, "{id} after {before}");
        drop((near, far));
        proxy.settles_empty().await;
        assert_eq!(proxy.end_relay(&json!(id)).await, 404);
        before = id;
    }
}

#[tokio::test]
async fn what_is_no_question_about_relays_is_refused() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    for (method, path, status) in [
        ("GET", "/api/v1/relays?limit=0", 400),
        ("GET", "/api/v1/relays?colour=red", 400),
        ("HEAD", "/api/v1/relays", 200),
        ("DELETE", "/api/v1/relays", 405),
        ("GET", "/api/v1/relays/1", 404),
        ("POST", "/api/v1/relays/1", 405),
        ("DELETE", "/api/v1/relays/", 400),
        ("DELETE", "/api/v1/relays/x", 400),
        ("DELETE", "/api/v1/relays/-1", 400),
        ("DELETE", "/api/v1/relays/1/2", 400),
        ("DELETE", "/api/v1/relays/18446744073709551615", 404),
        ("DELETE", "/metrics", 405),
        ("POST", "/readyz", 405),
    ] {
        let mut client = proxy.connect_admin().await;
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(client.head().await.status(), status, "{method} {path}");
    }
}

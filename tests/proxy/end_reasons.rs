//! One way to every end reason there is: a reason without one does not compile.

use steadfast::relay::EndReason;

use serde_json::json;

use crate::harness::relay::{open_events, open_tunnel};
use crate::harness::upstream::{Refusing, ok};
use crate::harness::websocket::{masked_frame, open};
use crate::harness::{Leaving, Proxy, ServerEntry, Upstream, seconds};

const REQUEST: &str = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";

/// Lets something end for `reason`; the path of its request, on the proxy that served it.
async fn end_for(reason: EndReason) -> (Proxy, &'static str) {
    let server = Upstream::start().await;
    let chat = || Proxy::start().upstream("chat", &[&server]);
    match reason {
        EndReason::Complete => {
            let proxy = chat().run().await;
            let mut client = proxy.send(REQUEST).await;
            let mut upstream = server.accept().await;
            upstream.request().await;
            upstream.send(ok("done")).await;
            client.response().await;
            (proxy, "/events")
        }
        EndReason::ClientClosed | EndReason::ClientError => {
            let proxy = chat().run().await;
            let (client, mut upstream) = open(&proxy, &server).await;
            client.leave(if reason == EndReason::ClientError { Leaving::Reset } else { Leaving::Closed });
            upstream.ends().await;
            (proxy, "/ws")
        }
        EndReason::ServerClosed | EndReason::ServerError => {
            let proxy = chat().run().await;
            let (mut client, upstream) = open(&proxy, &server).await;
            upstream.leave(if reason == EndReason::ServerError { Leaving::Reset } else { Leaving::Closed });
            client.ends().await;
            (proxy, "/ws")
        }
        EndReason::Drained => {
            let proxy = chat().run().await;
            let (mut client, _upstream) = open_events(&proxy, &server).await;
            assert_eq!(proxy.order("drain", json!({ "spread": "0s" })).await.status(), 200);
            client.rest().await;
            (proxy, "/events")
        }
        EndReason::Rebalanced => {
            let other = Upstream::start().await;
            let proxy = chat().balance("{ hash: ketama }").run().await;
            let mut open = Vec::new();
            for _ in 0..20 {
                open.push(open_events(&proxy, &server).await);
            }
            let (from, to) = (format!("\"{}\"", server.address()), format!("\"{}\"", other.address()));
            let pace = ("balance: { hash: ketama }", "rebalance: { per_minute: 100, min_age: 0s }");
            assert_eq!(proxy.reload(&[(&from, &to), pace]).await.status(), 200);
            proxy.settles("steadfast_ends_total", &[("end_reason", reason.label())], 1.0).await;
            (proxy, "/events")
        }
        EndReason::ServerDown => {
            let asked = Upstream::start().await;
            let check = format!("{{ tcp: on, port: {}, interval: 100ms, fall: 1 }}", asked.address().port());
            let setup = chat().of_upstream("health_check", &check).of_upstream("on_down", "close");
            let proxy = setup.of_upstream("drain", "{ spread: 0s }").run().await;
            let (mut client, _upstream) = open_events(&proxy, &server).await;
            drop(asked);
            client.rest().await;
            (proxy, "/events")
        }
        EndReason::PeerGone => {
            let proxy = chat().websocket("{ ping: 1s, pong_timeout: 100ms }").run().await;
            let (mut client, _upstream) = open(&proxy, &server).await;
            client.rest().await;
            (proxy, "/ws")
        }
        EndReason::ClientStalled => {
            let proxy = chat().timeouts("{ send: 1s }").run().await;
            let (_client, upstream) = open_events(&proxy, &server).await;
            let (_reading, mut to_client) = upstream.split();
            let piece = format!("fffa\r\n:{}\n\r\n", "x".repeat(0xfffa - 2));
            assert!(
                !to_client.flood(piece.as_bytes(), 64 << 20).await,
                "64 MiB were taken for a client that reads none"
            );
            (proxy, "/events")
        }
        EndReason::ServerStalled => {
            let proxy = chat().timeouts("{ send: 1s }").run().await;
            let (client, _upstream) = open_tunnel(&proxy, &server).await;
            let (_reading, mut to_server) = client.split();
            assert!(!to_server.flood(&[b'x'; 65536], 64 << 20).await, "64 MiB were taken for a server that reads none");
            (proxy, "/tunnel")
        }
        EndReason::Idle => {
            let proxy = chat().timeouts("{ idle: 300ms }").run().await;
            let (mut client, _upstream) = open_events(&proxy, &server).await;
            client.rest().await;
            (proxy, "/events")
        }
        EndReason::MaxAge => {
            let proxy = chat().timeouts("{ max_age: 1s }").run().await;
            let (mut client, _upstream) = open_tunnel(&proxy, &server).await;
            client.ends().await;
            (proxy, "/tunnel")
        }
        EndReason::Operator => {
            let proxy = chat().run().await;
            let (mut client, _upstream) = open_events(&proxy, &server).await;
            let id = proxy.relays_once(1, "").await["relays"][0]["id"].clone();
            assert_eq!(proxy.end_relay(&id).await, 202);
            client.rest().await;
            (proxy, "/events")
        }
        EndReason::Shutdown => {
            let mut proxy = chat().run().await;
            let (mut client, _upstream) = open_events(&proxy, &server).await;
            proxy.terminate();
            client.rest().await;
            proxy.exit().await;
            (proxy, "/events")
        }
        EndReason::Refused => {
            let nobody = Refusing::start();
            let setup = Proxy::start().upstream("chat", &[&nobody]);
            let proxy = setup.run().await;
            assert_eq!(proxy.exchange(REQUEST).await.status(), 502);
            (proxy, "/events")
        }
    }
}

#[tokio::test]
async fn every_end_reason_can_be_met() {
    let meetings = EndReason::ALL.map(|reason| (reason, tokio::spawn(end_for(reason))));
    for (reason, meeting) in meetings {
        let (proxy, path) = meeting.await.unwrap_or_else(|error| panic!("{}: {error}", reason.label()));
        let line = proxy.logged_path(path).await;
        assert_eq!(line["end_reason"], reason.label(), "{line}");
        if reason != EndReason::Shutdown {
            proxy.settles("steadfast_ends_total", &[("end_reason", reason.label())], 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_tunnel_is_half_closed_by_either_side_and_still_carries_the_other() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).timeouts("{ idle: 1s }").run().await;
    for reason in [EndReason::ClientClosed, EndReason::ServerClosed] {
        let (client, upstream) = open_tunnel(&proxy, &server).await;
        let is_client = reason == EndReason::ClientClosed;
        let (mut first, mut second) = if is_client { (client, upstream) } else { (upstream, client) };
        first.send("last").await;
        first.finish().await;
        assert_eq!(second.rest().await, b"last");
        // Bytes in the open direction alone keep it, for longer than `idle`.
        for _ in 0..6 {
            tokio::time::sleep(seconds(1) / 3).await;
            second.send(masked_frame("on")).await;
            first.exactly(8).await;
        }
        drop(second);
        first.ends().await;
        proxy.logged(|line| line["path"] == "/tunnel" && line["end_reason"] == reason.label()).await;
    }
}

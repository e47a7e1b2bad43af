//! How fast an upstream takes those who come to stay, and what those hear who are too many.

use std::time::Instant;

use futures_util::future::join_all;

use crate::harness::client::SWITCHING;
use crate::harness::upstream::ok;
use crate::harness::{Leaving, Proxy, Upstream, Wire, millis, seconds, soon, websocket_request, within};

const GET: &str = "GET /get HTTP/1.1\r\nHost: a\r\n\r\n";
const OPENS: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n";
const POLLS: &str = "GET /socket.io/?EIO=4&transport=polling&sid=x HTTP/1.1\r\nHost: a\r\n\r\n";
const EVENTS: &str = "GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";

async fn server() -> Upstream {
    Upstream::serving(|mut wire| async move {
        while let Some(request) = wire.next_request().await {
            if request.head.field("upgrade").is_some() {
                wire.send(SWITCHING).await;
                wire.rest().await;
                return;
            }
            wire.send(ok("a")).await;
        }
    })
    .await
}

async fn handshake(proxy: &Proxy) -> (u16, Wire) {
    let mut client = proxy.send(websocket_request("/ws", "")).await;
    let status = within(seconds(30), "an answer to a handshake", client.head()).await.status();
    (status, client)
}

#[tokio::test]
async fn a_storm_of_handshakes_is_let_through_at_its_pace() {
    const STORM: usize = 400;
    let server = server().await;
    let proxy = Proxy::start()
        .upstream("chat", &[&server])
        .paced("{ handshakes_per_second: 50, queue: 2s }")
        .access_log("{ format: off }")
        .run()
        .await;
    let began = Instant::now();
    let clients = join_all((0..STORM).map(|_| handshake(&proxy))).await;
    let took = began.elapsed().as_secs_f64();
    let count = |status| clients.iter().filter(|(got, _)| *got == status).count();
    let (taken, refused) = (count(101), count(503));
    assert_eq!(taken + refused, STORM, "nobody hears anything else");
    let most = 5.0 + 50.0 * took + 1.0;
    assert!(taken as f64 <= most, "{taken} in {took} s");
    // A busy machine may send the storm so slowly that it is none.
    let is_storm = took < STORM as f64 / 50.0 - 2.5;
    assert!(taken >= 50 && (refused >= 1 || !is_storm), "{taken} taken, {refused} refused in {took} s");

    let outcome =
        async |outcome| proxy.metrics().await.sum("steadfast_paced_handshakes_total", &[("outcome", outcome)]);
    assert_eq!(outcome("refused").await as usize, refused);
    assert_eq!((outcome("at_once").await + outcome("waited").await) as usize, taken);
    if is_storm {
        assert!(outcome("waited").await > 0.0);
        proxy.heard("more clients come to stay than limits.handshakes_per_second lets through").await;
    }
    let lines = proxy.said().iter().filter(|line| line.contains("handshakes_per_second")).count();
    assert!(lines <= 2, "{lines} lines in {took} s");

    drop(clients);
    proxy.settles_empty().await;
    assert_eq!(handshake(&proxy).await.0, 101, "the line is empty again");
}

#[tokio::test]
async fn those_who_are_too_many_are_told_to_come_later_and_others_never_wait() {
    let server = server().await;
    let setup = Proxy::start().upstream("chat", &[&server]);
    let proxy = setup.paced("{ handshakes_per_second: 1, queue: 0s }").run().await;
    let refused = async |request: &str| {
        let attempt = async {
            // Sooner or later two come within a second.
            loop {
                let mut client = proxy.send(request).await;
                let answer = client.response().await;
                let is_refused = answer.head.field("retry-after").is_some();
                if is_refused {
                    return answer;
                }
            }
        };
        soon("one to be refused", attempt).await
    };
    let _taken = handshake(&proxy).await;
    let answer = refused(OPENS).await;
    assert_eq!((answer.status(), answer.text().trim_end()), (503, "too many come at once; come again later"));
    let answer = refused(EVENTS).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.text().starts_with("retry: "), "{}", answer.text());
    for _ in 0..20 {
        assert_eq!(proxy.exchange(GET).await.status(), 200);
        assert_eq!(proxy.exchange(POLLS).await.status(), 200);
    }
    let refusals = proxy.metrics().await.sum("steadfast_errors_total", &[("error", "too_many_at_once")]);
    assert!(refusals >= 2.0, "{refusals}");
}

#[tokio::test]
async fn whoever_leaves_the_line_frees_a_place_in_it() {
    let server = server().await;
    let setup = Proxy::start().upstream("chat", &[&server]);
    let proxy = setup.paced("{ handshakes_per_second: 1, queue: 10s }").run().await;
    for how in Leaving::ALL {
        let mut line = Vec::new();
        for _ in 0..8 {
            line.push(proxy.send(websocket_request("/ws", "")).await);
        }
        tokio::time::sleep(millis(200)).await;
        line.into_iter().for_each(|client| client.leave(how));
    }
    proxy.settles("steadfast_client_connections", &[], 0.0).await;
    // Were they in line still, this one would come too late for a place or wait for sixteen others.
    assert_eq!(handshake(&proxy).await.0, 101);
    assert!(server.accepted() < 10, "{} got through though they had left", server.accepted());
    proxy.settles_empty().await;
}

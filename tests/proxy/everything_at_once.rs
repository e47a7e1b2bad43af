//! Reloads and hand-overs under thousands of relays in traffic: none is lost, and no message either.

use crate::harness::proxy::connect;
use crate::harness::tls::listening;
use crate::harness::{Authority, Named, Proxy, Sequences, ServerEntry, Upstream, millis, seconds};

const WEBSOCKETS: usize = 2_000;
const STREAMS: usize = 1_000;
const RELOADS: usize = 20;
const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// An address that nobody listens on.
async fn free_address() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}

#[tokio::test]
async fn nothing_is_lost_while_everything_changes() {
    let (server, other) = (Upstream::start().await, Upstream::named("other").await);
    let authority = Authority::new();
    let (shown, spare) = (authority.vouch_for(&["one.example"]), authority.vouch_until(&["one.example"], 4001));
    let mut proxy = Proxy::start()
        .line("hand_over: { socket: DIRECTORY/hand-over.sock }")
        .upstream("chat", &[&Named(&server, "a")])
        .upstream("others", &[&Named(&other, "b")])
        .route("{ path: /other, upstream: others }")
        .route("{ upstream: chat }")
        .run()
        .await;
    let traffic = Sequences::begin(&proxy, &server, (WEBSOCKETS, STREAMS), seconds(3)).await;

    let (plain, encrypted) = (free_address().await, free_address().await);
    // Behind the first one, by which the proxy is known.
    let end = "]\nadmin:".to_owned();
    let with_plain = format!(", {{ bind: \"{plain}\" }}{end}");
    let tls = format!(", {{ bind: \"{encrypted}\", {} }}{end}", listening(&[&shown]));
    let a = format!("{{ address: \"{}\", weight: 1, name: a }}", server.address());
    let with_c = format!("{a}, {{ address: \"{}\", weight: 1, name: c, state: maint }}", other.address());
    assert_eq!(proxy.reload(&[(&end, &tls)]).await.status(), 200);
    for round in 0..RELOADS {
        let is_there = round / 5 % 2 == 1;
        let turned = |(from, to): (String, String)| if is_there { (to, from) } else { (from, to) };
        let (from, to) = match round % 5 {
            0 => turned(("path: /other,".to_owned(), "path: /elsewhere,".to_owned())),
            1 => turned((a.clone(), with_c.clone())),
            2 => turned((end.clone(), with_plain.clone())),
            3 => {
                for (from, to) in [(&spare.cert, &shown.cert), (&spare.key, &shown.key)] {
                    std::fs::copy(from, to).expect("the files are ours");
                }
                (String::new(), String::new())
            }
            _ => ("\nroutes:".to_owned(), "\nrutes:".to_owned()),
        };
        let is_wrong = round % 5 == 4;
        let answer = proxy.reload(&[(&from, &to)]).await;
        assert_eq!(answer.status(), if is_wrong { 422 } else { 200 }, "round {round}: {}", answer.text());
        if is_wrong {
            proxy.rewrite(&[(&to, &from)]);
        }
        if round % 4 == 3 {
            let mut old = proxy.hand_over().await;
            assert!(old.exit_within(seconds(2)).await.success(), "round {round}");
        }
        let path = if round % 10 < 5 { "/elsewhere" } else { "/other" };
        assert_eq!(proxy.exchange(GET.replace("/x", path)).await.text(), "other", "round {round}");
        tokio::time::sleep(millis(200)).await;
    }
    let mut shaken = authority.client().over(tcp(&encrypted).await, "one.example").await.expect("TLS");
    shaken.send(GET.replace("/x", "/other")).await;
    assert_eq!(shaken.response().await.text(), "other");
    drop(shaken);

    let metrics = proxy.metrics().await;
    let open = |kind| metrics.sum("steadfast_open_connections", &[("kind", kind)]) as usize;
    assert_eq!((open("websocket"), open("sse")), (WEBSOCKETS, STREAMS));
    let whole = traffic.end().await;
    assert!(whole.messages > 10_000, "only {} messages", whole.messages);
    let longest = whole.latencies.last().expect("there were messages");
    assert!(*longest < seconds(5), "a message has taken {longest:?}");
    drop(whole.ends);
    proxy.settles_empty().await;
    drop(connect(proxy.address()).await);
}

async fn tcp(address: &str) -> tokio::net::TcpStream {
    tokio::net::TcpStream::connect(address).await.expect("the proxy listens")
}

//! Servers behind a name, as a real name server tells of them.

use std::net::SocketAddr;

use crate::harness::dns::NameServer;
use crate::harness::proxy::BINARY;
use crate::harness::upstream::ok;
use crate::harness::websocket::{frame, masked_frame, next_frame, open_on};
use crate::harness::{Proxy, ServerEntry, Upstream, keyed, soon};

const KEYS: usize = 150;
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const NAMES: [&str; 3] = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];

/// A listening socket at each of [`NAMES`], all at one port.
fn listeners() -> [std::net::TcpListener; 3] {
    let bind = |address: (&str, u16)| std::net::TcpListener::bind(address);
    loop {
        let first = bind((NAMES[0], 0)).expect("a free port");
        let port = first.local_addr().expect("it is bound").port();
        // Somebody else may have the port there.
        if let (Ok(second), Ok(third)) = (bind((NAMES[1], port)), bind((NAMES[2], port))) {
            return [first, second, third];
        }
    }
}

/// Answers every request with its name.
fn naming(listener: std::net::TcpListener, name: &'static str) -> Upstream {
    Upstream::listening(listener).serve(move |mut wire| async move {
        while wire.next_request().await.is_some() {
            wire.send(ok(name)).await;
        }
    })
}

fn servers() -> [Upstream; 3] {
    let [a, b, c] = listeners();
    [naming(a, NAMES[0]), naming(b, NAMES[1]), naming(c, NAMES[2])]
}

/// A proxy that asks `names` for `chat.test` all the time.
async fn proxy(names: &NameServer, at: SocketAddr, more: (&str, &str)) -> Proxy {
    let servers = format!("{{ dns: \"chat.test:{}\", refresh: 100ms }}", at.port());
    let setup = Proxy::start().line(&names.resolver()).upstream_of("chat", &servers);
    setup.affinity("[{ header: X-Key }]").of_upstream(more.0, more.1).run().await
}

const NOTHING: (&str, &str) = ("slow_start", "off");

/// The server that each key leads to.
async fn owners(proxy: &Proxy) -> Vec<String> {
    let mut wire = proxy.connect().await;
    let mut owners = Vec::new();
    for number in 0..KEYS {
        owners.push(keyed(&mut wire, &format!("client-{number}")).await.text());
    }
    owners
}

#[tokio::test]
async fn servers_join_and_leave_and_only_their_keys_move() {
    let servers = servers();
    let mut names = NameServer::start(&NAMES[..2]).await;
    let proxy = proxy(&names, servers[0].address(), NOTHING).await;
    let before = owners(&proxy).await;
    assert!(NAMES[..2].iter().all(|name| before.iter().any(|owner| owner == name)), "{before:?}");
    for _ in 0..2 {
        names.has("chat.test.", &[NAMES[2], NAMES[1], NAMES[0]]);
        proxy.heard("chat.test").await;
        proxy.settles("steadfast_server_up", &[], 3.0).await;
        let grown = owners(&proxy).await;
        let moved: Vec<_> = before.iter().zip(&grown).filter(|(before, now)| before != now).collect();
        assert!(!moved.is_empty() && moved.iter().all(|(_, now)| *now == NAMES[2]), "{moved:?}");
        names.has("chat.test.", &[NAMES[1], NAMES[0]]);
        proxy.settles("steadfast_server_up", &[], 2.0).await;
        assert_eq!(owners(&proxy).await, before, "and back");
    }
    let said = proxy.said().join("\n");
    for part in ["has 2 server(s): added 127.0.0.1:", "has 3 server(s): added 127.0.0.3:", "removed 127.0.0.3:"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
}

#[tokio::test]
async fn what_is_open_stays_when_its_server_is_found_no_more() {
    let [a, b, _c] = listeners();
    let (a, b) = (Upstream::listening(a), naming(b, NAMES[1]));
    let mut names = NameServer::start(&NAMES[..1]).await;
    let proxy = proxy(&names, b.address(), NOTHING).await;
    let (mut client, mut server) = open_on(proxy.connect().await, &a).await;
    names.has("chat.test.", &NAMES[1..2]);
    proxy.heard("removed 127.0.0.1:").await;
    proxy.heard("found now are in force").await;
    assert_eq!(proxy.exchange(GET).await.text(), NAMES[1]);
    client.send(masked_frame("up")).await;
    server.until(&masked_frame("up")).await;
    server.send(frame("down")).await;
    assert_eq!(next_frame(&mut client).await, (0x81, b"down".to_vec()));
    // And it is the same one when it is back.
    names.has("chat.test.", &NAMES[..2]);
    proxy.heard("has 2 server(s)").await;
    proxy.settles("steadfast_open_connections", &[("kind", "websocket")], 1.0).await;
    drop((client, server));
    proxy.settles_empty().await;
}

#[tokio::test]
async fn an_answer_that_is_none_changes_nothing() {
    let servers = servers();
    let mut names = NameServer::start(&NAMES).await;
    let proxy = proxy(&names, servers[0].address(), NOTHING).await;
    let before = owners(&proxy).await;
    for (mood, part) in [
        ("SERVFAIL", "Server Failure"),
        ("REFUSED", "Query Refused"),
        ("NXDOMAIN", "the answer has no address"),
        ("silent", "no answer within 5s"),
    ] {
        names.is(mood);
        proxy.settles("steadfast_discovery_failing", &[("upstream", "chat")], 1.0).await;
        assert_eq!(owners(&proxy).await, before, "{mood}");
        let line = proxy.heard(part).await;
        assert!(line.contains("the 3 server(s) found before stay"), "{line}");
        let answer = proxy.reload(&[("refresh: 100ms", "refresh: 110ms")]).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(owners(&proxy).await, before, "another configuration, {mood}");
        proxy.reload(&[("refresh: 110ms", "refresh: 100ms")]).await;
        names.is("well");
        proxy.settles("steadfast_discovery_failing", &[("upstream", "chat")], 0.0).await;
    }
    names.has("chat.test.", &[]);
    proxy.settles("steadfast_discovery_failing", &[("upstream", "chat")], 1.0).await;
    assert_eq!(owners(&proxy).await, before, "an empty answer");
    names.has("chat.test.", &NAMES[..1]);
    proxy.settles("steadfast_server_up", &[], 1.0).await;
    assert_eq!(proxy.exchange(GET).await.text(), NAMES[0]);
}

#[tokio::test]
async fn services_are_found_with_their_ports_and_weights() {
    let (a, b, spare) = (Upstream::named("a").await, Upstream::named("b").await, Upstream::named("spare").await);
    let mut names = NameServer::start(&[]).await;
    names.has("node.test.", &["127.0.0.1"]);
    let port = |server: &Upstream| server.address().port();
    names.serves(
        "_http._tcp.chat.test.",
        &[(1, 50, port(&a), "node.test."), (1, 100, port(&b), "node.test."), (2, 1, port(&spare), "node.test.")],
    );
    let setup = Proxy::start().line(&names.resolver());
    let setup = setup.upstream_of("chat", "{ srv: _http._tcp.chat.test, refresh: 100ms }");
    let proxy = setup.balance("{ keyless: round_robin }").affinity("[{ header: X-Key }]").run().await;
    let mut wire = proxy.connect().await;
    let mut served = Vec::new();
    for _ in 0..6 {
        wire.send(GET).await;
        served.push(wire.response().await.text());
    }
    let count = |name: &str| served.iter().filter(|served| *served == name).count();
    assert_eq!((count("a"), count("b"), count("spare")), (2, 4, 0), "{served:?}");
    names.serves("_http._tcp.chat.test.", &[(2, 1, port(&spare), "node.test.")]);
    proxy.settles("steadfast_server_up", &[], 1.0).await;
    assert_eq!(proxy.exchange(GET).await.text(), "spare");
}

#[tokio::test]
async fn the_start_waits_for_an_answer_but_not_for_ever() {
    let servers = servers();
    let mut names = NameServer::start(&NAMES).await;
    names.is("silent");
    let proxy = proxy(&names, servers[0].address(), NOTHING).await;
    proxy.heard("starting without").await;
    assert_eq!(proxy.exchange(GET).await.status(), 502);
    names.is("well");
    proxy.settles("steadfast_server_up", &[], 3.0).await;
    assert_eq!(proxy.exchange(GET).await.status(), 200);
}

#[tokio::test]
async fn who_joins_others_warms_up_and_the_first_ones_do_not() {
    let servers = servers();
    let mut names = NameServer::start(&NAMES[..2]).await;
    let proxy = proxy(&names, servers[0].address(), ("slow_start", "1h")).await;
    let before = owners(&proxy).await;
    for name in &NAMES[..2] {
        assert!(before.iter().filter(|owner| owner == name).count() > KEYS / 5, "{name}: {before:?}");
    }
    names.has("chat.test.", &NAMES);
    proxy.settles("steadfast_server_up", &[], 3.0).await;
    let joined = owners(&proxy).await.iter().filter(|owner| *owner == NAMES[2]).count();
    assert!(joined < KEYS / 20, "{joined} of {KEYS} with the new one");
}

/// What explains a request asks for names as the proxy does.
#[tokio::test]
async fn servers_that_are_found_are_explained() {
    let servers = servers();
    let names = NameServer::start(&NAMES).await;
    let proxy = proxy(&names, servers[0].address(), NOTHING).await;
    let owner = keyed(&mut proxy.connect().await, "client-7").await.text();
    let mut explain = tokio::process::Command::new(BINARY);
    explain.args(["explain", "-H", "X-Key: client-7", "/", "-c"]).arg(proxy.file());
    let output = soon("an explanation", explain.output()).await.expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().find(|line| line.starts_with("server 1")).unwrap_or_else(|| panic!("{output:?}"));
    assert!(first.contains(&format!("{owner}:{}", servers[0].address().port())), "{owner} leads in:\n{text}");
    assert_eq!(text.matches("\nserver ").count(), 3, "{text}");
}

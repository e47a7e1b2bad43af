//! Another configuration while everything goes on: what it changes, and that nobody notices but those
//! whom it is about.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::proxy::{BINARY, connect};
use crate::harness::relay::open_events;
use crate::harness::tls::listening;
use crate::harness::websocket::{self, frame, masked_frame, next_frame};
use crate::harness::{Authority, InState, Named, Proxy, ServerEntry, Upstream, soon};

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// An address that nobody listens on.
async fn free_address() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}

#[tokio::test]
async fn routes_servers_and_time_outs_change_and_no_connection_is_touched() {
    let (a, b, c) = (Upstream::start().await, Upstream::named("b").await, Upstream::named("c").await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&a, "a")])
        .upstream("news", &[&Named(&b, "b")])
        .route("{ path: /news, upstream: news }")
        .route("{ upstream: chat }")
        .run()
        .await;
    let (mut client, mut server) = websocket::open(&proxy, &a).await;
    let (mut reader, mut events) = open_events(&proxy, &a).await;
    let mut kept = proxy.send("GET /news HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(kept.response().await.text(), "b");

    let (from, to) =
        (format!("\"{}\", weight: 1, name: a", a.address()), format!("\"{}\", weight: 1, name: c", c.address()));
    let answer = proxy.reload(&[(&from, &to), ("/news, upstream: news", "/other, upstream: news")]).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let changes = [
        "routes: { path: /news, upstream: news } removed",
        "routes: { path: /other, upstream: news } added",
        "upstreams.chat.servers: a removed",
        "upstreams.chat.servers: c added",
    ];
    assert_eq!(answer.json(), json!({ "changes": changes }));

    // A connection that was there finds what is in force now, as a new one does.
    kept.send(GET).await;
    assert_eq!(kept.response().await.text(), "c");
    assert_eq!(proxy.exchange("GET /news HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "c");
    assert_eq!(proxy.exchange("GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "b");
    // Whoever is with the server that is gone stays with it.
    client.send(masked_frame("up")).await;
    server.until(&masked_frame("up")).await;
    server.send(frame("down")).await;
    assert_eq!(next_frame(&mut client).await, (0x81, b"down".to_vec()));
    events.send("5\r\nd:1\n\n\r\n").await;
    reader.until(b"d:1\n\n").await;
    let open = |server| [("server", server), ("upstream", "chat")];
    assert_eq!(proxy.metrics().await.sum("steadfast_open_connections", &open("a")), 2.0);
    drop((client, reader, server, events, kept));
    proxy.settles_empty().await;
    // What nobody is connected to any more is not shown either.
    let text = proxy.admin("/metrics").await.text();
    assert!(!text.contains("server=\"a\""), "{text}");
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_says_why() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let taken = Upstream::start().await;
    let listener = format!("listeners: [{{ bind: \"{}\" }}, ", taken.address());
    for (change, part) in [
        (("routes:", "rutes:"), "did you mean \"routes\"?"),
        (("listeners: [", listener.as_str()), "cannot listen on"),
        (("access_log: { path: stdout", "access_log: { path: /nowhere/at/all"), "cannot open the access log"),
    ] {
        let answer = proxy.reload(&[change]).await;
        assert_eq!(answer.status(), 422, "{}", answer.text());
        let mistakes = answer.json()["mistakes"].clone();
        let lines = mistakes.as_array().expect("a list of lines").iter().filter_map(Value::as_str);
        assert!(lines.clone().any(|line| line.contains(part)), "{mistakes}");
        proxy.heard("refused, nothing has changed").await;
        assert_eq!(proxy.exchange(GET).await.text(), "a");
        proxy.rewrite(&[(change.1, change.0)]);
    }
    assert_eq!(proxy.reload(&[]).await.json(), json!({ "changes": [] }));
    let count = async |result| proxy.metrics().await.sum("steadfast_reloads_total", &[("result", result)]);
    assert_eq!((count("refused").await, count("ok").await), (3.0, 1.0));
}

#[tokio::test]
async fn listeners_come_and_go() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let address = free_address().await;
    let (one, two) = ("listeners: [".to_owned(), format!("listeners: [{{ bind: \"{address}\" }}, "));
    for _ in 0..3 {
        assert_eq!(proxy.reload(&[(&one, &two)]).await.status(), 200);
        let mut client = connect(address.parse().expect("an address")).await;
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "a");
        assert_eq!(proxy.reload(&[(&two, &one)]).await.status(), 200);
        let gone = async {
            while tokio::net::TcpStream::connect(&address).await.is_ok() {
                tokio::time::sleep(crate::harness::millis(10)).await;
            }
        };
        soon("nobody to listen there", gone).await;
        // Who came in before is served on.
        client.send(GET).await;
        assert_eq!(client.response().await.text(), "a");
    }
    assert_eq!(proxy.exchange(GET).await.text(), "a");
}

#[tokio::test]
async fn certificates_are_read_again() {
    let authority = Authority::new();
    let (old, new) = (authority.vouch_for(&["old.example"]), authority.vouch_for(&["new.example"]));
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().listening(&listening(&[&old])).upstream("chat", &[&server]).run().await;
    let client = authority.client();
    let mut before = client.connect(&proxy, "old.example").await;
    assert!(client.try_connect(proxy.address(), "new.example").await.is_err());
    for (from, to) in [(&new.cert, &old.cert), (&new.key, &old.key)] {
        std::fs::copy(from, to).expect("the files are ours");
    }
    // With anything wrong beside them they are not shown.
    let taken = Upstream::start().await;
    let listener = format!("}}, {{ bind: \"{}\" }}]\nadmin:", taken.address());
    assert_eq!(proxy.reload(&[("}]\nadmin:", &listener)]).await.status(), 422);
    assert!(client.try_connect(proxy.address(), "new.example").await.is_err());
    proxy.rewrite(&[(&listener, "}]\nadmin:")]);
    proxy.hang_up();
    proxy.heard("SIGHUP: another configuration is in force").await;
    let mut after = client.connect(&proxy, "new.example").await;
    assert!(client.try_connect(proxy.address(), "old.example").await.is_err());
    for wire in [&mut before, &mut after] {
        wire.send(GET).await;
        assert_eq!(wire.response().await.text(), "a");
    }
}

#[tokio::test]
async fn states_and_weights_change_on_the_servers_that_there_are() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let proxy = Proxy::start()
        .upstream("chat", &[&InState(&Named(&a, "a"), "ready"), &Named(&b, "b")])
        .balance("{ keyless: round_robin }")
        .affinity("[{ header: X-None }]")
        .run()
        .await;
    let served = async || {
        let mut wire = proxy.connect().await;
        let mut served = Vec::new();
        for _ in 0..6 {
            wire.send(GET).await;
            served.push(wire.response().await.text());
        }
        (served.iter().filter(|name| *name == "a").count(), served.iter().filter(|name| *name == "b").count())
    };
    assert_eq!(served().await, (3, 3));
    proxy.reload(&[("state: ready", "state: drain")]).await;
    assert_eq!(served().await, (0, 6));
    proxy.reload(&[("state: drain", "state: ready"), ("weight: 1, name: a", "weight: 2, name: a")]).await;
    assert_eq!(served().await, (4, 2));
}

#[tokio::test]
async fn the_access_log_moves_and_can_be_rotated() {
    let server = Upstream::named("a").await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    let lines = async |name: &'static str, count: usize| {
        let file = path(name);
        let written = async {
            while std::fs::read_to_string(&file).unwrap_or_default().lines().count() < count {
                tokio::time::sleep(crate::harness::millis(10)).await;
            }
        };
        soon("the lines", written).await;
    };
    let log = format!("{{ path: {}, format: json }}", path("log").display());
    let proxy = Proxy::start().upstream("chat", &[&server]).access_log(&log).run().await;
    proxy.exchange(GET).await;
    lines("log", 1).await;
    std::fs::rename(path("log"), path("log.1")).expect("the file is ours");
    proxy.reload(&[]).await;
    proxy.exchange(GET).await;
    lines("log", 1).await;
    lines("log.1", 1).await;
    proxy.reload(&[("/log, format: json", "/other, format: combined")]).await;
    proxy.exchange(GET).await;
    lines("other", 1).await;
    lines("log", 1).await;
}

#[tokio::test]
async fn the_command_reloads_and_a_page_of_another_site_does_not() {
    let server = Upstream::named("a").await;
    let admin = free_address().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    // The command finds the proxy by the address in the file.
    let before = "admin: { bind: \"127.0.0.1:0\" }";
    assert_eq!(proxy.reload(&[(before, &format!("admin: {{ bind: \"{admin}\" }}"))]).await.status(), 200);
    proxy.heard(&format!("admin on {admin}")).await;
    let run = async || {
        let (file, binary) = (proxy.file().to_owned(), BINARY);
        let command = move || Command::new(binary).args(["reload", "-c"]).arg(file).stdin(Stdio::null()).output();
        let output = soon("the command", tokio::task::spawn_blocking(command)).await.expect("it does not panic");
        let output = output.expect("it starts");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    assert_eq!(run().await, (Some(0), "nothing has changed\n".to_owned()));
    proxy.rewrite(&[("threads: 2", "threads: 3")]);
    let (code, text) = run().await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("threads: stays 2 until"), "{text}");
    proxy.rewrite(&[("upstream: chat", "upstream: chut")]);
    let (code, text) = run().await;
    assert_eq!(code, Some(2), "{text}");

    let mut page = connect(admin.parse().expect("an address")).await;
    page.send(format!(
        "POST /api/v1/reload HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    ))
    .await;
    assert_eq!(page.response().await.status(), 403);
}

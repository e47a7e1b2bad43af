//! Everything goes over to the next process, and nobody notices: no connection and no message is lost,
//! no byte counted twice, and whatever fails, the old process goes on with all of it.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use steadfast::handover::message::{FromNew, FromOld, VERSION};
use steadfast::handover::{Broken, Channel, Hello, new};
use tokio::net::UnixStream;

use crate::harness::process::Process;
use crate::harness::proxy::BINARY;
use crate::harness::relay::{open_events, open_tunnel};
use crate::harness::tls::listening;
use crate::harness::websocket::{self, frame, masked, masked_frame, next_frame};
use crate::harness::{Authority, Named, Proxy, Sequences, Upstream, millis, seconds, soon};

/// Where the next process asks.
const HAND_OVER: &str = "hand_over: { socket: DIRECTORY/hand-over.sock }";

/// How long an old process may still be there.
const GONE_WITHIN: Duration = seconds(2);

/// The lines of the access log that tell of relays.
fn relays_in(log: &[String]) -> Vec<Value> {
    let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["kind"] != "http").collect()
}

#[tokio::test]
async fn traffic_goes_on_through_five_processes() {
    const WEBSOCKETS: usize = 500;
    const STREAMS: usize = 200;
    let server = Upstream::start().await;
    let mut proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]).run().await;
    let traffic = Sequences::begin(&proxy, &server, (WEBSOCKETS, STREAMS), millis(100)).await;
    let mut log = Vec::new();
    let mut ids = None;
    for _ in 0..4 {
        tokio::time::sleep(millis(300)).await;
        let mut old = proxy.hand_over().await;
        assert!(old.exit_within(GONE_WITHIN).await.success());
        log.extend(old.stdout());
        let relays = proxy.relays_once(WEBSOCKETS + STREAMS, "limit=1000").await;
        let found: HashSet<_> = relays["relays"].as_array().unwrap().iter().map(|it| it["id"].as_u64()).collect();
        assert_eq!(ids.get_or_insert(found.clone()), &found, "every relay keeps its id");
        let metrics = proxy.metrics().await;
        let open = |kind| metrics.sum("steadfast_open_connections", &[("kind", kind)]) as usize;
        assert_eq!((open("websocket"), open("sse"), open("http")), (WEBSOCKETS, STREAMS, 0));
        assert_eq!(metrics.sum("steadfast_client_connections", &[]) as usize, WEBSOCKETS + STREAMS);
        let taken = metrics.sum("steadfast_relays_handed_over_total", &[("direction", "taken")]);
        assert_eq!(taken as usize, WEBSOCKETS + STREAMS);
    }
    assert!(relays_in(&log).is_empty(), "no relay has ended");
    let whole = traffic.end().await;
    assert!(whole.messages > 10_000, "only {} messages", whole.messages);
    let longest = whole.latencies.last().expect("there are messages");
    assert!(*longest < seconds(5), "a message has taken {longest:?}");
    drop(whole.ends);
    proxy.settles_empty().await;
    proxy.terminate();
    assert!(proxy.process().exit().await.success());
    log.extend(proxy.log());
    let relays = relays_in(&log);
    assert_eq!(relays.len(), WEBSOCKETS + STREAMS, "one line each");
    for relay in relays {
        // The time and the bytes of all processes.
        assert!(relay["duration_ms"].as_u64() > Some(1200), "{relay}");
        assert!(relay["bytes_out"].as_u64() > Some(100), "{relay}");
        assert_eq!(relay["upstream"], "chat", "{relay}");
        assert_eq!(relay["client"], "127.0.0.1", "{relay}");
    }
}

#[tokio::test]
async fn whoever_comes_meanwhile_is_served() {
    let server = Upstream::named("a").await;
    let mut proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]).run().await;
    let address = proxy.address();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let mut served = 0;
                while !*stopped.borrow() {
                    let mut client = crate::harness::proxy::connect(address).await;
                    client.send("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
                    assert_eq!(client.response().await.text(), "a");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for _ in 0..3 {
        tokio::time::sleep(millis(100)).await;
        let mut old = proxy.hand_over().await;
        assert!(old.exit_within(GONE_WITHIN).await.success());
    }
    stop.send_replace(true);
    for visitor in visitors {
        assert!(visitor.await.expect("every visitor is served") > 10);
    }
}

#[tokio::test]
async fn a_slow_reader_gets_every_byte_and_half_a_frame_its_other_half() {
    let server = Upstream::start().await;
    let setup = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]);
    let mut proxy = setup.sse("{ keepalive: off }").run().await;
    let (slow, events) = {
        let mut client = proxy.connect_narrow().await;
        client.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut upstream = server.accept().await;
        upstream.request().await;
        upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
        assert_eq!(client.head().await.status(), 200);
        (client, upstream)
    };
    let (_unread, mut to_slow) = events.split();
    let (mut reading, _writing) = slow.split();
    let stream: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let sent = to_slow.send_until_stopped(&stream, millis(300)).await;
    assert!(sent < stream.len(), "the reader is not slow");

    let (mut client, mut upstream) = websocket::open(&proxy, &server).await;
    let (mut tunneler, mut tunneled) = open_tunnel(&proxy, &server).await;
    upstream.send(&frame("a message")[..5]).await;
    client.exactly(5).await;

    let mut old = proxy.hand_over().await;
    assert!(old.exit_within(GONE_WITHIN).await.success());
    upstream.send(&frame("a message")[5..]).await;
    client.exactly(6).await;
    tunneler.send("any bytes").await;
    tunneled.until(b"any bytes").await;

    let rest = stream[sent..].to_vec();
    let sending = tokio::spawn(async move {
        to_slow.send(rest).await;
        to_slow
    });
    let mut came = Vec::new();
    while came.len() < stream.len() {
        // Chunks of any size, each with its frame.
        let size = reading.until(b"\r\n").await;
        let size = std::str::from_utf8(&size).expect("digits").trim_end();
        let size = usize::from_str_radix(size, 16).expect("a size");
        came.extend(reading.exactly(size).await);
        reading.exactly(2).await;
        reading.forget();
    }
    assert!(came == stream, "bytes differ");
    drop(sending.await);
}

#[tokio::test]
async fn comments_and_pings_go_on() {
    let server = Upstream::start().await;
    let setup = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]);
    let mut proxy =
        setup.sse("{ keepalive: 1s, comment: still }").websocket("{ ping: 1s, pong_timeout: 2s }").run().await;
    let (mut reader, mut events) = open_events(&proxy, &server).await;
    let (mut client, mut upstream) = websocket::open(&proxy, &server).await;
    let (first, mark) = next_frame(&mut client).await;
    assert_eq!(first, 0x89);
    // The answer comes in two halves, one to each process: it is still the proxy's own.
    let pong = masked(0x8A, &mark, [1, 2, 3, 4]);
    client.send(&pong[..7]).await;
    tokio::time::sleep(millis(50)).await;
    let mut old = proxy.hand_over().await;
    client.send(&pong[7..]).await;
    client.send(masked_frame("mine")).await;
    assert_eq!(next_frame(&mut upstream).await, (0x81, b"mine".to_vec()));
    assert!(old.exit_within(GONE_WITHIN).await.success());
    for _ in 0..2 {
        let (first, again) = next_frame(&mut client).await;
        assert_eq!((first, &again), (0x89, &mark), "the Ping is the same relay's");
        client.send(masked(0x8A, &again, [9; 4])).await;
        reader.until(b":still\n").await;
    }
    events.send("5\r\nd:1\n\n\r\n").await;
    reader.until(b"d:1\n\n").await;
    // Who answers no Ping of the new process is gone for it.
    client.rest().await;
    assert_eq!(proxy.logged_path("/ws").await["end_reason"], "peer_gone");
}

#[tokio::test]
async fn what_cannot_go_is_finished_by_the_old_process() {
    let authority = Authority::new();
    let vouched = authority.vouch_for(&["a.example"]);
    let server = Upstream::start().await;
    let mut proxy =
        Proxy::start().listening(&listening(&[&vouched])).line(HAND_OVER).upstream("chat", &[&server]).run().await;
    let encrypted = authority.client().connect(&proxy, "a.example").await;
    let (mut client, mut upstream) = websocket::open_on(encrypted, &server).await;
    let mut asking = authority.client().connect(&proxy, "a.example").await;
    asking.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut answering = server.accept().await;
    answering.request().await;

    let mut old = proxy.hand_over().await;
    client.send(masked_frame("on")).await;
    assert_eq!(next_frame(&mut upstream).await, (0x81, b"on".to_vec()));
    answering.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(asking.response().await.text(), "done");
    let (first, payload) = next_frame(&mut client).await;
    assert_eq!((first, &payload[..2]), (0x88, &1012_u16.to_be_bytes()[..]));
    client.send(masked(0x88, &payload[..2], [0; 4])).await;
    assert_eq!(next_frame(&mut upstream).await.0, 0x88);
    upstream.send(websocket::short(0x88, &1001_u16.to_be_bytes())).await;
    assert!(old.exit_within(GONE_WITHIN).await.success());
    let log = relays_in(&old.stdout());
    assert_eq!((log.len(), &log[0]["end_reason"]), (1, &Value::from("shutdown")));
    // And the new one serves who comes.
    let encrypted = authority.client().connect(&proxy, "a.example").await;
    websocket::open_on(encrypted, &server).await;
}

#[tokio::test]
async fn a_relay_whose_server_is_no_longer_configured_lives_on() {
    let (before, after) = (Upstream::start().await, Upstream::named("after").await);
    let mut proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&Named(&before, "before")]).run().await;
    let (mut client, mut upstream) = websocket::open(&proxy, &before).await;
    let (from, to) = (
        format!("\"{}\", weight: 1, name: before", crate::harness::ServerEntry::address(&before)),
        format!("\"{}\", weight: 1, name: after", crate::harness::ServerEntry::address(&after)),
    );
    proxy.rewrite(&[(&from, &to), ("  chat:", "  news:"), ("upstream: chat", "upstream: news")]);
    let mut old = proxy.hand_over().await;
    assert!(old.exit_within(GONE_WITHIN).await.success());
    client.send(masked_frame("up")).await;
    assert_eq!(next_frame(&mut upstream).await, (0x81, b"up".to_vec()));
    let answer = proxy.exchange("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(answer.text(), "after");
    let labels = [("upstream", "chat"), ("server", "before"), ("kind", "websocket")];
    assert_eq!(proxy.metrics().await.sum("steadfast_open_connections", &labels), 1.0);
    drop((client, upstream));
    let line = proxy.logged_path("/ws").await;
    assert_eq!((&line["upstream"], &line["server"]), (&Value::from("chat"), &Value::from("before")));
    proxy.settles_empty().await;
    assert!(!proxy.admin("/metrics").await.text().contains("server=\"before\""), "its series are gone as well");
}

/// A next process that is played by the test, and has said hello.
async fn knock(directory: &Path) -> Channel {
    let stream = UnixStream::connect(directory.join("hand-over.sock")).await.expect("somebody listens there");
    Channel::new(stream).expect("it is our own process")
}

const FAKE: Hello = Hello { version: VERSION, pid: 1 };

/// Where a next process may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Connected,
    Greeted,
    Told,
    Ready,
    Relays,
    Took,
    Adopted,
}

/// Plays a next process up to `step`, and is gone.
async fn die_at(step: Step, directory: &Path) {
    const ANSWER: Duration = seconds(5);
    let mut channel = knock(directory).await;
    if step == Step::Connected {
        return;
    }
    channel.greet(FAKE).await.expect("it greets");
    if step == Step::Greeted {
        return;
    }
    let mut listening = Vec::new();
    loop {
        let (message, descriptors) = channel.receive(ANSWER).await.expect("it goes on");
        match message {
            FromOld::Knows(_) => {}
            FromOld::Sockets { sockets, is_last } => {
                assert_eq!(sockets.len(), descriptors.len());
                listening.extend(sockets.iter().map(|socket| socket.address));
                if is_last {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    if step == Step::Told {
        return;
    }
    channel.send(&FromNew::Ready(listening), &[]).await.expect("it listens");
    if step == Step::Ready {
        return;
    }
    let (mut held, mut count) = (Vec::new(), 0);
    loop {
        let (message, descriptors) = channel.receive(ANSWER).await.expect("it goes on");
        held.push(descriptors); // As a process that has everything.
        match message {
            FromOld::Relays(states) => count += u32::try_from(states.len()).expect("it is small"),
            FromOld::All(all) => {
                assert_eq!(all, count);
                break;
            }
            other => panic!("{other:?}"),
        }
        if step == Step::Relays {
            return;
        }
        channel.send(&FromNew::Took { refused: Vec::new() }, &[]).await.expect("it listens");
        if step == Step::Took {
            return;
        }
    }
    channel.send(&FromNew::Adopted(count + 1), &[]).await.expect("it listens");
    let last = channel.receive::<FromOld>(ANSWER).await.expect("it says why not").0;
    assert!(matches!(last, FromOld::Failed(_)), "{last:?}");
}

#[tokio::test]
async fn wherever_the_next_process_dies_everything_stays_with_the_old_one() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]).run().await;
    let mut traffic = Sequences::begin(&proxy, &server, (200, 50), millis(20)).await;
    let said = |proxy: &Proxy| proxy.said().iter().filter(|line| line.contains("going on as before")).count();
    let steps = [Step::Connected, Step::Greeted, Step::Told, Step::Ready, Step::Relays, Step::Took, Step::Adopted];
    for (nth, step) in steps.into_iter().enumerate() {
        die_at(step, proxy.directory()).await;
        let heard = async {
            while said(&proxy) <= nth {
                tokio::time::sleep(millis(10)).await;
            }
        };
        soon("the old process to say that it goes on", heard).await;
        // New connections find it as well.
        let (client, upstream) = websocket::open(&proxy, &server).await;
        traffic.add_websocket(client, upstream);
    }
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("steadfast_open_connections", &[]) as usize, 250 + steps.len());
    assert_eq!(metrics.sum("steadfast_relays_handed_over_total", &[]), 0.0);
    proxy.settles("steadfast_hand_overs_failed_total", &[], steps.len() as f64).await;
    let whole = traffic.end().await;
    assert!(relays_in(&proxy.log()).is_empty());
    drop(whole.ends);
    proxy.settles_empty().await;
    assert_eq!(relays_in(&proxy.log()).len(), 250 + steps.len());
}

#[tokio::test]
async fn another_version_is_refused_on_both_sides() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]).run().await;
    let mode = std::fs::metadata(proxy.directory().join("hand-over.sock")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let later = Hello { version: VERSION + 1, pid: 1 };
    let error = new::ask(knock(proxy.directory()).await, later).await.map(drop).expect_err("it is another version");
    assert!(matches!(error, Broken::Version { theirs: VERSION, .. }), "{error}");
    proxy.heard(&format!("process 1 speaks version {} of the hand-over", VERSION + 1)).await;
    // What is none of ours at all.
    use tokio::io::AsyncWriteExt;
    let mut stranger = UnixStream::connect(proxy.directory().join("hand-over.sock")).await.expect("it listens");
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    proxy.heard("what answers is no Steadfast").await;
    assert_eq!(proxy.exchange("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await.text(), "a");
}

/// A next process with so many descriptors.
fn start_next_with(descriptors: usize, proxy: &Proxy) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""), BINARY]);
    command.args(["run", "--take-over", "-c"]).arg(proxy.file()).stdin(Stdio::null()).env("NO_COLOR", "1");
    Process::start(command)
}

#[tokio::test]
async fn a_next_process_that_cannot_take_everything_takes_nothing() {
    let server = Upstream::start().await;
    let mut proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]).run().await;
    let traffic = Sequences::begin(&proxy, &server, (150, 0), millis(20)).await;
    // Enough to start, and for some of the relays.
    let mut next = start_next_with(160, &proxy);
    assert!(!next.exit().await.success());
    let why = next.stderr().join("\n");
    assert!(why.contains("is the limit of open files too low?"), "{why}");
    proxy.heard("going on as before: the other process gives up").await;

    // Nor does one whose configuration is wrong, or who cannot bind what is new in it.
    let taken = Upstream::start().await;
    let listener = format!("listeners: [{{ bind: \"{}\" }}, ", crate::harness::ServerEntry::address(&taken));
    for (from, to, why) in
        [("routes:", "rutes:", "did you mean"), ("listeners: [", listener.as_str(), "cannot listen on")]
    {
        proxy.rewrite(&[(from, to)]);
        let mut next = proxy.start_next();
        assert!(!next.exit().await.success());
        let said = next.stderr().join("\n");
        assert!(said.contains(why), "{said}");
        proxy.rewrite(&[(to, from)]);
    }
    proxy.heard("the other process gives up: cannot listen on").await;

    let mut old = proxy.hand_over().await;
    assert!(old.exit_within(GONE_WITHIN).await.success());
    traffic.end().await;
}

#[tokio::test]
async fn sigusr2_starts_what_stands_at_its_place_now() {
    let server = Upstream::start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let binary = directory.path().join("steadfast");
    std::fs::copy(BINARY, &binary).expect("it can be copied");
    let mut proxy = Proxy::start().upstream("chat", &[&server]).binary(&binary).run().await;
    let traffic = Sequences::begin(&proxy, &server, (50, 20), millis(20)).await;
    let before = proxy.process().id();
    for broken in ["#!/bin/sh\nexit 3\n", "no program at all"] {
        std::fs::remove_file(&binary).expect("it is there");
        std::fs::write(&binary, broken).expect("the directory is ours");
        std::fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).expect("it is ours");
        proxy.process().signal_user_2();
        let part =
            if broken.starts_with('#') { "has ended with exit status: 3" } else { "cannot start the next process" };
        proxy.heard(part).await;
        assert_eq!(proxy.admin("/healthz").await.text(), "ok\n");
    }
    proxy.settles("steadfast_hand_overs_failed_total", &[], 2.0).await;
    std::fs::remove_file(&binary).expect("it is there");
    std::fs::copy(BINARY, &binary).expect("it can be copied");
    proxy.process().signal_user_2();
    // The next one speaks through the pipes of the one before.
    proxy.heard("took over 70 relays").await;
    let gone = async {
        while !proxy.process().has_ended() {
            tokio::time::sleep(millis(10)).await;
        }
    };
    tokio::time::timeout(GONE_WITHIN, gone).await.expect("the old process ends");
    let heard = proxy.heard("goes on; what could not go may finish here").await;
    let pid: u32 = heard.split_whitespace().skip_while(|word| *word != "process").nth(1).unwrap().parse().unwrap();
    assert_ne!(pid, before);
    let whole = traffic.end().await;
    drop(whole.ends);
    proxy.settles_empty().await;
    // It is nobody's child here, and has to be told by its number.
    Process::terminate_other(pid);
    proxy.heard("SIGTERM: stopping").await;
}

#[tokio::test]
async fn a_supervisor_stays_and_follows() {
    let server = Upstream::start().await;
    let mut proxy = Proxy::start().upstream("chat", &[&server]).supervised().run().await;
    let supervisor = proxy.process().id();
    let traffic = Sequences::begin(&proxy, &server, (20, 10), millis(20)).await;
    for nth in 1..=2 {
        let before = proxy.process().children();
        proxy.process().signal_user_2();
        let followed = async {
            loop {
                let now = proxy.process().children();
                if now.len() == 1 && now != before {
                    return;
                }
                tokio::time::sleep(millis(10)).await;
            }
        };
        soon("one process to follow the other", followed).await;
        let count = proxy.said().iter().filter(|line| line.contains("took over 30 relays")).count();
        assert_eq!(count, nth);
    }
    let changes = proxy.reload(&[("threads: 2", "threads: 3")]).await;
    assert_eq!(changes.status(), 200);
    let whole = traffic.end().await;
    drop(whole.ends);
    proxy.settles_empty().await;
    assert_eq!(proxy.process().id(), supervisor);
    proxy.hang_up();
    proxy.heard("SIGHUP: ").await;
    proxy.terminate();
    assert!(proxy.process().exit().await.success());
}

#[tokio::test]
async fn a_supervisor_ends_with_its_proxy_and_as_that_did() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let mut command = Command::new(BINARY);
    command.args(["run", "--supervise", "-c"]).arg(proxy.directory().join("nothing.yaml")).stdin(Stdio::null());
    let mut process = Process::start(command);
    assert_eq!(process.exit().await.code(), Some(2));
}

#[tokio::test]
async fn systemd_hears_how_it_is() {
    let server = Upstream::start().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).expect("the directory is ours");
    let mut proxy = Proxy::start().line(HAND_OVER).upstream("chat", &[&server]).notifying(&path).run().await;
    let hears = async || {
        let mut buffer = [0; 256];
        let length = soon("a word to systemd", socket.recv(&mut buffer)).await.expect("a datagram");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(hears().await, "READY=1");
    proxy.reload(&[]).await;
    assert!(hears().await.starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(hears().await, "READY=1");
    let old = proxy.hand_over().await;
    assert_eq!(hears().await, format!("MAINPID={}", proxy.process().id()));
    drop(old);
}

#[tokio::test]
async fn what_was_learned_and_tagged_goes_along() {
    let serving = async |name: &'static str| {
        Upstream::serving(move |mut wire| async move {
            while let Some(request) = wire.next_request().await {
                let fields = if request.head.start.contains("/new") {
                    format!("X-Session: {name}-1\r\n")
                } else {
                    String::new()
                };
                wire.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 1\r\n\r\n{name}")).await;
            }
        })
        .await
    };
    let (a, b) = (serving("a").await, serving("b").await);
    let sources =
        "[{ session: { find: { header: X-Session }, learn: { response_header: X-Session } } }, { header: X-Client }]";
    let setup = Proxy::start().line(HAND_OVER).upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]);
    let mut proxy = setup.affinity(sources).run().await;
    let get = |target: &str, fields: String| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    // Clients whose own keys lead to one server each; then each asks with the session of the other one's.
    let mut led = Vec::new();
    for client in 0..40 {
        let answer = proxy.exchange(get("/new", format!("X-Client: {client}\r\n"))).await;
        led.push((client, answer.text()));
    }
    let (in_a, in_b): (Vec<_>, Vec<_>) = led.into_iter().partition(|(_, server)| server == "a");
    assert!(!in_a.is_empty() && !in_b.is_empty(), "keys lead to both servers");
    let mut old = proxy.hand_over().await;
    assert!(old.exit_within(GONE_WITHIN).await.success());
    for (clients, session) in [(in_a, "b"), (in_b, "a")] {
        for (client, _) in clients {
            let answer = proxy.exchange(get("/x", format!("X-Client: {client}\r\nX-Session: {session}-1\r\n"))).await;
            assert_eq!(answer.text(), session);
        }
    }
    assert_eq!(proxy.metrics().await.sum("steadfast_sessions", &[]), 2.0);
}

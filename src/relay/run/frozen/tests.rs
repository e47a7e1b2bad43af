use std::os::fd::OwnedFd;
use std::time::Instant;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::affinity::tag::Secret;
use crate::config;
use crate::handover::message::{decode, encode};
use crate::observe::metrics::Metrics;
use crate::relay::run::{Handover, Stopped};
use crate::relay::{ClientFraming, Events, Resumable, ServerFraming, WebSocket};
use crate::upstream::Servers;
use crate::upstream::discovery::Findings;

const FILE: &str = "\
listeners: [{ bind: \"127.0.0.1:8080\" }]
upstreams:
  chat: { servers: [{ address: \"127.0.0.1:3000\", name: a }, { address: \"127.0.0.1:3001\", name: b }] }
routes: [{ upstream: chat }]
";

/// One process, as far as relays know of it.
struct Process {
    observer: Arc<Observer>,
    upstream: Arc<Upstream>,
}

impl Process {
    fn new() -> Self {
        let config = config::parse(FILE, "steadfast.yaml").expect("it is right");
        let observer = Arc::new(Observer::new(Metrics::new(), None));
        let upstream = Upstream::all(
            &config,
            &Findings::default(),
            &Secret::new(b"secret"),
            &observer.metrics,
            &Servers::default(),
            &[],
        )
        .remove(0);
        Self { observer, upstream }
    }

    fn home(&self) -> NewHome {
        NewHome { observer: self.observer.clone(), upstream: self.upstream.clone(), server: 1, seat: None }
    }

    #[track_caller]
    fn check(&self, line: &str) {
        let (text, _) = self.observer.metrics.scrape();
        let text = String::from_utf8(text).expect("metrics are text");
        assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
    }
}

/// A relay between two peers.
struct Scene {
    client: TcpStream,
    server: TcpStream,
    relay: Relay,
}

impl Scene {
    async fn new(process: &Process, protocol: Protocol) -> Self {
        let kind = match &protocol {
            Protocol::Events(..) => Kind::EventStream,
            Protocol::WebSocket(_) => Kind::WebSocket,
            Protocol::Unknown => Kind::Tunnel,
        };
        let ((client, ours_down), (server, ours_up)) = (pair().await, pair().await);
        let mut record =
            Record::new(process.observer.clone(), Instant::now(), None, |_| unreachable!("there is no log"));
        record.routed(&process.upstream);
        record.connected(1);
        record.answered(101);
        record.becomes(kind);
        let relay = Relay::new(Handover {
            client: Transport::Tcp(ours_down),
            client_unread: Vec::new(),
            client_unsent: b"head ".to_vec(),
            server: Transport::Tcp(ours_up),
            server_unsent: Vec::new(),
            server_unread: Vec::new(),
            protocol,
            limits: Limits { closing: 50, idle: 10_000, send: 100, age: None, keepalive: Some(50), pong: None },
            quiet_for: Duration::ZERO,
            client_address: [10, 0, 0, 7].into(),
            origin: Origin::key(7),
            upstream: process.upstream.clone(),
            record,
        });
        Self { client, server, relay }
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let connected = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
    (connected, listener.accept().await.expect("somebody has connected").0)
}

/// Brings a running relay to rest and freezes it.
async fn rest(running: JoinHandle<Stopped>) -> (Box<Relay>, Frozen) {
    registry::pause_all();
    assert!(registry::is_pausing());
    let Stopped::Paused(relay) = running.await.expect("it does not panic") else { panic!("it has ended") };
    assert!(!registry::is_pausing());
    let frozen = relay.freeze().expect("it has run");
    (relay, frozen)
}

/// What another process makes of it.
fn cross(relay: Box<Relay>, frozen: &Frozen, to: &Process) -> Relay {
    let owned = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().expect("descriptors are left");
    let sockets: [OwnedFd; 2] = relay.descriptors().expect("it is TCP").map(owned);
    relay.handed_over();
    let crossed: Frozen = decode(&encode(frozen)).expect("what is written can be read");
    assert_eq!(&crossed, frozen);
    crossed.check().expect("a real state is sound");
    let mut relay = Relay::thaw(crossed, sockets.map(net::TcpStream::from), to.home()).expect("sockets are sockets");
    relay.taken_over();
    relay
}

async fn expect(peer: &mut TcpStream, bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    peer.read_exact(&mut came).await.expect("the relay lives");
    assert_eq!(String::from_utf8_lossy(&came), String::from_utf8_lossy(bytes));
}

#[tokio::test]
async fn a_relay_goes_on_in_the_next_process_and_is_counted_once() {
    let (old, new) = (Process::new(), Process::new());
    let Scene { mut client, mut server, relay } = Scene::new(&old, Protocol::WebSocket(WebSocket::new(7))).await;
    let running = tokio::spawn(relay.run());
    expect(&mut client, b"head ").await;
    server.write_all(b"\x81\x05he").await.expect("it is open");
    expect(&mut client, b"\x81\x05he").await;
    old.check(r#"steadfast_open_connections{kind="websocket",server="b",upstream="chat"} 1"#);

    let (relay, frozen) = rest(running).await;
    let id = frozen.id;
    // What comes meanwhile is not lost, in the middle of a frame or not.
    server.write_all(b"llo").await.expect("it is open");
    client.write_all(b"\x81\x81\x00\x00\x00\x00x").await.expect("it is open");
    let relay = cross(relay, &frozen, &new);
    old.check(r#"steadfast_open_connections{kind="websocket",server="b",upstream="chat"} 0"#);
    new.check(r#"steadfast_open_connections{kind="websocket",server="b",upstream="chat"} 1"#);
    let running = tokio::spawn(relay.run());
    expect(&mut client, b"llo").await;
    expect(&mut server, b"\x81\x81\x00\x00\x00\x00x").await;

    // And once more, back again.
    let (relay, frozen) = rest(running).await;
    assert_eq!(frozen.id, id);
    let third = Process::new();
    let running = tokio::spawn(cross(relay, &frozen, &third).run());
    server.write_all(b"\x81\x02hi").await.expect("it is open");
    expect(&mut client, b"\x81\x02hi").await;
    client.shutdown().await.expect("it is open");
    assert_eq!(server.read(&mut [0]).await.expect("an end"), 0);
    drop(server);
    assert!(matches!(running.await, Ok(Stopped::Ended)));
    for process in [&old, &new, &third] {
        process.check(r#"steadfast_open_connections{kind="websocket",server="b",upstream="chat"} 0"#);
    }
    // The head counts as sent, the messages where they came to their end.
    old.check(r#"steadfast_bytes_total{direction="down",upstream="chat"} 9"#);
    new.check(r#"steadfast_bytes_total{direction="down",upstream="chat"} 3"#);
    new.check(r#"steadfast_bytes_total{direction="up",upstream="chat"} 7"#);
    new.check(r#"steadfast_websocket_messages_total{direction="down",upstream="chat"} 1"#);
    third.check(r#"steadfast_bytes_total{direction="down",upstream="chat"} 4"#);
    third.check(r#"steadfast_ends_total{end_reason="client_closed",kind="websocket",upstream="chat"} 1"#);
    for process in [&old, &new] {
        let (text, _) = process.observer.metrics.scrape();
        assert!(!String::from_utf8_lossy(&text).contains("steadfast_ends_total{"), "it has not ended there");
    }
}

#[tokio::test]
async fn what_a_slow_reader_has_not_taken_goes_along() {
    let (old, new) = (Process::new(), Process::new());
    let events = Events::new(ServerFraming::UntilClose, ClientFraming::UntilClose);
    let Scene { mut client, mut server, relay } = Scene::new(&old, Protocol::Events(events, None)).await;
    let mut running = tokio::spawn(relay.run());
    let stream: Vec<u8> = (0..4_000_000_u32).flat_map(u32::to_be_bytes).collect();
    let whole = stream.clone();
    let feeding = tokio::spawn(async move {
        server.write_all(&stream).await.expect("somebody takes it in the end");
        server
    });
    let (mut has_waited, mut processes) = (false, vec![old, new]);
    let mut came = vec![0; b"head ".len()];
    client.read_exact(&mut came).await.expect("the relay lives");
    came.clear();
    while came.len() < whole.len() {
        if processes.len() < 9 {
            tokio::time::sleep(Duration::from_millis(20)).await; // For the kernel's buffers to fill.
            let (relay, frozen) = rest(running).await;
            has_waited |= !frozen.down.clone().eq(&Lane::default());
            processes.push(Process::new());
            running = tokio::spawn(cross(relay, &frozen, processes.last().expect("just pushed")).run());
        }
        let mut piece = vec![0; 500_000];
        let read = client.read(&mut piece).await.expect("the relay lives");
        assert!(read > 0, "after {} bytes", came.len());
        came.extend_from_slice(&piece[..read]);
    }
    assert!(came == whole, "bytes differ");
    assert!(has_waited, "nothing ever waited in a lane: the test shows nothing");
    drop(feeding.await);
    assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
}

#[tokio::test]
async fn who_has_run_on_another_clock_is_as_old_as_before() {
    let life = Life::aged(
        &Life::new(Tick(5000)).ages(Tick(Tick::FIRST.0 - 1_000_000)), // Nine days on a machine of its own.
        Tick::FIRST,
    );
    let limits = Limits { closing: 5, idle: u32::MAX, send: 5, age: Some(2_147_478_648), keepalive: None, pong: None };
    // It began 2,146,478,648 ticks ago.
    assert_eq!(life.due(Tick::FIRST, &limits), super::super::Due::Later(Tick(Tick::FIRST.0 + 1_000_000)));
}

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn what_another_server_needs_to_go_on_goes_along() {
    let (old, new) = (Process::new(), Process::new());
    let mut events = Events::new(ServerFraming::Chunked, ClientFraming::Chunked);
    events.keep(Resumable::new(HEAD.to_vec(), Some(b"key".to_vec()), None).map(Box::new));
    let Scene { mut client, mut server, relay } = Scene::new(&old, Protocol::Events(events, None)).await;
    let running = tokio::spawn(relay.run());
    expect(&mut client, b"head ").await;
    server.write_all(b"ff\r\nid: 1\n\nid: 2").await.expect("it is open");
    expect(&mut client, b"c\r\nid: 1\n\nid: 2\r\n").await;
    let (relay, frozen) = rest(running).await;
    let running = tokio::spawn(cross(relay, &frozen, &new).run());
    server.write_all(b"3\n\n").await.expect("it is open");
    expect(&mut client, b"3\r\n3\n\n\r\n").await;
    drop(server);
    let Ok(Stopped::Interrupted(relay)) = running.await else { panic!("it should seek another server") };
    let quest = relay.quest().expect("it seeks");
    assert_eq!((quest.head.as_slice(), quest.last_event_id.as_deref()), (HEAD, Some(&b"23"[..])));
    assert_eq!((quest.upstream.as_str(), quest.key.as_deref(), quest.asked), ("chat", Some(&b"key"[..]), 0));
    // Meanwhile it goes nowhere.
    let running = tokio::spawn(relay.run());
    tokio::task::yield_now().await;
    registry::pause_all();
    while registry::is_pausing() {
        tokio::task::yield_now().await;
    }
    assert!(!running.is_finished());
    drop(client);
    assert!(matches!(running.await, Ok(Stopped::Ended)));
    new.check(r#"steadfast_ends_total{end_reason="client_closed",kind="sse",upstream="chat"} 1"#);
}

fn protocols() -> [Protocol; 5] {
    let mut events = Events::new(ServerFraming::Chunked, ClientFraming::Chunked);
    events.keep(Resumable::new(HEAD.to_vec(), Some(b"key".to_vec()), None).map(Box::new));
    let mut buffer = vec![0; 200];
    buffer[100..106].copy_from_slice(b"5\r\nid:");
    events.pass(&mut buffer, 100..106).expect("chunks");
    let mut websocket = WebSocket::new(0x0102_0304_0506_0708);
    websocket.ping();
    // A Pong of ours that has half come, and a Close likewise.
    buffer[100..104].copy_from_slice(&[0x8A, 0x88, 9, 9]);
    websocket.pass(crate::relay::life::Side::Client, &mut buffer, 100..104);
    buffer[100..103].copy_from_slice(&[0x88, 0x04, 0x03]);
    websocket.pass(crate::relay::life::Side::Server, &mut buffer, 100..103);
    [
        Protocol::Events(events, Some(b"GET /".to_vec())),
        Protocol::Events(Events::behind_ours(ServerFraming::UntilClose, ClientFraming::UntilClose), None),
        Protocol::WebSocket(websocket),
        Protocol::WebSocket(WebSocket::new(1)),
        Protocol::Unknown,
    ]
}

/// A WebSocket at rest, as it is written down.
pub(crate) async fn sample() -> Frozen {
    let mut scene = Scene::new(&Process::new(), Protocol::WebSocket(WebSocket::new(1))).await;
    scene.relay.pause(Id(42));
    scene.relay.freeze().expect("it has paused")
}

async fn samples() -> Vec<Vec<u8>> {
    let process = Process::new();
    let mut samples = Vec::new();
    for protocol in protocols() {
        let new = match &protocol {
            Protocol::WebSocket(_) => Protocol::WebSocket(WebSocket::new(1)),
            other => other.clone(),
        };
        let mut scene = Scene::new(&process, new).await;
        scene.relay.protocol = protocol;
        scene.relay.pause(Id(42));
        samples.push(encode(&scene.relay.freeze().expect("it has paused")));
    }
    samples
}

/// Has a protocol carry something: whatever state it was in, it must not panic.
fn carry(protocol: &Protocol, bytes: &[u8]) {
    use crate::relay::lane::HEADROOM;
    use crate::relay::life::Side;
    let mut buffer = vec![0; HEADROOM + bytes.len() + 64];
    for piece in bytes.chunks(3).chain([bytes]) {
        let range = HEADROOM..HEADROOM + piece.len();
        match protocol.clone() {
            Protocol::Events(mut events, _) => {
                buffer[range.clone()].copy_from_slice(piece);
                let _ = events.pass(&mut buffer, range);
                events.comment("k");
                events.end(None);
            }
            Protocol::WebSocket(mut websocket) => {
                for side in [Side::Client, Side::Server, Side::Client] {
                    buffer[range.clone()].copy_from_slice(piece);
                    websocket.pass(side, &mut buffer, range.clone());
                    websocket.ping();
                    websocket.close(side, crate::relay::websocket::Goodbye::GoingAway);
                }
                websocket.release();
            }
            Protocol::Unknown => {}
        }
    }
}

proptest! {
    #[test]
    fn no_state_that_comes_can_break_this_process(
        which in 0..5_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        bytes in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        use std::sync::OnceLock;
        static SAMPLES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        let samples = SAMPLES.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(samples())
        });
        let mut state = samples[which].clone();
        if let Some(cut) = cut {
            state.truncate(cut.index(state.len()));
            prop_assert!(decode::<Frozen>(&state).is_err(), "cut, and nobody notices");
        }
        for (at, byte) in changes {
            if !state.is_empty() {
                let at = at.index(state.len());
                state[at] = byte;
            }
        }
        if let Ok(frozen) = decode::<Frozen>(&state)
            && frozen.check().is_ok()
        {
            carry(&frozen.protocol, &bytes);
            let life = Life::aged(&frozen.life, Tick::FIRST);
            life.due(Tick::FIRST, &frozen.limits);
        }
    }
}

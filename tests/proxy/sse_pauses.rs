//! A server may pause anywhere: within a line, a line end, a character, an event, a chunk.
//!
//! Every case is played through a hop that cuts after [`CUT`] of silence, in every framing and to
//! every kind of client at once. Without the inserted comments the bytes are the server's own, line
//! for line, and a real EventSource dispatches the same events as without a proxy.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{Hop, Node, Proxy, Random, ServerEntry, Upstream, Wire, millis, seconds, show, within};

const KEEPALIVE: &str = "{ keepalive: 1s }";
const CUT: Duration = seconds(3);

/// What a server does, one after the other.
#[derive(Clone, Debug)]
enum Step {
    Say(Vec<u8>),
    /// Long enough for a keepalive and shorter than the cut: at places where nothing may be inserted.
    Pause,
    /// Longer than the cut: survived only if something was inserted.
    Silence,
}

use Step::{Pause, Silence};

fn say(bytes: impl AsRef<[u8]>) -> Step {
    Step::Say(bytes.as_ref().to_vec())
}

/// How the server marks the end of what it says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    /// A chunk for each [`Step::Say`].
    Chunked,
    /// Until it closes.
    Close,
    /// The steps are chunked already, with the pauses inside.
    AsItIs,
}

fn cases() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        ("before the first event", vec![Silence, say("data: a\n\n")]),
        ("between events", vec![say("data: a\n\n"), Silence, say("data: b\n\n")]),
        ("before the end", vec![say("data: a\n\n"), Silence]),
        (
            "in a line",
            vec![say("data: hel"), Pause, say("lo\n\ndata: b"), Pause, say("\n\n"), Silence, say("data: c\n\n")],
        ),
        ("in a field name", vec![say("da"), Pause, say("ta: a\n\n")]),
        ("in an event", vec![say("event: update\nid: 1\ndata: a\n"), Silence, say("data: b\n\n")]),
        ("before the empty line", vec![say("data: a\n"), Silence, say("\n"), Silence, say("data: b\n\n")]),
        (
            "in CRLF",
            vec![
                say("data: a\r"),
                Pause,
                say("\n\r\n"),
                Silence,
                say("data: b\r\n\r"),
                Pause,
                say("\ndata: c\r\n\r\n"),
            ],
        ),
        ("behind CRLF", vec![say("data: a\r\n"), Silence, say("data: b\r\n\r\n"), Silence, say("data: c\r\n\r\n")]),
        ("behind CR", vec![say("data: a\r\r"), Silence, say("data: b\rdata: c\r\r"), Silence, say("data: d\r\r")]),
        (
            "in a character",
            vec![
                say(b"data: \xe2"),
                Pause,
                say(b"\x82"),
                Pause,
                say(b"\xac\n\n"),
                say(b"data: \xf0\x9f"),
                Pause,
                say(b"\x98\x80\n\n"),
            ],
        ),
        ("in a comment of the server", vec![say(": pi"), Pause, say("ng\n"), Silence, say("\ndata: a\n\n")]),
        ("behind a byte order mark", vec![say("\u{feff}data: a\n\n"), Silence, say("data: b\n\n")]),
        ("in a byte order mark", vec![say(b"\xef\xbb"), Pause, say(b"\xbfdata: a\n\n")]),
        ("in a retry", vec![say("retry: 10"), Pause, say("00\n"), Silence, say("id: 7\ndata: a\n\n")]),
    ]
}

/// Chunks whose own framing is interrupted.
fn chunk_cases() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        (
            "in a chunk",
            vec![say("14\r\ndata: a\n\n"), Pause, say("data:"), Pause, say(" bcd\n\n\r\n"), Silence, say("0\r\n\r\n")],
        ),
        (
            "in the size of a chunk",
            vec![say("9\r\ndata: a\n\n\r\n0000"), Pause, say("9;x=y\r"), Pause, say("\ndata: b\n\n\r\n0\r\n\r\n")],
        ),
        (
            "in the end of a chunk",
            vec![say("9\r\ndata: a\n\n"), Pause, say("\r"), Pause, say("\n9\r\ndata: b\n\n\r\n0\r\n\r\n")],
        ),
        (
            "in the last chunk",
            vec![say("9\r\ndata: a\n\n\r\n0\r\n"), Pause, say("X-Trailer: x\r\n"), Pause, say("\r\n")],
        ),
        (
            "a line over chunks",
            vec![
                say("3\r\ndat\r\n"),
                Pause,
                say("4\r\na: a\r\n"),
                Pause,
                say("2\r\n\n\n\r\n"),
                Silence,
                say("0\r\n\r\n"),
            ],
        ),
    ]
}

/// Streams with every kind of line end, in pieces of random size, pausing anywhere.
fn random_case(seed: u64) -> Vec<Step> {
    let mut random = Random::seeded(seed);
    let mut text = String::new();
    for event in 0..60 {
        let end = ["\n", "\r\n", "\r"][random.up_to(3) - 1];
        for _ in 0..random.up_to(3) {
            text += &format!("data: {event} {}{end}", "\u{20ac}x".repeat(random.up_to(40)));
        }
        text += end;
    }
    // A last byte that is no line end: no one has to wait for what follows it.
    text += "data: end\n\n";
    let bytes = text.as_bytes();
    let (mut steps, mut rest, mut pauses) = (Vec::new(), bytes, 3);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(random.up_to(rest.len().min(300)));
        steps.push(say(piece));
        if pauses > 0 && random.up_to(20) == 1 {
            steps.push(Pause);
            pauses -= 1;
        }
        rest = after;
    }
    steps
}

/// One stream: what the server does and how it frames it.
#[derive(Clone, Debug)]
struct Play {
    name: String,
    steps: Vec<Step>,
    framing: Framing,
}

fn plays() -> Vec<Play> {
    let mut plays = Vec::new();
    let random = (0..6).map(|seed| (format!("random, seed {seed}"), random_case(seed)));
    let cases = cases().into_iter().map(|(name, steps)| (name.to_owned(), steps)).chain(random);
    for (name, steps) in cases {
        for framing in [Framing::Chunked, Framing::Close] {
            plays.push(Play { name: format!("{name}, {framing:?}"), steps: steps.clone(), framing });
        }
    }
    for (name, steps) in chunk_cases() {
        plays.push(Play { name: name.to_owned(), steps, framing: Framing::AsItIs });
    }
    plays
}

impl Play {
    /// The stream without its framing.
    fn payload(&self) -> Vec<u8> {
        let said = self.steps.iter().filter_map(|step| match step {
            Step::Say(bytes) => Some(&bytes[..]),
            Pause | Silence => None,
        });
        let bytes: Vec<u8> = said.flatten().copied().collect();
        if self.framing == Framing::AsItIs { unchunked(&bytes) } else { bytes }
    }

    async fn perform(&self, wire: &mut Wire) -> std::io::Result<()> {
        let chunked = if self.framing == Framing::Close { "Connection: close" } else { "Transfer-Encoding: chunked" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{chunked}\r\n\r\n");
        wire.try_send(head.as_bytes()).await?;
        for step in &self.steps {
            match step {
                Step::Say(bytes) if self.framing == Framing::Chunked => {
                    let size = format!("{:x}\r\n", bytes.len());
                    wire.try_send(&[size.as_bytes(), bytes, b"\r\n"].concat()).await?;
                }
                Step::Say(bytes) => wire.try_send(bytes).await?,
                Pause => tokio::time::sleep(millis(2000)).await,
                Silence => tokio::time::sleep(millis(4500)).await,
            }
        }
        if self.framing == Framing::Chunked {
            wire.try_send(b"0\r\n\r\n").await?;
        }
        Ok(())
    }
}

/// A server that performs the play with the number in the path.
async fn theatre() -> Upstream {
    Upstream::serving(|mut wire: Wire| async move {
        let Some(request) = wire.next_request().await else { return };
        let target = request.head.start.split(' ').nth(1).expect("a target");
        let number: usize = target.trim_start_matches('/').parse().expect("a number");
        // An audience that leaves is noticed by what it lacks.
        let _ = plays()[number].perform(&mut wire).await;
    })
    .await
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n").expect("a chunk has a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("a chunk head is ASCII");
        let size = head.split(';').next().expect("split yields at least one");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return payload;
        }
        payload.extend(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
}

/// The lines of an event stream by its own rules: CRLF, LF or CR.
fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = vec![Vec::new()];
    let mut after_cr = false;
    for &byte in bytes {
        match byte {
            b'\n' if after_cr => {}
            b'\n' | b'\r' => lines.push(Vec::new()),
            _ => lines.last_mut().expect("it is never empty").push(byte),
        }
        after_cr = byte == b'\r';
    }
    lines
}

/// The stream without the lines that were inserted.
fn without_comments(bytes: &[u8]) -> Vec<u8> {
    const COMMENTS: [&[u8]; 3] = [b":keepalive\r\n", b":keepalive\n", b"\n:keepalive\r"];
    let mut rest = bytes;
    let mut kept = Vec::new();
    while let Some(&first) = rest.first() {
        let between = kept.last() == Some(&b'\r');
        let at = |comment: &&&[u8]| rest.starts_with(comment) && (comment[0] != b'\n' || between);
        if let Some(comment) = COMMENTS.iter().find(at) {
            rest = &rest[comment.len()..];
        } else {
            kept.push(first);
            rest = &rest[1..];
        }
    }
    kept
}

#[track_caller]
fn check_only_comments_were_inserted(name: &str, original: &[u8], received: &[u8]) {
    let kept = without_comments(received);
    assert!(kept == original, "{name}: expected {}, received {}", show(original), show(received));
    let theirs: Vec<_> = lines(received).into_iter().filter(|line| line != b":keepalive").collect();
    assert!(theirs == lines(original), "{name}: a line was broken: {}", show(received));
}

async fn watch(mut client: Wire, number: usize, version: &str) -> (Vec<u8>, usize) {
    client.send(format!("GET /{number} HTTP/{version}\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")).await;
    let answer = client.response().await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    if version == "1.0" {
        assert_eq!(answer.head.field("transfer-encoding"), None);
    }
    let comments = lines(&answer.body).iter().filter(|line| *line == b":keepalive").count();
    (answer.body, comments)
}

#[tokio::test]
async fn bytes_are_the_servers_own_wherever_it_pauses() {
    let server = theatre().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse(KEEPALIVE).run().await;
    let hop = Hop::cutting_after(CUT, proxy.address()).await;
    let mut audience = JoinSet::new();
    for (number, play) in plays().into_iter().enumerate() {
        for version in ["1.1", "1.0"] {
            let (client, play) = (hop.connect().await, play.clone());
            audience.spawn(async move {
                let (received, comments) = watch(client, number, version).await;
                let name = format!("{}, HTTP/{version}", play.name);
                check_only_comments_were_inserted(&name, &play.payload(), &received);
                comments
            });
        }
    }
    let mut inserted = 0;
    while let Some(comments) = audience.join_next().await {
        inserted += comments.expect("see the failure above");
    }
    assert_eq!(hop.cuts(), 0, "streams that were cut");
    proxy.settles("steadfast_sse_keepalives_total", &[], inserted as f64).await;
    proxy.settles_empty().await;
}

#[tokio::test]
async fn a_real_event_source_sees_the_same_events_wherever_the_server_pauses() {
    let server = theatre().await;
    // Connections that are kept behind a stream are silent, and not the hop's to cut.
    let proxy = Proxy::start().upstream("chat", &[&server]).sse(KEEPALIVE).timeouts("{ keepalive: 500ms }").run().await;
    let hop = Hop::cutting_after(CUT, proxy.address()).await;
    let plays = plays();
    let urls = |address| (0..plays.len()).map(move |number| format!("http://{address}/{number}"));
    let urls: Vec<_> = urls(server.address()).chain(urls(hop.address())).collect();
    let node = Node::script("event_source.js", &json!({ "urls": urls }));
    let events = within(seconds(60), "the event sources", node.says("events")).await;
    let events = events.as_array().expect("a list for each stream");
    let (direct, proxied) = events.split_at(plays.len());
    for ((play, direct), proxied) in plays.iter().zip(direct).zip(proxied) {
        assert!(direct.as_array().is_some_and(|events| !events.is_empty()), "{}: no event at all", play.name);
        assert_eq!(proxied, direct, "{}", play.name);
    }
    assert_eq!(hop.cuts(), 0, "streams that were cut");
}

#[tokio::test]
async fn a_byte_order_mark_after_a_silence_does_not_spoil_the_first_event() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).sse("{ keepalive: 500ms }").run().await;
    let mut client = proxy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = server.accept().await;
    upstream.request().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(head.status(), 200);
    tokio::time::sleep(millis(1500)).await;
    upstream.send("\u{feff}data: a\n\n").await;
    drop(upstream);
    let mut received = Vec::new();
    while let Some(chunk) = client.chunk().await {
        received.extend(chunk);
    }
    // A mark is one only in front of everything: behind a comment it would be part of a field name.
    let text = String::from_utf8(received).expect("the stream is text");
    let events = text.trim_start_matches('\u{feff}').replace(":keepalive\n", "");
    assert_eq!(events, "data: a\n\n", "received {text:?}");
}

//! Relays that stray from where they belong move there, at a pace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::harness::client::SWITCHING;
use crate::harness::websocket::close;
use crate::harness::{Named, Proxy, ServerEntry, millis, seconds, websocket_request, within};

const OPEN: &str = "steadfast_open_connections";
const ENDS: &str = "steadfast_ends_total";

/// A server of WebSockets that answers a Close, whenever that comes.
struct Server(SocketAddr);

impl ServerEntry for Server {
    fn address(&self) -> SocketAddr {
        self.0
    }
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                for answer in [SWITCHING.as_bytes(), &[0x88, 0x00]] {
                    if tcp.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                        let _ = tcp.write_all(answer).await;
                    }
                }
                let _ = tcp.read(&mut bytes).await;
            });
        }
    });
    Server(address)
}

/// A client that comes again whenever it is told to, and answers Closes.
struct Client {
    tcp: TcpStream,
    key: String,
}

impl Client {
    async fn open(address: SocketAddr, key: &str) -> Self {
        let mut tcp = TcpStream::connect(address).await.expect("the proxy listens");
        let request = websocket_request("/ws", &format!("X-Key: {key}\r\n"));
        tcp.write_all(request.as_bytes()).await.expect("the proxy is there");
        let mut bytes = [0; 4096];
        let read = tcp.read(&mut bytes).await.expect("an answer");
        assert!(bytes[..read].starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&bytes[..read]));
        Self { tcp, key: key.to_owned() }
    }

    /// Comes again each time.
    async fn follow(mut self, address: SocketAddr, moves: Arc<AtomicUsize>) {
        let mut bytes = [0; 4096];
        loop {
            let read = self.tcp.read(&mut bytes).await.expect("no reset");
            assert_eq!(bytes.get(2..read), Some(&close(1012, "service restart")[..]));
            self.tcp.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.expect("the proxy listens to the answer");
            assert_eq!(self.tcp.read(&mut bytes).await.expect("no reset"), 0);
            moves.fetch_add(1, Ordering::Relaxed);
            self = Self::open(address, &self.key).await;
        }
    }
}

/// Clients that follow wherever they are sent, and how often that was.
struct Crowd {
    moves: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Crowd {
    fn of(clients: Vec<Client>, proxy: &Proxy) -> Self {
        let (moves, address) = (Arc::<AtomicUsize>::default(), proxy.address());
        let clients = clients.into_iter().map(|client| client.follow(address, moves.clone())).collect();
        Self { moves, clients }
    }

    /// So many moves there were in all, and none after them.
    async fn have_moved(mut self, count: usize) {
        tokio::time::sleep(seconds(7)).await;
        assert!(self.clients.try_join_next().is_none(), "a client has failed");
        assert_eq!(self.moves.load(Ordering::Relaxed), count);
    }
}

/// Waits, longer than a test does otherwise, until `server` has so many connections.
async fn until_open_at(proxy: &Proxy, server: &str, count: usize) {
    let count = u32::try_from(count).expect("the test is small");
    within(seconds(60), "the relays to move", async {
        while open_at(proxy, server).await < f64::from(count) {
            tokio::time::sleep(millis(50)).await;
        }
    })
    .await;
}

async fn plan(proxy: &Proxy) -> Value {
    let answer = proxy.admin("/api/v1/rebalance?upstream=chat").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_str(&answer.text()).expect("it is JSON")
}

async fn open_at(proxy: &Proxy, server: &str) -> f64 {
    proxy.metrics().await.sum(OPEN, &[("server", server)])
}

#[tokio::test]
async fn who_belongs_to_a_server_that_has_come_moves_there_and_nobody_else() {
    const CLIENTS: usize = 60;
    let (a, b, c) = (server().await, server().await, server().await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")])
        .affinity("[{ header: X-Key }]")
        .run()
        .await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(Client::open(proxy.address(), &format!("client-{number}")).await);
    }
    assert_eq!(plan(&proxy).await["strays"], 0);
    let (one, two) = (
        format!("{{ address: \"{}\", weight: 1, name: b }}", b.address()),
        format!("{{ address: \"{}\", weight: 1, name: c }}", c.address()),
    );
    assert_eq!(proxy.reload(&[(&one, &format!("{one}, {two}"))]).await.status(), 200);
    let dry = plan(&proxy).await;
    let strays = dry["strays"].as_u64().and_then(|strays| usize::try_from(strays).ok()).expect("a number");
    assert!((8..=35).contains(&strays), "{dry}");
    assert!(dry["moves"].as_array().is_some_and(|moves| moves.iter().all(|it| it["to"] == "c")), "{dry}");
    assert_eq!(dry["percent_per_minute"], Value::Null);
    tokio::time::sleep(seconds(4)).await;
    assert_eq!(open_at(&proxy, "c").await, 0.0, "a plan moves nobody");

    // 100 percent a minute are one a second here.
    let began = Instant::now();
    proxy
        .reload(&[(
            "affinity: [{ header: X-Key }]",
            "affinity: [{ header: X-Key }]\n    rebalance: { per_minute: 100, min_age: 0s }",
        )])
        .await;
    let crowd = Crowd::of(clients, &proxy);
    until_open_at(&proxy, "c", 3).await;
    assert!(began.elapsed() >= seconds(2), "they came within {:?}", began.elapsed());
    until_open_at(&proxy, "c", strays).await;
    // The first look finds the pace of the time before it.
    let least = seconds(strays as u64).saturating_sub(seconds(6));
    assert!(began.elapsed() >= least, "{strays} came within {:?}", began.elapsed());
    crowd.have_moved(strays).await;
    assert_eq!(proxy.metrics().await.sum(ENDS, &[("end_reason", "rebalanced")]), strays as f64);
    assert_eq!(plan(&proxy).await["strays"], json!(0));
}

#[tokio::test]
async fn what_is_too_much_for_one_server_moves_until_it_is_not() {
    const CLIENTS: usize = 60;
    let (a, b) = (server().await, server().await);
    let proxy = Proxy::start().upstream("chat", &[&Named(&a, "a")]).affinity("[{ header: X-None }]").run().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::open(proxy.address(), "none").await);
    }
    let (one, two) = (
        format!("{{ address: \"{}\", weight: 1, name: a }}", a.address()),
        format!("{{ address: \"{}\", weight: 1, name: b }}", b.address()),
    );
    proxy.reload(&[(&one, &format!("{one}, {two}"))]).await;
    let dry = plan(&proxy).await;
    // Half, a tenth of that and five more may stay.
    assert_eq!(dry["strays"], json!(CLIENTS - 38), "{dry}");
    assert_eq!(dry["moves"], json!([{ "from": "a", "to": null, "relays": CLIENTS - 38 }]), "{dry}");
    proxy
        .reload(&[(
            "affinity: [{ header: X-None }]",
            "affinity: [{ header: X-None }]\n    rebalance: { per_minute: 100, min_age: 1s }",
        )])
        .await;
    let crowd = Crowd::of(clients, &proxy);
    until_open_at(&proxy, "b", CLIENTS - 38).await;
    crowd.have_moved(CLIENTS - 38).await;
}

//! The API of the admin address: what it tells of the process, what it obeys, and what it refuses.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::client::SWITCHING;
use crate::harness::relay::open_events;
use crate::harness::websocket::{close, next_frame, open};
use crate::harness::{
    Message, Named, Proxy, Refusing, SecretFile, ServerEntry, Upstream, Weighted, Wire, keyed, millis, seconds, soon,
    websocket_request, within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What stands at this place of the API.
async fn read(proxy: &Proxy, resource: &str) -> Value {
    let answer = proxy.admin(&format!("/api/v1/{resource}")).await;
    assert_eq!(answer.status(), 200, "{resource}: {}", answer.text());
    assert_eq!(answer.head.field("content-type").as_deref(), Some("application/json"));
    answer.json()
}

/// What an order is answered that is obeyed.
async fn obeyed(proxy: &Proxy, name: &str, order: Value) -> Value {
    let answer = proxy.order(name, order).await;
    assert!(matches!(answer.status(), 200 | 202), "{name}: {}", answer.text());
    answer.json()
}

/// Waits until the status is so.
async fn status_once(proxy: &Proxy, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    soon(what, async {
        loop {
            let status = read(proxy, "status").await;
            if is_so(&status) {
                return status;
            }
            tokio::time::sleep(millis(20)).await;
        }
    })
    .await
}

/// An answer that is a problem of this status, whose detail has this part.
#[track_caller]
fn check_problem(answer: &Message, status: u16, part: &str) {
    assert_eq!(answer.status(), status, "{}", answer.text());
    assert_eq!(answer.head.field("content-type").as_deref(), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!("about:blank")), "{problem}");
    assert!(problem["title"].is_string(), "{problem}");
    let detail = problem["detail"].as_str().expect("a sentence");
    assert!(detail.contains(part), "{part:?} is not in {detail:?}");
}

#[tokio::test]
async fn the_status_tells_how_servers_are_and_what_is_open() {
    let (a, away, push) = (Upstream::named("a").await, Refusing::start(), Upstream::start().await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&a, "a"), &Named(&away, "b")])
        .of_upstream("health_check", "{ path: /health, interval: 1s, fall: 1 }")
        .upstream("push", &[&push])
        .route("{ path: /events, upstream: push }")
        .route("{ upstream: chat }")
        .run()
        .await;
    obeyed(&proxy, "state", json!({ "upstream": "chat", "server": "a", "state": "ready" })).await;
    let status = status_once(&proxy, "the server that is away to be down", |status| {
        status["upstreams"][0]["servers"][1]["is_up"] == false
    })
    .await;
    let server = &status["upstreams"][0]["servers"][1];
    assert_eq!(
        (&server["name"], &server["state"], &server["state_by"]),
        (&json!("b"), &json!("ready"), &json!("file"))
    );
    let health = &server["health"];
    assert_eq!((&health["found_by"], &health["checks"]), (&json!("checks"), &json!("failing")), "{health}");
    assert!(health["reason"].as_str().is_some_and(|reason| reason.contains("refused")), "{health}");
    assert_eq!(status["upstreams"][0]["servers"][0]["state_by"], "operator");

    let process = &status["process"];
    assert_eq!((&process["state"], &process["threads"]), (&json!("ready"), &json!(2)), "{process}");
    assert!(process["uptime_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{process}");
    assert_eq!(process["last_reload"], Value::Null);
    assert_eq!(status["listeners"][0]["address"], proxy.address().to_string());

    let _events = open_events(&proxy, &push).await;
    let status =
        status_once(&proxy, "the stream to be seen", |status| status["upstreams"][1]["open"]["sse"] == 1).await;
    let server = &status["upstreams"][1]["servers"][0];
    assert_eq!((&server["share"], &server["ideal_share"]), (&json!(1.0), &json!(1.0)), "{server}");
    assert!(status["client_connections"].as_u64().is_some_and(|count| count >= 1), "{status}");

    // What was refused is told as it was.
    proxy.rewrite(&[("upstream: push", "upstream: pull")]);
    assert_eq!(proxy.order("reload", json!({})).await.status(), 422);
    let reload = read(&proxy, "status").await["process"]["last_reload"].clone();
    assert_eq!(reload["result"], "refused");
    assert!(reload["error"].as_str().is_some_and(|error| error.contains("pull")), "{reload}");
}

#[tokio::test]
async fn counts_only_grow_and_drains_are_told_with_their_server() {
    let (a, b) = (Upstream::start().await, Upstream::named("b").await);
    let proxy = Proxy::start().upstream("chat", &[&Named(&Weighted(&a, 3), "a"), &Named(&b, "b")]).run().await;
    obeyed(&proxy, "state", json!({ "upstream": "chat", "server": "b", "state": "maint" })).await;
    let (client, server) = open(&proxy, &a).await;
    obeyed(&proxy, "state", json!({ "upstream": "chat", "server": "b", "state": "file" })).await;
    let before = status_once(&proxy, "the WebSocket", |status| status["upstreams"][0]["open"]["websocket"] == 1).await;
    let shares = |status: &Value| {
        let servers = status["upstreams"][0]["servers"].as_array().cloned().unwrap_or_default();
        servers.iter().map(|it| (it["share"].clone(), it["ideal_share"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(shares(&before), [(json!(1.0), json!(0.75)), (json!(0.0), json!(0.25))]);

    let order = json!({ "upstream": "chat", "server": "a", "spread": "1h", "timeout": "2h" });
    assert_eq!(obeyed(&proxy, "drain", order).await["open_before"], 1);
    assert_eq!(shares(&read(&proxy, "status").await)[0].1, 0.0);
    let status = read(&proxy, "status").await;
    let drain = &status["upstreams"][0]["servers"][0]["drain"];
    assert_eq!(
        (&drain["open"], &drain["spread_seconds"], &drain["is_over"]),
        (&json!(1), &json!(3600.0), &json!(false))
    );
    assert_eq!(status["drains"].as_array().map(Vec::len), Some(1));
    assert_eq!(read(&proxy, "drains").await[0]["timeout_seconds"], 7200.0);

    assert_eq!(proxy.exchange(GET).await.text(), "b");
    drop((client, server));
    let after = status_once(&proxy, "it to be counted", |status| {
        let ends = &status["totals"]["ends"];
        let has_ended = ends["websocket"].as_object().is_some_and(|ends| !ends.is_empty());
        // An end is counted before the request that it is of.
        ends["http"]["complete"] == 1 && has_ended && status["totals"]["requests"]["1xx"] == 1
    })
    .await;
    let requests = |status: &Value, class: &str| status["totals"]["requests"][class].as_u64().expect("a count");
    assert_eq!((requests(&before, "1xx"), requests(&after, "1xx"), requests(&after, "2xx")), (0, 1, 1));
    let answer = obeyed(&proxy, "undrain", json!({ "upstream": "chat", "server": "a" })).await;
    assert_eq!(answer, json!({ "upstream": "chat", "server": "a" }));
    assert_eq!(read(&proxy, "drains").await, json!([]));
}

#[tokio::test]
async fn the_status_says_what_the_doctor_says() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&server]).run().await;
    let damaged = "GET /ws HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for _ in 0..20 {
        assert_eq!(proxy.exchange(damaged).await.status(), 426);
    }
    let line = proxy.heard("affinity damaged_handshakes: ").await;
    let status = read(&proxy, "status").await;
    let [finding] = &status["findings"].as_array().expect("a list")[..] else { panic!("{}", status["findings"]) };
    assert_eq!((&finding["kind"], &finding["upstream"]), (&json!("damaged_handshakes"), &json!("chat")));
    let sentence = finding["sentence"].as_str().expect("a sentence");
    assert!(line.ends_with(sentence), "{sentence:?} is not what was said: {line:?}");
    assert_eq!(status["totals"]["damaged_handshakes"]["no_upgrade"], 20);
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_that_names_it() {
    let server = Upstream::named("a").await;
    let proxy = Proxy::start().upstream("chat", &[&Named(&server, "a"), &Named(&Refusing::start(), "b")]).run().await;
    for (name, order, status, part) in [
        ("drain", "", 400, "the body is missing"),
        ("drain", "upstream=chat", 400, "expected value at line 1"),
        ("drain", "[]", 400, "the body is a list"),
        ("drain", r#"{"upstreem":"chat"}"#, 400, "unknown field `upstreem`"),
        ("drain", r#"{"server":"a"}"#, 400, "upstream is missing"),
        ("drain", r#"{"upstream":"chat","spread":"soon"}"#, 400, "spread: \"soon\""),
        ("drain", r#"{"upstream":"chut"}"#, 404, "there is no upstream chut; there are chat"),
        ("undrain", r#"{"upstream":"chat","server":"c"}"#, 404, "no server c of upstream chat; there are a, b"),
        ("undrain", r#"{"spread":"1s"}"#, 400, "unknown field `spread`"),
        ("state", r#"{"upstream":"chat","server":"a"}"#, 400, "missing field `state`"),
        ("state", r#"{"upstream":"chat","server":"a","state":"up"}"#, 400, "unknown variant `up`"),
        ("weight", r#"{"upstream":"chat","server":"a","weight":0}"#, 400, "weight: 0 is wrong; write a number from 1"),
        ("weight", r#"{"upstream":"chat","server":"c","weight":1}"#, 404, "there are a, b"),
        ("rebalance", r#"{"upstream":"chat","per_minute":101}"#, 400, "per_minute: 101 is wrong"),
        ("rebalance", r#"{"upstream":"chut"}"#, 404, "there are chat"),
        ("reload", r#"{"now":true}"#, 400, "unknown field `now`"),
        ("nothing", "{}", 404, "status, live, relays"),
        ("status", "{}", 405, "only GET, HEAD"),
        ("relays", "{}", 405, "only GET, HEAD"),
    ] {
        check_problem(&proxy.order_of(name, order).await, status, part);
    }
    check_problem(&proxy.order_of("drain", &" ".repeat(17 * 1024)).await, 413, "larger than 16384 bytes");
    for (method, resource, status, part) in [
        ("GET", "drain", 405, "only POST"),
        ("DELETE", "status", 405, "only GET, HEAD"),
        ("PUT", "relays/1", 405, "only GET, HEAD, DELETE"),
        ("GET", "relays/x", 400, "an id is a number"),
        ("GET", "relays/18446744073709551615", 404, "there is no relay of this id"),
        ("DELETE", "relays/x", 400, "an id is a number"),
        ("GET", "relays?limit=0", 400, "limit: \"0\" is wrong"),
        ("GET", "relays?client=me", 400, "client: \"me\" is wrong"),
        ("GET", "relays?min_age=5", 400, "min_age: "),
        ("GET", "relays?colour=red", 400, "\"colour\" is unknown"),
        ("GET", "explain?path=x", 400, "path: \"x\" is wrong"),
        ("GET", "explain?header=x", 400, "header: \"x\" is wrong"),
        ("GET", "rebalance", 400, "upstream is missing"),
        ("GET", "rebalance?upstream=chut", 404, "there are chat"),
        ("GET", "", 404, "below /api/v1/ there are status"),
        ("POST", "drain", 403, "send X-Steadfast: 1"),
    ] {
        let answer = proxy.admin_asked(method, &format!("/api/v1/{resource}")).await;
        check_problem(&answer, status, part);
        assert_eq!(answer.head.field("allow").is_some(), status == 405, "{method} {resource}");
    }
    // Nothing of it has changed anything.
    let status = read(&proxy, "status").await;
    assert_eq!((&status["drains"], &status["process"]["state"]), (&json!([]), &json!("ready")));
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let (server, token) = (Upstream::start().await, SecretFile::with("0123456789abcdef"));
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&server, "a")])
        .secret(&token)
        .line("session_store: { url: \"redis://user:p@ss-word@127.0.0.1:1/2\" }")
        .run()
        .await;
    let config = read(&proxy, "config").await;
    assert_eq!(config["upstreams"]["chat"]["servers"][0]["name"], "a");
    assert_eq!(config["session_store"]["url"], "redis://***@127.0.0.1:1/2");
    assert!(config["affinity_secret_file"].as_str().is_some_and(|path| path.starts_with('/')), "{config}");
    let text = config.to_string();
    assert!(!text.contains("ss-word") && !text.contains("0123456789abcdef"), "{text}");
}

/// How many watch at most.
const WATCHERS_MAX: usize = 32;

/// What a watcher asks for.
const LIVE: &str = "GET /api/v1/live HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";

/// A watcher, behind the head of what it gets.
async fn watch(proxy: &Proxy) -> Wire {
    let mut watcher = proxy.connect_admin().await;
    watcher.send(LIVE).await;
    let head = watcher.head().await;
    assert_eq!((head.status(), head.field("content-type").as_deref()), (200, Some("text/event-stream")));
    watcher
}

/// The next event that a watcher sees; `None` at the end.
async fn next_event(watcher: &mut Wire) -> Option<Value> {
    let event = String::from_utf8(watcher.chunk().await?).expect("it is text");
    let data = event.strip_prefix("event: status\ndata: ").and_then(|event| event.strip_suffix("\n\n"));
    Some(serde_json::from_str(data.unwrap_or_else(|| panic!("no event: {event:?}"))).expect("it is JSON"))
}

#[tokio::test]
async fn watchers_see_the_status_live_until_the_process_stops() {
    let server = Upstream::start().await;
    let mut proxy = Proxy::start().upstream("chat", &[&Named(&server, "a")]).run().await;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS_MAX {
        watchers.push(watch(&proxy).await);
    }
    let mut first = watchers.remove(0);
    let seen = next_event(&mut first).await.expect("one at once");
    assert_eq!(seen["upstreams"][0]["servers"][0]["state"], "ready");
    obeyed(&proxy, "state", json!({ "upstream": "chat", "server": "a", "state": "maint" })).await;
    soon("the change to be seen", async {
        while next_event(&mut first).await.expect("it goes on")["upstreams"][0]["servers"][0]["state"] != "maint" {}
    })
    .await;

    check_problem(&proxy.admin("/api/v1/live").await, 503, "32 watch already");
    drop(watchers.pop());
    there_is_room(&proxy).await;

    proxy.terminate();
    let mut last = Value::Null;
    while let Some(event) = soon("the end of the stream", next_event(&mut first)).await {
        last = event;
    }
    assert_eq!(last["process"]["state"], "stopping");
    first.ends().await;
    assert!(proxy.exit().await.success());
}

/// Waits until one more can watch.
async fn there_is_room(proxy: &Proxy) {
    within(seconds(30), "room for a watcher", async {
        loop {
            let mut watcher = proxy.connect_admin().await;
            watcher.send(LIVE).await;
            if watcher.head().await.status() == 200 {
                return;
            }
            tokio::time::sleep(millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn watchers_that_do_not_read_are_let_go() {
    // So many servers that a few events are more than a socket takes.
    let servers: Vec<_> = (1..=400).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let proxy = Proxy::start().upstream_of("chat", &servers.join(", ")).run().await;
    let mut slow = Vec::new();
    for _ in 0..WATCHERS_MAX {
        let mut watcher = proxy.connect_admin_narrow().await;
        watcher.send(LIVE).await;
        slow.push(watcher);
    }
    // They have their places, and hold nobody up.
    soon("the last place to be taken", async {
        let is_full = async || {
            let mut watcher = proxy.connect_admin().await;
            watcher.send(LIVE).await;
            watcher.head().await.status() == 503
        };
        while !is_full().await {
            tokio::time::sleep(millis(20)).await;
        }
    })
    .await;
    assert_eq!(read(&proxy, "status").await["upstreams"][0]["servers"].as_array().map(Vec::len), Some(400));
    there_is_room(&proxy).await;
    drop(slow);
}

#[tokio::test]
async fn who_watches_by_an_old_token_sees_no_more() {
    let (server, token) = (Upstream::start().await, SecretFile::with("0123456789abcdef"));
    let setup = Proxy::start().upstream("chat", &[&Named(&server, "a")]);
    let proxy = setup.admin(&format!("token_file: {}", token.path().display())).run().await;
    let mut watcher = watch(&proxy).await;
    next_event(&mut watcher).await.expect("one at once");
    std::fs::write(token.path(), "fedcba9876543210").expect("the file is ours");
    proxy.hang_up();
    soon("the end of the stream", async { while next_event(&mut watcher).await.is_some() {} }).await;
}

#[tokio::test]
async fn a_weight_by_order_moves_clients_as_one_in_the_file_does() {
    const KEYS: usize = 200;
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let owners = async |proxy: &Proxy| {
        let (mut client, mut owners) = (proxy.connect().await, Vec::new());
        for key in 0..KEYS {
            owners.push(keyed(&mut client, &format!("client-{key}")).await.text());
        }
        owners
    };
    let setup = |weight: u32| {
        let servers = [&Named(&a, "a") as &dyn ServerEntry, &Named(&Weighted(&b, weight), "b")];
        Proxy::start().upstream("chat", &servers).affinity("[{ header: X-Key }]").balance("{ balance_factor: off }")
    };
    let (even, uneven) = (setup(1).run().await, setup(5).run().await);
    let (before, expected) = (owners(&even).await, owners(&uneven).await);
    assert_ne!(before, expected);
    let weigh = |weight: Value| json!({ "upstream": "chat", "server": "b", "weight": weight });
    obeyed(&even, "weight", weigh(json!(5))).await;
    even.settles("steadfast_server_weight", &[("server", "b")], 5.0).await;
    assert_eq!(owners(&even).await, expected);
    // It outlives what the file says.
    even.reload(&[("threads: 2", "threads: 2 # again")]).await;
    assert_eq!(owners(&even).await, expected);
    let servers = read(&even, "status").await["upstreams"][0]["servers"].clone();
    assert_eq!((&servers[1]["weight"], &servers[1]["weight_by"]), (&json!(5), &json!("operator")));
    assert!((servers[1]["ideal_share"].as_f64().expect("a number") - 5.0 / 6.0).abs() < 1e-9, "{servers}");
    obeyed(&even, "weight", weigh(json!("file"))).await;
    even.settles("steadfast_server_weight", &[("server", "b")], 1.0).await;
    assert_eq!(owners(&even).await, before);
}

#[tokio::test]
async fn whoever_stays_is_listed_once_while_others_come_and_go() {
    const STAYING: usize = 250;
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&Named(&server, "a")]).threads(3).run().await;
    let (mut staying, mut passing) = (Vec::new(), Vec::new());
    // Every third one leaves while the others are listed.
    for number in 0..STAYING * 3 / 2 {
        let pair = open(&proxy, &server).await;
        if number % 3 == 2 { passing.push(pair) } else { staying.push(pair) }
    }
    let all = proxy.relays_once(STAYING * 3 / 2, "limit=1000&first=oldest").await;
    let ids = |page: &Value| -> Vec<u64> {
        page["relays"].as_array().expect("a list").iter().filter_map(|relay| relay["id"].as_u64()).collect()
    };
    let all = ids(&all);
    for first in ["oldest", "newest"] {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = proxy.relays(&format!("limit=7&first={first}{after}")).await;
            assert_eq!(page["complete"], true);
            seen.extend(ids(&page));
            drop(passing.pop());
            drop(passing.pop());
            passing.insert(0, open(&proxy, &server).await);
            match page["next"].as_u64() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        let once: BTreeSet<_> = seen.iter().copied().collect();
        assert_eq!(once.len(), seen.len(), "{first}: some are there twice");
        let ordered = if first == "oldest" { seen.is_sorted() } else { seen.iter().rev().is_sorted() };
        assert!(ordered, "{first}: {seen:?}");
        // Each of the first relays is either gone, or was seen.
        let there: BTreeSet<_> = ids(&proxy.relays("limit=1000").await).into_iter().collect();
        let missed: Vec<_> = all.iter().filter(|id| there.contains(id) && !once.contains(id)).collect();
        assert!(missed.is_empty(), "{first}: {missed:?} were not listed");
        assert!(there.intersection(&all.iter().copied().collect()).count() >= STAYING);
    }
    let id = all[0];
    assert_eq!(read(&proxy, &format!("relays/{id}")).await["id"], id);
    drop(staying);
}

#[tokio::test]
async fn an_explanation_knows_what_the_proxy_knows() {
    let (a, b) = (Upstream::named("a").await, Upstream::named("b").await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")])
        .affinity("[{ header: X-Key }]")
        .run()
        .await;
    let mut client = proxy.connect().await;
    let explained = async |key: &str| read(&proxy, &format!("explain?path=/keyed&header=X-Key:{key}")).await;
    for key in ["one", "two", "three", "four"] {
        let explanation = explained(key).await;
        assert_eq!(explanation["servers"][0]["name"], keyed(&mut client, key).await.text(), "{explanation}");
        assert_eq!(explanation["affinity"][0]["decides"], true);
    }
    obeyed(&proxy, "state", json!({ "upstream": "chat", "server": "a", "state": "maint" })).await;
    let explanation = explained("one").await;
    assert_eq!(explanation["servers"].as_array().map(Vec::len), Some(1), "{explanation}");
    assert_eq!(explanation["not_tried"][0]["note"], "state maint, so nothing");
    assert_eq!(explanation["route"]["upstream"], "chat");
}

#[tokio::test]
async fn relays_move_by_order_until_none_strays() {
    const OTHERS: usize = 19;
    let (a, b) = (Upstream::start().await, Upstream::start().await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")])
        .affinity("[{ header: X-Key }]")
        .balance("{ balance_factor: off }")
        .run()
        .await;
    // One whose server is away when it comes, and others who are where they belong.
    let (mut strays, mut others) = (Vec::new(), Vec::new());
    for number in 0.. {
        let explanation = read(&proxy, &format!("explain?header=X-Key:{number}")).await;
        match explanation["servers"][0]["name"].as_str() {
            Some("a") if strays.is_empty() => strays.push(number),
            Some("b") if others.len() < OTHERS => others.push(number),
            _ if others.len() == OTHERS && !strays.is_empty() => break,
            _ => {}
        }
    }
    obeyed(&proxy, "state", json!({ "upstream": "chat", "server": "a", "state": "maint" })).await;
    let mut pairs = JoinSet::new();
    for key in strays.iter().chain(&others) {
        let mut client = proxy.connect().await;
        let fields = format!("X-Key: {key}\r\n");
        client.send(websocket_request("/ws", &fields)).await;
        let mut server = b.accept().await;
        server.request().await;
        server.send(SWITCHING).await;
        client.head().await;
        pairs.spawn(async move {
            // Whoever is told to leave says good-bye.
            server.exactly(1).await;
            server.send([0x88, 0x00]).await;
            let frame = next_frame(&mut client).await;
            client.send([0x88, 0x80, 0, 0, 0, 0]).await;
            client.ends().await;
            frame
        });
    }
    obeyed(&proxy, "state", json!({ "upstream": "chat", "server": "a", "state": "file" })).await;
    let plan = soon("the plan", async {
        loop {
            let plan = read(&proxy, "rebalance?upstream=chat").await;
            if plan["relays"] == OTHERS + 1 {
                return plan;
            }
            tokio::time::sleep(millis(20)).await;
        }
    })
    .await;
    let moves = json!([{ "from": "b", "to": "a", "relays": 1 }]);
    assert_eq!((&plan["strays"], &plan["moves"], &plan["by"]), (&json!(1), &moves, &Value::Null), "{plan}");
    let plan = obeyed(&proxy, "rebalance", json!({ "upstream": "chat", "per_minute": 100 })).await;
    assert_eq!((&plan["by"], &plan["percent_per_minute"]), (&json!("operator"), &json!(100)), "{plan}");
    let moved = within(seconds(30), "the stray to move", pairs.join_next()).await.map(|it| it.expect("it ends"));
    assert_eq!(moved, Some((0x88, close(1012, "service restart"))));
    proxy.heard("rebalance: upstream chat: everybody is where they belong").await;
    let plan = read(&proxy, "rebalance?upstream=chat").await;
    assert_eq!((&plan["relays"], &plan["strays"], &plan["by"]), (&json!(OTHERS), &json!(0), &Value::Null), "{plan}");
}

//! The dashboard as operators meet it: in a browser, beside real traffic. Its numbers are the proxy's, its buttons
//! do what they say, nobody is kept out, and no word from a network is more than a word.
//!
//! With `STEADFAST_SCREENSHOTS=1` the first test takes its time and leaves its pictures in `conf/images`.

use std::path::Path;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::client::SWITCHING;
use crate::harness::upstream::ok;
use crate::harness::websocket::{masked, short};
use crate::harness::{Named, PATIENCE, Page, Proxy, ServerEntry, Upstream, Wire, seconds, websocket_request};

const SCREEN: (u32, u32) = (1200, 860);
const PHONE: (u32, u32) = (360, 780);

/// What would run if a text were taken for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">";

/// A server that answers requests and checks, and keeps WebSockets and event streams until they are to end.
async fn server() -> Upstream {
    Upstream::serving(|mut wire| async move {
        while let Some(request) = wire.next_request().await {
            match request.head.start.split(' ').nth(1) {
                Some("/ws") => {
                    wire.send(SWITCHING).await;
                    return stay(wire, short).await;
                }
                Some("/events" | "/feed") => {
                    wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await;
                    return read_on(wire).await;
                }
                _ => wire.send(ok("")).await,
            }
        }
    })
    .await
}

/// One side of a WebSocket: answers every ping, and the Close.
async fn stay(mut wire: Wire, framed: impl Fn(u8, &[u8]) -> Vec<u8>) {
    while wire.comes().await {
        let Ok(head) = wire.try_exactly(2).await else { return };
        let mask = if head[1] & 0x80 == 0 { 0 } else { 4 };
        let Ok(payload) = wire.try_exactly(usize::from(head[1] & 0x7f) + mask).await else { return };
        let answer = match head[0] {
            0x88 => 0x88,
            0x89 => 0x8a,
            _ => continue,
        };
        let payload = if mask == 0 { &payload[..] } else { &[] };
        if wire.try_send(&framed(answer, payload)).await.is_err() || answer == 0x88 {
            return;
        }
    }
}

/// Takes whatever comes, until nothing does any more.
async fn read_on(mut wire: Wire) {
    while wire.comes().await {
        wire.some().await;
    }
}

/// Clients that stay.
#[derive(Default)]
struct Clients {
    staying: JoinSet<()>,
    number: usize,
}

impl Clients {
    /// So many more WebSockets, each of an address of its own.
    async fn websockets(&mut self, proxy: &Proxy, count: usize) {
        for _ in 0..count {
            let mut client = proxy.send(websocket_request("/ws", &self.next_address())).await;
            assert_eq!(client.head().await.status(), 101);
            self.staying.spawn(stay(client, |frame, payload| masked(frame, payload, [7; 4])));
        }
    }

    /// So many more event streams at `path`.
    async fn streams(&mut self, proxy: &Proxy, path: &str, count: usize) {
        for _ in 0..count {
            let address = self.next_address();
            let mut client = proxy.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{address}\r\n")).await;
            assert_eq!(client.head().await.status(), 200);
            self.staying.spawn(read_on(client));
        }
    }

    fn next_address(&mut self) -> String {
        self.number += 1;
        format!("X-Forwarded-For: 203.0.{}.{}\r\n", self.number / 250, self.number % 250 + 1)
    }
}

async fn status(proxy: &Proxy) -> Value {
    proxy.admin("/api/v1/status").await.json()
}

/// The part of the page that is about a server.
fn part(server: &str, of: &str) -> String {
    format!("[data-server=\"{server}\"] {of}")
}

/// What the page shows as open and as ended is what the API tells, at last: the page hears of them every second.
async fn check_numbers(proxy: &Proxy, page: &mut Page) {
    const SHOWN: &str = "(() => {
        const number = (root, name) => Number(root.querySelector(name).innerText.replace(/[^0-9]/g, ''));
        const each = (name, key) => Object.fromEntries([...document.querySelectorAll(name)].map(
            (root) => [root.dataset[key], number(root, '.figure')]));
        const kinds = [...document.querySelectorAll('.legend b')].map((it) => Number(it.innerText));
        const ends = [...document.querySelectorAll('#ends tbody tr')].map((row) => {
            const [, staying, , plain] = [...row.cells].slice(1).map((it) => Number(it.innerText.replace(',', '')));
            return [row.cells[0].innerText, staying + plain];
        });
        return { open: number(document, '#open'), kinds, ends: Object.fromEntries(ends),
            upstreams: each('[data-upstream]', 'upstream'), servers: each('[data-server]', 'server') };
    })()";
    let all = |open: &Value| open.as_object().expect("kinds").values().filter_map(Value::as_u64).sum::<u64>();
    let each = |ends: &Value| {
        let counts = ends.as_object().expect("reasons").clone().into_iter();
        let counts = counts.map(|(reason, count)| (reason.replace('_', " "), count.as_u64().expect("a count")));
        counts.filter(|(_, count)| *count > 0).collect::<Vec<_>>()
    };
    let told = |status: &Value| {
        let upstreams = status["upstreams"].as_array().expect("a list");
        let servers = upstreams.iter().flat_map(|it| it["servers"].as_array().expect("a list"));
        let named = |it: &Value| (it["name"].as_str().expect("a name").to_owned(), json!(all(&it["open"])));
        let mut ends = serde_json::Map::new();
        for (reason, count) in status["totals"]["ends"].as_object().expect("kinds").values().flat_map(each) {
            let sum = ends.get(&reason).and_then(Value::as_u64).unwrap_or_default();
            ends.insert(reason, (sum + count).into());
        }
        let of_kind = |kind: &str| upstreams.iter().filter_map(|it| it["open"][kind].as_u64()).sum::<u64>();
        json!({
            "open": upstreams.iter().map(|it| all(&it["open"])).sum::<u64>(),
            "kinds": (["websocket", "sse", "tunnel", "http"].map(of_kind)),
            "ends": ends,
            "upstreams": upstreams.iter().map(named).collect::<serde_json::Map<_, _>>(),
            "servers": servers.map(named).collect::<serde_json::Map<_, _>>(),
        })
    };
    let (mut shown, mut expected) = (Value::Null, json!({}));
    let equal = async {
        while shown != expected {
            (expected, shown) = (told(&status(proxy).await), page.look(SHOWN).await);
        }
    };
    let equal = tokio::time::timeout(PATIENCE, equal).await;
    assert!(equal.is_ok(), "the page shows {shown}, the API tells {expected}");
    assert!(expected["open"].as_u64() > Some(0) && expected["ends"]["client closed"].as_u64() >= Some(6), "{expected}");
}

/// So many requests by many kinds of browsers that seem to have one address.
async fn hide(proxy: &Proxy, requests: usize) {
    let mut hop = proxy.connect().await;
    for number in 0..requests {
        let fields = format!("X-Forwarded-For: 192.0.2.1\r\nUser-Agent: Browser/{}\r\n", number % 20);
        hop.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        hop.response().await;
    }
}

/// Half a minute of coming and going.
async fn live_a_while(proxy: &Proxy, clients: &mut Clients) {
    for second in 0..30 {
        let mut passing = Clients { number: 1000 + 50 * second, ..Clients::default() };
        passing.websockets(proxy, 4 + second % 9).await;
        passing.streams(proxy, "/feed", 2 + second % 5).await;
        for path in ["/", "/", "/favicon.ico"].repeat(4) {
            proxy.exchange(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{}\r\n", passing.next_address())).await;
        }
        clients.websockets(proxy, 1).await;
        tokio::time::sleep(seconds(1)).await;
    }
}

/// Takes a picture that is small enough for a README, and leaves it there where that is wanted.
async fn picture(page: &mut Page, name: &str, is_kept: bool) {
    let picture = page.picture().await;
    assert!(picture.starts_with(b"\x89PNG") && picture.len() < 150_000, "{name} has {} bytes", picture.len());
    if is_kept {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/images");
        std::fs::create_dir_all(&directory).expect("the directory can be made");
        std::fs::write(directory.join(format!("{name}.png")), picture).expect("the picture can be written");
    }
}

/// Nobody is kept out, and nothing reaches over the edge.
async fn check_usable(page: &mut Page, how: &str) {
    assert_eq!(page.barriers().await, json!([]), "{how}");
    let over = page.look("document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
    assert_eq!(over, 0, "{how}: it reaches over the edge");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_can_see_what_the_api_says() {
    let is_for_the_readme = std::env::var_os("STEADFAST_SCREENSHOTS").is_some();
    let servers = [server().await, server().await, server().await, server().await];
    let [a, b, c, feed] = &servers;
    let proxy = Proxy::start()
        .trusting("[127.0.0.0/8]")
        .upstream("chat", &[&Named(a, "chat-1"), &Named(b, "chat-2"), &Named(c, "chat-3")])
        .websocket("{ ping: 2s }")
        .sse("{ keepalive: 2s }")
        .of_upstream("drain", "{ spread: 40s, timeout: 1m }")
        .upstream("feed", &[&Named(feed, "feed-1")])
        .sse("{ keepalive: 2s }")
        .route("{ path: /feed, upstream: feed }")
        .route("{ upstream: chat }")
        .run()
        .await;
    let mut page = Page::dashboard(&proxy, SCREEN).await;
    let (mut clients, mut leaving) = (Clients::default(), Clients::default());
    let crowd = if is_for_the_readme { 40 } else { 4 };
    for _ in 0..3 {
        clients.websockets(&proxy, crowd).await;
        clients.streams(&proxy, "/events", crowd / 2).await;
        clients.streams(&proxy, "/feed", crowd / 4).await;
        leaving.websockets(&proxy, 2).await;
        if is_for_the_readme {
            live_a_while(&proxy, &mut clients).await;
        }
    }
    leaving.staying.shutdown().await;
    hide(&proxy, if is_for_the_readme { 2_400 } else { 200 }).await;

    page.says("#ends tbody", "client closed").await;
    page.says("#notices", "hides many clients behind").await;
    check_numbers(&proxy, &mut page).await;
    proxy.order("drain", json!({ "upstream": "chat", "server": "chat-2" })).await;
    page.says(&part("chat-2", ".drain"), "draining: ").await;

    // For everybody, however they look at it.
    check_usable(&mut page, "light").await;
    picture(&mut page, "dashboard-light", is_for_the_readme).await;
    let light = page.look("getComputedStyle(document.body).backgroundColor").await;
    page.dress(true, true).await;
    let dark = page.look("getComputedStyle(document.body).backgroundColor").await;
    assert_ne!(dark, light);
    assert_eq!(page.look("getComputedStyle(document.querySelector('.segment')).transitionDuration").await, "0s");
    check_usable(&mut page, "dark").await;
    picture(&mut page, "dashboard-dark", is_for_the_readme).await;
    page.click("#theme").await;
    assert_eq!(page.look("getComputedStyle(document.body).backgroundColor").await, light, "by the button");
    page.resize(PHONE).await;
    check_usable(&mut page, "on a phone").await;
    picture(&mut page, "dashboard-phone", is_for_the_readme).await;
    page.click("summary").await;
    let now = page.until("document.querySelector('details td:last-child')?.innerText");
    assert!(now.await.as_str().is_some_and(|now| now.parse::<usize>().is_ok_and(|now| now > 0)));

    // Nothing of it came from elsewhere, and nothing was forbidden.
    let origins = "[...new Set(performance.getEntriesByType('resource').map(({ name }) => new URL(name).origin))]";
    assert_eq!(page.look(origins).await, json!([format!("http://{}", proxy.admin_address())]));
    assert_eq!(page.problems(), [json!(null); 0]);
    proxy.terminate();
    page.says("#link", "The proxy is gone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_down_says_why_and_no_word_is_more_than_a_word() {
    let (a, b) = (server().await, server().await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")])
        .of_upstream("health_check", "{ path: /, interval: 100ms, rise: 1, fall: 2 }")
        .run()
        .await;
    let mut page = Page::dashboard(&proxy, SCREEN).await;
    page.says(&part("b", ".condition"), "up for ").await;
    drop(b);
    let down = page.says(&part("b", ".condition"), "down for ").await;
    let health = status(&proxy).await["upstreams"][0]["servers"][1]["health"].take();
    let reason = health["reason"].as_str().expect("there is one");
    assert!(down.contains(reason) && down.contains("(a check)"), "{down:?} for {health}");
    page.says(".summary", "1 of 2 servers up").await;
    page.says("#notices", "Upstream chat: 1 of 2 servers down").await;

    // A file with somebody else's words in it.
    let refused = proxy.reload(&[("name: a", &format!("name: '{}'", HOSTILE.replace('\'', "''")))]).await;
    assert_eq!(refused.status(), 422, "{}", refused.text());
    page.says("#notices", "The new configuration was refused").await;
    page.says("#notices", "<img src=x onerror=").await;
    page.says("#facts", "1 refused").await;
    assert_eq!(page.problems(), [json!(null); 0]);

    // And whatever else could come from anywhere.
    let mut status = status(&proxy).await;
    poison(&mut status);
    status["totals"]["errors"][HOSTILE] = 1.into();
    status["totals"]["ends"]["http"][HOSTILE] = 1.into();
    status["findings"] = json!([{ "kind": HOSTILE, "upstream": HOSTILE, "sentence": HOSTILE }]);
    page.is_answered("**/api/v1/live", "text/event-stream", &format!("event: status\ndata: {status}\n\n")).await;
    page.reload().await;
    for place in ["#notices", "#facts", "#ends", "#troubles", "[data-upstream] h2", "[data-server] h3", ".condition"] {
        page.says(place, HOSTILE).await;
    }
    assert_eq!(page.look("[document.images.length, document.title.includes('taken')]").await, json!([1, false]));
}

/// Puts hostile words in the place of all others.
fn poison(value: &mut Value) {
    match value {
        Value::String(text) => *text = HOSTILE.to_owned(),
        Value::Array(values) => values.iter_mut().for_each(poison),
        Value::Object(fields) => {
            // Times are the proxy's own.
            fields.iter_mut().filter(|(name, _)| *name != "started_at" && *name != "at").for_each(|(_, it)| poison(it));
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_drained_and_undrained_by_keys_alone() {
    const CLIENTS: usize = 10;
    let (a, b) = (server().await, server().await);
    let proxy = Proxy::start()
        .upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")])
        .of_upstream("drain", "{ spread: 3s, timeout: 5s }")
        .run()
        .await;
    proxy.order("state", json!({ "upstream": "chat", "server": "b", "state": "maint" })).await;
    let mut clients = Clients::default();
    clients.websockets(&proxy, CLIENTS).await;
    proxy.order("state", json!({ "upstream": "chat", "server": "b", "state": "file" })).await;
    let mut page = Page::dashboard(&proxy, SCREEN).await;
    page.says(&part("a", ".figure"), "10").await;

    // To the button, and back once: nothing has happened.
    walk_to(&mut page, "a", "drain").await;
    page.press(&["Enter"]).await;
    page.says("#change-text", "10 connections will be ended over 3 s").await;
    assert_eq!(page.look("document.activeElement.closest('dialog')?.id").await, "change", "the focus is in the dialog");
    assert_eq!(page.barriers().await, json!([]));
    page.press(&["Escape"]).await;
    assert_eq!(page.look(FOCUS).await, json!(["a", "drain"]), "the focus is where it was");
    assert_eq!(proxy.admin("/api/v1/drains").await.json(), json!([]));

    // This time it is meant.
    page.press(&["Enter", "Tab"]).await;
    page.until("document.activeElement.id === 'change-yes'").await;
    page.press(&["Enter"]).await;
    page.says("#result", "a of chat is being drained").await;
    page.says(&part("a", ".drain"), "of 10 left").await;
    page.until(&format!("document.querySelector('{}').value > 0", part("a", "progress"))).await;
    page.says(&part("a", ".condition"), "drain, by an operator").await;
    page.says(&part("a", ".drain"), "nobody is left").await;
    while clients.staying.join_next().await.is_some() {}
    assert_eq!(page.look(FOCUS).await[0], "a", "the focus is still with the server");

    walk_to(&mut page, "a", "undrain").await;
    page.press(&["Enter", "Tab", "Enter"]).await;
    page.says("#result", "a of chat is drained no more").await;
    page.says(&part("a", ".condition"), "ready").await;
    assert_eq!(proxy.admin("/api/v1/drains").await.json(), json!([]));

    // What cannot be done is said where it was asked for.
    page.click(&part("b", "[data-action=maint]")).await;
    page.says("#change-text", "What is open stays open: 0 connections").await;
    let entry = format!(", {{ address: \"{}\", weight: 1, name: b }}", b.address());
    assert_eq!(proxy.reload(&[(&entry, "")]).await.status(), 200);
    page.click("#change-yes").await;
    page.says("#change-wrong", "Not done: there is no server b of upstream chat").await;
    page.click("#change-no").await;
    page.until("document.querySelector('[data-server=b]') === null").await;
}

/// Which server's element has the focus, and what it does.
const FOCUS: &str =
    "[document.activeElement.closest('[data-server]')?.dataset.server, document.activeElement.dataset.action]";

/// Goes to a button of a server as somebody does who has no mouse.
async fn walk_to(page: &mut Page, server: &str, action: &str) {
    const STEPS_MAX: usize = 30;
    let there = format!(
        "document.querySelector('{}:not([hidden])') !== null",
        part(server, &format!("[data-action={action}]"))
    );
    page.until(&there).await;
    for _ in 0..STEPS_MAX {
        if page.look(FOCUS).await == json!([server, action]) {
            assert_ne!(page.look("getComputedStyle(document.activeElement).outlineStyle").await, "none", "it is seen");
            return;
        }
        page.press(&["Tab"]).await;
    }
    panic!("no key leads to {action} of {server}: {}", page.look("document.activeElement.outerHTML").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_the_token_sees_and_changes() {
    const TOKEN: &str = "0123456789abcdef";
    let server = server().await;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::io::Write::write_all(&mut file, TOKEN.as_bytes()).expect("the file is ours");
    let setup = Proxy::start().upstream("chat", &[&Named(&server, "a")]);
    let proxy = setup.admin(&format!("token_file: {}", file.path().display())).run().await;
    assert_eq!(proxy.admin("/api/v1/live").await.status(), 401);
    let mut page = Page::dashboard(&proxy, PHONE).await;
    page.says("#token", "asks for a token").await;
    check_usable(&mut page, "the question").await;
    page.write("0123456789abcdeF").await; // The focus is there already.
    page.press(&["Enter"]).await;
    page.says("#token-wrong", "not the proxy’s token").await;
    assert_eq!(page.look("document.querySelector('#board').hidden").await, true);
    page.write(TOKEN).await;
    page.press(&["Enter"]).await;
    page.says(&part("a", ".condition"), "ready").await;

    // It is in no place where it does not belong.
    let kept = "[location.href, document.cookie, JSON.stringify({ ...localStorage }), document.body.innerHTML,
        ...performance.getEntriesByType('resource').map(({ name }) => name)].some((text) => text.includes('0123'))";
    assert_eq!(page.look(kept).await, false);
    page.click(&part("a", "[data-action=maint]")).await;
    page.click("#change-yes").await;
    page.says(&part("a", ".condition"), "maint, by an operator").await;

    // Until the tab is closed, or it is told to forget.
    page.reload().await;
    page.says(&part("a", ".condition"), "maint").await;
    page.click("#forget").await;
    page.says("#token", "asks for a token").await;
}

/// Adds moments, a second apart, of a process whose counters grow evenly; then of the next one.
const LONG_WATCH: &str = "import('/dashboard/history.js').then(({ History }) => {
    const history = new History();
    const add = (pid, second, uptime, count) => history.add({
        process: { pid, started_at: new Date(1e12 + 1000 * (second - uptime)).toISOString(), uptime_seconds: uptime },
        upstreams: [{ open: { sse: 2 } }, { open: { sse: 3, http: 1 } }],
        totals: { keepalives: 3 * count, ends: { sse: { idle: count, drained: 0 } } },
    });
    for (let second = 0; second < 5000; second += 1) add(1, second, second, second);
    const told = () => [history.moments.length, history.moments.at(-1).rates?.[3] ?? null, history.increase('ends/sse')];
    const before = told();
    add(2, 5000, 0, 7);
    const [after, { open }] = [told(), history.moments.at(-1)];
    add(2, 5001, 1, 9);
    return [before, after, told(), open];
})";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_told_and_the_next_process_is_followed() {
    let server = server().await;
    let mut proxy = Proxy::start()
        .line("hand_over: { socket: DIRECTORY/hand-over.sock }")
        .upstream("chat", &[&Named(&server, "a")])
        .run()
        .await;
    let mut clients = Clients::default();
    clients.websockets(&proxy, 1).await;
    let mut page = Page::dashboard(&proxy, SCREEN).await;
    page.says("#link-word", "Live").await;
    page.says("#open", "1").await;
    // However long somebody watches, ten minutes are kept; and counters that begin again have not fallen.
    let open = json!({ "sse": 5, "http": 1 });
    let watched = page.look(LONG_WATCH).await;
    assert_eq!(watched, json!([[600, 3, 60], [600, null, 0], [600, 6, 2], open]));
    proxy.process().pause();
    page.says("#link-word", "No word from the proxy").await;
    page.says("#link-detail", "for ").await;
    proxy.process().go_on();
    page.says("#link-word", "Live").await;

    let mut old = proxy.hand_over().await;
    page.says("#facts", "1, 0").await; // Taken, given.
    page.says("#link-word", "Live").await;
    page.says(&part("a", ".figure"), "1").await;
    old.exit().await;

    // What comes after the end is no news.
    proxy.terminate();
    page.says("#link", "The proxy is gone").await;
    page.says("#link-detail", "this is how it was at").await;
    page.click(&part("a", "[data-action=drain]")).await;
    page.click("#change-yes").await;
    page.says("#change-wrong", "Not done: it cannot be reached").await;
}

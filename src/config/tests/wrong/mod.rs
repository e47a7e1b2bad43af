//! Wrong files, and what each is told, word by word.

mod clients;
mod fitness;
mod process;
mod routes;
mod session_store;
mod tls;
mod upstreams;

use super::complaints;

/// A right file in which one key has another value. Its keys stand on lines 1, 2, 3; any other
/// follows on line 4.
fn with(key: &str, value: &str) -> String {
    let mut sections = vec![
        ("listeners", "[{ bind: \"0.0.0.0:8080\" }]"),
        ("upstreams", "{ chat: { servers: [\"10.0.0.1:3000\"] } }"),
        ("routes", "[{ upstream: chat }]"),
    ];
    match sections.iter_mut().find(|(name, _)| *name == key) {
        Some((_, right)) => *right = value,
        None => sections.push((key, value)),
    }
    let line = |(key, value)| format!("{key}: {value}\n");
    sections.into_iter().map(line).collect()
}

/// A right file in which the upstream has one more key.
fn with_chat(key: &str, value: &str) -> String {
    let chat = format!("{{ chat: {{ servers: [\"10.0.0.1:3000\"], {key}: {value} }} }}");
    with("upstreams", &chat)
}

/// The only complaint about `text`.
#[track_caller]
fn complaint(text: &str) -> String {
    let complaints = complaints(text);
    match <[String; 1]>::try_from(complaints) {
        Ok([complaint]) => complaint,
        Err(other) => panic!("not one complaint but {other:#?} about:\n{text}"),
    }
}

#[test]
fn all_mistakes_are_told_at_once_and_in_order() {
    let text = "\
# The comment keeps line 1.
listeners:
  - bind: 8080
  - bind: \"0.0.0.0:80\"
    tsl: {}
upstreams:
  chat:
    servers:
      - \"10.0.0.1\"
      - address: \"10.0.0.2:3000\"
        weight: 0
    timeouts:
      connect: 2
      idle: 1h
      idle: 2h
  spare:
    servers: []
    health_check:
      path: healthz
routes:
  - host: a.example
    path: chat
    upstream: chat
  - upstream: spare
  - upstream: chat
shutdwon:
  grace: 30s
upstreams: {}
";
    let expected = [
        "3: listeners[0].bind: \"8080\" is only a port; write it as \"0.0.0.0:8080\"",
        "5: listeners[1].tsl: unknown key; did you mean \"tls\"? (known here: bind, proxy_protocol, tls, h2c)",
        "9: upstreams.chat.servers[0]: \"10.0.0.1\" has no port; write it as \"10.0.0.1:3000\"",
        "11: upstreams.chat.servers[1].weight: 0 is out of range; write a number from 1 to 256",
        "13: upstreams.chat.timeouts.connect: \"2\" has no unit; write it with one, such as 2s \
         (units: ms, s, m, h, d)",
        "15: upstreams.chat.timeouts.idle: duplicate key, also on line 14; keep one of them",
        "17: upstreams.spare.servers: this list is empty; write a list of at least one, such as \
         [\"10.0.0.1:3000\"]",
        "19: upstreams.spare.health_check.path: \"healthz\" does not begin with /; write a path such as /healthz",
        "22: routes[0].path: \"chat\" does not begin with /; write a prefix such as \
         \"/socket.io/\"",
        "25: routes[2]: never reached, because routes[1] has the same host and path; remove one",
        "26: shutdwon: unknown key; did you mean \"shutdown\"? (known here: trusted_proxies, \
         listeners, client_ip, upstreams, routes, admin, resolver, affinity_secret_file, session_store, limits, tcp_keepalive, \
         access_log, traces, shutdown, hand_over, threads)",
        "28: upstreams: duplicate key, also on line 6; keep one of them",
    ];
    assert_eq!(complaints(text), expected);
}

#[test]
fn whatever_is_missing_is_told() {
    let expected = [
        "1: listeners: missing; write a list of at least one, such as \
         [{ bind: \"0.0.0.0:8080\" }]",
        "1: upstreams: missing; write a mapping of at least one, such as \
         { chat: { servers: [\"10.0.0.1:3000\"] } }",
        "1: routes: missing; write a list of at least one, such as [{ upstream: chat }]",
    ];
    assert_eq!(complaints("threads: auto\n"), expected);
    assert_eq!(complaints("{}"), expected);
}

#[test]
fn one_mistake_is_told_once() {
    // Neither is the upstream unused, nor is its name unknown, when the name was only misspelt.
    assert_eq!(
        complaint(&with("routes", "[{ upstream: caht }]")),
        "3: routes[0].upstream: no upstream is named \"caht\"; did you mean \"chat\"?"
    );
    assert_eq!(
        complaint(&with("routes", "[{ upstrem: chat }]")),
        "3: routes[0].upstrem: unknown key; did you mean \"upstream\"? \
         (known here: host, path, upstream)"
    );
    assert_eq!(
        complaint(&with("upstreams", "chat")),
        "2: upstreams: \"chat\" is text; write a mapping of at least one, such as \
         { chat: { servers: [\"10.0.0.1:3000\"] } }"
    );
    // Nobody trusted is no mistake, unless somebody is to be believed.
    let text = with_chat("affinity", "[forwarded_for]") + "trusted_proxies: []\n";
    assert_eq!(
        complaint(&text),
        "2: upstreams.chat.affinity[0]: never gives a key, because trusted_proxies is empty; \
         remove it"
    );
    let believed = "client_ip: {}\n".to_owned() + &with_chat("affinity", "[forwarded_for]");
    for wrong in ["[privat]", "private"] {
        complaint(&format!("{believed}trusted_proxies: {wrong}\n"));
    }
    assert_eq!(
        complaint(&(with("trusted_proxies", "[]") + "client_ip: { pick: first }\n")),
        "5: client_ip: never asked, because trusted_proxies is empty; remove it"
    );
}

#[test]
fn values_behind_an_alias_are_told_where_it_stands() {
    let text = "\
listeners: [{ bind: \"0.0.0.0:8080\" }]
routes: [{ path: /a, upstream: a }, { upstream: b }]
upstreams:
  a:
    servers: [\"10.0.0.1:1\"]
    timeouts: &short
      idle: 0s
  b:
    servers: [\"10.0.0.2:1\"]
    timeouts: *short
";
    let idle = |line, name| format!("{line}: upstreams.{name}.timeouts.idle: \"0s\" is out of range; write 1ms to 30d");
    assert_eq!(complaints(text), [idle(7, "a"), idle(10, "b")]);
}

#[test]
fn keys_of_the_file_are_known() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("threads", &format!("auto\n{value}")));
        assert_eq!(complaint, format!("5: {}", expected.replace("KEYS", KEYS)), "root: {value}");
    }

    check("x: 1", "x: unknown key; known here: KEYS");
    check("Listeners: []", r#"Listeners: unknown key; did you mean "listeners"? (known here: KEYS)"#);
    check("upstream: {}", r#"upstream: unknown key; did you mean "upstreams"? (known here: KEYS)"#);
    check("1: 2", "1: unknown key; known here: KEYS");
}

const KEYS: &str = "trusted_proxies, listeners, client_ip, upstreams, routes, admin, resolver, affinity_secret_file, session_store, limits, \
                    tcp_keepalive, access_log, traces, shutdown, hand_over, threads";

#[test]
fn the_file_is_one_yaml_document() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        assert_eq!(complaint(value), expected, "file: {value:?}");
    }

    #[track_caller]
    fn check_syntax(value: &str, line: usize, expected: &str) {
        let hint = "check indentation, brackets and quotes \
                    (a value that begins with * & ! % @ [ or { needs quotes)";
        check(value, &format!("{line}: not valid YAML: {expected}; {hint}"));
    }

    check("", "1: the file is empty; it needs at least listeners, routes and upstreams");
    check("# only\n", "1: the file is empty; it needs at least listeners, routes and upstreams");
    check("~", "1: there is no value; write a mapping with at least listeners, routes and upstreams");
    check("[]", "1: this is a list; write a mapping with at least listeners, routes and upstreams");
    check("text", r#"1: "text" is text; write a mapping with at least listeners, routes and upstreams"#);
    check("a: 1\n---\nb: 2\n", "2: a second YAML document begins; put everything into one");
    check("a: 1\n...\nb\n", "3: a second YAML document begins; put everything into one");
    check_syntax("a: [1,\nb: 2\n", 2, "invalid indentation in flow construct");
    check_syntax("a:\n\tb: 1\n", 2, "tabs disallowed within this context (block indentation)");
    check_syntax("a: 1\nb: [\n", 2, "while parsing a node, did not find expected node content");
    check_syntax("a: 1\n}\n", 2, "misplaced bracket");
    check_syntax("listeners: [{bind: *:8080}]\n", 1, "while parsing node, found unknown anchor");
    check_syntax("a: \"x\n", 1, "while scanning a quoted scalar, found unexpected end of stream");
    check_syntax("a: \u{1}\n", 1, "control characters are not allowed at position 3");
    check_syntax("a: 1\n  b: 2\n", 2, "mapping values are not allowed in this context");
    check(&"[".repeat(40), "1: more than 32 levels of lists and mappings; write fewer");
}

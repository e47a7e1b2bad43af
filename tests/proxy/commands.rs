//! The command line: what it answers, and with which exit code.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::harness::proxy::BINARY;
use crate::harness::{Refusing, ServerEntry};

fn steadfast(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file in a directory of its own.
fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("steadfast.yaml");
    std::fs::write(&file, content).expect("the file is ours");
    (directory, file)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

#[test]
fn a_right_file_is_approved() {
    let (_directory, file) = file(
        "listeners: [{ bind: \"127.0.0.1:8080\" }]\nupstreams: { chat: { servers: [\"10.0.0.1:3000\"] } }\n\
         routes: [{ upstream: chat }]\n",
    );
    let output = steadfast(&["check", "-c", path(&file)]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn health_is_asked_of_the_admin_address() {
    #[track_caller]
    fn check(admin: &str, expected: i32) {
        let (_directory, file) = file(&format!(
            "listeners: [{{ bind: \"127.0.0.1:0\" }}]\nupstreams: {{ chat: {{ servers: [\"10.0.0.1:3000\"] }} }}\n\
             routes: [{{ upstream: chat }}]\nadmin: {admin}\n"
        ));
        let output = steadfast(&["health", "-c", path(&file)]);
        assert_eq!(output.status.code(), Some(expected), "{admin}: {}", text(&output.stderr));
        assert_eq!(output.stderr.is_empty(), expected == 0, "{}", text(&output.stderr));
    }

    for (answer, expected) in [("HTTP/1.1 200 OK\r\n\r\n", 0), ("HTTP/1.1 503 No\r\n\r\n", 1), ("", 1)] {
        let admin = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = admin.local_addr().expect("it is bound");
        let answering = std::thread::spawn(move || {
            let (mut client, _) = admin.accept().expect("it is asked");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).expect("a request");
                request.extend(byte);
            }
            client.write_all(answer.as_bytes()).expect("it listens");
            text(&request)
        });
        check(&format!("{{ bind: \"{address}\" }}"), expected);
        let request = answering.join().expect("it answers");
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
    }
    let nobody = Refusing::start();
    check(&format!("{{ bind: \"{}\" }}", nobody.address()), 1);
    check("off", 1);
}

#[test]
fn a_request_is_explained_without_being_sent() {
    let (_directory, file) = file(
        "listeners: [{ bind: \"127.0.0.1:8080\" }]\nupstreams:\n  chat:\n    servers:\n      \
         - { address: \"10.0.20.11:3000\", name: a }\n      - { address: \"10.0.20.12:3000\", name: b }\n    \
         affinity: [ engine_io, { cookie: sid }, forwarded_for, client_ip ]\n\
         routes: [{ host: \"*.example.com\", path: /socket.io/, upstream: chat }]\n",
    );
    #[track_caller]
    fn check(file: &Path, arguments: &[&str], expected: &str) {
        let output = steadfast(&[&["explain", "-c", path(file)], arguments].concat());
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), expected), "{arguments:?}");
    }

    let host = ["-H", "Host: a.example.com", "-H", "X-Forwarded-For: 192.0.2.1, 10.0.0.1"];
    check(
        &file,
        &[&host[..], &["--from", "10.0.0.2", "/socket.io/?EIO=4&transport=polling"]].concat(),
        "previous hop  10.0.0.2 (trusted)\n\
         route         routes[0]: host *.example.com, path /socket.io/ -> upstream chat\n\
         affinity      engine_io: a new session, whose id will be tagged\n\
         affinity      cookie: no such cookie\n\
         affinity      forwarded_for: \"192.0.2.1\"  <- decides\n\
         affinity      client_ip: \"10.0.0.2\"\n\
         server 1      b (10.0.20.12:3000)\n\
         server 2      a (10.0.20.11:3000)\n",
    );
    check(
        &file,
        &[&host[..], &["--from", "203.0.113.9", "-H", "Cookie: sid=abc", "/socket.io/"]].concat(),
        "previous hop  203.0.113.9 (not among trusted_proxies)\n\
         route         routes[0]: host *.example.com, path /socket.io/ -> upstream chat\n\
         affinity      engine_io: no session\n\
         affinity      cookie: \"abc\"  <- decides\n\
         affinity      forwarded_for: not asked: the previous hop is not among trusted_proxies\n\
         affinity      client_ip: \"203.0.113.9\"\n\
         server 1      a (10.0.20.11:3000)\n\
         server 2      b (10.0.20.12:3000)\n",
    );
    check(
        &file,
        &["-H", "Host: example.org", "/"],
        "previous hop  127.0.0.1 (trusted)\nroute         none for host \"example.org\" and path \"/\": 404\n",
    );
    let output = steadfast(&["explain", "-c", path(&file), "-H", "Host", "/"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "steadfast: -H \"Host\" has no colon; write it as 'Name: value'\n");
}

#[test]
fn servers_that_are_not_ready_are_explained() {
    let secret = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(secret.path(), "sixteen and more bytes").expect("the file is ours");
    let (_directory, file) = file(&format!(
        "listeners: [{{ bind: \"127.0.0.1:8080\" }}]\naffinity_secret_file: {}\nupstreams:\n  chat:\n    servers:\n      \
         - {{ address: \"10.0.20.11:3000\", name: a }}\n      \
         - {{ address: \"10.0.20.12:3000\", name: b, state: drain }}\n      \
         - {{ address: \"10.0.20.13:3000\", name: c, state: maint }}\n    \
         affinity: [ engine_io, {{ cookie: sid }} ]\nroutes: [{{ upstream: chat }}]\n",
        path(secret.path()),
    ));
    #[track_caller]
    fn check(file: &Path, sid: &str, expected: &str) {
        let target = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
        let output = steadfast(&["explain", "-c", path(file), "-H", "Cookie: sid=abc", &target]);
        let expected = "previous hop  127.0.0.1 (trusted)\nroute         routes[0]: any host, path / -> upstream chat\n"
            .to_owned() + expected;
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), expected), "{sid}");
    }

    check(
        &file,
        "abc",
        "affinity      engine_io: a session; who issued it, the running proxy may have learned\n\
         affinity      cookie: \"abc\"  <- decides\n\
         server 1      a (10.0.20.11:3000)\n\
         not tried     b (10.0.20.12:3000): state drain, so only the sessions that it holds\n\
         not tried     c (10.0.20.13:3000): state maint, so nothing\n",
    );
    check(
        &file,
        "abc~KThJkwCLYII",
        "affinity      engine_io: a session of server b  <- decides\n\
         affinity      cookie: \"abc\"\n\
         server 1      b (10.0.20.12:3000): state drain, but it holds the session\n\
         server 2      a (10.0.20.11:3000)\n\
         not tried     c (10.0.20.13:3000): state maint, so nothing\n",
    );
    check(
        &file,
        "abc~2kSv8qU3nYc",
        "affinity      engine_io: a session of a server that is not there, or in maint\n\
         affinity      cookie: \"abc\"  <- decides\n\
         server 1      a (10.0.20.11:3000)\n\
         not tried     b (10.0.20.12:3000): state drain, so only the sessions that it holds\n\
         not tried     c (10.0.20.13:3000): state maint, so nothing\n",
    );
}

#[test]
fn every_wrong_file_is_refused_with_line_key_and_remedy() {
    /// `content` gets exactly one message, which begins with `message` behind the file's name.
    #[track_caller]
    fn check(content: &str, message: &str) {
        let (_directory, file) = file(content);
        for command in ["check", "run"] {
            let output = steadfast(&[command, "-c", path(&file)]);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command}: {stderr}");
            let expected = format!("{}:{message}", path(&file));
            assert!(stderr.lines().any(|line| line.starts_with(&expected)), "{command}: {expected} in\n{stderr}");
        }
    }

    let right = |key: &str, value: &str| {
        let sections = [
            ("listeners", "[{ bind: \"127.0.0.1:8080\" }]"),
            ("upstreams", "{ chat: { servers: [\"10.0.0.1:3000\"] } }"),
            ("routes", "[{ upstream: chat }]"),
        ];
        let line = |(name, old): (&str, &str)| format!("{name}: {}\n", if name == key { value } else { old });
        sections.into_iter().map(line).collect::<String>()
    };
    check(&right("listeners", "[{ bind: 8080 }]"), "1: listeners[0].bind: ");
    check(&right("listeners", "[{ bind: \"127.0.0.1:80\", tsl: {} }]"), "1: listeners[0].tsl: unknown key");
    check(&right("upstreams", "{ chat: { servers: [\"10.0.0.1\"] } }"), "2: upstreams.chat.servers[0]: ");
    check(&right("upstreams", "{ chat: { servers: [] } }"), "2: upstreams.chat.servers: ");
    check(
        &right("upstreams", "{ chat: { servers: [{ address: \"10.0.0.1:1\", weight: 0 }] } }"),
        "2: upstreams.chat.servers[0].weight: 0 is out of range",
    );
    check(
        &right("upstreams", "{ chat: { servers: [\"10.0.0.1:1\"], timeouts: { connect: 2 } } }"),
        "2: upstreams.chat.timeouts.connect: ",
    );
    check(
        &right("upstreams", "{ chat: { servers: [\"10.0.0.1:1\"], affinity: [cookie] } }"),
        "2: upstreams.chat.affinity",
    );
    check(&right("routes", "[{ upstream: caht }]"), "3: routes[0].upstream: no upstream is named \"caht\"");
    check(&right("routes", "[{ path: chat, upstream: chat }]"), "3: routes[0].path: ");
    check(&(right("", "") + "threads: 0\n"), "4: threads: ");
    check(&(right("", "") + "shutdwon: {}\n"), "4: shutdwon: unknown key; did you mean \"shutdown\"?");
    check(&(right("", "") + "trusted_proxies: [privat]\n"), "4: trusted_proxies[0]: ");
    check("listeners: [\n", "");
    check("", "");
}

#[test]
fn every_mistake_is_told_at_once() {
    let (_directory, file) = file("listeners: [{ bind: 80 }]\nupstreams: {}\nroutes: []\n");
    let output = steadfast(&["check", "-c", path(&file)]);
    let stderr = text(&output.stderr);
    for line in 1..=3 {
        assert!(stderr.contains(&format!("{}:{line}: ", path(&file))), "line {line} in\n{stderr}");
    }
}

#[test]
fn the_schema_for_editors_is_printed() {
    let output = steadfast(&["schema"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["shutdown"]["properties"]["grace"]["default"], "30s");
}

#[test]
fn a_reader_who_wants_no_more_is_no_failure_and_a_full_disk_is_one() {
    let (_directory, file) = file(
        "listeners: [{ bind: \"127.0.0.1:8080\" }]\nupstreams: { chat: { servers: [\"10.0.0.1:3000\"] } }\n\
         routes: [{ upstream: chat }]\n",
    );
    let commands: [&[&str]; 3] = [&["schema"], &["check", "-c", path(&file)], &["explain", "-c", path(&file)]];
    for arguments in commands {
        let to = |output: Stdio| Command::new(BINARY).args(arguments).stdout(output).output().expect("it starts");
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = to(writer.into());
        assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""), "{arguments:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
        let output = to(full.into());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.starts_with("steadfast: cannot write to the standard output: No space left"), "{said}");
    }
}

#[test]
fn help_and_version_are_told() {
    let help = steadfast(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for word in ["run", "check", "demo"] {
        assert!(text(&help.stdout).contains(word), "{word} in\n{}", text(&help.stdout));
    }
    let version = steadfast(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(text(&version.stdout).trim(), concat!("steadfast ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    for arguments in [
        &["--nonsense"][..],
        &["run", "--nonsense"],
        &["nonsense"],
        &["check"],
        &["check", "-c", "/nowhere/at/all.yaml"],
        &["run", "-c", "/nowhere/at/all.yaml"],
    ] {
        let output = steadfast(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty(), "{arguments:?} says nothing");
    }
    let output = steadfast(&["check", "-c", "/nowhere/at/all.yaml"]);
    assert!(text(&output.stderr).contains("/nowhere/at/all.yaml"), "{}", text(&output.stderr));
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound socket has an address");
    let (_directory, file) = file(&format!(
        "listeners: [{{ bind: \"{address}\" }}]\nadmin: {{ bind: \"127.0.0.1:0\" }}\n\
         upstreams: {{ chat: {{ servers: [\"10.0.0.1:3000\"] }} }}\nroutes: [{{ upstream: chat }}]\n"
    ));
    let output = steadfast(&["run", "-c", path(&file)]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&address.to_string()), "{}", text(&output.stderr));
}

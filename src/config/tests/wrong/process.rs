//! What concerns the process as a whole.

use super::{complaint, with};

#[test]
fn limits_have_ranges() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("limits", value));
        assert_eq!(complaint, format!("4: limits{expected}"), "limits: {value}");
    }

    check("[]", ": this is a list; write a mapping such as { max_connections: 50000, per_client: 200 }");
    check(
        "{ head_bytes: 32768 }",
        r#".head_bytes: "32768" has no unit; write it with one, such as 32768B (units: B, KiB, MiB, GiB)"#,
    );
    check("{ head_bytes: 32k }", r#".head_bytes: "32k" leaves open whether 1000 or 1024 is meant; write 32KiB"#);
    check("{ head_bytes: 1MiB }", r#".head_bytes: "1MiB" is out of range; write 1KiB to 256KiB"#);
    check("{ head_bytes: 512B }", r#".head_bytes: "512B" is out of range; write 1KiB to 256KiB"#);
    check("{ uri_bytes: 1B }", r#".uri_bytes: "1B" is out of range; write 256B to 256KiB"#);
    check("{ headers: 0 }", ".headers: 0 is out of range; write a number from 1 to 256");
    check("{ headers: 1000 }", ".headers: 1000 is out of range; write a number from 1 to 256");
    check("{ headers: many }", r#".headers: "many" is text; write a number from 1 to 256"#);
    check("{ headers: -1 }", ".headers: -1 is out of range; write a number from 1 to 256");
    for key in ["max_connections", "per_client"] {
        let check = |value, text| {
            let right = "write none or a number from 1 to 100000000";
            check(&format!("{{ {key}: {value} }}"), &format!(".{key}: {text}; {right}"));
        };
        check("0", "0 is out of range");
        check("100000001", "100000001 is out of range");
        check("-1", "-1 is out of range");
        check("1.5", "1.5 is out of range");
        check("many", "\"many\" is text");
        check("off", "\"off\" is text");
        check("null", "there is no value");
    }
    for (key, max) in [("streams", 10_000), ("resets", 100_000)] {
        let check = |value: String, text: &str| {
            let right = format!("write a number from 1 to {max}");
            check(&format!("{{ {key}: {value} }}"), &format!(".{key}: {value} {text}; {right}"));
        };
        check("0".to_owned(), "is out of range");
        check(format!("{}", max + 1), "is out of range");
    }
    check("{ streams: none }", ".streams: \"none\" is text; write a number from 1 to 10000");
    check(
        "{ max_connection: 1 }",
        r#".max_connection: unknown key; did you mean "max_connections"? (known here: head_bytes, uri_bytes, headers, max_connections, per_client, streams, resets)"#,
    );
}

#[test]
fn a_place_to_hand_over_is_a_path_that_a_socket_can_have() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("hand_over", value));
        assert_eq!(complaint, format!("4: hand_over{expected}"), "hand_over: {value}");
    }

    let right = "write the absolute path of a socket in a directory that this user may write to";
    check("[]", ": this is a list; write a mapping such as { socket: /run/steadfast/hand-over.sock }, or off");
    check("{}", &format!(".socket: missing; {right}"));
    check("{ socket: hand-over.sock }", &format!(".socket: \"hand-over.sock\" is not an absolute path; {right}"));
    check("{ socket: /run/ }", ".socket: \"/run/\" is a directory; write the path of a socket in it");
    let long = format!("/{}", "x".repeat(90));
    check(
        &format!("{{ socket: {long} }}"),
        &format!(".socket: \"{}\"... is too long for a socket; write at most 90 bytes", &long[..64]),
    );
}

#[test]
fn tcp_keepalive_is_in_whole_seconds() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("tcp_keepalive", value));
        assert_eq!(complaint, format!("4: tcp_keepalive{expected}"), "tcp_keepalive: {value}");
    }

    check("60s", r#": "60s" is text; write a mapping such as { time: 60s, interval: 15s, probes: 4 }"#);
    check("off", r#": "off" is text; write a mapping such as { time: 60s, interval: 15s, probes: 4 }"#);
    check("{ time: 60 }", r#".time: "60" has no unit; write it with one, such as 60s (units: ms, s, m, h, d)"#);
    check("{ time: 0s }", r#".time: "0s" is out of range; write 1s to 9h"#);
    check("{ time: 10h }", r#".time: "10h" is out of range; write 1s to 9h"#);
    check("{ time: 1500ms }", ".time: the kernel counts whole seconds here; write one such as 15s");
    check("{ interval: 500ms }", r#".interval: "500ms" is out of range; write 1s to 1h"#);
    check("{ interval: 61m }", r#".interval: "61m" is out of range; write 1s to 1h"#);
    check("{ interval: 1001ms }", ".interval: the kernel counts whole seconds here; write one such as 15s");
    check("{ probes: 0 }", ".probes: 0 is out of range; write a number from 1 to 100");
    check("{ probes: 101 }", ".probes: 101 is out of range; write a number from 1 to 100");
    check("{ probes: 4s }", r#".probes: "4s" is text; write a number from 1 to 100"#);
    check("{ count: 4 }", ".count: unknown key; known here: time, interval, probes");
}

#[test]
fn the_affinity_secret_is_a_file_that_is_long_enough() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let right = "write the absolute path of a file with at least 16 bytes, the same for all proxies of a fleet";
        let complaint = complaint(&with("affinity_secret_file", value));
        assert_eq!(complaint, format!("4: affinity_secret_file: {expected}; {right}"));
    }

    check("secret", r#""secret" is not an absolute path"#);
    check("7", "7 is a number");
    check("/nowhere/secret", r#""/nowhere/secret" cannot be read: No such file or directory (os error 2)"#);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "fifteen bytes..\n").expect("a writable file");
    let path = file.path().to_str().expect("a plain path");
    check(path, &format!("\"{path}\" has fewer than 16 bytes"));
    std::fs::write(file.path(), "sixteen bytes...\n").expect("a writable file");
    assert!(crate::config::parse(&with("affinity_secret_file", path), "steadfast.yaml").is_ok());
}

#[test]
fn the_access_log_has_a_place_and_a_format() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("access_log", value));
        assert_eq!(complaint, format!("4: access_log{expected}"), "access_log: {value}");
    }

    check("stdout", r#": "stdout" is text; write a mapping such as { path: stdout, format: json }, or off"#);
    check(
        "{ path: access.log }",
        r#".path: "access.log" is not an absolute path; write stdout, stderr or a path that begins with /"#,
    );
    check("{ path: /var/log/ }", r#".path: "/var/log/" is a directory; write the path of a file in it"#);
    check("{ path: 1 }", ".path: 1 is a number; write stdout, stderr or an absolute path");
    check("{ format: jsn }", r#".format: "jsn" is no format; did you mean json?"#);
    check(r#"{ format: "$remote_addr" }"#, r#".format: "$remote_addr" is no format; write json, combined or off"#);
    check("{ format: true }", ".format: true is a boolean; write json, combined or off");
    check("{ file: /x }", ".file: unknown key; known here: path, format");
}

#[test]
fn traces_go_to_a_collector() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("traces", value));
        assert_eq!(complaint, format!("4: traces{expected}"), "traces: {value}");
    }

    let mapping = r#"write a mapping such as { endpoint: "http://127.0.0.1:4318" }, or off"#;
    check("on", &format!(": \"on\" is text; {mapping}"));
    check("[]", &format!(": this is a list; {mapping}"));
    let right = r#"write the URL of a collector that takes OTLP over HTTP, such as "http://127.0.0.1:4318""#;
    check("{}", &format!(".endpoint: missing; {right}"));
    for (endpoint, expected) in [
        ("1", format!("1 is a number; {right}")),
        (r#""127.0.0.1:4318""#, format!("\"127.0.0.1:4318\" has no scheme; {right}")),
        ("grpc://a:4317", format!("\"grpc://a:4317\" asks for gRPC; {right}")),
        ("ftp://a:4317", format!("\"ftp://a:4317\" has the scheme \"ftp\"; {right}")),
        (
            "https://a:4318",
            "\"https://a:4318\" asks for TLS, which is not supported here; send to a collector nearby by http".into(),
        ),
        (
            "http://a:4317",
            "\"http://a:4317\" is where collectors take gRPC; OTLP over HTTP is usually at port 4318".into(),
        ),
        (
            "http://a:4318/v1/traces/",
            "\"http://a:4318/v1/traces/\" ends in /v1/traces, which is added by itself; leave it out".into(),
        ),
        (
            "http://me:s3cret@a:4318",
            "\"http://***@a:4318\" has a login, which is not sent; set OTEL_EXPORTER_OTLP_HEADERS instead".into(),
        ),
        ("http://a:4318/?b", format!("\"http://a:4318/?b\" has something behind its path; {right}")),
        (r#""http://a:4318/#b""#, format!("\"http://a:4318/#b\" has something behind its path; {right}")),
        ("http://a:0", format!("\"http://a:0\" has no host and port to connect to; {right}")),
        (r#""http://:4318""#, format!("\"http://:4318\" has no host and port to connect to; {right}")),
        (r#""http://a:""#, format!("\"http://a:\" has no host and port to connect to; {right}")),
        (r#""http://a b:4318""#, format!("\"http://a b:4318\" is no URL; {right}")),
        (r#""http://a:99999""#, format!("\"http://a:99999\" has no host and port to connect to; {right}")),
    ] {
        check(&format!("{{ endpoint: {endpoint} }}"), &format!(".endpoint: {expected}"));
    }
    let beside = |key: &str, expected: &str| check(&format!("{{ endpoint: \"http://a\", {key} }}"), expected);
    beside("sample: 101%", ".sample: \"101%\" is out of range; write 0% to 100%");
    let share = "is not a share; write a number and a percent sign, together, such as 1% or 0.05%";
    beside("sample: 0.5", &format!(".sample: \"0.5\" {share}"));
    beside("sample: on", &format!(".sample: \"on\" {share}"));
    beside(
        "service_name: \"\"",
        ".service_name: \"\" is no name; write 1 to 255 printable characters, such as steadfast",
    );
    beside("propagate: maybe", ".propagate: \"maybe\" is text; write on or off");
    beside("headers: {}", ".headers: unknown key; known here: endpoint, sample, service_name, propagate");
}

#[test]
fn threads_are_counted() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("threads", value));
        assert_eq!(complaint, format!("4: threads{expected}"), "threads: {value}");
    }

    check("0", ": 0 is out of range; write auto or a number from 1 to 256");
    check("257", ": 257 is out of range; write auto or a number from 1 to 256");
    check("many", r#": "many" is text; write auto or a number from 1 to 256"#);
    check("2.5", ": 2.5 is out of range; write auto or a number from 1 to 256");
    check("-1", ": -1 is out of range; write auto or a number from 1 to 256");
    check("null", ": there is no value; write auto or a number from 1 to 256");
}

#[test]
fn the_grace_is_a_duration() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("shutdown", value));
        assert_eq!(complaint, format!("4: shutdown{expected}"), "shutdown: {value}");
    }

    check("30s", r#": "30s" is text; write a mapping such as { grace: 30s }"#);
    check("{ grace: 30 }", r#".grace: "30" has no unit; write it with one, such as 30s (units: ms, s, m, h, d)"#);
    check("{ grace: 25h }", r#".grace: "25h" is out of range; write 0ms to 1d"#);
    let over = ".spread: grace would be over before; write at most that, or a longer grace";
    check("{ spread: 31s }", over);
    check("{ grace: 5s, spread: 6s }", over);
    check("{ spread: 20 }", r#".spread: "20" has no unit; write it with one, such as 20s (units: ms, s, m, h, d)"#);
}

#[test]
fn resolvers_are_addresses() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("resolver", value));
        assert_eq!(complaint, format!("4: resolver{expected}"), "resolver: {value}");
    }

    let right = r#"write a list of addresses such as ["10.0.0.53:53"]"#;
    check("{}", &format!(".servers: missing; {right}"));
    check("{ servers: [] }", &format!(".servers: this list is empty; {right}"));
    check("{ servers: off }", &format!(".servers: \"off\" is text; {right}"));
    check(r#"{ servers: ["10.0.0.53"] }"#, r#".servers[0]: "10.0.0.53" has no port; write it as "10.0.0.53:53""#);
    check(
        r#"{ servers: ["dns.internal:53"] }"#,
        r#".servers[0]: "dns.internal:53" is a host name, and host names are not resolved; write IP and port, such as "10.0.0.53:53""#,
    );
    check(
        r#"{ servers: ["[::]:53"] }"#,
        r#".servers[0]: "[::]:53" is no address to connect to; write "[::1]:53" for this machine"#,
    );
    let nine = (1..10).map(|number| format!("\"10.0.0.{number}:53\"")).collect::<Vec<_>>().join(", ");
    check(&format!("{{ servers: [{nine}] }}"), ".servers[8]: nobody asks so many; write at most 8");
    check("8.8.8.8", r#": "8.8.8.8" is text; write a mapping such as { servers: ["10.0.0.53:53"] }"#);
}

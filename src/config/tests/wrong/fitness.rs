//! Health checks and whatever moves connections.

use super::{complaint, with_chat};

#[test]
fn a_check_asks_one_question() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with_chat("health_check", value));
        assert_eq!(complaint, format!("2: upstreams.chat.health_check{expected}"), "health_check: {value}");
    }

    check("on", r#": "on" is text; write a mapping such as { path: /healthz }, { tcp: on }, or off"#);
    check("{}", ".path: missing; write a path such as /healthz, or tcp: on");
    check("{ tcp: off }", ".path: missing; write a path such as /healthz, or tcp: on");
    check("{ interval: 5s }", ".path: missing; write a path such as /healthz, or tcp: on");
    check("{ tcp: yes }", r#".tcp: "yes" is text; write on or off"#);
    check("{ tcp: on, path: / }", ".path: no path is asked for, because tcp is on; write one of both");
    let unasked = "nothing is asked over HTTP, because tcp is on; remove it, or write a path in place of tcp";
    check("{ tcp: on, host: a }", &format!(".host: {unasked}"));
    check("{ tcp: on, status: [200] }", &format!(".status: {unasked}"));
    check("{ path: healthz }", r#".path: "healthz" does not begin with /; write a path such as /healthz"#);
    let odd = "has a fragment, blanks or characters beyond ASCII; write it as in a request";
    check(r#"{ path: "/a b" }"#, &format!(r#".path: "/a b" {odd}"#));
    check(r#"{ path: "/a#b" }"#, &format!(r#".path: "/a#b" {odd}"#));
    check(r#"{ path: "/é" }"#, &format!(r#".path: "/é" {odd}"#));
    let long = format!("{{ path: /{} }}", "a".repeat(2048));
    check(&long, ".path: this path has 2049 bytes; write at most 2048");
    check(r#"{ path: /, host: "a b" }"#, r#".host: "a b" is no host; write one such as chat.example.com"#);
    check(r#"{ path: /, host: "a\r\nb: c" }"#, r#".host: "a\r\nb: c" is no host; write one such as chat.example.com"#);
    let right = r#"write a list of statuses and ranges, such as [200, "300-399"]"#;
    check("{ path: /, status: 200 }", &format!(".status: 200 is a number; {right}"));
    check("{ path: /, status: [] }", &format!(".status: this list is empty; {right}"));
    for wrong in ["600", "99", "2xx", "399-200", "200-", "200-600"] {
        check(
            &format!("{{ path: /, status: [\"{wrong}\"] }}"),
            &format!(r#".status[0]: "{wrong}" is no status; write one from 100 to 599, or a range such as "200-399""#),
        );
    }
    check("{ tcp: on, port: 0 }", ".port: 0 is out of range; write a number from 1 to 65535");
    check("{ tcp: on, interval: 99ms }", r#".interval: "99ms" is out of range; write 100ms to 1h"#);
    check("{ tcp: on, timeout: 61s }", r#".timeout: "61s" is out of range; write 1ms to 1m"#);
    for key in ["rise", "fall"] {
        for wrong in ["0", "101"] {
            check(
                &format!("{{ tcp: on, {key}: {wrong} }}"),
                &format!(".{key}: {wrong} is out of range; write a number from 1 to 100"),
            );
        }
    }
    let known = "(known here: tcp, path, host, status, port, interval, timeout, rise, fall)";
    check("{ paht: / }", &format!(r#".paht: unknown key; did you mean "path"? {known}"#));
}

#[test]
fn failures_and_what_follows_have_ranges() {
    #[track_caller]
    fn check(key: &str, value: &str, expected: &str) {
        let complaint = complaint(&with_chat(key, value));
        assert_eq!(complaint, format!("2: upstreams.chat.{expected}"), "{key}: {value}");
    }

    let right = "write a number from 1 to 1000, or 0 to count no failures";
    check("max_fails", "1001", &format!("max_fails: 1001 is out of range; {right}"));
    check("max_fails", "off", &format!("max_fails: \"off\" is text; {right}"));
    check("fail_timeout", "99ms", r#"fail_timeout: "99ms" is out of range; write 100ms to 1h"#);
    check(
        "max_fails",
        "0, fail_timeout: 5s",
        "fail_timeout: no failures are counted, because max_fails is 0; remove one of both",
    );
    check("slow_start", "999ms", r#"slow_start: "999ms" is out of range; write 1s to 1h"#);
    check(
        "slow_start",
        "on",
        r#"slow_start: "on" is not a duration; write a number and a unit such as 15s (units: ms, s, m, h, d)"#,
    );
    check("on_down", "drop", r#"on_down: "drop" is no choice; write one of keep, close"#);
    check(
        "max_fails",
        "0, on_down: close",
        "on_down: no server is ever down, because max_fails is 0 and there is no health_check; remove it",
    );
    check("drain", "30s", r#"drain: "30s" is text; write a mapping such as { timeout: 60s, spread: 30s }"#);
    check("drain", "{ timeout: 2d }", r#"drain.timeout: "2d" is out of range; write 0ms to 1d"#);
    check(
        "drain",
        "{ spread: 61s }",
        "drain.spread: timeout would be over before; write at most that, or a longer timeout",
    );
    check("drain", "{ removed: kep }", r#"drain.removed: "kep" is no choice; did you mean keep?"#);
    check("rebalance", "5", "rebalance: 5 is a number; write a mapping such as { per_minute: 5, min_age: 5m }, or off");
    let percent = "is out of range; write a number of percent from 1 to 100";
    check("rebalance", "{ per_minute: 0 }", &format!("rebalance.per_minute: 0 {percent}"));
    check("rebalance", "{ per_minute: 101 }", &format!("rebalance.per_minute: 101 {percent}"));
    check("rebalance", "{ min_age: 31d }", r#"rebalance.min_age: "31d" is out of range; write 0ms to 30d"#);
}

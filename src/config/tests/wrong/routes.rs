//! Routes.

use super::{complaint, with};

#[test]
fn a_route_leads_to_an_upstream() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("routes", value));
        assert_eq!(complaint, format!("3: routes{expected}"), "routes: {value}");
    }

    check("[]", ": this list is empty; write a list of at least one, such as [{ upstream: chat }]");
    check("chat", r#": "chat" is text; write a list of at least one, such as [{ upstream: chat }]"#);
    check("[chat]", r#"[0]: "chat" is text; write a mapping such as { upstream: chat }"#);
    check("[{}]", "[0].upstream: missing; write the name of an upstream");
    check("[{ upstream: caht }]", r#"[0].upstream: no upstream is named "caht"; did you mean "chat"?"#);
    check("[{ upstream: backend }]", r#"[0].upstream: no upstream is named "backend"; there are: chat"#);
    check("[{ upstream: [chat] }]", "[0].upstream: this is a list; write the name of an upstream");
    check("[{ upstream: chat, headers: {} }]", "[0].headers: not supported in this version; remove it");
    check(
        "[{ upstream: chat, hosts: a }]",
        r#"[0].hosts: unknown key; did you mean "host"? (known here: host, path, upstream)"#,
    );
}

#[test]
fn a_host_is_only_a_host() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("routes", &format!("[{{ host: {value}, upstream: chat }}]")));
        assert_eq!(complaint, format!("3: routes[0].host{expected}"), "host: {value}");
    }

    check(r#""*""#, r#": "*" is not a host; leave the key out for any host"#);
    check(
        r#""""#,
        r#": "" is not a host; write letters, digits, dots and dashes, such as chat.example.com (international names as xn--...)"#,
    );
    check(
        r#""http://a.example""#,
        r#": "http://a.example" is more than a host; write only the host, such as chat.example.com"#,
    );
    check(r#""a.example:80""#, r#": "a.example:80" has a port, which is not compared; write "a.example""#);
    check(r#""a.example.""#, r#": "a.example." ends in a dot; write "a.example""#);
    check(
        r#""a.*.example""#,
        r#": "a.*.example" has a * in the wrong place; it can only stand in front, as in "*.example.com""#,
    );
    check(
        r#""*.*.example""#,
        r#": "*.*.example" has a * in the wrong place; it can only stand in front, as in "*.example.com""#,
    );
    check(
        r#""*example.com""#,
        r#": "*example.com" has a * in the wrong place; it can only stand in front, as in "*.example.com""#,
    );
    check(
        r#""bücher.example""#,
        r#": "bücher.example" is not a host; write letters, digits, dots and dashes, such as chat.example.com (international names as xn--...)"#,
    );
    check(
        r#""a b""#,
        r#": "a b" is not a host; write letters, digits, dots and dashes, such as chat.example.com (international names as xn--...)"#,
    );
    check(r#""2001:db8::1""#, r#": "2001:db8::1" has no brackets; write it as "[2001:db8::1]""#);
    check("[a, b]", r#": this is a list; write one host, such as chat.example.com or "*.example.com""#);
    check(
        r#""a..b""#,
        r#": "a..b" is not a host; write letters, digits, dots and dashes, such as chat.example.com (international names as xn--...)"#,
    );
    check(
        r#""*.""#,
        r#": "*." is not a host; write letters, digits, dots and dashes, such as chat.example.com (international names as xn--...)"#,
    );
}

#[test]
fn a_path_is_only_a_prefix() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("routes", &format!("[{{ path: {value}, upstream: chat }}]")));
        assert_eq!(complaint, format!("3: routes[0].path{expected}"), "path: {value}");
    }

    check("socket.io/", r#": "socket.io/" does not begin with /; write a prefix such as "/socket.io/""#);
    check(r#""""#, r#": "" does not begin with /; write a prefix such as "/socket.io/""#);
    check(r#""/a?b=c""#, r#": "/a?b=c" has a query or fragment, which is not compared; write "/a""#);
    check(r#""/a#b""#, r#": "/a#b" has a query or fragment, which is not compared; write "/a""#);
    check(r#""/a/*""#, r#": "/a/*" has a *, and a path is a prefix anyway; write "/a/""#);
    check(r#""/a b""#, r#": "/a b" has blanks or characters beyond ASCII; write them %-encoded, as in a URL"#);
    check(r#""/é""#, r#": "/é" has blanks or characters beyond ASCII; write them %-encoded, as in a URL"#);
    check(r#""^/a""#, r#": "^/a" does not begin with /; write a prefix such as "/socket.io/""#);
    check("7", ": 7 is a number; write a prefix such as /socket.io/");
}

#[test]
fn a_route_behind_a_wider_one_is_never_reached() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("routes", value));
        assert_eq!(complaint, format!("3: routes{expected}"), "reach: {value}");
    }

    check(
        "[{ upstream: chat }, { upstream: chat }]",
        "[1]: never reached, because routes[0] has the same host and path; remove one",
    );
    check(
        "[{ upstream: chat }, { host: a.example, upstream: chat }]",
        "[1]: never reached, because routes[0] takes all it would; move it before that one",
    );
    check(
        "[{ path: /a, upstream: chat }, { host: a.example, path: /a/b, upstream: chat }]",
        "[1]: never reached, because routes[0] takes all it would; move it before that one",
    );
    check(
        r#"[{ host: "*.example", upstream: chat }, { host: A.example, path: /x, upstream: chat }, { upstream: chat }]"#,
        "[1]: never reached, because routes[0] takes all it would; move it before that one",
    );
}

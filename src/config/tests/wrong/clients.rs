//! Listeners, the hops in front of them, and the admin address.

use super::{complaint, with};

#[test]
fn a_listener_needs_an_address() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("listeners", value));
        assert_eq!(complaint, format!("1: listeners{expected}"), "listeners: {value}");
    }

    check("null", r#": there is no value; write a list of at least one, such as [{ bind: "0.0.0.0:8080" }]"#);
    check("[]", r#": this list is empty; write a list of at least one, such as [{ bind: "0.0.0.0:8080" }]"#);
    check(
        r#""0.0.0.0:8080""#,
        r#": "0.0.0.0:8080" is text; write a list of at least one, such as [{ bind: "0.0.0.0:8080" }]"#,
    );
    check(
        r#"{ bind: "0.0.0.0:8080" }"#,
        r#": this is a mapping; write a list of at least one, such as [{ bind: "0.0.0.0:8080" }]"#,
    );
    check(r#"["0.0.0.0:8080"]"#, r#"[0]: "0.0.0.0:8080" is text; write a mapping such as { bind: "0.0.0.0:8080" }"#);
    check("[{}]", r#"[0].bind: missing; write IP and port, such as "0.0.0.0:8080""#);
    check("[{ bind: }]", r#"[0].bind: there is no value; write IP and port, such as "0.0.0.0:8080""#);
    check("[{ bind: 8080 }]", r#"[0].bind: "8080" is only a port; write it as "0.0.0.0:8080""#);
    check(r#"[{ bind: ":8080" }]"#, r#"[0].bind: ":8080" has no address; write it as "0.0.0.0:8080""#);
    check(r#"[{ bind: "*:8080" }]"#, r#"[0].bind: "*:8080" has no address; write it as "0.0.0.0:8080""#);
    check(r#"[{ bind: "10.0.0.1" }]"#, r#"[0].bind: "10.0.0.1" has no port; write it as "10.0.0.1:8080""#);
    check(r#"[{ bind: "::1" }]"#, r#"[0].bind: "::1" has no port; write it as "[::1]:8080""#);
    check(r#"[{ bind: "[::1]" }]"#, r#"[0].bind: "[::1]" has no port; write it as "[::1]:8080""#);
    check(
        r#"[{ bind: "localhost:8080" }]"#,
        r#"[0].bind: "localhost:8080" is a host name, and host names are not resolved; write IP and port, such as "0.0.0.0:8080""#,
    );
    check(
        r#"[{ bind: "http://10.0.0.1:80" }]"#,
        r#"[0].bind: "http://10.0.0.1:80" has a scheme; write only IP and port, such as "0.0.0.0:8080""#,
    );
    check(
        r#"[{ bind: "10.0.0.1:99999" }]"#,
        r#"[0].bind: "10.0.0.1:99999" has the port "99999"; write a number up to 65535"#,
    );
    check(
        r#"[{ bind: "10.0.0.1:http" }]"#,
        r#"[0].bind: "10.0.0.1:http" has the port "http"; write a number up to 65535"#,
    );
    check(
        r#"[{ bind: "unix:/run/s.sock" }]"#,
        r#"[0].bind: "unix:/run/s.sock" is a Unix socket; only TCP is supported, such as "0.0.0.0:8080""#,
    );
    check(
        r#"[{ bind: "10.0.0.256:80" }]"#,
        r#"[0].bind: "10.0.0.256:80" is no address; write IP and port, such as "0.0.0.0:8080""#,
    );
    check(r#"[{ bind: ["10.0.0.1:80"] }]"#, r#"[0].bind: this is a list; write IP and port, such as "0.0.0.0:8080""#);
    check(
        r#"[{ bind: !ip "10.0.0.1:80" }]"#,
        r#"[0].bind: the tag "!ip" means nothing here; write IP and port, such as "0.0.0.0:8080""#,
    );
    check(
        r#"[{ bnd: "0.0.0.0:8080" }]"#,
        r#"[0].bnd: unknown key; did you mean "bind"? (known here: bind, proxy_protocol, tls, h2c)"#,
    );
    check(
        r#"[{ bind: "0.0.0.0:80" }, { bind: "0.0.0.0:80" }]"#,
        r#"[1].bind: "0.0.0.0:80" is already listeners[0].bind; remove one"#,
    );
    check(
        r#"[{ bind: "0.0.0.0:80" }, { bind: "10.0.0.1:80" }]"#,
        r#"[1].bind: "10.0.0.1:80" overlaps with listeners[0].bind, "0.0.0.0:80"; remove one"#,
    );
    check(
        r#"[{ bind: "[::]:9900" }]"#,
        r#"[0].bind: "[::]:9900" takes the default of admin.bind, "127.0.0.1:9900"; choose another port, or set admin.bind"#,
    );
}

#[test]
fn a_listener_takes_proxy_headers_or_not() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let listeners = format!("[{{ bind: \"0.0.0.0:8080\", proxy_protocol: {value} }}]");
        let complaint = complaint(&with("listeners", &listeners));
        assert_eq!(complaint, format!("1: listeners[0].proxy_protocol: {expected}"), "proxy_protocol: {value}");
    }

    check("v2", r#""v2" is no mode; write one of off, on, optional"#);
    check("optionally", r#""optionally" is no mode; did you mean optional?"#);
    check("null", "there is no value; write one of off, on, optional");
    check("1", "1 is a number; write one of off, on, optional");
    check("{ version: 2 }", "this is a mapping; write one of off, on, optional");

    let nobody = with("listeners", "[{ bind: \"0.0.0.0:8080\", proxy_protocol: optional }]") + "trusted_proxies: []\n";
    assert_eq!(
        complaint(&nobody),
        "1: listeners[0].proxy_protocol: no hop could say who its clients are, because trusted_proxies is empty; \
         name the hop there"
    );
}

#[test]
fn http2_is_on_or_off() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let listeners = format!("[{{ bind: \"0.0.0.0:8080\", h2c: {value} }}]");
        let complaint = complaint(&with("listeners", &listeners));
        assert_eq!(complaint, format!("1: listeners[0].h2c: {expected}"), "h2c: {value}");
    }

    check("optional", "\"optional\" is text; write on or off");
    check("1", "1 is a number; write on or off");
    check("null", "there is no value; write on or off");
}

#[test]
fn with_tls_clients_choose_http2_by_themselves() {
    let authority = rcgen::generate_simple_self_signed(["chat.example.com".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, authority.cert.pem()).expect("the file is ours");
    std::fs::write(&key, authority.signing_key.serialize_pem()).expect("the file is ours");
    let tls = format!("tls: {{ certificates: [{{ cert: {}, key: {} }}] }}", cert.display(), key.display());
    assert_eq!(
        complaint(&with("listeners", &format!("[{{ bind: \"0.0.0.0:8080\", {tls}, h2c: on }}]"))),
        "1: listeners[0].h2c: this is HTTP/2 without TLS; with TLS clients choose it by themselves; remove it"
    );
}

#[test]
fn networks_are_written_in_full() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("trusted_proxies", value));
        assert_eq!(complaint, format!("4: trusted_proxies{expected}"), "trusted_proxies: {value}");
    }

    check("private", r#": "private" is text; write a list such as [private, 203.0.113.0/24], or [] to trust nobody"#);
    check("[privat]", r#"[0]: "privat" is no network; write private, a network such as "10.0.0.0/8", or an IP"#);
    check("[10.0.0.5/8]", r#"[0]: "10.0.0.5/8" has bits set behind its prefix; write it as "10.0.0.0/8""#);
    check(
        "[10.0.0.0/33]",
        r#"[0]: "10.0.0.0/33" is no network; write private, a network such as "10.0.0.0/8", or an IP"#,
    );
    check(
        r#"["::ffff:10.0.0.0/104"]"#,
        r#"[0]: "::ffff:10.0.0.0/104" is IPv4 in the clothes of IPv6; write it as "10.0.0.0/8""#,
    );
    check("[null]", "[0]: there is no value; write private, a network or an IP");
}

#[test]
fn the_clients_address_stands_in_a_header() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("client_ip", value));
        assert_eq!(complaint, format!("4: client_ip{expected}"), "client_ip: {value}");
    }

    let right = "write a mapping such as { header: X-Forwarded-For, pick: rightmost_untrusted }";
    check("X-Real-IP", &format!(": \"X-Real-IP\" is text; {right}"));
    check("off", &format!(": \"off\" is text; {right}"));
    check("null", &format!(": there is no value; {right}"));
    check(
        r#"{ header: "X Real IP" }"#,
        r#".header: "X Real IP" is no name of a header; write one such as X-Forwarded-For"#,
    );
    check(
        r#"{ header: "X-Real-IP:" }"#,
        r#".header: "X-Real-IP:" is no name of a header; write one such as X-Forwarded-For"#,
    );
    check(r#"{ header: "" }"#, r#".header: "" is no name of a header; write one such as X-Forwarded-For"#);
    check("{ header: [X-A] }", ".header: this is a list; write the name of a header, such as X-Forwarded-For");
    check("{ pick: last }", r#".pick: "last" is no pick; write one of first, rightmost_untrusted"#);
    check(
        "{ pick: rightmost-untrusted }",
        r#".pick: "rightmost-untrusted" is no pick; did you mean rightmost_untrusted?"#,
    );
    check("{ pick: 1 }", ".pick: 1 is a number; write one of first, rightmost_untrusted");
    check("{ heeder: X-A }", r#".heeder: unknown key; did you mean "header"? (known here: header, pick)"#);
    check("{ ipv6_prefix: 64 }", ".ipv6_prefix: unknown key; known here: header, pick");
}

#[test]
fn the_admin_address_is_free_and_on_this_machine() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("admin", value));
        assert_eq!(complaint, format!("4: admin{expected}"), "admin: {value}");
    }

    check(r#""127.0.0.1:9900""#, r#": "127.0.0.1:9900" is text; write { bind: "127.0.0.1:9900" } or off"#);
    check("on", r#": "on" is text; write { bind: "127.0.0.1:9900" } or off"#);
    check(
        r#"{ bind: "0.0.0.0:9900" }"#,
        r#".bind: "0.0.0.0:9900" can be reached from other machines; write a token_file beside it, or "127.0.0.1:9900""#,
    );
    check(
        r#"{ bind: "[2001:db8::1]:9900" }"#,
        r#".bind: "[2001:db8::1]:9900" can be reached from other machines; write a token_file beside it, or "[::1]:9900""#,
    );
    check("{ bind: 9900 }", r#".bind: "9900" is only a port; write it as "127.0.0.1:9900""#);
    check(
        r#"{ bind: "127.0.0.1:8080" }"#,
        r#".bind: "127.0.0.1:8080" is taken by listeners[0].bind, "0.0.0.0:8080"; choose another port"#,
    );
    check(
        r#"{ bind: "localhost:9900" }"#,
        r#".bind: "localhost:9900" is a host name, and host names are not resolved; write IP and port, such as "127.0.0.1:9900""#,
    );
    let right = "write the absolute path of a file with a token of at least 16 visible characters";
    check("{ token_file: x }", &format!(".token_file: \"x\" is not an absolute path; {right}"));
    check("{ token_file: /dev/null }", &format!(".token_file: \"/dev/null\" holds no token; {right}"));
    check(
        "{ bind: \"0.0.0.0:9900\", token_file: /dev/null }",
        &format!(".token_file: \"/dev/null\" holds no token; {right}"),
    );
}

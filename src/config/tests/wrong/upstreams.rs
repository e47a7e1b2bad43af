//! Upstreams and all that is in them.

use super::{complaint, with, with_chat};
use crate::config::tests::config;

#[test]
fn a_pace_is_a_number_and_a_patience() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with_chat("limits", value));
        assert_eq!(complaint, format!("2: upstreams.chat.limits{expected}"), "limits: {value}");
    }

    check("5", ": 5 is a number; write a mapping such as { handshakes_per_second: 500, queue: 1s }");
    check(
        "{ handshakes_per_second: 0 }",
        ".handshakes_per_second: 0 is out of range; write none or a number from 1 to 1000000",
    );
    check(
        "{ handshakes_per_second: off }",
        r#".handshakes_per_second: "off" is text; write none or a number from 1 to 1000000"#,
    );
    check("{ handshakes_per_second: 5, queue: 2m }", r#".queue: "2m" is out of range; write 0ms to 1m"#);
    check(
        "{ queue: 1s }",
        ".queue: nobody waits, because there is no handshakes_per_second beside it; write one, or remove this",
    );
}

#[test]
fn an_upstream_has_servers_and_a_route() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("upstreams", value));
        assert_eq!(complaint, format!("2: upstreams{expected}"), "upstreams: {value}");
    }

    check(
        "[]",
        r#": this is a list; write a mapping of at least one, such as { chat: { servers: ["10.0.0.1:3000"] } }"#,
    );
    check(
        "{}",
        r#": this mapping is empty; write a mapping of at least one, such as { chat: { servers: ["10.0.0.1:3000"] } }"#,
    );
    check(
        "null",
        r#": there is no value; write a mapping of at least one, such as { chat: { servers: ["10.0.0.1:3000"] } }"#,
    );
    check("{ chat: }", r#".chat: there is no value; write a mapping such as { servers: ["10.0.0.1:3000"] }"#);
    check("{ chat: [] }", r#".chat: this is a list; write a mapping such as { servers: ["10.0.0.1:3000"] }"#);
    check("{ chat: {} }", r#".chat.servers: missing; write a list of at least one, such as ["10.0.0.1:3000"]"#);
    check(
        "{ chat: { servers: [] } }",
        r#".chat.servers: this list is empty; write a list of at least one, such as ["10.0.0.1:3000"]"#,
    );
    check(
        r#"{ chat: { servers: "10.0.0.1:3000" } }"#,
        r#".chat.servers: "10.0.0.1:3000" is text; write a list of at least one, such as ["10.0.0.1:3000"]"#,
    );
    check(
        r#"{ chat: { servers: ["10.0.0.1:3000"], server: 1 } }"#,
        r#".chat.server: unknown key; did you mean "servers"? (known here: servers, affinity, balance, timeouts, sse, websocket, limits, send_proxy_protocol, tls, health_check, max_fails, fail_timeout, slow_start, on_down, drain, rebalance)"#,
    );
    check(
        r#"{ 7: { servers: ["10.0.0.1:1"] }, chat: { servers: ["10.0.0.2:1"] } }"#,
        ".7: this key is not text; put it in quotes",
    );
    check(
        r#"{ spare: { servers: ["10.0.0.1:1"] }, chat: { servers: ["10.0.0.2:1"] } }"#,
        ".spare: no route leads to this upstream; add one or remove it",
    );
    check(
        r#"{ chat: { servers: ["10.0.0.1:3000"], <<: { sse: {} } } }"#,
        r#".chat."<<": merge keys are not supported; write the keys out"#,
    );
}

#[test]
fn servers_take_proxy_headers_of_a_version() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with_chat("send_proxy_protocol", value));
        assert_eq!(complaint, format!("2: upstreams.chat.send_proxy_protocol: {expected}"), "{value}");
    }

    check("on", r#""on" is no version; write one of off, v1, v2"#);
    check("true", "true is a boolean; write one of off, v1, v2");
    check("2", "2 is a number; write one of off, v1, v2");
    check("V2", r#""V2" is no version; did you mean v2?"#);
    check("null", "there is no value; write one of off, v1, v2");
}

#[test]
fn a_cookie_names_the_servers_of_one_upstream() {
    let with_cookies = |first: &str, second: &str| {
        format!(
            "listeners: [{{ bind: \"127.0.0.1:8080\" }}]\nroutes: [{{ path: /a, upstream: api }}, {{ upstream: chat }}]\n\
             upstreams:\n  api: {{ servers: [{{ address: \"10.0.0.1:1\", name: a }}], affinity: [{first}] }}\n  \
             chat: {{ servers: [{{ address: \"10.0.0.2:1\", name: b }}], affinity: [{second}] }}\n"
        )
    };
    assert_eq!(
        complaint(&with_cookies("sticky_cookie", "sticky_cookie: { max_age: 1d }")),
        "5: upstreams.chat: its sticky_cookie \"steadfast\" is that of upstreams.api too, which has other servers; \
         write sticky_cookie: { name: ... } with another name, or give the same servers the same names"
    );
    for (first, second) in [("sticky_cookie: { name: api }", "sticky_cookie"), ("sticky_cookie", "client_ip")] {
        config(&with_cookies(first, second));
    }
    let named_alike = with_cookies("sticky_cookie", "sticky_cookie").replace("name: b", "name: a");
    config(&named_alike);
}

#[test]
fn a_server_is_an_address() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("upstreams", &format!("{{ chat: {{ servers: {value} }} }}")));
        assert_eq!(complaint, format!("2: upstreams.chat.servers{expected}"), "servers: {value}");
    }

    check(r#"["10.0.0.1"]"#, r#"[0]: "10.0.0.1" has no port; write it as "10.0.0.1:3000""#);
    check(
        r#"["chat-1:3000"]"#,
        r#"[0]: "chat-1:3000" is a host name; write IP and port, such as "10.0.0.1:3000", or { dns: "chat-1:3000" } for all addresses of this name"#,
    );
    check(
        r#"["chat-1.internal"]"#,
        r#"[0]: "chat-1.internal" is a host name; write IP and port, such as "10.0.0.1:3000", or { dns: "chat-1.internal:3000" } for all addresses of this name"#,
    );
    check(
        r#"["http://10.0.0.1:3000"]"#,
        r#"[0]: "http://10.0.0.1:3000" has a scheme; write only IP and port, such as "10.0.0.1:3000""#,
    );
    check(r#"["10.0.0.1:0"]"#, r#"[0]: "10.0.0.1:0" has port 0, which nothing listens on; write 1 to 65535"#);
    check(
        r#"["0.0.0.0:3000"]"#,
        r#"[0]: "0.0.0.0:3000" is no address to connect to; write "127.0.0.1:3000" for this machine"#,
    );
    check(r#"["[::]:3000"]"#, r#"[0]: "[::]:3000" is no address to connect to; write "[::1]:3000" for this machine"#);
    check(
        r#"["[2001:DB8::1]:3000"]"#,
        r#"[0]: "[2001:DB8::1]:3000" is not written the shortest way; write it as "[2001:db8::1]:3000""#,
    );
    check(
        r#"["10.0.0.1:03000"]"#,
        r#"[0]: "10.0.0.1:03000" is not written the shortest way; write it as "10.0.0.1:3000""#,
    );
    check(r#"["10.0.0.1:3000/"]"#, r#"[0]: "10.0.0.1:3000/" has the port "3000/"; write a number up to 65535"#);
    check(
        r#"["127.0.0.1:8080"]"#,
        r#"[0]: "127.0.0.1:8080" is listeners[0].bind, so requests would go round in circles; write the server's own address"#,
    );
    check("[3000]", r#"[0]: "3000" is only a port; write it as "10.0.0.1:3000""#);
    check(
        "[null]",
        r#"[0]: there is no value; write "10.0.0.1:3000" or { address: "10.0.0.1:3000", name: a, weight: 1, state: ready }"#,
    );
    check(
        r#"["10.0.0.1:1", "10.0.0.1:1"]"#,
        r#"[1]: "10.0.0.1:1" is already upstreams.chat.servers[0]; list it once, with a weight for a larger share"#,
    );
    check(
        r#"[{ address: "10.0.0.1:1", name: a }, { address: "10.0.0.2:1", name: a }]"#,
        r#"[1]: "a" is already the name of upstreams.chat.servers[0]; choose another"#,
    );
    check(
        r#"[{ address: "10.0.0.1:1", name: "10.0.0.2:1" }, "10.0.0.2:1"]"#,
        r#"[0].name: "10.0.0.2:1" is not a name; write 1 to 64 of A-Z a-z 0-9 . _ -"#,
    );
    check("[{ name: a }]", r#"[0].address: missing; write IP and port, such as "10.0.0.1:3000""#);
    check(r#"[{ address: "10.0.0.1:1", name: 1 }]"#, r#"[0].name: 1 is a number; write a name in quotes, such as "a""#);
    check(
        r#"[{ address: "10.0.0.1:1", name: "" }]"#,
        r#"[0].name: "" is not a name; write 1 to 64 of A-Z a-z 0-9 . _ -"#,
    );
    check(r#"[{ address: "10.0.0.1:1", weight: 0 }]"#, "[0].weight: 0 is out of range; write a number from 1 to 256");
    check(
        r#"[{ address: "10.0.0.1:1", weight: 257 }]"#,
        "[0].weight: 257 is out of range; write a number from 1 to 256",
    );
    check(
        r#"[{ address: "10.0.0.1:1", weight: 1.5 }]"#,
        "[0].weight: 1.5 is out of range; write a number from 1 to 256",
    );
    check(r#"[{ address: "10.0.0.1:1", weight: "2" }]"#, r#"[0].weight: "2" is text; write a number from 1 to 256"#);
    check(
        r#"[{ adress: "10.0.0.1:1" }]"#,
        r#"[0].adress: unknown key; did you mean "address"? (known here: address, name, weight, state, dns, srv, refresh)"#,
    );
    check(r#"[{ address: "10.0.0.1:1", state: Drain }]"#, r#"[0].state: "Drain" is no state; did you mean drain?"#);
    check(
        r#"[{ address: "10.0.0.1:1", state: down }]"#,
        r#"[0].state: "down" is no state; write one of ready, drain, maint"#,
    );
    check(
        r#"[{ address: "10.0.0.1:1", state: off }]"#,
        r#"[0].state: "off" is no state; write one of ready, drain, maint"#,
    );
    check(r#"[{ address: "10.0.0.1:1", state: }]"#, "[0].state: there is no value; write one of ready, drain, maint");
    let idle = ": no server is ready, so nobody could be served; leave state out for at least one of them";
    check(r#"[{ address: "10.0.0.1:1", state: drain }]"#, idle);
    check(r#"[{ address: "10.0.0.1:1", state: maint }, { address: "10.0.0.2:1", state: drain }]"#, idle);
    // Which state a server with a mistake would have had is not known.
    check(
        r#"[{ address: "10.0.0.1:1", state: maint }, { address: "10.0.0.2", state: drain }]"#,
        r#"[1].address: "10.0.0.2" has no port; write it as "10.0.0.2:3000""#,
    );
    check(r#"[{ dns: "chat:1", state: drain }, { address: "10.0.0.1:1", state: maint }]"#, idle);
}

#[test]
fn servers_may_be_asked_for_by_name() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with("upstreams", &format!("{{ chat: {{ servers: [{value}] }} }}")));
        assert_eq!(complaint, format!("2: upstreams.chat.servers{expected}"), "servers: [{value}]");
    }

    check("{ dns: chat }", r#"[0].dns: "chat" has no port; write name and port, such as "chat.internal:3000""#);
    check(r#"{ dns: "chat:0" }"#, r#"[0].dns: "chat:0" has the port "0"; write a number from 1 to 65535"#);
    check(r#"{ dns: "chat:http" }"#, r#"[0].dns: "chat:http" has the port "http"; write a number from 1 to 65535"#);
    check(
        r#"{ dns: "10.0.0.1:3000" }"#,
        r#"[0].dns: "10.0.0.1:3000" is an address, and needs not be asked for; write it as address: "10.0.0.1:3000""#,
    );
    let no_name = "is no name of a host; write letters, digits, dots and dashes, such as chat.internal";
    check(r#"{ dns: "http://chat:3000" }"#, &format!(r#"[0].dns: "http://chat" {no_name}"#));
    check(r#"{ dns: "a..b:1" }"#, &format!(r#"[0].dns: "a..b" {no_name}"#));
    check(r#"{ dns: "10.0.0:1" }"#, &format!(r#"[0].dns: "10.0.0" {no_name}"#));
    check(r#"{ srv: "*.chat" }"#, &format!(r#"[0].srv: "*.chat" {no_name}"#));
    check("{ srv: }", r#"[0].srv: there is no value; write a name such as "_http._tcp.chat.internal""#);
    check(r#"{ srv: "chat:80" }"#, r#"[0].srv: "chat:80" has a port, which the records say; write "chat""#);
    check(
        r#"{ dns: "chat:80", address: "10.0.0.1:80" }"#,
        "[0].dns: there is address beside it; write one of address, dns, srv",
    );
    check(r#"{ dns: "chat:80", srv: chat }"#, "[0].srv: there is dns beside it; write one of address, dns, srv");
    check(r#"{ dns: "chat:80", name: a }"#, "[0].name: who is found there is called by its address; remove it");
    check("{ srv: chat, weight: 2 }", "[0].weight: the records say the weights; remove it");
    check(r#"{ address: "10.0.0.1:1", refresh: 5s }"#, "[0].refresh: an address is not asked for; remove it");
    check(r#"{ dns: "chat:80", refresh: 99ms }"#, r#"[0].refresh: "99ms" is out of range; write 100ms to 1h"#);
    check(r#"{ dns: "chat:80", refresh: 61m }"#, r#"[0].refresh: "61m" is out of range; write 100ms to 1h"#);
    check(
        r#"{ dns: "chat:80" }, { dns: "Chat:80", weight: 2 }"#,
        r#"[1]: "chat:80" is already upstreams.chat.servers[0]; list it once"#,
    );
}

#[test]
fn affinity_sources_are_known_and_can_be_reached() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with_chat("affinity", value));
        assert_eq!(complaint, format!("2: upstreams.chat.affinity{expected}"), "affinity: {value}");
    }

    check("[]", ": this list is empty; write a list such as [forwarded_for, client_ip]");
    check("client_ip", r#": "client_ip" is text; write a list such as [forwarded_for, client_ip]"#);
    check("[ip_hash]", "[0]: ip_hash is called client_ip here; write client_ip");
    check("[client-ip]", r#"[0]: "client-ip" is no source; did you mean client_ip?"#);
    check("[cookie]", "[0]: cookie needs a name; write it as { cookie: NAME }");
    check(
        "[magic]",
        r#"[0]: "magic" is no source; write engine_io, sticky_cookie, forwarded_for, client_ip, { cookie: NAME }, { header: NAME }, { query: NAME } or { session: KIND }"#,
    );
    check("[{ cookie: sid, header: X-A }]", "[0]: this item has several keys; write one source per item");
    check(
        "[{}]",
        "[0]: this mapping is empty; write engine_io, sticky_cookie, forwarded_for, client_ip, { cookie: NAME }, { header: NAME }, { query: NAME } or { session: KIND }",
    );
    check("[{ cookie: }]", "[0].cookie: there is no value; write the name of a cookie, such as sid");
    check(r#"[{ cookie: "a b" }]"#, r#"[0].cookie: "a b" is no name of a cookie; write one such as sid"#);
    check(r#"[{ header: "X Y" }]"#, r#"[0].header: "X Y" is no name of a header; write one such as X-User-Id"#);
    check(
        r#"[{ query: "?room=" }]"#,
        r#"[0].query: "?room=" is no name of a query parameter; write one such as room, without ? & = #"#,
    );
    check(
        "[{ forwarded_for: { pick: last } }]",
        r#"[0].forwarded_for.pick: "last" is no pick; write one of first, rightmost_untrusted"#,
    );
    check(
        "[{ forwarded_for: first }]",
        r#"[0].forwarded_for: "first" is text; write a mapping such as { pick: first, ipv6_prefix: 64 }"#,
    );
    check("[{ client_ip: x }]", r#"[0].client_ip: "x" is text; write a mapping such as { ipv6_prefix: 64 }"#);
    check("[{ engine_io: x }]", "[0].engine_io: takes no value; write only engine_io");
    for wrong in ["0", "129", "-1", "64.5"] {
        let out = format!("{wrong} is out of range; write a number from 1 to 128");
        for source in ["client_ip", "forwarded_for"] {
            check(&format!("[{source}: {{ ipv6_prefix: {wrong} }}]"), &format!("[0].{source}.ipv6_prefix: {out}"));
        }
    }
    check(
        "[{ client_ip: { ipv6_prefix: /64 } }]",
        r#"[0].client_ip.ipv6_prefix: "/64" is text; write a number from 1 to 128"#,
    );
    check("[{ client_ip: { pick: first } }]", "[0].client_ip.pick: unknown key; known here: ipv6_prefix");
    check(
        "[{ client_ip: { ipv4_prefix: 24 } }]",
        r#"[0].client_ip.ipv4_prefix: unknown key; did you mean "ipv6_prefix"? (known here: ipv6_prefix)"#,
    );
    check(
        "[forwarded_for, { forwarded_for: { ipv6_prefix: 48 } }]",
        "[1]: this source stands here already; remove one",
    );
    check("[client_ip, { client_ip: { ipv6_prefix: 48 } }]", "[1]: this source stands here already; remove one");
    check(
        "[{ client_ip: { ipv6_prefix: 48 } }, { cookie: a }]",
        "[1]: never asked, because client_ip always gives a key; move it before",
    );
    check("[forwarded_for, { forwarded_for: { pick: first } }]", "[1]: this source stands here already; remove one");
    check("[{ coookie: sid }]", r#"[0].coookie: "coookie" is no source; did you mean cookie?"#);
    check("[session]", "[0]: session needs a kind; write it as { session: mcp } or { session: signalr }");
    check("[mcp]", "[0]: mcp is a kind of session; write it as { session: mcp }");
    check("[session: mpc]", r#"[0].session: "mpc" is no kind of session; did you mean mcp?"#);
    check(
        "[session: sockjs]",
        r#"[0].session: "sockjs" is no kind of session; write mcp, signalr or { learn: { response_header: NAME }, find: { header: NAME } }"#,
    );
    check(
        "[session: { learn: { response_header: A } }]",
        "[0].session.find: missing; write { header: NAME }, { query: NAME } or { cookie: NAME }",
    );
    check(
        "[session: { find: { header: A } }]",
        "[0].session.learn: missing; write { response_header: NAME } or { json: MEMBER }",
    );
    check(
        "[session: { learn: { json: [] }, find: { query: id } }]",
        "[0].session.learn.json: this list is empty; write the name of a member, such as sessionId or session.id, or a list of them",
    );
    check(
        "[session: { learn: { json: a..b }, find: { query: id } }]",
        r#"[0].session.learn.json: "a..b" is no path of members; write the name of a member, such as sessionId or session.id, or a list of them"#,
    );
    check(
        "[session: { learn: { set_cookie: sid }, find: { cookie: sid } }]",
        "[0].session.learn.set_cookie: a cookie is learned by the source { cookie: NAME }; write that instead of session",
    );
    check(
        "[session: { learn: { header: A }, find: { header: A } }]",
        "[0].session.learn.header: unknown place; write { response_header: NAME } or { json: MEMBER }",
    );
    check(
        "[session: { learn: { response_header: A }, find: { body: A } }]",
        "[0].session.find.body: unknown place; write { header: NAME }, { query: NAME } or { cookie: NAME }",
    );
    check(
        "[session: { learn: { response_header: A, json: b }, find: { header: A } }]",
        "[0].session.learn: several keys; write { response_header: NAME } or { json: MEMBER }",
    );
    check(
        "[session: { learn: { response_header: A B }, find: { header: A } }]",
        r#"[0].session.learn.response_header: "A B" is no name of a header; write one such as Mcp-Session-Id"#,
    );
    check(
        "[{ sticky_cookie: { name: a b } }]",
        r#"[0].sticky_cookie.name: "a b" is no name of a cookie; write one such as sid"#,
    );
    check(
        "[{ sticky_cookie: { max_age: 500d } }]",
        r#"[0].sticky_cookie.max_age: "500d" is out of range; write 1s to 400d"#,
    );
    check(
        "[{ sticky_cookie: steadfast }]",
        r#"[0].sticky_cookie: "steadfast" is text; write a mapping such as { name: steadfast, max_age: 1d }"#,
    );
    check(
        "[{ sticky_cookie: { pass_to_servers: 1 } }]",
        "[0].sticky_cookie.pass_to_servers: 1 is a number; write on or off",
    );
    check("[sticky_cookie, { sticky_cookie: { name: other } }]", "[1]: this source stands here already; remove one");
    check("[{ cookie: a }, { cookie: a }]", "[1]: this source stands here already; remove one");
    check("[client_ip, { cookie: a }]", "[1]: never asked, because client_ip always gives a key; move it before");
    check("[client_ip, client_ip]", "[1]: this source stands here already; remove one");
    check(
        "[null]",
        "[0]: there is no value; write engine_io, sticky_cookie, forwarded_for, client_ip, { cookie: NAME }, { header: NAME }, { query: NAME } or { session: KIND }",
    );
}

#[test]
fn balance_is_made_of_known_words() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with_chat("balance", value));
        assert_eq!(complaint, format!("2: upstreams.chat.balance{expected}"), "balance: {value}");
    }

    check("ketama", r#": "ketama" is text; write a mapping such as { hash: ketama, keyless: least_conn }"#);
    check("off", r#": "off" is text; write a mapping such as { hash: ketama, keyless: least_conn }"#);
    check("{ hash: maglev }", r#".hash: "maglev" is no hash; write one of ketama, rendezvous"#);
    check("{ hash: Rendez-vous }", r#".hash: "Rendez-vous" is no hash; did you mean rendezvous?"#);
    check("{ hash: }", ".hash: there is no value; write one of ketama, rendezvous");
    check("{ hash: [ketama] }", ".hash: this is a list; write one of ketama, rendezvous");
    check("{ keyless: leastconn }", r#".keyless: "leastconn" is no way to choose; did you mean least_conn?"#);
    check(
        "{ keyless: ip_hash }",
        r#".keyless: "ip_hash" is no way to choose; write one of least_conn, round_robin, random_two"#,
    );
    check(
        "{ keyless: off }",
        r#".keyless: "off" is no way to choose; write one of least_conn, round_robin, random_two"#,
    );
    for wrong in ["0", "100", "1001", "1.25", "-125"] {
        check(
            &format!("{{ balance_factor: {wrong} }}"),
            &format!(".balance_factor: {wrong} is out of range; write off or a number of percent from 101 to 1000"),
        );
    }
    check(
        "{ balance_factor: 125% }",
        r#".balance_factor: "125%" is text; write off or a number of percent from 101 to 1000"#,
    );
    check(
        "{ balance_factor: on }",
        r#".balance_factor: "on" is text; write off or a number of percent from 101 to 1000"#,
    );
    check("{ factor: 125 }", ".factor: unknown key; known here: hash, balance_factor, keyless");
}

#[test]
fn a_timeout_has_a_unit_and_a_range() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with_chat("timeouts", value));
        assert_eq!(complaint, format!("2: upstreams.chat.timeouts{expected}"), "timeouts: {value}");
    }

    check("{ connect: 2 }", r#".connect: "2" has no unit; write it with one, such as 2s (units: ms, s, m, h, d)"#);
    check("{ connect: 0s }", r#".connect: "0s" is out of range; write 1ms to 1d"#);
    check("{ connect: 25h }", r#".connect: "25h" is out of range; write 1ms to 1d"#);
    check("{ idle: 31d }", r#".idle: "31d" is out of range; write 1ms to 30d"#);
    check(
        "{ keepalive: 1h30m }",
        r#".keepalive: "1h30m" has more than one unit; write it in one, such as 90m for 1h30m"#,
    );
    check(
        "{ body: soon }",
        r#".body: "soon" is not a duration; write a number and a unit such as 15s (units: ms, s, m, h, d)"#,
    );
    check(
        "{ send: off }",
        r#".send: "off" is not a duration; write a number and a unit such as 15s (units: ms, s, m, h, d)"#,
    );
    check(
        "{ read: 1m }",
        ".read: unknown key; known here: connect, request_head, response_head, body, send, idle, keepalive, max_age",
    );
    check(
        "{ response-head: 1m }",
        r#".response-head: unknown key; did you mean "response_head"? (known here: connect, request_head, response_head, body, send, idle, keepalive, max_age)"#,
    );
    check("5s", r#": "5s" is text; write a mapping such as { connect: 2s, idle: 1h }"#);
    check("{ idle: }", ".idle: there is no value; write a duration such as 15s");
    check("{ max_age: 500ms }", r#".max_age: "500ms" is out of range; write 1s to 365d"#);
    check("{ max_age: 366d }", r#".max_age: "366d" is out of range; write 1s to 365d"#);
    check(
        "{ max_age: never }",
        r#".max_age: "never" is not a duration; write a number and a unit such as 15s (units: ms, s, m, h, d)"#,
    );
}

#[test]
fn what_is_inserted_into_streams_is_one_line() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with_chat("sse", value));
        assert_eq!(complaint, format!("2: upstreams.chat.sse{expected}"), "sse: {value}");
    }

    check("off", r#": "off" is text; write a mapping such as { keepalive: 15s }"#);
    check(
        "{ keepalive: on }",
        r#".keepalive: "on" is not a duration; write a number and a unit such as 15s (units: ms, s, m, h, d)"#,
    );
    check("{ keepalive: true }", ".keepalive: true is a boolean; write a duration such as 15s");
    check("{ keepalive: 0s }", r#".keepalive: "0s" is out of range; write 1ms to 1d"#);
    check(
        r#"{ comment: "a\nb" }"#,
        r#".comment: "a\nb" has a line break, which would end the comment; write one line"#,
    );
    check("{ comment: 1 }", ".comment: 1 is a number; write text such as keepalive");
    check("{ retry: 3000 }", r#".retry: "3000" has no unit; write it with one, such as 3000s (units: ms, s, m, h, d)"#);
    check("{ retry: 0ms }", r#".retry: "0ms" is out of range; write 1ms to 1d"#);
    check("{ retry: 25h }", r#".retry: "25h" is out of range; write 1ms to 1d"#);
    check("{ retry: true }", ".retry: true is a boolean; write a duration such as 15s");
    check(
        "{ retry: never }",
        r#".retry: "never" is not a duration; write a number and a unit such as 15s (units: ms, s, m, h, d)"#,
    );
    check("{ accept_encoding: off }", r#".accept_encoding: "off" is no choice; write one of remove, pass"#);
    check("{ accept_encoding: remov }", r#".accept_encoding: "remov" is no choice; did you mean remove?"#);
    check("{ early_head: 999ms }", r#".early_head: "999ms" is out of range; write 1s to 1d"#);
    check("{ early_head: 25h }", r#".early_head: "25h" is out of range; write 1s to 1d"#);
    check("{ early_head: true }", ".early_head: true is a boolean; write a duration such as 15s");
    check(
        "{ early_head: 2m }",
        ".early_head: the time-out response_head would be over first; write a shorter time, or a longer time-out",
    );
    check("{ resume: yes }", r#".resume: "yes" is text; write on or off"#);
    check("{ resume: 3 }", ".resume: 3 is a number; write on or off");
    check("{ resume: on, resume_attempts: 0 }", ".resume_attempts: 0 is out of range; write a number from 1 to 10");
    check("{ resume: on, resume_attempts: 11 }", ".resume_attempts: 11 is out of range; write a number from 1 to 10");
    let unasked = ".resume_attempts: no stream is resumed, because resume is off; write resume: on, or remove this";
    check("{ resume_attempts: 3 }", unasked);
    check("{ resume: off, resume_attempts: 3 }", unasked);
}

#[test]
fn pings_have_a_pace_and_their_answers_a_time() {
    #[track_caller]
    fn check(value: &str, expected: &str) {
        let complaint = complaint(&with_chat("websocket", value));
        assert_eq!(complaint, format!("2: upstreams.chat.websocket{expected}"), "websocket: {value}");
    }

    check("off", r#": "off" is text; write a mapping such as { ping: 30s }"#);
    check("{ ping: 999ms }", r#".ping: "999ms" is out of range; write 1s to 1d"#);
    check("{ ping: 2d }", r#".ping: "2d" is out of range; write 1s to 1d"#);
    check("{ ping: 30 }", r#".ping: "30" has no unit; write it with one, such as 30s (units: ms, s, m, h, d)"#);
    check("{ ping: true }", ".ping: true is a boolean; write a duration such as 15s");
    check("{ pong_timeout: 99ms }", r#".pong_timeout: "99ms" is out of range; write 100ms to 1d"#);
    check(
        "{ pong_timeout: off }",
        r#".pong_timeout: "off" is not a duration; write a number and a unit such as 15s (units: ms, s, m, h, d)"#,
    );
    check("{ pong: 1s }", r#".pong: unknown key; did you mean "ping"? (known here: ping, pong_timeout)"#);
}

//! The commands that ask the running proxy: what they print, and what they say when it cannot be done.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::proxy::BINARY;
use crate::harness::websocket::open;
use crate::harness::{Named, Proxy, SecretFile, Upstream, soon};

/// The exit code and what is printed, errors behind it.
async fn run(proxy: &Proxy, command: &str) -> (i32, String) {
    let mut words = command.split_whitespace();
    let name = words.next().expect("a command has a name");
    let mut command = Command::new(BINARY);
    command.arg(name).arg("-c").arg(proxy.operators_file()).args(words).stdin(Stdio::null());
    let output = soon("the command", command.output()).await.expect("it starts");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().expect("no signal ends it"), text)
}

/// What is printed by a command that is obeyed.
async fn said(proxy: &Proxy, command: &str) -> String {
    let (code, text) = run(proxy, command).await;
    assert_eq!(code, 0, "{command}: {text}");
    text
}

#[tokio::test]
async fn the_status_is_a_table_for_people() {
    let (a, b) = (Upstream::start().await, Upstream::named("b").await);
    let proxy = Proxy::start().upstream("chat", &[&Named(&a, "a"), &Named(&b, "b")]).run().await;
    said(&proxy, "state --upstream chat --server b maint").await;
    let _pair = open(&proxy, &a).await;
    proxy.relays_once(1, "").await;
    said(&proxy, "weight --upstream chat --server b 7").await;
    said(&proxy, "drain --upstream chat --server a --spread 1h --timeout 2h").await;
    let text = said(&proxy, "status").await;
    let line = |begin: &str| text.lines().find(|line| line.trim_start().starts_with(begin)).map(str::to_owned);
    let words = |begin: &str| line(begin).unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(line("steadfast 0.").is_some_and(|line| line.contains(": ready, up for ")), "{text}");
    assert!(line("listening on").is_some_and(|line| line.contains(&proxy.address().to_string())), "{text}");
    let (a, b) = (words("a ").join(" "), words("b ").join(" "));
    assert!(a.starts_with("a drain, by order up ") && a.contains(" 100 % 0 % |####"), "{a}\n{text}");
    assert!(b.starts_with("b maint, by order up ") && b.contains(" 7, by order 0 0 0 0 0 % 0 % |...."), "{b}\n{text}");
    assert!(text.contains("server a of upstream chat: 0s of 7200s: 1 of 1 connections open, goes on"), "{text}");
    let json: Value = serde_json::from_str(&said(&proxy, "status --json").await).expect("it is JSON");
    assert_eq!(json["upstreams"][0]["servers"][1]["weight"], 7);
    assert_eq!(said(&proxy, "undrain --upstream chat --server a").await, "it is drained no more\n");
    let text = said(&proxy, "weight --upstream chat --server b file").await;
    assert_eq!(text, "server b of upstream chat: weight as the file says\n");
}

#[tokio::test]
async fn relays_are_listed_and_ended() {
    let server = Upstream::start().await;
    let proxy = Proxy::start().upstream("chat", &[&Named(&server, "a")]).run().await;
    let mut first = open(&proxy, &server).await;
    let id = proxy.relays_once(1, "").await["relays"][0]["id"].clone();
    let _second = open(&proxy, &server).await;
    proxy.relays_once(2, "").await;
    let text = said(&proxy, "relays --kind websocket --upstream chat --server a --oldest --limit 1").await;
    let [head, row, end] = &text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert!(head.trim_start().starts_with("ID  KIND"), "{text}");
    assert!(row.trim_start().starts_with(&format!("{id}  websocket  chat")), "{text}");
    assert_eq!(*end, "1 of 2");
    assert!(said(&proxy, "relays --client 192.0.2.1").await.ends_with("0 of 0\n"));
    let page: Value = serde_json::from_str(&said(&proxy, "relays --json --limit 1").await).expect("it is JSON");
    assert_eq!((&page["count"], page["next"].is_u64()), (&json!(2), true), "{page}");
    assert_eq!(said(&proxy, &format!("relays --end {id}")).await, format!("relay {id} is told to end\n"));
    let frame = crate::harness::websocket::next_frame(&mut first.0).await;
    assert_eq!(frame.0, 0x88);
    let (code, text) = run(&proxy, "relays --end 18446744073709551615").await;
    assert_eq!((code, &*text), (1, "steadfast: there is no relay of this id, or no more\n"));
}

#[tokio::test]
async fn what_cannot_be_done_is_said_with_what_could() {
    let (server, token) = (Upstream::named("a").await, SecretFile::with("0123456789abcdef"));
    let mut proxy = Proxy::start()
        .upstream("chat", &[&Named(&server, "a")])
        .admin(&format!("token_file: {}", token.path().display()))
        .run()
        .await;
    for (command, code, part) in [
        ("state --upstream chat --server b ready", 1, "there is no server b of upstream chat; there are a"),
        ("weight --upstream chut --server a 1", 1, "there are chat"),
        ("weight --upstream chat --server a 0", 2, "write a number from 1 to 256, or file"),
        ("state --upstream chat --server a up", 2, "possible values: ready, drain, maint, file"),
        ("drain --upstream chat --spread soon", 2, "spread: \"soon\""),
        ("rebalance --upstream chut", 1, "there are chat"),
        ("relays --min-age 5", 2, "min_age: "),
        ("relays --limit 0 --json", 2, "limit"),
        ("explain --live x", 2, "path: "),
    ] {
        let (its_code, text) = run(&proxy, command).await;
        assert_eq!(its_code, code, "{command}: {text}");
        assert!(text.contains(part), "{command}: {text}");
    }
    let text = said(&proxy, "rebalance --upstream chat").await;
    assert_eq!(text, "0 of 0 relays are elsewhere than they belong; they stay there\n");
    let text = said(&proxy, "rebalance --upstream chat --start --per-minute 7").await;
    assert!(text.contains("7 % of all move in a minute, until none is left"), "{text}");
    said(&proxy, "rebalance --upstream chat --stop").await;
    assert!(said(&proxy, "explain --live /x").await.contains("server 1      a ("));

    std::fs::write(token.path(), "fedcba9876543210").expect("the file is ours");
    let (code, text) = run(&proxy, "status").await;
    assert!(code == 1 && text.contains("the proxy wants another token than that in admin.token_file"), "{text}");
    proxy.terminate();
    assert!(proxy.exit().await.success());
    let (code, text) = run(&proxy, "status").await;
    assert!(code == 1 && text.contains("is it running?"), "{text}");
}

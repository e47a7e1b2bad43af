//! Files that nobody would write: none may panic, and none may be refused without a reason.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_yaml::{Mapping, Value};

use super::examples;
use crate::config::parse;

/// Whatever the text is, there is an answer, and a refusal has places that exist.
fn check(text: &str) {
    let Err(mistakes) = parse(text, "f") else {
        return;
    };
    let shown = mistakes.to_string();
    assert!(!shown.is_empty(), "refused without a reason: {text:?}");
    let line_count = text.lines().count().max(1);
    let mut before = 1;
    for mistake in shown.lines() {
        let mut parts = mistake.splitn(3, ':');
        assert_eq!(parts.next(), Some("f"), "{mistake:?} about {text:?}");
        let line: usize = parts.next().unwrap().parse().unwrap();
        assert!(before <= line && line <= line_count, "{mistake:?} about {text:?}");
        before = line;
    }
}

fn example() -> impl Strategy<Value = String> {
    let texts = examples().into_iter().map(std::fs::read_to_string);
    select(texts.map(Result::unwrap).collect::<Vec<_>>())
}

/// One change to a text.
#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, String),
    Delete(Index, usize),
    RepeatLine(Index, Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let piece = prop_oneof![select(PIECES).prop_map(str::to_owned), any::<char>().prop_map(String::from),];
    prop_oneof![
        (any::<Index>(), piece).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (any::<Index>(), 1..20_usize).prop_map(|(at, length)| Edit::Delete(at, length)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::RepeatLine(from, to)),
    ]
}

/// What means something to YAML or to us.
const PIECES: &[&str] = &[
    "\n",
    "\t",
    "  ",
    ": ",
    ":",
    "- ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "'",
    "\"",
    "\\",
    "#",
    "&a ",
    "*a",
    "<<: ",
    "!t ",
    "!!int ",
    "|",
    ">",
    "%",
    "@",
    "`",
    "---\n",
    "...\n",
    "\u{feff}",
    "\u{e000}0",
    "\0",
    "~",
    "null",
    "off",
    "true",
    "0",
    "-1",
    "99999999999999999999",
    "1e9",
    ".inf",
    "0x10",
    "é",
    "upstreams",
    "servers",
    "address",
    "10.0.0.1:3000",
    "[::]:80",
    "*.a.b",
    "15s",
    "16KiB",
];

fn apply(text: &str, edit: &Edit) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    match edit {
        Edit::Insert(at, piece) => {
            let at = at.index(characters.len() + 1);
            characters.splice(at..at, piece.chars());
        }
        Edit::Delete(at, length) => {
            let from = at.index(characters.len() + 1);
            let to = (from + length).min(characters.len());
            characters.drain(from..to);
        }
        Edit::RepeatLine(from, to) => {
            let mut lines: Vec<&str> = text.lines().collect();
            if lines.is_empty() {
                return String::new();
            }
            let line = lines[from.index(lines.len())];
            lines.insert(to.index(lines.len()), line);
            return lines.join("\n");
        }
    }
    characters.into_iter().collect()
}

/// YAML of our words in any shape.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        select(WORDS).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let key = prop_oneof![
            8 => select(WORDS).prop_map(Value::from),
            1 => inner.clone(),
        ];
        let entries = prop::collection::vec((key, inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::Sequence),
            entries.prop_map(|entries| Value::Mapping(entries.into_iter().collect::<Mapping>())),
        ]
    })
}

const WORDS: &[&str] = &[
    "listeners",
    "bind",
    "routes",
    "host",
    "path",
    "upstream",
    "upstreams",
    "servers",
    "address",
    "name",
    "weight",
    "affinity",
    "balance",
    "hash",
    "rendezvous",
    "balance_factor",
    "keyless",
    "cookie",
    "header",
    "query",
    "timeouts",
    "idle",
    "sse",
    "keepalive",
    "comment",
    "retry",
    "accept_encoding",
    "early_head",
    "pass",
    "websocket",
    "ping",
    "pong_timeout",
    "limits",
    "head_bytes",
    "headers",
    "max_connections",
    "per_client",
    "streams",
    "resets",
    "h2c",
    "none",
    "tcp_keepalive",
    "probes",
    "session_store",
    "memory",
    "redis://:p%40@10.0.0.5:6379/0",
    "admin",
    "access_log",
    "traces",
    "endpoint",
    "http://127.0.0.1:4318",
    "sample",
    "0.05%",
    "propagate",
    "format",
    "shutdown",
    "grace",
    "threads",
    "trusted_proxies",
    "private",
    "client_ip",
    "pick",
    "state",
    "drain",
    "ipv6_prefix",
    "off",
    "auto",
    "chat",
    "tls",
    "0.0.0.0:8080",
    "10.0.0.1:3000",
    "/",
    "*.example.com",
    "15s",
    "16KiB",
    "forwarded_for",
    "<<",
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        // The failing input is printed, and belongs into a table as a case of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn edited_examples_get_an_answer(
        example in example(),
        edits in prop::collection::vec(edit(), 1..8),
    ) {
        check(&edits.iter().fold(example, |text, edit| apply(&text, edit)));
    }

    #[test]
    fn yaml_of_any_shape_gets_an_answer(value in value()) {
        // Some values have no text: a list as a key, for one.
        if let Ok(text) = serde_yaml::to_string(&value) {
            check(&text);
        }
    }

    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn any_pieces_of_yaml_get_an_answer(
        pieces in prop::collection::vec(select([PIECES, WORDS].concat()), 0..40),
    ) {
        check(&pieces.concat());
    }
}

#[test]
fn depth_and_repetition_are_refused_and_not_followed() {
    for open in ["[", "{a: ", "- ", "? ", "&a [*a, "] {
        check(&open.repeat(10_000));
    }
    let laughs: String = (1..20).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1)).collect();
    check(&format!("a0: &a0 [1]\n{laughs}"));
}

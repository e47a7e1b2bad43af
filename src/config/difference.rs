//! What another configuration changes, in sentences for operators. Pure.
//!
//! Listeners, upstreams and servers are told apart by what names them, wherever they stand in the
//! file; routes by all they say, for their order counts; all else by its key. Secrets stand in files
//! of their own, but for what a URL may hold, so no value with an `@` is shown. What is written is
//! compared, and of the files that it names those that may change while their path stays.

use serde_yaml::{Mapping, Value};

use super::Config;
use crate::tls::Certificate;

/// What changes from `before` to `after`, one line each. None when nothing does.
pub fn difference(before: &Config, after: &Config) -> Vec<String> {
    let mut changes = Changes::default();
    let nothing = Mapping::new();
    let (old, new) =
        (before.written.0.as_mapping().unwrap_or(&nothing), after.written.0.as_mapping().unwrap_or(&nothing));
    for (key, name) in [("listeners", "bind"), ("routes", "")] {
        changes.of_lists(key, old.get(key), new.get(key), name);
    }
    changes.of_upstreams(old.get("upstreams"), new.get("upstreams"));
    for key in keys(old, new) {
        if !["listeners", "routes", "upstreams"].contains(&key.as_str()) {
            changes.of_values(&key, old.get(&key), new.get(&key));
        }
    }
    changes.of_files(before, after);
    changes.0
}

#[derive(Debug, Default)]
struct Changes(Vec<String>);

impl Changes {
    fn of_upstreams(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let nothing = Mapping::new();
        let mapping = |value: Option<&Value>| value.and_then(Value::as_mapping).unwrap_or(&nothing).clone();
        let (old, new) = (mapping(old), mapping(new));
        for name in keys(&old, &new) {
            match (old.get(&name), new.get(&name)) {
                (Some(_), None) => self.0.push(format!("upstream {name} removed")),
                (None, Some(_)) => self.0.push(format!("upstream {name} added")),
                (old, new) => self.of_upstream(&name, &mapping(old), &mapping(new)),
            }
        }
    }

    fn of_upstream(&mut self, name: &str, old: &Mapping, new: &Mapping) {
        let path = format!("upstreams.{name}");
        self.of_lists(&format!("{path}.servers"), old.get("servers"), new.get("servers"), "name");
        for key in keys(old, new) {
            if key != "servers" {
                self.of_values(&format!("{path}.{key}"), old.get(&key), new.get(&key));
            }
        }
    }

    /// Of lists whose items are named by their key `name`, or by all that they say.
    fn of_lists(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>, name: &str) {
        let nothing = Vec::new();
        let items = |value: Option<&Value>| {
            let items = value.and_then(Value::as_sequence).unwrap_or(&nothing).clone();
            items.into_iter().map(|item| (named(&item, name), item)).collect::<Vec<_>>()
        };
        let (old, new) = (items(old), items(new));
        for (name, item) in &old {
            match new.iter().find(|(other, _)| other == name) {
                None => self.0.push(format!("{path}: {name} removed")),
                Some((_, other)) if item != other => {
                    self.of_values(&format!("{path}: {name}"), Some(item), Some(other));
                }
                Some(_) => {}
            }
        }
        for (name, _) in new.iter().filter(|(name, _)| old.iter().all(|(other, _)| other != name)) {
            self.0.push(format!("{path}: {name} added"));
        }
        let order = |of: &[(String, Value)], among: &[(String, Value)]| {
            let stays = |name: &&String| among.iter().any(|(other, _)| other == *name);
            of.iter().map(|(name, _)| name).filter(stays).cloned().collect::<Vec<_>>()
        };
        if order(&old, &new) != order(&new, &old) {
            self.0.push(format!("{path}: in another order"));
        }
    }

    fn of_values(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>) {
        if old == new {
            return;
        }
        let nothing = Mapping::new();
        let mapping = |value: Option<&Value>| match value {
            None => Some(nothing.clone()),
            Some(value) => value.as_mapping().cloned(),
        };
        let is_mapping = old.is_some_and(Value::is_mapping) || new.is_some_and(Value::is_mapping);
        match (mapping(old), mapping(new)) {
            (Some(old), Some(new)) if is_mapping => {
                for key in keys(&old, &new) {
                    self.of_values(&format!("{path}.{key}"), old.get(&key), new.get(&key));
                }
            }
            _ => self.0.push(format!("{path}: {} -> {}", shown(old), shown(new))),
        }
    }

    /// Of what stands in files of its own.
    fn of_files(&mut self, before: &Config, after: &Config) {
        for new in &after.listeners {
            let old = before.listeners.iter().find(|old| old.bind == new.bind);
            let certificates = |tls: Option<&super::Tls>| tls.map(|tls| tls.certificates.clone()).unwrap_or_default();
            let old = certificates(old.and_then(|old| old.tls.as_ref()));
            let path = format!("listeners: {}", new.bind);
            self.of_certificates(&path, &old, &certificates(new.tls.as_ref()));
        }
        for new in &after.upstreams {
            let old = before.upstreams.iter().find(|old| old.name == new.name);
            let certificate = |of: &super::Upstream| of.tls.as_ref().and_then(|tls| tls.certificate.clone());
            let old: Vec<_> = old.and_then(certificate).into_iter().collect();
            let new_one: Vec<_> = certificate(new).into_iter().collect();
            self.of_certificates(&format!("upstreams.{}.tls", new.name), &old, &new_one);
        }
        let token = |config: &Config| config.admin.as_ref().and_then(|admin| admin.token.clone());
        let is_same_file = |key: &str, sub: &str| {
            let file = |config: &Config| match sub {
                "" => config.written.0.get(key).cloned(),
                _ => config.written.0.get(key).and_then(|value| value.get(sub)).cloned(),
            };
            file(before) == file(after)
        };
        if token(before) != token(after) && is_same_file("admin", "token_file") {
            self.0.push("admin.token_file: holds another token".into());
        }
        let secret = |config: &Config| config.affinity_secret.as_ref().map(|secret| secret.server(""));
        if secret(before) != secret(after) && is_same_file("affinity_secret_file", "") {
            self.0.push(
                "affinity_secret_file: holds another secret; sessions that carry tags of the old one are lost".into(),
            );
        }
    }

    fn of_certificates(&mut self, path: &str, old: &[Certificate], new: &[Certificate]) {
        for certificate in new {
            let same_file = old.iter().find(|old| old.file == certificate.file);
            if same_file.is_some_and(|old| old.key.cert != certificate.key.cert) {
                let (file, until) = (certificate.file.display(), certificate.valid.1.date());
                self.0.push(format!("{path}: another certificate in {file}, valid until {until}"));
            }
        }
    }
}

/// The keys of both, in the order of the first, then of the second.
fn keys(old: &Mapping, new: &Mapping) -> Vec<String> {
    let name = |key: &Value| key.as_str().map(str::to_owned);
    let mut keys: Vec<String> = old.keys().filter_map(name).collect();
    for key in new.keys().filter_map(name) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// What tells an item from its siblings.
fn named(item: &Value, name: &str) -> String {
    let by = |key: &str| item.get(key).and_then(Value::as_str).filter(|_| !name.is_empty());
    by(name)
        .or_else(|| by("address"))
        .or_else(|| by("dns"))
        .or_else(|| by("srv"))
        .map_or_else(|| shown(Some(item)), str::to_owned)
}

/// A value on one line.
fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None => return "not set".into(),
        Some(Value::Null) => "null".into(),
        Some(Value::Bool(true)) => "on".into(),
        Some(Value::Bool(false)) => "off".into(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Sequence(items)) => {
            let items: Vec<_> = items.iter().map(|item| shown(Some(item))).collect();
            format!("[{}]", items.join(", "))
        }
        Some(Value::Mapping(fields)) => {
            let field = |(key, value): (&Value, &Value)| format!("{}: {}", shown(Some(key)), shown(Some(value)));
            format!("{{ {} }}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        Some(Value::Tagged(tagged)) => shown(Some(&tagged.value)),
    };
    if text.contains("://") && text.contains('@') { "(hidden)".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
listeners: [{ bind: "127.0.0.1:1" }, { bind: "127.0.0.1:2" }]
upstreams:
  chat: { servers: ["127.0.0.1:11", { address: "127.0.0.1:12", name: b }], timeouts: { idle: 1h } }
  news: { servers: ["127.0.0.1:13"] }
routes: [{ path: /a, upstream: chat }, { path: /b, upstream: news }]
session_store: { url: "redis://:very-secret@127.0.0.1:6379/0" }
"#;

    #[track_caller]
    fn check(changes: &[(&str, &str)], expected: &[&str]) {
        let parse = |text: &str| super::super::parse(text, "test.yaml").expect("a right file");
        let mut text = FILE.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        assert_eq!(difference(&parse(FILE), &parse(&text)), expected);
    }

    #[test]
    fn every_change_is_told_where_it_stands() {
        check(&[], &[]);
        check(&[("127.0.0.1:2", "127.0.0.1:3")], &["listeners: 127.0.0.1:2 removed", "listeners: 127.0.0.1:3 added"]);
        check(&[("\"127.0.0.1:2\"", "\"127.0.0.1:2\", h2c: on")], &["listeners: 127.0.0.1:2.h2c: not set -> on"]);
        check(
            &[("\"127.0.0.1:11\"", "\"127.0.0.1:14\"")],
            &["upstreams.chat.servers: 127.0.0.1:11 removed", "upstreams.chat.servers: 127.0.0.1:14 added"],
        );
        check(&[("name: b", "name: b, weight: 2")], &["upstreams.chat.servers: b.weight: not set -> 2"]);
        check(&[("idle: 1h", "idle: 2h")], &["upstreams.chat.timeouts.idle: 1h -> 2h"]);
        check(&[("{ idle: 1h }", "{}")], &["upstreams.chat.timeouts.idle: 1h -> not set"]);
        check(
            &[
                ("path: /b, upstream: news", "path: /b, upstream: chat"),
                ("  news: { servers: [\"127.0.0.1:13\"] }\n", ""),
            ],
            &[
                "routes: { path: /b, upstream: news } removed",
                "routes: { path: /b, upstream: chat } added",
                "upstream news removed",
            ],
        );
        check(
            &[(
                "{ path: /a, upstream: chat }, { path: /b, upstream: news }",
                "{ path: /b, upstream: news }, { path: /a, upstream: chat }",
            )],
            &["routes: in another order"],
        );
    }

    #[test]
    fn secrets_are_not_shown() {
        check(&[("very-secret", "other-secret")], &["session_store.url: (hidden) -> (hidden)"]);
    }
}

//! YAML with the line of everything, several documents in a file: what `serde_yaml` does not tell.

use std::rc::Rc;

use saphyr_parser::{Event, Parser};

use super::super::{Place, Refused};

/// A value, and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<Node>),
    /// Keys in their order, each with its line.
    Mapping(Vec<(String, usize, Node)>),
}

impl Node {
    /// What stands behind `key` in a mapping.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|entry| entry.0 == key).map(|entry| &entry.2)
    }

    /// What stands at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The text at the end of a path of keys; empty if there is none.
    pub(super) fn text(&self, path: &[&str]) -> &str {
        match self.at(path).map(|it| &it.value) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// The items of a list at the end of a path of keys.
    pub(super) fn items(&self, path: &[&str]) -> &[Self] {
        match self.at(path).map(|it| &it.value) {
            Some(Value::List(items)) => items,
            _ => &[],
        }
    }

    /// The keys of a mapping, with their lines and what stands behind them.
    pub(super) fn entries(&self) -> &[(String, usize, Self)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }
}

/// Reads all documents of a file.
///
/// # Errors
///
/// What is no YAML, or none that people write by hand, with its line.
pub(super) fn documents(file: &Rc<str>, text: &str) -> Result<Vec<Node>, Refused> {
    // What is missed at the end may be placed on a line behind it.
    let last = text.lines().count().max(1);
    let refuse = |line: usize, text: &str| Place { file: Rc::clone(file), line: line.min(last) }.refuse(text);
    let mut documents = Vec::new();
    // What is open, the innermost last; a mapping with the key that waits for its value.
    let mut open: Vec<(Node, Option<(String, usize)>)> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| refuse(error.marker().line(), &format!("no YAML: {}", error.info())))?;
        let line = span.start.line();
        let done = match event {
            Event::Scalar(text, ..) => Node { line, value: Value::Text(text.into_owned()) },
            Event::SequenceStart(..) => {
                open.push((Node { line, value: Value::List(Vec::new()) }, None));
                if open.len() > DEPTH_MAX {
                    return Err(refuse(line, &format!("more than {DEPTH_MAX} levels")));
                }
                continue;
            }
            Event::MappingStart(..) => {
                open.push((Node { line, value: Value::Mapping(Vec::new()) }, None));
                if open.len() > DEPTH_MAX {
                    return Err(refuse(line, &format!("more than {DEPTH_MAX} levels")));
                }
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((node, _)) => node,
                None => continue,
            },
            Event::Alias(_) => {
                return Err(refuse(line, "aliases (*name) are not read; write the value in their place"));
            }
            _ => continue,
        };
        match open.last_mut() {
            None => documents.push(done),
            Some((Node { value: Value::List(items), .. }, _)) => items.push(done),
            Some((Node { value: Value::Mapping(entries), .. }, key)) => match (key.take(), done) {
                (Some((name, line)), done) => entries.push((name, line, done)),
                (None, Node { line, value: Value::Text(name) }) => *key = Some((name, line)),
                (None, _) => return Err(refuse(line, "a list or mapping in the place of a key")),
            },
            Some(_) => {}
        }
    }
    Ok(documents)
}

/// Deeper than any object of Kubernetes.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_lines() {
        let text = "a: 1\n---\n# nothing\nb:\n  - c: |\n      x\n      y\n  - 'd'\n";
        let documents = documents(&"f".into(), text).expect("it is YAML");
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[0].text(&["a"]), "1");
        let items = documents[1].items(&["b"]);
        assert_eq!((items.len(), items[0].text(&["c"])), (2, "x\ny\n"));
        assert_eq!(items[0].entries()[0].1, 5);
        assert_eq!(documents[1].text(&["b", "c"]), "");
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_line() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let refused = documents(&"f".into(), text).expect_err(text).to_string();
            assert!(refused.starts_with(expected), "{text:?}: {refused}");
        }

        check("a: [", "f:1: no YAML: ");
        check("a: 1\nb: - c\n", "f:2: no YAML: ");
        check("a: &x 1\nb: *x\n", "f:2: aliases");
        check("? [a]\n: b\n", "f:1: a list or mapping in the place of a key");
        check(&"- ".repeat(100), "f:1: more than 64 levels");
        check(&"[".repeat(100_000), "f:1: ");
    }
}

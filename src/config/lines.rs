//! On which line of the file each key stands, which `serde_yaml` does not tell.
//!
//! A second parser walks the same text for its events, each with its place. The walk keeps no
//! values. It sees every occurrence of a key, so it is also what finds the duplicates.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use saphyr_parser::{Event, Parser, Span};

use super::mistakes::KeyPath;

/// The line of every key and list item of one document.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<KeyPath, usize>);

impl Lines {
    /// The line of `path`, or of the nearest thing around it: a missing key has no line, nor have
    /// the keys behind an alias.
    pub(super) fn line_of(&self, path: &KeyPath) -> usize {
        let mut around = Some(path.clone());
        while let Some(path) = around {
            if let Some(line) = self.0.get(&path) {
                return *line;
            }
            around = path.parent();
        }
        1
    }
}

/// What a walk over the text brings home.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) lines: Lines,
    pub(super) duplicates: Vec<Duplicate>,
}

/// A key that its mapping already had.
#[derive(Debug)]
pub(super) struct Duplicate {
    pub(super) path: KeyPath,
    pub(super) line: usize,
    /// Where the repeated key stands in the text, counted in characters.
    pub(super) chars: Range<usize>,
}

/// Why a text cannot be walked to its end.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) line: usize,
    pub(super) why: Why,
}

#[derive(Debug)]
pub(super) enum Why {
    /// No document at all: nothing, or only comments.
    Empty,
    /// A second document begins.
    SecondDocument,
    /// More levels than any configuration has.
    TooDeep,
    /// Not YAML, in the words of the parser.
    Syntax(String),
}

/// Walks all of `text`, which must hold exactly one document.
pub(super) fn walk(text: &str) -> Result<Walk, Broken> {
    let last_line = last_line(text);
    let mut walker = Walker { last_line, ..Walker::default() };
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| Broken {
            line: error.marker().line().min(last_line),
            why: Why::Syntax(error.info().to_owned()),
        })?;
        if matches!(event, Event::DocumentStart(_)) {
            documents += 1;
        }
        let line = walker.line_of(span);
        if documents > 1 {
            let why = Why::SecondDocument;
            return Err(Broken { line, why });
        }
        walker.step(&event, span);
        if walker.open.len() > DEPTH_MAX {
            let why = Why::TooDeep;
            return Err(Broken { line, why });
        }
    }
    if documents == 0 {
        let (line, why) = (1, Why::Empty);
        return Err(Broken { line, why });
    }
    Ok(walker.walk)
}

/// What is missed at the end of a file may be placed on a line behind it; this one is the last.
pub(super) fn last_line(text: &str) -> usize {
    text.lines().count().max(1)
}

/// Paths are kept for every key, so depth costs its square. We need eight levels.
pub(super) const DEPTH_MAX: usize = 32;

#[derive(Default)]
struct Walker {
    walk: Walk,
    /// The containers around the next event, the innermost last.
    open: Vec<Container>,
    last_line: usize,
}

enum Container {
    List {
        path: KeyPath,
        next: usize,
    },
    Mapping {
        path: KeyPath,
        seen: HashSet<String>,
        /// The path of the value that comes next; `None` while a key comes next.
        value: Option<KeyPath>,
    },
    /// A list or mapping used as a key; nothing inside has a path.
    Key,
}

impl Walker {
    fn step(&mut self, event: &Event<'_>, span: Span) {
        match event {
            Event::Scalar(text, ..) => {
                self.enter(Some(text), span);
            }
            Event::Alias(_) => {
                self.enter(None, span);
            }
            Event::SequenceStart(..) => {
                let opened = match self.enter(None, span) {
                    Some(path) => Container::List { path, next: 0 },
                    None => Container::Key,
                };
                self.open.push(opened);
            }
            Event::MappingStart(..) => {
                let opened = match self.enter(None, span) {
                    Some(path) => Container::Mapping { path, seen: HashSet::new(), value: None },
                    None => Container::Key,
                };
                self.open.push(opened);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            _ => {}
        }
    }

    fn line_of(&self, span: Span) -> usize {
        span.start.line().min(self.last_line)
    }

    /// Notes the node that begins at `span` and returns its path; a key has none.
    fn enter(&mut self, scalar: Option<&str>, span: Span) -> Option<KeyPath> {
        let line = self.line_of(span);
        let lines = &mut self.walk.lines.0;
        match self.open.last_mut() {
            None => {
                let root = KeyPath::default();
                lines.insert(root.clone(), line);
                Some(root)
            }
            Some(Container::List { path, next }) => {
                let item = path.index(*next);
                *next += 1;
                lines.entry(item.clone()).or_insert(line);
                Some(item)
            }
            Some(Container::Mapping { path, seen, value, .. }) => {
                if let Some(value) = value.take() {
                    return Some(value);
                }
                let key = path.key(scalar.unwrap_or("?"));
                lines.entry(key.clone()).or_insert(line);
                if let Some(text) = scalar
                    && !seen.insert(text.to_owned())
                {
                    self.walk.duplicates.push(Duplicate {
                        path: key.clone(),
                        line,
                        chars: span.start.index()..span.end.index(),
                    });
                }
                *value = Some(key);
                None
            }
            Some(Container::Key) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_item_knows_its_line() {
        let text = "\
# a comment
a: 1
list:
  - x
  - { y: 1,
      z: [2,
          3] }
? [complex, { key: 1 }]
: { inside: 1 }
alias: &it
  deep: 1
again: *it
";
        let lines = walk(text).unwrap().lines;
        let root = KeyPath::default();
        let item = root.key("list").index(1);
        for (path, line) in [
            (root.clone(), 2),
            (root.key("a"), 2),
            (root.key("list"), 3),
            (root.key("list").index(0), 4),
            (item.clone(), 5),
            (item.key("y"), 5),
            (item.key("z"), 6),
            (item.key("z").index(1), 7),
            (root.key("?").key("inside"), 9),
            (root.key("alias").key("deep"), 11),
            // Behind an alias, and missing: the line of what is around them.
            (root.key("again").key("deep"), 12),
            (root.key("missing").key("deeper"), 2),
        ] {
            assert_eq!(lines.line_of(&path), line, "path: {path}");
        }
    }

    #[test]
    fn duplicates_are_found_at_their_place_in_the_text() {
        #[track_caller]
        fn check(text: &str, expected: &[(&str, usize, &str)]) {
            let characters: Vec<char> = text.chars().collect();
            let found: Vec<_> = walk(text)
                .unwrap()
                .duplicates
                .into_iter()
                .map(|it| {
                    let key: String = characters[it.chars].iter().collect();
                    (it.path.to_string(), it.line, key)
                })
                .collect();
            let expected: Vec<_> =
                expected.iter().map(|(path, line, key)| ((*path).to_owned(), *line, (*key).to_owned())).collect();
            assert_eq!(found, expected, "text: {text:?}");
        }

        check("a: 1\nb: 2\n", &[]);
        check("a: {b: 1}\nc: {b: 1}\n", &[]);
        check("é: 1\n'é': 2\n", &[("\"é\"", 2, "'é'")]);
        check("- {b: 1, \"b\": 2, b: 3}\n", &[("[0].b", 1, "\"b\""), ("[0].b", 1, "b")]);
        check("? a\n: 1\n? a\n: 2\n", &[("a", 3, "a")]);
    }
}

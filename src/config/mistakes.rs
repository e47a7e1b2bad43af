//! What is wrong with a file: collected while it is read, placed on lines at the end.

use std::cell::RefCell;
use std::fmt;

use super::lines::Lines;

/// Everything that is wrong with one configuration file, in the order of its lines.
///
/// Displayed as one line per mistake: `file:line: key.path: what is wrong; what would be right`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    file_name: String,
    /// At least one.
    list: Vec<Mistake>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mistake {
    line: usize,
    path: KeyPath,
    text: String,
}

impl Mistakes {
    /// The one mistake that keeps a file from being read any further.
    pub(super) fn fatal(file_name: &str, line: usize, text: String) -> Self {
        let path = KeyPath::default();
        Self { file_name: file_name.to_owned(), list: vec![Mistake { line, path, text }] }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.list.iter().enumerate() {
            let Mistake { line, path, text } = mistake;
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{}:{line}: ", self.file_name)?;
            if !path.is_root() {
                write!(f, "{path}: ")?;
            }
            f.write_str(text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Collects complaints. Shared by everything that reads a part of the file.
#[derive(Debug, Default)]
pub(super) struct Notes(RefCell<Vec<Note>>);

#[derive(Debug)]
struct Note {
    path: KeyPath,
    /// Known only where the path does not tell: a key's second occurrence.
    line: Option<usize>,
    text: String,
}

impl Notes {
    pub(super) fn add(&self, path: KeyPath, text: String) {
        let line = None;
        self.0.borrow_mut().push(Note { path, line, text });
    }

    pub(super) fn add_at_line(&self, path: KeyPath, line: usize, text: String) {
        let line = Some(line);
        self.0.borrow_mut().push(Note { path, line, text });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn place(self, file_name: &str, lines: &Lines) -> Mistakes {
        let place =
            |Note { path, line, text }| Mistake { line: line.unwrap_or_else(|| lines.line_of(&path)), path, text };
        let mut list: Vec<_> = self.0.into_inner().into_iter().map(place).collect();
        list.sort_by_key(|mistake| mistake.line);
        Mistakes { file_name: file_name.to_owned(), list }
    }
}

/// The keys and indices that lead from the root of the file to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    pub(super) fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }

    /// The path of what this is a part of; `None` for the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let (_, parent) = self.0.split_last()?;
        Some(Self(parent.to_vec()))
    }

    fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let dot = if position == 0 { "" } else { "." };
                    write!(f, "{dot}{}", ShownKey(key))?;
                }
            }
        }
        Ok(())
    }
}

/// A key as it stands in a path: quoted when a dot or a blank in it would mislead.
struct ShownKey<'a>(&'a str);

impl fmt::Display for ShownKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !self.0.is_empty() && self.0.len() <= SHOWN_MAX && self.0.bytes().all(plain) {
            f.write_str(self.0)
        } else {
            f.write_str(&quoted(self.0))
        }
    }
}

/// A piece of the file in quotes, escaped and cut, fit for one line of a message. Who logs in to a
/// URL, and with which password, is not shown.
pub(super) fn quoted(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) if rest.contains('@') => shown(&format!("{scheme}://{}", without_login(rest))),
        _ => shown(text),
    }
}

/// The text of a URL with stars in place of everything up to its last `@`: whatever a password has
/// in it, nothing of it is left.
pub(super) fn without_login(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, rest)) => format!("***@{rest}"),
        None => text.to_owned(),
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

/// Longer values are cut; a message is read in a terminal.
const SHOWN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_they_are_written_in_the_file() {
        let chat = KeyPath::default().key("upstreams").key("chat");
        assert_eq!(KeyPath::default().to_string(), "");
        assert_eq!(chat.key("servers").index(1).key("address").to_string(), "upstreams.chat.servers[1].address");
        assert_eq!(chat.key("v1.2").to_string(), "upstreams.chat.\"v1.2\"");
        assert_eq!(chat.key("").to_string(), "upstreams.chat.\"\"");
        assert_eq!(chat.key("a\nb").to_string(), "upstreams.chat.\"a\\nb\"");
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, expected) in [
            ("redis://user:secret@10.0.0.5:6379/0", "\"redis://***@10.0.0.5:6379/0\""),
            ("redis://:s3cr@t/://@10.0.0.5", "\"redis://***@10.0.0.5\""),
            ("redis://10.0.0.5:6379", "\"redis://10.0.0.5:6379\""),
            ("a@b", "\"a@b\""),
        ] {
            assert_eq!(quoted(text), expected, "{text}");
            assert!(!KeyPath::default().key(text).to_string().contains("s3cr"), "{text}");
        }
        let long = format!("redis://:{}@10.0.0.5:6379", "x".repeat(100));
        assert_eq!(quoted(&long), "\"redis://***@10.0.0.5:6379\"");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let shown = quoted(&"é".repeat(100));
        assert_eq!(shown, format!("\"{}\"...", "é".repeat(64)));
    }
}

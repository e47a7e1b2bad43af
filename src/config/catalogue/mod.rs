//! Every key of the configuration file, described once: what it may be, what applies without it, and what
//! it means. The reference and the schema for editors are written from here.
//!
//! The rule: what a file means is up to `resolve` alone, which never looks here. Tests hold the two
//! together: each knows the keys of the other, their ranges end at the same values, and a default that
//! is written out changes nothing.

#[cfg(test)]
mod markdown;
mod process;
mod schema;
#[cfg(test)]
pub(super) mod tests;
mod upstreams;

pub use self::schema::schema;

/// A mapping whose keys we choose.
#[derive(Debug)]
struct Section {
    /// Where it stands; `NAME` is any name and `[]` any item of a list. The root is empty. What may
    /// follow in parentheses tells two kinds of mapping at one place apart.
    path: &'static str,
    /// In the order of the reference.
    keys: &'static [Key],
    /// Which of them go together.
    rule: Rule,
    /// The title of the column with their meanings.
    heading: &'static str,
    /// How it may look, in YAML.
    example: &'static str,
}

impl Section {
    const fn new(path: &'static str, keys: &'static [Key], example: &'static str) -> Self {
        Self { path, keys, rule: Rule::Any, heading: "meaning", example }
    }

    const fn with(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    const fn headed(mut self, heading: &'static str) -> Self {
        self.heading = heading;
        self
    }
}

/// Which keys of a section go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Any of them.
    Any,
    /// One of these at least.
    OneOf(&'static [&'static str]),
    /// One and no other.
    Single,
}

/// A key of a section.
#[derive(Debug)]
struct Key {
    name: &'static str,
    shape: Shape,
    default: LeftOut,
    /// In Markdown, as a cell of a table.
    meaning: &'static str,
    /// The type in words, where its shape alone would not tell.
    kind: Option<&'static str>,
    /// The range in words, likewise.
    range: Option<&'static str>,
    /// Whether the reference says more below.
    is_explained: bool,
}

impl Key {
    const fn new(name: &'static str, shape: Shape, default: LeftOut, meaning: &'static str) -> Self {
        Self { name, shape, default, meaning, kind: None, range: None, is_explained: false }
    }

    const fn kind(mut self, kind: &'static str) -> Self {
        self.kind = Some(kind);
        self
    }

    const fn range(mut self, range: &'static str) -> Self {
        self.range = Some(range);
        self
    }

    const fn explained(mut self) -> Self {
        self.is_explained = true;
        self
    }

    /// Its type in words.
    fn kind_in_words(&self) -> String {
        self.kind.map_or_else(|| self.shape.in_words(), str::to_owned)
    }

    /// Its range in words; empty if it has none.
    fn range_in_words(&self) -> String {
        self.range.map_or_else(|| self.shape.range().unwrap_or_default(), str::to_owned)
    }
}

/// What applies where a key is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeftOut {
    /// It cannot be; in the words of the reference.
    Required(&'static str),
    /// The same as if this were written, in YAML.
    Value(&'static str),
    /// What cannot be written, in words; may be empty.
    Words(&'static str),
}

use self::LeftOut::{Required, Value, Words};

/// What a value may be.
#[derive(Debug)]
enum Shape {
    /// A duration from the first to the second.
    Duration(&'static str, &'static str),
    /// A size, likewise.
    Size(&'static str, &'static str),
    /// A whole number, likewise.
    Number(u64, u64),
    /// Text of some form.
    Text(&'static Text),
    /// One of these words. `on` and `off` may be written as booleans.
    Word(&'static [&'static str]),
    /// A list of at least and at most so many.
    List(&'static Shape, usize, usize),
    /// A mapping whose keys we choose.
    Mapping(&'static Section),
    /// A mapping of names to such.
    Named(&'static Section),
    /// Sources of affinity, of which each item of a list is one.
    Source(&'static [Source]),
    /// Any of these.
    AnyOf(&'static [Shape]),
}

const ON_OR_OFF: Shape = Shape::Word(&["on", "off"]);

/// How text looks.
#[derive(Debug)]
struct Text {
    /// What it is, in a word or two.
    name: &'static str,
    /// A regular expression of ECMA 262 that all of it matches. It may match more than is right.
    pattern: &'static str,
    /// How it may look; at least one.
    examples: &'static [&'static str],
}

/// Where the affinity of a request is looked for.
#[derive(Debug)]
struct Source {
    name: &'static str,
    /// How the reference writes it.
    shown: &'static str,
    /// Whether the name alone will do.
    is_word: bool,
    /// What may stand behind the name.
    value: Option<Shape>,
    /// In Markdown, as a cell of a table.
    meaning: &'static str,
}

impl Shape {
    /// Its name in the reference.
    fn in_words(&self) -> String {
        match self {
            Self::Duration(..) => "duration".to_owned(),
            Self::Size(..) => "size".to_owned(),
            Self::Number(..) => "number".to_owned(),
            Self::Text(text) => text.name.to_owned(),
            Self::Word(["on", "off"]) => "on or off".to_owned(),
            Self::Word(words) => joined(words.iter().map(|word| format!("`{word}`"))),
            Self::List(..) => "list".to_owned(),
            Self::Mapping(_) | Self::Named(_) => "mapping".to_owned(),
            Self::Source(_) => "source".to_owned(),
            Self::AnyOf(shapes) => joined(shapes.iter().map(Self::in_words)),
        }
    }

    /// From what to what it goes.
    fn range(&self) -> Option<String> {
        match self {
            Self::Duration(least, most) | Self::Size(least, most) => Some(format!("{least} to {most}")),
            Self::Number(least, most) => Some(format!("{least} to {most}")),
            Self::AnyOf(shapes) => shapes.iter().find_map(Self::range),
            _ => None,
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn joined(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<_> = items.collect();
    match items.pop() {
        Some(last) if !items.is_empty() => format!("{} or {last}", items.join(", ")),
        last => last.unwrap_or_default(),
    }
}

const ADDRESS: Text = Text {
    name: "address",
    pattern: r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]{1,5}$",
    examples: &["0.0.0.0:8080", "[::1]:8080"],
};

const SERVER_ADDRESS: Text = Text { examples: &["10.0.0.1:3000", "[2001:db8::1]:3000"], ..ADDRESS };

const ABSOLUTE_PATH: Text = Text { name: "absolute path", pattern: "^/", examples: &["/etc/steadfast/secret"] };

const PEM_FILE: Text = Text { examples: &["/etc/steadfast/chat.pem"], ..ABSOLUTE_PATH };

const NAME: Text = Text { name: "name", pattern: "^[A-Za-z0-9._-]{1,64}$", examples: &["chat"] };

const HEADER: Text = Text {
    name: "the name of a header",
    pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
    examples: &["X-Forwarded-For", "CF-Connecting-IP"],
};

/// The whole file.
static FILE: Section = Section::new("", process::KEYS, "");

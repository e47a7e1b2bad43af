//! A typed look at YAML values that collects what is wrong instead of stopping at it.
//!
//! The rule: a method returns `None` only after it has complained, unless it is an optional key
//! that is absent. So the caller may go on with any stand-in; the file is refused anyway.
//!
//! `right` arguments say what would be right, as in "write a list of ...".

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::mistakes::{KeyPath, Notes, quoted};
use super::suggest;
use super::units;

/// One value of the file and where it stands.
#[derive(Clone)]
pub(super) struct Item<'a> {
    value: &'a Value,
    path: KeyPath,
    notes: &'a Notes,
}

impl<'a> Item<'a> {
    pub(super) fn root(value: &'a Value, notes: &'a Notes) -> Self {
        let path = KeyPath::default();
        Self { value, path, notes }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// Notes that this value is wrong.
    pub(super) fn complain(&self, text: impl Into<String>) {
        self.notes.add(self.path.clone(), text.into());
    }

    /// The path to this value, as messages show it.
    pub(super) fn path(&self) -> &KeyPath {
        &self.path
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.value, Value::Mapping(_))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, Value::Sequence(_))
    }

    /// Whether this switches something off. YAML 1.1 writers turn a plain `off` into `false`.
    pub(super) fn is_off(&self) -> bool {
        matches!(self.value, Value::Bool(false)) || self.as_text() == Some("off")
    }

    /// Whether this says that there is none.
    pub(super) fn is_none(&self) -> bool {
        self.as_text() == Some("none")
    }

    /// Whether this switches something on; like [`Item::is_off`].
    pub(super) fn is_on(&self) -> bool {
        matches!(self.value, Value::Bool(true)) || self.as_text() == Some("on")
    }

    /// The text, if that is what this is.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        text_of(self.value)
    }

    pub(super) fn text(&self, right: &str) -> Option<&'a str> {
        let text = self.as_text();
        if text.is_none() {
            self.complain_of_type(right);
        }
        text
    }

    /// Reads text, or a number in its place, which `parse` can then say something helpful about.
    pub(super) fn parse<T>(&self, right: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text: Cow<'_, str> = match self.value {
            Value::String(text) => text.into(),
            Value::Number(number) => number.to_string().into(),
            _ => {
                self.complain_of_type(right);
                return None;
            }
        };
        self.kept(parse(&text))
    }

    /// The value of `result`, or a complaint in its words.
    pub(super) fn kept<T>(&self, result: Result<T, String>) -> Option<T> {
        result.map_err(|text| self.complain(text)).ok()
    }

    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let right = "write a duration such as 15s";
        self.parse(right, |text| units::duration_within(text, &range))
    }

    pub(super) fn size(&self, range: RangeInclusive<usize>) -> Option<usize> {
        let right = "write a size such as 16KiB";
        self.parse(right, |text| units::size_within(text, &range))
    }

    /// A whole number in `range`.
    pub(super) fn number<T>(&self, range: RangeInclusive<T>, right: &str) -> Option<T>
    where
        T: TryFrom<u64> + PartialOrd,
    {
        let Value::Number(number) = self.value else {
            self.complain_of_type(right);
            return None;
        };
        let whole = number.as_u64().and_then(|whole| T::try_from(whole).ok());
        let whole = whole.filter(|whole| range.contains(whole));
        if whole.is_none() {
            self.complain(format!("{number} is out of range; {right}"));
        }
        whole
    }

    /// What the word stands for; `what` says what the words are.
    pub(super) fn one_of<T: Copy>(&self, what: &str, known: &[(&str, T)]) -> Option<T> {
        let words = || known.iter().map(|(word, _)| *word);
        let right = format!("write one of {}", words().collect::<Vec<_>>().join(", "));
        let text = self.text(&right)?;
        let found = known.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let shown = quoted(text);
            self.complain(match suggest::nearest(text, words()) {
                Some(nearest) => format!("{shown} is no {what}; did you mean {nearest}?"),
                None => format!("{shown} is no {what}; {right}"),
            });
        }
        found
    }

    /// A list with at least one item.
    pub(super) fn list(&self, right: &str) -> Option<Vec<Item<'a>>> {
        let items = self.list_or_empty(right)?;
        if items.is_empty() {
            self.complain(format!("this list is empty; {right}"));
            return None;
        }
        Some(items)
    }

    pub(super) fn list_or_empty(&self, right: &str) -> Option<Vec<Item<'a>>> {
        let Value::Sequence(values) = self.value else {
            self.complain_of_type(right);
            return None;
        };
        let item = |(index, value)| Item { value, path: self.path.index(index), notes: self.notes };
        Some(values.iter().enumerate().map(item).collect())
    }

    /// A mapping whose keys the file chooses; at least one.
    pub(super) fn entries(&self, right: &str) -> Option<Vec<(&'a str, Item<'a>)>> {
        let mapping = self.mapping(right)?;
        if mapping.is_empty() {
            self.complain(format!("this mapping is empty; {right}"));
            return None;
        }
        let mut entries = Vec::with_capacity(mapping.len());
        for (key, value) in mapping {
            let item = self.under(&key_text(key), value);
            match text_of(key) {
                Some(name) => entries.push((name, item)),
                None => item.complain("this key is not text; put it in quotes"),
            }
        }
        Some(entries)
    }

    /// A mapping whose keys we choose.
    pub(super) fn fields(&self, right: &str) -> Option<Fields<'a>> {
        let mapping = self.mapping(right)?;
        Some(Fields { item: self.clone(), mapping, known: Vec::new(), missing: Vec::new() })
    }

    fn mapping(&self, right: &str) -> Option<&'a Mapping> {
        let Value::Mapping(mapping) = self.value else {
            self.complain_of_type(right);
            return None;
        };
        Some(mapping)
    }

    /// Notes that this value is of another kind than `right`.
    pub(super) fn complain_of_type(&self, right: &str) {
        let what = match self.value {
            Value::Null => "there is no value".to_owned(),
            Value::Bool(truth) => format!("{truth} is a boolean"),
            Value::Number(number) => format!("{number} is a number"),
            Value::String(text) => format!("{} is text", quoted(text)),
            Value::Sequence(_) => "this is a list".to_owned(),
            Value::Mapping(_) => "this is a mapping".to_owned(),
            Value::Tagged(tagged) => {
                format!("the tag {} means nothing here", quoted(&tagged.tag.to_string()))
            }
        };
        self.complain(format!("{what}; {right}"));
    }

    fn under(&self, key: &str, value: &'a Value) -> Item<'a> {
        Item { value, path: self.path.key(key), notes: self.notes }
    }
}

/// A mapping whose keys are taken one by one. What is left at the end is unknown, so every reader
/// of a mapping ends with [`Fields::finish`].
#[must_use = "unknown keys are only reported by `finish`"]
pub(super) struct Fields<'a> {
    item: Item<'a>,
    mapping: &'a Mapping,
    known: Vec<&'static str>,
    /// Required keys that are not there, and what would be right.
    missing: Vec<(&'static str, String)>,
}

impl<'a> Fields<'a> {
    /// The value of a key that may be absent.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.known.push(key);
        let value = self.mapping.get(key)?;
        Some(self.item.under(key, value))
    }

    /// The value of a key that must be there.
    pub(super) fn required(&mut self, key: &'static str, right: &str) -> Option<Item<'a>> {
        let item = self.optional(key);
        if item.is_none() {
            self.missing.push((key, right.to_owned()));
        }
        item
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.mapping.contains_key(key)
    }

    /// Complains of missing keys and of every key that nobody asked for. The `planned` ones are
    /// part of the design, but not of this version.
    pub(super) fn finish(mut self, planned: &[&str]) {
        for (key, value) in self.mapping {
            if text_of(key).is_some_and(|key| self.known.contains(&key)) {
                continue;
            }
            let text = key_text(key);
            let item = self.item.under(&text, value);
            if planned.contains(&text.as_ref()) {
                item.complain("not supported in this version; remove it");
            } else if text == "<<" {
                item.complain("merge keys are not supported; write the keys out");
            } else {
                item.complain(self.unknown(&text));
            }
        }
        for (key, right) in &self.missing {
            let path = self.item.path.key(key);
            self.item.notes.add(path, format!("missing; {right}"));
        }
    }

    /// A slip in a required key is one mistake: the key does not count as missing as well.
    fn unknown(&mut self, text: &str) -> String {
        let known = self.known.join(", ");
        let Some(nearest) = suggest::nearest(text, self.known.iter().copied()) else {
            return format!("unknown key; known here: {known}");
        };
        self.missing.retain(|(key, _)| *key != nearest);
        format!("unknown key; did you mean \"{nearest}\"? (known here: {known})")
    }
}

/// Not [`Value::as_str`], which looks through tags.
fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A key as the file writes it, as far as that can be told.
fn key_text(key: &Value) -> Cow<'_, str> {
    match key {
        Value::String(text) => text.into(),
        Value::Number(number) => number.to_string().into(),
        Value::Bool(truth) => truth.to_string().into(),
        Value::Null => "null".into(),
        _ => "?".into(),
    }
}

//! Text to a YAML value and the lines of its keys, or to the one reason why it has none.

use serde_yaml::Value;

use super::lines::{self, Broken, DEPTH_MAX, Duplicate, Lines, Why};
use super::mistakes::Notes;

/// A file that is one YAML document.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) value: Value,
    pub(super) lines: Lines,
}

/// Why a text is not one YAML document, and where.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Reads `text`; duplicate keys go to `notes`, and the first of each counts.
pub(super) fn read(text: &str, notes: &Notes) -> Result<Document, Unreadable> {
    // A byte order mark says nothing in UTF-8, and the parsers differ on it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let walk = lines::walk(text).map_err(|broken| unreadable(&broken))?;
    for Duplicate { path, line, .. } in &walk.duplicates {
        let first = walk.lines.line_of(path);
        let text = format!("duplicate key, also on line {first}; keep one of them");
        notes.add_at_line(path.clone(), *line, text);
    }
    let value =
        if walk.duplicates.is_empty() { serde_yaml::from_str(text) } else { value_without(&walk.duplicates, text) };
    let lines = walk.lines;
    match value {
        Ok(value) => Ok(Document { value, lines }),
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            let line = line.min(lines::last_line(text));
            let why = Why::Syntax(without_place(&error));
            Err(unreadable(&Broken { line, why }))
        }
    }
}

fn unreadable(Broken { line, why }: &Broken) -> Unreadable {
    Unreadable { line: *line, text: describe(why) }
}

fn describe(why: &Why) -> String {
    match why {
        Why::Empty => "the file is empty; it needs at least listeners, routes and upstreams".to_owned(),
        Why::SecondDocument => "a second YAML document begins; put everything into one".to_owned(),
        Why::TooDeep => format!("more than {DEPTH_MAX} levels of lists and mappings; write fewer"),
        Why::Syntax(words) => format!(
            "not valid YAML: {words}; check indentation, brackets and quotes \
             (a value that begins with * & ! % @ [ or {{ needs quotes)"
        ),
    }
}

/// What `serde_yaml` says, up to the place, which stands at the front of a mistake anyway.
fn without_place(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((what, _)) => what.to_owned(),
        None => text,
    }
}

/// `serde_yaml` stops at the first duplicate key, which would hide every other mistake. So the
/// repeated keys get names that nobody else has, and are dropped when all is parsed.
fn value_without(duplicates: &[Duplicate], text: &str) -> serde_yaml::Result<Value> {
    let mut renamed = String::with_capacity(text.len());
    let mut characters = text.chars().enumerate().peekable();
    for (number, duplicate) in duplicates.iter().enumerate() {
        let before = characters.by_ref();
        while let Some((_, character)) = before.next_if(|(at, _)| *at < duplicate.chars.start) {
            renamed.push(character);
        }
        while characters.next_if(|(at, _)| *at < duplicate.chars.end).is_some() {}
        renamed.push_str(&format!("\"{DROPPED}{number}\""));
    }
    renamed.extend(characters.map(|(_, character)| character));
    let mut value = serde_yaml::from_str(&renamed)?;
    drop_renamed(&mut value);
    Ok(value)
}

/// Recursion is safe: the walk over the text bounds the depth, `serde_yaml` that of aliases.
fn drop_renamed(value: &mut Value) {
    match value {
        Value::Mapping(mapping) => {
            let is_renamed = |key: &Value| key.as_str().is_some_and(|key| key.starts_with(DROPPED));
            mapping.retain(|key, _| !is_renamed(key));
            mapping.values_mut().for_each(drop_renamed);
        }
        Value::Sequence(items) => items.iter_mut().for_each(drop_renamed),
        _ => {}
    }
}

/// Begins the name of a key to be dropped: a private-use character, which no key of ours has.
const DROPPED: char = '\u{e000}';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_duplicates_the_first_counts_and_the_rest_is_still_read() {
        #[track_caller]
        fn check(text: &str, same_as: &str) {
            let notes = Notes::default();
            let document = read(text, &notes).unwrap();
            assert!(!notes.is_empty(), "text: {text:?}");
            let expected: Value = serde_yaml::from_str(same_as).unwrap();
            assert_eq!(document.value, expected, "text: {text:?}");
        }

        check("a: 1\na: 2\nb: 3\n", "{a: 1, b: 3}");
        check("é: {x: 1}\n'é': {y: [1, 2]}\nb: 3", "{é: {x: 1}, b: 3}");
        check("[{a: 1, \"a\": 2, a: 3, b: 4}]", "[{a: 1, b: 4}]");
        check("a:\n  b: 1\n  b:\n    c: 2\n    c: 2\nd: 5", "{a: {b: 1}, d: 5}");
        check("\u{feff}a: 1\na: 2\nb: 3\n", "{a: 1, b: 3}");
        check("a: 1\r\na: 2\r\nb: 3\r\n", "{a: 1, b: 3}");
    }
}

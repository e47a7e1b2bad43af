//! The tables of `conf/README.md` that tests write from what the code knows.
//!
//! A table stands between `<!-- KIND: PLACE -->` and `<!-- end -->`. One that differs fails the test that
//! wrote it; with `STEADFAST_BLESS=1` it is put into the file instead.

use std::sync::{Mutex, PoisonError};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/README.md");

/// Compares each table of `kind` with what `render` makes of its place. Returns the places.
#[track_caller]
pub(crate) fn check(kind: &str, render: impl Fn(&str) -> String) -> Vec<String> {
    // Several tests may write at once.
    static FILE: Mutex<()> = Mutex::new(());
    let _guard = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let text = std::fs::read_to_string(PATH).unwrap();
    let (wanted, places) = rendered(&text, kind, render);
    assert!(!places.is_empty(), "conf/README.md has no table of {kind}");
    if wanted == text {
        return places;
    }
    if std::env::var_os("STEADFAST_BLESS").is_some() {
        std::fs::write(PATH, wanted).unwrap();
        return places;
    }
    let changed = wanted.lines().find(|line| !text.contains(line)).unwrap_or("lines that are there no more");
    panic!(
        "the tables of {kind} in conf/README.md are stale, at: {changed}\n\
         write them again with: STEADFAST_BLESS=1 cargo test --lib the_tables_of_the_reference"
    );
}

/// The text with all tables of `kind` rendered, and their places.
fn rendered(text: &str, kind: &str, render: impl Fn(&str) -> String) -> (String, Vec<String>) {
    let begin = format!("<!-- {kind}:");
    let (mut wanted, mut places, mut rest) = (String::new(), Vec::new(), text);
    while let Some((before, behind)) = rest.split_once(&begin) {
        let (place, behind) = behind.split_once("-->\n").expect("a mark ends with its line");
        let (_, behind) = behind.split_once(END).unwrap_or_else(|| panic!("no {END} behind {kind}:{place}"));
        let table = render(place.trim());
        wanted.push_str(&format!("{before}{begin}{place}-->\n{table}{END}"));
        places.push(place.trim().to_owned());
        rest = behind;
    }
    (wanted + rest, places)
}

const END: &str = "<!-- end -->";

#[test]
fn only_what_stands_between_the_marks_is_written() {
    let text =
        "a\n<!-- keys: x -->\nold\n<!-- end -->\nb\n<!-- other: y -->\nz\n<!-- end -->\n<!-- keys: -->\n<!-- end -->";
    let (wanted, places) = rendered(text, "keys", |place| format!("new {place}\n"));
    let expected = "a\n<!-- keys: x -->\nnew x\n<!-- end -->\nb\n<!-- other: y -->\nz\n<!-- end -->\n<!-- keys: -->\nnew \n<!-- end -->";
    assert_eq!((wanted.as_str(), places), (expected, vec!["x".to_owned(), String::new()]));
}

//! Whole files: what right ones mean, and what wrong ones are told.

mod fitness;
mod mutated;
mod right;
mod wrong;

use std::path::{Path, PathBuf};

use super::catalogue::tests::check_by_schema;
use super::{Config, parse};

/// Parses `text`, which must be right.
#[track_caller]
fn config(text: &str) -> Config {
    check_by_schema(text);
    parse(text, "steadfast.yaml").unwrap_or_else(|mistakes| panic!("{mistakes}\n\n{text}"))
}

/// The complaints about `text`, one per item, without the file name.
#[track_caller]
fn complaints(text: &str) -> Vec<String> {
    let Err(mistakes) = parse(text, "steadfast.yaml") else {
        panic!("nothing is said to be wrong with:\n{text}");
    };
    let line = |line: &str| match line.strip_prefix("steadfast.yaml:") {
        Some(rest) => rest.to_owned(),
        None => panic!("a line without its place: {line:?}"),
    };
    mistakes.to_string().lines().map(line).collect()
}

/// The example files that come with the proxy; there is YAML of others beside them.
pub(super) fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let paths = std::fs::read_dir(directory).unwrap();
    let paths = paths.map(|entry| entry.unwrap().path());
    let is_ours = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| line.starts_with("listeners:"))
    };
    paths.filter(|path| path.extension().is_some_and(|it| it == "yaml") && is_ours(path)).collect()
}

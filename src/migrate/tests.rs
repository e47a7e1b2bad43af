//! What others' files say, and what is made of it, word for word.
//!
//! `tests/migrate/snippets` has tables: a title, what comes in, `----`, and what comes out. `tests/migrate/files` has
//! whole files, each beside its outcome in a `.yaml`. `STEADFAST_BLESS=1` writes what comes out in the place of what
//! was expected; read the difference before you keep it.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use rcgen::{CertificateParams, KeyPair};

use super::{File, Imported, Refused, ingress, nginx};
use crate::config;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migrate").join(name)
}

fn listed(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|it| it.extension().is_some_and(|it| it == extension)).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}", folder.display());
    paths
}

/// There are no files but those that a snippet has itself: `include known.conf` finds one.
fn find(pattern: &str) -> Result<Vec<File>, String> {
    match pattern {
        "known.conf" => {
            Ok(vec![File { name: "known.conf".to_owned(), text: "gzip on;\nproxy_read_timeout 2h;".to_owned() }])
        }
        "itself.conf" => Ok(vec![File { name: "itself.conf".to_owned(), text: "include itself.conf;".to_owned() }]),
        _ if pattern.contains('*') => Ok(Vec::new()),
        _ => Err("no such file".to_owned()),
    }
}

fn import(name: &str, text: &str) -> Result<Imported, Refused> {
    if name.contains("ingress") { ingress(name, text) } else { nginx(name, text, "/etc/nginx", &mut find) }
}

/// A certificate that vouches for itself, its key, and authorities, as files.
fn certificate() -> &'static (tempfile::TempDir, String, String) {
    static FILES: std::sync::OnceLock<(tempfile::TempDir, String, String)> = std::sync::OnceLock::new();
    FILES.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        let write = |name: &str, text: String| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (cert, key) = (write("cert.pem", certificate.pem()), write("key.pem", key.serialize_pem()));
        (directory, cert, key)
    })
}

/// `yaml` with files that are there in the place of those that it names.
fn with_files(yaml: &str) -> String {
    let mut value: serde_yaml::Value = serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    replace_files(&mut value);
    serde_yaml::to_string(&value).unwrap()
}

fn replace_files(value: &mut serde_yaml::Value) {
    let (_, cert, key) = certificate();
    if let Some(mapping) = value.as_mapping_mut() {
        for (name, value) in mapping {
            match name.as_str() {
                Some("cert" | "client_ca" | "ca") if value.is_string() => *value = cert.as_str().into(),
                Some("key") if value.is_string() => *value = key.as_str().into(),
                _ => replace_files(value),
            }
        }
    } else if let Some(items) = value.as_sequence_mut() {
        items.iter_mut().for_each(replace_files);
    }
}

/// What holds of everything that comes out.
#[track_caller]
fn check(imported: &Imported, input: &str) {
    let Imported { yaml, remarks, .. } = imported;
    if let Err(mistakes) = config::parse(&with_files(yaml), "steadfast.yaml") {
        panic!("{mistakes}\n{yaml}\nout of\n{input}");
    }
    let comments = yaml.lines().skip(1).filter_map(|it| it.trim_start().strip_prefix("# ")).collect::<Vec<_>>();
    let mut sorted: Vec<&str> = remarks.iter().map(String::as_str).collect();
    let mut told = comments.clone();
    sorted.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, sorted, "each remark is a comment, once, and each comment a remark, out of\n{input}");
}

fn is_blessed() -> bool {
    std::env::var_os("STEADFAST_BLESS").is_some()
}

/// Compares, or writes what is.
#[track_caller]
fn compare(path: &Path, expected: &str, actual: &str) {
    if is_blessed() {
        fs::write(path, actual).unwrap();
    }
    assert!(is_blessed() || expected == actual, "{}: expected\n{expected}\nbut was\n{actual}", path.display());
}

/// What came out, or why nothing did.
fn outcome(name: &str, input: &str) -> String {
    match import(name, input) {
        Ok(imported) => {
            check(&imported, input);
            let mark = if imported.is_incomplete { "# incomplete\n" } else { "" };
            // The first line is the same everywhere.
            format!("{mark}{}", imported.yaml.split_once('\n').unwrap().1)
        }
        Err(refused) => format!("refused: {refused}\n"),
    }
}

#[test]
fn snippets_become_what_they_mean() {
    let mut count = 0;
    for path in listed(&folder("snippets"), "txt") {
        let text = fs::read_to_string(&path).unwrap();
        let file = if path.to_str().unwrap().contains("ingress") { "ingress.yaml" } else { "nginx.conf" };
        let mut actual = String::new();
        for section in text.split("==== ").skip(1) {
            let (title, rest) = section.split_once('\n').unwrap();
            let input = rest.split("----\n").next().unwrap();
            count += 1;
            actual.push_str(&format!("==== {title}\n{input}----\n{}", outcome(file, input)));
        }
        compare(&path, &text, &actual);
    }
    assert!(count >= 40, "{count} snippets");
}

#[test]
fn whole_files_become_what_they_mean() {
    let files = folder("files");
    let inputs = [listed(&files, "conf"), listed(&files, "yml")].concat();
    for input in inputs {
        let text = fs::read_to_string(&input).unwrap();
        let name = input.file_name().unwrap().to_str().unwrap();
        let imported = import(name, &text).unwrap_or_else(|refused| panic!("{refused}"));
        check(&imported, &text);
        let path = input.with_extension("yaml");
        let expected = fs::read_to_string(&path).unwrap_or_default();
        compare(&path, &expected, &imported.yaml);
    }
}

/// The texts of all tables and files.
fn examples() -> Vec<String> {
    let snippets = listed(&folder("snippets"), "txt").into_iter().flat_map(|path| {
        let text = fs::read_to_string(path).unwrap();
        let inputs = text.split("==== ").skip(1).filter_map(|it| it.split_once('\n'));
        inputs.map(|(_, rest)| rest.split("----\n").next().unwrap().to_owned()).collect::<Vec<_>>()
    });
    let files = folder("files");
    let files = [listed(&files, "conf"), listed(&files, "yml")].concat();
    snippets.chain(files.iter().map(|path| fs::read_to_string(path).unwrap())).collect()
}

/// What means something to nginx, to YAML or to us.
const PIECES: &[&str] = &[
    "{",
    "}",
    ";",
    "\"",
    "'",
    "\\",
    "#",
    "$",
    "${",
    "\n",
    " ",
    "~",
    "^/",
    "=",
    "@",
    "*",
    "[::]:",
    "0",
    "99999999999",
    "upstream",
    "server",
    "location",
    "include itself.conf;",
    "include *;",
    "é",
    "\u{2028}",
    "\u{0}",
    "- ",
    ": ",
    "|",
    "a_by_lua_block {",
    "weight=0",
    "off",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever the text is, there is an answer; what comes out is YAML whose remarks stand in it, and a refusal has a
    /// line that exists.
    #[test]
    fn no_text_is_too_much(
        example in select(examples()),
        edits in prop::collection::vec((any::<Index>(), 0..12_usize, prop_oneof![
            select(PIECES).prop_map(str::to_owned), any::<char>().prop_map(String::from)
        ]), 1..8),
    ) {
        let mut text: Vec<char> = example.chars().collect();
        for (at, cut, piece) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        for name in ["nginx.conf", "ingress.yaml"] {
            match import(name, &text) {
                Ok(Imported { yaml, remarks, .. }) => {
                    // Nonsense may name what our file refuses; the command says so. That it can be read is always so.
                    let refused = config::parse(&with_files(&yaml), "f").err().map(|it| it.to_string());
                    prop_assert!(!refused.is_some_and(|it| it.contains("YAML")), "{yaml}");
                    let comments = yaml.lines().filter(|it| it.trim_start().starts_with("# ")).count();
                    prop_assert_eq!(comments, remarks.len() + 1, "{}", yaml);
                }
                Err(Refused { place, text: why }) => {
                    prop_assert!(!why.is_empty());
                    prop_assert!(place.line >= 1 && place.line <= text.lines().count() + 1, "{}", place);
                }
            }
        }
    }
}

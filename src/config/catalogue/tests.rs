//! The catalogue against the reader, the reference and the example files.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use jsonschema::Validator;
use serde_yaml::{Mapping, Value as Yaml};

use super::markdown::{sections, table};
use super::{FILE, Key, LeftOut, Section, Shape, schema};
use crate::config::lines::{self, Lines};
use crate::config::mistakes::KeyPath;
use crate::config::{parse, units};
use crate::reference;

/// A right file, to which keys are added one at a time.
const SMALLEST: &str = "
listeners: [{ bind: \"0.0.0.0:8080\" }]
upstreams: { chat: { servers: [{ address: \"10.0.0.1:3000\" }, \"10.0.0.2:3000\"] } }
routes: [{ upstream: chat }]
";

/// What has to be in a section so that it means something, in YAML.
const IN_SECTION: &[(&str, &str)] = &[
    ("listeners[].tls", "{ certificates: [{ cert: /absent/chat.pem, key: /absent/chat.key }] }"),
    ("listeners[].tls.certificates", "{ cert: /absent/chat.pem, key: /absent/chat.key }"),
    ("upstreams.NAME.health_check", "{ path: /healthz }"),
    ("upstreams.NAME.servers (dns)", "{ dns: \"chat.internal:3000\" }"),
    ("upstreams.NAME.servers (srv)", "{ srv: chat.internal }"),
    ("upstreams.NAME.affinity[].session", "{ learn: { json: id }, find: { query: id } }"),
];

/// What has to stand beside a key, likewise.
const BESIDE: &[(&str, &str)] = &[
    ("upstreams.NAME.limits.queue", "{ handshakes_per_second: 5 }"),
    ("upstreams.NAME.sse.resume_attempts", "{ resume: on }"),
    ("upstreams.NAME.drain.spread", "{ timeout: 1d }"),
    ("upstreams.NAME.tls.cert", "{ key: /absent/chat.key }"),
    ("upstreams.NAME.tls.key", "{ cert: /absent/chat.pem }"),
    ("shutdown.spread", "{ grace: 1d }"),
    ("session_store.timeout", "{ url: \"redis://10.0.0.5:6379\" }"),
    ("traces.sample", "{ endpoint: \"http://127.0.0.1:4318\" }"),
    ("traces.service_name", "{ endpoint: \"http://127.0.0.1:4318\" }"),
    ("traces.propagate", "{ endpoint: \"http://127.0.0.1:4318\" }"),
    ("session_store.password_file", "{ url: \"redis://10.0.0.5:6379\" }"),
];

/// Where a section is in [`SMALLEST`], as steps: keys and indices.
fn steps(path: &str) -> Vec<String> {
    let path = path.split(" (").next().unwrap();
    let path = path.replace("NAME", "chat").replace("listeners", "listeners[]").replace("[][]", "[]");
    let is_list = path.ends_with(".servers") && path.starts_with("upstreams") || path == "routes";
    let is_list = is_list || path.ends_with(".certificates");
    let path = if is_list { format!("{path}[]") } else { path };
    path.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect()
}

/// The value at `steps`, which is made where it is not.
fn at<'a>(mut value: &'a mut Yaml, steps: &[String]) -> &'a mut Yaml {
    for step in steps {
        if !value.is_mapping() {
            *value = Mapping::new().into();
        }
        let mapping = value.as_mapping_mut().unwrap();
        let entry = mapping.entry(step.trim_end_matches("[]").into()).or_insert(Yaml::Null);
        value = match step.strip_suffix("[]") {
            Some(_) => {
                if !entry.is_sequence() {
                    *entry = vec![Yaml::Null].into();
                }
                &mut entry.as_sequence_mut().unwrap()[0]
            }
            None => entry,
        };
    }
    value
}

fn yaml(text: &str) -> Yaml {
    serde_yaml::from_str(text).unwrap()
}

fn text(value: &Yaml) -> String {
    serde_yaml::to_string(value).unwrap()
}

fn needed(table: &[(&str, &str)], path: &str) -> Mapping {
    let found = table.iter().find(|(known, _)| *known == path);
    found.map_or_else(Mapping::new, |(_, needed)| yaml(needed).as_mapping().unwrap().clone())
}

fn beside(section: &Section, key: &Key) -> Mapping {
    needed(BESIDE, &format!("{}.{}", section.path, key.name))
}

/// A file in which `section` has what has to be there, and `more`.
fn file_with(section: &Section, more: impl IntoIterator<Item = (Yaml, Yaml)>) -> Yaml {
    let mut file = yaml(SMALLEST);
    let value = at(&mut file, &steps(section.path));
    if section.path.ends_with("(dns)") || section.path.ends_with("(srv)") || !value.is_mapping() {
        *value = Mapping::new().into();
    }
    let mapping = value.as_mapping_mut().unwrap();
    mapping.extend(needed(IN_SECTION, section.path));
    mapping.extend(more);
    // A session needs both of its places.
    if let Some((session, place)) = section.path.rsplit_once('.').filter(|(path, _)| path.ends_with(".session")) {
        let (other, value) = if place == "learn" { ("find", "{ query: id }") } else { ("learn", "{ json: id }") };
        *at(&mut file, &steps(&format!("{session}.{other}"))) = yaml(value);
    }
    file
}

/// A file in which `key` of `section` is written so.
fn file_with_key(section: &Section, key: &Key, written: &Yaml) -> Yaml {
    file_with(section, beside(section, key).into_iter().chain([(key.name.into(), written.clone())]))
}

fn validator() -> Validator {
    jsonschema::draft202012::new(&schema()).unwrap()
}

/// What the schema complains of.
fn complaints(validator: &Validator, file: &Yaml) -> Vec<String> {
    let file = serde_json::to_value(file).unwrap();
    validator.iter_errors(&file).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// What the reader complains of.
fn mistakes(file: &Yaml) -> Vec<String> {
    let mistakes = parse(&text(file), "f").err();
    mistakes.map_or_else(Vec::new, |mistakes| mistakes.to_string().lines().map(str::to_owned).collect())
}

#[test]
fn the_schema_is_one() {
    jsonschema::meta::validate(&schema()).unwrap();
}

#[test]
fn the_reader_and_the_catalogue_know_the_same_keys() {
    let mut known_at = std::collections::BTreeMap::<String, (BTreeSet<String>, BTreeSet<String>)>::new();
    for section in sections() {
        let place = steps(section.path).join(".");
        let (of_reader, of_catalogue) = known_at.entry(place).or_default();
        of_catalogue.extend(section.keys.iter().map(|key| key.name.to_owned()));
        let file = file_with(section, [("zzzzzzzzzzzz".into(), 1.into())]);
        let mistakes = mistakes(&file);
        let complaint = mistakes.iter().find(|it| it.contains("zzzzzzzzzzzz: unknown") || it.contains("several keys"));
        let complaint = complaint.unwrap_or_else(|| panic!("{}: {mistakes:#?}", section.path));
        if section.rule == super::Rule::Single {
            // The reader says how to write each.
            let right = complaint.split("; ").last().unwrap();
            let names = right.split("{ ").skip(1).map(|name| name.split(':').next().unwrap().to_owned());
            of_reader.extend(names);
        } else {
            let (_, known) = complaint.rsplit_once("known here: ").unwrap();
            of_reader.extend(known.trim_end_matches(')').split(", ").map(str::to_owned));
        }
    }
    assert!(known_at.len() > 25, "{known_at:#?}");
    for (place, (of_reader, of_catalogue)) in known_at {
        assert_eq!(of_reader, of_catalogue, "keys of {place:?}: the reader's and the catalogue's");
    }
}

#[test]
fn the_reader_and_the_catalogue_know_the_same_sources() {
    let upstream = sections().into_iter().find(|section| section.path == "upstreams.NAME").unwrap();
    let affinity = upstream.keys.iter().find(|key| key.name == "affinity").unwrap();
    let Shape::List(Shape::Source(sources), ..) = affinity.shape else { panic!("{affinity:?}") };
    let mistakes = mistakes(&file_with_key(upstream, affinity, &yaml("[zzzzzzzzzzzz]")));
    let (_, right) = mistakes[0].split_once("; write ").unwrap();
    let words: BTreeSet<_> =
        right.split([',', ' ', '{', '}', ':']).filter(|it| it.contains(char::is_lowercase)).collect();
    let words: BTreeSet<_> = words.into_iter().filter(|it| *it != "or").collect();
    assert_eq!(words, sources.iter().map(|source| source.name).collect());
    let validator = validator();
    for source in *sources {
        let word = file_with_key(upstream, affinity, &vec![Yaml::from(source.name)].into());
        assert_eq!(self::mistakes(&word).is_empty(), source.is_word, "{}", source.name);
        assert_eq!(complaints(&validator, &word).is_empty(), source.is_word, "{}", source.name);
        let mapping = Mapping::from_iter([(source.name.into(), 1.into())]);
        let wrong = file_with_key(upstream, affinity, &vec![Yaml::from(mapping)].into());
        assert!(!self::mistakes(&wrong).is_empty() && !complaints(&validator, &wrong).is_empty(), "{}", source.name);
    }
}

/// Each with the path of its section.
fn keys() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    sections().into_iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

#[test]
fn a_default_that_is_written_out_changes_nothing() {
    let mut count = 0;
    for (section, key) in keys() {
        let LeftOut::Value(written) = key.default else { continue };
        let without = file_with(section, beside(section, key));
        let with = file_with_key(section, key, &yaml(written));
        let meaning = |file: &Yaml| match parse(&text(file), "f") {
            Ok(config) => format!("{config:#?}"),
            // Paths of certificates, which are not there.
            Err(mistakes) => mistakes.to_string().replace(char::is_numeric, ""),
        };
        assert_eq!(meaning(&with), meaning(&without), "{}.{}: {written}", section.path, key.name);
        if !section.path.contains("tls") {
            assert_eq!(mistakes(&with), [""; 0], "{}.{}: {written}", section.path, key.name);
        }
        count += 1;
    }
    assert!(count > 60, "{count} keys have a default");
}

#[test]
fn ranges_end_where_the_reader_ends_them() {
    let validator = validator();
    let mut count = 0;
    for (section, key) in keys() {
        let Some((right, wrong)) = ends(&key.shape) else { continue };
        let place = format!("{}.{}", section.path, key.name);
        for value in right {
            // Only less than the longest time-out there is.
            let value = if place.ends_with("early_head") && value == "1d" { "23h".into() } else { value };
            let mut file = file_with_key(section, key, &value);
            if place.ends_with("early_head") {
                *at(&mut file, &steps("upstreams.NAME.timeouts.response_head")) = "1d".into();
            }
            assert_eq!(mistakes(&file), [""; 0], "{place}: {value:?}");
            assert_eq!(complaints(&validator, &file), [""; 0], "{place}: {value:?}");
            count += 1;
        }
        for value in wrong {
            let mistakes = mistakes(&file_with_key(section, key, &value));
            let is_told = mistakes.iter().any(|it| it.contains("out of range"));
            assert!(is_told, "{place}: {value:?}: {mistakes:#?}");
        }
    }
    assert!(count > 80, "{count} ends of ranges");
}

/// The ends of a range, and what is just beyond them.
fn ends(shape: &Shape) -> Option<(Vec<Yaml>, Vec<Yaml>)> {
    let beyond = |least: u64, most: u64, unit: &str| {
        let below = least.checked_sub(1).into_iter();
        below.chain([most + 1]).map(|it| Yaml::from(format!("{it}{unit}"))).collect()
    };
    let milliseconds = |text| {
        let duration = units::duration_within(text, &(Duration::ZERO..=Duration::MAX)).unwrap();
        u64::try_from(duration.as_millis()).unwrap()
    };
    let bytes = |text| units::size_within(text, &(0..=usize::MAX)).unwrap() as u64;
    match shape {
        Shape::Duration(least, most) => {
            Some((vec![(*least).into(), (*most).into()], beyond(milliseconds(least), milliseconds(most), "ms")))
        }
        Shape::Size(least, most) => {
            Some((vec![(*least).into(), (*most).into()], beyond(bytes(least), bytes(most), "B")))
        }
        Shape::Number(least, most) => {
            let below = least.checked_sub(1).map(Yaml::from);
            let above = Yaml::from(most + 1);
            Some((vec![(*least).into(), (*most).into()], below.into_iter().chain([above]).collect()))
        }
        Shape::AnyOf(shapes) => shapes.iter().find_map(ends),
        _ => None,
    }
}

#[test]
fn the_reader_and_the_catalogue_know_the_same_words() {
    let mut count = 0;
    for (section, key) in keys() {
        let Shape::Word(words) = key.shape else { continue };
        let mistakes = mistakes(&file_with_key(section, key, &"zzzzzzzzzzzz".into()));
        let complaint = mistakes.iter().find(|it| it.contains("zzzzzzzzzzzz")).unwrap();
        let (_, right) = complaint.rsplit_once("; write ").unwrap();
        let right = right.trim_start_matches("one of ").replace(" or ", ", ");
        let of_reader: BTreeSet<_> = right.split(", ").collect();
        assert_eq!(of_reader, words.iter().copied().collect(), "{}.{}", section.path, key.name);
        count += 1;
    }
    assert!(count > 12, "{count} keys take words");
}

#[test]
fn every_word_and_example_is_read() {
    let validator = validator();
    for (section, key) in keys() {
        for value in samples(&key.shape) {
            let file = file_with_key(section, key, &value);
            let place = format!("{}.{}: {value:?}", section.path, key.name);
            assert_eq!(complaints(&validator, &file), [""; 0], "{place}");
            let mistakes = mistakes(&file);
            // Only files and names that are not there, and what one excludes of what is.
            let is_about_others = |it: &String| {
                ["cannot be read", "no upstream is named", "because tcp is on"].iter().any(|known| it.contains(known))
            };
            let odd: Vec<_> = mistakes.into_iter().filter(|it| !is_about_others(it)).collect();
            assert!(odd.is_empty(), "{place}: {odd:#?}");
        }
    }
}

/// Values that are right by themselves.
fn samples(shape: &Shape) -> Vec<Yaml> {
    match shape {
        Shape::Word(words) => words.iter().map(|word| (*word).into()).collect(),
        Shape::Text(text) => text.examples.iter().map(|example| (*example).into()).collect(),
        Shape::Mapping(section) => vec![yaml(section.example)],
        Shape::List(items, ..) => samples(items).into_iter().map(|item| vec![item].into()).collect(),
        Shape::AnyOf(shapes) => shapes.iter().flat_map(samples).collect(),
        Shape::Named(section) => vec![Mapping::from_iter([("chat".into(), yaml(section.example))]).into()],
        Shape::Source(sources) => {
            let words = sources.iter().filter(|source| source.is_word).map(|source| source.name.into());
            let mappings = sources.iter().flat_map(|source| {
                let values = source.value.iter().flat_map(samples);
                values.map(|value| Mapping::from_iter([(source.name.into(), value)]).into())
            });
            words.chain(mappings).collect()
        }
        // Another test is for their ranges.
        Shape::Duration(..) | Shape::Size(..) | Shape::Number(..) => Vec::new(),
    }
}

#[test]
fn what_is_wrong_by_its_form_is_wrong_to_both() {
    let validator = validator();
    let mut count = 0;
    for (section, key) in keys() {
        let nothing = Yaml::Null;
        let odd = Mapping::from_iter([("zzzz".into(), 1.into())]).into();
        for wrong in [nothing, odd, yaml("15 parsecs"), yaml("1.5"), yaml("-1"), yaml("[[]]")] {
            let is_text = matches!(key.shape, Shape::Text(_)) || key.name == "json";
            let is_free_text = is_text && (wrong.is_string() || wrong.is_number());
            if is_free_text {
                continue;
            }
            let file = file_with_key(section, key, &wrong);
            let place = format!("{}.{}: {wrong:?}", section.path, key.name);
            assert!(!mistakes(&file).is_empty(), "{place} is right to the reader");
            assert!(!complaints(&validator, &file).is_empty(), "{place} is right to the schema");
            count += 1;
        }
    }
    assert!(count > 400, "{count} cases");
    for wrong in ["{}", "[]", "listeners: []", "upstreams: {}", "upstreams: { \"a b\": { servers: [\"10.0.0.1:1\"] } }"]
    {
        assert!(!mistakes(&yaml(wrong)).is_empty() && !complaints(&validator, &yaml(wrong)).is_empty(), "{wrong}");
    }
}

#[test]
fn all_example_files_are_right_by_the_schema() {
    let validator = validator();
    for path in crate::config::tests::examples() {
        let file = yaml(&fs::read_to_string(&path).unwrap());
        assert_eq!(complaints(&validator, &file), [""; 0], "{}", path.display());
    }
}

/// What every right file of the other tests has to be as well.
pub(in crate::config) fn check_by_schema(text: &str) {
    thread_local!(static VALIDATOR: Validator = validator());
    let Ok(file) = serde_yaml::from_str(text) else { return };
    VALIDATOR.with(|validator| assert_eq!(complaints(validator, &file), [""; 0], "{text}"));
}

/// Sections of which the reference speaks in sentences.
const IN_SENTENCES: &[&str] = &["listeners[].tls.certificates"];

#[test]
fn the_tables_of_the_reference_are_those_of_the_catalogue() {
    let places = reference::check("keys", table);
    let is_told = |section: &&Section| {
        let is_source = section.path.contains("affinity[]");
        is_source || IN_SENTENCES.contains(&section.path) || places.iter().any(|place| place == section.path)
    };
    let untold: Vec<_> = sections().into_iter().filter(|it| !is_told(it)).map(|it| it.path).collect();
    assert!(untold.is_empty(), "the reference has no table for {untold:?}");
}

/// The commented file: with what is commented out, written out.
fn uncommented(text: &str) -> String {
    let is_key = |rest: &str| {
        let rest = rest.trim_start().trim_start_matches("- { ");
        rest.split_once(':').is_some_and(|(key, _)| keys().any(|(_, it)| it.name == key))
    };
    let line = |line: &str| match line.trim_start().strip_prefix("# ") {
        Some(rest) if is_key(rest) => line.replacen("# ", "", 1) + "\n",
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn the_commented_file_has_every_key_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/steadfast.yaml");
    let whole = uncommented(&fs::read_to_string(path).unwrap());
    let walk = lines::walk(&whole).unwrap_or_else(|_| panic!("with all keys written out it is no YAML:\n{whole}"));
    assert!(walk.duplicates.is_empty(), "twice there: {:?}", walk.duplicates);
    let mut seen = BTreeSet::new();
    let file = Commented { text: &whole, lines: &walk.lines };
    compare(&yaml(&whole), &KeyPath::default(), &Shape::Mapping(&FILE), &file, &mut seen);
    // What may stand in place of the line before.
    for (key, value) in whole.lines().filter_map(|line| line.trim_start().strip_prefix("# or ")?.split_once(": ")) {
        for (_, key) in keys().filter(|(_, it)| it.name == key) {
            let value = yaml(value);
            compare(&value, &KeyPath::default().key(key.name), &key.shape, &Commented { text: "", ..file }, &mut seen);
        }
    }
    let all: BTreeSet<_> = keys().map(|(section, key)| format!("{}.{}", section.path, key.name)).collect();
    let missing: Vec<_> = all.difference(&seen).filter(|it| !it.contains("affinity[].")).collect();
    assert!(missing.is_empty(), "not in conf/steadfast.yaml: {missing:#?}");
}

#[derive(Clone, Copy)]
struct Commented<'a> {
    text: &'a str,
    lines: &'a Lines,
}

impl Commented<'_> {
    fn is_example(&self, path: &KeyPath) -> bool {
        let line = self.text.lines().nth(self.lines.line_of(path) - 1).unwrap_or_default();
        line.split_once(" # ").is_some_and(|(_, comment)| comment.contains("example"))
    }
}

/// Follows `value`, and compares what has a default with it.
fn compare(value: &Yaml, path: &KeyPath, shape: &Shape, file: &Commented<'_>, seen: &mut BTreeSet<String>) {
    match (shape, value) {
        (Shape::Mapping(section), Yaml::Mapping(mapping)) if is_of(mapping, section) => {
            let keys = section.keys.iter().filter_map(|key| Some((key, mapping.get(key.name)?)));
            for (key, value) in keys {
                let path = path.key(key.name);
                seen.insert(format!("{}.{}", section.path, key.name));
                if let LeftOut::Value(default) = key.default
                    && !value.is_mapping()
                    && !value.is_sequence()
                    && !file.is_example(&path)
                {
                    assert_eq!(*value, yaml(default), "conf/steadfast.yaml: {path}: not the default");
                }
                compare(value, &path, &key.shape, file, seen);
            }
        }
        (Shape::Named(section), Yaml::Mapping(mapping)) => {
            for (name, value) in mapping {
                compare(value, &path.key(name.as_str().unwrap()), &Shape::Mapping(section), file, seen);
            }
        }
        (Shape::List(items, ..), Yaml::Sequence(values)) => {
            for (index, value) in values.iter().enumerate() {
                compare(value, &path.index(index), items, file, seen);
            }
        }
        (Shape::AnyOf(shapes), value) => shapes.iter().for_each(|shape| compare(value, path, shape, file, seen)),
        _ => {}
    }
}

/// Whether it has what has to be there.
fn is_of(mapping: &Mapping, section: &Section) -> bool {
    let mut required = section.keys.iter().filter(|key| matches!(key.default, LeftOut::Required(_)));
    required.all(|key| mapping.contains_key(key.name))
}

//! The catalogue as a JSON Schema, draft 2020-12, by which editors complete and check while a file is
//! written.
//!
//! It says no more than a schema can: which keys there are, of which type, in which form. Ranges of
//! durations and sizes, names that have to exist and what must fit together are for `steadfast check`.

use serde_json::{Map, Value as Json, json};

use super::{FILE, Key, LeftOut, Rule, Section, Shape, Source, Text};

/// The schema of a whole file.
pub fn schema() -> Json {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration file of Steadfast",
        "description": format!("Of version {}. conf/README.md tells more of each key.", env!("CARGO_PKG_VERSION")),
    });
    merge(&mut schema, mapping(&FILE));
    schema
}

fn mapping(section: &Section) -> Json {
    let properties: Map<_, _> = section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let is_required = |key: &&Key| matches!(key.default, LeftOut::Required(_));
    let required: Vec<_> = section.keys.iter().filter(is_required).map(|key| key.name).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    match section.rule {
        Rule::Any => {}
        Rule::OneOf(names) => {
            let alternatives: Vec<_> = names.iter().map(|name| json!({ "required": [name] })).collect();
            schema["anyOf"] = json!(alternatives);
        }
        Rule::Single => {
            schema["minProperties"] = json!(1);
            schema["maxProperties"] = json!(1);
        }
    }
    if !section.path.is_empty() {
        schema["title"] = json!(section.path);
    }
    if !section.example.is_empty() {
        schema["examples"] = json!([from_yaml(section.example)]);
    }
    schema
}

fn property(key: &Key) -> Json {
    let mut schema = json!({ "description": description(key) });
    if let LeftOut::Value(written) = key.default {
        schema["default"] = from_yaml(written);
    }
    merge(&mut schema, value(&key.shape));
    schema
}

/// What a reader of the reference sees in its row.
fn description(key: &Key) -> String {
    let mut facts = vec![key.kind_in_words()];
    facts.extend(Some(key.range_in_words()).filter(|range| !range.is_empty()));
    facts.extend(match key.default {
        LeftOut::Required(words) => Some(words.to_owned()),
        LeftOut::Value(written) => Some(format!("default `{written}`")),
        LeftOut::Words("") => None,
        LeftOut::Words(words) => Some(format!("left out: {words}")),
    });
    format!("{} ({})", without_links(key.meaning), facts.join("; "))
}

fn value(shape: &Shape) -> Json {
    match shape {
        Shape::Duration(least, most) => {
            json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "examples": [least, most] })
        }
        Shape::Size(least, most) => {
            json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$", "examples": [least, most] })
        }
        Shape::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Text(text) => of_text(text),
        Shape::Word(known) => json!({ "enum": words(known) }),
        Shape::List(items, least, most) => {
            let mut schema = json!({ "type": "array", "items": value(items) });
            if *least > 0 {
                schema["minItems"] = json!(least);
            }
            if *most < usize::MAX {
                schema["maxItems"] = json!(most);
            }
            schema
        }
        Shape::Mapping(section) => mapping(section),
        Shape::Named(section) => json!({
            "type": "object",
            "propertyNames": of_text(&super::NAME),
            "minProperties": 1,
            "additionalProperties": mapping(section),
        }),
        Shape::Source(sources) => {
            let each: Vec<_> = sources.iter().flat_map(source).collect();
            json!({ "anyOf": each })
        }
        Shape::AnyOf(shapes) => json!({ "anyOf": shapes.iter().map(value).collect::<Vec<_>>() }),
    }
}

fn of_text(text: &Text) -> Json {
    let mut schema = json!({ "type": "string", "pattern": text.pattern, "examples": text.examples });
    // YAML without quotes makes numbers of versions.
    let are_numbers = text.examples.iter().all(|example| example.parse::<f64>().is_ok());
    if are_numbers {
        let numbers: Vec<_> = text.examples.iter().map(|example| from_yaml(example)).collect();
        schema = json!({ "anyOf": [schema, { "enum": numbers }] });
    }
    schema
}

/// The words, and what YAML 1.1 makes of some.
fn words(known: &[&str]) -> Vec<Json> {
    let mut words: Vec<_> = known.iter().map(|word| json!(word)).collect();
    words.extend(known.contains(&"on").then_some(Json::Bool(true)));
    words.extend(known.contains(&"off").then_some(Json::Bool(false)));
    words
}

/// The ways to write a source.
fn source(source: &Source) -> Vec<Json> {
    let description = without_links(source.meaning);
    let word =
        source.is_word.then(|| json!({ "const": source.name, "title": source.shown, "description": description }));
    let mapping = source.value.as_ref().map(|shape| {
        let mut property = json!({ "description": description });
        merge(&mut property, value(shape));
        json!({
            "title": source.shown,
            "type": "object",
            "additionalProperties": false,
            "required": [source.name],
            "properties": { source.name: property },
        })
    });
    word.into_iter().chain(mapping).collect()
}

/// What YAML of this crate's own means.
fn from_yaml(written: &str) -> Json {
    serde_yaml::from_str(written).expect("the catalogue is YAML, and a test writes all of it out")
}

/// The text of Markdown without what its links lead to.
fn without_links(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once("](") {
        let (start, shown) = before.rsplit_once('[').unwrap_or(("", before));
        text.push_str(start);
        text.push_str(shown);
        rest = link.split_once(')').map_or("", |(_, rest)| rest);
    }
    text + rest
}

/// Adds the members of one object to another.
fn merge(to: &mut Json, from: Json) {
    if let (Json::Object(to), Json::Object(from)) = (to, from) {
        to.extend(from);
    }
}

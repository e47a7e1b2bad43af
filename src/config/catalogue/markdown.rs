//! The catalogue as tables of the reference. Each stands between two marks that say what is there:
//! `<!-- keys: upstreams.NAME.sse -->` and `<!-- end -->`. Behind the section may follow which of its
//! keys: `<!-- keys: upstreams.NAME, max_fails, fail_timeout -->`.

use super::{FILE, Key, LeftOut, Section, Shape, Source};

/// What stands at `place`: a section, perhaps with some of its keys.
pub(super) fn table(place: &str) -> String {
    let mut parts = place.split(", ");
    let path = parts.next().expect("split gives one part at least");
    let only: Vec<_> = parts.collect();
    if let Some(sources) = sources_at(path) {
        return table_of_sources(sources);
    }
    let sections = sections();
    let section = sections.iter().find(|section| section.path == path);
    let section = section.unwrap_or_else(|| panic!("the catalogue has no section {path:?}"));
    let keys: Vec<_> = section.keys.iter().filter(|key| only.is_empty() || only.contains(&key.name)).collect();
    assert!(only.is_empty() || keys.len() == only.len(), "no such key: {only:?} of {path}");
    let has_ranges = keys.iter().any(|key| !key.range_in_words().is_empty());
    let mut heads = vec!["key", "type", "range", "default", section.heading];
    heads.retain(|head| has_ranges || *head != "range");
    let rows = keys.iter().map(|key| {
        let mut row = row(key, only.is_empty());
        if !has_ranges {
            row.remove(2);
        }
        row
    });
    lines(&heads, rows)
}

fn row(key: &Key, is_overview: bool) -> Vec<String> {
    let default = match key.default {
        LeftOut::Required(words) | LeftOut::Words(words) => words.to_owned(),
        // Numbers speak for themselves.
        LeftOut::Value(written) if written.parse::<u64>().is_ok() => written.to_owned(),
        LeftOut::Value(written) => format!("`{written}`"),
    };
    let below = if key.is_explained && is_overview { "; see below" } else { "" };
    let meaning = format!("{}{below}", key.meaning);
    vec![format!("`{}`", key.name), key.kind_in_words(), key.range_in_words(), default, meaning]
}

fn table_of_sources(sources: &[Source]) -> String {
    let rows = sources.iter().map(|source| vec![source.shown.to_owned(), source.meaning.to_owned()]);
    lines(&["source", "what it finds"], rows)
}

fn lines(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for row in rows {
        let cell = |cell: String| if cell.is_empty() { " |".to_owned() } else { format!(" {cell} |") };
        text.push_str(&format!("|{}\n", row.into_iter().map(cell).collect::<String>()));
    }
    text
}

/// All sections, those of a section behind it.
pub(super) fn sections() -> Vec<&'static Section> {
    let mut sections: Vec<&Section> = Vec::new();
    let mut next = vec![&FILE];
    while let Some(section) = next.pop() {
        if sections.iter().any(|known| std::ptr::eq(*known, section)) {
            continue;
        }
        sections.push(section);
        let mut inner: Vec<_> = section.keys.iter().flat_map(|key| within(&key.shape)).collect();
        inner.reverse();
        next.extend(inner);
    }
    sections
}

/// The sections of a value.
fn within(shape: &'static Shape) -> Vec<&'static Section> {
    match shape {
        Shape::Mapping(section) | Shape::Named(section) => vec![section],
        Shape::List(shape, ..) => within(shape),
        Shape::AnyOf(shapes) => shapes.iter().flat_map(within).collect(),
        Shape::Source(sources) => sources.iter().filter_map(|source| source.value.as_ref()).flat_map(within).collect(),
        _ => Vec::new(),
    }
}

fn sources_at(path: &str) -> Option<&'static [Source]> {
    let (section, name) = path.rsplit_once('.')?;
    let section = *sections().iter().find(|it| it.path == section)?;
    match &section.keys.iter().find(|key| key.name == name)?.shape {
        Shape::List(Shape::Source(sources), ..) => Some(sources),
        _ => None,
    }
}

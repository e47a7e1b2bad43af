//! Values as nginx writes them: times, sizes, variables, and regular expressions that are plain prefixes.

use std::time::Duration;

use super::super::plan::Source;

/// A time such as `60`, `75s`, `1h 30m` or `500ms`; a number alone is seconds.
pub(in crate::migrate) fn time(text: &str) -> Option<Duration> {
    let mut total = 0_u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|it: char| it.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|it: char| it.is_ascii_alphabetic()).len();
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" | "" => SECOND,
            "m" => 60 * SECOND,
            "h" => 3_600 * SECOND,
            "d" => 86_400 * SECOND,
            "w" => 7 * 86_400 * SECOND,
            "M" => 30 * 86_400 * SECOND,
            "y" => 365 * 86_400 * SECOND,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = rest[letters..].trim_start();
    }
    Some(Duration::from_millis(total))
}

const SECOND: u64 = 1_000;

/// Bytes, such as `8192`, `16k` or `1M`.
pub(super) fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 1 << 10),
        (at, 'm' | 'M') => (&text[..at], 1 << 20),
        (at, 'g' | 'G') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// The name of the one variable that `text` is: of `$name` and `${name}`.
pub(in crate::migrate) fn variable(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('$')?;
    let name = rest.strip_prefix('{').map_or(Some(rest), |rest| rest.strip_suffix('}'))?;
    let is_name = !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
    is_name.then_some(name)
}

/// The source for a variable that names a field, a cookie or a parameter.
pub(in crate::migrate) fn source(variable: &str) -> Option<Source> {
    let (kind, name) = variable.split_once('_').filter(|it| !it.1.is_empty())?;
    match kind {
        "http" => Some(Source::Header(field(name))),
        "cookie" => Some(Source::Cookie(name.to_owned())),
        "arg" => Some(Source::Query(name.to_owned())),
        _ => None,
    }
}

/// The field of a head that a variable `$http_NAME` stands for: `x_user_id` is `X-User-Id`.
pub(super) fn field(name: &str) -> String {
    let capital = |word: &str| {
        let mut characters = word.chars();
        let first = characters.next().map(|it| it.to_ascii_uppercase());
        first.into_iter().chain(characters).collect::<String>()
    };
    match name {
        "cf_connecting_ip" => "CF-Connecting-IP".to_owned(),
        "x_real_ip" => "X-Real-IP".to_owned(),
        _ => name.split('_').map(capital).collect::<Vec<_>>().join("-"),
    }
}

/// What a regular expression for paths comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::migrate) enum Regex {
    /// Paths that begin so, and some more perhaps.
    Prefixes(Vec<String>),
    /// Something else; all that it matches begins so.
    Other(Option<String>),
}

/// Looks whether `pattern` is nothing but a prefix, or a choice of them.
pub(in crate::migrate) fn regex(pattern: &str) -> Regex {
    let Some(rest) = pattern.strip_prefix('^') else { return Regex::Other(None) };
    let (before, rest) = literal(rest);
    if is_any_tail(rest) {
        return Regex::Prefixes(vec![before]);
    }
    if let Some((choices, behind)) = choice(rest) {
        let (after, tail) = literal(behind);
        if is_any_tail(tail) {
            return Regex::Prefixes(choices.iter().map(|it| format!("{before}{it}{after}")).collect());
        }
    }
    // A choice between whole patterns shares nothing.
    let is_one = !pattern.contains('|') || rest.starts_with('(');
    Regex::Other((is_one && before.len() > 1).then_some(before))
}

/// The text that a pattern begins with, and what is behind it.
fn literal(pattern: &str) -> (String, &str) {
    let mut text = String::new();
    let mut rest = pattern;
    loop {
        let mut characters = rest.chars();
        let (next, length) = match characters.next() {
            Some('\\') => match characters.next() {
                Some(escaped) if !escaped.is_alphanumeric() => (escaped, 1 + escaped.len_utf8()),
                _ => return (text, rest),
            },
            Some(next) if !".[]()*+?{}|^$".contains(next) => (next, next.len_utf8()),
            _ => return (text, rest),
        };
        // What may be absent, or be there several times, is no text; but a slash that may be absent is an end.
        if rest[length..].starts_with(['?', '*', '{', '+']) {
            return (text, rest);
        }
        text.push(next);
        rest = &rest[length..];
    }
}

/// `(a|b)` at the beginning: its texts, and what is behind it.
fn choice(pattern: &str) -> Option<(Vec<String>, &str)> {
    let rest = pattern.strip_prefix('(')?;
    let (inner, behind) = rest.split_once(')')?;
    let inner = inner.strip_prefix("?:").unwrap_or(inner);
    let texts = inner.split('|').map(|it| {
        let (text, rest) = literal(it);
        (rest.is_empty() && !text.is_empty()).then_some(text)
    });
    let texts: Option<Vec<String>> = texts.collect();
    (!behind.starts_with(['?', '*', '+', '{'])).then_some((texts?, behind))
}

/// Whether this takes anything that may follow, or the end.
fn is_any_tail(pattern: &str) -> bool {
    let ends = [
        "", "$", ".*", ".*$", "(.*)", "(.*)$", "/?", "/?$", "(/|$)", "(/.*)?", "(/.*)?$", "/?(.*)", "/?(.*)$", ".+",
        ".+$", "(.+)", "(.+)$",
    ];
    ends.contains(&pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_many_units() {
        #[track_caller]
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(time(text), expected.map(Duration::from_millis), "{text:?}");
        }

        check("60", Some(60_000));
        check("60s", Some(60_000));
        check("500ms", Some(500));
        check("5m", Some(300_000));
        check("1h30m", Some(5_400_000));
        check("1h 30m", Some(5_400_000));
        check("7d", Some(604_800_000));
        check("1M", Some(2_592_000_000));
        check("0", Some(0));
        for text in ["", "s", "-1", "1x", "1.5s", "99999999999999999999", "99999999999999999y", "1é"] {
            check(text, None);
        }
    }

    #[test]
    fn sizes_have_a_unit_or_none() {
        for (text, expected) in
            [("8192", Some(8192)), ("16k", Some(16384)), ("1M", Some(1 << 20)), ("k", None), ("", None), ("1é", None)]
        {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn variables_are_whole_words() {
        for (text, expected) in [
            ("$remote_addr", Some("remote_addr")),
            ("${remote_addr}", Some("remote_addr")),
            ("$a$b", None),
            ("$a-b", None),
            ("a", None),
            ("$", None),
            ("${a", None),
        ] {
            assert_eq!(variable(text), expected, "{text:?}");
        }
    }

    #[test]
    fn prefixes_are_found_in_regular_expressions() {
        #[track_caller]
        fn check(pattern: &str, expected: &[&str]) {
            let expected = Regex::Prefixes(expected.iter().map(|it| (*it).to_owned()).collect());
            assert_eq!(regex(pattern), expected, "{pattern:?}");
        }
        #[track_caller]
        fn other(pattern: &str, expected: Option<&str>) {
            assert_eq!(regex(pattern), Regex::Other(expected.map(str::to_owned)), "{pattern:?}");
        }

        check(r"^/socket\.io/", &["/socket.io/"]);
        check("^/ws", &["/ws"]);
        check("^/ws/?$", &["/ws"]);
        check("^/ws(/|$)", &["/ws"]);
        check("^/ws/(.*)$", &["/ws/"]);
        check("^/ws.*", &["/ws"]);
        check(r"^/(socket\.io|api)/", &["/socket.io/", "/api/"]);
        check("^/(?:a|b)$", &["/a", "/b"]);
        check("^/api/v1/(?:websocket|stream)", &["/api/v1/websocket", "/api/v1/stream"]);
        other(r"\.php$", None);
        other("/ws", None);
        other("^/api/v[0-9]+/ws", Some("/api/v"));
        other("^/a|^/b", None);
        other("^/wsx?/", Some("/ws"));
        other("^/(a|b)+", None);
        other(r"^/\d+", None);
        check("^/", &["/"]);
    }
}

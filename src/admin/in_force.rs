//! `/api/v1/config`: the configuration in force as it is written, but for secrets. Pure.
//!
//! Secrets stand in files of their own, whose paths are shown; what they hold is not even kept. What a URL may hold
//! in front of its host is hidden, and so is what a key says to be secret: a key of a later version, too.

use serde_json::{Map, Value};

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// `written` as JSON, without its secrets.
pub(super) fn shown(written: &serde_yaml::Value) -> Value {
    match written {
        serde_yaml::Value::Null => Value::Null,
        serde_yaml::Value::Bool(value) => (*value).into(),
        serde_yaml::Value::Number(number) => number_of(number),
        serde_yaml::Value::String(text) => without_login(text).into(),
        serde_yaml::Value::Sequence(items) => items.iter().map(shown).collect(),
        serde_yaml::Value::Mapping(fields) => {
            let field = |(key, value): (&serde_yaml::Value, &serde_yaml::Value)| {
                let key = key.as_str().map_or_else(|| shown(key).to_string(), str::to_owned);
                let value = if is_secret(&key) { HIDDEN.into() } else { shown(value) };
                (key, value)
            };
            fields.iter().map(field).collect::<Map<_, _>>().into()
        }
        serde_yaml::Value::Tagged(tagged) => shown(&tagged.value),
    }
}

fn number_of(number: &serde_yaml::Number) -> Value {
    let whole = number.as_u64().map(Value::from).or_else(|| number.as_i64().map(Value::from));
    whole.or_else(|| number.as_f64().map(Value::from)).unwrap_or_default()
}

/// Whether the value of this key is a secret itself, and not where one is.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let is_named = ["secret", "password", "token", "authorization"].iter().any(|word| key.contains(word));
    is_named && !key.ends_with("_file")
}

/// A URL without user and password. A password may have an `@`, so what stands before the last one is hidden.
fn without_login(text: &str) -> String {
    let login = text.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
    login.map_or_else(|| text.to_owned(), |(scheme, host)| format!("{scheme}://{HIDDEN}@{host}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_secret_is_hidden_and_nothing_else() {
        let text = "
            listeners: [{ bind: '127.0.0.1:1', h2c: on }]
            threads: 2
            session_store: { url: 'redis://user:p@ss@127.0.0.1:6379/1', password_file: /etc/redis }
            admin: { bind: '127.0.0.1:9900', token: 0123456789abcdef, token_file: /etc/token }
            affinity_secret_file: /etc/secret
            later: { client_secret: { a: b }, Authorization: c, half: 0.5, below: -1, none: null, 5: five }
        ";
        let written: serde_yaml::Value = serde_yaml::from_str(text).expect("it is YAML");
        assert_eq!(
            shown(&written),
            json!({
                "listeners": [{ "bind": "127.0.0.1:1", "h2c": "on" }],
                "threads": 2,
                "session_store": { "url": "redis://***@127.0.0.1:6379/1", "password_file": "/etc/redis" },
                "admin": { "bind": "127.0.0.1:9900", "token": "***", "token_file": "/etc/token" },
                "affinity_secret_file": "/etc/secret",
                "later": {
                    "client_secret": "***", "Authorization": "***", "half": 0.5, "below": -1, "none": null, "5": "five"
                },
            })
        );
    }

    #[test]
    fn a_url_without_a_login_is_shown() {
        for (text, expected) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:secret@a", "redis://***@a"),
            ("mail@example.com", "mail@example.com"),
            ("redis://a:b/c@d@host:1/2", "redis://***@host:1/2"),
        ] {
            assert_eq!(without_login(text), expected);
        }
    }
}

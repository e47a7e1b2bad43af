//! Affinity: the sources of keys, in the order in which they are asked.

use std::time::Duration;

use http::HeaderName;

use crate::config::mistakes::quoted;
use crate::config::reader::{Fields, Item};
use crate::config::suggest;
use crate::config::{AffinitySource, Find, Ipv6Prefix, Learn, Pick, Session, StickyCookie, TrustedProxies};

/// The sources of one upstream, or the default ones.
pub(super) fn affinity(upstream: &mut Fields<'_>, trusted_proxies: &TrustedProxies) -> Vec<AffinitySource> {
    let Some(item) = upstream.optional("affinity") else {
        return AffinitySource::defaults();
    };
    let right = "write a list such as [forwarded_for, client_ip]";
    let mut sources = Vec::new();
    for item in item.list(right).unwrap_or_default() {
        let Some(source) = source(&item) else {
            continue;
        };
        if sources.iter().any(|earlier| is_twin(earlier, &source)) {
            item.complain("this source stands here already; remove one");
        } else if sources.iter().any(|earlier| matches!(earlier, AffinitySource::ClientIp(_))) {
            item.complain("never asked, because client_ip always gives a key; move it before");
        } else if matches!(source, AffinitySource::ForwardedFor(..)) && trusted_proxies.0.is_empty() {
            item.complain("never gives a key, because trusted_proxies is empty; remove it");
        }
        sources.push(source);
    }
    sources
}

/// Whether the second would never find anything that the first does not.
fn is_twin(first: &AffinitySource, second: &AffinitySource) -> bool {
    use AffinitySource::{ClientIp, ForwardedFor, StickyCookie};
    match (first, second) {
        (StickyCookie(_), StickyCookie(_)) | (ClientIp(_), ClientIp(_)) => true,
        (ForwardedFor(first, _), ForwardedFor(second, _)) => first == second,
        (first, second) => first == second,
    }
}

fn source(item: &Item<'_>) -> Option<AffinitySource> {
    if !item.is_mapping() {
        return match item.text(SOURCES)? {
            "engine_io" => Some(AffinitySource::EngineIo),
            "sticky_cookie" => Some(AffinitySource::StickyCookie(StickyCookie::default())),
            "forwarded_for" => Some(AffinitySource::ForwardedFor(Pick::First, Ipv6Prefix::default())),
            "client_ip" => Some(AffinitySource::ClientIp(Ipv6Prefix::default())),
            other => {
                item.complain(no_source(other));
                None
            }
        };
    }
    let entries = item.entries(SOURCES)?;
    let [(kind, value)] = entries.as_slice() else {
        item.complain("this item has several keys; write one source per item");
        return None;
    };
    named_source(kind, value)
}

fn named_source(kind: &str, value: &Item<'_>) -> Option<AffinitySource> {
    let name = |right: &str| value.text(right);
    match kind {
        "cookie" => {
            let name = name("write the name of a cookie, such as sid")?;
            value.kept(cookie(name)).map(AffinitySource::Cookie)
        }
        "header" => {
            let name = name("write the name of a header, such as X-User-Id")?;
            value.kept(header(name, "X-User-Id")).map(AffinitySource::Header)
        }
        "query" => {
            let name = name("write the name of a query parameter, such as room")?;
            value.kept(query(name)).map(AffinitySource::Query)
        }
        "sticky_cookie" => sticky_cookie(value).map(AffinitySource::StickyCookie),
        "session" => session(value).map(AffinitySource::Session),
        "forwarded_for" => forwarded_for(value),
        "client_ip" => client_ip(value),
        "engine_io" => {
            value.complain(format!("takes no value; write only {kind}"));
            None
        }
        other => {
            value.complain(no_source(other));
            None
        }
    }
}

fn sticky_cookie(value: &Item<'_>) -> Option<StickyCookie> {
    let mut fields = value.fields("write a mapping such as { name: steadfast, max_age: 1d }")?;
    let mut sticky = StickyCookie::default();
    if let Some(item) = fields.optional("name")
        && let Some(name) = item.text("write the name of a cookie, such as steadfast")
        && let Some(name) = item.kept(cookie(name))
    {
        sticky.name = name;
    }
    if let Some(item) = fields.optional("max_age") {
        sticky.max_age = item.duration(Duration::from_secs(1)..=MAX_AGE_MAX);
    }
    if let Some(item) = fields.optional("pass_to_servers") {
        sticky.is_passed = item.is_on();
        if !item.is_on() && !item.is_off() {
            item.complain_of_type("write on or off");
        }
    }
    fields.finish(&[]);
    Some(sticky)
}

/// What browsers keep a cookie for at the most (RFC 6265bis, section 5.5).
const MAX_AGE_MAX: Duration = Duration::from_secs(400 * 86_400);

/// A session of a protocol that we know, or any other in words of two places.
fn session(value: &Item<'_>) -> Option<Session> {
    let right = "write mcp, signalr or { learn: { response_header: NAME }, find: { header: NAME } }";
    if !value.is_mapping() {
        return match value.text(right)? {
            "mcp" => Some(Session::mcp()),
            "signalr" => Some(Session::signalr()),
            other => {
                let shown = quoted(other);
                value.complain(match suggest::nearest(other, ["mcp", "signalr"]) {
                    Some(nearest) => format!("{shown} is no kind of session; did you mean {nearest}?"),
                    None => format!("{shown} is no kind of session; {right}"),
                });
                None
            }
        };
    }
    let mut fields = value.fields(right)?;
    let learn_right = "write { response_header: NAME } or { json: MEMBER }";
    let learn = fields.required("learn", learn_right).and_then(|item| learn(&item, learn_right));
    let find_right = "write { header: NAME }, { query: NAME } or { cookie: NAME }";
    let find = fields.required("find", find_right).and_then(|item| find(&item, find_right));
    fields.finish(&[]);
    Some(Session { learn: learn?, find: find? })
}

fn learn(item: &Item<'_>, right: &str) -> Option<Learn> {
    let (kind, value) = one_entry(item, right)?;
    match kind {
        "response_header" => {
            let name = value.text("write the name of a response header, such as Mcp-Session-Id")?;
            value.kept(header(name, "Mcp-Session-Id")).map(Learn::ResponseHeader)
        }
        "json" => {
            let right = "write the name of a member, such as sessionId or session.id, or a list of them";
            if value.is_list() {
                let members = value.list(right)?;
                let paths: Vec<_> = members.iter().filter_map(|member| json_path(member, right)).collect();
                return (paths.len() == members.len()).then_some(Learn::Json(paths));
            }
            json_path(&value, right).map(|path| Learn::Json(vec![path]))
        }
        "cookie" | "set_cookie" => {
            value.complain("a cookie is learned by the source { cookie: NAME }; write that instead of session");
            None
        }
        _ => {
            value.complain(format!("unknown place; {right}"));
            None
        }
    }
}

fn json_path(item: &Item<'_>, right: &str) -> Option<Vec<String>> {
    let text = item.text(right)?;
    if text.split('.').any(str::is_empty) {
        item.complain(format!("{} is no path of members; {right}", quoted(text)));
        return None;
    }
    Some(text.split('.').map(str::to_owned).collect())
}

fn find(item: &Item<'_>, right: &str) -> Option<Find> {
    let (kind, value) = one_entry(item, right)?;
    match kind {
        "header" => {
            let name = value.text("write the name of a header, such as Mcp-Session-Id")?;
            value.kept(header(name, "Mcp-Session-Id")).map(Find::Header)
        }
        "query" => {
            let name = value.text("write the name of a query parameter, such as id")?;
            value.kept(query(name)).map(Find::Query)
        }
        "cookie" => {
            let name = value.text("write the name of a cookie, such as sid")?;
            value.kept(cookie(name)).map(Find::Cookie)
        }
        _ => {
            value.complain(format!("unknown place; {right}"));
            None
        }
    }
}

/// The only entry of a mapping.
fn one_entry<'a>(item: &Item<'a>, right: &str) -> Option<(&'a str, Item<'a>)> {
    let mut entries = item.entries(right)?;
    if entries.len() > 1 {
        item.complain(format!("several keys; {right}"));
        return None;
    }
    entries.pop()
}

fn forwarded_for(value: &Item<'_>) -> Option<AffinitySource> {
    let mut fields = value.fields("write a mapping such as { pick: first, ipv6_prefix: 64 }")?;
    let mut pick = Pick::default();
    if let Some(item) = fields.optional("pick") {
        pick = item.one_of("pick", PICKS).unwrap_or(pick);
    }
    let prefix = ipv6_prefix(&mut fields);
    fields.finish(&[]);
    Some(AffinitySource::ForwardedFor(pick, prefix))
}

pub(super) const PICKS: &[(&str, Pick)] = &[("first", Pick::First), ("rightmost_untrusted", Pick::RightmostUntrusted)];

fn client_ip(value: &Item<'_>) -> Option<AffinitySource> {
    let mut fields = value.fields("write a mapping such as { ipv6_prefix: 64 }")?;
    let prefix = ipv6_prefix(&mut fields);
    fields.finish(&[]);
    Some(AffinitySource::ClientIp(prefix))
}

fn ipv6_prefix(source: &mut Fields<'_>) -> Ipv6Prefix {
    let bits = source.optional("ipv6_prefix").and_then(|item| item.number(1..=128, "write a number from 1 to 128"));
    bits.and_then(Ipv6Prefix::new).unwrap_or_default()
}

fn no_source(word: &str) -> String {
    match word {
        "cookie" | "header" | "query" => {
            format!("{word} needs a name; write it as {{ {word}: NAME }}")
        }
        "session" => "session needs a kind; write it as { session: mcp } or { session: signalr }".to_owned(),
        "mcp" | "signalr" => format!("{word} is a kind of session; write it as {{ session: {word} }}"),
        "ip_hash" => "ip_hash is called client_ip here; write client_ip".to_owned(),
        _ => {
            let known =
                ["engine_io", "sticky_cookie", "session", "forwarded_for", "client_ip", "cookie", "header", "query"];
            let shown = quoted(word);
            match suggest::nearest(word, known) {
                Some(nearest) => format!("{shown} is no source; did you mean {nearest}?"),
                None => format!("{shown} is no source; {SOURCES}"),
            }
        }
    }
}

const SOURCES: &str = "write engine_io, sticky_cookie, forwarded_for, client_ip, { cookie: NAME }, { header: NAME }, { query: NAME } \
     or { session: KIND }";

/// The name of a header; a message refers to `example`.
pub(super) fn header(text: &str, example: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{} is no name of a header; write one such as {example}", quoted(text)))
}

/// A cookie's name is made of the same characters as a header's, but keeps its case (RFC 6265).
fn cookie(text: &str) -> Result<String, String> {
    match HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{} is no name of a cookie; write one such as sid", quoted(text))),
    }
}

fn query(text: &str) -> Result<String, String> {
    let is_no_name = |character: char| "?&=#".contains(character) || character.is_whitespace();
    let too_long = text.len() > QUERY_NAME_LEN_MAX;
    if text.is_empty() || too_long || text.contains(is_no_name) || text.contains(char::is_control) {
        return Err(format!(
            "{} is no name of a query parameter; write one such as room, without ? & = #",
            quoted(text)
        ));
    }
    Ok(text.to_owned())
}

const QUERY_NAME_LEN_MAX: usize = 256;

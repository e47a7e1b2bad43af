//! `/relays`: which there are, and the end of one.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::answer::{as_json, text};
use crate::relay::inbox::{Description, Ended, First, Id, Listing, Query, Workers};
use crate::relay::{EndReason, Kind};

/// Lists what the query string asks for.
pub(super) async fn list(workers: &Workers, query: &str) -> Response<Vec<u8>> {
    let query = match parse(query) {
        Ok(query) => query,
        Err(mistake) => return text(StatusCode::BAD_REQUEST, &(mistake + "\n")),
    };
    as_json(&shown(&workers.list(query).await))
}

/// Ends the relay of this id.
pub(super) async fn end(workers: &Workers, id: &str) -> Response<Vec<u8>> {
    let Ok(id) = id.parse::<Id>() else {
        return text(StatusCode::BAD_REQUEST, "an id is a number, as GET /relays shows it\n");
    };
    match workers.end(id, EndReason::Operator).await {
        Ended::Told => {
            tracing::info!("relay {id}: ended by the operator");
            text(StatusCode::ACCEPTED, "it is told to end\n")
        }
        Ended::Unknown => text(StatusCode::NOT_FOUND, "there is no relay of this id, or no more\n"),
        Ended::Unanswered => text(StatusCode::SERVICE_UNAVAILABLE, "a worker did not answer; try again\n"),
    }
}

fn parse(text: &str) -> Result<Query, String> {
    let mut query = Query::default();
    for (key, value) in form_urlencoded::parse(text.as_bytes()) {
        let wrong = |right: &str| format!("{key}: {value:?} is wrong; write {right}");
        match &*key {
            "kind" => {
                let kind = Kind::of_relay(&value).ok_or_else(|| wrong("websocket, tunnel or sse"))?;
                query.kind = Some(kind);
            }
            "upstream" => query.upstream = Some(value.into_owned()),
            "server" => query.server = Some(value.into_owned()),
            "first" => {
                query.first = match &*value {
                    "newest" => First::Newest,
                    "oldest" => First::Oldest,
                    _ => return Err(wrong("newest or oldest")),
                }
            }
            "after" => query.after = Some(value.parse().map_err(|_| wrong("the id of a relay"))?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=Query::LIMIT_MAX).contains(limit));
                query.limit = limit.ok_or_else(|| wrong("a number from 1 to 1000"))?;
            }
            _ => return Err(format!("{key:?} is unknown; known here: kind, upstream, server, first, after, limit")),
        }
    }
    Ok(query)
}

fn shown(listing: &Listing) -> Value {
    json!({
        "count": listing.count,
        "complete": listing.is_complete,
        "relays": listing.relays.iter().map(described).collect::<Vec<_>>(),
    })
}

fn described(relay: &Description) -> Value {
    let server = relay.upstream.servers.get(usize::from(relay.server));
    json!({
        "id": relay.id.0,
        "kind": relay.kind.label(),
        "upstream": relay.upstream.name,
        "server": server.map(|server| &server.name),
        "client": relay.client,
        "age_ms": u64::try_from(relay.age.as_millis()).unwrap_or(u64::MAX),
        "idle_ms": u64::try_from(relay.idle.as_millis()).unwrap_or(u64::MAX),
        "bytes_in": relay.bytes_in,
        "bytes_out": relay.bytes_out,
        "ending": relay.ending.map(EndReason::label),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_which_relays_and_how_many() {
        #[track_caller]
        fn check(text: &str, expected: Query) {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        check("", Query::default());
        let first = Query { kind: Some(Kind::EventStream), first: First::Oldest, limit: 1000, ..Query::default() };
        check("kind=sse&first=oldest&limit=1000", first);
        let (upstream, server) = (Some("chat".to_owned()), Some("[::1]:1".to_owned()));
        let next = Query { upstream, server, after: Some(Id(7)), limit: 1, ..Query::default() };
        check("upstream=chat&server=%5B::1%5D:1&after=7&limit=1&first=newest", next);
    }

    #[test]
    fn what_is_wrong_with_a_query_is_said() {
        #[track_caller]
        fn check(text: &str, expected: &str) {
            assert_eq!(parse(text).expect_err("it is wrong"), expected, "{text}");
        }
        check("kind=http", r#"kind: "http" is wrong; write websocket, tunnel or sse"#);
        check("first=last", r#"first: "last" is wrong; write newest or oldest"#);
        check("after=x", r#"after: "x" is wrong; write the id of a relay"#);
        for limit in ["0", "1001", "-1", "many", ""] {
            let expected = format!(r#"limit: "{limit}" is wrong; write a number from 1 to 1000"#);
            check(&format!("limit={limit}"), &expected);
        }
        check("page=2", r#""page" is unknown; known here: kind, upstream, server, first, after, limit"#);
    }
}

//! `/api/v1/relays`: which there are, and the end of one.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, as_json, problem, with_status, wrong};
use crate::config::duration_within;
use crate::relay::inbox::{Description, Ended, First, Id, Listing, Query, Workers};
use crate::relay::{EndReason, Kind};

/// Lists what the query string asks for.
pub(super) async fn list(workers: &Workers, query: &str) -> Answer {
    match parse(query) {
        Ok(query) => as_json(&shown(&workers.list(query).await)),
        Err(mistake) => wrong(&mistake),
    }
}

/// Describes the relay of this id.
pub(super) async fn one(workers: &Workers, id: &str) -> Answer {
    let Ok(id) = id.parse::<Id>() else { return no_id() };
    let listing = workers.list(Query { id: Some(id), limit: 1, ..Query::default() }).await;
    match listing.relays.first() {
        Some(relay) => as_json(&described(relay)),
        None if listing.is_complete => unknown(),
        None => unanswered(),
    }
}

/// Ends the relay of this id.
pub(super) async fn end(workers: &Workers, id: &str) -> Answer {
    let Ok(id) = id.parse::<Id>() else { return no_id() };
    match workers.end(id, EndReason::Operator).await {
        Ended::Told => {
            tracing::info!("relay {id}: ended by the operator");
            with_status(StatusCode::ACCEPTED, &json!({ "id": id.0, "ending": EndReason::Operator.label() }))
        }
        Ended::Unknown => unknown(),
        Ended::Unanswered => unanswered(),
    }
}

fn no_id() -> Answer {
    wrong("an id is a number, as GET /api/v1/relays shows it")
}

fn unknown() -> Answer {
    problem(StatusCode::NOT_FOUND, "there is no relay of this id, or no more")
}

fn unanswered() -> Answer {
    problem(StatusCode::SERVICE_UNAVAILABLE, "a worker did not answer; try again")
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
            "client" => query.client = Some(value.parse().map_err(|_| wrong("an IP address"))?),
            "min_age" => {
                let age = duration_within(&value, &(Duration::ZERO..=AGE_MAX));
                query.min_age = age.map_err(|mistake| format!("min_age: {mistake}"))?;
            }
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
            _ => return Err(format!("{key:?} is unknown; known here: {KNOWN}")),
        }
    }
    Ok(query)
}

const KNOWN: &str = "kind, upstream, server, client, min_age, first, after, limit";

/// Nobody asks for older ones.
const AGE_MAX: Duration = Duration::from_secs(365 * 86_400);

fn shown(listing: &Listing) -> Value {
    json!({
        "count": listing.count,
        "complete": listing.is_complete,
        "next": listing.next.map(|id| id.0),
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
        let old = Query { client: Some([10, 0, 0, 1].into()), min_age: Duration::from_secs(7200), ..Query::default() };
        check("client=10.0.0.1&min_age=2h", old);
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
        check("client=localhost", r#"client: "localhost" is wrong; write an IP address"#);
        check("min_age=366d", r#"min_age: "366d" is out of range; write 0ms to 365d"#);
        for limit in ["0", "1001", "-1", "many", ""] {
            let expected = format!(r#"limit: "{limit}" is wrong; write a number from 1 to 1000"#);
            check(&format!("limit={limit}"), &expected);
        }
        check("page=2", &format!(r#""page" is unknown; known here: {KNOWN}"#));
    }
}

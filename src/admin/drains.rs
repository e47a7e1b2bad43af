//! `/drain`, `/undrain`, `/state` and `/drains`: servers, upstreams and the process are emptied, and how
//! far that has got. `/rebalance`: what would move.

use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::json;

use super::answer::{as_json, text, wrong};
use super::status::Drain;
use crate::command::{Closed, Desk, NoTarget, Pace, ServerOf, Target};
use crate::config::{State, duration_within};

/// Begins to drain what the query string names.
pub(super) async fn drain(desk: &Desk, query: &str) -> Response<Vec<u8>> {
    let asked = match Asked::parse(query, &["upstream", "server", "spread", "timeout"]) {
        Ok(asked) => asked,
        Err(mistake) => return wrong(&mistake),
    };
    let pace = Pace { spread: asked.spread, timeout: asked.timeout };
    match asked.target() {
        Ok(target) => done(desk.drain(target, pace).await, |progress| as_json(&Drain::of(&progress))),
        Err(mistake) => wrong(&mistake),
    }
}

/// Lets those stay that have not left.
pub(super) async fn undrain(desk: &Desk, query: &str) -> Response<Vec<u8>> {
    match Asked::parse(query, &["upstream", "server"]).and_then(Asked::target) {
        Ok(target) => done(desk.undrain(target).await, |()| text(StatusCode::OK, "it is drained no more\n")),
        Err(mistake) => wrong(&mistake),
    }
}

/// Puts a server in a state.
pub(super) async fn state(desk: &Desk, query: &str) -> Response<Vec<u8>> {
    let asked = match Asked::parse(query, &["upstream", "server", "state"]) {
        Ok(asked) => asked,
        Err(mistake) => return wrong(&mistake),
    };
    let Some(state) = asked.state else { return wrong("state is missing; write ready, drain, maint or file") };
    match asked.target() {
        Ok(Target::Server(server)) => {
            done(desk.state(server, state).await, |()| text(StatusCode::OK, "it is in that state\n"))
        }
        Ok(_) => wrong("a state is that of a server; name upstream and server"),
        Err(mistake) => wrong(&mistake),
    }
}

/// The drains there are.
pub(super) fn list(desk: &Desk) -> Response<Vec<u8>> {
    as_json(&desk.drains().iter().map(Drain::of).collect::<Vec<_>>())
}

/// What would move in an upstream if it were rebalanced now.
pub(super) async fn plan(desk: &Desk, query: &str) -> Response<Vec<u8>> {
    let upstream = match Asked::parse(query, &["upstream"]) {
        Ok(Asked { upstream: Some(upstream), .. }) => upstream,
        Ok(_) => return wrong("upstream is missing; write the name of one"),
        Err(mistake) => return wrong(&mistake),
    };
    let target = Target::Upstream(upstream.clone());
    done(desk.plan(upstream).await.map(|plan| plan.ok_or(NoTarget(target))), |plan| {
        let moves = plan.moves.iter().map(|(from, to, count)| json!({ "from": from, "to": to, "relays": count }));
        as_json(&json!({
            "upstream": plan.upstream,
            "relays": plan.relays,
            "strays": plan.strays,
            "percent_per_minute": plan.per_minute,
            "moves": moves.collect::<Vec<_>>(),
        }))
    })
}

fn done<T>(
    result: Result<Result<T, NoTarget>, Closed>,
    answer: impl FnOnce(T) -> Response<Vec<u8>>,
) -> Response<Vec<u8>> {
    match result {
        Ok(Ok(result)) => answer(result),
        Ok(Err(no_target)) => text(StatusCode::NOT_FOUND, &format!("{no_target}\n")),
        Err(closed) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{closed}\n")),
    }
}

/// What a query string says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    upstream: Option<String>,
    server: Option<String>,
    spread: Option<Duration>,
    timeout: Option<Duration>,
    /// `Some(None)`: as the file says.
    state: Option<Option<State>>,
}

impl Asked {
    fn parse(query: &str, known: &[&str]) -> Result<Self, String> {
        let mut asked = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&&*key) {
                return Err(format!("{key:?} is unknown; known here: {}", known.join(", ")));
            }
            match &*key {
                "upstream" => asked.upstream = Some(value.into_owned()),
                "server" => asked.server = Some(value.into_owned()),
                "spread" => asked.spread = Some(time(&key, &value)?),
                "timeout" => asked.timeout = Some(time(&key, &value)?),
                _ => {
                    asked.state = Some(match &*value {
                        "ready" => Some(State::Ready),
                        "drain" => Some(State::Drain),
                        "maint" => Some(State::Maint),
                        "file" => None,
                        _ => return Err(format!("state: {value:?} is wrong; write ready, drain, maint or file")),
                    });
                }
            }
        }
        Ok(asked)
    }

    fn target(self) -> Result<Target, String> {
        match (self.upstream, self.server) {
            (None, None) => Ok(Target::Process),
            (Some(upstream), None) => Ok(Target::Upstream(upstream)),
            (Some(upstream), Some(server)) => Ok(Target::Server(ServerOf { upstream, server })),
            (None, Some(_)) => Err("upstream is missing; a server is one of an upstream".to_owned()),
        }
    }
}

/// As in the configuration file, up to a day.
fn time(key: &str, value: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(86_400);
    duration_within(value, &(Duration::ZERO..=MOST)).map_err(|mistake| format!("{key}: {mistake}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_what_is_to_be_drained() {
        #[track_caller]
        fn check(query: &str, expected: Result<Target, &str>) {
            let target = Asked::parse(query, &["upstream", "server", "spread", "timeout"]).and_then(Asked::target);
            match (target, expected) {
                (Ok(target), Ok(expected)) => assert_eq!(target, expected, "{query}"),
                (Err(mistake), Err(part)) => assert!(mistake.contains(part), "{query}: {mistake}"),
                (target, _) => panic!("{query}: {target:?}"),
            }
        }

        let server = ServerOf { upstream: "chat".into(), server: "b 1".into() };
        check("", Ok(Target::Process));
        check("upstream=chat", Ok(Target::Upstream("chat".into())));
        check("upstream=chat&server=b+1&spread=250ms", Ok(Target::Server(server)));
        check("server=b", Err("upstream is missing"));
        check("upstreem=chat", Err("unknown; known here: upstream, server"));
        check("spread=soon", Err("spread: "));
        check("timeout=90d", Err("timeout: "));
    }
}

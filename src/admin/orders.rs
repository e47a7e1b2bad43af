//! What changes something: drains, states, weights, reloads, and relays that move to where they belong.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Answer, as_json, problem, with_members, with_status, wrong};
use super::body::{DrainOf, RebalanceOf, StateOf, UndrainOf, WeightOf};
use super::status::{self, Drain};
use crate::command::{Closed, Desk, NoTarget, Plan, ServerOf, Target};

/// Begins to drain what is named.
pub(super) async fn drain(desk: &Desk, asked: DrainOf) -> Answer {
    let pace = asked.pace();
    match asked.target() {
        Ok(target) => done(desk.drain(target, pace).await, |progress| as_json(&Drain::of(&progress))),
        Err(mistake) => wrong(mistake),
    }
}

/// Lets those stay that have not left.
pub(super) async fn undrain(desk: &Desk, asked: UndrainOf) -> Answer {
    match asked.target() {
        Ok(target) => done(desk.undrain(target.clone()).await, |()| as_json(&named(&target))),
        Err(mistake) => wrong(mistake),
    }
}

/// Puts a server in a state.
pub(super) async fn state(desk: &Desk, asked: StateOf) -> Answer {
    let (server, state) = asked.split();
    let ServerOf { upstream, server: name } = server.clone();
    let word = state.map_or("file", status::state);
    done(desk.state(server, state).await, |()| as_json(&json!({ "upstream": upstream, "server": name, "state": word })))
}

/// Gives a server a weight.
pub(super) async fn weight(desk: &Desk, asked: WeightOf) -> Answer {
    let (server, weight) = asked.split();
    let ServerOf { upstream, server: name } = server.clone();
    let word = weight.map_or(json!("file"), |weight| json!(weight));
    done(desk.weight(server, weight).await, |()| {
        as_json(&json!({ "upstream": upstream, "server": name, "weight": word }))
    })
}

/// Reads the configuration file again.
pub(super) async fn reload(desk: &Desk) -> Answer {
    match desk.reload().await {
        Ok(Ok(changes)) => as_json(&json!({ "changes": changes })),
        Ok(Err(why)) => {
            let mistakes: Vec<_> = why.lines().collect();
            let detail = "the configuration is refused, so nothing has changed; mistakes has a line for each reason";
            with_members(StatusCode::UNPROCESSABLE_ENTITY, detail, json!({ "mistakes": mistakes }))
        }
        Err(closed) => unavailable(closed),
    }
}

/// What would move in an upstream if it were rebalanced now.
pub(super) async fn plan(desk: &Desk, query: &str) -> Answer {
    let mut upstream = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "upstream" if upstream.is_none() => upstream = Some(value.into_owned()),
            "upstream" => return wrong("upstream is there twice; write the name of one"),
            _ => return wrong(&format!("{key:?} is unknown; known here: upstream")),
        }
    }
    match upstream {
        Some(upstream) => done(desk.plan(upstream).await, |plan| as_json(&shown(&plan))),
        None => wrong("upstream is missing; write the name of one"),
    }
}

/// Has relays of an upstream move to where they belong, or no more.
pub(super) async fn rebalance(desk: &Desk, asked: RebalanceOf) -> Answer {
    let moves = asked.moves();
    done(desk.rebalance(asked.upstream, moves).await, |plan| with_status(StatusCode::ACCEPTED, &shown(&plan)))
}

fn shown(plan: &Plan) -> Value {
    let moves = plan.moves.iter().map(|(from, to, count)| json!({ "from": from, "to": to, "relays": count }));
    json!({
        "upstream": plan.upstream,
        "relays": plan.relays,
        "strays": plan.strays,
        "percent_per_minute": plan.per_minute,
        "by": plan.per_minute.map(|_| status::by(plan.is_ordered)),
        "moves": moves.collect::<Vec<_>>(),
    })
}

fn named(target: &Target) -> Value {
    let (upstream, server) = status::names(target);
    json!({ "upstream": upstream, "server": server })
}

fn done<T>(result: Result<Result<T, NoTarget>, Closed>, answer: impl FnOnce(T) -> Answer) -> Answer {
    match result {
        Ok(Ok(result)) => answer(result),
        Ok(Err(no_target)) => {
            with_members(StatusCode::NOT_FOUND, &no_target.to_string(), json!({ "known": no_target.known }))
        }
        Err(closed) => unavailable(closed),
    }
}

fn unavailable(closed: Closed) -> Answer {
    problem(StatusCode::SERVICE_UNAVAILABLE, &closed.to_string())
}

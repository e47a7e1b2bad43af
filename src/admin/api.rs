//! What is asked below [`ROOT`]: which resources there are, by which methods, and who answers.

use http::{Method, StatusCode};
use pingora::protocols::http::ServerSession;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::{Answer, as_json, not_allowed, problem, refused};
use super::body::{self, Unfit};
use super::live::WATCHERS_MAX;
use super::status::{Drain, Status};
use super::{Admin, explain, guard, in_force, orders, relays};
use crate::command::Desk;

/// What every path of the API begins with. Another version will have another one.
pub const ROOT: &str = "/api/v1/";

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource<'a> {
    Status,
    Live,
    Relays,
    Relay(&'a str),
    Drains,
    Explain,
    Config,
    Rebalance,
    Drain,
    Undrain,
    State,
    Weight,
    Reload,
}

/// Their names, in the order in which people are told.
const NAMES: &str = "status, live, relays, relays/ID, drains, explain, config, rebalance, drain, undrain, state, weight, \
                     reload";

impl<'a> Resource<'a> {
    /// What is at this path, behind [`ROOT`].
    fn at(path: &'a str) -> Option<Self> {
        Some(match path {
            "status" => Self::Status,
            "live" => Self::Live,
            "relays" => Self::Relays,
            "drains" => Self::Drains,
            "explain" => Self::Explain,
            "config" => Self::Config,
            "rebalance" => Self::Rebalance,
            "drain" => Self::Drain,
            "undrain" => Self::Undrain,
            "state" => Self::State,
            "weight" => Self::Weight,
            "reload" => Self::Reload,
            _ => Self::Relay(path.strip_prefix("relays/")?),
        })
    }

    /// By which methods it is asked.
    fn methods(self) -> &'static str {
        match self {
            Self::Status | Self::Live | Self::Relays | Self::Drains | Self::Explain | Self::Config => "GET, HEAD",
            Self::Relay(_) => "GET, HEAD, DELETE",
            Self::Rebalance => "GET, HEAD, POST",
            Self::Drain | Self::Undrain | Self::State | Self::Weight | Self::Reload => "POST",
        }
    }
}

/// How a request is answered.
pub(super) enum Reply {
    Whole(Answer),
    /// By a stream of events.
    Live(OwnedSemaphorePermit),
}

/// Answers the request for `path`, which stands behind [`ROOT`]. Who may ask has been seen to, but for changes.
pub(super) async fn reply(admin: &Admin, request: &mut ServerSession, path: &str, query: &str) -> Reply {
    let Some(resource) = Resource::at(path) else {
        let detail = format!("there is no {path:?} here; below {ROOT} there are {NAMES}");
        return Reply::Whole(problem(StatusCode::NOT_FOUND, &detail));
    };
    let method = request.req_header().method.clone();
    let is_reading = method == Method::GET || method == Method::HEAD;
    let methods = resource.methods();
    let is_allowed = methods.split(", ").any(|allowed| method == allowed);
    if !is_allowed {
        return Reply::Whole(not_allowed(methods));
    }
    if resource == Resource::Live {
        return match admin.live.seat() {
            Some(seat) => Reply::Live(seat),
            None => {
                let detail = format!("{WATCHERS_MAX} watch already; try again when one has left");
                Reply::Whole(problem(StatusCode::SERVICE_UNAVAILABLE, &detail))
            }
        };
    }
    Reply::Whole(if is_reading { read(admin, resource, query).await } else { change(admin, request, resource).await })
}

async fn read(admin: &Admin, resource: Resource<'_>, query: &str) -> Answer {
    match resource {
        Resource::Relays => relays::list(&admin.workers, query).await,
        Resource::Relay(id) => relays::one(&admin.workers, id).await,
        Resource::Drains => as_json(&admin.desk.drains().iter().map(Drain::of).collect::<Vec<_>>()),
        Resource::Explain => explain::explain(&admin.service, query).await,
        Resource::Rebalance => orders::plan(&admin.desk, query).await,
        Resource::Config => match admin.process.in_force() {
            Some(it) => as_json(&in_force::shown(&it.config.written.0)),
            None => problem(StatusCode::SERVICE_UNAVAILABLE, "the process is starting"),
        },
        _ => as_json(&Status::of(admin)),
    }
}

async fn change(admin: &Admin, request: &mut ServerSession, resource: Resource<'_>) -> Answer {
    if let Resource::Relay(id) = resource {
        // A page in a browser on this machine can send a POST here, but no DELETE, for which it would have to ask.
        return relays::end(&admin.workers, id).await;
    }
    match guard::judge_change(&request.req_header().headers) {
        Ok(()) => order(&admin.desk, request, resource).await.unwrap_or_else(|unfit| unfit.answer()),
        Err(refusal) => refused(refusal),
    }
}

async fn order(desk: &Desk, request: &mut ServerSession, resource: Resource<'_>) -> Result<Answer, Unfit> {
    Ok(match resource {
        Resource::Drain => orders::drain(desk, body::read(request).await?).await,
        Resource::Undrain => orders::undrain(desk, body::read(request).await?).await,
        Resource::State => orders::state(desk, body::read(request).await?).await,
        Resource::Weight => orders::weight(desk, body::read(request).await?).await,
        Resource::Rebalance => orders::rebalance(desk, body::read(request).await?).await,
        _ => {
            body::read_nothing(request).await?;
            orders::reload(desk).await
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_resource() {
        for (path, expected) in [
            ("status", Some(Resource::Status)),
            ("relays", Some(Resource::Relays)),
            ("relays/7", Some(Resource::Relay("7"))),
            ("relays/", Some(Resource::Relay(""))),
            ("relays/1/2", Some(Resource::Relay("1/2"))),
            ("", None),
            ("status/", None),
            ("Status", None),
            ("relay", None),
        ] {
            assert_eq!(Resource::at(path), expected, "{path:?}");
        }
        for name in NAMES.split(", ") {
            assert!(Resource::at(name).is_some(), "{name}");
        }
    }
}

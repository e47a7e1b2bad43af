//! `steadfast explain`: what would become of a request, and why, without sending it: by the configuration
//! file alone, or by what the running proxy knows.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use http::request::Parts;

use super::ask::Proxy;
use super::say::say;
use super::{Done, FAILED, WRONG, load};
use crate::affinity::tag::Secret;
use crate::config::Config;
use crate::exchange::explanation::{Explanation, Scene};
use crate::observe::metrics::Metrics;
use crate::session_store::SessionStore;
use crate::upstream::discovery::{Discoveries, Findings};
use crate::upstream::{Servers, Upstream};

/// The request to explain.
#[derive(Debug, clap::Args)]
pub(super) struct Request {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Ask the running proxy, which knows who is up, what is drained and which sessions it has learned
    #[arg(long)]
    live: bool,
    /// The method of the request
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header field of the request, as curl takes it; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    fields: Vec<String>,
    /// The address of the previous hop
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    from: IpAddr,
    /// Path and query of the request
    #[arg(value_name = "TARGET", default_value = "/")]
    target: String,
}

/// Says route, affinity and servers in order.
pub(super) fn explain(request: &Request) -> Done {
    let parts = parse(request).map_err(|problem| {
        eprintln!("steadfast: {problem}");
        ExitCode::from(WRONG)
    })?;
    let explanation = if request.live { ask(request)? } else { reckon(&load(&request.config)?, &parts, request.from)? };
    say(explanation)
}

fn parse(request: &Request) -> Result<Parts, String> {
    let mut builder = http::Request::builder().method(&*request.method).uri(&request.target);
    for field in &request.fields {
        let (name, value) =
            field.split_once(':').ok_or_else(|| format!("-H {field:?} has no colon; write it as 'Name: value'"))?;
        builder = builder.header(name.trim(), value.trim());
    }
    let request = builder.body(()).map_err(|error| format!("that is no request: {error}"))?;
    Ok(request.into_parts().0)
}

/// By what the running proxy knows.
fn ask(request: &Request) -> Result<Explanation, ExitCode> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("method", &request.method).append_pair("path", &request.target);
    query.append_pair("client", &request.from.to_string());
    query.extend_pairs(request.fields.iter().map(|field| ("header", field)));
    Proxy::of(&request.config)?.get(&format!("explain?{}", query.finish()))
}

/// By the file alone.
fn reckon(config: &Config, request: &Parts, previous_hop: IpAddr) -> Result<Explanation, ExitCode> {
    let metrics = Metrics::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        eprintln!("steadfast: {error}");
        ExitCode::from(FAILED)
    })?;
    let found = runtime.block_on(found(config, &metrics));
    let secret = config.affinity_secret.clone().unwrap_or_else(|| Secret::new(b""));
    let upstreams = Upstream::all(config, &found, &secret, &metrics, &Servers::default(), &[]);
    let scene = Scene {
        routes: &config.routes,
        upstreams: &upstreams,
        trusted: &config.trusted_proxies,
        secret: config.affinity_secret.as_ref(),
        sessions: &SessionStore::new(&config.session_store, &metrics),
        knows_sessions: config.session_store.redis.is_some(),
    };
    Ok(runtime.block_on(Explanation::of(scene, request, previous_hop)))
}

/// The servers that have to be asked for, as far as they are found soon.
async fn found(config: &Config, metrics: &Metrics) -> Findings {
    const WITHIN: Duration = Duration::from_secs(5);
    let discoveries = Discoveries::start(config, None, metrics);
    discoveries.first_answers(WITHIN).await;
    discoveries.findings().borrow().clone()
}

//! `steadfast drain` and `undrain`: empty a server, an upstream or the whole proxy, or let who is there
//! stay.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::ask::Proxy;
use super::say::say;
use super::{Done, FAILED};
use crate::admin::status;

/// What to empty.
#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The configuration file of the running proxy
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The upstream; without one it is all of them, and /readyz answers 503
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Its server, which gets nobody new; without one it is all of them, and whoever comes back stays
    #[arg(long, value_name = "NAME", requires = "upstream")]
    server: Option<String>,
}

/// What to empty, and how fast.
#[derive(Debug, clap::Args)]
pub(super) struct Drain {
    #[command(flatten)]
    target: Target,
    /// Over what time ends are spread, such as 30s; as the file says if not given
    #[arg(long, value_name = "TIME")]
    spread: Option<String>,
    /// How long it may take in all, such as 60s; as the file says if not given
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// Wait until it is over, and tell how far it has got every second
    #[arg(long)]
    wait: bool,
}

/// Asks for it, and follows it if that is wanted.
pub(super) fn drain(drain: &Drain) -> Done {
    let Target { config, upstream, server } = &drain.target;
    let proxy = Proxy::of(config)?;
    let order = json!({ "upstream": upstream, "server": server, "spread": drain.spread, "timeout": drain.timeout });
    let mut progress: status::Drain = proxy.post("drain", &order)?;
    say(format_args!("{}\n", shown(&progress)))?;
    while drain.wait && !progress.is_over {
        std::thread::sleep(Duration::from_secs(1));
        let drains: Vec<status::Drain> = proxy.get("drains")?;
        let is_it = |it: &status::Drain| it.upstream == *upstream && it.server == *server;
        let Some(now) = drains.into_iter().find(is_it) else {
            eprintln!("steadfast: somebody has undone it");
            return Err(ExitCode::from(FAILED));
        };
        progress = now;
        say(format_args!("{}\n", shown(&progress)))?;
    }
    Ok(())
}

/// Lets those stay that have not left, and in whoever comes.
pub(super) fn undrain(target: &Target) -> Done {
    let Target { config, upstream, server } = target;
    let _: Value = Proxy::of(config)?.post("undrain", &json!({ "upstream": upstream, "server": server }))?;
    say("it is drained no more\n")
}

/// How far a drain has got.
pub(super) fn shown(drain: &status::Drain) -> String {
    let state = if drain.is_over { "over" } else { "goes on" };
    format!(
        "{:.0}s of {:.0}s: {} of {} connections open, {state}",
        drain.elapsed_seconds, drain.timeout_seconds, drain.open, drain.open_before
    )
}

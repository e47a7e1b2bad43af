//! `steadfast status`: how the running proxy is, for people.

use std::path::PathBuf;
use std::time::Duration;

use super::Done;
use super::ask::Proxy;
use super::drain;
use super::say::say;
use super::table::{table, time};
use crate::admin::status::{Drain, Process, Server, Status, Upstream};
use crate::relay::Kind;

/// How it is to be told.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// The configuration file of the running proxy
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Print what the API answers
    #[arg(long)]
    json: bool,
    /// Tell it anew every second, until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// Asks, and tells.
pub(super) fn status(asked: &Asked) -> Done {
    let proxy = Proxy::of(&asked.config)?;
    if asked.json {
        let status: serde_json::Value = proxy.get("status")?;
        return say(format_args!("{status}\n"));
    }
    loop {
        let status: Status = proxy.get("status")?;
        let to_top = if asked.watch { "\x1b[H\x1b[2J" } else { "" }; // Of an empty screen.
        say(to_top.to_owned() + &shown(&status))?;
        if !asked.watch {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn shown(status: &Status) -> String {
    let mut text = first_lines(status);
    for upstream in &status.upstreams {
        text.push('\n');
        text.push_str(&of_upstream(upstream));
    }
    if !status.findings.is_empty() {
        text.push_str("\nthe affinity doctor says\n");
    }
    for finding in &status.findings {
        text.push_str(&format!("  upstream {}: {}: {}\n", finding.upstream, finding.kind, finding.sentence));
    }
    if !status.drains.is_empty() {
        text.push_str("\ndrains\n");
    }
    for it in &status.drains {
        text.push_str(&format!("  {}: {}\n", target(it), drain::shown(it)));
    }
    text
}

fn first_lines(status: &Status) -> String {
    let Process { version, pid, state, uptime_seconds, last_reload, .. } = &status.process;
    let reload = last_reload.as_ref().map(|it| format!(", last reload {}: {}", it.at, it.result)).unwrap_or_default();
    let addresses: Vec<_> = status.listeners.iter().map(|listener| listener.address.as_str()).collect();
    format!(
        "steadfast {version}, process {pid}: {state}, up for {}{reload}\nlistening on {}; {} connections of clients\n",
        time(*uptime_seconds),
        addresses.join(", "),
        status.client_connections
    )
}

fn of_upstream(upstream: &Upstream) -> String {
    let mut text = format!("upstream {}\n", upstream.name);
    let mut head = vec!["SERVER", "STATE", "HEALTH", ">WEIGHT"];
    let kinds = Kind::ALL.map(|kind| (kind.label(), format!(">{}", kind.label().to_uppercase())));
    head.extend(kinds.iter().map(|(_, name)| name.as_str()));
    head.extend([">SHARE", ">IDEAL", ""]);
    let row = |server: &Server| {
        let open = kinds.iter().map(|(kind, _)| server.open.get(*kind).copied().unwrap_or_default().to_string());
        let mut row = vec![server.name.clone(), state(server), health(server), weight(server)];
        row.extend(open);
        row.extend([percent(server.share), percent(server.ideal_share), bar(server.share, server.ideal_share)]);
        row
    };
    text.push_str(&table("  ", &head, &upstream.servers.iter().map(row).collect::<Vec<_>>()));
    for discovery in upstream.discoveries.iter().filter(|discovery| discovery.is_failing) {
        text.push_str(&format!("  {} has no good answer at the moment; its servers stay\n", discovery.name));
    }
    if let Some(rebalance) = upstream.rebalance.as_ref().filter(|rebalance| rebalance.strays > 0) {
        let (strays, pace) = (rebalance.strays, rebalance.percent_per_minute);
        text.push_str(&format!("  {strays} relays are elsewhere than they belong; {pace} % of all move in a minute\n"));
    }
    if upstream.lost_sessions > 0 {
        text.push_str(&format!("  {} requests of sessions whose server was gone\n", upstream.lost_sessions));
    }
    text
}

fn state(server: &Server) -> String {
    let by = if server.state_by == "file" { "" } else { ", by order" };
    format!("{}{by}", server.state)
}

fn weight(server: &Server) -> String {
    let by = if server.weight_by == "file" { "" } else { ", by order" };
    format!("{}{by}", server.weight)
}

fn health(server: &Server) -> String {
    let (since, health) = (time(server.health.since_seconds), &server.health);
    match (server.is_up, server.slow_start, &health.reason) {
        (true, Some(part), _) => format!("up {since}, warming up: {} %", (part * 100.0).round()),
        (true, None, _) => format!("up {since}"),
        (false, _, Some(reason)) => format!("DOWN {since}: {reason}"),
        (false, _, None) => format!("DOWN {since}"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// How many characters a bar has.
const BAR: usize = 20;

/// The share as so many `#`, and a `|` where it should end.
fn bar(share: f64, ideal: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "0 to 20")]
    let place = |part: f64| (part.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    let (share, ideal) = (place(share), place(ideal));
    let at = |place: usize| match place {
        place if place == ideal => '|',
        place if place < share => '#',
        _ => '.',
    };
    (0..=BAR).map(at).collect()
}

fn target(drain: &Drain) -> String {
    match (&drain.upstream, &drain.server) {
        (Some(upstream), Some(server)) => format!("server {server} of upstream {upstream}"),
        (Some(upstream), None) => format!("upstream {upstream}"),
        (None, _) => "the process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_a_share_and_where_it_should_end() {
        for (share, ideal, expected) in [
            (0.0, 0.0, "|...................."),
            (0.5, 0.5, "##########|.........."),
            (0.25, 0.75, "#####..........|....."),
            (1.0, 0.5, "##########|#########."),
            (1.0, 1.0, "####################|"),
            (7.0, -1.0, "|###################."),
        ] {
            assert_eq!(bar(share, ideal), expected);
        }
    }
}

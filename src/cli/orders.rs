//! `steadfast state`, `weight` and `rebalance`: what a server gets, and relays that are with another one
//! than theirs.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Done;
use super::ask::Proxy;
use super::say::say;

/// A server of the running proxy.
#[derive(Debug, clap::Args)]
struct Server {
    /// The configuration file of the running proxy
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Its upstream
    #[arg(long, value_name = "NAME")]
    upstream: String,
    /// Its name
    #[arg(long, value_name = "NAME")]
    server: String,
}

/// What a server may get.
#[derive(Debug, clap::Args)]
pub(super) struct State {
    #[command(flatten)]
    of: Server,
    /// Everybody, only the sessions that it holds, nobody, or what the file says
    #[arg(value_parser = ["ready", "drain", "maint", "file"])]
    state: String,
}

/// What part of the clients a server gets.
#[derive(Debug, clap::Args)]
pub(super) struct Weight {
    #[command(flatten)]
    of: Server,
    /// From 1 to 256, or file for what the file says
    #[arg(value_parser = weight_of)]
    weight: Value,
}

/// Which relays are to move.
#[derive(Debug, clap::Args)]
pub(super) struct Rebalance {
    /// The configuration file of the running proxy
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// The upstream
    #[arg(long, value_name = "NAME")]
    upstream: String,
    /// Have them move, until all are where they belong
    #[arg(long, conflicts_with = "stop")]
    start: bool,
    /// Percent of all relays that move in a minute, from 1 to 100; as the file says if not given
    #[arg(long, value_name = "PERCENT", requires = "start", value_parser = clap::value_parser!(u32).range(1..=100))]
    per_minute: Option<u32>,
    /// Stop what was started so
    #[arg(long)]
    stop: bool,
}

/// Puts a server in a state.
pub(super) fn state(State { of, state }: &State) -> Done {
    let order = json!({ "upstream": of.upstream, "server": of.server, "state": state });
    let _: Value = Proxy::of(&of.config)?.post("state", &order)?;
    say(format_args!("server {} of upstream {}: state {}\n", of.server, of.upstream, as_written(state)))
}

/// Gives a server a weight.
pub(super) fn weight(Weight { of, weight }: &Weight) -> Done {
    let order = json!({ "upstream": of.upstream, "server": of.server, "weight": weight });
    let _: Value = Proxy::of(&of.config)?.post("weight", &order)?;
    let weight = weight.as_str().map_or_else(|| weight.to_string(), as_written);
    say(format_args!("server {} of upstream {}: weight {weight}\n", of.server, of.upstream))
}

/// Says what is not where it belongs, and has it move if that is wanted.
pub(super) fn rebalance(rebalance: &Rebalance) -> Done {
    let (proxy, upstream) = (Proxy::of(&rebalance.config)?, &rebalance.upstream);
    let per_minute = if rebalance.stop { json!("off") } else { json!(rebalance.per_minute) };
    let plan: Value = if rebalance.start || rebalance.stop {
        proxy.post("rebalance", &json!({ "upstream": upstream, "per_minute": per_minute }))?
    } else {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("upstream", upstream).finish();
        proxy.get(&format!("rebalance?{query}"))?
    };
    say(shown(&plan))
}

fn shown(plan: &Value) -> String {
    let pace = match plan["percent_per_minute"].as_u64() {
        None => "they stay there".to_owned(),
        Some(percent) if plan["by"] == "file" => format!("{percent} % of all move in a minute, as the file says"),
        Some(percent) => format!("{percent} % of all move in a minute, until none is left"),
    };
    let mut text = format!("{} of {} relays are elsewhere than they belong; {pace}\n", plan["strays"], plan["relays"]);
    for it in plan["moves"].as_array().into_iter().flatten() {
        let name = |key: &str| it[key].as_str().unwrap_or("any other").to_owned();
        text.push_str(&format!("  {} -> {}: {}\n", name("from"), name("to"), it["relays"]));
    }
    text
}

fn as_written(word: &str) -> String {
    if word == "file" { "as the file says" } else { word }.to_owned()
}

fn weight_of(text: &str) -> Result<Value, String> {
    match text.parse::<u32>() {
        Ok(weight @ 1..=256) => Ok(weight.into()),
        _ if text == "file" => Ok(text.into()),
        _ => Err("write a number from 1 to 256, or file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_or_a_word() {
        assert_eq!(
            (weight_of("1"), weight_of("256"), weight_of("file")),
            (Ok(1.into()), Ok(256.into()), Ok("file".into()))
        );
        for text in ["0", "257", "-1", "", "off"] {
            assert!(weight_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_plan_is_told_in_words() {
        let mut plan = json!({
            "relays": 10, "strays": 3, "percent_per_minute": null, "by": null,
            "moves": [{ "from": "a", "to": "b", "relays": 2 }, { "from": "a", "to": null, "relays": 1 }],
        });
        assert_eq!(
            shown(&plan),
            "3 of 10 relays are elsewhere than they belong; they stay there\n  a -> b: 2\n  a -> any other: 1\n"
        );
        plan["percent_per_minute"] = 5.into();
        for (by, part) in
            [("file", "5 % of all move in a minute, as the file says"), ("operator", "until none is left")]
        {
            plan["by"] = by.into();
            assert!(shown(&plan).contains(part), "{by}");
        }
    }
}

//! `steadfast relays`: the connections that stay, and the end of one.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::Done;
use super::ask::Proxy;
use super::say::say;
use super::table::{table, time};

/// Which of them.
#[derive(Debug, clap::Args)]
pub(super) struct Relays {
    /// The configuration file of the running proxy
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Only of this upstream
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only with the server of this name
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Only of this kind
    #[arg(long, value_parser = ["websocket", "tunnel", "sse"])]
    kind: Option<String>,
    /// Only of this client
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// Only those that are as old as this, such as 5m
    #[arg(long, value_name = "TIME")]
    min_age: Option<String>,
    /// The oldest first, and not the newest
    #[arg(long)]
    oldest: bool,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print what the API answers: one page, of 1000 at most
    #[arg(long)]
    json: bool,
    /// End the one of this id instead
    #[arg(long, value_name = "ID")]
    end: Option<u64>,
}

/// The longest page of the API.
const PAGE_MAX: usize = crate::relay::inbox::Query::LIMIT_MAX;

/// Lists them, or ends one.
pub(super) fn relays(relays: &Relays) -> Done {
    let proxy = Proxy::of(&relays.config)?;
    if let Some(id) = relays.end {
        let _: Value = proxy.delete(&format!("relays/{id}"))?;
        return say(format_args!("relay {id} is told to end\n"));
    }
    let (mut rows, mut after, mut page) = (Vec::new(), None, Value::Null);
    let limit = usize::try_from(relays.limit).unwrap_or(usize::MAX);
    while rows.len() < limit {
        page = proxy.get(&format!("relays?{}", relays.query(limit - rows.len(), after)))?;
        if relays.json {
            return say(format_args!("{page}\n"));
        }
        rows.extend(page["relays"].as_array().into_iter().flatten().map(row));
        after = page["next"].as_u64();
        if after.is_none() {
            break;
        }
    }
    const HEAD: [&str; 9] =
        [">ID", "KIND", "UPSTREAM", "SERVER", "CLIENT", ">AGE", ">SILENT", ">BYTES IN", ">BYTES OUT"];
    let count = page["count"].as_u64().unwrap_or_default();
    say(format_args!("{}{} of {count}\n", table("", &HEAD, &rows), rows.len()))?;
    if page["complete"] == false {
        eprintln!("steadfast: not every worker has answered in time, so some are missing");
    }
    Ok(())
}

impl Relays {
    fn query(&self, left: usize, after: Option<u64>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let client = self.client.map(|client| client.to_string());
        let fields = [
            ("upstream", &self.upstream),
            ("server", &self.server),
            ("kind", &self.kind),
            ("client", &client),
            ("min_age", &self.min_age),
            ("after", &after.map(|after| after.to_string())),
            ("first", &self.oldest.then(|| "oldest".to_owned())),
        ];
        for (key, value) in fields {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        query.append_pair("limit", &left.min(PAGE_MAX).to_string()).finish()
    }
}

fn row(relay: &Value) -> Vec<String> {
    let text = |key: &str| relay[key].as_str().unwrap_or("-").to_owned();
    let milliseconds = |key: &str| time(relay[key].as_f64().unwrap_or_default() / 1000.0);
    vec![
        relay["id"].to_string(),
        text("kind"),
        text("upstream"),
        text("server"),
        text("client"),
        milliseconds("age_ms"),
        milliseconds("idle_ms"),
        relay["bytes_in"].to_string(),
        relay["bytes_out"].to_string(),
    ]
}

//! `steadfast drain` and `undrain`: empty a server, an upstream or the whole proxy, or let who is there
//! stay.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::ask::{Answer, ask};
use super::{Done, FAILED, WRONG};

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
    let mut query = drain.target.query();
    for (key, value) in [("spread", &drain.spread), ("timeout", &drain.timeout)] {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    let answer = ask(&drain.target.config, "POST", &format!("/drain?{}", query.finish()))?;
    let mut progress = read(&said(answer)?)?;
    println!("{}", shown(&progress));
    while drain.wait && progress["is_over"] != true {
        std::thread::sleep(Duration::from_secs(1));
        let drains = read(&said(ask(&drain.target.config, "GET", "/drains")?)?)?;
        let name = |key: &str| (progress[key].clone(), key.to_owned());
        let (upstream, server) = (name("upstream"), name("server"));
        let is_it = |it: &&Value| it[&upstream.1] == upstream.0 && it[&server.1] == server.0;
        let Some(now) = drains.as_array().and_then(|drains| drains.iter().find(is_it)).cloned() else {
            eprintln!("steadfast: somebody has undone it");
            return Err(ExitCode::from(FAILED));
        };
        progress = now;
        println!("{}", shown(&progress));
    }
    Ok(())
}

/// Lets those stay that have not left, and in whoever comes.
pub(super) fn undrain(target: &Target) -> Done {
    let answer = ask(&target.config, "POST", &format!("/undrain?{}", target.query().finish()))?;
    print!("{}", said(answer)?);
    Ok(())
}

impl Target {
    fn query(&self) -> form_urlencoded::Serializer<'static, String> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (key, name) in [("upstream", &self.upstream), ("server", &self.server)] {
            if let Some(name) = name {
                query.append_pair(key, name);
            }
        }
        query
    }
}

/// The body of an answer that says yes; of another one it tells.
fn said(Answer { status, body }: Answer) -> Result<String, ExitCode> {
    if status == 200 {
        return Ok(body);
    }
    eprint!("steadfast: it answers {status}: {body}");
    Err(ExitCode::from(if status == 400 { WRONG } else { FAILED }))
}

fn read(body: &str) -> Result<Value, ExitCode> {
    serde_json::from_str(body).map_err(|error| {
        eprintln!("steadfast: it answers what makes no sense: {error}");
        ExitCode::from(FAILED)
    })
}

fn shown(progress: &Value) -> String {
    let number = |key: &str| progress[key].as_f64().unwrap_or_default();
    let state = if progress["is_over"] == true { "over" } else { "goes on" };
    format!(
        "{:.0}s of {:.0}s: {} of {} connections open, {state}",
        number("elapsed_seconds"),
        number("timeout_seconds"),
        progress["open"],
        progress["open_before"]
    )
}

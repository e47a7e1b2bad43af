//! `steadfast reload`: has the running proxy read its configuration file again, and says what that
//! has changed.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::ask::Proxy;
use super::say::say;
use super::{Done, WRONG};
use crate::admin::api::ROOT;

/// Asks the admin address for it. The file is checked here as well, before anybody is asked.
pub(super) fn reload(config: &Path) -> Done {
    let proxy = Proxy::of(config)?;
    let answer = proxy.ask("POST", &format!("{ROOT}reload"), Some(&json!({})))?;
    let lines = |value: &Value, key: &str| {
        let lines = value[key].as_array().cloned().unwrap_or_default();
        lines.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    if answer.status == 422 {
        let problem: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        eprintln!("refused, nothing has changed:\n{}", lines(&problem, "mistakes").join("\n"));
        return Err(ExitCode::from(WRONG));
    }
    let changes = lines(&proxy.granted(answer)?, "changes");
    let told = if changes.is_empty() { "nothing has changed".to_owned() } else { changes.join("\n") };
    say(told + "\n")
}

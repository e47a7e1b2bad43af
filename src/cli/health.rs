//! Whether the proxy of a configuration file is up: for containers that have neither shell nor curl.

use std::path::Path;
use std::process::ExitCode;

use super::ask::ask;
use super::{Done, FAILED};

/// Asks the admin address for `/healthz`.
pub(super) fn health(config: &Path) -> Done {
    match ask(config, "GET", "/healthz")?.status {
        200 => Ok(()),
        status => {
            eprintln!("steadfast: not healthy: it answers {status}");
            Err(ExitCode::from(FAILED))
        }
    }
}

//! Whether the proxy of a configuration file is up: for containers that have neither shell nor curl.

use std::path::Path;
use std::process::ExitCode;

use super::ask::Proxy;
use super::{Done, FAILED};

/// Asks the admin address for `/healthz`.
pub(super) fn health(config: &Path) -> Done {
    match Proxy::of(config)?.ask("GET", "/healthz", None)?.status {
        200 => Ok(()),
        status => {
            eprintln!("steadfast: not healthy: it answers {status}");
            Err(ExitCode::from(FAILED))
        }
    }
}

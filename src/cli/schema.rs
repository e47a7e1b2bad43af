//! `steadfast schema`: what editors need to complete and check a configuration file.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{Done, FAILED};
use crate::config;

/// Prints the schema on standard output.
pub(super) fn schema() -> Done {
    let written = writeln!(io::stdout(), "{:#}", config::schema());
    written.map_err(|error| {
        eprintln!("steadfast: cannot write the schema: {error}");
        ExitCode::from(FAILED)
    })
}

//! `steadfast schema`: what editors need to complete and check a configuration file.

use super::Done;
use super::say::say;
use crate::config;

/// Prints the schema on standard output.
pub(super) fn schema() -> Done {
    say(format_args!("{:#}\n", config::schema()))
}

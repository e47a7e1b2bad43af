//! What commands print on the standard output.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use super::{Done, FAILED};

/// Prints `text`, a line or more of it. A reader who wants no more, as `head` does, ends the command, and
/// that is no failure.
pub(super) fn say(text: impl Display) -> Done {
    let mut output = io::stdout().lock();
    match write!(output, "{text}").and_then(|()| output.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("steadfast: cannot write to the standard output: {error}");
            Err(ExitCode::from(FAILED))
        }
    }
}

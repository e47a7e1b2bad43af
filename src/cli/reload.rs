//! `steadfast reload`: has the running proxy read its configuration file again, and says what that
//! has changed.

use std::path::Path;
use std::process::ExitCode;

use super::ask::ask;
use super::{Done, FAILED, WRONG};

/// Asks the admin address for it. The file is checked here as well, before anybody is asked.
pub(super) fn reload(config: &Path) -> Done {
    let answer = ask(config, "POST", "/reload")?;
    match answer.status {
        200 => {
            print!("{}", answer.body);
            Ok(())
        }
        422 => {
            eprint!("refused, nothing has changed:\n{}", answer.body);
            Err(ExitCode::from(WRONG))
        }
        status => {
            eprint!("steadfast: it answers {status}: {}", answer.body);
            Err(ExitCode::from(FAILED))
        }
    }
}

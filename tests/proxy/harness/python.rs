//! Real clients in Python: scripts in `tests/clients`, run with the packages that
//! `requirements.txt` there names.
//!
//! They are told and tell what the scripts of [`Node`](super::Node) do.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::process::Process;

/// A running script.
pub(crate) struct Python {
    process: Process,
}

impl Python {
    pub(crate) fn script(name: &str, argument: &Value) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let python = directory.join(".venv/bin/python");
        assert!(python.is_file(), "the real clients are missing; run tests/install.sh test");
        let mut command = Command::new(python);
        command.arg(directory.join(name)).arg(argument.to_string()).stdin(Stdio::piped());
        Self { process: Process::start(command) }
    }

    /// The value that the script prints under `key`. How long that takes is the test's to say.
    pub(crate) async fn says(&self, key: &str) -> Value {
        self.process.says(key).await
    }
}

//! A real name server, whose answers the test changes.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Python;

/// A running name server.
pub(crate) struct NameServer {
    zone: Value,
    directory: TempDir,
    _python: Python,
    port: u64,
}

impl NameServer {
    /// One that knows these addresses of `chat.test`.
    pub(crate) async fn start(addresses: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let zone = json!({ "mood": "well", "ttl": 0, "a": { "chat.test.": addresses }, "srv": {} });
        write(directory.path(), &zone);
        let file = directory.path().join("zone.json");
        let python = Python::script("name_server.py", &json!({ "file": file }));
        let port = python.says("port").await.as_u64().expect("a port");
        Self { zone, directory, _python: python, port }
    }

    /// The line of the proxy's file that has it ask here.
    pub(crate) fn resolver(&self) -> String {
        format!("resolver: {{ servers: [\"127.0.0.1:{}\"] }}", self.port)
    }

    /// From now on it answers so: `well`, `silent` or a response code.
    pub(crate) fn is(&mut self, mood: &str) {
        self.zone["mood"] = mood.into();
        write(self.directory.path(), &self.zone);
    }

    /// From now on this name has these addresses.
    pub(crate) fn has(&mut self, name: &str, addresses: &[&str]) {
        self.zone["a"][name] = json!(addresses);
        write(self.directory.path(), &self.zone);
    }

    /// From now on this name has these services: priority, weight, port and target of each.
    pub(crate) fn serves(&mut self, name: &str, services: &[(u16, u16, u16, &str)]) {
        self.zone["srv"][name] = json!(services);
        write(self.directory.path(), &self.zone);
    }
}

/// All at once: it is read at any time.
fn write(directory: &Path, zone: &Value) {
    let (new, file) = (directory.join("new.json"), directory.join("zone.json"));
    std::fs::write(&new, zone.to_string()).expect("the directory is ours");
    std::fs::rename(new, file).expect("the directory is ours");
}

//! A real browser without a window.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::{millis, soon};

/// A browser that shows one page; gone when dropped.
pub(crate) struct Chromium {
    child: Child,
    profile: TempDir,
}

impl Chromium {
    /// Opens `url`.
    pub(crate) fn open(url: &str) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(program());
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]);
        // Without somebody who might steer it, it would show the page and leave.
        // Tests vouch for themselves.
        command.arg("--ignore-certificate-errors");
        command.arg("--hide-scrollbars"); // Which are as wide as the machine's taste, and in every picture.
        command.arg("--remote-debugging-port=0").arg(format!("--user-data-dir={}", profile.path().display()));
        // Its many processes are a group of their own, and end together.
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let child = command.spawn().expect("the browser is there");
        Self { child, profile }
    }

    /// Where it listens for those who steer it: a WebSocket.
    pub(crate) async fn steered_at(&self) -> String {
        // Its port, and a path on the next line.
        let file = self.profile.path().join("DevToolsActivePort");
        let written = async {
            loop {
                match std::fs::read_to_string(&file).unwrap_or_default().split_once('\n') {
                    Some((port, path)) if !path.is_empty() => return format!("ws://127.0.0.1:{port}{}", path.trim()),
                    _ => tokio::time::sleep(millis(10)).await,
                }
            }
        };
        soon("the browser to listen", written).await
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Whoever has left already needs no signal.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The browser by whichever of its names.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
    let programs = names.iter().flat_map(|name| std::env::split_paths(&path).map(move |place| place.join(name)));
    let found = programs.into_iter().find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("no Chromium is installed: run tests/install.sh test"))
}

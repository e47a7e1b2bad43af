//! `steadfast run --supervise`: a parent for the proxy that stays the same while the proxy is replaced,
//! as process 1 of a container has to.
//!
//! It starts the proxy as its child, passes signals on, and reaps whatever becomes its child. When the
//! proxy has handed everything over to the next one and ended, it follows that one. It ends with the
//! last one, and with what that ended with. It listens on nothing, and has no connection.

use std::ffi::OsString;
use std::io;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, wait};
use tokio::signal::unix::{SignalKind, signal};

/// The flag that asks for it.
pub(super) const SUPERVISE: &str = "--supervise";

/// Runs this very command without the flag, for as long as there is a proxy.
pub(super) fn supervise() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(watch())) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("steadfast: cannot supervise: {error}");
            ExitCode::from(super::FAILED)
        }
    }
}

async fn watch() -> io::Result<ExitCode> {
    // Before the child is there, so that nothing it does is missed.
    let mut passed_on = [
        (Signal::TERM, signal(SignalKind::terminate())?),
        (Signal::INT, signal(SignalKind::interrupt())?),
        (Signal::HUP, signal(SignalKind::hangup())?),
        (Signal::USR2, signal(SignalKind::user_defined2())?),
    ];
    let mut children = signal(SignalKind::child())?;
    // Whoever the proxy leaves behind comes to us, also where we are not process 1.
    set_child_subreaper(Some(getpid()))?;
    let mut proxy = start()?;
    // What was passed on since the proxy was last asked to let the next one take over: it may have gone
    // to one that was just ending, and then the next one has to hear it.
    let mut unheard = Vec::new();
    loop {
        let [terminate, interrupt, hang_up, user_2] = &mut passed_on;
        let signal = tokio::select! {
            _ = children.recv() => None,
            _ = terminate.1.recv() => Some(terminate.0),
            _ = interrupt.1.recv() => Some(interrupt.0),
            _ = hang_up.1.recv() => Some(hang_up.0),
            _ = user_2.1.recv() => Some(user_2.0),
        };
        if let Some(signal) = signal {
            if signal == Signal::USR2 {
                unheard.clear();
            } else if !unheard.contains(&signal) {
                unheard.push(signal);
            }
            // It may have just ended: then that is told next.
            let _ = kill_process(proxy, signal);
        }
        while let Some((pid, status)) = reap()? {
            if pid != proxy {
                continue;
            }
            let Some(next) = successor()? else { return Ok(code(status)) };
            proxy = next;
            for signal in unheard.drain(..) {
                let _ = kill_process(proxy, signal);
            }
        }
    }
}

fn start() -> io::Result<Pid> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).filter(|argument| argument != SUPERVISE).collect();
    // By the name that it will look for when it is to be replaced.
    let name = std::env::args_os().next().map_or_else(std::env::current_exe, |name| Ok(name.into()))?;
    let child = Command::new(name).args(arguments).spawn()?;
    Ok(Pid::from_child(&child))
}

/// The next child that has ended.
fn reap() -> io::Result<Option<(Pid, WaitStatus)>> {
    match wait(WaitOptions::NOHANG) {
        Ok(reaped) => Ok(reaped),
        Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A child of ours that is a proxy as well: the one that has taken over.
fn successor() -> io::Result<Option<Pid>> {
    let name = std::fs::read("/proc/self/comm")?;
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // One that ends while we look is none.
        let is_same = std::fs::read(process.path().join("comm")).is_ok_and(|it| it == name);
        let status = std::fs::read_to_string(process.path().join("status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let is_alive = !status.lines().any(|line| line.starts_with("State:") && line.contains('Z'));
        let is_ours = parent.and_then(|it| it.trim().parse().ok()) == Some(getpid().as_raw_nonzero().get());
        if is_same && is_alive && is_ours {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// What a process that has ended so would make its shell say.
fn code(status: WaitStatus) -> ExitCode {
    const SIGNALLED: i32 = 128;
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

//! Child processes: started in a group of their own, weighed, and ended whatever happens.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A child process and all it starts: a process group, which ends when this is dropped.
pub(crate) struct Group {
    leader: Child,
}

impl Group {
    /// Starts `command` as the leader of a new group.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let leader = command.process_group(0).spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy();
            io::Error::new(error.kind(), format!("cannot start {program}: {error}"))
        })?;
        Ok(Self { leader })
    }

    /// The leader's standard output, if it is a pipe.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.leader.stdout.take()
    }

    /// Whether the leader has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.leader.try_wait(), Ok(None))
    }

    /// CPU time that its threads have used.
    ///
    /// The same time as `utime` + `stime` of `/proc/PID/stat`, but in nanoseconds instead of ticks
    /// of 10 ms.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let mut nanoseconds = 0;
        for process in self.members()? {
            for thread in fs::read_dir(format!("/proc/{process}/task"))? {
                // A thread may end between being listed and being read.
                if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
                    nanoseconds += field::<u64>(&text, 0)?;
                }
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Memory in bytes that exists only for this group: `Private_Dirty` of its processes.
    ///
    /// `Rss` would count pages of the program file and count twice what forked processes share;
    /// `Pss` depends on who else runs the same program.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let mut kibibytes = 0;
        for process in self.members()? {
            let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
            let line = text.lines().find(|line| line.starts_with("Private_Dirty:"));
            kibibytes += field::<u64>(line.unwrap_or_default(), 1)?;
        }
        Ok(kibibytes * 1024)
    }

    /// The processes of the group.
    fn members(&self) -> io::Result<Vec<u32>> {
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that ended since it was listed belongs to nobody.
            if group_of(process).is_ok_and(|group| group == self.leader.id()) {
                members.push(process);
            }
        }
        Ok(members)
    }

    /// Sends a signal to the group; there may be nobody left to take it.
    fn signal(&self, name: &str) {
        let command = format!("kill -{name} -{}", self.leader.id());
        let _ = Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        const GRACE: Duration = Duration::from_secs(2);
        let end = Instant::now() + GRACE;
        self.signal("TERM");
        while !self.has_ended() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        if self.members().map_or(true, |members| !members.is_empty()) {
            self.signal("KILL");
        }
        let _ = self.leader.wait();
    }
}

/// The process group of a process.
fn group_of(process: u32) -> io::Result<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field, a name in parentheses, may hold anything, spaces too.
    let (_, behind_name) = text.rsplit_once(')').unwrap_or_default();
    field(behind_name, 2)
}

/// The word of `text` at `index`, as a number.
fn field<T: std::str::FromStr>(text: &str, index: usize) -> io::Result<T> {
    text.split_whitespace()
        .nth(index)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no number at {index} in {text:?}")))
}

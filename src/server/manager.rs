//! Whoever has started this process and wants to hear how it is: systemd, in its own words.
//!
//! These are datagrams to the socket that `NOTIFY_SOCKET` names (sd_notify(3)). Without one, nobody wants
//! to hear anything.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// Who watches over this process, if anybody does.
#[derive(Debug)]
pub(super) struct Manager(Option<OsString>);

impl Manager {
    /// That of this process.
    pub(super) fn of_this_process() -> Self {
        Self(std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()))
    }

    /// Tells it something, such as `READY=1`. That nobody hears it is no reason to stop.
    pub(super) fn tell(&self, what: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = send(socket.as_bytes(), what)
        {
            tracing::warn!("NOTIFY_SOCKET is {}, but nobody hears there: {error}", socket.display());
        }
    }

    /// Tells it that the configuration is read again. `READY=1` is the end of that.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }
}

fn send(socket: &[u8], what: &str) -> io::Result<()> {
    let address = match socket {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(what.as_bytes(), &address).map(drop)
}

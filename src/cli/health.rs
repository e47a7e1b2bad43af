//! Whether the proxy of a configuration file is up: for containers that have neither shell nor curl.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{Done, FAILED, load};

/// How long each step may take: whoever asks for health has a time-out of their own.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the admin address for `/healthz`.
pub(super) fn health(config: &Path) -> Done {
    let Some(admin) = load(config)?.admin else {
        eprintln!("steadfast: admin is off, so there is nothing to ask");
        return Err(ExitCode::from(FAILED));
    };
    match ask(here(admin.bind)) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(admin.bind, &"it did not answer 200")),
        Err(error) => Err(failed(admin.bind, &error)),
    }
}

fn failed(bind: SocketAddr, why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("steadfast: not healthy, as {bind} says: {why}");
    ExitCode::from(FAILED)
}

/// Where to reach on this machine what listens on `bind`.
fn here(mut bind: SocketAddr) -> SocketAddr {
    if bind.ip().is_unspecified() {
        bind.set_ip(if bind.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    bind
}

fn ask(admin: SocketAddr) -> io::Result<bool> {
    const OK: &[u8] = b"HTTP/1.1 200 ";
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut begin = [0; OK.len()];
    stream.read_exact(&mut begin)?;
    Ok(begin == OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_everywhere_is_asked_here() {
        for (bind, expected) in
            [("0.0.0.0:9900", "127.0.0.1:9900"), ("[::]:9900", "[::1]:9900"), ("10.0.0.1:9900", "10.0.0.1:9900")]
        {
            assert_eq!(here(bind.parse().unwrap()), expected.parse().unwrap());
        }
    }
}

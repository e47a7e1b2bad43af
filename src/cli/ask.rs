//! Asks the running proxy of a configuration file, at its admin address.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{FAILED, load};
use crate::config::Config;

/// How long each step may take: whoever asks for health has a time-out of their own.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer: a page of relays has less.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What the proxy has answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Asks the proxy of the file at `config` by `method` for `target`, and waits for the answer as long
/// as each of its bytes takes no longer than `patience`.
///
/// # Errors
/// When there is nobody to ask, or it does not answer; that has been said.
pub(super) fn ask(config: &Path, method: &str, target: &str) -> Result<Answer, ExitCode> {
    let config = load(config)?;
    let Some(admin) = &config.admin else {
        eprintln!("steadfast: admin is off, so there is nothing to ask");
        return Err(ExitCode::from(FAILED));
    };
    let token = token(&config).map_err(|error| failed(admin.bind, &error))?;
    let address = here(admin.bind);
    exchange(address, &request(address, method, target, token.as_deref())).map_err(|error| failed(admin.bind, &error))
}

fn failed(bind: SocketAddr, why: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("steadfast: cannot ask the proxy at {bind}: {why}");
    ExitCode::from(FAILED)
}

/// What the admin address wants to be brought; the file has been read before, and was right.
fn token(config: &Config) -> io::Result<Option<String>> {
    let file = config.written.0.get("admin").and_then(|admin| admin.get("token_file")).and_then(|file| file.as_str());
    file.map(|file| Ok(std::fs::read_to_string(file)?.trim().to_owned())).transpose()
}

/// Where to reach on this machine what listens on `bind`.
fn here(mut bind: SocketAddr) -> SocketAddr {
    if bind.ip().is_unspecified() {
        bind.set_ip(if bind.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    bind
}

fn request(admin: SocketAddr, method: &str, target: &str, token: Option<&str>) -> String {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {admin}\r\nX-Steadfast: 1\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

fn exchange(admin: SocketAddr, request: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what it answers is not HTTP"))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else { return None };
    Some(Answer { status: head.code?, body: String::from_utf8_lossy(&answer[length..]).into_owned() })
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

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = |status, body: &str| Some(Answer { status, body: body.into() });
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"), answer(200, "ok\n"));
        assert_eq!(parse(b"HTTP/1.1 422 Unprocessable Entity\r\n\r\n"), answer(422, ""));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n"), None);
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), None);
    }
}

//! Asks the running proxy of a configuration file, at its admin address.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{FAILED, WRONG, load};
use crate::admin::api::ROOT;
use crate::config::Config;

/// How long each step may take: whoever asks for health has a time-out of their own.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer: that of ten thousand servers has less.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A proxy that is running, as far as its configuration file tells.
#[derive(Debug)]
pub(super) struct Proxy {
    /// As it stands in the file.
    bind: SocketAddr,
    token: Option<String>,
}

/// What the proxy has answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Proxy {
    /// That of the file at `config`.
    ///
    /// # Errors
    /// When there is nothing to ask there; that has been said.
    pub(super) fn of(config: &Path) -> Result<Self, ExitCode> {
        let config = load(config)?;
        let Some(admin) = &config.admin else {
            eprintln!("steadfast: admin is off, so there is nothing to ask");
            return Err(ExitCode::from(FAILED));
        };
        let token = token(&config).map_err(|error| {
            eprintln!("steadfast: cannot read the token of the proxy at {}: {error}", admin.bind);
            ExitCode::from(FAILED)
        })?;
        Ok(Self { bind: admin.bind, token })
    }

    /// What it has at this place of the API.
    ///
    /// # Errors
    /// When it does not answer, or with a problem; that has been said.
    pub(super) fn get<T: DeserializeOwned>(&self, resource: &str) -> Result<T, ExitCode> {
        self.granted(self.ask("GET", &format!("{ROOT}{resource}"), None)?)
    }

    /// What it answers to an order.
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn post<T: DeserializeOwned>(&self, resource: &str, order: &Value) -> Result<T, ExitCode> {
        self.granted(self.ask("POST", &format!("{ROOT}{resource}"), Some(order))?)
    }

    /// The same for something that is to be there no more.
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn delete<T: DeserializeOwned>(&self, resource: &str) -> Result<T, ExitCode> {
        self.granted(self.ask("DELETE", &format!("{ROOT}{resource}"), None)?)
    }

    /// Asks it by `method` for `target`, and waits for the answer as long as each of its bytes takes no
    /// longer than [`PATIENCE`].
    ///
    /// # Errors
    /// When it does not answer; that has been said.
    pub(super) fn ask(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Answer, ExitCode> {
        let address = here(self.bind);
        let body = body.map(Value::to_string).unwrap_or_default();
        exchange(address, &request(address, method, target, self.token.as_deref(), &body)).map_err(|error| {
            let hint = if error.kind() == io::ErrorKind::ConnectionRefused { "; is it running?" } else { "" };
            eprintln!("steadfast: cannot ask the proxy at {}: {error}{hint}", self.bind);
            ExitCode::from(FAILED)
        })
    }

    /// What an answer that says yes has to say; of another one it tells.
    ///
    /// # Errors
    /// When it says no, or makes no sense; that has been said.
    pub(super) fn granted<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, ExitCode> {
        let Answer { status, body } = answer;
        if (200..300).contains(&status) {
            return serde_json::from_str(&body).map_err(|error| {
                eprintln!("steadfast: the proxy at {} answers what makes no sense: {error}", self.bind);
                ExitCode::from(FAILED)
            });
        }
        eprintln!("steadfast: {}", complaint(status, &body, self.token.is_some()));
        Err(ExitCode::from(if status == 400 { WRONG } else { FAILED }))
    }
}

/// Why the proxy says no, for people.
fn complaint(status: u16, body: &str, has_token: bool) -> String {
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    match (status, problem["detail"].as_str()) {
        (401, _) if has_token => "the proxy wants another token than that in admin.token_file".to_owned(),
        (401, _) => "the proxy wants a token, and this file names no admin.token_file".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (404, None) => {
            "whoever answers there does not know this; is it another version, or another program?".to_owned()
        }
        (_, None) => format!("it answers {status}: {}", body.trim()),
    }
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

fn request(admin: SocketAddr, method: &str, target: &str, token: Option<&str>, body: &str) -> String {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {admin}\r\nX-Steadfast: 1\r\n{token}Content-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
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

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        let problem = r#"{"title":"Not Found","detail":"there is no server c"}"#;
        assert_eq!(complaint(404, problem, false), "there is no server c");
        assert!(complaint(401, problem, true).contains("another token"));
        assert!(complaint(401, problem, false).contains("names no admin.token_file"));
        assert!(complaint(404, "<h1>Not Found</h1>", false).contains("another program"));
        assert_eq!(complaint(502, "bad gateway\n", false), "it answers 502: bad gateway");
    }
}

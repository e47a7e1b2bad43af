//! The access log: one line per request, written when it has ended.
//!
//! Workers never wait for the log's target. They put lines into a bounded queue, which one thread
//! writes out; when the target is too slow for too long, lines are lost, and counted.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use prometheus::IntCounter;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::config::{self, LogFormat, LogPath};

/// Everything a line tells.
#[derive(Debug)]
pub struct Line<'a> {
    /// When the request came.
    pub time: SystemTime,
    /// The client, as far as trusted proxies tell.
    pub client: IpAddr,
    /// Who was connected to us, or to the hop that has named it.
    pub previous_hop: IpAddr,
    /// The hop that has named the previous one in a PROXY header.
    pub proxied_by: Option<IpAddr>,
    /// The version of TLS that the client speaks.
    pub tls: Option<&'a str>,
    /// Request method.
    pub method: &'a str,
    /// Requested host; empty when there was none.
    pub host: &'a str,
    /// Requested path, without its query: queries carry session ids.
    pub path: &'a str,
    /// `User-Agent`, empty when there was none.
    pub user_agent: &'a str,
    /// `Referer`, empty when there was none.
    pub referer: &'a str,
    /// Status sent to the client; 0 when none was.
    pub status: u16,
    /// Status that the server sent to a client which had its head already.
    pub server_status: Option<u16>,
    /// What the client spoke.
    pub protocol: &'a str,
    /// What was spoken to the server; empty when there was none.
    pub upstream_protocol: &'a str,
    /// The protocol the client asked to upgrade to.
    pub upgrade: Option<&'a str>,
    /// `Sec-WebSocket-Key`, which is no secret, and names a handshake in the logs of every hop.
    pub sec_websocket_key: Option<&'a str>,
    /// `http`, `websocket`, `tunnel` or `sse`.
    pub kind: &'a str,
    /// The upstream, empty when no route matched.
    pub upstream: &'a str,
    /// The server, empty when none was reached.
    pub server: &'a str,
    /// What named the client.
    pub affinity: &'a str,
    /// Bytes from the client, bodies and relayed bytes alone.
    pub bytes_in: u64,
    /// Bytes to the client, bodies and relayed bytes alone.
    pub bytes_out: u64,
    /// Milliseconds from the request to the head of the response.
    pub time_to_head_ms: Option<u32>,
    /// Milliseconds from the request to the end.
    pub duration_ms: u64,
    /// The code of the first Close of a WebSocket, 1005 when that had none.
    pub close_code: Option<u16>,
    /// Why it ended.
    pub end_reason: &'a str,
    /// What the proxy refused it for, or failed of.
    pub error: Option<&'a str>,
}

impl Line<'_> {
    /// The line in `format`, with its line feed.
    pub fn render(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Json => self.json(),
            LogFormat::Combined => self.combined(),
            LogFormat::Off => String::new(),
        }
    }

    fn json(&self) -> String {
        const RFC_3339: &[BorrowedFormatItem<'_>] =
            format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let mut line = json!({
            "time": self.format_time(RFC_3339),
            "client": self.client,
            "previous_hop": self.previous_hop,
            "proxied_by": self.proxied_by,
            "tls": self.tls,
            "method": self.method,
            "host": self.host,
            "path": self.path,
            "status": self.status,
            "server_status": self.server_status,
            "protocol": self.protocol,
            "upstream_protocol": self.upstream_protocol,
            "upgrade": self.upgrade,
            "sec_websocket_key": self.sec_websocket_key,
            "kind": self.kind,
            "upstream": self.upstream,
            "server": self.server,
            "affinity": self.affinity,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "time_to_head_ms": self.time_to_head_ms,
            "duration_ms": self.duration_ms,
            "close_code": self.close_code,
            "end_reason": self.end_reason,
            "error": self.error,
        })
        .to_string();
        line.push('\n');
        line
    }

    /// The combined format of Apache and nginx; what it has no place for follows as `name=value`.
    fn combined(&self) -> String {
        const COMMON_LOG: &[BorrowedFormatItem<'_>] =
            format_description!("[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");
        let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
        format!(
            "{} - - [{}] \"{} {} {}\" {} {} \"{}\" \"{}\" host={} previous_hop={} proxied_by={} tls={} upgrade={} sec_websocket_key={} \
             kind={} upstream={} server={} affinity={} bytes_in={} time_to_head={} duration={} close_code={} \
             server_status={} end_reason={} error={}\n",
            self.client,
            self.format_time(COMMON_LOG),
            escaped(self.method),
            escaped(self.path),
            self.protocol,
            self.status,
            self.bytes_out,
            escaped(or_dash(self.referer)),
            escaped(or_dash(self.user_agent)),
            escaped(or_dash(self.host)),
            self.previous_hop,
            self.proxied_by.map_or_else(|| "-".into(), |hop| hop.to_string()),
            self.tls.unwrap_or("-"),
            escaped(self.upgrade.unwrap_or("-")),
            escaped(self.sec_websocket_key.unwrap_or("-")),
            self.kind,
            or_dash(self.upstream),
            or_dash(self.server),
            self.affinity,
            self.bytes_in,
            self.time_to_head_ms.map_or_else(|| "-".into(), |ms| seconds(ms.into())),
            seconds(self.duration_ms),
            self.close_code.map_or_else(|| "-".into(), |code| code.to_string()),
            self.server_status.map_or_else(|| "-".into(), |status| status.to_string()),
            self.end_reason,
            self.error.unwrap_or("-"),
        )
    }

    fn format_time(&self, format: &[BorrowedFormatItem<'_>]) -> String {
        OffsetDateTime::from(self.time).format(format).unwrap_or_default()
    }
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// `text` as nginx writes it: quotes, backslashes and what is not printable as `\xHH`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..=0x1F | 0x7F..=0xFF => escaped.push_str(&format!("\\x{byte:02X}")),
            byte => escaped.push(char::from(byte)),
        }
    }
    escaped
}

/// Where workers put their lines.
#[derive(Clone, Debug)]
pub struct AccessLog {
    format: LogFormat,
    queue: SyncSender<String>,
    lost: IntCounter,
}

/// Lines that wait for a slow target: a few megabytes.
const QUEUE_MAX: usize = 16 * 1024;

/// The thread that writes the log; it ends when the last [`AccessLog`] is dropped.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl Writer {
    /// Waits until everything is written. To be called when no [`AccessLog`] is left.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the access log's writer panicked");
        }
    }
}

impl AccessLog {
    /// Opens the log's target and starts its writer; `None` when the log is off.
    ///
    /// # Errors
    /// When the file cannot be opened, with its name.
    pub fn open(config: &config::AccessLog, lost: IntCounter) -> io::Result<Option<(Self, Writer)>> {
        if config.format == LogFormat::Off {
            return Ok(None);
        }
        let target: Box<dyn Write + Send> = match &config.path {
            LogPath::Stdout => Box::new(io::stdout()),
            LogPath::Stderr => Box::new(io::stderr()),
            LogPath::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Box::new(file.map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot open the access log {}: {error}", path.display()))
                })?)
            }
        };
        let (queue, lines) = sync_channel(QUEUE_MAX);
        let writer = std::thread::Builder::new().name("access-log".into()).spawn(move || write_out(&lines, target))?;
        Ok(Some((Self { format: config.format, queue, lost }, Writer(writer))))
    }

    /// Whether lines show `User-Agent` and `Referer`.
    pub fn wants_browser(&self) -> bool {
        self.format == LogFormat::Combined
    }

    /// Writes `line` soon.
    pub fn write(&self, line: &Line<'_>) {
        if let Err(TrySendError::Full(_)) = self.queue.try_send(line.render(self.format)) {
            self.lost.inc();
        }
    }
}

/// Writes lines until no sender is left; flushes whenever none waits.
fn write_out(lines: &Receiver<String>, target: Box<dyn Write + Send>) {
    let mut target = BufWriter::new(target);
    let mut has_failed = false;
    while let Ok(first) = lines.recv() {
        let written = std::iter::once(first)
            .chain(lines.try_iter())
            .try_for_each(|line| target.write_all(line.as_bytes()))
            .and_then(|()| target.flush());
        if let Err(error) = written
            && !std::mem::replace(&mut has_failed, true)
        {
            tracing::error!("the access log cannot be written: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            time: SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123),
            client: "192.0.2.1".parse().expect("an address"),
            previous_hop: "10.0.0.1".parse().expect("an address"),
            proxied_by: Some("10.0.0.9".parse().expect("an address")),
            tls: Some("TLSv1.3"),
            method: "GET",
            host: "chat.example.com",
            path: "/socket.io/",
            user_agent: "a \"browser\"",
            referer: "",
            status: 101,
            server_status: None,
            protocol: "HTTP/1.1",
            upstream_protocol: "HTTP/1.1",
            upgrade: Some("websocket"),
            sec_websocket_key: Some("x3JJHMbDL1EzLkh9GBhXDw=="),
            kind: "websocket",
            upstream: "chat",
            server: "a",
            affinity: "forwarded_for",
            bytes_in: 10,
            bytes_out: 20,
            time_to_head_ms: Some(3),
            duration_ms: 61_005,
            close_code: Some(1000),
            end_reason: "client_closed",
            error: None,
        }
    }

    #[test]
    fn a_json_line_is_one_object() {
        let text = line().render(LogFormat::Json);
        assert!(text.ends_with("}\n"));
        let value: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
        assert_eq!(value["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["client"], "192.0.2.1");
        assert_eq!(value["status"], 101);
        assert_eq!(value["upgrade"], "websocket");
        assert_eq!(value["close_code"], 1000);
        assert_eq!(value["end_reason"], "client_closed");
    }

    #[test]
    fn a_combined_line_reads_as_nginx_writes_it() {
        assert_eq!(
            line().render(LogFormat::Combined),
            "192.0.2.1 - - [14/Nov/2023:22:13:20 +0000] \"GET /socket.io/ HTTP/1.1\" 101 20 \"-\" \
             \"a \\x22browser\\x22\" host=chat.example.com previous_hop=10.0.0.1 proxied_by=10.0.0.9 tls=TLSv1.3 upgrade=websocket \
             sec_websocket_key=x3JJHMbDL1EzLkh9GBhXDw== kind=websocket upstream=chat server=a affinity=forwarded_for \
             bytes_in=10 time_to_head=0.003 duration=61.005 close_code=1000 server_status=- \
             end_reason=client_closed error=-\n"
        );
    }

    #[test]
    fn no_client_can_forge_a_line() {
        let mut line = line();
        line.path = "/\n10.0.0.1 - - \"";
        for format in [LogFormat::Json, LogFormat::Combined] {
            assert_eq!(line.render(format).matches('\n').count(), 1);
        }
    }
}

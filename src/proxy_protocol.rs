//! The PROXY protocol, versions 1 (text) and 2 (binary): the header by which a hop below HTTP says
//! whose connection it passes on. Pure; read from the start of what has come, as often as more
//! comes. <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>
//!
//! The rule: it is never guessed. Bytes are a header, no header, or a broken one, and each is told
//! as soon as it shows. What would be a second way to write the same header is broken.
//!
//! Of version 2 the additions behind the addresses (TLVs) are skipped unread, the checksum among
//! them: a header is only read from hops that are trusted, over TCP, which has its own.
//!
//! The crates there are (`ppp`, `proxy-header`) are for headers that are whole: they take ports such
//! as `+80` or `PROXY_TCP4`, wait for 64 KiB because a length says so, refuse health checks with an
//! unknown family, or do not tell a header from a request before 15 bytes have come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ends {
    /// Who has made it.
    pub source: SocketAddr,
    /// Where it was made to.
    pub destination: SocketAddr,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As far as it goes a header; more bytes will tell.
    Partial,
    /// Something else.
    Other,
    /// A header.
    Header {
        /// Its bytes.
        length: usize,
        /// The connection that is passed on. `None` where the hop speaks for itself, or of something
        /// that is no TCP connection: then the connection's own ends stand.
        ends: Option<Ends>,
    },
}

/// Why a header cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It says what no header says.
    #[error("malformed")]
    Malformed,
    /// It is longer than any that is needed.
    #[error("too long")]
    TooLong,
}

/// Longest header of version 1, its line end included: what the protocol allows.
pub const V1_MAX: usize = 107;

/// Most bytes behind the first 16 of version 2. Addresses take 216 at the most; the rest is for
/// TLVs, of which a client's certificate is the largest that hops are known to send.
pub const V2_BODY_MAX: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Start, command and version, family and transport, length.
const V2_HEAD: usize = V2_START.len() + 4;

/// Reads the header that `bytes` begin with.
///
/// # Errors
/// When they begin as a header does, and are none.
pub fn read(bytes: &[u8]) -> Result<Start, Broken> {
    if bytes.starts_with(V1_START) {
        read_v1(bytes)
    } else if bytes.starts_with(V2_START) {
        read_v2(bytes)
    } else if V1_START.starts_with(bytes) || V2_START.starts_with(bytes) {
        Ok(Start::Partial)
    } else {
        Ok(Start::Other)
    }
}

fn read_v1(bytes: &[u8]) -> Result<Start, Broken> {
    let within = &bytes[..bytes.len().min(V1_MAX)];
    // A line ends with CR LF, and neither stands elsewhere.
    let Some(end) = within.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() < V1_MAX { Ok(Start::Partial) } else { Err(Broken::TooLong) };
    };
    match (within[end], within.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if bytes.len() < V1_MAX => return Ok(Start::Partial),
        (b'\r', None) => return Err(Broken::TooLong),
        _ => return Err(Broken::Malformed),
    }
    let line = str::from_utf8(&within[V1_START.len()..end]).map_err(|_| Broken::Malformed)?;
    Ok(Start::Header { length: end + 2, ends: v1_ends(line).ok_or(Broken::Malformed)? })
}

/// What stands behind `PROXY`; `None` when that makes no sense.
fn v1_ends(line: &str) -> Option<Option<Ends>> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None); // Whatever else the line says.
    }
    let mut next = || words.next();
    let (source, destination) = match family {
        "TCP4" => (IpAddr::V4(next()?.parse().ok()?), IpAddr::V4(next()?.parse().ok()?)),
        "TCP6" => (IpAddr::V6(next()?.parse().ok()?), IpAddr::V6(next()?.parse().ok()?)),
        _ => return None,
    };
    let (from, to) = (port(next()?)?, port(next()?)?);
    let ends = Ends { source: (source, from).into(), destination: (destination, to).into() };
    words.next().is_none().then_some(Some(ends))
}

/// Digits alone, and no zero before others.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok())?
}

/// Version 2, and what the hop does: speak for itself, or pass a connection on.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;

fn read_v2(bytes: &[u8]) -> Result<Start, Broken> {
    let command = bytes.get(V2_START.len()).copied();
    if command.is_some_and(|command| command != LOCAL && command != PROXY) {
        return Err(Broken::Malformed); // Another version, or a command that nobody knows.
    }
    let Some((&[command, family, high, low], body)) = bytes[V2_START.len()..].split_first_chunk() else {
        return Ok(Start::Partial);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BODY_MAX {
        return Err(Broken::TooLong);
    }
    if command == PROXY && length < v2_addresses(family).ok_or(Broken::Malformed)? {
        return Err(Broken::Malformed);
    }
    let Some(body) = body.get(..length) else { return Ok(Start::Partial) };
    // A hop that speaks for itself, as in health checks, may say anything of families.
    let ends = if command == PROXY { v2_ends(family, body) } else { None };
    Ok(Start::Header { length: V2_HEAD + length, ends })
}

/// How many bytes the addresses of a family take; `None` when there is no such family, or no such
/// transport. The upper half is the family, the lower one the transport.
fn v2_addresses(family: u8) -> Option<usize> {
    let is_transport = family & 0x0F <= 2;
    let length = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => 216,
        _ => return None,
    };
    is_transport.then_some(length)
}

/// The ends of a TCP connection. Unix sockets, datagrams and what is not specified have none that
/// mean anything here.
fn v2_ends(family: u8, body: &[u8]) -> Option<Ends> {
    let port = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let v4 = |at: usize| Some(Ipv4Addr::from(*body.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(Ipv6Addr::from(*body.get(at..)?.first_chunk::<16>()?));
    Some(match family {
        V2_TCP4 => Ends { source: (v4(0)?, port(8)?).into(), destination: (v4(4)?, port(10)?).into() },
        V2_TCP6 => Ends { source: (v6(0)?, port(32)?).into(), destination: (v6(16)?, port(34)?).into() },
        _ => return None,
    })
}

const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// As text.
    V1,
    /// In binary.
    V2,
}

impl Version {
    /// The header of a connection that a hop makes for nobody, as to see whether a server is there.
    pub fn of_nobody(self) -> Vec<u8> {
        match self {
            Self::V1 => b"PROXY UNKNOWN\r\n".to_vec(),
            Self::V2 => [V2_START, &[LOCAL, 0, 0, 0]].concat(),
        }
    }
}

impl Ends {
    /// Both addresses of one family, which headers cannot do without: where they differ, IPv4 is
    /// written as IPv6.
    fn alike(self) -> Self {
        let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
        let wide = |end: SocketAddr| match end.ip() {
            IpAddr::V4(address) => SocketAddr::new(address.to_ipv6_mapped().into(), end.port()),
            IpAddr::V6(_) => end,
        };
        let Self { source, destination } = Self { source: plain(self.source), destination: plain(self.destination) };
        if source.is_ipv4() == destination.is_ipv4() {
            return Self { source, destination };
        }
        Self { source: wide(source), destination: wide(destination) }
    }

    /// The header that names them.
    pub fn header(self, version: Version) -> Vec<u8> {
        let Self { source, destination } = self.alike();
        if version == Version::V1 {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.port(), destination.port());
            return format!("PROXY {family} {} {} {from} {to}\r\n", source.ip(), destination.ip()).into_bytes();
        }
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        let (family, addresses) = match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (V2_TCP4, [from.octets(), to.octets()].concat()),
            (from, to) => (V2_TCP6, [octets(from), octets(to)].concat()),
        };
        let length = if family == V2_TCP4 { 12 } else { 36 };
        [V2_START, &[PROXY, family, 0, length], &addresses, &ports].concat()
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests;

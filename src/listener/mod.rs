//! What stands between an accepted connection and its first request: the PROXY header, by which a
//! hop below HTTP says whose connection it passes on, behind it the handshake of TLS, and the
//! preface by which a client says that it speaks HTTP/2.
//!
//! The rule for headers: only trusted hops are listened to. Whom they name takes their place as the
//! previous hop in all that follows, and is trusted or not like any other: so trust goes on from hop
//! to hop as it does through `X-Forwarded-For`, and ends at the first that is a stranger.

mod encryption;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use prometheus::IntCounter;
use tokio::time::timeout;

use crate::config::{self, ProxyProtocol};
use crate::connection::{self, Open};
use crate::exchange::Front;
use crate::http2::{self, preface};
use crate::observe::Sayings;
use crate::observe::metrics::Metrics;
use crate::proxy_protocol::{self, Broken, Start};
use crate::service::{Service, stopped};
use crate::socket::{Socket, Wire};

use encryption::Encryption;
pub use encryption::TlsError;

/// A listener, as connections come in.
#[derive(Debug)]
pub struct Listener {
    bind: SocketAddr,
    proxy_protocol: ProxyProtocol,
    h2c: bool,
    refused: [IntCounter; Refusal::ALL.len()],
    said: Arc<Sayings<{ Refusal::ALL.len() }>>,
    encryption: Option<Arc<Encryption>>,
}

/// Why a connection is closed for want of a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It comes from a hop that is not trusted.
    Untrusted,
    /// It begins with something else.
    Missing,
    /// Its header makes no sense.
    Malformed,
    /// Its header is longer than any that is needed.
    TooLong,
    /// Its header did not come to its end.
    Incomplete,
    /// Nothing came.
    Silent,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 6] =
        [Self::Untrusted, Self::Missing, Self::Malformed, Self::TooLong, Self::Incomplete, Self::Silent];

    /// The word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Incomplete => "incomplete",
            Self::Silent => "silent",
        }
    }

    /// What is wrong and what would be right. Silence is neither: hops that wait for their client's
    /// first byte connect so for browsers that connect ahead.
    fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::Untrusted => "is not among trusted_proxies; add it there if it is yours",
            Self::Missing => {
                "sends no PROXY header, but something else; switch that on there (send-proxy-v2, proxy_protocol on), \
                 or set proxy_protocol: off here"
            }
            Self::Malformed => "sends a PROXY header that makes no sense",
            Self::TooLong => "sends a PROXY header that is too long; have it add less behind the addresses",
            Self::Incomplete => "sends a PROXY header that breaks off",
            Self::Silent => return None,
        })
    }
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Malformed => Self::Malformed,
            Broken::TooLong => Self::TooLong,
        }
    }
}

impl Listener {
    /// A listener as `config` has it.
    ///
    /// # Errors
    /// When TLS cannot work with it.
    pub fn new(config: &config::Listener, metrics: &Metrics) -> Result<Self, TlsError> {
        let encryption = config.tls.as_ref().map(|tls| Encryption::new(config.bind, tls, metrics));
        Ok(Self {
            bind: config.bind,
            proxy_protocol: config.proxy_protocol,
            h2c: config.h2c,
            refused: Refusal::ALL.map(|refusal| metrics.proxy_protocol_refused(refusal)),
            said: Arc::default(),
            encryption: encryption.transpose()?.map(Arc::new),
        })
    }

    /// The same listener as `config` has it now, once it takes the place of this one. Whom it has met
    /// before over TLS it still knows, as long as the same is expected of clients; then certificates
    /// change when it is [told](Listener::succeed).
    ///
    /// # Errors
    /// When TLS cannot work with it.
    pub fn renewed(&self, config: &config::Listener, metrics: &Metrics) -> Result<Self, TlsError> {
        let same = self.encryption.as_ref().zip(config.tls.as_ref()).filter(|(is, tls)| is.expects_what(tls));
        let Some((encryption, _)) = same else {
            return Ok(Self { said: self.said.clone(), ..Self::new(config, metrics)? });
        };
        Ok(Self {
            bind: config.bind,
            proxy_protocol: config.proxy_protocol,
            h2c: config.h2c,
            refused: self.refused.clone(),
            said: self.said.clone(),
            encryption: Some(encryption.clone()),
        })
    }

    /// Takes the place of `before`, as `config` has it: shows other certificates where both shake hands by
    /// the same rules.
    pub fn succeed(&self, before: &Self, config: &config::Listener) {
        let shared =
            self.encryption.as_ref().zip(before.encryption.as_ref()).filter(|(this, that)| Arc::ptr_eq(this, that));
        if let (Some((encryption, _)), Some(tls)) = (shared, &config.tls) {
            encryption.show(&tls.certificates);
        }
    }

    /// Whether requests of HTTP/1 come at once, behind no header and no handshake.
    pub fn is_plain(&self) -> bool {
        self.proxy_protocol == ProxyProtocol::Off && self.encryption.is_none() && !self.h2c
    }

    /// Reads the header, if there is or must be one, shakes hands, and serves what follows, whatever
    /// it speaks.
    pub async fn arrive(self: Arc<Self>, service: Arc<Service>, socket: Socket, peer: IpAddr, open: Open) {
        let mut stopping = service.stopping();
        let arrived = tokio::select! {
            biased;
            arrived = Box::pin(async { self.open(&service.front(), socket, peer).await }) => arrived,
            () = stopped(&mut stopping) => None,
        };
        // A task of its own, so that what arriving needs is freed with this one.
        match arrived {
            Some((socket, previous_hop, Speaks::Http1)) => {
                tokio::spawn(connection::serve(service, socket, previous_hop, open));
            }
            Some((socket, previous_hop, Speaks::Http2)) => {
                tokio::spawn(http2::serve(service, socket, previous_hop, open));
            }
            None => {}
        }
    }

    /// Goes on to where requests begin, and says who counts as connected to us and what is spoken.
    /// `None` when the connection is closed.
    async fn open(&self, front: &Front, socket: Socket, peer: IpAddr) -> Option<(Socket, IpAddr, Speaks)> {
        let previous_hop = match self.proxy_protocol {
            ProxyProtocol::Off => peer,
            ProxyProtocol::On | ProxyProtocol::Optional => self.previous_hop(front, &socket, peer).await?,
        };
        let socket = match &self.encryption {
            Some(encryption) => encryption.begin(socket, previous_hop, front.request_head).await?,
            None => socket,
        };
        let speaks = match socket.wire().encryption() {
            Some(agreed) if agreed.is_http2 => Speaks::Http2,
            None if self.h2c => timeout(front.request_head, spoken(socket.wire())).await.ok()?,
            Some(_) | None => Speaks::Http1,
        };
        Some((socket, previous_hop, speaks))
    }

    /// Who counts as connected to us: `peer`, or whom it names. `None` when the connection is to be
    /// closed.
    async fn previous_hop(&self, front: &Front, socket: &Socket, peer: IpAddr) -> Option<IpAddr> {
        let is_must = self.proxy_protocol == ProxyProtocol::On;
        if !front.trusted.contains(peer) {
            return if is_must { self.refuse(Refusal::Untrusted, peer) } else { Some(peer) };
        }
        let wire = socket.wire();
        // All of it within one limit, however it drips.
        let start = timeout(front.request_head, start(wire)).await;
        let has_begun = !wire.peek(<[u8]>::is_empty);
        match start {
            Ok(Ok(Start::Header { length, ends })) => {
                wire.introduced(length, ends);
                Some(ends.map_or(peer, |ends| ends.source.ip()))
            }
            Ok(Ok(Start::Other)) if is_must => self.refuse(Refusal::Missing, peer),
            Ok(Ok(Start::Other)) => Some(peer),
            Ok(Err(broken)) => self.refuse(broken.into(), peer),
            Ok(Ok(Start::Partial)) | Err(_) if has_begun => self.refuse(Refusal::Incomplete, peer),
            Err(_) if is_must => self.refuse(Refusal::Silent, peer),
            // Connected and closed again, as health checks of TCP do; or it may yet have asked.
            Ok(Ok(Start::Partial)) | Err(_) => None,
        }
    }

    /// Counts it, and says it if it was not said just now. Always `None`: nobody is connected.
    fn refuse(&self, refusal: Refusal, peer: IpAddr) -> Option<IpAddr> {
        self.refused[refusal as usize].inc();
        let advice = refusal.advice()?;
        self.said.say(refusal as usize, |more| {
            let (bind, peer) = (self.bind, peer.to_canonical());
            tracing::warn!("listener {bind}: closed a connection: {peer} {advice}{more}");
        });
        None
    }
}

/// Reads until it shows what the connection begins with; `Partial` when it ends before.
async fn start(wire: &Wire) -> Result<Start, Broken> {
    loop {
        let start = wire.peek(proxy_protocol::read)?;
        let more = start == Start::Partial && wire.read_more().await.unwrap_or(false);
        if !more {
            return Ok(start);
        }
    }
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

/// Reads until it shows what is spoken. What ends before is left to HTTP/1.
async fn spoken(wire: &Wire) -> Speaks {
    loop {
        match wire.peek(preface::look) {
            preface::Start::Http2 => return Speaks::Http2,
            preface::Start::Other => return Speaks::Http1,
            preface::Start::Partial if wire.read_more().await.unwrap_or(false) => {}
            preface::Start::Partial => return Speaks::Http1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_where_they_are_counted() {
        for (at, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, at, "{refusal:?}");
        }
    }
}

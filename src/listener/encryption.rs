//! The handshake of TLS with a client.
//!
//! Nothing is made for a connection that does not say a word, and all of a handshake together may
//! take as long as the head of a request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use rustls::{RootCertStore, ServerConfig};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::config::Tls;
use crate::observe::Sayings;
use crate::observe::metrics::Metrics;
use crate::socket::{Agreed, Encrypted, HandshakeError, Parts, Socket, Transport};
use crate::tls::Certificate;
use crate::tls::front::{self, Refusal, Shown, Version};
use crate::tls::session::Failure;

/// What a listener needs for it.
#[derive(Debug)]
pub(super) struct Encryption {
    bind: SocketAddr,
    config: Arc<ServerConfig>,
    shown: Arc<Shown>,
    client_ca: Option<Arc<RootCertStore>>,
    min_version: Version,
    refused: [IntCounter; Refusal::ALL.len()],
    said: Sayings<{ Refusal::ALL.len() }>,
    shaken: Shaken,
}

/// TLS cannot work with what a listener is to be.
#[derive(Debug, thiserror::Error)]
#[error("listener {bind}: {error}")]
pub struct TlsError {
    bind: SocketAddr,
    error: Box<dyn std::error::Error + Send + Sync>,
}

/// Counts handshakes that came to their end.
#[derive(Debug)]
struct Shaken {
    /// By version, 1.2 and 1.3, and whether both had met before.
    counts: [[IntCounter; 2]; 2],
}

impl Shaken {
    fn new(metrics: &Metrics) -> Self {
        let counts =
            ["1.2", "1.3"].map(|version| ["no", "yes"].map(|resumed| metrics.tls_handshakes(version, resumed)));
        Self { counts }
    }

    fn count(&self, agreed: &Agreed) {
        let is_new = agreed.version == Version::Tls13;
        self.counts[usize::from(is_new)][usize::from(agreed.is_resumed)].inc();
    }
}

/// What the operator should know of `certificates`.
fn tell_of(bind: SocketAddr, certificates: &[Certificate]) {
    for concern in certificates.iter().flat_map(|it| it.concerns(OffsetDateTime::now_utc())) {
        tracing::warn!("listener {bind}: {concern}");
    }
}

/// What the first byte of a handshake is (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

impl Encryption {
    pub(super) fn new(bind: SocketAddr, tls: &Tls, metrics: &Metrics) -> Result<Self, TlsError> {
        tell_of(bind, &tls.certificates);
        let shown = Arc::new(Shown::new(&tls.certificates));
        let config = front::config(shown.clone(), tls.client_ca.clone(), tls.min_version);
        Ok(Self {
            bind,
            config: Arc::new(config.map_err(|error| TlsError { bind, error })?),
            shown,
            client_ca: tls.client_ca.clone(),
            min_version: tls.min_version,
            refused: Refusal::ALL.map(|refusal| metrics.tls_refused(refusal)),
            said: Sayings::default(),
            shaken: Shaken::new(metrics),
        })
    }

    /// Whether clients are to bring what they bring now.
    pub(super) fn expects_what(&self, tls: &Tls) -> bool {
        let roots = |store: &Option<Arc<RootCertStore>>| store.as_ref().map(|store| store.roots.clone());
        self.min_version == tls.min_version && roots(&self.client_ca) == roots(&tls.client_ca)
    }

    /// Shows `certificates` from now on.
    pub(super) fn show(&self, certificates: &[Certificate]) {
        tell_of(self.bind, certificates);
        self.shown.replace(certificates);
    }

    /// Shakes hands with `peer`, which may take `patience`; `None` when nothing came of it.
    pub(super) async fn begin(&self, socket: Socket, peer: IpAddr, patience: Duration) -> Option<Socket> {
        let mut has_begun = false;
        match timeout(patience, self.shake(socket, peer, &mut has_begun)).await {
            Ok(shaken) => shaken,
            Err(_) => {
                if has_begun {
                    self.refuse(Refusal::Timeout, peer, None);
                }
                None
            }
        }
    }

    async fn shake(&self, socket: Socket, peer: IpAddr, has_begun: &mut bool) -> Option<Socket> {
        // Who connects ahead, or only to see whether we are here, says nothing for long, or ever.
        if !socket.wire().read_ahead().await.unwrap_or(false) {
            return None;
        }
        *has_begun = true;
        let first = socket.wire().peek(|bytes| bytes.first().copied());
        if first != Some(HANDSHAKE) {
            self.refuse_plain(socket, first, peer).await;
            return None;
        }
        let passed_on = socket.wire().passed_on();
        let Parts { transport: Transport::Tcp(tcp), unread, .. } = socket.into_parts()? else { return None };
        match Encrypted::accept(tcp, &unread, self.config.clone()).await {
            Ok(encrypted) => {
                self.shaken.count(&encrypted.agreed());
                let socket = Socket::new(Transport::Tls(Box::new(encrypted)));
                socket.wire().introduced(0, passed_on);
                Some(socket)
            }
            Err((error, tcp)) => {
                self.refuse(reason(&error), peer, Some(&error));
                Transport::Tcp(tcp).linger().await; // So that the alert arrives.
                None
            }
        }
    }

    /// A request in plain text is answered so that its sender understands.
    async fn refuse_plain(&self, mut socket: Socket, first: Option<u8>, peer: IpAddr) {
        if !first.is_some_and(|byte| byte.is_ascii_uppercase()) {
            return self.refuse(Refusal::NotTls, peer, None);
        }
        self.refuse(Refusal::PlainHttp, peer, None);
        let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{PLAIN}", PLAIN.len());
        let told = async {
            socket.write_all(answer.as_bytes()).await?;
            socket.flush().await
        };
        if told.await.is_ok()
            && let Some(Parts { transport, .. }) = socket.into_parts()
        {
            transport.linger().await;
        }
    }

    /// Counts it, and says it if it was not said just now.
    fn refuse(&self, refusal: Refusal, peer: IpAddr, error: Option<&HandshakeError>) {
        self.refused[refusal as usize].inc();
        self.said.say(refusal as usize, |more| {
            let (bind, peer, advice) = (self.bind, peer.to_canonical(), advice(refusal));
            let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
            tracing::warn!("listener {bind}: no TLS with {peer}: {advice}{error}{more}");
        });
    }
}

/// What is said to whoever asks in plain text.
const PLAIN: &str = "This port speaks TLS: ask with https:// or wss:// instead of http:// or ws://.\n";

fn reason(error: &HandshakeError) -> Refusal {
    match error {
        HandshakeError::Session(Failure::Protocol(error)) => error.into(),
        HandshakeError::Session(Failure::TooLong | Failure::Before) => Refusal::Malformed,
        HandshakeError::Io(_) | HandshakeError::Closed => Refusal::Closed,
    }
}

/// What is wrong, and what would be right.
fn advice(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::PlainHttp => "it sends requests in plain text; have it use https",
        Refusal::NotTls => {
            "it sends something that is no TLS; a PROXY header is only read where proxy_protocol is on or optional"
        }
        Refusal::Version => "it speaks only versions of TLS older than min_version",
        Refusal::Parameters => "it has no cipher, or no protocol inside TLS, in common with us",
        Refusal::ClientCertificate => "it has shown no certificate that client_ca vouches for",
        Refusal::Alert => "it has ended the handshake; as a rule it does not trust the certificate it was shown",
        Refusal::Malformed => "what it sends makes no sense",
        Refusal::Closed => "it closed in the middle of the handshake",
        Refusal::Timeout => "its handshake took longer than the time-out request_head",
    }
}

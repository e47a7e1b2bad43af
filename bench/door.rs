//! Where clients come in, and what they come in on: plain text or TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::scenario::Over;

/// Where a proxy listens, and what it speaks there.
#[derive(Clone, Copy)]
pub(crate) struct Door {
    /// The address.
    pub(crate) address: SocketAddr,
    /// The language.
    pub(crate) over: Over,
}

impl Door {
    /// Goes in. With TLS every handshake is a full one.
    pub(crate) async fn open(self) -> io::Result<Stream> {
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        match self.over {
            Over::Tcp => Ok(Stream::Tcp(tcp)),
            Over::Tls => {
                let name = NAME.try_into().map_err(io::Error::other)?;
                Ok(Stream::Tls(Box::new(IDENTITY.connector.connect(name, tcp).await?)))
            }
        }
    }
}

/// Who the proxies are.
const NAME: &str = "bench.example";

/// What the proxies show, in PEM: the certificate and its key, an ECDSA one as most are.
pub(crate) fn certificate() -> (&'static str, &'static str) {
    (&IDENTITY.cert, &IDENTITY.key)
}

struct Identity {
    cert: String,
    key: String,
    connector: TlsConnector,
}

static IDENTITY: LazyLock<Identity> = LazyLock::new(|| {
    let signed = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate can be made");
    let connector = connector(signed.cert.der().clone());
    Identity { cert: signed.cert.pem(), key: signed.signing_key.serialize_pem(), connector }
});

fn connector(cert: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(cert).expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let mut config = builder.expect("TLS 1.3 is there").with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

/// A connection of a client.
pub(crate) enum Stream {
    /// In plain text.
    Tcp(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            // A close without a goodbye is one all the same.
            Self::Tls(tls) => match Pin::new(tls).poll_read(cx, buf) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                other => other,
            },
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

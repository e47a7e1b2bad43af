//! What clients get to see: which certificate for which name, and what may be spoken.
//!
//! Certificates stand behind a lock for the moment of a look-up, so that new ones can take their
//! place while the proxy runs. Whoever is connected keeps what it was shown.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use ahash::AHashMap;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion};

use super::certificates::{Certificate, provider};

/// A version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// TLS 1.2, with what is still good of it.
    #[default]
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Its name in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }

    /// This one and what is newer.
    pub fn and_newer(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Tls12 => vec![&rustls::version::TLS13, &rustls::version::TLS12],
            Self::Tls13 => vec![&rustls::version::TLS13],
        }
    }
}

/// What is spoken inside, in the order of preference (RFC 7301).
const PROTOCOLS: &[&[u8]] = &[HTTP2, b"http/1.1"];

/// HTTP/2 (RFC 9113, section 3.2).
pub const HTTP2: &[u8] = b"h2";

/// What rustls needs for a listener that shows the certificates of `shown`, and that has clients
/// show one of `client_ca`, if given.
///
/// # Errors
/// When rustls cannot work with it.
pub fn config(
    shown: Arc<Shown>,
    client_ca: Option<Arc<RootCertStore>>,
    oldest: Version,
) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_protocol_versions(&oldest.and_newer())?;
    let builder = match client_ca {
        Some(authorities) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(shown);
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    // Whoever comes again brings what it needs in a ticket: nothing is kept here for it.
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The certificates of a listener.
pub struct Shown(RwLock<Arc<ByName>>);

impl Shown {
    /// The first one is for whoever asks for no name or an unknown one.
    pub fn new(certificates: &[Certificate]) -> Self {
        Self(RwLock::new(Arc::new(ByName::new(certificates))))
    }

    /// Shows others from now on.
    pub fn replace(&self, certificates: &[Certificate]) {
        let by_name = Arc::new(ByName::new(certificates));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = by_name;
    }

    fn by_name(&self) -> Arc<ByName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shown").field(&self.by_name().names.keys()).finish()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let by_name = self.by_name();
        let candidates = by_name.find(hello.server_name());
        best(candidates, hello.signature_schemes()).cloned()
    }
}

/// Certificates, found by the names that they are good for.
#[derive(Default)]
struct ByName {
    /// More than one when keys of several kinds stand for a name. Wildcards stand as `*.` and what
    /// follows.
    names: AHashMap<String, Vec<Arc<CertifiedKey>>>,
    /// For everybody else.
    default: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    fn new(certificates: &[Certificate]) -> Self {
        let mut this = Self::default();
        for certificate in certificates {
            for name in &certificate.names {
                this.names.entry(name.clone()).or_default().push(certificate.key.clone());
            }
        }
        let Some(first) = certificates.first() else { return this };
        // Those for the same names as the first one may have another kind of key.
        let twins = certificates.iter().filter(|certificate| certificate.names == first.names);
        this.default = twins.map(|certificate| certificate.key.clone()).collect();
        this
    }

    /// The certificates for `name`. A wildcard stands for one label and not for more
    /// (RFC 9525, section 6.3).
    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else { return &self.default };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let exact = self.names.get(&name);
        let found = exact.or_else(|| self.names.get(&format!("*.{}", name.split_once('.')?.1)));
        found.unwrap_or(&self.default)
    }
}

/// The first one whose key the client can check; else the first, and the handshake fails with a
/// reason.
fn best<'a>(candidates: &'a [Arc<CertifiedKey>], schemes: &[SignatureScheme]) -> Option<&'a Arc<CertifiedKey>> {
    let can_check = |it: &&Arc<CertifiedKey>| it.key.choose_scheme(schemes).is_some();
    candidates.iter().find(can_check).or(candidates.first())
}

/// Why no connection came of a handshake: a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It began with a request in plain text.
    PlainHttp,
    /// It began with something else that is no TLS.
    NotTls,
    /// The client speaks only older versions.
    Version,
    /// There is no cipher, or no protocol inside, that both know.
    Parameters,
    /// The client has shown no certificate, or none that is good.
    ClientCertificate,
    /// The client has ended it, as it does when it does not trust our certificate.
    Alert,
    /// What the client sent makes no sense.
    Malformed,
    /// The client closed before it was done.
    Closed,
    /// It took too long.
    Timeout,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::PlainHttp,
        Self::NotTls,
        Self::Version,
        Self::Parameters,
        Self::ClientCertificate,
        Self::Alert,
        Self::Malformed,
        Self::Closed,
        Self::Timeout,
    ];

    /// The word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Parameters => "parameters",
            Self::ClientCertificate => "client_certificate",
            Self::Alert => "alert",
            Self::Malformed => "malformed",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
        }
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        use rustls::PeerIncompatible as No;
        match error {
            // Signature algorithms are named since TLS 1.2.
            Error::PeerIncompatible(
                No::Tls12NotOffered
                | No::Tls12NotOfferedOrEnabled
                | No::SupportedVersionsExtensionRequired
                | No::SignatureAlgorithmsExtensionRequired,
            ) => Self::Version,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Self::Parameters,
            Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Self::ClientCertificate,
            Error::AlertReceived(_) => Self::Alert,
            _ => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::Identity;

    fn certificate(folder: &std::path::Path, names: &[&str]) -> Certificate {
        let (cert, key) = Identity::of(names).write(folder, names[0]);
        Certificate::load(&cert, &key).unwrap()
    }

    #[test]
    fn a_name_leads_to_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let names: [&[&str]; 4] = [
            &["first.example"],
            &["chat.example.com", "www.example.com"],
            &["*.example.com"],
            &["*.example.org", "example.org"],
        ];
        let certificates = names.map(|names| certificate(folder.path(), names));
        let shown = Shown::new(&certificates);
        let check = |name: Option<&str>, expected: usize| {
            let by_name = shown.by_name();
            assert!(Arc::ptr_eq(&by_name.find(name)[0], &certificates[expected].key), "{name:?}");
        };
        check(Some("chat.example.com"), 1);
        check(Some("CHAT.Example.com."), 1);
        check(Some("www.example.com"), 1);
        check(Some("other.example.com"), 2);
        check(Some("a.b.example.com"), 0);
        check(Some("example.com"), 0);
        check(Some("example.org"), 3);
        check(Some("x.example.org"), 3);
        check(Some("localhost"), 0);
        check(None, 0);
        shown.replace(&certificates[3..]);
        let by_name = shown.by_name();
        assert!(Arc::ptr_eq(&by_name.find(Some("chat.example.com"))[0], &certificates[3].key));
    }

    #[test]
    fn of_two_keys_for_a_name_the_client_gets_the_one_it_can_check() {
        let folder = tempfile::tempdir().unwrap();
        let one = certificate(folder.path(), &["a.example"]);
        let candidates = [one.key.clone()];
        for schemes in [&[SignatureScheme::ECDSA_NISTP256_SHA256][..], &[SignatureScheme::ED25519]] {
            assert!(best(&candidates, schemes).is_some());
        }
        assert!(best(&[], &[SignatureScheme::ED25519]).is_none());
    }

    #[test]
    fn reasons_stand_where_they_are_counted() {
        for (at, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, at, "{refusal:?}");
        }
    }
}

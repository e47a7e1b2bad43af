//! What is expected of servers: who they are, and who vouches for them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificates::provider;
use super::front::Version;

/// How the servers of an upstream are spoken to.
#[derive(Clone)]
pub struct Back {
    config: Arc<ClientConfig>,
    /// Who every one of them is; `None`: whatever its address is.
    name: Option<ServerName<'static>>,
}

/// Whom a server must be vouched for by.
#[derive(Clone, Debug)]
pub enum Trust {
    /// One of these.
    Authorities(Arc<RootCertStore>),
    /// Nobody: it may be anyone.
    Anyone,
}

impl Back {
    /// Servers that `trust` vouches for, who are all called `name`, and who are shown `certificate`
    /// when they ask for one.
    ///
    /// # Errors
    /// When rustls cannot work with it.
    pub fn new(
        trust: Trust,
        name: Option<ServerName<'static>>,
        certificate: Option<Arc<CertifiedKey>>,
    ) -> Result<Self, Error> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&Version::Tls12.and_newer())?;
        let builder = match trust {
            Trust::Authorities(authorities) => builder.with_root_certificates(authorities),
            Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(Whoever(provider))),
        };
        let mut config = match certificate {
            Some(certificate) => {
                let shown = SingleCertAndKey::from((*certificate).clone());
                builder.with_client_cert_resolver(Arc::new(shown))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), name })
    }

    /// What rustls needs for it.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// Who the server at `address` must be.
    pub fn name(&self, address: IpAddr) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }
}

impl fmt::Debug for Back {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Back").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What would be right when a server is not whom it should be.
pub fn advice(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "; if it is yours, set tls.ca of the upstream to the authority that has signed its certificate"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "; set tls.server_name of the upstream to the name in its certificate",
        Error::InvalidMessage(_) => "; it does not seem to speak TLS there",
        _ => "",
    }
}

/// Takes anybody's certificate. That whoever shows it has its key is still checked, for what it is
/// worth.
#[derive(Debug)]
struct Whoever(Arc<CryptoProvider>);

impl ServerCertVerifier for Whoever {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! What the tests of this module share.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The only cryptography there is.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate that signs itself, and its key.
pub(crate) struct Identity {
    pub(crate) cert: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    pub(crate) fn of(names: &[&str]) -> Self {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let signed = rcgen::generate_simple_self_signed(names).unwrap();
        Self { cert: signed.cert.der().clone(), key: signed.signing_key.serialize_der() }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }
}

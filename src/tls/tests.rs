//! What the tests of this module share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate that signs itself, and its key.
pub(crate) struct Identity {
    pub(crate) cert: CertificateDer<'static>,
    key: Vec<u8>,
    pem: (String, String),
}

impl Identity {
    pub(crate) fn of(names: &[&str]) -> Self {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let signed = rcgen::generate_simple_self_signed(names).unwrap();
        let pem = (signed.cert.pem(), signed.signing_key.serialize_pem());
        Self { cert: signed.cert.der().clone(), key: signed.signing_key.serialize_der(), pem }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }

    pub(crate) fn cert_pem(&self) -> String {
        self.pem.0.clone()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.pem.1.clone()
    }

    /// Writes both files, and says where.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&cert, self.cert_pem()).unwrap();
        fs::write(&key, self.key_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        (cert, key)
    }
}

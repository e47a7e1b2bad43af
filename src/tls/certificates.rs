//! Certificates as an operator has put them down: read, and checked as far as that is possible
//! without a client.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A chain of certificates, and the key of the first one.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What a client is shown.
    pub key: Arc<CertifiedKey>,
    /// The host names that it is good for, in lower case; one for all names below another begins
    /// with `*.`.
    pub names: Vec<String>,
    /// Whether it is good for addresses.
    pub has_address: bool,
    /// When it begins to be good for anything, and when it ends.
    pub valid: Validity,
    /// Where the chain stands.
    pub file: PathBuf,
    /// Where the key stands.
    pub key_file: PathBuf,
    /// Whether others than its owner and group may read the key.
    pub is_key_open: bool,
}

/// Which of the two files something is wrong with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// That with the chain.
    Cert,
    /// That with the key.
    Key,
}

impl Certificate {
    /// Reads a chain from `cert` and its key from `key`, in PEM.
    ///
    /// # Errors
    /// What is wrong, and with which file.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, (File, String)> {
        let chain = read_chain(cert).map_err(|error| (File::Cert, error))?;
        let (names, has_address, valid) = described(&chain[0]).map_err(|error| (File::Cert, error))?;
        let (private, is_key_open) = read_key(key).map_err(|error| (File::Key, error))?;
        let signing = provider().key_provider.load_private_key(private);
        let signing = signing
            .map_err(|_| (File::Key, "has a key of a kind that cannot be used; make an ECDSA or RSA key".into()))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => {
                return Err((File::Key, "is not the key of the certificate; give the two that belong together".into()));
            }
        }
        let (file, key_file) = (cert.to_owned(), key.to_owned());
        Ok(Self { key: Arc::new(certified), names, has_address, valid, file, key_file, is_key_open })
    }

    /// What the operator should know at `now`, one sentence each.
    pub fn concerns(&self, now: OffsetDateTime) -> Vec<String> {
        let mut concerns = Vec::new();
        let (file, key_file) = (self.file.display(), self.key_file.display());
        let (from, until) = self.valid;
        if now < from {
            concerns.push(format!("the certificate in {file} is not valid before {}", from.date()));
        } else if now > until {
            concerns.push(format!("the certificate in {file} has expired on {}; clients refuse it", until.date()));
        } else if until - now < time::Duration::DAY * SOON_DAYS {
            concerns.push(format!("the certificate in {file} expires on {}", until.date()));
        }
        if self.is_key_open {
            concerns.push(format!("{key_file} can be read by every user of this machine; chmod 600 it"));
        }
        concerns
    }
}

/// Days before its end that a certificate is spoken of.
const SOON_DAYS: i32 = 7;

/// The only cryptography there is.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The authorities in `file`, in PEM.
///
/// # Errors
/// What is wrong with it.
pub fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in read_chain(file)? {
        store.add(certificate).map_err(|_| "has a certificate that makes no sense; write it again".to_owned())?;
    }
    Ok(store)
}

/// The authorities that the system trusts.
///
/// # Errors
/// When it has none.
pub fn system_authorities() -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs().unwrap_or_default();
    // Old ones of a form that nobody accepts any more are left out.
    let (added, _) = store.add_parsable_certificates(found);
    if added == 0 {
        return Err("the system has no authorities to check servers by; install ca-certificates, or set ca".into());
    }
    Ok(store)
}

/// At least one certificate.
fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() && is_der(&text) => {
            Err("is not PEM but DER; convert it with openssl x509".into())
        }
        Ok(chain) if chain.is_empty() => Err("has no certificate; write one between BEGIN CERTIFICATE and END".into()),
        Ok(chain) => Ok(chain),
        Err(error) => Err(format!("is no PEM: {error}; write the certificate again")),
    }
}

/// The key, and whether others may read it.
fn read_key(file: &Path) -> Result<(PrivateKeyDer<'static>, bool), String> {
    let text = read(file)?;
    let has = |words: &str| String::from_utf8_lossy(&text).contains(words);
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        return Err("has a key that is encrypted; nobody could type its password: decrypt it with openssl pkey".into());
    }
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if is_der(&text) => "is not PEM but DER; convert it with openssl pkey".to_owned(),
        pem::Error::NoItemsFound => "has no private key; write one between BEGIN PRIVATE KEY and END".to_owned(),
        error => format!("is no PEM: {error}; write the key again"),
    })?;
    let others = fs::metadata(file).is_ok_and(|about| about.permissions().mode() & 0o004 != 0);
    Ok((key, others))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let size = fs::metadata(file).map_err(|error| unreadable(&error))?.len();
    if size > BYTES_MAX {
        return Err(format!("is larger than {BYTES_MAX} bytes; that is no certificate and no key"));
    }
    fs::read(file).map_err(|error| unreadable(&error))
}

/// The largest bundles of authorities have a few hundred kilobytes.
const BYTES_MAX: u64 = 4 << 20;

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

/// A sequence of DER with a long length, as all certificates and keys begin.
fn is_der(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, 0x81..=0x84, ..])
}

/// The names that a certificate is good for, whether it is for addresses too, and when.
fn described(certificate: &CertificateDer<'_>) -> Result<(Vec<String>, bool, Validity), String> {
    let senseless = || "has a certificate that makes no sense; write it again".to_owned();
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| senseless())?;
    let alternatives = parsed.subject_alternative_name().map_err(|_| senseless())?;
    let alternatives = alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let names = alternatives.iter().filter_map(dns_name).collect();
    let has_address = alternatives.iter().any(|name| matches!(name, GeneralName::IPAddress(_)));
    let validity = parsed.validity();
    Ok((names, has_address, (validity.not_before.to_datetime(), validity.not_after.to_datetime())))
}

/// From when to when something is good.
pub type Validity = (OffsetDateTime, OffsetDateTime);

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.trim_end_matches('.').to_ascii_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::Identity;

    #[track_caller]
    fn wrong(cert: &str, key: &str) -> (File, String) {
        let folder = tempfile::tempdir().unwrap();
        let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        fs::write(&cert_file, cert).unwrap();
        fs::write(&key_file, key).unwrap();
        Certificate::load(&cert_file, &key_file).unwrap_err()
    }

    #[test]
    fn a_certificate_tells_its_names_and_its_time() {
        let identity = Identity::of(&["Chat.example.com", "*.example.org", "192.0.2.1"]);
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = identity.write(folder.path(), "chat");
        let certificate = Certificate::load(&cert, &key).unwrap();
        assert_eq!(certificate.names, ["chat.example.com", "*.example.org"]);
        assert!(certificate.has_address);
        let (from, until) = certificate.valid;
        assert!(from < OffsetDateTime::UNIX_EPOCH + time::Duration::weeks(52 * 60) && from < until);
        assert!(certificate.concerns(until - time::Duration::days(30)).is_empty());
        let expires = certificate.concerns(until - time::Duration::days(3));
        assert!(expires[0].contains("expires on"), "{expires:?}");
        let expired = certificate.concerns(until + time::Duration::days(1));
        assert!(expired[0].contains("has expired on"), "{expired:?}");
        let not_yet = certificate.concerns(from - time::Duration::days(1));
        assert!(not_yet[0].contains("is not valid before"), "{not_yet:?}");
    }

    #[test]
    fn a_key_that_others_may_read_is_a_concern() {
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = Identity::of(&["a.example"]).write(folder.path(), "a");
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::weeks(52 * 56);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let concerns = Certificate::load(&cert, &key).unwrap().concerns(now);
        assert!(concerns[0].contains("can be read by every user"), "{concerns:?}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Certificate::load(&cert, &key).unwrap().concerns(now).is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_it_is_in() {
        let one = Identity::of(&["one.example"]);
        let other = Identity::of(&["other.example"]);
        let (cert, key) = (one.cert_pem(), one.key_pem());
        let check = |cert: &str, key: &str, file: File, words: &str| {
            let (at, text) = wrong(cert, key);
            assert_eq!(at, file, "{text}");
            assert!(text.contains(words), "{text}");
        };
        check("", &key, File::Cert, "has no certificate");
        check(&key, &key, File::Cert, "has no certificate");
        check("\u{30}", &key, File::Cert, "has no certificate");
        check(&cert.replace("MII", "???"), &key, File::Cert, "is no PEM");
        check(&cert, "", File::Key, "has no private key");
        check(&cert, &cert, File::Key, "has no private key");
        check(&cert, &other.key_pem(), File::Key, "is not the key of the certificate");
        let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
        check(&cert, locked, File::Key, "encrypted");
    }

    #[test]
    fn a_file_that_is_not_there_is_said_to_be_so() {
        let (file, text) =
            Certificate::load(Path::new("/nowhere/cert.pem"), Path::new("/nowhere/key.pem")).unwrap_err();
        assert_eq!(file, File::Cert);
        assert!(text.contains("cannot be read: No such file"), "{text}");
        assert!(authorities(Path::new("/nowhere/ca.pem")).unwrap_err().contains("cannot be read"));
    }
}

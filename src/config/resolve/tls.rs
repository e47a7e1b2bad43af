//! TLS: certificates and authorities, read from the files that the configuration names.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::RootCertStore;
use rustls::pki_types::ServerName;

use crate::config::mistakes::quoted;
use crate::config::reader::{Fields, Item};
use crate::config::{Tls, UpstreamTls};
use crate::tls::back::Trust;
use crate::tls::certificates::{self, File};
use crate::tls::front::Version;
use crate::tls::{Back, Certificate};

/// How a listener's clients encrypt.
pub(super) fn of_listener(listener: &mut Fields<'_>) -> Option<Tls> {
    let item = listener.optional("tls")?;
    if item.is_off() {
        return None;
    }
    let mut fields = item.fields(RIGHT)?;
    let list = fields.required("certificates", RIGHT_LIST).and_then(|item| item.list(RIGHT_LIST));
    let certificates = list.unwrap_or_default().iter().filter_map(shown).collect();
    let client_ca = fields.optional("client_ca").and_then(|item| authorities(&item));
    let min_version = fields.optional("min_version").and_then(|item| item.parse(RIGHT_VERSION, version));
    fields.finish(&[]);
    Some(Tls { certificates, client_ca, min_version: min_version.unwrap_or_default() })
}

/// How the servers of an upstream are spoken to.
pub(super) fn of_upstream(upstream: &mut Fields<'_>) -> Option<UpstreamTls> {
    let item = upstream.optional("tls")?;
    if item.is_off() {
        return None;
    }
    if item.is_on() {
        return back(&item, system(&item)?, None, None);
    }
    let mut fields = item.fields(RIGHT_UPSTREAM)?;
    let ca = fields.optional("ca");
    let verify = fields.optional("verify");
    let server_name = fields.optional("server_name");
    let (cert, key) = (fields.optional("cert"), fields.optional("key"));
    fields.finish(&[]);
    let is_verified = verify.as_ref().is_none_or(|item| !item.is_off());
    if let Some(verify) = verify.filter(|item| !item.is_off() && !item.is_on()) {
        verify.complain_of_type("write on or off");
    }
    let trust = match (&ca, is_verified) {
        (Some(item), true) => authorities(item).map(Trust::Authorities),
        (Some(item), false) => {
            item.complain("never asked, because verify is off; remove one of them");
            None
        }
        (None, true) => system(&item),
        (None, false) => Some(Trust::Anyone),
    };
    let server_name = server_name.and_then(|item| {
        let text = item.text(RIGHT_NAME)?;
        let name = ServerName::try_from(text.to_owned());
        item.kept(name.map_err(|_| format!("{} is no name; {RIGHT_NAME}", quoted(text))))
    });
    let certificate = match (&cert, &key) {
        (Some(cert), Some(key)) => certificate(cert, key),
        (Some(item), None) => {
            item.complain("there is no key for it; set key as well");
            None
        }
        (None, Some(item)) => {
            item.complain("there is no certificate for it; set cert as well");
            None
        }
        (None, None) => None,
    };
    back(&item, trust?, server_name, certificate)
}

fn back(
    item: &Item<'_>,
    trust: Trust,
    server_name: Option<ServerName<'static>>,
    certificate: Option<Certificate>,
) -> Option<UpstreamTls> {
    let is_verified = matches!(trust, Trust::Authorities(_));
    let key = certificate.as_ref().map(|certificate| certificate.key.clone());
    let back = Back::new(trust, server_name, key).map_err(|error| format!("cannot work: {error}"));
    Some(UpstreamTls { back: item.kept(back)?, is_verified, certificate })
}

const RIGHT_UPSTREAM: &str =
    "write on, off, or a mapping such as { ca: /etc/steadfast/internal-ca.pem, server_name: chat.internal }";

const RIGHT_NAME: &str = "write the name that the certificates of its servers are for, such as chat.internal";

/// The authorities of the system. They are read once.
fn system(item: &Item<'_>) -> Option<Trust> {
    static FOUND: OnceLock<Result<Arc<RootCertStore>, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| certificates::system_authorities().map(Arc::new));
    item.kept(found.clone()).map(Trust::Authorities)
}

const RIGHT: &str =
    "write a mapping such as { certificates: [{ cert: /etc/steadfast/chat.pem, key: /etc/steadfast/chat.key }] }";

const RIGHT_LIST: &str =
    "write a list of at least one, such as [{ cert: /etc/steadfast/chat.pem, key: /etc/steadfast/chat.key }]";

const RIGHT_VERSION: &str = "write \"1.2\" or \"1.3\"";

/// A certificate that clients are shown.
fn shown(item: &Item<'_>) -> Option<Certificate> {
    let mut fields =
        item.fields("write a mapping such as { cert: /etc/steadfast/chat.pem, key: /etc/steadfast/chat.key }")?;
    let cert = fields.required("cert", "write the absolute path of a chain of certificates in PEM");
    let key = fields.required("key", "write the absolute path of a private key in PEM");
    fields.finish(&[]);
    let (cert, key) = (cert?, key?);
    let certificate = certificate(&cert, &key)?;
    if certificate.names.is_empty() && !certificate.has_address {
        let shown = quoted(cert.text(RIGHT_PATH)?);
        cert.complain(format!(
            "{shown} has a certificate without names, which no client accepts; make one with a subjectAltName"
        ));
        return None;
    }
    Some(certificate)
}

/// The certificate of `cert` with the key of `key`.
fn certificate(cert: &Item<'_>, key: &Item<'_>) -> Option<Certificate> {
    let paths = (path(cert), path(key));
    let (cert_path, key_path) = (paths.0?, paths.1?);
    match Certificate::load(cert_path, key_path) {
        Ok(certificate) => Some(certificate),
        Err((file, text)) => {
            let (item, path) = match file {
                File::Cert => (cert, cert_path),
                File::Key => (key, key_path),
            };
            item.complain(format!("{} {text}", quoted(&path.to_string_lossy())));
            None
        }
    }
}

/// The authorities of a file.
fn authorities(item: &Item<'_>) -> Option<Arc<RootCertStore>> {
    let path = path(item)?;
    let read = certificates::authorities(path).map_err(|text| format!("{} {text}", quoted(&path.to_string_lossy())));
    item.kept(read).map(Arc::new)
}

const RIGHT_PATH: &str = "write the absolute path of a file in PEM";

fn path<'a>(item: &Item<'a>) -> Option<&'a Path> {
    let text = item.text(RIGHT_PATH)?;
    if !text.starts_with('/') {
        item.complain(format!("{} is not an absolute path; {RIGHT_PATH}", quoted(text)));
        return None;
    }
    Some(Path::new(text))
}

fn version(text: &str) -> Result<Version, String> {
    match text.trim_start_matches("TLSv").trim_start_matches("TLS ") {
        "1.2" => Ok(Version::Tls12),
        "1.3" => Ok(Version::Tls13),
        "1.0" | "1.1" | "1" => Err(format!("{} is broken, and not supported; {RIGHT_VERSION}", quoted(text))),
        _ => Err(format!("{} is no version of TLS; {RIGHT_VERSION}", quoted(text))),
    }
}

//! TLS: certificates, authorities and names.

use super::{complaint, with, with_chat};
use crate::tls::tests::Identity;

#[test]
fn a_listener_shows_certificates_that_clients_can_use() {
    let folder = tempfile::tempdir().unwrap();
    let write = |names: &[&str], name: &str| {
        let (cert, key) = Identity::of(names).write(folder.path(), name);
        (cert.display().to_string(), key.display().to_string())
    };
    let (cert, key) = write(&["chat.example.com"], "chat");
    let (_, other_key) = write(&["other.example.com"], "other");
    let (nameless, nameless_key) = write(&[], "nameless");
    let check = |value: &str, expected: &str| {
        let complaint = complaint(&with("listeners", &format!("[{{ bind: \"0.0.0.0:8080\", tls: {value} }}]")));
        assert_eq!(complaint, format!("1: listeners[0].tls{expected}"), "tls: {value}");
    };
    let mapping =
        "write a mapping such as { certificates: [{ cert: /etc/steadfast/chat.pem, key: /etc/steadfast/chat.key }] }";
    let list =
        "write a list of at least one, such as [{ cert: /etc/steadfast/chat.pem, key: /etc/steadfast/chat.key }]";
    check("on", &format!(": \"on\" is text; {mapping}"));
    check("{}", &format!(".certificates: missing; {list}"));
    check("{ certificates: [] }", &format!(".certificates: this list is empty; {list}"));
    check(
        "{ certificates: [/etc/a.pem] }",
        ".certificates[0]: \"/etc/a.pem\" is text; \
         write a mapping such as { cert: /etc/steadfast/chat.pem, key: /etc/steadfast/chat.key }",
    );
    check(
        &format!("{{ certificates: [{{ cert: {cert} }}] }}"),
        ".certificates[0].key: missing; write the absolute path of a private key in PEM",
    );
    check(
        &format!("{{ certificates: [{{ cert: chat.pem, key: {key} }}] }}"),
        ".certificates[0].cert: \"chat.pem\" is not an absolute path; write the absolute path of a file in PEM",
    );
    check(
        &format!("{{ certificates: [{{ cert: /nowhere/chat.pem, key: {key} }}] }}"),
        ".certificates[0].cert: \"/nowhere/chat.pem\" cannot be read: No such file or directory (os error 2)",
    );
    check(
        &format!("{{ certificates: [{{ cert: {cert}, key: {other_key} }}] }}"),
        &format!(
            ".certificates[0].key: \"{other_key}\" is not the key of the certificate; give the two that belong together"
        ),
    );
    check(
        &format!("{{ certificates: [{{ cert: {nameless}, key: {nameless_key} }}] }}"),
        &format!(
            ".certificates[0].cert: \"{nameless}\" has a certificate without names, which no client accepts; \
             make one with a subjectAltName"
        ),
    );
    let right = format!("certificates: [{{ cert: {cert}, key: {key} }}]");
    check(
        &format!("{{ {right}, client_ca: {key} }}"),
        &format!(".client_ca: \"{key}\" has no certificate; write one between BEGIN CERTIFICATE and END"),
    );
    check(
        &format!("{{ {right}, min_version: 1.1 }}"),
        ".min_version: \"1.1\" is broken, and not supported; write \"1.2\" or \"1.3\"",
    );
    check(
        &format!("{{ {right}, min_version: newest }}"),
        ".min_version: \"newest\" is no version of TLS; write \"1.2\" or \"1.3\"",
    );
    check(
        &format!("{{ {right}, client_cas: x }}"),
        ".client_cas: unknown key; did you mean \"client_ca\"? (known here: certificates, client_ca, min_version)",
    );
}

#[test]
fn servers_are_checked_in_a_way_that_can_work() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, _) = Identity::of(&["chat.internal"]).write(folder.path(), "chat");
    let cert = cert.display();
    let check = |value: &str, expected: &str| {
        let complaint = complaint(&with_chat("tls", value));
        assert_eq!(complaint, format!("2: upstreams.chat.tls{expected}"), "tls: {value}");
    };
    let mapping =
        "write on, off, or a mapping such as { ca: /etc/steadfast/internal-ca.pem, server_name: chat.internal }";
    check("yes please", &format!(": \"yes please\" is text; {mapping}"));
    check("{ ca: /nowhere/ca.pem }", ".ca: \"/nowhere/ca.pem\" cannot be read: No such file or directory (os error 2)");
    check(&format!("{{ ca: {cert}, verify: off }}"), ".ca: never asked, because verify is off; remove one of them");
    check("{ verify: never }", ".verify: \"never\" is text; write on or off");
    check(
        "{ verify: off, server_name: \"chat internal\" }",
        ".server_name: \"chat internal\" is no name; \
         write the name that the certificates of its servers are for, such as chat.internal",
    );
    check(&format!("{{ verify: off, cert: {cert} }}"), ".cert: there is no key for it; set key as well");
    check(&format!("{{ verify: off, key: {cert} }}"), ".key: there is no certificate for it; set cert as well");
}

//! Tags: the name of a server, hidden in a few characters that a client carries for us.
//!
//! Whoever holds the same [`Secret`] can read a tag, so any proxy of a fleet finds the server of a
//! session without a table. A tag is bound to the session id it was made for, and tells nobody
//! else which server it names, nor which sessions share one. It protects nothing: a forged tag
//! is merely none, and then the next source of affinity decides.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What tags are keyed with.
#[derive(Clone)]
pub struct Secret(Hmac<Sha256>);

/// What stands for a server in tags: the same for all proxies that share a secret and call the
/// server by the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerTag([u8; SERVER]);

/// Bytes for the server. Five make it a matter of one in ten million that any two of 300 servers
/// share a tag.
const SERVER: usize = 5;

/// Bytes by which a tag is told from other text.
const CHECK: usize = 3;

/// Characters of a sealed tag.
pub const LENGTH: usize = 11;

impl Secret {
    /// A secret of any length; 16 bytes and more make it worth the name.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Hmac::new_from_slice(bytes).expect("HMAC takes keys of any length"))
    }

    /// What stands for the server called `name`.
    pub fn server(&self, name: &str) -> ServerTag {
        ServerTag(self.mac(b"server", &[name.as_bytes()]))
    }

    /// The tag that names `server` for the session `id`.
    pub fn seal(&self, id: &[u8], server: ServerTag) -> String {
        let hidden = self.hide(id, server.0);
        let check: [u8; CHECK] = self.mac(b"check", &[&hidden, id]);
        BASE64_URL_SAFE_NO_PAD.encode([&hidden[..], &check].concat())
    }

    /// The server that `tag` names for the session `id`, if it was made for that id with this
    /// secret.
    pub fn open(&self, id: &[u8], tag: &str) -> Option<ServerTag> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        let (hidden, check) = bytes.split_first_chunk::<SERVER>()?;
        let expected: [u8; CHECK] = self.mac(b"check", &[hidden, id]);
        (check == expected).then(|| ServerTag(self.hide(id, *hidden)))
    }

    /// Hides a server's tag behind a mask of the id, or takes the mask off again.
    fn hide(&self, id: &[u8], server: [u8; SERVER]) -> [u8; SERVER] {
        let mask: [u8; SERVER] = self.mac(b"mask", &[id]);
        std::array::from_fn(|at| server[at] ^ mask[at])
    }

    /// The first bytes of the HMAC-SHA-256 (RFC 2104) of `parts`. `purpose` keeps uses apart; all
    /// parts but the last have a fixed length, so none can pass for another.
    fn mac<const N: usize>(&self, purpose: &[u8], parts: &[&[u8]]) -> [u8; N] {
        let mut mac = self.0.clone();
        mac.update(purpose);
        mac.update(b":");
        for part in parts {
            mac.update(part);
        }
        let bytes = mac.finalize().into_bytes();
        std::array::from_fn(|at| bytes[at])
    }
}

/// Whether `text` has the shape of a sealed tag, whoever made it.
pub(super) fn looks_sealed(text: &str) -> bool {
    text.len() == LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_its_server_to_whoever_has_the_secret() {
        let (ours, same, other) = (Secret::new(b"a secret"), Secret::new(b"a secret"), Secret::new(b"another"));
        for name in ["a", "b", "10.0.20.11:3000"] {
            let tag = ours.seal(b"session", ours.server(name));
            assert_eq!(tag.len(), LENGTH);
            assert_eq!(same.open(b"session", &tag), Some(ours.server(name)));
            assert_eq!(ours.open(b"another session", &tag), None);
            assert_eq!(other.open(b"session", &tag), None);
        }
    }

    /// Part of the wire contract of a fleet: other versions must read and write the same.
    #[test]
    fn tags_are_what_they_have_always_been() {
        let secret = Secret::new(b"0123456789abcdef");
        assert_eq!(secret.seal(b"lv_VI97HAXpY6yYWAAAC", secret.server("red")), "b6h4J1sy_JQ");
    }

    #[test]
    fn sessions_of_one_server_do_not_look_alike() {
        let secret = Secret::new(b"a secret");
        let tags = ["s1", "s2", "s3"].map(|id| secret.seal(id.as_bytes(), secret.server("a")));
        assert!(tags[0] != tags[1] && tags[1] != tags[2]);
        assert_ne!(tags[0][..6], tags[1][..6]);
    }

    #[test]
    fn what_is_no_tag_names_nobody() {
        let secret = Secret::new(b"a secret");
        let tag = secret.seal(b"session", secret.server("a"));
        for text in ["", "x", "AAAAAAAAAAA", "~~~~~~~~~~~", &tag[..10], &format!("{tag}A"), &tag.to_uppercase()] {
            assert_eq!(secret.open(b"session", text), None, "{text:?}");
        }
    }

    #[test]
    fn debug_does_not_leak_the_secret() {
        assert_eq!(format!("{:?}", Secret::new(b"a secret")), "Secret");
    }
}

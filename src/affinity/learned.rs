//! Sessions that a server issues and that carry no tag of ours: who issued them must be learned.
//!
//! What names such a session may be a secret, and may be long, so nobody remembers it: a store
//! gets [`SessionId`]s and [`ServerName`]s, which are digests of a fixed size, and the same on
//! every machine and in every version.

use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

/// Names a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// The session that `value` names where it was found: in `cookie:sid`, for one. Half of the
    /// SHA-256 digest of both.
    pub fn of(place: &str, value: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(place).chain_update([0]).chain_update(value).finalize();
        Self(std::array::from_fn(|at| digest[at]))
    }

    /// Its bytes, each as good as random.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Stands for the name of a server: its XXH64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerName(u64);

impl ServerName {
    /// What stands for `name`.
    pub fn of(name: &str) -> Self {
        Self(XxHash64::oneshot(0, name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_its_place_and_its_value() {
        let id = SessionId::of("cookie:sid", b"a");
        assert_eq!(id, SessionId::of("cookie:sid", b"a"));
        for (place, value) in [("cookie:sid", "b"), ("cookie:si", "a"), ("cookie:", "sid\0a"), ("query:sid", "a")] {
            assert_ne!(id, SessionId::of(place, value.as_bytes()), "{place} {value}");
        }
    }

    #[test]
    fn names_are_the_same_everywhere() {
        // printf 'cookie:sid\0lv_VI97HAXpY6yYWAAAC' | sha256sum
        let id = SessionId::of("cookie:sid", b"lv_VI97HAXpY6yYWAAAC");
        let hex: String = id.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "ec84dd3d470bd0aee4bf7bd64ddfc670");
        assert_eq!(ServerName::of("chat-1"), ServerName(0xf493_9f0a_0edb_ec0f));
    }
}

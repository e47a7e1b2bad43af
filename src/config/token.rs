//! What somebody has to know. Kept so that neither a log nor the time it takes to compare gives it away.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A token that requests have to bring.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// Fewer bytes can be guessed.
    pub const BYTES_MIN: usize = 16;

    /// Of visible ASCII, because it has to fit into a field; `None` when it is not, or too short.
    pub fn new(token: &[u8]) -> Option<Self> {
        let is_fine = token.len() >= Self::BYTES_MIN && token.iter().all(u8::is_ascii_graphic);
        is_fine.then(|| Self(keyed(token).finalize().into_bytes().into()))
    }

    /// Whether `given` is it, in a time that tells nothing of how much of it is right.
    pub fn is(&self, given: &[u8]) -> bool {
        keyed(given).verify_slice(&self.0).is_ok()
    }
}

fn keyed(token: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::new_from_slice(token).expect("HMAC takes keys of any length");
    mac.update(b"token");
    mac
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let token = Token::new(b"0123456789abcdef").expect("long enough");
        assert!(token.is(b"0123456789abcdef"));
        for other in [&b""[..], b"0123456789abcde", b"0123456789abcdeF", b"0123456789abcdef0", b" 0123456789abcdef"] {
            assert!(!token.is(other));
        }
        for wrong in [&b"0123456789abcde"[..], b"0123456789 abcdef", b"0123456789abcdef\n"] {
            assert_eq!(Token::new(wrong), None);
        }
        assert_eq!(format!("{token:?}"), "Token");
    }
}

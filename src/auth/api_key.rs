//! API keys: how they look, and what is kept of them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// How every key begins, so that people and scanners of leaked secrets know one.
pub const BEGINS: &str = "svk_";
/// Random bytes of a key.
pub const RANDOM_BYTES: usize = 32;
/// Characters of a key that are shown in lists.
const PREFIX_CHARS: usize = BEGINS.len() + 8;

/// SHA-256 of a key: what is kept. 256 random bits cannot be guessed, so nothing slower is needed.
pub type KeyHash = [u8; 32];

/// The key made of random bytes.
pub fn key_of(random: &[u8; RANDOM_BYTES]) -> String {
    format!("{BEGINS}{}", URL_SAFE_NO_PAD.encode(random))
}

/// How a key begins.
pub fn prefix_of(key: &str) -> &str {
    key.get(..PREFIX_CHARS).unwrap_or(key)
}

/// What is kept of a key.
pub fn hash_of(key: &[u8]) -> KeyHash {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_beginning_and_its_hash() {
        let key = key_of(&[0xa5; RANDOM_BYTES]);
        assert_eq!(key.len(), 47);
        assert_eq!(prefix_of(&key), "svk_paWlpaWl");
        assert_ne!(hash_of(key.as_bytes()), hash_of(key_of(&[0xa4; RANDOM_BYTES]).as_bytes()));
        assert_eq!(prefix_of("svk"), "svk");
    }
}

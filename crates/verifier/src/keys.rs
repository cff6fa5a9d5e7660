//! The verification keys: each under its key id, each for one algorithm.

use std::collections::HashMap;

use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use thiserror::Error;

/// Most keys a set holds.
pub const MAX_KEYS: usize = 128;

/// Longest key id, in bytes.
pub const MAX_KID_BYTES: usize = 128;

/// What an uncompressed point begins with.
const UNCOMPRESSED: u8 = 4;

/// Sizes of an RSA modulus: shorter ones can be broken, longer ones cost time for nothing.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// 65537.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// Verification keys by key id (`kid`).
///
/// A set only ever grows by its own methods; nothing a token says is looked up elsewhere or kept.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, Key>,
}

/// Why a key or a JWK set was not taken. Like [`Rejection`](crate::Rejection), no message repeats input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// The document is longer than [`MAX_JWKS_BYTES`](crate::MAX_JWKS_BYTES).
    #[error("JWK set too large")]
    TooLarge,
    /// More than [`MAX_KEYS`] entries.
    #[error("too many keys")]
    TooMany,
    /// Not a JWK set (RFC 7517 §5); the text says which rule.
    #[error("malformed JWK set: {0}")]
    Malformed(&'static str),
    /// An entry has a member that only private or symmetric keys have. Whoever published it has
    /// leaked the key, so nothing in the set is taken.
    #[error("JWK set contains private or symmetric key material")]
    PrivateMaterial,
    /// The key id is missing, empty or longer than [`MAX_KID_BYTES`].
    #[error("key id missing, empty or too long")]
    KeyId,
    /// Two keys have the same key id.
    #[error("two keys with the same key id")]
    DuplicateKeyId,
    /// The key is declared for another use or algorithm than verifying signatures of its kind.
    #[error("key is not declared for verifying signatures of its kind")]
    Use,
    /// The key has a wrong length or form, or is one for which signatures can be made up.
    #[error("not an acceptable public key")]
    PublicKey,
}

impl KeySet {
    /// An empty set, which refuses every token.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a raw Ed25519 public key (RFC 8032 §5.1.5).
    ///
    /// # Errors
    /// [`KeySetError::KeyId`], [`DuplicateKeyId`](KeySetError::DuplicateKeyId),
    /// [`TooMany`](KeySetError::TooMany) or [`PublicKey`](KeySetError::PublicKey); the set is then unchanged.
    pub fn insert_ed25519(&mut self, kid: &str, public: &[u8; 32]) -> Result<(), KeySetError> {
        self.may_take(kid)?;
        if has_small_order(public) {
            return Err(KeySetError::PublicKey);
        }
        self.keys.insert(kid.to_owned(), Key::ed25519(public));
        Ok(())
    }

    /// Adds a public key of ECDSA on P-256 with SHA-256: an uncompressed point (SEC 1 §2.3.3). One that is not on the curve
    /// verifies nothing.
    ///
    /// # Errors
    /// As [`insert_ed25519`](Self::insert_ed25519).
    pub fn insert_es256(&mut self, kid: &str, point: &[u8; 65]) -> Result<(), KeySetError> {
        self.may_take(kid)?;
        if point.first() != Some(&UNCOMPRESSED) {
            return Err(KeySetError::PublicKey);
        }
        self.keys.insert(kid.to_owned(), Key::es256(point));
        Ok(())
    }

    /// Adds a public key of RSASSA-PKCS1-v1_5 with SHA-256: modulus and exponent, big-endian without leading zeros
    /// (RFC 7518 §6.3.1). The modulus has 2048 to 4096 bits, the exponent is 65537.
    ///
    /// # Errors
    /// As [`insert_ed25519`](Self::insert_ed25519).
    pub fn insert_rs256(&mut self, kid: &str, modulus: &[u8], exponent: &[u8]) -> Result<(), KeySetError> {
        self.may_take(kid)?;
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        let odd = modulus.last().is_some_and(|last| last % 2 == 1);
        if modulus.first() == Some(&0) || !RSA_BITS.contains(&bits) || !odd || exponent != RSA_EXPONENT {
            return Err(KeySetError::PublicKey);
        }
        self.keys.insert(kid.to_owned(), Key::rs256(modulus, exponent));
        Ok(())
    }

    fn may_take(&self, kid: &str) -> Result<(), KeySetError> {
        if kid.is_empty() || kid.len() > MAX_KID_BYTES {
            return Err(KeySetError::KeyId);
        }
        if self.keys.contains_key(kid) {
            return Err(KeySetError::DuplicateKeyId);
        }
        if self.keys.len() >= MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        Ok(())
    }

    /// The key ids, in no particular order.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key, so that no token can pass.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }
}

/// One key and the one algorithm it serves; the token has no say in that (RFC 8725 §3.1).
#[derive(Debug, Clone)]
pub(crate) struct Key {
    algorithm: Algorithm,
    /// Names a token's `alg` may give, compared exactly.
    names: &'static [&'static str],
    public: DecodingKey,
}

impl Key {
    fn ed25519(public: &[u8; 32]) -> Self {
        Self {
            algorithm: Algorithm::EdDSA,
            // The second is the fully-specified name of RFC 9864 §2.2.
            names: &["EdDSA", "Ed25519"],
            public: DecodingKey::from_ed_der(public),
        }
    }

    fn es256(point: &[u8; 65]) -> Self {
        Self { algorithm: Algorithm::ES256, names: &["ES256"], public: DecodingKey::from_ec_der(point) }
    }

    fn rs256(modulus: &[u8], exponent: &[u8]) -> Self {
        let public = DecodingKey::from_rsa_raw_components(modulus, exponent);
        Self { algorithm: Algorithm::RS256, names: &["RS256"], public }
    }

    pub(crate) fn serves(&self, alg: &str) -> bool {
        self.names.contains(&alg)
    }

    /// Whether `signature` is this key's signature over exactly `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &Vec<u8>) -> bool {
        // The backend is named instead of taking the process-wide default: that one panics as soon as some
        // other crate in the build enables a second backend.
        (DEFAULT_PROVIDER.verifier_factory)(&self.algorithm, &self.public)
            .is_ok_and(|verifier| verifier.algorithm() == self.algorithm && verifier.verify(message, signature).is_ok())
    }
}

/// Whether the encoding, sign bit aside, is one of the points of order 1, 2, 4 or 8. Under such a key
/// anyone can make signatures that hold; 32 zero bytes, the likeliest accident, are one of them.
fn has_small_order(public: &[u8; 32]) -> bool {
    let mut y = *public;
    if let Some(last) = y.last_mut() {
        *last &= 0x7f;
    }
    SMALL_ORDER.contains(&y)
}

/// y coordinates, little-endian: 0, 1, p-1, their unreduced twins p and p+1, and the two of order 8.
#[rustfmt::skip]
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    near_p(0xec),
    near_p(0xed),
    near_p(0xee),
    [0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
     0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05],
    [0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
     0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a],
];

/// The encoding of p = 2^255 - 19 with another lowest byte (its own is `0xed`).
const fn near_p(lowest: u8) -> [u8; 32] {
    let mut y = [0xff; 32];
    let [first, .., last] = &mut y;
    *first = lowest;
    *last = 0x7f;
    y
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

    use super::*;

    fn signing() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    #[test]
    fn a_key_verifies_its_own_signature_only() {
        let key = Key::ed25519(signing().verifying_key().as_bytes());
        let signature = signing().sign(b"message").to_bytes().to_vec();
        assert!(key.verifies(b"message", &signature));
        assert!(!key.verifies(b"Message", &signature));
        assert!(!key.verifies(b"", &signature));
        for bit in 0..signature.len() * 8 {
            let mut other = signature.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verifies(b"message", &other), "bit {bit}");
        }
        for wrong in [vec![], vec![0; 64], vec![0xff; 64], signature[..63].to_vec(), [&signature[..], b"\0"].concat()] {
            assert!(!key.verifies(b"message", &wrong));
        }
    }

    /// The group order L, little-endian (RFC 8032 §5.1).
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    #[test]
    fn a_signature_has_one_spelling() {
        let key = Key::ed25519(signing().verifying_key().as_bytes());
        let mut signature = signing().sign(b"message").to_bytes().to_vec();
        // S + L, S + 2L, ... satisfy the same equation and must be refused (RFC 8032 §5.1.7).
        for multiple in 1..=7 {
            let mut carry = 0u16;
            for (s, l) in signature[32..].iter_mut().zip(ORDER) {
                let sum = u16::from(*s) + u16::from(l) + carry;
                *s = (sum & 0xff) as u8;
                carry = sum >> 8;
            }
            assert_eq!(carry, 0);
            assert!(!key.verifies(b"message", &signature), "S + {multiple}L");
        }
    }

    #[test]
    fn only_its_own_algorithm_names_are_served() {
        let key = Key::ed25519(signing().verifying_key().as_bytes());
        assert!(key.serves("EdDSA") && key.serves("Ed25519"));
        for alg in ["", "eddsa", "EDDSA", "EdDSA ", " EdDSA", "ed25519", "Ed448", "none", "HS256", "EdDSA\0"] {
            assert!(!key.serves(alg), "{alg:?}");
        }
    }

    #[test]
    fn points_of_small_order_are_no_keys() {
        for y in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut encoding = y;
                encoding[31] |= sign;
                let point = VerifyingKey::from_bytes(&encoding).unwrap();
                assert!(point.is_weak(), "{encoding:02x?}");
                let mut keys = KeySet::new();
                assert_eq!(keys.insert_ed25519("k", &encoding), Err(KeySetError::PublicKey));
                assert!(keys.is_empty());
            }
        }
        assert!(!has_small_order(signing().verifying_key().as_bytes()));
    }

    #[test]
    fn a_key_id_is_short_and_taken_once() {
        let public = signing().verifying_key().to_bytes();
        let mut keys = KeySet::new();
        assert_eq!(keys.insert_ed25519("", &public), Err(KeySetError::KeyId));
        let long = "k".repeat(MAX_KID_BYTES + 1);
        assert_eq!(keys.insert_ed25519(&long, &public), Err(KeySetError::KeyId));
        assert_eq!(keys.insert_ed25519(&long[1..], &public), Ok(()));
        assert_eq!(keys.insert_ed25519(&long[1..], &public), Err(KeySetError::DuplicateKeyId));
        assert_eq!(keys.kids().collect::<Vec<_>>(), [&long[1..]]);
    }

    #[test]
    fn a_set_is_bounded() {
        let public = signing().verifying_key().to_bytes();
        let mut keys = KeySet::new();
        for n in 0..MAX_KEYS {
            keys.insert_ed25519(&n.to_string(), &public).unwrap();
        }
        assert_eq!(keys.insert_ed25519("more", &public), Err(KeySetError::TooMany));
        assert_eq!(keys.len(), MAX_KEYS);
    }
}

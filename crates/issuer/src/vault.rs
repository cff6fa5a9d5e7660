//! Sealing at rest: AES-256-GCM-SIV under a key derived from the master key for each purpose.
//!
//! The associated data names the place of the sealed value, so a value copied to another row does not open there.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, Zeroizing};

use crate::random::Random;

/// Format of sealed values: version, 12 bytes of nonce, ciphertext with tag.
const SEAL_VERSION: u8 = 1;
const NONCE_LENGTH: usize = 12;

/// 32 bytes under which everything secret is sealed.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A new one.
    #[must_use]
    pub fn generate(random: &Random) -> Self {
        Self(Zeroizing::new(random.bytes()))
    }

    /// Reads base64 (with or without padding) of 32 bytes; white space around it is ignored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut bytes = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new);
        bytes.zeroize();
        key.map(Self)
    }

    /// As [`MasterKey::parse`] reads it, for the file that a trial run keeps.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(REDACTED)")
    }
}

/// Seals and opens.
pub struct Vault {
    key: LessSafeKey,
}

/// A value that does not open: another master key, another place, or damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed value does not open under this master key")]
pub struct DoesNotOpen;

struct KeyLength;
impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

impl Vault {
    /// A vault for one purpose. Values of another purpose do not open in it.
    pub fn new(master: &MasterKey, purpose: &str) -> Result<Self, DoesNotOpen> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"claviger");
        let derived = salt.extract(master.0.as_slice());
        let info = [purpose.as_bytes()];
        let mut bytes = Zeroizing::new([0; 32]);
        derived.expand(&info, KeyLength).and_then(|key| key.fill(bytes.as_mut_slice())).map_err(|_| DoesNotOpen)?;
        Self::under(&bytes)
    }

    /// A vault under a key that is used for nothing else.
    pub(crate) fn under(key: &[u8; 32]) -> Result<Self, DoesNotOpen> {
        let key = UnboundKey::new(&AES_256_GCM_SIV, key).map_err(|_| DoesNotOpen)?;
        Ok(Self { key: LessSafeKey::new(key) })
    }

    /// Seals a value for its place.
    pub fn seal(&self, place: &str, value: &[u8], random: &Random) -> Result<Vec<u8>, DoesNotOpen> {
        let nonce: [u8; NONCE_LENGTH] = random.bytes();
        let mut sealed = Zeroizing::new(value.to_vec());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place.as_bytes()), &mut *sealed)
            .map_err(|_| DoesNotOpen)?;
        Ok([&[SEAL_VERSION], nonce.as_slice(), sealed.as_slice()].concat())
    }

    /// Opens a value at its place.
    pub fn open(&self, place: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        let (version, rest) = sealed.split_first().ok_or(DoesNotOpen)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LENGTH>().ok_or(DoesNotOpen)?;
        if *version != SEAL_VERSION {
            return Err(DoesNotOpen);
        }
        let mut value = Zeroizing::new(sealed.to_vec());
        let length = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(place.as_bytes()), &mut value)
            .map_err(|_| DoesNotOpen)?
            .len();
        value.truncate(length);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_at_its_place_for_its_purpose_under_its_key_and_undamaged() {
        let random = Random::from_system();
        let master = MasterKey::generate(&random);
        let vault = Vault::new(&master, "signing").unwrap();
        let sealed = vault.seal("row 1", b"secret", &random).unwrap();
        assert_eq!(vault.open("row 1", &sealed).unwrap().as_slice(), b"secret");
        assert!(vault.open("row 2", &sealed).is_err());
        assert!(Vault::new(&master, "other").unwrap().open("row 1", &sealed).is_err());
        assert!(Vault::new(&MasterKey::generate(&random), "signing").unwrap().open("row 1", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(vault.open("row 1", &damaged).is_err(), "{at}");
            assert!(vault.open("row 1", &sealed[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn a_master_key_is_32_bytes_of_base64_and_never_printed() {
        let key = MasterKey::generate(&Random::from_system());
        let text = key.to_base64();
        assert_eq!(MasterKey::parse(&format!(" {}\n", *text)).unwrap().0, key.0);
        assert!(MasterKey::parse("c2hvcnQ=").is_none());
        assert!(!format!("{key:?}").contains(text.as_str()));
    }
}

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

/// 32 bytes under which everything secret is sealed; and, while it changes, others that open what is sealed too.
#[derive(Clone)]
pub struct MasterKey {
    bytes: Zeroizing<[u8; 32]>,
    others: Vec<Zeroizing<[u8; 32]>>,
}

impl MasterKey {
    /// A new one.
    #[must_use]
    pub fn generate(random: &Random) -> Self {
        Self { bytes: Zeroizing::new(random.bytes()), others: Vec::new() }
    }

    /// Opens also what is sealed under the other key.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.others.push(other.bytes.clone());
        self.others.extend(other.others.iter().cloned());
        self
    }

    /// Reads base64 (with or without padding) of 32 bytes; white space around it is ignored.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut bytes = STANDARD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?;
        let key = <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new);
        bytes.zeroize();
        key.map(|bytes| Self { bytes, others: Vec::new() })
    }

    /// As [`MasterKey::parse`] reads it, for the file that a trial run keeps.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.bytes.as_slice()))
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
    /// Open, and seal nothing.
    others: Vec<LessSafeKey>,
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
        let derive = |master: &[u8; 32]| {
            let derived = salt.extract(master);
            let info = [purpose.as_bytes()];
            let mut bytes = Zeroizing::new([0; 32]);
            derived.expand(&info, KeyLength).and_then(|key| key.fill(bytes.as_mut_slice())).map_err(|_| DoesNotOpen)?;
            parse(&bytes)
        };
        let others = master.others.iter().map(|other| derive(other)).collect::<Result<_, _>>()?;
        Ok(Self { key: derive(&master.bytes)?, others })
    }

    /// A vault under a key that is used for nothing else.
    pub(crate) fn under(key: &[u8; 32]) -> Result<Self, DoesNotOpen> {
        Ok(Self { key: parse(key)?, others: Vec::new() })
    }

    /// Seals a value for its place.
    pub fn seal(&self, place: &str, value: &[u8], random: &Random) -> Result<Vec<u8>, DoesNotOpen> {
        self.seal_with(random.bytes(), place, value)
    }

    /// As [`Vault::seal`], with the same outcome each time: whoever sees two values sealed for one place sees whether they are
    /// equal, and nothing else (RFC 8452 §1).
    pub(crate) fn seal_alike(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
        self.seal_with([0; NONCE_LENGTH], place, value)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LENGTH], place: &str, value: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
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
        let open = |key: &LessSafeKey| -> Result<_, DoesNotOpen> {
            let mut value = Zeroizing::new(sealed.to_vec());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let length = key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut value).map_err(|_| DoesNotOpen)?.len();
            value.truncate(length);
            Ok(value)
        };
        std::iter::once(&self.key).chain(&self.others).find_map(|key| open(key).ok()).ok_or(DoesNotOpen)
    }
}

fn parse(key: &[u8; 32]) -> Result<LessSafeKey, DoesNotOpen> {
    let key = UnboundKey::new(&AES_256_GCM_SIV, key).map_err(|_| DoesNotOpen)?;
    Ok(LessSafeKey::new(key))
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
    fn while_the_master_key_changes_both_open_and_the_first_one_seals() {
        let random = Random::from_system();
        let (old, new) = (MasterKey::generate(&random), MasterKey::generate(&random));
        let vault = |key: &MasterKey| Vault::new(key, "signing").unwrap();
        let both = vault(&new.clone().or(&old));
        let before = vault(&old).seal("row", b"secret", &random).unwrap();
        assert_eq!(both.open("row", &before).unwrap().as_slice(), b"secret");
        let after = both.seal("row", b"secret", &random).unwrap();
        assert!(vault(&new).open("row", &after).is_ok() && vault(&old).open("row", &after).is_err());
        assert!(both.open("another row", &before).is_err());
    }

    #[test]
    fn a_master_key_is_32_bytes_of_base64_and_never_printed() {
        let key = MasterKey::generate(&Random::from_system());
        let text = key.to_base64();
        assert_eq!(MasterKey::parse(&format!(" {}\n", *text)).unwrap().bytes, key.bytes);
        assert!(MasterKey::parse("c2hvcnQ=").is_none());
        assert!(!format!("{key:?}").contains(text.as_str()));
    }
}

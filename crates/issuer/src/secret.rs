//! Keys and secrets: how they are made, read and compared.
//!
//! `ck_` + 128 random bits + CRC-32, and `cs_` + 256 random bits + CRC-32, all in base62. The checksum catches a typo
//! before any lookup, and lets scanners tell our secrets from noise. Imported pairs have any form.

use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_store::api_key::{KeptSecret, SecretMac};
use claviger_store::id::KeyId;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::installation::InstallationSecret;
use crate::random::Random;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^6 > 2^32.
const CHECKSUM_LENGTH: usize = 6;
/// Longest secret that is looked at, in bytes.
const LONGEST_SECRET: usize = 256;
/// Shortest secret that may be imported, in bytes: what fewer could hold is guessable.
pub const SHORTEST_IMPORTED_SECRET: usize = 22;

/// A new key id.
#[must_use]
pub fn new_key_id(brand: &str, random: &Random) -> Option<KeyId> {
    KeyId::parse(&with_checksum(&format!("{brand}k_"), &random.bytes::<16>(), 22))
}

/// True for a key id that begins as ours do: nobody else made it.
pub(crate) fn is_own_key(id: &KeyId, brand: &str) -> bool {
    id.as_str().strip_prefix(brand).is_some_and(|rest| rest.starts_with("k_"))
}

/// A new secret.
#[must_use]
pub fn new_secret(brand: &str, random: &Random) -> SecretString {
    let bytes = Zeroizing::new(random.bytes::<32>());
    SecretString::from(with_checksum(&format!("{brand}s_"), bytes.as_slice(), 43))
}

/// A new one-time ticket for a WebSocket.
#[must_use]
pub(crate) fn new_ticket(brand: &str, random: &Random) -> SecretString {
    let bytes = Zeroizing::new(random.bytes::<32>());
    SecretString::from(with_checksum(&format!("{brand}t_"), bytes.as_slice(), 43))
}

/// A new one-time link's secret part.
#[must_use]
pub(crate) fn new_link(brand: &str, random: &Random) -> SecretString {
    let bytes = Zeroizing::new(random.bytes::<32>());
    SecretString::from(with_checksum(&format!("{brand}l_"), bytes.as_slice(), 43))
}

/// True for what has the form of a ticket.
pub(crate) fn is_ticket(text: &str, brand: &str) -> bool {
    let prefix = format!("{brand}t_");
    text.starts_with(&prefix) && !text.contains(['.', ':']) && plausible(text, &prefix)
}

fn with_checksum(prefix: &str, bytes: &[u8], length: usize) -> String {
    let body = base62(bytes, length);
    let checksum = base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH);
    format!("{prefix}{body}{checksum}")
}

/// A big-endian number in base62, padded to `length` digits.
fn base62(bytes: &[u8], length: usize) -> String {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut digits: Vec<char> = Vec::with_capacity(length);
    for _ in 0..length {
        let mut remainder = 0_u16;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u16::from(*byte);
            *byte = u8::try_from(value / 62).unwrap_or(0);
            remainder = value % 62;
        }
        digits.push(char::from(*DIGITS.get(usize::from(remainder)).unwrap_or(&b'0')));
    }
    digits.iter().rev().collect()
}

/// True unless the text has our prefix and a checksum that does not fit: then it is a typo.
fn plausible(text: &str, prefix: &str) -> bool {
    let Some(rest) = text.strip_prefix(prefix) else { return true };
    let Some(at) = rest.len().checked_sub(CHECKSUM_LENGTH) else { return false };
    match rest.split_at_checked(at) {
        Some((body, checksum)) => base62(&crc32fast::hash(body.as_bytes()).to_be_bytes(), CHECKSUM_LENGTH) == checksum,
        None => false,
    }
}

/// True for what has the form of a key's secret that we made.
pub(crate) fn is_own_secret(text: &str, brand: &str) -> bool {
    let prefix = format!("{brand}s_");
    text.starts_with(&prefix) && plausible(text, &prefix)
}

/// A presented pair.
pub struct AppKeyCredential {
    /// Which key.
    pub key: KeyId,
    /// The proof.
    pub secret: SecretString,
    /// False when a checksum says that one of the two was mistyped: it need not be looked up.
    pub plausible: bool,
}

impl AppKeyCredential {
    /// Splits `key:secret` at the first colon. `None` when it is not a pair.
    #[must_use]
    pub fn parse(text: &str, brand: &str) -> Option<Self> {
        let (key, secret) = text.split_once(':')?;
        Self::of(key, secret, brand)
    }

    /// From the two parts. `None` when one of them cannot be what it should be.
    #[must_use]
    pub fn of(key: &str, secret: &str, brand: &str) -> Option<Self> {
        let key = KeyId::parse(key)?;
        if secret.is_empty() || secret.len() > LONGEST_SECRET || !secret.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let plausible = plausible(key.as_str(), &format!("{brand}k_")) && plausible(secret, &format!("{brand}s_"));
        Some(Self { key, secret: SecretString::from(secret), plausible })
    }
}

/// The keys under which secrets are hashed, by version. They change while a server runs.
pub struct Peppers(RwLock<Arc<Known>>);

struct Known {
    versions: Vec<(i16, hmac::Key)>,
    /// The one that secrets are hashed under.
    current: i16,
}

impl Known {
    fn new(versions: &[InstallationSecret], current: i16) -> Arc<Self> {
        let key = |one: &InstallationSecret| (one.version, hmac::Key::new(hmac::HMAC_SHA256, &one.value));
        Arc::new(Self { versions: versions.iter().map(key).collect(), current })
    }

    fn of(&self, version: i16) -> Option<&hmac::Key> {
        self.versions.iter().find(|(known, _)| *known == version).map(|(_, key)| key)
    }
}

impl Peppers {
    /// From the opened secrets of the installation; secrets are hashed under the version `current`.
    #[must_use]
    pub(crate) fn new(versions: &[InstallationSecret], current: i16) -> Self {
        Self(RwLock::new(Known::new(versions, current)))
    }

    /// Takes others from now on.
    pub(crate) fn replace(&self, versions: &[InstallationSecret], current: i16) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Known::new(versions, current);
    }

    fn known(&self) -> Arc<Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a pepper of this version is here.
    #[must_use]
    pub fn has(&self, version: i16) -> bool {
        self.known().of(version).is_some()
    }

    /// The version that secrets are hashed under.
    #[must_use]
    pub fn current(&self) -> i16 {
        self.known().current
    }

    /// What is kept of a secret.
    pub(crate) fn keep(&self, key: &KeyId, secret: &SecretString) -> Option<KeptSecret> {
        self.hash(key, secret).map(|(version, mac)| KeptSecret::Mac(mac, version))
    }

    /// The MAC of a secret under the newest pepper, and its version.
    #[must_use]
    pub fn hash(&self, key: &KeyId, secret: &SecretString) -> Option<(i16, SecretMac)> {
        let known = self.known();
        Some((known.current, mac(known.of(known.current)?, key, secret)))
    }

    /// Compares in constant time. A pepper that is not there compares with nothing.
    #[must_use]
    pub fn verify(&self, version: i16, key: &KeyId, secret: &SecretString, kept: &SecretMac) -> bool {
        let known = self.known();
        let Some(pepper) = known.of(version) else { return false };
        mac(pepper, key, secret).0.ct_eq(&kept.0).into()
    }

    /// Digests `parts` under the pepper of today, for one purpose. Parts but the last have a fixed length.
    pub(crate) fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Option<(i16, [u8; 32])> {
        let known = self.known();
        Some((known.current, digest(known.of(known.current)?, purpose, parts)))
    }

    /// As [`Peppers::digest`], under each pepper of ours. Whoever brought a tenant along knows the pepper that came with it: under
    /// that, nothing but the secrets that came too is believed.
    pub(crate) fn digests(&self, purpose: &str, parts: &[&[u8]]) -> impl Iterator<Item = (i16, [u8; 32])> + use<> {
        let known = self.known();
        let own = known.versions.iter().filter(|(version, _)| *version > 0);
        let all: Vec<_> = own.map(|(version, pepper)| (*version, digest(pepper, purpose, parts))).collect();
        all.into_iter()
    }

    /// The same work as [`Peppers::verify`], for a key that does not exist.
    pub fn decoy(&self, key: &KeyId, secret: &SecretString) {
        let current = self.known().current;
        std::hint::black_box(self.verify(current, key, secret, &SecretMac([0; 32])));
    }
}

/// Bound to its key, so that a row's MAC is worth nothing in another row.
fn mac(pepper: &hmac::Key, key: &KeyId, secret: &SecretString) -> SecretMac {
    let mut context = hmac::Context::with_key(pepper);
    context.update(key.as_str().as_bytes());
    context.update(b":");
    context.update(secret.expose_secret().as_bytes());
    SecretMac(tag(context))
}

fn tag(context: hmac::Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    bytes
}

/// A purpose holds a space and ends in a zero byte, which no key id does: nothing digested here is the MAC of a key's
/// secret.
fn digest(pepper: &hmac::Key, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(pepper);
    context.update(purpose.as_bytes());
    context.update(&[0]);
    for part in parts {
        context.update(part);
    }
    tag(context)
}

/// What a pepper is called where its version says nothing: in another installation. Nothing of it can be learnt from that.
pub(crate) fn pepper_name(pepper: &[u8]) -> String {
    let digest = digest(&hmac::Key::new(hmac::HMAC_SHA256, pepper), "pepper name", &[]);
    URL_SAFE_NO_PAD.encode(digest.first_chunk::<12>().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pair_is_plausible_and_any_typo_in_it_is_not() {
        let random = Random::from_system();
        for _ in 0..50 {
            let key = new_key_id("c", &random).unwrap();
            let secret = new_secret("c", &random);
            let secret = secret.expose_secret();
            assert!(key.as_str().starts_with("ck_") && key.as_str().len() == 3 + 22 + 6);
            assert!(secret.starts_with("cs_") && secret.len() == 3 + 43 + 6);
            assert!(AppKeyCredential::parse(&format!("{key}:{secret}"), "c").unwrap().plausible);
            for at in 3..secret.len() {
                let mut typo = secret.to_owned().into_bytes();
                typo[at] = if typo[at] == b'x' { b'y' } else { b'x' };
                let typo = String::from_utf8(typo).unwrap();
                assert!(!AppKeyCredential::parse(&format!("{key}:{typo}"), "c").unwrap().plausible, "{at}");
            }
        }
    }

    #[test]
    fn foreign_forms_are_pairs_too() {
        let pair = AppKeyCredential::parse("Ab3:0123456789abcdef:with:colons", "c").unwrap();
        assert_eq!(pair.key.as_str(), "Ab3");
        assert_eq!(pair.secret.expose_secret(), "0123456789abcdef:with:colons");
        assert!(pair.plausible);
    }

    #[test]
    fn what_is_not_a_pair_is_not_parsed() {
        let long = format!("k:{}", "s".repeat(LONGEST_SECRET + 1));
        for text in [
            "",
            "K1",
            "K1:",
            ":S1",
            "Bearer x",
            "Bearer a:b",
            "k\u{e9}y:secret",
            "k:s\u{e9}cret",
            "k:a b",
            "k:\u{7f}",
            long.as_str(),
        ] {
            assert!(AppKeyCredential::parse(text, "c").is_none(), "{text}");
        }
    }

    #[test]
    fn base62_counts() {
        assert_eq!(base62(&[0], 3), "000");
        assert_eq!(base62(&[61], 3), "00z");
        assert_eq!(base62(&[62], 3), "010");
        assert_eq!(base62(&[255; 4], 6), "4gfFC3");
        assert_eq!(base62(&[255; 32], 43).len(), 43);
    }
}

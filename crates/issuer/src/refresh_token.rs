//! The form of refresh tokens: what they carry, how they are kept, and the key that only their holder can derive.
//!
//! `cr_` and 96 characters of base64url: family, number, tenant, 256 random bits, and a CRC-32 over all of them, so that a
//! cut-off token is known for one without a look into the database.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_store::api_key::SecretMac;
use claviger_store::id::{FamilyId, TenantId};
use secrecy::SecretString;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::random::Random;
use crate::secret::Peppers;
use crate::vault::{DoesNotOpen, Vault};

/// family (16), number (4), tenant (16), secret (32).
const LENGTH: usize = 68;

/// A refresh token. Never printed; [`RefreshToken::reveal`] is how it leaves.
pub(crate) struct RefreshToken {
    /// Its tenant.
    pub(crate) tenant: TenantId,
    /// Its family.
    pub(crate) family: FamilyId,
    /// Its number within the family, from 0.
    pub(crate) generation: i32,
    bytes: Zeroizing<[u8; LENGTH]>,
}

impl RefreshToken {
    /// A new one.
    #[must_use]
    pub(crate) fn generate(tenant: TenantId, family: FamilyId, generation: i32, random: &Random) -> Self {
        let secret = Zeroizing::new(random.bytes::<32>());
        let number = generation.to_be_bytes();
        let parts = [family.0.as_bytes(), number.as_slice(), tenant.0.as_bytes(), secret.as_slice()];
        let mut bytes = Zeroizing::new([0; LENGTH]);
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        Self { tenant, family, generation, bytes }
    }

    /// Reads one. `None` for whatever we did not make.
    #[must_use]
    pub(crate) fn parse(text: &str, brand: &str) -> Option<Self> {
        let encoded = text.strip_prefix(brand)?.strip_prefix("r_")?;
        let mut decoded = Zeroizing::new([0; LENGTH + 4]);
        if URL_SAFE_NO_PAD.decode_slice(encoded, decoded.as_mut_slice()) != Ok(LENGTH + 4) {
            return None;
        }
        let (bytes, checksum) = decoded.split_first_chunk::<LENGTH>()?;
        if crc32fast::hash(bytes).to_be_bytes() != *checksum {
            return None;
        }
        let (family, rest) = bytes.split_first_chunk::<16>()?;
        let (generation, rest) = rest.split_first_chunk::<4>()?;
        let (tenant, _) = rest.split_first_chunk::<16>()?;
        let generation = i32::from_be_bytes(*generation);
        let (family, tenant) = (FamilyId(Uuid::from_bytes(*family)), TenantId(Uuid::from_bytes(*tenant)));
        (0..i32::MAX).contains(&generation).then_some(Self { tenant, family, generation, bytes: Zeroizing::new(*bytes) })
    }

    /// The text that its holder gets.
    #[must_use]
    pub(crate) fn reveal(&self, brand: &str) -> SecretString {
        let mut all = Zeroizing::new([0; LENGTH + 4]);
        let checksum = crc32fast::hash(self.bytes.as_slice()).to_be_bytes();
        for (to, from) in all.iter_mut().zip(self.bytes.iter().chain(&checksum)) {
            *to = *from;
        }
        SecretString::from(format!("{brand}r_{}", URL_SAFE_NO_PAD.encode(all.as_slice())))
    }

    /// What is kept of it, and the pepper that it is under.
    pub(crate) fn mac(&self, peppers: &Peppers) -> Option<(i16, SecretMac)> {
        peppers.digest(KEPT, &[self.bytes.as_slice()]).map(|(version, mac)| (version, SecretMac(mac)))
    }

    /// What would be kept of it under each pepper.
    pub(crate) fn macs(&self, peppers: &Peppers) -> Vec<(i16, SecretMac)> {
        peppers.digests(KEPT, &[self.bytes.as_slice()]).map(|(version, mac)| (version, SecretMac(mac))).collect()
    }

    /// Seals the answer to this token so that only its holder, and only with our help, opens it.
    pub(crate) fn seal_answer(&self, answer: &[u8], peppers: &Peppers, random: &Random) -> Result<Vec<u8>, DoesNotOpen> {
        let (_, key) = peppers.digest(ANSWER, &[self.bytes.as_slice()]).ok_or(DoesNotOpen)?;
        Vault::under(&Zeroizing::new(key))?.seal(ANSWER, answer, random)
    }

    /// Opens the answer that was sealed for this token.
    pub(crate) fn open_answer(&self, sealed: &[u8], peppers: &Peppers) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        peppers
            .digests(ANSWER, &[self.bytes.as_slice()])
            .find_map(|(_, key)| Vault::under(&Zeroizing::new(key)).ok()?.open(ANSWER, sealed).ok())
            .ok_or(DoesNotOpen)
    }
}

/// Purposes of digests of a token.
const KEPT: &str = "refresh token";
const ANSWER: &str = "refresh answer";

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::installation::InstallationSecret;

    fn peppers(random: &Random) -> Peppers {
        let value = Zeroizing::new(random.bytes::<32>().to_vec());
        Peppers::new(&[InstallationSecret { version: 1, value, created_at: chrono::DateTime::UNIX_EPOCH }], 1)
    }

    fn token(random: &Random) -> RefreshToken {
        RefreshToken::generate(TenantId(random.uuid()), FamilyId(random.uuid()), 7, random)
    }

    #[test]
    fn what_we_made_is_read_and_nothing_else() {
        let random = Random::from_system();
        let token = token(&random);
        let text = token.reveal("c").expose_secret().to_owned();
        assert!(text.starts_with("cr_") && text.len() == 99);
        let read = RefreshToken::parse(&text, "c").unwrap();
        assert_eq!((read.tenant, read.family, read.generation), (token.tenant, token.family, 7));
        assert!(read.bytes == token.bytes);
        assert!(RefreshToken::parse(&text, "d").is_none());
        for at in 0..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[at] = if typo[at] == b'x' { b'y' } else { b'x' };
            assert!(RefreshToken::parse(&String::from_utf8(typo).unwrap(), "c").is_none(), "{at}");
            assert!(RefreshToken::parse(&text[..at], "c").is_none(), "{at}");
        }
        assert!(RefreshToken::parse(&format!("{text}A"), "c").is_none());
    }

    #[test]
    fn an_answer_opens_for_its_token_and_under_its_pepper_alone() {
        let random = Random::from_system();
        let (ours, theirs) = (peppers(&random), peppers(&random));
        let (one, other) = (token(&random), token(&random));
        let sealed = one.seal_answer(b"answer", &ours, &random).unwrap();
        assert_eq!(one.open_answer(&sealed, &ours).unwrap().as_slice(), b"answer");
        assert!(other.open_answer(&sealed, &ours).is_err());
        assert!(one.open_answer(&sealed, &theirs).is_err());
    }
}

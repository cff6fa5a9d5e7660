//! People's passwords: how new ones are judged, and how they are hashed without anybody waiting for anybody else.
//!
//! A hash of a password must be dear, or whoever steals it tries all passwords against it (ASVS 6.5.2). So it is argon2id
//! (RFC 9106), on threads of its own with a fair queue before them: a flood of logins fills its tenant's row and no other,
//! and takes no time from tokens. What cannot be answered in time is refused at once.
//!
//! A user who does not exist costs what one with a wrong password does, and so does one without a password.

mod kept;
mod memory;
mod policy;
mod pool;
mod queue;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use claviger_store::id::TenantId;
use claviger_store::password::PasswordHash;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

pub use self::kept::imported;
pub use self::policy::PasswordPolicy;

use self::kept::Kept;
use self::memory::Memory;
use self::pool::{PATIENCE, Pool, overloaded};
use crate::random::Random;
use crate::{Failure, Fault, Refusal};

/// Longest presented password that is looked at, in bytes.
pub const LONGEST_PRESENTED: usize = 1024;
/// In bytes.
const SALT_LENGTH: usize = 16;
/// In bytes.
const OUTPUT_LENGTH: usize = 32;

/// What a new hash costs: argon2id, version 19, one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cost {
    /// Memory in KiB, 64 to 1,048,576. Each hashing thread keeps so much.
    pub memory_kib: u32,
    /// Passes over the memory, 1 to 100.
    pub iterations: u32,
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2 }
    }
}

impl Cost {
    /// Refuses what cannot be served.
    pub fn check(&self) -> Result<(), Refusal> {
        let Self { memory_kib, iterations } = self;
        if !(64..=1_048_576).contains(memory_kib) {
            return Err(Refusal::invalid("memory_kib", "is 64 to 1048576 KiB"));
        }
        match iterations {
            1..=100 => Ok(()),
            _ => Err(Refusal::invalid("iterations", "is 1 to 100")),
        }
    }
}

/// What came of a presented password.
#[derive(Debug)]
pub(crate) struct Verified {
    /// Whether it is the one that the hash was made of.
    pub(crate) fits: bool,
    /// A hash of it at today's cost, where it fits and the kept one is not of that.
    pub(crate) rehashed: Option<PasswordHash>,
}

/// Hashes and compares passwords, on threads of its own. They end when it is dropped.
pub(crate) struct Hasher {
    pool: Pool<Memory>,
    maker: Arc<Maker>,
}

impl Hasher {
    /// Starts so many threads, or as many as there are cores for 0. Makes one hash, to know how long that takes.
    pub(crate) fn start(cost: Cost, threads: usize, random: Random) -> io::Result<Self> {
        let maker = Maker::new(cost, random).map_err(io::Error::other)?;
        let most = maker.argon2.params().block_count();
        let pool = Pool::start(threads, maker.took, move || Memory::new(most))?;
        Ok(Self { pool, maker: Arc::new(maker) })
    }

    /// Refuses a job of this tenant that would not begin in time, before anything is done for it.
    ///
    /// # Errors
    /// [`Fault::Overloaded`].
    pub(crate) fn admit(&self, tenant: TenantId) -> Result<(), Failure> {
        match self.pool.expected_wait(tenant) > PATIENCE {
            true => Err(overloaded().into()),
            false => Ok(()),
        }
    }

    /// How many passwords wait for a thread, and how many are on one.
    pub(crate) fn load(&self) -> (usize, usize) {
        self.pool.load()
    }

    /// Compares a password with what is kept; with a decoy where nothing is.
    ///
    /// # Errors
    /// [`Fault::Overloaded`] when it would not begin within two seconds, or did not.
    pub(crate) async fn verify(
        &self,
        tenant: TenantId,
        password: SecretString,
        kept: Option<PasswordHash>,
    ) -> Result<Verified, Failure> {
        if password.expose_secret().len() > LONGEST_PRESENTED {
            return Ok(Verified { fits: false, rehashed: None });
        }
        let maker = self.maker.clone();
        let verify = move |memory: &mut Memory| maker.verify(tenant, password.expose_secret(), kept.as_ref(), memory);
        self.pool.run(tenant, verify).await?.map_err(|error| Fault::Internal(error).into())
    }

    /// Compares a secret with the hash that another system kept of it. Right and wrong ones take the same time.
    ///
    /// # Errors
    /// As [`Hasher::verify`].
    pub(crate) async fn fits(&self, tenant: TenantId, secret: SecretString, hash: PasswordHash) -> Result<bool, Failure> {
        let fits = move |memory: &mut Memory| match Kept::parse(hash.as_str()) {
            Some(kept) => kept.fits(secret.expose_secret().as_bytes(), memory),
            None => Err("a kept hash of a secret cannot be read".to_owned()),
        };
        self.pool.run(tenant, fits).await?.map_err(|error| Fault::Internal(error).into())
    }

    /// Hashes a new password, which was judged before.
    ///
    /// # Errors
    /// As [`Hasher::verify`].
    pub(crate) async fn hash(&self, tenant: TenantId, password: SecretString) -> Result<PasswordHash, Failure> {
        if password.expose_secret().len() > LONGEST_PRESENTED {
            return Err(too_long("password").into());
        }
        let maker = self.maker.clone();
        let hash = move |memory: &mut Memory| maker.hash(password.expose_secret(), memory);
        self.pool.run(tenant, hash).await?.map_err(|error| Fault::Internal(error).into())
    }
}

/// A longer password could be set and never presented.
fn too_long(field: &'static str) -> Refusal {
    Refusal::invalid(field, format!("is at most {LONGEST_PRESENTED} bytes long"))
}

/// What all threads share.
struct Maker {
    cost: Cost,
    argon2: Argon2<'static>,
    random: Random,
    /// A hash of nobody's password.
    decoy: Kept,
    /// What the decoy took to make.
    took: Duration,
}

impl Maker {
    fn new(cost: Cost, random: Random) -> Result<Self, String> {
        cost.check().map_err(|refusal| refusal.to_string())?;
        let params = Params::new(cost.memory_kib, cost.iterations, 1, Some(OUTPUT_LENGTH)).map_err(|e| e.to_string())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let began = Instant::now();
        let decoy = made(&argon2, cost, &random.bytes::<32>(), &random.bytes(), &mut Memory::new(0))?;
        let took = began.elapsed();
        let decoy = Kept::parse(decoy.as_str()).ok_or("a hash of our own cannot be read")?;
        Ok(Self { cost, argon2, random, decoy, took })
    }

    fn hash(&self, password: &str, memory: &mut Memory) -> Result<PasswordHash, String> {
        made(&self.argon2, self.cost, password.as_bytes(), &self.random.bytes(), memory)
    }

    /// The work of a comparison.
    fn pretend(&self, password: &str, memory: &mut Memory) -> Result<Verified, String> {
        std::hint::black_box(self.decoy.fits(password.as_bytes(), memory)?);
        Ok(Verified { fits: false, rehashed: None })
    }

    fn verify(
        &self,
        tenant: TenantId,
        password: &str,
        kept: Option<&PasswordHash>,
        memory: &mut Memory,
    ) -> Result<Verified, String> {
        let Some(kept) = kept else { return self.pretend(password, memory) };
        let Some(kept) = Kept::parse(kept.as_str()) else {
            tracing::error!(tenant.id = %tenant, "a kept password hash cannot be read: nobody can log in with it");
            return self.pretend(password, memory);
        };
        let fits = kept.fits(password.as_bytes(), memory)?;
        if kept.is_current(self.cost) {
            return Ok(Verified { fits, rehashed: None });
        }
        // Either way one hash more, so that no old hash answers sooner than a new one, and no wrong password sooner than
        // the right one.
        match fits {
            true => Ok(Verified { fits, rehashed: Some(self.hash(password, memory)?) }),
            false => self.pretend(password, memory),
        }
    }
}

/// A hash as a PHC string.
fn made(
    argon2: &Argon2<'_>,
    cost: Cost,
    password: &[u8],
    salt: &[u8; SALT_LENGTH],
    memory: &mut Memory,
) -> Result<PasswordHash, String> {
    let mut output = [0; OUTPUT_LENGTH];
    memory.hash(argon2, password, salt, &mut output).map_err(|error| format!("argon2: {error}"))?;
    let Cost { memory_kib, iterations } = cost;
    let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
    Ok(PasswordHash::new(format!("$argon2id$v=19$m={memory_kib},t={iterations},p=1${salt}${output}")))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, iterations: 1 };
    const TENANT: TenantId = TenantId(Uuid::from_u128(1));
    const PASSWORD: &str = "correct horse battery staple";
    /// Of [`PASSWORD`], by the reference implementation.
    const CHEAP_HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$ktxdZwGWI4aL3geSdeUi9LfoIT00FO2Fy8KsikERcog";
    const DEFAULT_HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAECAwQFBgcICQoLDA0ODw$gYJZtjEAJqjg26xdLmknq8/bB7MiWPrE9hsYuA+SkIU";
    const BCRYPT_HASH: &str = "$2b$04$Vco3uIFu.iBObPS6.pd76ehJEj5/UT09yyXYJLlmLXzjsPvnqChzG";

    fn hasher(cost: Cost) -> Hasher {
        Hasher::start(cost, 1, Random::from_system()).unwrap()
    }

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    fn kept(text: &str) -> Option<PasswordHash> {
        Some(PasswordHash::new(text.to_owned()))
    }

    #[test]
    fn costs_have_bounds() {
        assert_eq!(Cost::default(), Cost { memory_kib: 19_456, iterations: 2 });
        for good in [Cost::default(), CHEAP, Cost { memory_kib: 1_048_576, iterations: 100 }] {
            assert_eq!(good.check(), Ok(()));
        }
        for (memory_kib, iterations) in [(63, 1), (1_048_577, 1), (64, 0), (64, 101)] {
            let bad = Cost { memory_kib, iterations };
            assert!(bad.check().is_err(), "{bad:?}");
            assert!(Hasher::start(bad, 1, Random::from_system()).is_err(), "{bad:?}");
        }
        assert_eq!(serde_json::from_str::<Cost>(r#"{"memory_kib": 64}"#).unwrap(), Cost { memory_kib: 64, iterations: 2 });
        assert!(serde_json::from_str::<Cost>(r#"{"memory": 64}"#).is_err());
    }

    #[tokio::test]
    async fn a_new_hash_fits_its_password_alone_and_needs_no_other() {
        let hasher = hasher(CHEAP);
        let hash = hasher.hash(TENANT, secret(PASSWORD)).await.unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=64,t=1,p=1$"));
        assert_ne!(hasher.hash(TENANT, secret(PASSWORD)).await.unwrap(), hash);
        let right = hasher.verify(TENANT, secret(PASSWORD), Some(hash.clone())).await.unwrap();
        assert!(right.fits && right.rehashed.is_none());
        for wrong in ["", "Correct horse battery staple", "correct horse battery staple "] {
            let wrong = hasher.verify(TENANT, secret(wrong), Some(hash.clone())).await.unwrap();
            assert!(!wrong.fits && wrong.rehashed.is_none());
        }
    }

    #[tokio::test]
    async fn the_default_cost_is_that_of_the_reference_implementation() {
        let hasher = hasher(Cost::default());
        let right = hasher.verify(TENANT, secret(PASSWORD), kept(DEFAULT_HASH)).await.unwrap();
        assert!(right.fits && right.rehashed.is_none());
        assert!(!hasher.verify(TENANT, secret("another"), kept(DEFAULT_HASH)).await.unwrap().fits);
        let hash = hasher.hash(TENANT, secret(PASSWORD)).await.unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[tokio::test]
    async fn other_forms_and_costs_are_hashed_anew_when_they_fit() {
        let cost = Cost { memory_kib: 128, iterations: 2 };
        let hasher = hasher(cost);
        for old in [CHEAP_HASH, DEFAULT_HASH, BCRYPT_HASH] {
            let wrong = hasher.verify(TENANT, secret("another"), kept(old)).await.unwrap();
            assert!(!wrong.fits && wrong.rehashed.is_none(), "{old}");
            let right = hasher.verify(TENANT, secret(PASSWORD), kept(old)).await.unwrap();
            assert!(right.fits, "{old}");
            let rehashed = right.rehashed.unwrap();
            assert!(rehashed.as_str().starts_with("$argon2id$v=19$m=128,t=2,p=1$"), "{old}");
            let again = hasher.verify(TENANT, secret(PASSWORD), Some(rehashed)).await.unwrap();
            assert!(again.fits && again.rehashed.is_none(), "{old}");
        }
    }

    #[tokio::test]
    async fn nobody_and_an_unreadable_hash_are_a_wrong_password() {
        let hasher = hasher(CHEAP);
        for nothing in [None, kept(""), kept("plain text"), kept("$argon2id$v=19$m=64")] {
            let outcome = hasher.verify(TENANT, secret(PASSWORD), nothing).await.unwrap();
            assert!(!outcome.fits && outcome.rehashed.is_none());
        }
    }

    #[test]
    fn nobody_costs_a_whole_hash() {
        let cost = Cost { memory_kib: 64, iterations: 3 };
        let maker = Maker::new(cost, Random::from_system()).unwrap();
        assert!(maker.decoy.is_current(cost));
        for nobody in [None, Some(PasswordHash::new("unreadable".into()))] {
            let mut memory = Memory::new(64);
            maker.verify(TENANT, PASSWORD, nobody.as_ref(), &mut memory).unwrap();
            assert!(memory.was_filled());
        }
        // So does a foreign hash that does not fit: it takes no memory of ours itself.
        let mut memory = Memory::new(64);
        maker.verify(TENANT, "another", kept(BCRYPT_HASH).as_ref(), &mut memory).unwrap();
        assert!(memory.was_filled());
    }

    #[tokio::test]
    async fn what_is_too_long_is_never_hashed() {
        let hasher = hasher(CHEAP);
        let longest = "x".repeat(LONGEST_PRESENTED);
        let hash = hasher.hash(TENANT, secret(&longest)).await.unwrap();
        assert!(hasher.verify(TENANT, secret(&longest), Some(hash.clone())).await.unwrap().fits);
        let longer = format!("{longest}x");
        assert!(!hasher.verify(TENANT, secret(&longer), Some(hash)).await.unwrap().fits);
        let refused = hasher.hash(TENANT, secret(&longer)).await.unwrap_err();
        assert!(matches!(refused, Failure::Refusal(Refusal::Invalid { field: "password", .. })));
    }

    #[tokio::test]
    async fn what_a_hash_takes_is_known_from_the_start() {
        let hasher = hasher(CHEAP);
        assert!(hasher.maker.took > Duration::ZERO);
        assert_eq!(hasher.pool.expected_wait(TENANT), Duration::ZERO);
        assert!(hasher.admit(TENANT).is_ok());
    }
}

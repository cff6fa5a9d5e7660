//! The exchange without its record, and the hash of a password without a login, for `make bench` alone: the ceilings that
//! the real ones are measured against. The exchange makes its own key and tenant, so it can issue nothing that anybody
//! would accept.

use std::collections::HashMap;

use argon2::{Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use claviger_store::api_key::SecretMac;
use claviger_store::id::{KeyId, TenantId};
use claviger_store::signing_key::Algorithm;
use claviger_verifier::{Expected, KeySet, verify};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::installation::InstallationSecret;
use crate::key_pair::{Signer, generate};
use crate::mint::{Grant, mint};
use crate::password::Cost;
use crate::random::Random;
use crate::scope::ScopeSet;
use crate::secret::{AppKeyCredential, Peppers, new_key_id, new_secret};

const ISSUER: &str = "http://127.0.0.1:8080/t/bench";

/// One key, one tenant, in memory.
pub struct BareExchange {
    random: Random,
    peppers: Peppers,
    keys: HashMap<KeyId, SecretMac>,
    signer: Signer,
    published: KeySet,
    tenant: TenantId,
    scope: ScopeSet,
    pair: SecretString,
}

impl BareExchange {
    /// Makes the key and the tenant.
    #[must_use]
    pub fn new() -> Option<Self> {
        let random = Random::from_system();
        let value = Zeroizing::new(random.bytes::<32>().to_vec());
        let peppers = Peppers::new(&[InstallationSecret { version: 1, value, created_at: Clock::System.now() }], 1);
        let (key, secret) = (new_key_id("c", &random)?, new_secret("c", &random));
        let (_, mac) = peppers.hash(&key, &secret)?;
        let (public, private) = generate(Algorithm::EdDsa, &random).ok()?;
        let signer = Signer::new(&public, &private).ok()?;
        let mut published = KeySet::new();
        public.insert_into(&mut published).ok()?;
        let pair = SecretString::from(format!("{key}:{}", secret.expose_secret()));
        let (tenant, scope) = (TenantId(random.uuid()), ScopeSet::granted(&["events:read"]).ok()?);
        Some(Self { random, peppers, keys: HashMap::from([(key, mac)]), signer, published, tenant, scope, pair })
    }

    /// `key:secret`.
    #[must_use]
    pub fn pair(&self) -> &str {
        self.pair.expose_secret()
    }

    /// Parse, look up, compare, build the claims, sign.
    #[must_use]
    pub fn exchange(&self, pair: &str) -> Option<String> {
        let AppKeyCredential { key, secret, plausible } = AppKeyCredential::parse(pair, "c")?;
        let mac = self.keys.get(&key).filter(|_| plausible)?;
        if !self.peppers.verify(1, &key, &secret, mac) {
            return None;
        }
        let grant = Grant {
            issuer: ISSUER,
            audience: ISSUER,
            tenant: self.tenant,
            subject: "01a204ff-0464-7be5-8cc0-5629b4f9f80e",
            client_id: "01a204ff-0464-7be5-8cc0-5629b4f9f80e",
            key: Some(&key),
            family: None,
            username: None,
            person: None,
            actor: None,
            roles: None,
            scope: &self.scope,
            allowed_ips: &[],
            narrowed: false,
            lifetime: Some(86_400),
            not_after: None,
        };
        mint(&self.signer, &grant, Clock::System.now(), &self.random).ok().map(|minted| minted.jwt)
    }

    /// Check the signature of one of its tokens, read the claims, judge them.
    #[must_use]
    pub fn check(&self, jwt: &str) -> bool {
        let expected = Expected { issuer: ISSUER, audience: Some(ISSUER), leeway_seconds: 0 };
        verify(jwt, &self.published, &expected, Clock::System.now().timestamp()).is_ok()
    }
}

/// argon2id at the usual cost, in memory that is kept.
pub struct BareHash {
    argon2: Argon2<'static>,
    blocks: Vec<Block>,
}

/// Of the bench's own people; nobody else's.
const SALT: &[u8; 16] = b"the bench's salt";

impl BareHash {
    /// Gets the memory.
    #[must_use]
    pub fn new() -> Option<Self> {
        let Cost { memory_kib, iterations } = Cost::default();
        let params = Params::new(memory_kib, iterations, 1, Some(32)).ok()?;
        let blocks = vec![Block::new(); params.block_count()];
        Some(Self { argon2: Argon2::new(argon2::Algorithm::Argon2id, Version::V0x13, params), blocks })
    }

    /// Hashes a password.
    pub fn hash(&mut self, password: &[u8]) -> Option<[u8; 32]> {
        let mut output = [0; 32];
        let hashed = self.argon2.hash_password_into_with_memory(password, SALT, &mut output, self.blocks.as_mut_slice());
        hashed.ok().map(|()| output)
    }

    /// A password's hash as a PHC string, as it is kept.
    pub fn kept(&mut self, password: &[u8]) -> Option<String> {
        let hash = STANDARD_NO_PAD.encode(self.hash(password)?);
        let Cost { memory_kib, iterations } = Cost::default();
        Some(format!("$argon2id$v=19$m={memory_kib},t={iterations},p=1${}${hash}", STANDARD_NO_PAD.encode(SALT)))
    }
}

//! The exchange without its record, for `make bench` alone: the ceiling that the real one is measured against. It
//! makes its own key and tenant, so it can issue nothing that anybody would accept.

use std::collections::HashMap;

use claviger_store::api_key::SecretMac;
use claviger_store::id::{KeyId, TenantId};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::mint::{Grant, mint};
use crate::random::Random;
use crate::scope::ScopeSet;
use crate::secret::{AppKeyCredential, Peppers, new_key_id, new_secret};
use crate::signing_key::{Signer, thumbprint};

/// One key, one tenant, in memory.
pub struct BareExchange {
    random: Random,
    peppers: Peppers,
    keys: HashMap<KeyId, SecretMac>,
    signer: Signer,
    tenant: TenantId,
    scope: ScopeSet,
    pair: SecretString,
}

impl BareExchange {
    /// Makes the key and the tenant.
    #[must_use]
    pub fn new() -> Option<Self> {
        let random = Random::from_system();
        let peppers = Peppers::new(&[(1, Zeroizing::new(random.bytes::<32>().to_vec()))]);
        let (key, secret) = (new_key_id("c", &random)?, new_secret("c", &random));
        let (_, mac) = peppers.hash(&key, &secret)?;
        let seed = random.bytes::<32>();
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let signer = Signer::new(&thumbprint(&public), &seed, &public).ok()?;
        let pair = SecretString::from(format!("{key}:{}", secret.expose_secret()));
        let (tenant, scope) = (TenantId(random.uuid()), ScopeSet::granted(&["events:read"]).ok()?);
        Some(Self { random, peppers, keys: HashMap::from([(key, mac)]), signer, tenant, scope, pair })
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
            issuer: "http://127.0.0.1:8080/t/bench",
            audience: "http://127.0.0.1:8080/t/bench",
            tenant: self.tenant,
            subject: "01a204ff-0464-7be5-8cc0-5629b4f9f80e",
            client_id: "01a204ff-0464-7be5-8cc0-5629b4f9f80e",
            key: Some(&key),
            family: None,
            username: None,
            roles: None,
            scope: &self.scope,
            lifetime: Some(86_400),
            not_after: None,
        };
        mint(&self.signer, &grant, Clock::System.now(), &self.random).ok().map(|minted| minted.jwt)
    }
}

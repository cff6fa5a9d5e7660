//! Signing keys: made with the tenant, sealed at rest, parsed once, published as a JWK set.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use claviger_store::id::TenantId;
use claviger_store::signing_key::{SigningKey, SigningKeyState};
use claviger_verifier::KeySet;
use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::random::Random;
use crate::vault::{DoesNotOpen, Vault};

/// A new key, ready to be kept.
pub(crate) struct NewSigningKey {
    pub(crate) kid: String,
    pub(crate) public_key: [u8; 32],
    pub(crate) sealed_private: Vec<u8>,
}

pub(crate) fn generate(tenant: TenantId, vault: &Vault, random: &Random) -> Result<NewSigningKey, DoesNotOpen> {
    let seed = Zeroizing::new(random.bytes::<32>());
    let public_key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    let kid = thumbprint(&public_key);
    let sealed_private = vault.seal(&place(tenant, &kid), seed.as_slice(), random)?;
    Ok(NewSigningKey { kid, public_key, sealed_private })
}

/// A new Ed25519 pair in raw form: the public half, and the seed with the public half behind it.
#[must_use]
pub fn raw_pair(random: &Random) -> ([u8; 32], Zeroizing<Vec<u8>>) {
    let seed = Zeroizing::new(random.bytes::<32>());
    let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    (public, Zeroizing::new([seed.as_slice(), &public].concat()))
}

fn place(tenant: TenantId, kid: &str) -> String {
    format!("signing_keys:sealed_private:{tenant}:{kid}")
}

/// RFC 7638 thumbprint of an Ed25519 key (RFC 8037 §2).
#[must_use]
pub fn thumbprint(public_key: &[u8; 32]) -> String {
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, URL_SAFE_NO_PAD.encode(public_key));
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}

/// A key that signs, parsed.
pub struct Signer {
    pub(crate) pair: Ed25519KeyPair,
    kid: String,
    /// The encoded JOSE header and the dot behind it: the same for every token.
    pub(crate) header: String,
}

impl Signer {
    pub(crate) fn new(kid: &str, seed: &[u8], public_key: &[u8; 32]) -> Result<Self, DoesNotOpen> {
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public_key).map_err(|_| DoesNotOpen)?;
        let header = format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"{kid}"}}"#);
        Ok(Self { pair, header: format!("{}.", URL_SAFE_NO_PAD.encode(header)), kid: kid.to_owned() })
    }

    /// Signs something that is no access token: a compact JWS (RFC 7515 §7.1) of that `typ`.
    pub(crate) fn sign_as(&self, typ: &str, payload: &[u8]) -> String {
        let header = format!(r#"{{"typ":"{typ}","alg":"EdDSA","kid":"{}"}}"#, self.kid);
        let mut jws = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(jws.as_bytes());
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut jws);
        jws
    }
}

/// What the world sees of a tenant's keys.
pub struct Published {
    /// The JWK set (RFC 7517 §5), serialised.
    pub jwks: String,
    /// Its strong entity tag, quoted.
    pub etag: String,
    /// The key that signs now.
    pub active: Option<PublicKey>,
    /// To check tokens with.
    pub keys: KeySet,
}

/// A public key in its three forms.
#[derive(Debug, Clone)]
pub struct PublicKey {
    kid: String,
    raw: [u8; 32],
}

impl PublicKey {
    /// Base64 of the 32 raw bytes.
    #[must_use]
    pub fn raw(&self) -> String {
        STANDARD.encode(self.raw)
    }

    /// A PEM `PUBLIC KEY` (RFC 8410).
    #[must_use]
    pub fn pem(&self) -> Option<String> {
        ed25519_dalek::VerifyingKey::from_bytes(&self.raw).ok()?.to_public_key_pem(LineEnding::LF).ok()
    }

    /// A JWK (RFC 8037 §2).
    #[must_use]
    pub fn jwk(&self) -> serde_json::Value {
        serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.raw),
            "kid": self.kid, "alg": "EdDSA", "use": "sig",
        })
    }
}

/// Opens the signing key that is active, and lists those that are published.
pub(crate) fn open(tenant: TenantId, kept: &[SigningKey], vault: &Vault) -> Result<(Option<Signer>, Published), DoesNotOpen> {
    let mut signer = None;
    let mut active = None;
    let mut jwks = Vec::new();
    let mut keys = KeySet::new();
    for key in kept {
        let SigningKey { kid, public_key, sealed_private, state } = key;
        let public = PublicKey { kid: kid.clone(), raw: *public_key };
        jwks.push(public.jwk());
        keys.insert_ed25519(kid, public_key).map_err(|_| DoesNotOpen)?;
        if *state == SigningKeyState::Active {
            let seed = vault.open(&place(tenant, kid), sealed_private)?;
            signer = Some(Signer::new(kid, &seed, public_key)?);
            active = Some(public);
        }
    }
    let jwks = serde_json::json!({ "keys": jwks }).to_string();
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha256::digest(&jwks)));
    Ok((signer, Published { jwks, etag, active, keys }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037_appendix_a() {
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(thumbprint(&x.try_into().unwrap()), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_sealed_key_opens_for_its_own_tenant_only() {
        let random = Random::from_system();
        let vault = Vault::new(&crate::vault::MasterKey::generate(&random), "signing").unwrap();
        let tenant = TenantId(random.uuid());
        let new = generate(tenant, &vault, &random).unwrap();
        let kept = SigningKey {
            kid: new.kid.clone(),
            public_key: new.public_key,
            sealed_private: new.sealed_private,
            state: SigningKeyState::Active,
        };
        let (signer, published) = open(tenant, std::slice::from_ref(&kept), &vault).unwrap();
        assert!(signer.is_some());
        assert!(!published.jwks.contains("\"d\""));
        assert_eq!(published.keys.kids().collect::<Vec<_>>(), [new.kid.as_str()]);
        assert!(open(TenantId(random.uuid()), &[kept], &vault).is_err());
    }
}

//! Every token of every kind is minted here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::id::{FamilyId, KeyId, TenantId, TokenId};
use claviger_store::issued_token::UNENDING;
use ipnet::IpNet;
use serde::Serialize;

use crate::random::Random;
use crate::scope::ScopeSet;
use crate::signing_key::Signer;

/// What was granted to whom.
pub struct Grant<'a> {
    /// The tenant's issuer identifier.
    pub issuer: &'a str,
    /// Whom the token is for: the issuer itself, unless somebody else was named.
    pub audience: &'a str,
    /// The tenant.
    pub tenant: TenantId,
    /// `sub`.
    pub subject: &'a str,
    /// `client_id` (RFC 9068 §2.2).
    pub client_id: &'a str,
    /// The key that it was issued for.
    pub key: Option<&'a KeyId>,
    /// The token family that it ends with.
    pub family: Option<FamilyId>,
    /// The login name, where a person stands behind it.
    pub username: Option<&'a str>,
    /// The person's roles; `None` for tokens that are not about a person.
    pub roles: Option<&'a [String]>,
    /// `act`: who acts for the subject (RFC 8693 §4.1).
    pub actor: Option<Act<'a>>,
    /// What it allows.
    pub scope: &'a ScopeSet,
    /// Networks that it may be used from; empty is everywhere.
    pub allowed_ips: &'a [IpNet],
    /// Whether less was asked for than its login was granted.
    pub narrowed: bool,
    /// Seconds; `None` for a token without an end.
    pub lifetime: Option<i32>,
    /// When what it stands on ends: it ends no later.
    pub not_after: Option<DateTime<Utc>>,
}

/// A token.
pub struct Minted {
    /// The compact serialisation.
    pub jwt: String,
    /// `jti`.
    pub id: TokenId,
    /// `iat`, in whole seconds.
    pub issued_at: DateTime<Utc>,
    /// `exp`, in whole seconds; for a token without an end, what it is kept under.
    pub expires_at: DateTime<Utc>,
}

impl Minted {
    /// Seconds that it lives; `None` for one without an end.
    #[must_use]
    pub fn expires_in(&self) -> Option<i64> {
        (self.expires_at.timestamp() != UNENDING).then(|| (self.expires_at - self.issued_at).num_seconds())
    }
}

/// The claims of an access token (RFC 9068 §2.2), and ours: `tid` the tenant, `key_id` the API key, `sid` the login, `narrowed`
/// where less was asked for than the login was granted, `allowed_ips` where a key may be used from some networks only.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    iat: i64,
    jti: TokenId,
    tid: TenantId,
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<FamilyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allowed_ips: &'a [IpNet],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    narrowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Act<'a>>,
}

/// Who acts, and what that stands on.
#[derive(Clone, Copy, Serialize)]
pub struct Act<'a> {
    /// The person or application.
    pub sub: &'a str,
    /// The key that the actor proved itself with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<&'a KeyId>,
    /// The login that the actor's own token came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<FamilyId>,
    /// The key of the client that asked, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_key_id: Option<&'a KeyId>,
    /// The scope by which it acts, where the subject did not let it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<&'a str>,
}

/// Signs what was granted. Ed25519 needs no randomness of its own: the same claims give the same token.
pub fn mint(signer: &Signer, grant: &Grant<'_>, now: DateTime<Utc>, random: &Random) -> Result<Minted, serde_json::Error> {
    let id = TokenId(random.uuid_at(now));
    let iat = now.timestamp();
    let mut exp = grant.lifetime.map(|seconds| iat + i64::from(seconds));
    if let Some(end) = grant.not_after {
        exp = Some(exp.unwrap_or(i64::MAX).min(end.timestamp()).max(iat + 1));
    }
    let claims = Claims {
        iss: grant.issuer,
        sub: grant.subject,
        aud: grant.audience,
        exp,
        iat,
        jti: id,
        tid: grant.tenant,
        client_id: grant.client_id,
        key_id: grant.key,
        sid: grant.family,
        username: grant.username,
        roles: grant.roles,
        scope: (!grant.scope.is_empty()).then(|| grant.scope.to_string()),
        allowed_ips: grant.allowed_ips,
        narrowed: grant.narrowed,
        act: grant.actor,
    };
    let claims = serde_json::to_vec(&claims)?;
    let mut jwt = String::with_capacity(signer.header.len() + claims.len() * 4 / 3 + 96);
    jwt.push_str(&signer.header);
    URL_SAFE_NO_PAD.encode_string(&claims, &mut jwt);
    let signature = signer.pair.sign(jwt.as_bytes());
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut jwt);
    let seconds = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
    Ok(Minted { jwt, id, issued_at: seconds(iat), expires_at: seconds(exp.unwrap_or(UNENDING)) })
}

#[cfg(test)]
mod tests {
    use claviger_verifier::{Expected, KeySet, verify};
    use jsonwebtoken::{Algorithm, EncodingKey, Header};

    use super::*;

    #[test]
    fn the_bytes_are_those_of_an_independent_encoder() {
        use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};
        let random = Random::from_system();
        let seed = random.bytes::<32>();
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let kid = crate::signing_key::thumbprint(&public);
        let signer = Signer::new(&kid, &seed, &public).unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 999_999_000).unwrap();
        let scope = ScopeSet::granted(&["events:write", "events:read"]).unwrap();
        let key = KeyId::parse("ck_1").unwrap();
        let tenant = TenantId(random.uuid());
        let grant = Grant {
            issuer: "https://id.example/t/acme",
            audience: "https://id.example/t/acme",
            tenant,
            subject: "s",
            client_id: "c",
            key: Some(&key),
            family: None,
            username: None,
            roles: None,
            actor: None,
            scope: &scope,
            allowed_ips: &[],
            narrowed: false,
            lifetime: Some(60),
            not_after: None,
        };
        let minted = mint(&signer, &grant, now, &random).unwrap();
        let claims = Claims {
            iss: grant.issuer,
            sub: "s",
            aud: grant.issuer,
            exp: Some(1_800_000_060),
            iat: 1_800_000_000,
            jti: minted.id,
            tid: tenant,
            client_id: "c",
            key_id: Some(&key),
            sid: None,
            username: None,
            roles: None,
            scope: Some("events:read events:write".into()),
            allowed_ips: &[],
            narrowed: false,
            act: None,
        };
        let der = KeypairBytes { secret_key: seed, public_key: None }.to_pkcs8_der().unwrap();
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some("at+jwt".into());
        header.kid = Some(kid.clone());
        let expected = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(der.as_bytes())).unwrap();
        assert_eq!(minted.jwt, expected);

        let mut keys = KeySet::new();
        keys.insert_ed25519(&kid, &public).unwrap();
        let wanted = Expected { issuer: grant.issuer, audience: Some(grant.issuer), leeway_seconds: 0 };
        assert_eq!(verify(&minted.jwt, &keys, &wanted, 1_800_000_000).unwrap().scope, ["events:read", "events:write"]);
    }

    #[test]
    fn a_token_does_not_outlive_its_key() {
        let random = Random::from_system();
        let seed = random.bytes::<32>();
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let signer = Signer::new("k", &seed, &public).unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let key = KeyId::parse("ck_1").unwrap();
        let scope = ScopeSet::default();
        let ends = |seconds| {
            let grant = Grant {
                issuer: "i",
                audience: "i",
                tenant: TenantId(random.uuid()),
                subject: "s",
                client_id: "c",
                key: Some(&key),
                family: None,
                username: None,
                roles: None,
                actor: None,
                scope: &scope,
                allowed_ips: &[],
                narrowed: false,
                lifetime: Some(3600),
                not_after: Some(now + TimeDelta::milliseconds(seconds)),
            };
            mint(&signer, &grant, now, &random).unwrap().expires_at - now
        };
        assert_eq!(ends(10_500), TimeDelta::seconds(10));
        assert_eq!(ends(7_200_000), TimeDelta::seconds(3600));
        assert_eq!(ends(500), TimeDelta::seconds(1));
    }
}

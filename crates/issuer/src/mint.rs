//! Every token of every kind is minted here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::id::{FamilyId, KeyId, TenantId, TokenId};
use claviger_store::issued_token::UNENDING;
use claviger_store::user::User;
use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use crate::Fault;
use crate::audience::{AudienceEntry, Claim, Profile, SubjectIs, held_letters, permissions};
use crate::key_pair::{Signer, encoded_header};
use crate::random::Random;
use crate::scope::ScopeSet;
use crate::status_list::StatusClaim;

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
    /// The person behind it, for claims about people; `None` where there is none, or none is asked for.
    pub person: Option<&'a User>,
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

/// Whose shape a token gets.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// Our own, for this `aud`.
    Ours(&'a str),
    /// That of a registered audience.
    Registered(&'a AudienceEntry),
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

impl Grant<'_> {
    /// When a token that is made now ends: no later than what it stands on, and at least a second after `iat`.
    pub(crate) fn ends(&self, now: DateTime<Utc>) -> Option<i64> {
        ends(now.timestamp(), self.lifetime, self.not_after)
    }
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
pub fn mint(signer: &Signer, grant: &Grant<'_>, now: DateTime<Utc>, random: &Random) -> Result<Minted, Fault> {
    let id = TokenId(random.uuid_at(now));
    let iat = now.timestamp();
    let exp = grant.ends(now);
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
    let claims = serde_json::to_vec(&claims).map_err(|error| Fault::Internal(error.to_string()))?;
    Ok(minted(signed(signer, signer.header(), &claims)?, id, iat, exp))
}

/// As [`mint`], in the shape that an audience asks for. Its profile says how long the token lives, if it does.
pub(crate) fn mint_for(
    signer: &Signer,
    audience: &AudienceEntry,
    grant: &Grant<'_>,
    now: DateTime<Utc>,
    id: TokenId,
    status: Option<&StatusClaim>,
) -> Result<Minted, Fault> {
    let Profile { subject, claims: wanted, extra, attributes, privileges, admin_role, omit_aud, algorithm, .. } =
        &audience.profile;
    let now = now - TimeDelta::seconds(audience.profile.backdate.into());
    let iat = now.timestamp();
    let exp = grant.ends(now);
    let mut claims = extra.clone();
    let mut claim = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value);
        }
    };
    claim("iss", (!audience.profile.omit_iss).then(|| grant.issuer.into()));
    claim(
        "sub",
        Some(match subject {
            SubjectIs::Id => grant.subject.into(),
            SubjectIs::Username => grant.username.unwrap_or(grant.subject).into(),
        }),
    );
    claim("aud", (!omit_aud).then(|| audience.row.uri.clone().into()));
    claim("exp", exp.map(Value::from));
    claim("iat", Some(iat.into()));
    claim("jti", (!audience.profile.omit_jti).then(|| id.to_string().into()));
    claim("status", status.map(StatusClaim::to_json));
    // A limit and the login that it ends with go with every token, whatever the shape.
    claim("sid", grant.family.map(|family| family.to_string().into()));
    let networks = || grant.allowed_ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    claim("allowed_ips", (!grant.allowed_ips.is_empty()).then(|| networks().into()));
    for one in wanted {
        match one {
            Claim::ClientId => claim("client_id", Some(grant.client_id.into())),
            Claim::KeyId => claim("key_id", grant.key.map(|key| key.as_str().into())),
            Claim::Tid => claim("tid", Some(grant.tenant.to_string().into())),
            Claim::Username => claim("username", grant.username.map(Value::from)),
            Claim::Roles => claim("roles", grant.roles.map(Value::from)),
            Claim::Scope => claim("scope", (!grant.scope.is_empty()).then(|| grant.scope.to_string().into())),
            Claim::Permissions => claim("permissions", Some(permissions(grant.scope.iter(), false))),
            Claim::PermissionsUpper => claim("permissions", Some(permissions(grant.scope.iter(), true))),
            Claim::Email => claim("email", grant.person.and_then(|person| person.email.as_deref()).map(Value::from)),
            Claim::PreferredUsername => claim("preferred_username", grant.username.map(Value::from)),
            Claim::Uid => claim("uid", Some(grant.subject.into())),
        }
    }
    for (name, attribute) in attributes {
        claim(name, grant.person.and_then(|person| person.attributes.get(attribute)).cloned());
    }
    claim("priv", (!privileges.is_empty()).then(|| held_letters(privileges, grant.scope).collect::<Vec<_>>().into()));
    let has = |role: &String| grant.roles.is_some_and(|roles| roles.contains(role));
    claim("admin", admin_role.as_ref().map(|role| has(role).into()));
    let claims = serde_json::to_vec(&claims).map_err(|error| Fault::Internal(error.to_string()))?;
    let header = encoded_header("at+jwt", algorithm.name(), signer.kid());
    Ok(minted(signed(signer, &header, &claims)?, id, iat, exp))
}

fn ends(iat: i64, lifetime: Option<i32>, not_after: Option<DateTime<Utc>>) -> Option<i64> {
    let exp = lifetime.map(|seconds| iat + i64::from(seconds));
    match not_after {
        Some(end) => Some(exp.unwrap_or(i64::MAX).min(end.timestamp()).max(iat + 1)),
        None => exp,
    }
}

fn minted(jwt: String, id: TokenId, iat: i64, exp: Option<i64>) -> Minted {
    Minted { jwt, id, issued_at: in_seconds(iat), expires_at: kept_until(exp) }
}

/// What a token is kept under: its `exp`, or the end of time.
pub(crate) fn kept_until(exp: Option<i64>) -> DateTime<Utc> {
    in_seconds(exp.unwrap_or(UNENDING))
}

/// A time in whole seconds since 1970.
pub(crate) fn in_seconds(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

/// Signs something that is no access token: a compact JWS (RFC 7515 §7.1) of that `typ`, under the algorithm's usual name.
pub(crate) fn sign_as(typ: &str, signer: &Signer, payload: &[u8]) -> Result<String, Fault> {
    signed(signer, &signer.header_of(typ), payload)
}

/// Header (encoded, with its dot), claims and signature, put together.
fn signed(signer: &Signer, header: &str, claims: &[u8]) -> Result<String, Fault> {
    let mut jwt = String::with_capacity(header.len() + claims.len() * 4 / 3 + 96);
    jwt.push_str(header);
    URL_SAFE_NO_PAD.encode_string(claims, &mut jwt);
    let signature = signer.sign(jwt.as_bytes()).map_err(|error| Fault::Internal(error.to_string()))?;
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(&signature, &mut jwt);
    Ok(jwt)
}

#[cfg(test)]
mod tests {
    use claviger_store::signing_key::Algorithm;
    use claviger_verifier::{Expected, KeySet, verify};
    use jsonwebtoken::{EncodingKey, Header};

    use super::*;
    use crate::key_pair::PublicKey;

    #[test]
    fn the_bytes_are_those_of_an_independent_encoder() {
        use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};
        let random = Random::from_system();
        let seed = random.bytes::<32>();
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
        let key = PublicKey::new(Algorithm::EdDsa, &public).unwrap();
        let (kid, signer) = (key.kid().to_owned(), Signer::new(&key, &seed).unwrap());
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
            person: None,
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
        let mut header = Header::new(jsonwebtoken::Algorithm::EdDSA);
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
        let signer = Signer::new(&PublicKey::new(Algorithm::EdDsa, &public).unwrap(), &seed).unwrap();
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
                person: None,
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

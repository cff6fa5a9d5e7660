//! Audiences: downstream services with their own shape of token. The shape is data: one code path makes all of them.
//!
//! A token for an audience opens nothing of our management; but whoever may ask about tokens can ask about it, and the
//! tenant's usual audience is the one whose tokens its dialects take.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use claviger_store::TenantTx;
use claviger_store::audience::{AUDIENCE_NAME_TAKEN, AUDIENCE_URI_TAKEN, Audience};
use claviger_store::id::{AudienceId, TenantId};
use claviger_store::signing_key::{Algorithm, GoneWhy};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::attribute::{DEEPEST, depth, is_attribute};
use crate::audit::{Actor, Draft, append};
use crate::directory::TenantEntry;
use crate::howler::{LENT_LETTER, LENT_SCOPE};
use crate::key_pair::PublicKey;
use crate::mint::Target;
use crate::role::is_role;
use crate::scope::{ScopeSet, is_scope};
use crate::settings::check_lifetime;
use crate::signing_key::Ring;
use crate::tenant::check_name;
use crate::{Failure, Fault, Issuer, Refusal};

/// Most audiences of a tenant: all are held in memory.
const MOST_AUDIENCES: usize = 50;
/// Longest `aud`, in bytes.
pub(crate) const LONGEST_AUDIENCE: usize = 255;
/// Most claims that a profile adds, and the most bytes that they may take as JSON.
const MOST_EXTRA: (usize, usize) = (20, 2048);
/// Most claims that are attributes, and most privileges of a profile.
const MOST_NAMED: usize = 20;
/// Most seconds that `iat` lies back.
const MOST_BACKDATED: i32 = 30;
/// Claims with a meaning of their own, which a profile cannot make up.
const RESERVED: [&str; 28] = [
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "tid",
    "client_id",
    "key_id",
    "sid",
    "username",
    "roles",
    "scope",
    "permissions",
    "act",
    "may_act",
    "cnf",
    "nonce",
    "auth_time",
    "allowed_ips",
    "narrowed",
    "status",
    "email",
    "preferred_username",
    "uid",
    "priv",
    "admin",
];

/// What `sub` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectIs {
    /// The id of the person or application.
    #[default]
    Id,
    /// The login name; where there is no person, the id.
    Username,
}

/// `alg` of the tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlgorithmName {
    /// Ed25519 under the name that verifiers know (RFC 8037).
    #[default]
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// Ed25519 under its fully specified name (RFC 9864).
    Ed25519,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA.
    #[serde(rename = "RS256")]
    Rs256,
}

impl AlgorithmName {
    /// As a JOSE header says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// The kind of key that it takes.
    #[must_use]
    pub fn algorithm(self) -> Algorithm {
        match self {
            Self::EdDsa | Self::Ed25519 => Algorithm::EdDsa,
            Self::Es256 => Algorithm::Es256,
            Self::Rs256 => Algorithm::Rs256,
        }
    }
}

/// Claims that a token may carry beside `iss`, `sub`, `aud`, `exp`, `iat` and `jti`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// The client.
    ClientId,
    /// The API key.
    KeyId,
    /// The tenant.
    Tid,
    /// The login name.
    Username,
    /// The person's roles.
    Roles,
    /// What was granted, space-separated.
    Scope,
    /// What was granted, as a map from resource to actions.
    Permissions,
    /// The same in capitals.
    PermissionsUpper,
    /// The person's e-mail address.
    Email,
    /// The login name, as OpenID Connect calls it.
    PreferredUsername,
    /// The id of the person or application, whatever `sub` says.
    Uid,
}

/// A letter of the claim `priv`, and the scope that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privilege {
    /// How it is written: a letter, or a word.
    pub letter: String,
    /// What must have been granted.
    pub scope: String,
}

/// What an audience's tokens look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// What `sub` says.
    pub subject: SubjectIs,
    /// Which claims are there.
    pub claims: Vec<Claim>,
    /// Claims that are always the same.
    pub extra: Map<String, Value>,
    /// Claims that are attributes of the person, by the claim's name. One that the person lacks is left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The letters of the claim `priv`, in their order; without any there is no such claim.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub privileges: Vec<Privilege>,
    /// The role that the claim `admin` is about; `None` for no such claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_role: Option<String>,
    /// Leaves `iss` out. Nobody can be asked about such a token.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub omit_iss: bool,
    /// Leaves `jti` out. Nobody can be asked about such a token.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub omit_jti: bool,
    /// Seconds, 0 to 30, that `iat` lies back, for verifiers whose clock may be late and that take no `iat` of the future.
    #[serde(skip_serializing_if = "is_zero")]
    pub backdate: i32,
    /// Leaves `aud` out, for verifiers that refuse one.
    pub omit_aud: bool,
    /// Leaves `exp` out of tokens from exchanges, unless `lifetime` says how long they live. Needs `allow_non_expiring`.
    pub omit_exp: bool,
    /// An operator may issue tokens without `exp`.
    pub allow_non_expiring: bool,
    /// Seconds that tokens live; `None` takes the key's.
    pub lifetime: Option<i32>,
    /// What a key must hold to get tokens for it.
    pub required_scope: Option<String>,
    /// `alg`.
    pub algorithm: AlgorithmName,
    /// It has signing keys of its own.
    pub own_key: bool,
    /// Its own key changes only when an admin confirms that the service has the next one.
    pub static_key: bool,
    /// Its own keys are not in the tenant's JWK set.
    pub private_jwks: bool,
    /// Its tokens have a place in a status list. Kept only where it is asked for: a program of before takes no profile with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub status_list: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            subject: SubjectIs::Id,
            claims: vec![Claim::ClientId, Claim::KeyId, Claim::Tid, Claim::Username, Claim::Roles, Claim::Scope],
            extra: Map::new(),
            attributes: BTreeMap::new(),
            privileges: Vec::new(),
            admin_role: None,
            omit_iss: false,
            omit_jti: false,
            backdate: 0,
            omit_aud: false,
            omit_exp: false,
            allow_non_expiring: false,
            lifetime: None,
            required_scope: None,
            algorithm: AlgorithmName::EdDsa,
            own_key: false,
            static_key: false,
            private_jwks: false,
            status_list: false,
        }
    }
}

impl Profile {
    /// Refuses what cannot be served.
    fn check(&self) -> Result<(), Refusal> {
        check_lifetime(self.lifetime)?;
        if self.omit_exp && !self.allow_non_expiring {
            return Err(Refusal::invalid("omit_exp", "needs allow_non_expiring: such tokens live until they are called back"));
        }
        if self.algorithm.algorithm() != Algorithm::EdDsa && !self.own_key {
            return Err(Refusal::invalid("algorithm", "of the tenant's own keys is Ed25519: others need own_key"));
        }
        if (self.static_key || self.private_jwks) && !self.own_key {
            return Err(Refusal::invalid("own_key", "is needed for static_key and private_jwks"));
        }
        if self.claims.contains(&Claim::Permissions) && self.claims.contains(&Claim::PermissionsUpper) {
            return Err(Refusal::invalid("claims", "has permissions in one of the two forms, not in both"));
        }
        if self.required_scope.as_deref().is_some_and(|scope| !is_scope(scope)) {
            return Err(Refusal::invalid("required_scope", "is `resource:action`"));
        }
        if (self.omit_iss || self.omit_jti) && self.allow_non_expiring {
            let problem = "leaves out what such a token is called back by: give the tokens an end, or iss and jti";
            return Err(Refusal::invalid("allow_non_expiring", problem));
        }
        if !(0..=MOST_BACKDATED).contains(&self.backdate) {
            return Err(Refusal::invalid("backdate", format!("is 0 to {MOST_BACKDATED} seconds")));
        }
        if self.admin_role.as_deref().is_some_and(|role| !is_role(role)) {
            return Err(Refusal::invalid("admin_role", "is the name of a role"));
        }
        let letter = |text: &str| (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if self.privileges.len() > MOST_NAMED || !self.privileges.iter().all(|one| letter(&one.letter) && is_scope(&one.scope)) {
            let problem =
                format!("are at most {MOST_NAMED} letters, or words of at most 16, each with its scope `resource:action`");
            return Err(Refusal::invalid("privileges", problem));
        }
        let claim_fits =
            |name: &String| is_attribute(name) && !RESERVED.contains(&name.as_str()) && !self.extra.contains_key(name);
        let fits = |(claim, attribute): (&String, &String)| claim_fits(claim) && is_attribute(attribute);
        if self.attributes.len() > MOST_NAMED || !self.attributes.iter().all(fits) {
            let problem = format!(
                "are at most {MOST_NAMED} claims with the name of an attribute each; no claim is there that has a meaning of its \
                 own or is one of `extra`"
            );
            return Err(Refusal::invalid("attributes", problem));
        }
        let name_fits = |name: &String| (1..=64).contains(&name.len()) && !RESERVED.contains(&name.as_str());
        let (most, bytes) = MOST_EXTRA;
        let size = serde_json::to_string(&self.extra).map_or(usize::MAX, |text| text.len());
        if self.extra.len() > most
            || size > bytes
            || !self.extra.keys().all(name_fits)
            || self.extra.values().any(|value| depth(value) > DEEPEST)
        {
            let problem =
                format!("is at most {most} claims in {bytes} bytes, 6 levels deep, and none that has a meaning of its own");
            return Err(Refusal::invalid("extra", problem));
        }
        Ok(())
    }
}

/// `resource:action` as a map from resource to actions.
pub(crate) fn permissions<'a>(scopes: impl Iterator<Item = &'a str>, upper: bool) -> Value {
    let mut map = Map::new();
    for (resource, action) in scopes.filter_map(|scope| scope.split_once(':')) {
        let spelled = |word: &str| if upper { word.to_ascii_uppercase() } else { word.to_owned() };
        if let Value::Array(actions) = map.entry(spelled(resource)).or_insert_with(|| json!([])) {
            actions.push(spelled(action).into());
        }
    }
    map.into()
}

/// The letters whose scopes these are.
pub(crate) fn held_letters<'a>(privileges: &'a [Privilege], scopes: &ScopeSet) -> impl Iterator<Item = &'a str> {
    privileges.iter().filter(|one| scopes.contains(&one.scope)).map(|one| one.letter.as_str())
}

/// An audience with what its tokens need.
pub(crate) struct AudienceEntry {
    pub(crate) row: Audience,
    pub(crate) profile: Profile,
    /// Its own keys, if it has them.
    pub(crate) ring: Option<Ring>,
}

/// What an audience's row says of its tokens.
pub(crate) fn profile(row: &Audience) -> Result<Profile, Fault> {
    serde_json::from_value(row.profile.clone())
        .map_err(|error| Fault::Internal(format!("the profile of audience {}: {error}", row.name)))
}

impl TenantEntry {
    /// The audience of that name or `aud`.
    pub(crate) fn audience(&self, name: &str) -> Option<&AudienceEntry> {
        let by_name = self.audiences.iter().find(|audience| audience.row.name == name);
        by_name.or_else(|| self.audiences.iter().find(|audience| audience.row.uri == name))
    }

    /// The audience whose shape tokens have that are asked for nobody in particular, if there is one.
    pub(crate) fn usual_audience(&self) -> Result<Option<&AudienceEntry>, Refusal> {
        let Some(name) = &self.settings.usual_audience else { return Ok(None) };
        let gone = || Refusal::invalid("usual_audience", format!("is `{name}`, which is none that this tenant has now"));
        self.audience(name).ok_or_else(gone).map(Some)
    }

    /// Whose shape tokens have that are asked for nobody in particular.
    pub(crate) fn usual_target(&self) -> Result<Target<'_>, Refusal> {
        Ok(self.usual_audience()?.map_or(Target::Ours(&self.issuer), Target::Registered))
    }

    fn usual_privileges(&self) -> &[Privilege] {
        let usual = self.settings.usual_audience.as_deref().and_then(|name| self.audience(name));
        usual.map_or(&[], |usual| &usual.profile.privileges)
    }

    /// What may be done, in the letters of the tenant's usual audience and in their order; `None` where it has no letters.
    #[must_use]
    pub fn privileges(&self, scopes: &ScopeSet) -> Option<Vec<String>> {
        let letters = self.usual_privileges();
        (!letters.is_empty()).then(|| held_letters(letters, scopes).map(str::to_owned).collect())
    }

    /// The scopes that letters of the tenant's usual audience stand for.
    pub(crate) fn scopes_of_privileges(&self, wanted: &[String]) -> Result<Vec<String>, Refusal> {
        let lent = self.settings.dialects.howler.is_some().then_some((LENT_LETTER, LENT_SCOPE));
        let known = || self.usual_privileges().iter().map(|one| (one.letter.as_str(), one.scope.as_str())).chain(lent);
        let of = |wanted: &String| known().find(|(letter, _)| letter == wanted).map(|(_, scope)| scope.to_owned());
        let unknown = || {
            let letters: Vec<&str> = known().map(|(letter, _)| letter).collect();
            Refusal::invalid("priv", format!("are letters of this tenant's usual audience: {}", letters.join(", ")))
        };
        wanted.iter().map(|one| of(one).ok_or_else(unknown)).collect()
    }

    /// Whether a token of ours with these audiences is for this issuer, or has the shape of the tenant's usual audience.
    pub(crate) fn is_for_us_or_usual(&self, audiences: &[String]) -> bool {
        let usual = self.settings.usual_audience.as_deref().and_then(|name| self.audience(name));
        match (audiences, usual) {
            ([], usual) => usual.is_some_and(|usual| usual.profile.omit_aud && !usual.profile.own_key),
            (some, usual) => {
                some.contains(&self.issuer) || usual.is_some_and(|usual| !usual.profile.own_key && some.contains(&usual.row.uri))
            }
        }
    }

    /// Seconds that tokens for an audience live, if it says so.
    #[must_use]
    pub fn audience_lifetime(&self, name: &str) -> Option<i32> {
        self.audience(name)?.profile.lifetime
    }
}

/// An audience to be made.
pub struct NewAudience {
    /// How it is asked for.
    pub name: String,
    /// The `aud` of its tokens.
    pub uri: String,
    /// What they look like.
    pub profile: Profile,
}

/// What to change of an audience; `None` leaves as it is.
#[derive(Default)]
pub struct AudienceChange {
    /// How it is asked for.
    pub name: Option<String>,
    /// The `aud` of its tokens.
    pub uri: Option<String>,
    /// All of what they look like.
    pub profile: Option<Profile>,
}

/// An audience as an admin sees it.
pub struct AudienceView {
    /// Its row.
    pub row: Audience,
    /// What its tokens look like.
    pub profile: Profile,
}

pub(crate) fn taken(error: claviger_store::StoreError) -> Failure {
    match error.unique_violation() {
        Some(AUDIENCE_NAME_TAKEN) => Refusal::Conflict("there is an audience of this name already".into()).into(),
        Some(AUDIENCE_URI_TAKEN) => Refusal::Conflict("there is an audience with this `aud` already".into()).into(),
        _ => error.into(),
    }
}

fn as_json(profile: &Profile) -> Result<Value, Fault> {
    serde_json::to_value(profile).map_err(|error| Fault::Internal(error.to_string()))
}

pub(crate) async fn living(scoped: &mut TenantTx<'_>, id: AudienceId) -> Result<(Audience, Profile), Failure> {
    let row = scoped.audience(id).await?.ok_or(Refusal::NotFound)?;
    let profile = profile(&row)?;
    Ok((row, profile))
}

impl Issuer {
    pub(crate) fn check_audience(&self, name: &str, uri: &str, profile: &Profile) -> Result<(), Refusal> {
        check_name("name", name)?;
        if uri.is_empty() || uri.len() > LONGEST_AUDIENCE || uri.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Refusal::invalid("uri", format!("is 1 to {LONGEST_AUDIENCE} bytes, without spaces")));
        }
        // Its tokens would open our own endpoints.
        if self.settings.slug_of_issuer(uri).is_some() {
            return Err(Refusal::invalid("uri", "is one of our own issuers: tokens for it need no audience"));
        }
        profile.check()
    }

    /// Registers an audience, and makes its first key if it is to have its own.
    pub async fn create_audience(&self, tenant: TenantId, actor: &Actor, new: NewAudience) -> Result<AudienceView, Failure> {
        let now = self.clock.now();
        let profile = new.profile.clone();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        scoped.signing_turn().await?;
        let (row, deeds) = self.keep_audience(&mut scoped, tenant, actor, new, now).await?;
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        self.commit(tx, "audiences", tenant, row.id).await?;
        Ok(AudienceView { row, profile })
    }

    /// Keeps an audience, with its first key if it is to have its own. Within a turn of the tenant's signing keys.
    pub(crate) async fn keep_audience(
        &self,
        scoped: &mut TenantTx<'_>,
        tenant: TenantId,
        actor: &Actor,
        new: NewAudience,
        now: DateTime<Utc>,
    ) -> Result<(Audience, Vec<Draft>), Failure> {
        let NewAudience { name, uri, profile } = new;
        self.check_audience(&name, &uri, &profile)?;
        let row = Audience { id: AudienceId(self.random.uuid_at(now)), name, uri, profile: as_json(&profile)?, created_at: now };
        if scoped.audiences().await?.len() >= MOST_AUDIENCES {
            return Err(Refusal::Conflict(format!("a tenant has at most {MOST_AUDIENCES} audiences")).into());
        }
        scoped.create_audience(&row).await.map_err(taken)?;
        let detail = json!({ "name": row.name, "uri": row.uri, "profile": row.profile });
        let mut deeds = vec![actor.did("audience.create", format!("audience:{}", row.id), detail, now)];
        if profile.own_key {
            let (public, private) = self.new_pair(profile.algorithm.algorithm()).await?;
            self.keep_signing_key(scoped, tenant, Some(row.id), &public, &private, true, now).await?;
            let detail = json!({ "algorithm": public.algorithm().name(), "audience": row.id });
            deeds.push(actor.did("signing_key.create", format!("signing_key:{}", public.kid()), detail, now));
        }
        Ok((row, deeds))
    }

    /// All audiences of a tenant, oldest first.
    pub async fn list_audiences(&self, tenant: TenantId) -> Result<Vec<AudienceView>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let rows = tx.tenant(tenant).await?.audiences().await?;
        Ok(rows.into_iter().map(|row| Ok(AudienceView { profile: profile(&row)?, row })).collect::<Result<_, Fault>>()?)
    }

    /// The audience of that id.
    pub async fn find_audience(&self, tenant: TenantId, id: AudienceId) -> Result<AudienceView, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let (row, profile) = living(&mut tx.tenant(tenant).await?, id).await?;
        Ok(AudienceView { row, profile })
    }

    /// The audience of that name, `aud` or id.
    pub async fn find_audience_by_name(&self, tenant: TenantId, name: &str) -> Result<AudienceView, Failure> {
        let mut all = self.list_audiences(tenant).await?;
        let at = all.iter().position(|one| one.row.name == name || one.row.uri == name || one.row.id.to_string() == name);
        Ok(at.map(|at| all.swap_remove(at)).ok_or(Refusal::NotFound)?)
    }

    /// Changes an audience. Its algorithm and whether it has its own key stay as they are.
    pub async fn change_audience(
        &self,
        tenant: TenantId,
        actor: &Actor,
        id: AudienceId,
        change: AudienceChange,
    ) -> Result<AudienceView, Failure> {
        let now = self.clock.now();
        let AudienceChange { name, uri, profile } = change;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        scoped.signing_turn().await?;
        let (before, shape) = living(&mut scoped, id).await?;
        let profile = profile.unwrap_or_else(|| shape.clone());
        let (name, uri) = (name.unwrap_or(before.name), uri.unwrap_or(before.uri));
        self.check_audience(&name, &uri, &profile)?;
        if profile.algorithm.algorithm() != shape.algorithm.algorithm() || profile.own_key != shape.own_key {
            let problem =
                "kind of key and own_key stay as they are: register another audience, and end this one when it is unused";
            return Err(Refusal::Conflict(problem.into()).into());
        }
        let row = Audience { id, name, uri, profile: as_json(&profile)?, created_at: before.created_at };
        scoped.update_audience(id, &row.name, &row.uri, &row.profile).await.map_err(taken)?;
        let detail = json!({ "name": row.name, "uri": row.uri, "profile": row.profile });
        let deed = actor.did("audience.update", format!("audience:{id}"), detail, now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "audiences", tenant, id).await?;
        Ok(AudienceView { row, profile })
    }

    /// Ends an audience for good: nobody gets tokens for it any more, and what its own keys signed counts no more.
    pub async fn delete_audience(&self, tenant: TenantId, actor: &Actor, id: AudienceId) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        scoped.signing_turn().await?;
        if !scoped.delete_audience(id, now, &actor.name).await? {
            return Err(Refusal::NotFound.into());
        }
        let mut withdrawn = Vec::new();
        for key in scoped.signing_keys().await?.into_iter().filter(|key| key.audience == Some(id)) {
            if scoped.withdraw_signing_key(&key.kid, GoneWhy::Discarded, now).await? {
                withdrawn.push(key.kid);
            }
        }
        let deed = actor.did("audience.delete", format!("audience:{id}"), json!({ "withdrawn": withdrawn }), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit(tx, "audiences", tenant, id).await
    }

    /// The key that signs for an audience, or the one that will: `None` if there is none.
    pub async fn audience_key(&self, tenant: TenantId, id: AudienceId, next: bool) -> Result<Option<PublicKey>, Failure> {
        let profile = self.find_audience(tenant, id).await?.profile;
        let own = profile.own_key.then_some(id);
        let state = if next { "next" } else { "active" };
        let keys = self.list_signing_keys(tenant).await?;
        let key = keys.into_iter().find(|key| key.audience == own && key.state == state).map(|key| key.public);
        Ok(key.map(|key| if own.is_some() { key.named(profile.algorithm) } else { key }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_become_a_map_of_permissions() {
        let scopes = ["conversation:read", "conversation:write", "memory:list"];
        assert_eq!(permissions(scopes.into_iter(), false), json!({ "conversation": ["read", "write"], "memory": ["list"] }));
        assert_eq!(permissions(scopes.into_iter(), true), json!({ "CONVERSATION": ["READ", "WRITE"], "MEMORY": ["LIST"] }));
    }

    #[test]
    fn what_a_program_of_before_does_not_know_is_not_written_unless_it_is_asked_for() {
        let written = |profile: &Profile| as_json(profile).unwrap().get("status_list").cloned();
        assert_eq!(written(&Profile::default()), None);
        assert_eq!(written(&Profile { status_list: true, ..Profile::default() }), Some(json!(true)));
    }

    #[test]
    fn a_profile_neither_makes_up_reserved_claims_nor_contradicts_itself() {
        let fits = |change: fn(&mut Profile)| {
            let mut profile = Profile::default();
            change(&mut profile);
            profile.check().is_ok()
        };
        assert!(fits(|_| {}));
        assert!(fits(|profile| profile.extra = Map::from_iter([("classification".into(), json!("TLP:A"))])));
        assert!(fits(|profile| (profile.own_key, profile.algorithm) = (true, AlgorithmName::Rs256)));
        for reserved in RESERVED {
            let mut profile = Profile::default();
            profile.extra.insert(reserved.into(), json!(1));
            assert!(profile.check().is_err(), "{reserved}");
        }
        assert!(!fits(|profile| profile.extra = Map::from_iter([("x".into(), json!("a".repeat(2048)))])));
        assert!(!fits(|profile| profile.extra = Map::from_iter([("x".into(), json!([[[[[[[1]]]]]]]))])));
        assert!(!fits(|profile| profile.omit_exp = true));
        assert!(!fits(|profile| profile.algorithm = AlgorithmName::Es256));
        assert!(!fits(|profile| profile.static_key = true));
        assert!(!fits(|profile| profile.private_jwks = true));
        assert!(!fits(|profile| profile.lifetime = Some(1)));
        assert!(!fits(|profile| profile.required_scope = Some("*".into())));
        assert!(!fits(|profile| profile.claims.extend([Claim::Permissions, Claim::PermissionsUpper])));
        let named = |claim: &str, attribute: &str| {
            let attributes = BTreeMap::from([(claim.to_owned(), attribute.to_owned())]);
            Profile { attributes, ..Profile::default() }.check().is_ok()
        };
        assert!(named("groups", "teams"));
        assert!(!named("roles", "teams") && !named("sub", "name") && !named("admin", "boss") && !named("groups", "a b"));
        let letters = |letter: &str, scope: &str| {
            let privileges = vec![Privilege { letter: letter.to_owned(), scope: scope.to_owned() }];
            Profile { privileges, ..Profile::default() }.check().is_ok()
        };
        assert!(letters("R", "hits:read"));
        assert!(!letters("", "hits:read") && !letters("R", "hits") && !letters("R W", "hits:read"));
        assert!(fits(|profile| profile.backdate = 30));
        assert!(!fits(|profile| profile.backdate = 31) && !fits(|profile| profile.backdate = -1));
        assert!(fits(|profile| profile.omit_jti = true));
        assert!(!fits(|profile| (profile.omit_jti, profile.allow_non_expiring) = (true, true)));
        assert!(!fits(|profile| profile.admin_role = Some("a b".into())));
    }
}

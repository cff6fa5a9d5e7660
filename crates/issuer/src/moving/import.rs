//! A tenant is made again from a file: all of it, in one transaction, or nothing.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use claviger_store::api_key::{ApiKey, KeptSecret, KeyStatus, SecretMac, StoredSecret};
use claviger_store::application::Application;
use claviger_store::audience::Audience;
use claviger_store::audit::TokenRow;
use claviger_store::connection::Connection;
use claviger_store::id::{AudienceId, KeyId, TenantId};
use claviger_store::moving::{MovedToken, SLUG_TAKEN, TENANT_ID_TAKEN};
use claviger_store::revocation::{Revocation, Stops};
use claviger_store::signing_key::{Algorithm, Ends, GoneWhy, SigningKey, SigningKeyState};
use claviger_store::tenant::Tenant;
use claviger_store::user::User;
use claviger_store::{StoreError, TenantTx, Tx};
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{
    ApplicationRecord, AudienceRecord, Bytes, ConnectionRecord, END, EndRecord, EndsRecord, FORM, Kept, KeyRecord, LinkRecord,
    PepperRecord, Record, RevocationRecord, RoleRecord, ScopeRecord, Sealing, SecretKept, SecretRecord, SigningKeyRecord,
    StateRecord, TenantRecord, TokenRecord, UserRecord, place_of_pepper, status,
};
use crate::acting::ActingRule;
use crate::attribute::{Attributes, changed};
use crate::audience::Profile;
use crate::audit::{Actor, append};
use crate::connection::{ConnectionSettings, secret_place};
use crate::key_pair::{PublicKey, Signer};
use crate::limits::KeyLimits;
use crate::password::imported;
use crate::rights::Patterns;
use crate::role::{checked_roles, is_role};
use crate::scope::is_scope;
use crate::secret::{new_secret, pepper_name};
use crate::settings::{TenantSettings, check_lifetime};
use crate::signing_key::place;
use crate::tenant::{check_name, is_slug};
use crate::user::normal_email;
use crate::username::Username;
use crate::vault::Vault;
use crate::{Failure, Fault, Issuer, Refusal};

/// After how many records statements are planned anew.
const PLANNED_ANEW: usize = 500;
/// Most peppers of a file. An installation has one, and one more for each rotation.
const MOST_PEPPERS: usize = 32;

/// What became of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Records of each kind that were kept, or would be; none when the tenant is here already, as it is in the file.
    pub made: BTreeMap<&'static str, u64>,
    /// True when it was here already.
    pub unchanged: bool,
    /// Keys whose secrets cannot be checked here: they need another.
    pub keys_without_secret: Vec<String>,
    /// Connections whose secret stayed behind.
    pub connections_without_secret: Vec<String>,
    /// `kid`s whose private half stayed behind: others sign from now on, and what these signed still verifies.
    pub signing_keys_replaced: Vec<String>,
}

/// A file that was read through: whole, and, if it is sealed, as it was written.
struct File<'a> {
    tenant: TenantRecord,
    lines: Vec<&'a str>,
    vault: Option<Vault>,
}

fn bad(line: usize, problem: impl std::fmt::Display) -> Failure {
    Refusal::Conflict(format!("line {line} of the file {problem}; nothing was done")).into()
}

/// The parser's own words may quote what it read.
fn record(line: usize, text: &str) -> Result<Record, Failure> {
    serde_json::from_str(text).map_err(|error| bad(line, format!("is no record of a tenant (column {})", error.column())))
}

/// Whether the file's secrets need a passphrase, as its first line says; `None` if that is not the first line of a tenant's
/// file.
#[must_use]
pub fn is_sealed(text: &str) -> Option<bool> {
    match record(1, text.lines().next()?) {
        Ok(Record::Tenant(tenant)) => Some(tenant.seal.is_some()),
        _ => None,
    }
}

impl<'a> File<'a> {
    async fn read(text: &'a str, passphrase: Option<&SecretString>) -> Result<Self, Failure> {
        let whole = text.strip_suffix('\n').unwrap_or(text);
        let (before, last) = whole.rsplit_once('\n').ok_or_else(|| bad(1, "is all that there is"))?;
        let mut lines: Vec<&str> = before.lines().collect();
        let Record::Tenant(tenant) = record(1, lines.first().copied().unwrap_or_default())? else {
            return Err(bad(1, "is not that of a tenant, as `claviger export` writes it"));
        };
        if tenant.form != FORM {
            return Err(bad(1, format!("is of the form {}, and this program knows the form {FORM}", tenant.form)));
        }
        let end = lines.len() + 1;
        let Ok(Record::End(EndRecord { records, sha256, sealed })) = record(end, last) else {
            return Err(bad(end, "is not the last one: the file is not whole"));
        };
        let mut digest = Sha256::new();
        digest.update(before);
        digest.update("\n");
        let digest = digest.finalize();
        if u64::try_from(lines.len()) != Ok(records) || digest.as_slice() != sha256.0 {
            return Err(bad(end, "does not fit those before it: somebody changed the file, or lost a part of it"));
        }
        let vault = match (&tenant.seal, passphrase) {
            (None, None) => None,
            // Whoever gives a passphrase relies on what it proves.
            (None, Some(_)) => {
                let problem =
                    "is given, and this file is not sealed: anybody may have changed it. Import it without one if you trust it";
                return Err(Refusal::invalid("passphrase", problem).into());
            }
            (Some(_), None) => return Err(Refusal::invalid("passphrase", "is needed: the file's secrets are sealed").into()),
            (Some(seal), Some(passphrase)) => {
                let vault = seal.vault(passphrase).await?;
                let opened = sealed.and_then(|Bytes(sealed)| vault.open(END, &sealed).ok());
                match opened {
                    Some(opened) if opened.as_slice() == sha256.0 => Some(vault),
                    _ => {
                        return Err(
                            Refusal::invalid("passphrase", "does not open this file, or somebody changed the file").into()
                        );
                    }
                }
            }
        };
        lines.remove(0);
        Ok(Self { tenant, lines, vault })
    }

    /// Opens what the file holds sealed; `None` when it is not in the file.
    fn open(&self, place: &str, kept: &Kept) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        match (kept, &self.vault) {
            (Kept::Sealed(Bytes(sealed)), Some(vault)) => {
                let opened = vault.open(place, sealed);
                Ok(Some(opened.map_err(|_| Refusal::Conflict(format!("a secret of the file does not open: {place}")))?))
            }
            (Kept::Sealed(_), None) => Err(Refusal::Conflict("the file has secrets and says no passphrase".into()).into()),
            (Kept::None | Kept::LeftOut, _) => Ok(None),
        }
    }
}

/// What is being made.
struct Making<'a> {
    issuer: &'a Issuer,
    file: &'a File<'a>,
    tenant: TenantId,
    actor: &'a Actor,
    now: DateTime<Utc>,
    moved: Moved,
    /// Versions here of the peppers that are known, by name.
    peppers: BTreeMap<String, i16>,
    /// Of whom a key signed that came without its private half.
    signers_lost: BTreeSet<Option<AudienceId>>,
    revocations: Vec<Revocation>,
    /// Peppers that came with the file.
    adopted: usize,
}

impl Issuer {
    /// Makes the tenant of a file again, as `slug`; or says, in a dry run, what that would do. Where it is here already, just
    /// as the file says, nothing is done.
    pub async fn import_tenant(
        &self,
        actor: &Actor,
        slug: &str,
        text: &str,
        passphrase: Option<&SecretString>,
        dry_run: bool,
    ) -> Result<Moved, Failure> {
        if !is_slug(slug) {
            return Err(
                Refusal::invalid("slug", "a slug is 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -").into()
            );
        }
        let file = File::read(text, passphrase).await?;
        let id = file.tenant.id;
        let mut tx = self.store.begin().await?;
        let (there, same) = (tx.any_tenant().tenant_id_by_slug(slug).await?, tx.any_tenant().tenant_by_id(id).await?);
        drop(tx);
        match (there, same) {
            (None, None) => {}
            (Some(there), _) if there == id => {
                if self.is_as_in(&file, slug).await? {
                    return Ok(Moved { unchanged: true, ..Moved::default() });
                }
                let problem = format!("the tenant `{slug}` is here already, and not as the file says: nothing was done");
                return Err(Refusal::Conflict(problem).into());
            }
            (Some(_), _) => {
                let problem = format!("`{slug}` is another tenant here: name one that is not there yet");
                return Err(Refusal::Conflict(problem).into());
            }
            (None, Some(same)) => {
                let problem = format!("the file's tenant is here already, as `{}` ({})", same.slug, same.status.word());
                return Err(Refusal::Conflict(problem).into());
            }
        }
        self.make_room().await?;
        let now = self.clock.now();
        let mut tx = self.store.begin_in(id).await?;
        let mut making = Making {
            issuer: self,
            file: &file,
            tenant: id,
            actor,
            now,
            moved: Moved::default(),
            peppers: self.pepper_names().await?,
            signers_lost: BTreeSet::new(),
            revocations: Vec::new(),
            adopted: 0,
        };
        making.make(&mut tx, slug).await?;
        let moved = making.moved;
        let mut scoped = tx.tenant(id).await?;
        let detail = json!({
            "slug": slug, "made": moved.made, "keys_without_secret": moved.keys_without_secret.len(),
            "signing_keys_replaced": moved.signing_keys_replaced,
        });
        let deed = actor.did("tenant.import", format!("tenant:{id}"), detail, now);
        append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        if dry_run {
            return Ok(moved);
        }
        self.commit(tx, "tenants", id, id).await?;
        self.reload_peppers().await?;
        Ok(moved)
    }

    /// Whether a tenant is just what the file says.
    async fn is_as_in(&self, file: &File<'_>, slug: &str) -> Result<bool, Failure> {
        let mut lines = Vec::with_capacity(file.lines.len());
        let now = self.clock.now();
        self.read_tenant(file.tenant.id, None, &Sealing::Marked, &mut |mut record: Record| {
            if !record.is_over(now) {
                record.mark();
                lines.push(record.line()?);
            }
            Ok(())
        })
        .await?;
        let mut here = lines.into_iter();
        let tenant = TenantRecord { slug: slug.to_owned(), ..copy(&file.tenant)? };
        let mut same = |mut record: Record| -> Result<bool, Failure> {
            record.mark();
            Ok(here.next() == Some(record.line()?))
        };
        if !same(Record::Tenant(tenant))? {
            return Ok(false);
        }
        for (number, line) in (2..).zip(&file.lines) {
            let record = record(number, line)?;
            if !record.is_over(now) && !same(record)? {
                return Ok(false);
            }
        }
        Ok(here.next().is_none())
    }
}

fn copy(tenant: &TenantRecord) -> Result<TenantRecord, Fault> {
    let value = serde_json::to_value(tenant).and_then(serde_json::from_value);
    value.map_err(|error| Fault::Internal(error.to_string()))
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Fault::Internal(error.to_string()).into()
}

/// What a table refuses is a mistake in the file.
fn refused(error: StoreError) -> Failure {
    let problem = match error.unique_violation() {
        Some(TENANT_ID_TAKEN | SLUG_TAKEN) => "the tenant was made by somebody else in the same moment".to_owned(),
        Some(other) => format!("two records are of the same ({other})"),
        None => return error.into(),
    };
    Refusal::Conflict(problem).into()
}

impl Making<'_> {
    async fn make(&mut self, tx: &mut Tx, slug: &str) -> Result<(), Failure> {
        let mut scoped = tx.tenant(self.tenant).await?;
        scoped.take_time().await?;
        self.keep_tenant(&mut scoped, slug).await?;
        let file = self.file;
        for (number, line) in (2..).zip(&file.lines) {
            let record = record(number, line)?;
            // There is no room any more for what has ended, nor need.
            if record.is_over(self.now) {
                continue;
            }
            let kind = self.keep(tx, record).await.map_err(|failure| match failure {
                Failure::Refusal(refusal) => bad(number, format!("cannot be kept: {refusal}")),
                fault @ Failure::Fault(_) => fault,
            })?;
            *self.moved.made.entry(kind).or_default() += 1;
            if number % PLANNED_ANEW == 0 {
                tx.tenant(self.tenant).await?.plan_anew().await?;
            }
        }
        let mut scoped = tx.tenant(self.tenant).await?;
        for whose in &self.signers_lost {
            self.issuer.keep_new_signing_key(&mut scoped, self.tenant, *whose, true, self.now).await?;
        }
        scoped.keep_revocations(self.file.tenant.revoked, &self.revocations).await.map_err(refused)
    }

    async fn keep_tenant(&mut self, scoped: &mut TenantTx<'_>, slug: &str) -> Result<(), Failure> {
        let TenantRecord { form: _, id, slug: _, name, settings, presets, created_at, disabled, revoked: _, seal: _ } =
            copy(&self.file.tenant)?;
        check_name("name", &name)?;
        let parsed: TenantSettings =
            serde_json::from_value(settings.clone()).map_err(|error| bad(1, format!("has settings that are none: {error}")))?;
        parsed.check()?;
        let tenant = Tenant {
            id,
            slug: slug.to_owned(),
            name,
            settings,
            presets,
            created_at,
            status: status(disabled, None),
            logins_ended_at: None,
        };
        scoped.keep_tenant(&tenant).await.map_err(refused)?;
        Ok(scoped.start_audit_chain(&self.issuer.chain_key.empty(id)).await?)
    }

    /// Keeps a record, and says of which kind it is.
    async fn keep(&mut self, tx: &mut Tx, record: Record) -> Result<&'static str, Failure> {
        if let Record::Pepper(pepper) = record {
            self.keep_pepper(tx, pepper).await?;
            return Ok("peppers");
        }
        if let Record::Key(key) = record {
            self.keep_key(tx, *key).await?;
            return Ok("keys");
        }
        let mut scoped = tx.tenant(self.tenant).await?;
        Ok(match record {
            Record::Scope(ScopeRecord { name, description, created_at }) => {
                if !is_scope(&name) {
                    return Err(Refusal::invalid("name", "is no scope").into());
                }
                scoped.enter_scopes(std::slice::from_ref(&name), created_at).await?;
                scoped.describe_scope(&name, &description).await?;
                "scopes"
            }
            Record::Role(RoleRecord { name, description, scopes, created_at, updated_at }) => {
                if !is_role(&name) {
                    return Err(Refusal::invalid("name", "is no name of a role").into());
                }
                Patterns::granted("scopes", &scopes)?;
                scoped.create_role(&name, &description, &scopes, created_at).await.map_err(refused)?;
                scoped.update_role(&name, &description, &scopes, updated_at).await?;
                "roles"
            }
            Record::Audience(AudienceRecord { id, name, uri, profile, created_at }) => {
                let parsed: Profile = serde_json::from_value(profile.clone())
                    .map_err(|error| Refusal::invalid("profile", format!("is none: {error}")))?;
                self.issuer.check_audience(&name, &uri, &parsed)?;
                scoped.create_audience(&Audience { id, name, uri, profile, created_at }).await.map_err(refused)?;
                "audiences"
            }
            Record::Connection(connection) => {
                self.keep_connection(&mut scoped, connection).await?;
                "connections"
            }
            Record::SigningKey(key) => {
                self.keep_signing_key(&mut scoped, key).await?;
                "signing_keys"
            }
            Record::User(user) => {
                self.keep_user(&mut scoped, *user).await?;
                "users"
            }
            Record::Application(application) => {
                let ApplicationRecord { id, name, token_lifetime, scopes, roles, created_at, disabled } = application;
                check_name("name", &name)?;
                check_lifetime(token_lifetime)?;
                Patterns::granted("scopes", scopes.as_deref().unwrap_or_default())?;
                let (roles, status) = (checked_roles(&roles)?, status(disabled, None));
                let application = Application { id, name, token_lifetime, scopes, roles, created_at, status };
                scoped.keep_application(&application).await.map_err(refused)?;
                "applications"
            }
            Record::Token(token) => {
                let TokenRecord { id, key, login, subject, scope, issued_at, expires_at, revoked } = token;
                let key = key.map(|key| key_id(&key)).transpose()?;
                let row = TokenRow { id, key, family: login, subject, scope, issued_at, expires_at };
                scoped.keep_token(&MovedToken { row, revoked: revoked.map(Into::into) }).await.map_err(refused)?;
                "tokens"
            }
            Record::Revocation(RevocationRecord { seq, stops, id, before, until }) => {
                if !(1..=self.file.tenant.revoked).contains(&seq) {
                    return Err(Refusal::invalid("seq", "is beyond the tenant's newest").into());
                }
                let stops = Stops::parse(&stops).map_err(|_| Refusal::invalid("stops", "is no claim that is known"))?;
                self.revocations.push(Revocation { seq, stops, id, before, until });
                "revocations"
            }
            Record::Tenant(_) | Record::End(_) | Record::Pepper(_) | Record::Key(_) => {
                return Err(Refusal::Conflict("it is of a kind that comes once".into()).into());
            }
        })
    }

    async fn keep_pepper(&mut self, tx: &mut Tx, pepper: PepperRecord) -> Result<(), Failure> {
        let PepperRecord { name, secret } = pepper;
        let Some(value) = self.file.open(&place_of_pepper(self.tenant, &name), &secret)? else { return Ok(()) };
        if value.len() != 32 || pepper_name(&value) != name {
            return Err(Refusal::invalid("name", "is not that of the pepper").into());
        }
        // Each costs every server a little with every check, and stays.
        self.adopted += 1;
        if self.adopted > MOST_PEPPERS {
            return Err(Refusal::Conflict(format!("there are more than {MOST_PEPPERS} peppers")).into());
        }
        let version = self.issuer.adopt_pepper(tx, &value, self.now).await?;
        self.peppers.insert(name, version);
        Ok(())
    }

    async fn keep_connection(&mut self, scoped: &mut TenantTx<'_>, connection: ConnectionRecord) -> Result<(), Failure> {
        let ConnectionRecord { id, name, title, settings, secret, created_at, updated_at, disabled_at } = connection;
        let parsed: ConnectionSettings = serde_json::from_value(settings.clone())
            .map_err(|error| Refusal::invalid("settings", format!("are none of a connection: {error}")))?;
        parsed.check()?;
        check_name("title", &title)?;
        let place = secret_place(self.tenant, id);
        let sealed_secret = match self.file.open(&place, &secret)? {
            Some(value) => Some(self.issuer.connection_vault.seal(&place, &value, &self.issuer.random).map_err(internal)?),
            None => None,
        };
        if secret == Kept::LeftOut {
            self.moved.connections_without_secret.push(name.clone());
        }
        let kind = parsed.kind().to_owned();
        let row = Connection { id, name, title, kind, settings, sealed_secret, created_at, updated_at, disabled_at };
        scoped.create_connection(&row).await.map_err(refused)?;
        if let Some(at) = disabled_at {
            scoped.set_connection_disabled(id, Some((at, &self.actor.name))).await?;
        }
        Ok(())
    }

    async fn keep_signing_key(&mut self, scoped: &mut TenantTx<'_>, key: SigningKeyRecord) -> Result<(), Failure> {
        let SigningKeyRecord { kid, algorithm, public_key, private_key, audience, created_at, activated_at, at_once, state } =
            key;
        let unknown = || Refusal::invalid("algorithm", "or `public_key` is none that is known, or not that of the `kid`");
        let algorithm = Algorithm::parse(&algorithm).ok_or_else(unknown)?;
        let public = PublicKey::new(algorithm, &public_key.0).ok().filter(|public| public.kid() == kid).ok_or_else(unknown)?;
        let mut state = state_of(state)?;
        if public.is_published_sample() && !matches!(state, SigningKeyState::Gone { .. }) {
            let problem =
                "was published as an example: everybody can sign with it. Rotate the signing key there, and export again";
            return Err(Refusal::invalid("private_key", problem).into());
        }
        let signs_or_signed = matches!(state, SigningKeyState::Active { .. } | SigningKeyState::Retired { .. });
        if signs_or_signed && activated_at.is_none() {
            return Err(Refusal::invalid("activated_at", "is missing of a key that signs or signed").into());
        }
        let place = place(self.tenant, &kid);
        let sealed_private = match self.file.open(&place, &private_key)? {
            Some(private) => {
                Signer::new(&public, &private).map_err(|_| Refusal::invalid("private_key", "is not that of the public one"))?;
                self.issuer.signing_vault.seal(&place, &private, &self.issuer.random).map_err(internal)?
            }
            None => Vec::new(),
        };
        if sealed_private.is_empty() {
            let signed = match state {
                // Nothing is under it.
                SigningKeyState::Next => return Ok(()),
                SigningKeyState::Active { .. } => {
                    self.signers_lost.insert(audience);
                    Some(self.now)
                }
                SigningKeyState::Retired { at, erased_at: None, .. } => Some(at),
                SigningKeyState::Retired { .. } | SigningKeyState::Gone { .. } => None,
            };
            if let Some(at) = signed {
                self.moved.signing_keys_replaced.push(kid.clone());
                state = SigningKeyState::Retired { at, erased_at: Some(self.now), ends: None };
            }
        }
        let key = SigningKey {
            kid,
            algorithm,
            public_key: public_key.0,
            sealed_private,
            created_at,
            activated_at,
            at_once,
            audience,
            state,
        };
        scoped.keep_signing_key(&key).await.map_err(refused)
    }

    async fn keep_user(&mut self, scoped: &mut TenantTx<'_>, user: UserRecord) -> Result<(), Failure> {
        let UserRecord { id, username, email, roles, scopes, attributes, created_at, disabled, deleted, password_hash, links } =
            user;
        let name = Username::parse(&username)?;
        if let Some(email) = &email {
            normal_email(email)?;
        }
        let user = User {
            id,
            username,
            email,
            roles: kept_roles(roles)?,
            scopes: kept_scopes(scopes)?,
            attributes: changed(&Attributes::new(), &attributes)?,
            created_at,
            status: status(disabled, deleted),
        };
        scoped.keep_user(&user, &name.folded, &name.skeleton).await.map_err(refused)?;
        if let Some(hash) = password_hash {
            scoped.set_password(id, &imported("password_hash", &hash)?, self.now, &self.actor.name).await?;
        }
        for LinkRecord { connection, subject, profile, created_at, used_at } in links {
            scoped.create_connection_link(connection, &subject, id, created_at).await.map_err(refused)?;
            if let Some(used_at) = used_at {
                scoped.use_connection_link(connection, &subject, &profile, used_at).await?;
            }
        }
        Ok(())
    }

    async fn keep_key(&mut self, tx: &mut Tx, key: KeyRecord) -> Result<(), Failure> {
        let KeyRecord {
            api_key,
            name,
            owner,
            scopes,
            roles,
            act_as,
            act_as_default,
            agents,
            limits,
            token_lifetime,
            refresh,
            created_at,
            created_by,
            expires_at,
            disabled,
            revoked,
            last_used_at,
            secrets,
        } = key;
        let id = key_id(&api_key)?;
        if tx.any_tenant().tenant_of_key(&id).await?.is_some() {
            return Err(Refusal::Conflict("the key id is taken; key ids are unique over all tenants".into()).into());
        }
        let owner = owner.into();
        let (scopes, roles) = (kept_scopes(scopes)?, kept_roles(roles)?);
        check_name("name", &name)?;
        check_lifetime(token_lifetime)?;
        KeyLimits::kept(&limits).ok_or_else(|| Refusal::invalid("limits", "are none of a key"))?.check()?;
        let acting = ActingRule { act_as, act_as_default, agents };
        acting.check(owner, &scopes, refresh)?;
        let ActingRule { act_as, act_as_default, agents } = acting;
        let secrets = if revoked.is_some() { Vec::new() } else { self.secrets(&id, secrets)? };
        let key = ApiKey {
            id,
            name,
            owner,
            scopes,
            roles,
            act_as,
            act_as_default,
            agents,
            limits,
            token_lifetime,
            refresh,
            created_at,
            created_by,
            expires_at,
            status: match (revoked, disabled) {
                (Some(deed), _) => KeyStatus::Revoked(deed.into()),
                (None, Some(deed)) => KeyStatus::Disabled(deed.into()),
                (None, None) => KeyStatus::Active,
            },
            last_used_at,
            last_used_network: None,
            last_used_agent: None,
        };
        tx.tenant(self.tenant).await?.keep_key(&key, &secrets, self.now).await.map_err(refused)
    }

    /// What is kept of a key's secrets. One whose pepper is nowhere cannot be checked: where there is no other, one that
    /// nobody knows takes its place.
    fn secrets(&mut self, id: &KeyId, secrets: Vec<SecretRecord>) -> Result<Vec<StoredSecret>, Failure> {
        let mut kept_all = Vec::new();
        let mut lost = false;
        for SecretRecord { slot, kept, created_at, expires_at } in secrets {
            if !(0..=1).contains(&slot) {
                return Err(Refusal::invalid("slot", "is 0 or 1").into());
            }
            let kept = match kept {
                SecretKept::Hash(hash) => KeptSecret::Hash(imported("hash", &hash)?),
                SecretKept::Mac { mac, pepper } => {
                    let mac = mac.0.try_into().map_err(|_| Refusal::invalid("mac", "is 32 bytes"))?;
                    let Some(version) = self.peppers.get(&pepper) else {
                        lost = true;
                        continue;
                    };
                    KeptSecret::Mac(SecretMac(mac), *version)
                }
            };
            kept_all.push(StoredSecret { slot, kept, created_at, expires_at });
        }
        if lost {
            self.moved.keys_without_secret.push(id.to_string());
        }
        if kept_all.is_empty() {
            let nobodys = new_secret(&self.issuer.settings.brand, &self.issuer.random);
            let kept = self.issuer.keep(id, &nobodys)?;
            kept_all.push(StoredSecret { slot: 0, kept, created_at: self.now, expires_at: None });
        }
        Ok(kept_all)
    }
}

/// What somebody holds may have come to be more than is given at once.
fn kept_scopes(scopes: Vec<String>) -> Result<Vec<String>, Refusal> {
    match scopes.iter().all(|scope| is_scope(scope)) {
        true => Ok(scopes),
        false => Err(Refusal::invalid("scopes", "are `resource:action`, each")),
    }
}

fn kept_roles(roles: Vec<String>) -> Result<Vec<String>, Refusal> {
    match roles.iter().all(|role| is_role(role)) {
        true => Ok(roles),
        false => Err(Refusal::invalid("roles", "are names of roles, each")),
    }
}

fn key_id(text: &str) -> Result<KeyId, Refusal> {
    KeyId::parse(text).ok_or_else(|| Refusal::invalid("api_key", "is no key id"))
}

fn state_of(state: StateRecord) -> Result<SigningKeyState, Refusal> {
    Ok(match state {
        StateRecord::Next => SigningKeyState::Next,
        StateRecord::Active { since } => SigningKeyState::Active { since },
        StateRecord::Retired { at, erased_at, ends } => {
            let ends = ends.map(|ends| match ends {
                EndsRecord::At(end) => Ends::At(end),
                EndsRecord::Never => Ends::Never,
            });
            SigningKeyState::Retired { at, erased_at, ends }
        }
        StateRecord::Gone { at, why } => {
            let why = GoneWhy::parse(&why).ok_or_else(|| Refusal::invalid("why", "is no reason that is known"))?;
            SigningKeyState::Gone { at, why }
        }
    })
}

//! A tenant is written into a file.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use claviger_store::TenantTx;
use claviger_store::api_key::{ApiKey, KeptSecret, KeyStatus, StoredSecret};
use claviger_store::application::Application;
use claviger_store::audience::Audience;
use claviger_store::audit::TokenRow;
use claviger_store::connection::{Connection, Link};
use claviger_store::id::{ApplicationId, KeyId, Owner, TenantId, UserId};
use claviger_store::moving::MovedToken;
use claviger_store::password::PasswordHash;
use claviger_store::revocation::Revocation;
use claviger_store::role::{Role, Scope};
use claviger_store::signing_key::{Ends, SigningKey, SigningKeyState};
use claviger_store::tenant::Tenant;
use claviger_store::user::User;
use secrecy::SecretString;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{
    ApplicationRecord, AudienceRecord, Bytes, ConnectionRecord, END, EndRecord, EndsRecord, FORM, Kept, KeyRecord, LinkRecord,
    PepperRecord, Record, RevocationRecord, RoleRecord, ScopeRecord, SealRecord, Sealing, SecretKept, SecretRecord,
    SigningKeyRecord, StateRecord, TenantRecord, TokenRecord, UserRecord, check_passphrase, deeds, place_of_pepper,
};
use crate::audit::{Actor, append};
use crate::connection::secret_place;
use crate::installation::{InstallationSecret, PEPPER, installation_secret};
use crate::key_life::is_published;
use crate::secret::pepper_name;
use crate::signing_key::place;
use crate::{Failure, Fault, Issuer, Refusal};

/// Rows that are read at once.
const PAGE: u16 = 500;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Lines.
    pub records: u64,
}

/// Where records go.
pub(super) trait Sink {
    /// Takes the next one.
    fn take(&mut self, record: Record) -> Result<(), Failure>;
}

impl<F: FnMut(Record) -> Result<(), Failure>> Sink for F {
    fn take(&mut self, record: Record) -> Result<(), Failure> {
        self(record)
    }
}

impl Issuer {
    /// Writes everything that a tenant is, as it is at one moment: the same tenant, the same bytes. With a passphrase also
    /// what is kept under the master key; otherwise that stays behind.
    pub async fn export_tenant(
        &self,
        actor: &Actor,
        slug: &str,
        passphrase: Option<&SecretString>,
        mut write: impl FnMut(&str) -> io::Result<()>,
    ) -> Result<Exported, Failure> {
        let tenant = self.find_tenant(slug).await?.id;
        let seal = match passphrase {
            None => None,
            Some(passphrase) => {
                check_passphrase(passphrase)?;
                let seal = SealRecord::of(tenant);
                let vault = seal.vault(passphrase).await?;
                Some((seal, vault))
            }
        };
        let (seal, sealing) = match seal {
            Some((seal, vault)) => (Some(seal), Sealing::Under(Box::new(vault))),
            None => (None, Sealing::LeaveOut),
        };
        // Whoever exports is written down before anything leaves.
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let deed = actor.did("tenant.export", format!("tenant:{tenant}"), json!({ "secrets": seal.is_some() }), now);
        append(&mut tx.tenant(tenant).await?, tenant, &self.chain_key, &self.random, [deed]).await?;
        tx.commit().await?;

        let mut written =
            |line: &str| write(line).map_err(|error| Fault::Internal(format!("the file cannot be written: {error}")));
        let (mut records, mut digest) = (0, Sha256::new());
        self.read_tenant(tenant, seal, &sealing, &mut |record: Record| {
            let line = record.line()?;
            records += 1;
            digest.update(&line);
            Ok(written(&line)?)
        })
        .await?;
        let sha256 = digest.finalize().to_vec();
        let sealed = match &sealing {
            Sealing::Under(vault) => {
                Some(Bytes(vault.seal_alike(END, &sha256).map_err(|error| Fault::Internal(error.to_string()))?))
            }
            Sealing::LeaveOut | Sealing::Marked => None,
        };
        written(&Record::End(EndRecord { records, sha256: Bytes(sha256), sealed }).line()?)?;
        Ok(Exported { records })
    }

    /// All records of a tenant but the last one, in their order.
    pub(super) async fn read_tenant(
        &self,
        id: TenantId,
        seal: Option<SealRecord>,
        sealing: &Sealing,
        sink: &mut impl Sink,
    ) -> Result<(), Failure> {
        let peppers = installation_secret(&self.store, &self.secrets_vault, PEPPER, &self.clock, &self.random).await;
        let peppers = peppers.map_err(|error| Fault::Internal(error.to_string()))?;
        self.write_uses().await?;
        let mut tx = self.store.begin_frozen(id).await?;
        let tenant = tx.any_tenant().tenant_by_id(id).await?.ok_or(Refusal::NotFound)?;
        let mut scoped = tx.tenant(id).await?;
        scoped.take_time().await?;
        let revoked = scoped.revocations(i64::MAX, 1).await?.head;
        sink.take(Record::Tenant(of_tenant(tenant, revoked, seal)))?;
        // In order of bytes: that of a database's texts is its locale's.
        let mut scopes = scoped.scopes().await?;
        scopes.sort_by(|a, b| a.name.cmp(&b.name));
        for Scope { name, description, created_at } in scopes {
            sink.take(Record::Scope(ScopeRecord { name, description, created_at }))?;
        }
        let mut roles = scoped.roles().await?;
        roles.sort_by(|a, b| a.name.cmp(&b.name));
        for Role { name, description, scopes, created_at, updated_at } in roles {
            sink.take(Record::Role(RoleRecord { name, description, scopes, created_at, updated_at }))?;
        }
        let audiences = scoped.audiences().await?;
        let living: Vec<_> = audiences.iter().map(|audience| audience.id).collect();
        for Audience { id, name, uri, profile, created_at } in audiences {
            sink.take(Record::Audience(AudienceRecord { id, name, uri, profile, created_at }))?;
        }
        let mut connections = scoped.connections().await?;
        connections.sort_by_key(|connection| connection.id);
        for connection in connections {
            sink.take(Record::Connection(self.of_connection(id, connection, sealing)?))?;
        }
        let in_use = scoped.peppers_in_use().await?;
        let names = self.write_peppers(id, &peppers, &in_use, sealing, sink)?;
        let mut keys = scoped.signing_keys().await?;
        keys.sort_by(|a, b| a.kid.cmp(&b.kid));
        // Those of an audience that is gone are gone with it.
        keys.retain(|key| key.audience.is_none_or(|audience| living.contains(&audience)));
        let since: Vec<_> = keys.iter().filter(|key| is_published(key)).filter_map(|key| key.activated_at).collect();
        for key in keys {
            sink.take(Record::SigningKey(self.of_signing_key(id, key, sealing)?))?;
        }
        let gone = write_people(&mut scoped, sink).await?;
        let applications = write_applications(&mut scoped, sink).await?;
        // What somebody owned who is gone is of no use any more.
        let is_owned = |owner: Owner| match owner {
            Owner::User(id) => !gone.contains(&id),
            Owner::Application(id) => applications.contains(&id),
        };
        write_keys(&mut scoped, is_owned, &names, sink).await?;
        for token in scoped.tokens_that_matter(&since).await? {
            sink.take(Record::Token(of_token(token)))?;
        }
        for Revocation { seq, stops, id, before, until } in scoped.all_revocations().await? {
            sink.take(Record::Revocation(RevocationRecord { seq, stops: stops.claim().into(), id, before, until }))?;
        }
        Ok(())
    }

    fn of_connection(&self, tenant: TenantId, connection: Connection, sealing: &Sealing) -> Result<ConnectionRecord, Failure> {
        let Connection { id, name, title, kind: _, settings, sealed_secret, created_at, updated_at, disabled_at } = connection;
        let place = secret_place(tenant, id);
        let secret = match sealed_secret {
            None => Kept::None,
            Some(sealed) => sealing.seal(&place, || self.connection_vault.open(&place, &sealed))?,
        };
        Ok(ConnectionRecord { id, name, title, settings, secret, created_at, updated_at, disabled_at })
    }

    fn of_signing_key(&self, tenant: TenantId, key: SigningKey, sealing: &Sealing) -> Result<SigningKeyRecord, Failure> {
        let SigningKey { kid, algorithm, public_key, sealed_private, created_at, activated_at, at_once, audience, state } = key;
        let place = place(tenant, &kid);
        let private_key = match sealed_private.is_empty() {
            true => Kept::None,
            false => sealing.seal(&place, || self.signing_vault.open(&place, &sealed_private))?,
        };
        let state = match state {
            SigningKeyState::Next => StateRecord::Next,
            SigningKeyState::Active { since } => StateRecord::Active { since },
            SigningKeyState::Retired { at, erased_at, ends } => {
                let ends = ends.map(|ends| match ends {
                    Ends::At(end) => EndsRecord::At(end),
                    Ends::Never => EndsRecord::Never,
                });
                StateRecord::Retired { at, erased_at, ends }
            }
            SigningKeyState::Gone { at, why } => StateRecord::Gone { at, why: why.word().into() },
        };
        let (algorithm, public_key) = (algorithm.name().to_owned(), Bytes(public_key));
        Ok(SigningKeyRecord { kid, algorithm, public_key, private_key, audience, created_at, activated_at, at_once, state })
    }

    /// The peppers that the tenant's secrets are hashed under; returns their names.
    fn write_peppers(
        &self,
        tenant: TenantId,
        peppers: &[InstallationSecret],
        in_use: &[i16],
        sealing: &Sealing,
        sink: &mut impl Sink,
    ) -> Result<BTreeMap<i16, String>, Failure> {
        let used = peppers.iter().filter(|pepper| in_use.contains(&pepper.version));
        let mut used: Vec<_> = used.map(|pepper| (pepper_name(&pepper.value), pepper)).collect();
        used.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, pepper) in &used {
            let secret = sealing.seal(&place_of_pepper(tenant, name), || Ok(pepper.value.clone()))?;
            sink.take(Record::Pepper(PepperRecord { name: name.clone(), secret }))?;
        }
        Ok(used.into_iter().map(|(name, pepper)| (pepper.version, name)).collect())
    }
}

fn of_tenant(tenant: Tenant, revoked: i64, seal: Option<SealRecord>) -> TenantRecord {
    let Tenant { id, slug, name, settings, presets, created_at, status, logins_ended_at: _ } = tenant;
    let (disabled, _) = deeds(status);
    TenantRecord { form: FORM, id, slug, name, settings, presets, created_at, disabled, revoked, seal }
}

/// Returns who is deleted: their names are never given again.
async fn write_people(scoped: &mut TenantTx<'_>, sink: &mut impl Sink) -> Result<BTreeSet<UserId>, Failure> {
    let mut gone = BTreeSet::new();
    let mut after = None;
    loop {
        let page = scoped.everybody(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(gone) };
        after = Some(last.id);
        let ids: Vec<UserId> = page.iter().map(|user| user.id).collect();
        let mut passwords: BTreeMap<UserId, PasswordHash> = scoped.passwords(&ids).await?.into_iter().collect();
        let mut links: BTreeMap<UserId, Vec<LinkRecord>> = BTreeMap::new();
        for link in scoped.links_of(&ids).await? {
            let Link { connection, connection_name: _, connection_title: _, subject, user, profile, created_at, used_at } = link;
            links.entry(user).or_default().push(LinkRecord { connection, subject, profile, created_at, used_at });
        }
        for user in page {
            let User { id, username, email, roles, scopes, attributes, created_at, status } = user;
            let (disabled, deleted) = deeds(status);
            gone.extend(deleted.is_some().then_some(id));
            let password_hash = passwords.remove(&id).map(|hash| hash.as_str().to_owned());
            let mut links = links.remove(&id).unwrap_or_default();
            links.sort_by_key(|link| link.connection);
            sink.take(Record::User(Box::new(UserRecord {
                id,
                username,
                email,
                roles,
                scopes,
                attributes,
                created_at,
                disabled,
                deleted,
                password_hash,
                links,
            })))?;
        }
    }
}

/// Returns which there are.
async fn write_applications(scoped: &mut TenantTx<'_>, sink: &mut impl Sink) -> Result<BTreeSet<ApplicationId>, Failure> {
    let mut living = BTreeSet::new();
    let mut after = None;
    loop {
        let page = scoped.list_applications(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(living) };
        after = Some(last.id);
        for Application { id, name, token_lifetime, scopes, roles, created_at, status } in page {
            let (disabled, _) = deeds(status);
            living.insert(id);
            let record = ApplicationRecord { id, name, token_lifetime, scopes, roles, created_at, disabled };
            sink.take(Record::Application(record))?;
        }
    }
}

async fn write_keys(
    scoped: &mut TenantTx<'_>,
    is_owned: impl Fn(Owner) -> bool,
    peppers: &BTreeMap<i16, String>,
    sink: &mut impl Sink,
) -> Result<(), Failure> {
    let mut keys = scoped.all_keys().await?;
    keys.retain(|key| is_owned(key.owner));
    // As bytes are ordered, whatever the database's language is.
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    for page in keys.chunks(usize::from(PAGE)) {
        let living = page.iter().filter(|key| !matches!(key.status, KeyStatus::Revoked(_)));
        let ids: Vec<KeyId> = living.map(|key| key.id.clone()).collect();
        let mut secrets: BTreeMap<KeyId, Vec<SecretRecord>> = BTreeMap::new();
        for (key, StoredSecret { slot, kept, created_at, expires_at }) in scoped.secrets_of(&ids).await? {
            let kept = match kept {
                KeptSecret::Hash(hash) => SecretKept::Hash(hash.as_str().to_owned()),
                KeptSecret::Mac(mac, version) => {
                    let unknown = || Fault::Internal(format!("the pepper {version} of key {key} is not here"));
                    let pepper = peppers.get(&version).cloned().ok_or_else(unknown)?;
                    SecretKept::Mac { mac: Bytes(mac.0.to_vec()), pepper }
                }
            };
            secrets.entry(key).or_default().push(SecretRecord { slot, kept, created_at, expires_at });
        }
        for key in page.iter().cloned() {
            let secrets = secrets.remove(&key.id).unwrap_or_default();
            sink.take(Record::Key(Box::new(of_key(key, secrets))))?;
        }
    }
    Ok(())
}

fn of_key(key: ApiKey, secrets: Vec<SecretRecord>) -> KeyRecord {
    let ApiKey {
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
        status,
        last_used_at,
        last_used_network: _,
        last_used_agent: _,
    } = key;
    let (disabled, revoked) = match status {
        KeyStatus::Active => (None, None),
        KeyStatus::Disabled(evidence) => (Some(evidence.into()), None),
        KeyStatus::Revoked(evidence) => (None, Some(evidence.into())),
    };
    KeyRecord {
        api_key: id.to_string(),
        name,
        owner: owner.into(),
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
    }
}

fn of_token(token: MovedToken) -> TokenRecord {
    let MovedToken { row, revoked } = token;
    let TokenRow { id, key, family, subject, scope, issued_at, expires_at } = row;
    let key = key.map(|key| key.to_string());
    TokenRecord { id, key, login: family, subject, scope, issued_at, expires_at, revoked: revoked.map(Into::into) }
}

//! A whole tenant, written into a file and made again elsewhere: the same ids, key ids, `kid`s and hashes.
//!
//! ```text
//! {"tenant": …}                     one JSON object a line, in this order, each kind in order of its ids
//! {"scope": …} {"role": …} {"audience": …} {"connection": …} {"pepper": …} {"signing_key": …}
//! {"user": …} {"application": …} {"key": …} {"token": …} {"revocation": …}
//! {"end": …}                        how many there were, and their digest
//! ```
//!
//! What is sealed under the master key here is sealed anew for the file, under a key that a passphrase gives: AES-256-GCM-SIV,
//! each value for its place. Its nonce is always the same: such a cipher then tells whether two values of one place are equal
//! (RFC 8452 §1) and nothing else, and the same tenant makes the same file. Without a passphrase these secrets stay behind.

mod export;
mod import;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use claviger_store::id::{ApplicationId, AudienceId, ConnectionId, FamilyId, Owner, TenantId, TokenId, UserId};
use claviger_store::standing::{Evidence, Status};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use export::Exported;
pub use import::{Moved, is_sealed};

use crate::attribute::Attributes;
use crate::vault::{DoesNotOpen, Vault};
use crate::{Fault, Refusal};

/// The form of the file.
const FORM: u32 = 1;
/// Shortest passphrase, in characters.
const SHORTEST_PASSPHRASE: usize = 12;
/// What the passphrase's hash costs: KiB, passes, lanes.
const COST: (u32, u32, u32) = (65_536, 3, 1);
/// The most that a file may ask for.
const MOST_COST: (u32, u32, u32) = (1_048_576, 16, 16);
/// Where the digest of the file is sealed.
const END: &str = "end";

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Tenant(TenantRecord),
    Scope(ScopeRecord),
    Role(RoleRecord),
    Audience(AudienceRecord),
    Connection(ConnectionRecord),
    Pepper(PepperRecord),
    SigningKey(SigningKeyRecord),
    User(Box<UserRecord>),
    Application(ApplicationRecord),
    Key(Box<KeyRecord>),
    Token(TokenRecord),
    Revocation(RevocationRecord),
    End(EndRecord),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantRecord {
    form: u32,
    id: TenantId,
    slug: String,
    name: String,
    settings: Value,
    presets: Value,
    created_at: DateTime<Utc>,
    disabled: Option<Deed>,
    /// The number of the newest revocation.
    revoked: i64,
    seal: Option<SealRecord>,
}

/// What makes the key of a passphrase.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealRecord {
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeRecord {
    name: String,
    description: String,
    created_at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleRecord {
    name: String,
    description: String,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AudienceRecord {
    id: AudienceId,
    name: String,
    uri: String,
    profile: Value,
    created_at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectionRecord {
    id: ConnectionId,
    name: String,
    title: String,
    settings: Value,
    secret: Kept,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    disabled_at: Option<DateTime<Utc>>,
}

/// A secret that there may be, and that may be in the file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    /// There is none.
    None,
    /// It stayed behind.
    LeftOut,
    /// Sealed under the passphrase's key.
    Sealed(Bytes),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PepperRecord {
    name: String,
    secret: Kept,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SigningKeyRecord {
    kid: String,
    algorithm: String,
    public_key: Bytes,
    private_key: Kept,
    audience: Option<AudienceId>,
    created_at: DateTime<Utc>,
    activated_at: Option<DateTime<Utc>>,
    at_once: bool,
    state: StateRecord,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StateRecord {
    Next,
    Active { since: DateTime<Utc> },
    Retired { at: DateTime<Utc>, erased_at: Option<DateTime<Utc>>, ends: Option<EndsRecord> },
    Gone { at: DateTime<Utc>, why: String },
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EndsRecord {
    At(DateTime<Utc>),
    Never,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRecord {
    id: UserId,
    username: String,
    email: Option<String>,
    roles: Vec<String>,
    scopes: Vec<String>,
    attributes: Attributes,
    created_at: DateTime<Utc>,
    disabled: Option<Deed>,
    deleted: Option<Deed>,
    password_hash: Option<String>,
    links: Vec<LinkRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkRecord {
    connection: ConnectionId,
    subject: String,
    profile: Value,
    created_at: DateTime<Utc>,
    used_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplicationRecord {
    id: ApplicationId,
    name: String,
    token_lifetime: Option<i32>,
    scopes: Option<Vec<String>>,
    roles: Vec<String>,
    created_at: DateTime<Utc>,
    disabled: Option<Deed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRecord {
    api_key: String,
    name: String,
    owner: OwnerRecord,
    scopes: Vec<String>,
    roles: Vec<String>,
    act_as: Option<Vec<String>>,
    act_as_default: Option<String>,
    agents: Option<Vec<String>>,
    limits: Value,
    token_lifetime: Option<i32>,
    refresh: bool,
    created_at: DateTime<Utc>,
    created_by: String,
    expires_at: Option<DateTime<Utc>>,
    disabled: Option<Deed>,
    /// Its id is never given again, and whoever has its secret stays out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Deed>,
    last_used_at: Option<DateTime<Utc>>,
    secrets: Vec<SecretRecord>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OwnerRecord {
    Application(ApplicationId),
    User(UserId),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretRecord {
    slot: i16,
    kept: SecretKept,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum SecretKept {
    /// HMAC-SHA-256 under the pepper of that name.
    Mac { mac: Bytes, pepper: String },
    /// As another system kept it.
    Hash(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRecord {
    id: TokenId,
    key: Option<String>,
    login: Option<FamilyId>,
    subject: String,
    scope: String,
    issued_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    revoked: Option<Deed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationRecord {
    seq: i64,
    stops: String,
    id: String,
    before: Option<DateTime<Utc>>,
    until: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndRecord {
    records: u64,
    /// SHA-256 of all lines before this one.
    sha256: Bytes,
    /// The same under the passphrase: who does not know it has changed nothing.
    sealed: Option<Bytes>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Deed {
    at: DateTime<Utc>,
    by: String,
}

impl From<Evidence> for Deed {
    fn from(Evidence { at, by }: Evidence) -> Self {
        Self { at, by }
    }
}

impl From<Deed> for Evidence {
    fn from(Deed { at, by }: Deed) -> Self {
        Self { at, by }
    }
}

/// When and by whom something was disabled, and deleted.
fn deeds(status: Status) -> (Option<Deed>, Option<Deed>) {
    match status {
        Status::Active => (None, None),
        Status::Disabled(evidence) => (Some(evidence.into()), None),
        Status::Deleted(evidence) => (None, Some(evidence.into())),
    }
}

fn status(disabled: Option<Deed>, deleted: Option<Deed>) -> Status {
    match (disabled, deleted) {
        (_, Some(deed)) => Status::Deleted(deed.into()),
        (Some(deed), None) => Status::Disabled(deed.into()),
        (None, None) => Status::Active,
    }
}

impl From<Owner> for OwnerRecord {
    fn from(owner: Owner) -> Self {
        match owner {
            Owner::Application(id) => Self::Application(id),
            Owner::User(id) => Self::User(id),
        }
    }
}

impl From<OwnerRecord> for Owner {
    fn from(owner: OwnerRecord) -> Self {
        match owner {
            OwnerRecord::Application(id) => Self::Application(id),
            OwnerRecord::User(id) => Self::User(id),
        }
    }
}

/// Bytes, as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Bytes(Vec<u8>);

impl From<Bytes> for String {
    fn from(Bytes(bytes): Bytes) -> Self {
        STANDARD.encode(bytes)
    }
}

impl TryFrom<String> for Bytes {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self).map_err(|_| "not base64")
    }
}

/// Where a pepper is sealed in a file.
fn place_of_pepper(tenant: TenantId, name: &str) -> String {
    format!("export:pepper:{tenant}:{name}")
}

impl SealRecord {
    /// For a tenant. The salt is its own and always the same, so that the same tenant makes the same file.
    fn of(tenant: TenantId) -> Self {
        let (memory_kib, passes, lanes) = COST;
        let salt = Sha256::digest(format!("claviger export {tenant}")).to_vec();
        Self { kdf: "argon2id".into(), memory_kib, passes, lanes, salt: Bytes(salt) }
    }

    /// The vault that the passphrase opens; hashing it takes a while, and is done aside.
    async fn vault(&self, passphrase: &SecretString) -> Result<Vault, crate::Failure> {
        let Self { kdf, memory_kib, passes, lanes, salt } = self.clone();
        let fits = kdf == "argon2id" && memory_kib <= MOST_COST.0 && passes <= MOST_COST.1 && lanes <= MOST_COST.2;
        let params = Params::new(memory_kib, passes, lanes, Some(32)).ok().filter(|_| fits);
        let unknown = || Refusal::Conflict("the file is sealed in a way that this program does not know".into());
        let params = params.ok_or_else(unknown)?;
        let passphrase = passphrase.clone();
        let derived = tokio::task::spawn_blocking(move || {
            let mut key = Zeroizing::new([0; 32]);
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let done = argon2.hash_password_into(passphrase.expose_secret().as_bytes(), &salt.0, key.as_mut_slice());
            done.ok().and_then(|()| Vault::under(&key).ok())
        });
        let vault = derived.await.map_err(|error| Fault::Internal(error.to_string()))?;
        Ok(vault.ok_or_else(unknown)?)
    }
}

/// Refuses a passphrase that is guessed too soon by whoever has the file.
fn check_passphrase(passphrase: &SecretString) -> Result<(), Refusal> {
    match passphrase.expose_secret().chars().count() < SHORTEST_PASSPHRASE {
        true => Err(Refusal::invalid("passphrase", format!("is at least {SHORTEST_PASSPHRASE} characters long"))),
        false => Ok(()),
    }
}

/// What becomes of secrets in a file.
enum Sealing {
    /// They are sealed under a passphrase's key.
    Under(Box<Vault>),
    /// They stay behind.
    LeaveOut,
    /// Whether there are any is all that is written: to compare two tenants by.
    Marked,
}

impl Sealing {
    fn seal(&self, place: &str, open: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, DoesNotOpen>) -> Result<Kept, Fault> {
        let sealed = match self {
            Self::LeaveOut => return Ok(Kept::LeftOut),
            Self::Marked => return Ok(Kept::Sealed(Bytes(Vec::new()))),
            Self::Under(vault) => open().and_then(|value| vault.seal_alike(place, &value)),
        };
        sealed.map(|sealed| Kept::Sealed(Bytes(sealed))).map_err(|error| Fault::Internal(format!("{place}: {error}")))
    }
}

impl Kept {
    /// As [`Sealing::Marked`] writes it.
    fn mark(&mut self) {
        if let Self::Sealed(Bytes(bytes)) = self {
            bytes.clear();
        }
    }
}

impl Record {
    /// The line, with its end.
    fn line(&self) -> Result<String, Fault> {
        let mut line = serde_json::to_string(self).map_err(|error| Fault::Internal(error.to_string()))?;
        line.push('\n');
        Ok(line)
    }

    /// Whether it says what is of no meaning any more: a token that has ended, or how long one was stopped.
    fn is_over(&self, now: DateTime<Utc>) -> bool {
        match self {
            Self::Token(token) => token.expires_at <= now,
            Self::Revocation(revocation) => revocation.until <= now,
            _ => false,
        }
    }

    /// As it is compared: nothing of a passphrase is left.
    fn mark(&mut self) {
        match self {
            Self::Tenant(tenant) => tenant.seal = None,
            Self::Connection(connection) => connection.secret.mark(),
            Self::Pepper(pepper) => pepper.secret.mark(),
            Self::SigningKey(key) => key.private_key.mark(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn a_file_is_sealed_alike_each_time_and_under_its_passphrase_and_tenant_alone() {
        let tenant = TenantId(Uuid::from_u128(7));
        let quick = SealRecord { memory_kib: 64, passes: 1, ..SealRecord::of(tenant) };
        let passphrase = SecretString::from("six brass lanterns");
        let sealed = async |passphrase: &SecretString, seal: &SealRecord| {
            seal.vault(passphrase).await.unwrap().seal_alike("place", b"secret").unwrap()
        };
        let one = sealed(&passphrase, &quick).await;
        assert_eq!(one, sealed(&passphrase, &quick).await);
        let other = SealRecord { salt: SealRecord::of(TenantId(Uuid::from_u128(8))).salt, ..quick.clone() };
        let vault = quick.vault(&passphrase).await.unwrap();
        assert_eq!(vault.open("place", &one).unwrap().as_slice(), b"secret");
        assert!(vault.open("elsewhere", &one).is_err());
        assert!(other.vault(&passphrase).await.unwrap().open("place", &one).is_err());
        assert!(quick.vault(&SecretString::from("six brass lantern5")).await.unwrap().open("place", &one).is_err());
        for (memory_kib, passes) in [(MOST_COST.0 + 1, 1), (64, MOST_COST.1 + 1), (0, 1)] {
            assert!(SealRecord { memory_kib, passes, ..quick.clone() }.vault(&passphrase).await.is_err());
        }
        assert!(SealRecord { kdf: "md5".into(), ..quick }.vault(&passphrase).await.is_err());
        assert!(check_passphrase(&SecretString::from("elevenchars")).is_err() && check_passphrase(&passphrase).is_ok());
    }
}

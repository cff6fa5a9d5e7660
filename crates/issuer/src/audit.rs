//! The audit trail: what is written, how entries are chained, and how a chain is checked.
//!
//! `hash(n) = SHA-256(hash(n-1) ‖ entry n)`, and the head carries a MAC under a key that the database does not hold in
//! clear. Cutting the tail off is seen by the head; putting back an older head together with its tail is seen by an
//! anchor kept elsewhere (`audit verify --anchor`).

use std::net::IpAddr;

use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use claviger_store::TenantTx;
use claviger_store::audit::{Batch, Entry, Head, TokenRow};
use claviger_store::id::TenantId;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::measure::AUDIT_ENTRIES;
use crate::random::Random;
use crate::scope::ScopeSet;
use crate::settings::RequestInfo;
use crate::{Failure, Fault, Issuer};

/// How a deed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was refused.
    Refused,
}

/// An entry before it has its place in the chain.
#[derive(Debug, Clone)]
pub struct Draft {
    /// When.
    pub at: DateTime<Utc>,
    /// What was done.
    pub action: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// Who did it, as `kind:id`.
    pub actor: String,
    /// In whose name, as `kind:id`; may be empty.
    pub subject: String,
    /// To what, as `kind:id`; may be empty.
    pub target: String,
    /// The request it came with.
    pub request_id: String,
    /// Where it came from: personal, and kept beside the chain.
    pub address: Option<IpAddr>,
    /// More about it. Never a secret, never personal.
    pub detail: Value,
}

/// Who does an administrative deed, and what they may hand out.
#[derive(Debug, Clone)]
pub struct Actor {
    /// As the audit trail writes it.
    pub name: String,
    /// In whose name they act, as the audit trail writes it; may be empty.
    pub subject: String,
    /// What they hold.
    pub authority: Authority,
    /// The request it came with.
    pub request: RequestInfo,
}

/// What an actor holds.
#[derive(Debug, Clone)]
pub enum Authority {
    /// Whoever runs commands on the server's own data directory or database.
    Operator,
    /// A caller with these scopes.
    Scopes(ScopeSet),
}

impl Actor {
    /// The person at the command line.
    #[must_use]
    pub fn operator() -> Self {
        Self {
            name: "operator:cli".into(),
            subject: String::new(),
            authority: Authority::Operator,
            request: RequestInfo::new(String::new(), None),
        }
    }

    /// Nobody: what is done when it is time.
    pub(crate) fn schedule() -> Self {
        Self { name: "system:schedule".into(), ..Self::operator() }
    }

    /// A deed of this actor.
    pub(crate) fn did(&self, action: &'static str, target: impl Into<String>, detail: Value, now: DateTime<Utc>) -> Draft {
        Draft {
            at: now,
            action,
            outcome: Outcome::Ok,
            actor: self.name.clone(),
            subject: self.subject.clone(),
            target: target.into(),
            request_id: self.request.id.clone(),
            address: self.request.address,
            detail,
        }
    }
}

/// The key of the heads' MACs.
pub(crate) struct ChainKey(hmac::Key);

impl ChainKey {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    pub(crate) fn head(&self, tenant: TenantId, seq: i64, hash: Vec<u8>) -> Head {
        let mac = hmac::sign(&self.0, &head_message(tenant, seq, &hash)).as_ref().to_vec();
        Head { seq, hash, mac }
    }

    /// Gives drafts their places behind `head`, and makes the head that follows.
    pub(crate) fn extend(
        &self,
        tenant: TenantId,
        head: &Head,
        drafts: impl IntoIterator<Item = Draft>,
        random: &Random,
    ) -> (Vec<Entry>, Head) {
        let (entries, seq, hash) = chain(head, drafts, random);
        (entries, self.head(tenant, seq, hash))
    }

    /// True for a head that this installation wrote.
    pub(crate) fn holds(&self, tenant: TenantId, head: &Head) -> bool {
        hmac::verify(&self.0, &head_message(tenant, head.seq, &head.hash), &head.mac).is_ok()
    }

    /// The head of a chain without entries.
    pub(crate) fn empty(&self, tenant: TenantId) -> Head {
        self.head(tenant, 0, first_hash(tenant))
    }
}

fn head_message(tenant: TenantId, seq: i64, hash: &[u8]) -> Vec<u8> {
    [b"claviger audit head".as_slice(), tenant.0.as_bytes(), &seq.to_be_bytes(), hash].concat()
}

/// What the first entry is chained to: the tenant, so that one tenant's chain is not another's.
fn first_hash(tenant: TenantId) -> Vec<u8> {
    Sha256::new().chain_update(b"claviger audit chain").chain_update(tenant.0.as_bytes()).finalize().to_vec()
}

/// Gives drafts their places behind `head`. Returns the entries and the new head's number and hash.
fn chain(head: &Head, drafts: impl IntoIterator<Item = Draft>, random: &Random) -> (Vec<Entry>, i64, Vec<u8>) {
    let mut seq = head.seq;
    let mut hash = head.hash.clone();
    let entries = drafts
        .into_iter()
        .map(|draft| {
            let Draft { at, action, outcome, actor, subject, target, request_id, address, detail } = draft;
            seq += 1;
            let personal = match address {
                Some(address) => json!({ "ip": address.to_canonical() }).to_string(),
                None => "{}".to_owned(),
            };
            let personal_salt = random.bytes::<16>().to_vec();
            let mut entry = Entry {
                seq,
                at,
                action: action.to_owned(),
                outcome: match outcome {
                    Outcome::Ok => "ok",
                    Outcome::Refused => "refused",
                }
                .to_owned(),
                actor,
                subject,
                target,
                request_id,
                detail: detail.to_string(),
                personal_digest: personal_digest(&personal_salt, &personal),
                personal: Some(personal),
                personal_salt,
                hash: Vec::new(),
            };
            entry.hash = entry_hash(&hash, &entry);
            hash.clone_from(&entry.hash);
            entry
        })
        .collect();
    (entries, seq, hash)
}

fn personal_digest(salt: &[u8], personal: &str) -> Vec<u8> {
    Sha256::new().chain_update(salt).chain_update(personal).finalize().to_vec()
}

/// Every field with its length before it, so that no two entries share their bytes.
fn entry_hash(previous: &[u8], entry: &Entry) -> Vec<u8> {
    let Entry {
        seq,
        at,
        action,
        outcome,
        actor,
        subject,
        target,
        request_id,
        detail,
        personal: _,
        personal_salt: _,
        personal_digest,
        hash: _,
    } = entry;
    let mut hasher =
        Sha256::new().chain_update(previous).chain_update(seq.to_be_bytes()).chain_update(at.timestamp_micros().to_be_bytes());
    let fields = [action, outcome, actor, subject, target, request_id, detail].map(String::as_bytes);
    for field in fields.into_iter().chain([personal_digest.as_slice()]) {
        hasher.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(field);
    }
    hasher.finalize().to_vec()
}

/// Writes deeds into the tenant's chain, in the transaction of the deeds.
pub(crate) async fn append(
    tx: &mut TenantTx<'_>,
    tenant: TenantId,
    key: &ChainKey,
    random: &Random,
    drafts: impl IntoIterator<Item = Draft>,
) -> Result<(), Failure> {
    append_with(tx, tenant, key, random, drafts, &[]).await
}

/// As [`append`], with the tokens that were issued.
pub(crate) async fn append_with(
    tx: &mut TenantTx<'_>,
    tenant: TenantId,
    key: &ChainKey,
    random: &Random,
    drafts: impl IntoIterator<Item = Draft>,
    tokens: &[TokenRow],
) -> Result<(), Failure> {
    let head = tx.lock_audit_head().await?.ok_or_else(|| Fault::Internal(format!("the tenant {tenant} has no audit chain")))?;
    if !key.holds(tenant, &head) {
        return Err(Fault::Internal(format!("{FORGED} (tenant {tenant})")).into());
    }
    let (entries, next) = key.extend(tenant, &head, drafts, random);
    let batch = Batch { expected: &head, head: &next, entries: &entries, tokens };
    match tx.record(&batch).await? {
        true => {
            AUDIT_ENTRIES.increment(u64::try_from(entries.len()).unwrap_or(u64::MAX));
            Ok(())
        }
        false => Err(Fault::Internal("a locked audit head moved".into()).into()),
    }
}

/// Nothing is written behind a head that somebody else wrote: our seal would make the forgery good.
pub(crate) const FORGED: &str = "the audit head was not written by this installation; see `claviger audit verify`";

/// What is wrong with a chain, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The tenant has no head: its trail was removed.
    #[error("the head of the chain is gone")]
    NoHead,
    /// Somebody without the installation's audit key wrote the head.
    #[error("the head at entry {seq} was not written by this installation")]
    ForgedHead {
        /// What it claims.
        seq: i64,
    },
    /// An entry is missing, or two changed places.
    #[error("entry {seq} is missing or out of its place")]
    Gap {
        /// The first number that is not where it should be.
        seq: i64,
    },
    /// An entry is not what was written.
    #[error("entry {seq} was changed")]
    Changed {
        /// Its number.
        seq: i64,
    },
    /// The personal fields of an entry are not what was written.
    #[error("the personal fields of entry {seq} were changed")]
    PersonalChanged {
        /// Its number.
        seq: i64,
    },
    /// The chain ends before its head.
    #[error("the chain was cut off: its head is at entry {head}, its last entry is {last}")]
    Truncated {
        /// The last entry that is there.
        last: i64,
        /// Where it should end.
        head: i64,
    },
    /// An entry stands behind the head: it was not written by this installation.
    #[error("entry {seq} stands behind the head and was not written by this installation")]
    BehindHead {
        /// Its number.
        seq: i64,
    },
    /// The chain does not contain an anchor that was kept elsewhere.
    #[error("the chain does not hold the anchor at entry {seq}: it was rewritten or cut off")]
    AnchorMissing {
        /// The anchor's number.
        seq: i64,
    },
}

/// A place in a chain that was written down elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The entry's number.
    pub seq: i64,
    /// Its hash.
    pub hash: Vec<u8>,
}

/// Follows a chain from its beginning, an entry at a time.
struct Follower {
    seq: i64,
    hash: Vec<u8>,
    anchor: Option<Anchor>,
}

impl Follower {
    fn step(&mut self, entry: &Entry) -> Result<(), Broken> {
        let seq = self.seq + 1;
        if entry.seq != seq {
            return Err(Broken::Gap { seq });
        }
        if entry_hash(&self.hash, entry) != entry.hash {
            return Err(Broken::Changed { seq });
        }
        if let Some(personal) = &entry.personal
            && personal_digest(&entry.personal_salt, personal) != entry.personal_digest
        {
            return Err(Broken::PersonalChanged { seq });
        }
        if self.anchor.as_ref().is_some_and(|anchor| anchor.seq == seq && anchor.hash != entry.hash) {
            return Err(Broken::AnchorMissing { seq });
        }
        self.seq = seq;
        self.hash.clone_from(&entry.hash);
        Ok(())
    }

    fn end(&self, head: &Head) -> Result<(), Broken> {
        if self.seq < head.seq {
            return Err(Broken::Truncated { last: self.seq, head: head.seq });
        }
        if self.hash != head.hash {
            return Err(Broken::Changed { seq: self.seq });
        }
        match &self.anchor {
            Some(anchor) if anchor.seq > self.seq => Err(Broken::AnchorMissing { seq: anchor.seq }),
            _ => Ok(()),
        }
    }
}

/// Checks an export: one unbroken part of a tenant's chain, wherever it begins.
pub struct ExportChecker {
    tenant: TenantId,
    follower: Option<Follower>,
    anchor: Option<Anchor>,
}

impl ExportChecker {
    /// For the export of a tenant's trail that must hold the anchor, if there is one.
    #[must_use]
    pub fn new(tenant: TenantId, anchor: Option<Anchor>) -> Self {
        Self { tenant, follower: None, anchor }
    }

    /// The next entry. What stands before the first one is not known, unless it is the first of all.
    pub fn step(&mut self, tenant: TenantId, entry: &Entry) -> Result<(), Broken> {
        if tenant != self.tenant {
            return Err(Broken::Gap { seq: entry.seq });
        }
        match &mut self.follower {
            Some(follower) => follower.step(entry),
            None => {
                let mut follower = match entry.seq {
                    1 => Follower { seq: 0, hash: first_hash(tenant), anchor: self.anchor.clone() },
                    seq => Follower { seq, hash: entry.hash.clone(), anchor: self.anchor.clone() },
                };
                if entry.seq == 1 {
                    follower.step(entry)?;
                } else if self.anchor.as_ref().is_some_and(|anchor| anchor.seq == entry.seq && anchor.hash != entry.hash) {
                    return Err(Broken::AnchorMissing { seq: entry.seq });
                }
                self.follower = Some(follower);
                Ok(())
            }
        }
    }

    /// Its end, to be written down elsewhere as the next anchor.
    pub fn end(self) -> Result<Anchor, Broken> {
        let Some(follower) = self.follower else { return Err(Broken::NoHead) };
        match self.anchor {
            Some(anchor) if anchor.seq > follower.seq => Err(Broken::AnchorMissing { seq: anchor.seq }),
            _ => Ok(Anchor { seq: follower.seq, hash: follower.hash }),
        }
    }
}

impl Issuer {
    /// Checks a tenant's whole chain. Returns its end, to be written down elsewhere as the next anchor.
    pub async fn verify_audit(&self, tenant: TenantId, anchor: Option<Anchor>) -> Result<Result<Anchor, Broken>, Failure> {
        // One state of the database: head and entries fit each other, whatever is added while we walk.
        let mut tx = self.store.begin_frozen(tenant).await?;
        let mut tx = tx.tenant(tenant).await?;
        let Some(head) = tx.audit_head().await? else { return Ok(Err(Broken::NoHead)) };
        if !self.chain_key.holds(tenant, &head) {
            return Ok(Err(Broken::ForgedHead { seq: head.seq }));
        }
        let mut follower = Follower { seq: 0, hash: first_hash(tenant), anchor };
        let mut broken = None;
        tx.walk_audit(1, |entry| {
            broken = match follower.seq == head.seq {
                true => Some(Broken::BehindHead { seq: entry.seq }),
                false => follower.step(&entry).err(),
            };
            broken.is_none()
        })
        .await?;
        if let Some(broken) = broken {
            return Ok(Err(broken));
        }
        Ok(follower.end(&head).map(|()| Anchor { seq: head.seq, hash: head.hash }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(n: i64) -> Draft {
        Draft {
            at: DateTime::from_timestamp(1_800_000_000 + n, 0).unwrap(),
            action: "key.create",
            outcome: Outcome::Ok,
            actor: format!("key:{n}"),
            subject: String::new(),
            target: String::new(),
            request_id: "r".into(),
            address: Some("192.0.2.1".parse().unwrap()),
            detail: json!({ "n": n }),
        }
    }

    fn follow(tenant: TenantId, entries: &[Entry], head: &Head, anchor: Option<Anchor>) -> Result<(), Broken> {
        let mut follower = Follower { seq: 0, hash: first_hash(tenant), anchor };
        entries.iter().try_for_each(|entry| follower.step(entry))?;
        follower.end(head)
    }

    #[test]
    fn t27_every_tampering_is_found_with_its_position() {
        let random = Random::from_system();
        let key = ChainKey::new(b"audit");
        let tenant = TenantId(random.uuid());
        let (entries, seq, hash) = chain(&key.empty(tenant), (0..20).map(draft), &random);
        let head = key.head(tenant, seq, hash);
        assert_eq!(follow(tenant, &entries, &head, None), Ok(()));
        assert!(key.holds(tenant, &head) && !key.holds(TenantId(random.uuid()), &head));

        for at in 0..20 {
            let seq = at as i64 + 1;
            let mut edited = entries.clone();
            edited[at].detail = "{}".into();
            assert_eq!(follow(tenant, &edited, &head, None), Err(Broken::Changed { seq }));
            let mut edited = entries.clone();
            edited[at].personal = Some("{\"ip\":\"192.0.2.9\"}".into());
            assert_eq!(follow(tenant, &edited, &head, None), Err(Broken::PersonalChanged { seq }));
            let mut erased = entries.clone();
            erased[at].personal = None;
            assert_eq!(follow(tenant, &erased, &head, None), Ok(()), "erasure is not tampering");
            let cut = &entries[..at];
            assert_eq!(follow(tenant, cut, &head, None), Err(Broken::Truncated { last: seq - 1, head: 20 }));
            if at < 19 {
                let mut deleted = entries.clone();
                deleted.remove(at);
                assert_eq!(follow(tenant, &deleted, &head, None), Err(Broken::Gap { seq }));
                let mut swapped = entries.clone();
                swapped.swap(at, at + 1);
                assert_eq!(follow(tenant, &swapped, &head, None), Err(Broken::Gap { seq }));
            }
        }
    }

    #[test]
    fn an_older_head_put_back_with_its_tail_is_found_by_an_anchor() {
        let random = Random::from_system();
        let key = ChainKey::new(b"audit");
        let tenant = TenantId(random.uuid());
        let (entries, ..) = chain(&key.empty(tenant), (0..20).map(draft), &random);
        let old_head = key.head(tenant, 10, entries[9].hash.clone());
        let anchor = Anchor { seq: 15, hash: entries[14].hash.clone() };
        assert_eq!(follow(tenant, &entries[..10], &old_head, None), Ok(()));
        assert_eq!(follow(tenant, &entries[..10], &old_head, Some(anchor)), Err(Broken::AnchorMissing { seq: 15 }));
    }
}

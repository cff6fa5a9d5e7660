//! Developers ask for keys, admins decide, and the secret is seen once.
//!
//! ```text
//! pending ──► approved ──► claimed      (a link shows the pair to the developer alone)
//!    │   └───────────────► claimed      (the pair is in the answer to whoever approved)
//!    └──► denied
//! ```
//!
//! Anybody may ask, so nothing that is asked counts for more than what it is: an address that nobody confirmed never leads to a
//! key of somebody who is here already.

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::api_key::SecretMac;
use claviger_store::id::{ApplicationId, KeyRequestId, Owner, TenantId};
use claviger_store::key_request::{Approval, KeyRequest, LinkKind, RequestStatus};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::acting::ActingRule;
use crate::attempt::Bucket;
use crate::audit::{Actor, Authority, append};
use crate::directory::TenantEntry;
use crate::key::{KeyOrder, MadeKey};
use crate::limits::KeyLimits;
use crate::mail::Mail;
use crate::scope::ScopeSet;
use crate::secret::new_link;
use crate::settings::RequestInfo;
use crate::tenant::check_name;
use crate::throttle::network;
use crate::user::normal_email;
use crate::{Failure, Fault, Issuer, Refusal};

/// Purpose of the digests of links.
const KEPT: &str = "key request link";
/// Requests that a tenant leaves open at most.
const MOST_OPEN: i64 = 1000;
/// Requests from one address, and for one tenant, in an hour.
const FROM_ONE_ADDRESS: i32 = 20;
const FOR_ONE_TENANT: i32 = 500;
const HOUR: i32 = 3600;
/// How long a link to confirm, and one to take a key, are good.
const CONFIRM_WITHIN: TimeDelta = TimeDelta::days(1);
const CLAIM_WITHIN: TimeDelta = TimeDelta::days(7);
/// How long requests are kept: that nobody confirmed, that nobody decided, that were decided.
const UNCONFIRMED_KEPT: TimeDelta = TimeDelta::days(7);
const OPEN_KEPT: TimeDelta = TimeDelta::days(90);
const DECIDED_KEPT: TimeDelta = TimeDelta::days(365);
/// Longest reason, in characters.
const LONGEST_REASON: usize = 1000;
/// Longest life of a key that is approved, in days.
const LONGEST_LIFE: i64 = 3650;

/// What a tenant makes of requests for keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyRequestRule {
    /// Whether anybody may ask.
    pub enabled: bool,
    /// Whose requests are approved without an admin, once the address is confirmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_approve: Option<AutoApprove>,
}

impl Default for KeyRequestRule {
    fn default() -> Self {
        Self { enabled: true, auto_approve: None }
    }
}

/// Whose requests are approved without an admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoApprove {
    /// Domains of addresses, in lower case; what follows the `@`, whole.
    pub email_domains: Vec<String>,
    /// What their keys may do.
    pub scopes: Vec<String>,
    /// Days that their keys live.
    pub expires_in_days: i64,
}

impl KeyRequestRule {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let Some(AutoApprove { email_domains, scopes, expires_in_days }) = &self.auto_approve else { return Ok(()) };
        ScopeSet::granted(scopes)?;
        let domain = |domain: &String| {
            domain.contains('.') && normal_email(&format!("a@{domain}")).is_ok_and(|all| all == format!("a@{domain}"))
        };
        if email_domains.is_empty() || email_domains.len() > 100 || !email_domains.iter().all(domain) {
            return Err(Refusal::invalid("key_requests", "auto_approve names 1 to 100 domains, such as `example.com`"));
        }
        if scopes.iter().any(|scope| crate::scope::MANAGEMENT.contains(&scope.as_str())) {
            return Err(Refusal::invalid("key_requests", "auto_approve gives no scope of the tenant's management"));
        }
        check_days(*expires_in_days)
            .map_err(|_| Refusal::invalid("key_requests", format!("auto_approve's expires_in_days is 1 to {LONGEST_LIFE}")))
    }
}

fn check_days(days: i64) -> Result<(), Refusal> {
    match (1..=LONGEST_LIFE).contains(&days) {
        true => Ok(()),
        false => Err(Refusal::invalid("expires_in_days", format!("is 1 to {LONGEST_LIFE}"))),
    }
}

/// A request to be made.
pub struct NewKeyRequest<'a> {
    /// What the key is for.
    pub app_name: &'a str,
    /// Who asks.
    pub email: &'a str,
    /// Why.
    pub reason: &'a str,
    /// The request.
    pub request: RequestInfo,
}

/// How the key reaches the developer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deliver {
    /// In the answer to whoever approves.
    Answer,
    /// By a link that shows it once, mailed to the developer.
    ClaimLink,
}

/// What is approved.
pub struct Decide {
    /// What the key may do.
    pub scopes: Vec<String>,
    /// Days that the key lives; `None` takes the tenant's rule.
    pub expires_in_days: Option<i64>,
    /// The application that it is to belong to; `None` is the person of that address, made if there is none.
    pub application: Option<ApplicationId>,
    /// How it reaches the developer.
    pub deliver: Deliver,
}

/// What an approval gave.
pub enum Approved {
    /// The pair, this once.
    Made(Box<MadeKey>),
    /// A link that shows the pair once.
    Link {
        /// Its address.
        link: SecretString,
        /// When it ends.
        expires_at: DateTime<Utc>,
    },
}

/// What became of a confirmation.
pub enum Confirmed {
    /// An admin decides next.
    Waits,
    /// The tenant's rule approved it: the link that shows the pair.
    Approved(SecretString),
}

impl Issuer {
    /// Anybody asks for a key. Asked again while it is open, it is the same request.
    pub async fn request_key(&self, tenant: &TenantEntry, new: NewKeyRequest<'_>) -> Result<KeyRequestId, Failure> {
        let now = self.clock.now();
        let NewKeyRequest { app_name, email, reason, request } = new;
        if !tenant.settings.key_requests().enabled || !tenant.tenant.status.is_active() {
            return Err(Refusal::NotFound.into());
        }
        let app_name = app_name.trim();
        check_name("app_name", app_name)?;
        let email = normal_email(email)?;
        if reason.chars().count() > LONGEST_REASON || reason.chars().any(|c| c.is_control() && c != '\n') {
            return Err(Refusal::invalid("reason", format!("is at most {LONGEST_REASON} characters of plain text")).into());
        }
        let id = tenant.tenant.id;
        self.count_request(id, &request, now).await?;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        let wanted = KeyRequestId(self.random.uuid_at(now));
        let (made, new) = scoped.open_key_request(wanted, app_name, &email, reason, now).await?;
        if !new {
            return Ok(made);
        }
        if scoped.open_key_requests().await? > MOST_OPEN {
            tracing::warn!(tenant.id = %id, "more requests for keys are open than are kept: decide on some");
            return Err(Refusal::Throttled { retry_after: 3600 }.into());
        }
        if self.settings.confirm_addresses {
            let link = self.link(tenant, &mut scoped, LinkKind::Confirm, made, now + CONFIRM_WITHIN).await?;
            let mail = Mail {
                to: email,
                subject: format!("Confirm your request for a key of {}", tenant.tenant.name),
                text: format!(
                    "Somebody asked for a developer key of {} for the application \"{app_name}\" with this address.\n\nIf that was \
                     you, confirm it within a day:\n\n{}\n\nIf it was not, do nothing.\n",
                    tenant.tenant.name,
                    link.expose_secret()
                ),
            };
            self.queue_mail(&mut scoped, id, &mail, now).await?;
        }
        let actor = Actor {
            name: "anonymous".into(),
            subject: String::new(),
            authority: Authority::Scopes(ScopeSet::default()),
            request,
        };
        let deed = actor.did("key_request.create", format!("key_request:{made}"), json!({ "app_name": app_name }), now);
        append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        tx.commit().await?;
        self.mail_was_written(id);
        Ok(made)
    }

    /// Counted over all replicas, in a transaction of its own.
    async fn count_request(&self, tenant: TenantId, request: &RequestInfo, now: DateTime<Utc>) -> Result<(), Failure> {
        let digest = |what: &str| -> Result<Bucket, Failure> {
            let digest = self.peppers.digest("key request", &[what.as_bytes()]).map(|(_, digest)| digest);
            Ok(digest.ok_or_else(|| Fault::Internal("there is no pepper".into()))?)
        };
        let address = digest(&format!("address {}", network(request.address)))?;
        let asked = [(address, HOUR), (digest("tenant")?, HOUR)];
        let mut tx = self.store.begin_brief(tenant).await?;
        let counted = tx.tenant(tenant).await?.count_attempt(&asked, now).await?;
        let limits = [FROM_ONE_ADDRESS, FOR_ONE_TENANT];
        let full = counted.iter().zip(limits).find(|(count, limit)| count.used > *limit);
        if let Some((count, _)) = full {
            let retry_after = u64::try_from((count.forgotten_at - now).num_seconds()).unwrap_or(0) + 1;
            // Undone: what is not looked at counts nowhere.
            return Err(Refusal::Throttled { retry_after }.into());
        }
        tx.commit().await?;
        Ok(())
    }

    /// Requests in order of id, after the given one.
    pub async fn list_key_requests(
        &self,
        tenant: TenantId,
        status: Option<RequestStatus>,
        after: Option<KeyRequestId>,
        limit: u16,
    ) -> Result<Vec<KeyRequest>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.list_key_requests(status, after, limit).await?)
    }

    /// The request of that id.
    pub async fn find_key_request(&self, tenant: TenantId, id: KeyRequestId) -> Result<KeyRequest, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.key_request(id).await?.ok_or(Refusal::NotFound)?)
    }

    /// Approves a request: with the pair at once, or with a link that shows it to the developer alone.
    pub async fn approve_key_request(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        id: KeyRequestId,
        decide: Decide,
    ) -> Result<Approved, Failure> {
        let now = self.clock.now();
        let Decide { scopes, expires_in_days, application, deliver } = decide;
        let scopes = ScopeSet::granted(&scopes)?.to_vec();
        actor.authority.check_gives(scopes.iter().map(String::as_str))?;
        if let Some(days) = expires_in_days {
            check_days(days)?;
        }
        let key_expires_at = expires_in_days.map(|days| now + TimeDelta::days(days));
        let request = self.find_key_request(tenant.tenant.id, id).await?;
        check_open(&request)?;
        self.check_address(tenant, &request, application).await?;
        let approval = Approval { by: &actor.name, application, scopes: &scopes, key_expires_at };
        match deliver {
            Deliver::Answer => {
                let made = self.make_requested(tenant, actor, &request, Some(&approval), None).await?;
                Ok(Approved::Made(Box::new(made)))
            }
            Deliver::ClaimLink => {
                let (link, expires_at) = self.approve_with_link(tenant, actor, &request, &approval, now).await?;
                Ok(Approved::Link { link, expires_at })
            }
        }
    }

    /// Nobody's word alone makes a key that acts as somebody who is here already.
    async fn check_address(
        &self,
        tenant: &TenantEntry,
        request: &KeyRequest,
        application: Option<ApplicationId>,
    ) -> Result<(), Failure> {
        if application.is_some() || request.confirmed_at.is_some() {
            return Ok(());
        }
        let mut tx = self.store.begin_in(tenant.tenant.id).await?;
        match tx.tenant(tenant.tenant.id).await?.user_by_email(&request.email).await? {
            None => Ok(()),
            Some(_) => Err(Refusal::Conflict(
                "the address belongs to a person of this tenant, and nobody confirmed the request: let them confirm it, name an \
                 application (application_id), or make the key for that person yourself"
                    .into(),
            )
            .into()),
        }
    }

    async fn approve_with_link(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        request: &KeyRequest,
        approval: &Approval<'_>,
        now: DateTime<Utc>,
    ) -> Result<(SecretString, DateTime<Utc>), Failure> {
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        if let Some(application) = approval.application {
            crate::key::check_owner(&mut scoped, Owner::Application(application)).await?;
        }
        if !scoped.approve_key_request(request.id, approval, now).await? {
            return Err(decided().into());
        }
        let expires_at = now + CLAIM_WITHIN;
        let link = self.link(tenant, &mut scoped, LinkKind::Claim, request.id, expires_at).await?;
        let mail = Mail {
            to: request.email.clone(),
            subject: format!("Your key of {}", tenant.tenant.name),
            text: format!(
                "Your request for a developer key of {} for the application \"{}\" was approved.\n\nTake it within a week; it is \
                 shown once:\n\n{}\n",
                tenant.tenant.name,
                request.app_name,
                link.expose_secret()
            ),
        };
        self.queue_mail(&mut scoped, id, &mail, now).await?;
        let detail = json!({ "scopes": approval.scopes, "deliver": "claim_link" });
        let deed = actor.did("key_request.approve", format!("key_request:{}", request.id), detail, now);
        append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        tx.commit().await?;
        self.mail_was_written(id);
        Ok((link, expires_at))
    }

    /// Makes the key of a request that is approved, or is approved with this, in one transaction with what lets it be made: the
    /// approval, or the link that is used up.
    async fn make_requested(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        request: &KeyRequest,
        approval: Option<&Approval<'_>>,
        link: Option<&[[u8; 32]]>,
    ) -> Result<MadeKey, Failure> {
        let now = self.clock.now();
        let id = tenant.tenant.id;
        let (application, scopes, expires_at) = match approval {
            Some(approval) => (approval.application, approval.scopes.to_vec(), approval.key_expires_at),
            None => (request.application, request.scopes.clone().unwrap_or_default(), request.key_expires_at),
        };
        let owner = match application {
            Some(application) => Owner::Application(application),
            None => Owner::User(self.user_of_email(tenant, actor, &request.email).await?.id),
        };
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        let mut deeds = Vec::new();
        let target = format!("key_request:{}", request.id);
        if let Some(approval) = approval {
            crate::key::check_owner(&mut scoped, owner).await?;
            if !scoped.approve_key_request(request.id, approval, now).await? {
                return Err(decided().into());
            }
            let detail = json!({ "scopes": scopes, "deliver": "answer" });
            deeds.push(actor.did("key_request.approve", &target, detail, now));
        }
        if let Some(macs) = link
            && scoped.consume_link(macs, LinkKind::Claim, now).await? != Some(request.id)
        {
            return Err(Refusal::NotFound.into());
        }
        let order = KeyOrder {
            owner,
            name: request.app_name.clone(),
            scopes,
            roles: Vec::new(),
            acting: ActingRule::default(),
            token_lifetime: None,
            refresh: false,
            expires_at: Some(expires_at),
            limits: KeyLimits::default(),
            import: None,
        };
        // The person was made for this key, or confirmed it: what the key holds is given to them too.
        let made = self.create_key_in(&mut scoped, tenant, &as_giver(actor), order, now, &mut deeds).await?;
        if !scoped.claim_key_request(request.id, &made.key.id).await? {
            return Err(decided().into());
        }
        append(&mut scoped, id, &self.chain_key, &self.random, deeds).await?;
        tx.commit().await?;
        self.forget_rights(id, owner);
        Ok(made)
    }

    /// Denies a request.
    pub async fn deny_key_request(
        &self,
        tenant: TenantId,
        actor: &Actor,
        id: KeyRequestId,
        reason: Option<&str>,
    ) -> Result<KeyRequest, Failure> {
        let now = self.clock.now();
        if reason.is_some_and(|reason| reason.chars().count() > LONGEST_REASON || reason.chars().any(char::is_control)) {
            return Err(Refusal::invalid("reason", format!("is at most {LONGEST_REASON} characters of plain text")).into());
        }
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let request = scoped.key_request(id).await?.ok_or(Refusal::NotFound)?;
        check_open(&request)?;
        if !scoped.deny_key_request(id, &actor.name, reason, now).await? {
            return Err(decided().into());
        }
        let deed = actor.did("key_request.deny", format!("key_request:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        let request = scoped.key_request(id).await?;
        tx.commit().await?;
        Ok(request.ok_or(Refusal::NotFound)?)
    }

    /// A one-time link of a request, kept as a digest.
    async fn link(
        &self,
        tenant: &TenantEntry,
        tx: &mut claviger_store::TenantTx<'_>,
        kind: LinkKind,
        request: KeyRequestId,
        expires_at: DateTime<Utc>,
    ) -> Result<SecretString, Failure> {
        let token = new_link(&self.settings.brand, &self.random);
        let parts: [&[u8]; 2] = [tenant.tenant.id.0.as_bytes(), token.expose_secret().as_bytes()];
        let (_, mac) = self.peppers.digest(KEPT, &parts).ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        tx.create_link(SecretMac(mac), kind, request, expires_at).await?;
        let page = match kind {
            LinkKind::Confirm => "confirm",
            LinkKind::Claim => "claim",
        };
        Ok(SecretString::from(format!("{}/{page}/{}", tenant.issuer, token.expose_secret())))
    }

    fn link_macs(&self, tenant: TenantId, token: &str) -> Vec<[u8; 32]> {
        let parts: [&[u8]; 2] = [tenant.0.as_bytes(), token.as_bytes()];
        self.peppers.digests(KEPT, &parts).map(|(_, mac)| mac).collect()
    }

    /// The request that a link is of, without using it up. `None` when the link is not good.
    pub async fn request_of_link(
        &self,
        tenant: &TenantEntry,
        kind: LinkKind,
        token: &str,
    ) -> Result<Option<KeyRequest>, Failure> {
        let id = tenant.tenant.id;
        let macs = self.link_macs(id, token);
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        match scoped.link_of(&macs, kind, self.clock.now()).await? {
            Some(request) => Ok(scoped.key_request(request).await?),
            None => Ok(None),
        }
    }

    /// Whoever reads the mailbox says that the request is theirs. What the tenant approves by rule is approved then.
    pub async fn confirm_key_request(
        &self,
        tenant: &TenantEntry,
        token: &str,
        request: &RequestInfo,
    ) -> Result<Confirmed, Failure> {
        let now = self.clock.now();
        let id = tenant.tenant.id;
        let macs = self.link_macs(id, token);
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        let asked = scoped.consume_link(&macs, LinkKind::Confirm, now).await?.ok_or(Refusal::NotFound)?;
        if !scoped.confirm_key_request(asked, now).await? {
            return Err(Refusal::NotFound.into());
        }
        let kept = scoped.key_request(asked).await?.ok_or(Refusal::NotFound)?;
        let actor = by_rule("anonymous", request);
        let deed = actor.did("key_request.confirm", format!("key_request:{asked}"), json!({}), now);
        append(&mut scoped, id, &self.chain_key, &self.random, [deed]).await?;
        tx.commit().await?;
        let rule = tenant.settings.key_requests();
        let domain = kept.email.rsplit_once('@').map(|(_, domain)| domain.to_owned()).unwrap_or_default();
        let Some(auto) = rule.auto_approve.filter(|auto| auto.email_domains.contains(&domain)) else {
            return Ok(Confirmed::Waits);
        };
        let actor = by_rule("rule:auto_approve", request);
        let key_expires_at = Some(now + TimeDelta::days(auto.expires_in_days));
        let approval = Approval { by: &actor.name, application: None, scopes: &auto.scopes, key_expires_at };
        let (link, _) = self.approve_with_link(tenant, &actor, &kept, &approval, now).await?;
        Ok(Confirmed::Approved(link))
    }

    /// The developer takes the key: the pair is shown this once.
    pub async fn claim_key(&self, tenant: &TenantEntry, token: &str, request: &RequestInfo) -> Result<MadeKey, Failure> {
        let kept = self.request_of_link(tenant, LinkKind::Claim, token).await?.ok_or(Refusal::NotFound)?;
        let by = kept.decided_by.clone().unwrap_or_default();
        let actor = Actor { subject: format!("key_request:{}", kept.id), ..by_rule(&by, request) };
        let macs = self.link_macs(tenant.tenant.id, token);
        self.make_requested(tenant, &actor, &kept, None, Some(&macs)).await
    }

    /// Forgets requests and links that are too old.
    pub(crate) async fn prune_key_requests(&self, tenant: TenantId, now: DateTime<Utc>) -> Result<u64, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let (unconfirmed, open, decided) = (now - UNCONFIRMED_KEPT, now - OPEN_KEPT, now - DECIDED_KEPT);
        // Where nobody can confirm, nobody has to.
        let unconfirmed = if self.settings.confirm_addresses { unconfirmed } else { open };
        let pruned = tx.tenant(tenant).await?.prune_key_requests(unconfirmed, open, decided, now).await?;
        tx.commit().await?;
        Ok(pruned)
    }
}

/// Somebody who does what was decided before.
fn by_rule(name: &str, request: &RequestInfo) -> Actor {
    Actor { name: name.to_owned(), subject: String::new(), authority: Authority::Operator, request: request.clone() }
}

/// The same actor, for what was checked already: whether they may give these scopes.
fn as_giver(actor: &Actor) -> Actor {
    Actor { authority: Authority::Operator, ..actor.clone() }
}

fn check_open(request: &KeyRequest) -> Result<(), Refusal> {
    match request.status {
        RequestStatus::Pending => Ok(()),
        _ => Err(decided()),
    }
}

fn decided() -> Refusal {
    Refusal::Conflict("the request was decided already: ask again for another key".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_domains_whole_and_gives_no_management() {
        let rule = |domains: &[&str], scopes: &[&str], expires_in_days| KeyRequestRule {
            enabled: true,
            auto_approve: Some(AutoApprove {
                email_domains: domains.iter().map(|text| (*text).to_owned()).collect(),
                scopes: scopes.iter().map(|text| (*text).to_owned()).collect(),
                expires_in_days,
            }),
        };
        assert!(rule(&["example.com"], &["a:b"], 90).check().is_ok());
        for bad in ["", "example", "EXAMPLE.com", "@example.com", "a@b.c", "*.example.com "] {
            assert!(rule(&[bad], &["a:b"], 90).check().is_err(), "{bad}");
        }
        assert!(rule(&[], &["a:b"], 90).check().is_err());
        assert!(rule(&["example.com"], &["keys:write"], 90).check().is_err());
        assert!(rule(&["example.com"], &["a:b"], 0).check().is_err());
    }
}

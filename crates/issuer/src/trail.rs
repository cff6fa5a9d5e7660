//! The audit trail, read: by filters, whole, and one refusal explained.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use claviger_store::audit::{Entry, Filter, Order, Page};
use claviger_store::id::{TenantId, UserId};
use serde_json::{Value, json};

use crate::audit::{Actor, append};
use crate::caller::Caller;
use crate::{Failure, Issuer, Refusal};

/// What is done in another's name.
const IN_ANOTHERS_NAME: [&str; 4] = ["impersonate", "act_as", "token.exchange", crate::upstream_token::ACTION];
/// Entries that an export reads at once.
const EXPORTED_AT_ONCE: u16 = 1000;

/// Which entries; what is `None` is not asked for.
#[derive(Debug, Clone, Default)]
pub struct TrailFilter {
    /// An action, or the beginning of actions with `*` behind it: `key.*`.
    pub action: Option<String>,
    /// `ok` or `refused`.
    pub outcome: Option<String>,
    /// Who did it, as `kind:id`.
    pub actor: Option<String>,
    /// In whose name, as `kind:id`.
    pub subject: Option<String>,
    /// To what, as `kind:id`.
    pub target: Option<String>,
    /// What a key did, and what was done to it.
    pub key: Option<String>,
    /// With which request.
    pub request_id: Option<String>,
    /// From then on.
    pub since: Option<DateTime<Utc>>,
    /// Before then.
    pub until: Option<DateTime<Utc>>,
    /// Whether exchanges and refreshes that went well are among them. `None` leaves them out where something is asked for that
    /// is not found among them quickly.
    pub routine: Option<bool>,
}

/// A filter taken apart.
struct Asked {
    actions: Option<Vec<String>>,
    prefix: Option<String>,
    either: Option<String>,
    notable: bool,
}

impl TrailFilter {
    fn asked(&self) -> Result<Asked, Refusal> {
        let is_action = |text: &str| text.len() <= 64 && text.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'_'));
        let (prefix, action) = match self.action.as_deref() {
            Some(text) => match text.strip_suffix('*') {
                Some(prefix) => (Some(prefix), None),
                None => (None, Some(text)),
            },
            None => (None, None),
        };
        if !prefix.or(action).is_none_or(is_action) {
            return Err(Refusal::invalid("action", "is a word such as `key.create`, or the beginning of some, such as `key.*`"));
        }
        if self.outcome.as_deref().is_some_and(|outcome| !matches!(outcome, "ok" | "refused")) {
            return Err(Refusal::invalid("outcome", "is `ok` or `refused`"));
        }
        let texts = [
            ("actor", &self.actor),
            ("subject", &self.subject),
            ("target", &self.target),
            ("key", &self.key),
            ("request_id", &self.request_id),
        ];
        for (name, text) in texts {
            if text.as_deref().is_some_and(|text| text.is_empty() || text.len() > 300 || text.chars().any(char::is_control)) {
                return Err(Refusal::invalid(name, "is 1 to 300 characters"));
            }
        }
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since >= until
        {
            return Err(Refusal::invalid("until", "is after `since`"));
        }
        let pointed = texts.iter().any(|(_, text)| text.is_some()) || self.outcome.as_deref() == Some("refused");
        let notable = match self.routine {
            Some(routine) => !routine,
            None => pointed && action.is_none(),
        };
        Ok(Asked {
            actions: action.map(|action| vec![action.to_owned()]),
            prefix: prefix.filter(|prefix| !prefix.is_empty()).map(str::to_owned),
            either: self.key.as_deref().map(|key| format!("key:{key}")),
            // What is asked for by its name alone, and is no routine, is found by the index of what is notable.
            notable: notable || action.is_some_and(|action| !matches!(action, "key.exchange" | "token.refresh")),
        })
    }

    fn filter<'a>(&'a self, asked: &'a Asked) -> Filter<'a> {
        let Self { action: _, outcome, actor, subject, target, key: _, request_id, since, until, routine: _ } = self;
        Filter {
            actions: asked.actions.as_deref(),
            prefix: asked.prefix.as_deref(),
            outcome: outcome.as_deref(),
            actor: actor.as_deref(),
            subject: subject.as_deref(),
            target: target.as_deref(),
            either: asked.either.as_deref(),
            request_id: request_id.as_deref(),
            since: *since,
            until: *until,
            notable: asked.notable,
        }
    }
}

/// Why somebody was refused, for an admin.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The entry.
    pub entry: Entry,
    /// The rule, as a word.
    pub rule: String,
    /// What would have been needed.
    pub missing: Value,
    /// What it means, and the way out.
    pub explanation: String,
}

/// The login names of people that entries name, by `user:id`.
pub type Names = BTreeMap<String, String>;

impl Issuer {
    /// One page of the trail.
    pub async fn list_trail(
        &self,
        tenant: TenantId,
        filter: &TrailFilter,
        order: Order,
        limit: u16,
    ) -> Result<Vec<Entry>, Failure> {
        let asked = filter.asked()?;
        let mut tx = self.store.begin_in(tenant).await?;
        Ok(tx.tenant(tenant).await?.list_audit(&filter.filter(&asked), Page { order, limit }).await?)
    }

    /// The newest entries of one action, or of all.
    pub async fn list_audit(
        &self,
        tenant: TenantId,
        action: Option<&str>,
        before: Option<i64>,
        limit: u16,
    ) -> Result<Vec<Entry>, Failure> {
        let filter = TrailFilter { action: action.map(str::to_owned), ..TrailFilter::default() };
        self.list_trail(tenant, &filter, Order::Newest(before), limit).await
    }

    /// The login names of the people that these entries name.
    pub async fn names_in(&self, tenant: TenantId, entries: &[Entry]) -> Result<Names, Failure> {
        let ids: BTreeSet<UserId> = entries
            .iter()
            .flat_map(|entry| [&entry.actor, &entry.subject])
            .filter_map(|name| name.strip_prefix("user:")?.parse().ok().map(UserId))
            .collect();
        if ids.is_empty() {
            return Ok(Names::new());
        }
        let mut tx = self.store.begin_in(tenant).await?;
        let names = tx.tenant(tenant).await?.usernames(&ids.into_iter().collect::<Vec<_>>()).await?;
        Ok(names.into_iter().map(|(id, name)| (format!("user:{id}"), name)).collect())
    }

    /// Writes down that the trail is taken out of the system, and returns where it ends for whoever takes it.
    pub async fn begin_export(&self, tenant: TenantId, actor: &Actor, filter: &TrailFilter) -> Result<i64, Failure> {
        filter.asked()?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let end = scoped.audit_head().await?.map_or(0, |head| head.seq);
        let detail = json!({ "up_to": end, "action": filter.action, "outcome": filter.outcome });
        let deed = actor.did("audit.export", "", detail, self.clock.now());
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        tx.commit().await?;
        Ok(end)
    }

    /// The next entries of an export, oldest first, after that number and up to the end. Nothing is held between two calls.
    pub async fn export_some(&self, tenant: TenantId, filter: &TrailFilter, after: i64, end: i64) -> Result<Vec<Entry>, Failure> {
        let mut entries = self.list_trail(tenant, filter, Order::Oldest(Some(after)), EXPORTED_AT_ONCE).await?;
        entries.retain(|entry| entry.seq <= end);
        Ok(entries)
    }

    /// Why the request of that id was refused.
    pub async fn explain(&self, tenant: TenantId, request_id: &str) -> Result<Vec<Explained>, Failure> {
        let filter =
            TrailFilter { request_id: Some(request_id.to_owned()), outcome: Some("refused".into()), ..TrailFilter::default() };
        // What cannot be an id is the id of no request.
        if filter.asked().is_err() {
            return Err(Refusal::NotFound.into());
        }
        let entries = self.list_trail(tenant, &filter, Order::Oldest(None), 50).await?;
        if entries.is_empty() {
            return Err(Refusal::NotFound.into());
        }
        Ok(entries.into_iter().map(explained).collect())
    }

    /// What others did in a person's name, newest first.
    pub async fn done_in_my_name(&self, caller: &Caller, before: Option<i64>, limit: u16) -> Result<Vec<Entry>, Failure> {
        let person = caller.person()?;
        let tenant = person.tenant.tenant.id;
        let subject = format!("user:{}", person.user()?.id);
        let actions = IN_ANOTHERS_NAME.map(str::to_owned);
        let filter =
            Filter { actions: Some(&actions), subject: Some(&subject), outcome: Some("ok"), notable: true, ..Filter::default() };
        let mut tx = self.store.begin_in(tenant).await?;
        let page = Page { order: Order::Newest(before), limit };
        Ok(tx.tenant(tenant).await?.list_audit(&filter, page).await?)
    }
}

fn explained(entry: Entry) -> Explained {
    let mut detail: Value = serde_json::from_str(&entry.detail).unwrap_or_default();
    let rule = detail.get("reason").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    let missing = detail.get_mut("missing").map(Value::take).unwrap_or_default();
    let mut explanation = sentence(&rule).to_owned();
    let needed: Vec<&str> = ["scopes", "roles"]
        .iter()
        .filter_map(|kind| missing.get(kind).or_else(|| missing.get("of")?.get(kind))?.as_array())
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !needed.is_empty() {
        explanation = format!("{explanation} Needed: {}.", needed.join(", "));
    }
    if let Some(policy) = missing.get("policy").and_then(Value::as_str) {
        explanation = format!("{explanation} The policy: {policy}.");
    }
    Explained { entry, rule, missing, explanation }
}

/// What a reason means, and the way out.
fn sentence(reason: &str) -> &'static str {
    match reason {
        "insufficient_scope" => "The caller does not hold what was asked for now: give it to the key and to its owner.",
        "insufficient_role" => "The caller does not have the roles that were asked for: give them to the person or the key.",
        "policy" => "The caller does not fulfil a policy of the tenant: see its alternatives in the tenant's settings.",
        "invalid_scope" => {
            "More was asked for than the key or person holds now: ask for less, or give it to the key and its owner."
        }
        "invalid_target" => "The token was asked for a resource that is not among the tenant's `resources`.",
        "mistyped" => "The key or secret is mistyped: its checksum does not fit.",
        "unknown_key" => "There is no such key in this tenant.",
        "wrong_secret" => "The secret is not the key's: it was rotated away, or belongs to another key.",
        "impersonation_key" | "impersonation_key_alone" => {
            "The key has agents: it lets others act for its owner (X-Impersonating), and is good for nothing else."
        }
        "key_disabled" | "disabled" => "The key is disabled: enable it again with PATCH /v1/keys/{id}.",
        "dormant" => "The key was disabled because nobody used it for long: enable it again with PATCH /v1/keys/{id}.",
        "key_revoked" | "revoked" => "The key is revoked for good: make another.",
        "key_expired" | "expired" => "The key has ended: change its end with PATCH /v1/keys/{id}, or make another.",
        "owner_disabled" => "The key's owner, or the person, is disabled or deleted: enable them again.",
        "tenant_disabled" => "The tenant is disabled.",
        "login_ended" => "The login behind it has ended: log in again.",
        "ip_not_allowed" => "The request came from an address that the key's `allowed_ips` does not hold.",
        "transport_not_allowed" => "The key's `transports` do not hold the way in which it was used.",
        "rate_limited" => "The key's rate limit is used up for now.",
        "quota_exhausted" => "The key's quota is used up until its period ends.",
        "other_client" => "The refresh token was given to another client, which must prove itself with its key.",
        "wrong_password" => "The password is wrong.",
        "no_password" => "The person has no password to log in with.",
        "unknown_user" => "There is nobody of that name.",
        "invalid_token" => "The token is not good now: it ended, was called back, or was never ours.",
        "act_as_not_allowed" => "The key's `act_as` does not let it act for that name.",
        "not_an_impersonation_key" => "The key does not list the caller among its `agents`, or has none.",
        "no_impersonated_user" => "The key that was to let somebody act is not there, or its secret is wrong.",
        "target_holds_more" => "Nobody acts for somebody who holds more than they do.",
        "acting_for_another" => "Whoever acts for another lets no third act.",
        "not_exchangeable" => "What was to be exchanged for another token is no ground for one.",
        "ticket_not_allowed" => "The ticket was made for another origin, or was used outside of a WebSocket.",
        "token_in_query" => "Tokens do not belong into addresses: use a ticket (POST /v1/ws-tickets).",
        "too_many_requests" => "Too many attempts failed just before.",
        _ => "See the detail of the entry.",
    }
}

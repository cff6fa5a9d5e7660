//! The audit trail of a tenant.

use actix_web::web::{Bytes, Data, Json, Path};
use actix_web::{HttpResponse, get};
use chrono::{DateTime, Utc};
use claviger_issuer::trail::{Explained, Names, TrailFilter};
use claviger_issuer::{Failure, Issuer};
use claviger_store::audit::{Entry, Order};
use claviger_store::id::TenantId;
use futures_util::{TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::body::Asked;
use crate::caller::{APerson, AuditRead, Caller};
use crate::hex::hex;
use crate::page::{Page, PageQuery, limit};
use crate::problem::{Answer, Answered};

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Only this action, such as `key.create`, or the actions that begin so: `key.*`.
    action: Option<String>,
    /// `ok` or `refused`.
    outcome: Option<String>,
    /// Only what this one did, such as `user:ID`, `key:ID` or `operator:cli`.
    actor: Option<String>,
    /// Only what was done in this one's name, as `kind:id`.
    subject: Option<String>,
    /// Only what was done to this, as `kind:id`.
    target: Option<String>,
    /// Only what this key did, and what was done to it.
    key: Option<String>,
    /// Only what came with this request.
    request_id: Option<String>,
    /// From then on (RFC 3339).
    since: Option<DateTime<Utc>>,
    /// Before then (RFC 3339).
    until: Option<DateTime<Utc>>,
    /// Whether exchanges and refreshes that went well are among them. They are nearly all of the trail: absent leaves them out
    /// where `actor`, `subject`, `target`, `key`, `request_id` or refusals are asked for without an action; `true` looks
    /// through all of it, which may take long.
    routine: Option<bool>,
    /// `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u16>,
    /// `newest` first if absent, or `oldest`.
    #[param(inline)]
    order: Option<OrderIn>,
}

/// One entry of the trail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditView {
    /// Its place in the tenant's chain: 1, 2, 3, …
    pub(crate) seq: i64,
    pub(crate) at: DateTime<Utc>,
    #[schema(example = "key.exchange")]
    pub(crate) action: String,
    /// `ok` or `refused`.
    #[schema(example = "ok")]
    pub(crate) outcome: String,
    /// Who did it, as `kind:id`.
    #[schema(example = "key:ck_4gSDYpTTs2U5zkLxBHBUuc0HlQ3a")]
    pub(crate) actor: String,
    /// In whose name, as `kind:id`; may be empty.
    subject: String,
    /// Both of them in words, where somebody acted for somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "admin on behalf of user")]
    on_behalf: Option<String>,
    /// To what, as `kind:id`; may be empty.
    pub(crate) target: String,
    /// The `X-Request-Id` it came with.
    request_id: String,
    /// Where it came from; `null` from the command line, and after erasure.
    ip: Option<String>,
    /// More about it.
    #[schema(value_type = Object)]
    pub(crate) detail: Value,
    /// SHA-256 of the chain up to here, in hexadecimal.
    pub(crate) hash: String,
}

impl From<Entry> for AuditView {
    fn from(entry: Entry) -> Self {
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
            personal,
            personal_salt: _,
            personal_digest: _,
            hash,
        } = entry;
        let personal: Value = personal.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self {
            seq,
            at,
            action,
            outcome,
            actor,
            subject,
            on_behalf: None,
            target,
            request_id,
            ip: personal.get("ip").and_then(Value::as_str).map(str::to_owned),
            detail: serde_json::from_str(&detail).unwrap_or_default(),
            hash: hex(&hash),
        }
    }
}

impl AuditView {
    /// With the names of those whom it names.
    pub(crate) fn named(entry: Entry, names: &Names) -> Self {
        let in_anothers_name = entry.actor != entry.subject && entry.actor.starts_with("user:");
        let on_behalf = match (names.get(&entry.actor), names.get(&entry.subject)) {
            (Some(actor), Some(subject)) if in_anothers_name => Some(format!("{actor} on behalf of {subject}")),
            _ => None,
        };
        Self { on_behalf, ..entry.into() }
    }
}

/// In which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OrderIn {
    Newest,
    Oldest,
}

/// List the audit trail
#[utoipa::path(
    tag = "Audit",
    operation_id = "listAudit",
    params(AuditQuery),
    responses(
        (status = 200, description = "Entries, newest first unless asked otherwise", body = Page<AuditView>),
        (status = 422, description = "A filter is wrong or unknown", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audit:read"]), ("basic" = ["audit:read"])),
)]
#[get("/v1/audit")]
pub(crate) async fn list(
    caller: Caller<AuditRead>,
    issuer: Data<Issuer>,
    query: Asked<AuditQuery>,
) -> Answered<Json<Page<AuditView>>> {
    let AuditQuery {
        action,
        outcome,
        actor,
        subject,
        target,
        key,
        request_id,
        since,
        until,
        routine,
        after,
        limit: asked,
        order,
    } = query.take()?;
    let filter = TrailFilter { action, outcome, actor, subject, target, key, request_id, since, until, routine };
    let limit = limit(asked)?;
    let edge = edge(after.as_deref())?;
    let order = match order {
        None | Some(OrderIn::Newest) => Order::Newest(edge),
        Some(OrderIn::Oldest) => Order::Oldest(edge),
    };
    let entries = issuer.list_trail(caller.tenant(), &filter, order, limit).await?;
    let names = issuer.names_in(caller.tenant(), &entries).await?;
    let page = Page::of(entries, limit, |entry| entry.seq.to_string());
    Ok(Json(page.map(|entry: Entry| AuditView::named(entry, &names))))
}

/// Where a page begins.
fn edge(after: Option<&str>) -> Answered<Option<i64>> {
    let edge = after.map(str::parse).transpose();
    edge.map_err(|_| Answer::unprocessable("after", "Send `next` of the page before, as it was."))
}

/// Which entries are exported.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ExportQuery {
    /// Only this action, such as `key.create`, or the actions that begin so: `key.*`.
    action: Option<String>,
    /// `ok` or `refused`.
    outcome: Option<String>,
    /// Only what this one did, such as `user:ID`, `key:ID` or `operator:cli`.
    actor: Option<String>,
    /// Only what was done in this one's name, as `kind:id`.
    subject: Option<String>,
    /// Only what was done to this, as `kind:id`.
    target: Option<String>,
    /// Only what this key did, and what was done to it.
    key: Option<String>,
    /// Only what came with this request.
    request_id: Option<String>,
    /// From then on (RFC 3339).
    since: Option<DateTime<Utc>>,
    /// Before then (RFC 3339).
    until: Option<DateTime<Utc>>,
    /// Whether exchanges and refreshes that went well are among them. They are nearly all of the trail: absent leaves them out
    /// where `actor`, `subject`, `target`, `key`, `request_id` or refusals are asked for without an action; `true` looks
    /// through all of it, which may take long.
    routine: Option<bool>,
}

/// Export the audit trail
///
/// One JSON object a line, oldest first, up to what there was when the export began. Each line holds what its place in the chain
/// is computed from, so that `claviger audit verify --file` finds out whether a whole export was changed. The export itself is
/// in the trail.
#[utoipa::path(
    tag = "Audit",
    operation_id = "exportAudit",
    params(ExportQuery),
    responses(
        (status = 200, description = "Entries, oldest first", content((String = "application/x-ndjson", example = json!("{\"seq\":1}\n")))),
        (status = 422, description = "A filter is wrong or unknown", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audit:read"]), ("basic" = ["audit:read"])),
)]
#[get("/v1/audit/export")]
pub(crate) async fn export(caller: Caller<AuditRead>, issuer: Data<Issuer>, query: Asked<ExportQuery>) -> Answered<HttpResponse> {
    let ExportQuery { action, outcome, actor, subject, target, key, request_id, since, until, routine } = query.take()?;
    let filter = TrailFilter { action, outcome, actor, subject, target, key, request_id, since, until, routine };
    let tenant = caller.tenant();
    let end = issuer.begin_export(tenant, &caller.actor(), &filter).await?;
    let lines = stream::try_unfold((issuer, filter, 0), move |(issuer, filter, after)| async move {
        let entries = issuer.export_some(tenant, &filter, after, end).await?;
        let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok::<_, Failure>(None) };
        let mut lines = Vec::new();
        for entry in &entries {
            lines.extend(export_line(tenant, entry));
        }
        Ok(Some((Bytes::from(lines), (issuer, filter, last))))
    });
    // What breaks on the way cuts the answer off: no reader takes it for the whole.
    let lines = lines.map_err(|failure| {
        tracing::error!(error = %failure, "an export broke off");
        std::io::Error::other("the export broke off")
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(Box::pin(lines)))
}

/// One line of an export: an entry with what its place in the chain is computed from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExportedEntry {
    pub(crate) tenant_id: Uuid,
    pub(crate) seq: i64,
    pub(crate) at: DateTime<Utc>,
    pub(crate) action: String,
    pub(crate) outcome: String,
    pub(crate) actor: String,
    pub(crate) subject: String,
    pub(crate) target: String,
    pub(crate) request_id: String,
    /// Exactly as it was hashed.
    pub(crate) detail: Box<RawValue>,
    /// Likewise; `null` after erasure.
    pub(crate) personal: Option<String>,
    pub(crate) personal_salt: String,
    pub(crate) personal_digest: String,
    pub(crate) hash: String,
}

/// An entry as a line.
pub(crate) fn export_line(tenant: TenantId, entry: &Entry) -> Vec<u8> {
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
        personal,
        personal_salt,
        personal_digest,
        hash,
    } = entry.clone();
    let exported = ExportedEntry {
        tenant_id: tenant.0,
        seq,
        at,
        action,
        outcome,
        actor,
        subject,
        target,
        request_id,
        detail: RawValue::from_string(detail).unwrap_or_default(),
        personal,
        personal_salt: hex(&personal_salt),
        personal_digest: hex(&personal_digest),
        hash: hex(&hash),
    };
    let mut line = serde_json::to_vec(&exported).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Why a request was refused.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionView {
    /// The `X-Request-Id` of its answer.
    #[schema(example = "1f0e2d3c4b5a69788796a5b4")]
    request_id: String,
    /// What was refused, in order.
    decisions: Vec<RefusalView>,
}

/// One refusal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefusalView {
    /// The rule, as a word.
    #[schema(example = "insufficient_scope")]
    rule: String,
    /// What would have been needed; `null` where the rule is not about that.
    #[schema(value_type = Option<Object>, example = json!({ "scopes": ["events:write"] }))]
    missing: Value,
    /// What it means, and the way out.
    #[schema(
        example = "The caller does not hold what was asked for now: give it to the key and to its owner. Needed: events:write."
    )]
    explanation: String,
    /// The entry of the trail.
    entry: AuditView,
}

/// Explain why a request was refused
///
/// Outsiders hear as little as they need; here an admin finds which rule it was and what was missing. Of a caller who is refused
/// again and again, only the first ten alike refusals of a minute are written down.
#[utoipa::path(
    tag = "Audit",
    operation_id = "explainDecision",
    params(("request_id" = String, Path, description = "The `X-Request-Id` of the answer")),
    responses(
        (status = 200, description = "Why", body = DecisionView),
        (status = 404, description = "No refused request of this tenant has that id", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audit:read"]), ("basic" = ["audit:read"])),
)]
#[get("/v1/decisions/{request_id}")]
pub(crate) async fn explain(
    caller: Caller<AuditRead>,
    issuer: Data<Issuer>,
    path: Path<RequestInPath>,
) -> Answered<Json<DecisionView>> {
    let tenant = caller.tenant();
    let explained = issuer.explain(tenant, &path.request_id).await?;
    let entries: Vec<Entry> = explained.iter().map(|one| one.entry.clone()).collect();
    let names = issuer.names_in(tenant, &entries).await?;
    let decisions = explained.into_iter().map(|Explained { entry, rule, missing, explanation }| RefusalView {
        rule,
        missing,
        explanation,
        entry: AuditView::named(entry, &names),
    });
    Ok(Json(DecisionView { request_id: path.request_id.clone(), decisions: decisions.collect() }))
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct RequestInPath {
    request_id: String,
}

/// List what others did in one's own name
#[utoipa::path(
    tag = "Account",
    operation_id = "listDoneInMyName",
    params(PageQuery),
    responses((status = 200, description = "Entries of the trail, newest first", body = Page<AuditView>)),
    security(("bearer" = []), ("session" = [])),
)]
#[get("/v1/me/impersonations")]
pub(crate) async fn done_in_my_name(
    caller: Caller<APerson>,
    issuer: Data<Issuer>,
    page: Asked<PageQuery>,
) -> Answered<Json<Page<AuditView>>> {
    let page = page.take()?;
    let limit = page.limit()?;
    let entries = issuer.done_in_my_name(&caller.who, edge(page.after.as_deref())?, limit).await?;
    let names = issuer.names_in(caller.tenant(), &entries).await?;
    let page = Page::of(entries, limit, |entry: &Entry| entry.seq.to_string());
    Ok(Json(page.map(|entry: Entry| AuditView::named(entry, &names))))
}

//! The audit trail of a tenant.

use actix_web::get;
use actix_web::web::{Data, Json};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_store::audit::Entry;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::body::Asked;
use crate::caller::{AuditRead, Caller};
use crate::hex::hex;
use crate::page::{Page, limit};
use crate::problem::{Answer, Answered};

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditQuery {
    /// Only this action, such as `key.create`.
    action: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u16>,
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
            target,
            request_id,
            ip: personal.get("ip").and_then(Value::as_str).map(str::to_owned),
            detail: serde_json::from_str(&detail).unwrap_or_default(),
            hash: hex(&hash),
        }
    }
}

/// List the audit trail, newest first
#[utoipa::path(
    tag = "Audit",
    operation_id = "listAudit",
    params(AuditQuery),
    responses((status = 200, description = "Entries, newest first", body = Page<AuditView>)),
    security(("bearer" = ["audit:read"]), ("basic" = ["audit:read"])),
)]
#[get("/v1/audit")]
pub(crate) async fn list(
    caller: Caller<AuditRead>,
    issuer: Data<Issuer>,
    query: Asked<AuditQuery>,
) -> Answered<Json<Page<AuditView>>> {
    let AuditQuery { action, after, limit: asked } = query.take()?;
    let limit = limit(asked)?;
    let before = after.as_deref().map(str::parse).transpose();
    let before = before.map_err(|_| Answer::unprocessable("after", "Send `next` of the page before, as it was."))?;
    let entries = issuer.list_audit(caller.tenant(), action.as_deref(), before, limit).await?;
    Ok(Json(Page::of(entries, limit, |entry| entry.seq.to_string())))
}

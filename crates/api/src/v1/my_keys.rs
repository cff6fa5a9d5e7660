//! API keys that people make for themselves.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::acting::ActingRule;
use claviger_issuer::key::KeyOrder;
use claviger_issuer::limits::KeyLimits;
use claviger_store::id::{Owner, UserId};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::body::{Asked, Body, present};
use crate::caller::{APerson, Caller};
use crate::page::{Page, PageQuery};
use crate::problem::Answered;
use crate::v1::keys::{JudgedKeyView, KeyInPath, MadeKeyView, RotationIn, after_key};

/// A key that a person makes for themselves.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnKeyIn {
    /// Its name for people.
    #[schema(example = "my laptop")]
    name: String,
    /// What it may do: no more than its owner.
    #[schema(example = json!(["events:read"]))]
    scopes: Vec<String>,
    /// When it ends; absent is as the tenant's settings say, `null` is never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    expires_at: Option<Option<DateTime<Utc>>>,
    /// Networks and addresses that it may be used from; absent is everywhere.
    #[serde(default)]
    #[schema(max_items = 50)]
    allowed_ips: Vec<String>,
}

/// The person's id.
fn myself(caller: &Caller<APerson>) -> Answered<UserId> {
    let user = caller.who.person()?.user().map_err(claviger_issuer::Failure::from)?;
    Ok(user.id)
}

/// Make a key of one's own
///
/// It can do no more than the person who makes it. The answer holds the secret; it is shown this once.
#[utoipa::path(
    tag = "Account",
    operation_id = "createMyKey",
    request_body = OwnKeyIn,
    responses(
        (status = 201, description = "The key and its secret", body = MadeKeyView),
        (status = 403, description = "The caller is no person, or does not hold what the key would", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[post("/v1/me/keys")]
pub(crate) async fn create_mine(caller: Caller<APerson>, issuer: Data<Issuer>, body: Body<OwnKeyIn>) -> Answered<HttpResponse> {
    let OwnKeyIn { name, scopes, expires_at, allowed_ips } = body.take()?;
    let order = KeyOrder {
        owner: Owner::User(myself(&caller)?),
        name,
        scopes,
        roles: Vec::new(),
        acting: ActingRule::default(),
        token_lifetime: None,
        refresh: false,
        expires_at,
        limits: KeyLimits { allowed_ips: KeyLimits::networks(&allowed_ips)?, ..KeyLimits::default() },
        import: None,
    };
    let made = issuer.create_key(caller.tenant(), &caller.actor(), order).await?;
    Ok(HttpResponse::Created().json(MadeKeyView::from(made)))
}

/// List one's own keys that are not revoked
#[utoipa::path(
    tag = "Account",
    operation_id = "listMyKeys",
    params(PageQuery),
    responses((status = 200, description = "Keys in order of id", body = Page<JudgedKeyView>)),
    security(("bearer" = []), ("session" = [])),
)]
#[get("/v1/me/keys")]
pub(crate) async fn list_mine(
    caller: Caller<APerson>,
    issuer: Data<Issuer>,
    query: Asked<PageQuery>,
) -> Answered<Json<Page<JudgedKeyView>>> {
    let query = query.take()?;
    let limit = query.limit()?;
    let after = after_key(query.after)?;
    let owner = Owner::User(myself(&caller)?);
    let keys = issuer.list_keys(caller.tenant(), Some(owner), after.as_ref(), limit).await?;
    let keys = JudgedKeyView::all(&issuer, caller.tenant(), keys).await?;
    Ok(Json(Page::of(keys, limit, |judged: &JudgedKeyView| judged.key.api_key.clone())))
}

/// Give a key of one's own a new secret
#[utoipa::path(
    tag = "Account",
    operation_id = "rotateMyKey",
    params(("id" = String, Path, description = "The key's public half")),
    request_body = RotationIn,
    responses(
        (status = 201, description = "The key and its new secret", body = MadeKeyView),
        (status = 403, description = "The key can do what the caller cannot", body = crate::problem::Problem),
        (status = 404, description = "The caller has no such key, or it is revoked", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[post("/v1/me/keys/{id}/rotate")]
pub(crate) async fn rotate_mine(
    caller: Caller<APerson>,
    issuer: Data<Issuer>,
    path: Path<KeyInPath>,
    body: Body<RotationIn>,
) -> Answered<HttpResponse> {
    let RotationIn { grace_seconds } = body.take()?;
    let key = issuer.key_of(caller.tenant(), myself(&caller)?, &path.id()?).await?;
    let made = issuer.rotate_key(caller.tenant(), &caller.actor(), &key.id, grace_seconds).await?;
    Ok(HttpResponse::Created().json(MadeKeyView::from(made)))
}

/// Revoke a key of one's own for good
#[utoipa::path(
    tag = "Account",
    operation_id = "revokeMyKey",
    params(("id" = String, Path, description = "The key's public half")),
    responses(
        (status = 204, description = "It cannot be exchanged any more, and its tokens count no more here"),
        (status = 404, description = "The caller has no such key, or it is revoked", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[delete("/v1/me/keys/{id}")]
pub(crate) async fn revoke_mine(caller: Caller<APerson>, issuer: Data<Issuer>, path: Path<KeyInPath>) -> Answered<HttpResponse> {
    let key = issuer.key_of(caller.tenant(), myself(&caller)?, &path.id()?).await?;
    issuer.revoke_key(caller.tenant(), &caller.actor(), &key.id).await?;
    Ok(HttpResponse::NoContent().finish())
}

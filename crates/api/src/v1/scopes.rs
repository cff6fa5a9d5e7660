//! The catalogue: what can be done in a tenant.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_store::role::Scope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::Body;
use crate::caller::{Caller, RolesRead, RolesWrite};
use crate::page::Page;
use crate::problem::Answered;
use crate::v1::roles::NameInPath;

/// A scope for the catalogue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScopeIn {
    /// `resource:action`, of letters, digits, `_`, `.` and `-`.
    #[schema(example = "events:read")]
    name: String,
    /// What it lets somebody do, for people.
    #[serde(default)]
    #[schema(example = "Read events")]
    description: String,
}

/// A scope of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScopeView {
    #[schema(example = "events:read")]
    pub(crate) name: String,
    /// What it lets somebody do, for people.
    #[schema(example = "Read events")]
    pub(crate) description: String,
    created_at: DateTime<Utc>,
}

impl From<Scope> for ScopeView {
    fn from(scope: Scope) -> Self {
        let Scope { name, description, created_at } = scope;
        Self { name, description, created_at }
    }
}

/// Add a scope to the catalogue
///
/// Scopes that are given to somebody enter it by themselves, unless the tenant's setting `closed_catalogue` is on. For one
/// that is there, the description is replaced.
#[utoipa::path(
    tag = "Roles",
    operation_id = "putScope",
    request_body = ScopeIn,
    responses(
        (status = 200, description = "It was there; its description was replaced", body = ScopeView),
        (status = 201, description = "The scope", body = ScopeView),
        (status = 409, description = "It belongs to the management of the tenant, or the catalogue is full", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["roles:write"]), ("basic" = ["roles:write"])),
)]
#[post("/v1/scopes")]
pub(crate) async fn put(caller: Caller<RolesWrite>, issuer: Data<Issuer>, body: Body<ScopeIn>) -> Answered<HttpResponse> {
    let ScopeIn { name, description } = body.take()?;
    let (scope, new) = issuer.put_scope(caller.who.tenant(), &caller.actor(), &name, &description).await?;
    let mut answer = if new { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(answer.json(ScopeView::from(scope)))
}

/// List the catalogue
#[utoipa::path(
    tag = "Roles",
    operation_id = "listScopes",
    responses((status = 200, description = "All scopes of the tenant's own services, in order of name", body = Page<ScopeView>)),
    security(("bearer" = ["roles:read"]), ("basic" = ["roles:read"])),
)]
#[get("/v1/scopes")]
pub(crate) async fn list(caller: Caller<RolesRead>, issuer: Data<Issuer>) -> Answered<Json<Page<ScopeView>>> {
    Ok(Json(Page::whole(issuer.scopes(caller.tenant()).await?)))
}

/// Remove a scope that nobody names from the catalogue
#[utoipa::path(
    tag = "Roles",
    operation_id = "deleteScope",
    params(("name" = String, Path, description = "The scope")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "A role, person, application or key names it", body = crate::problem::Problem),
    ),
    security(("bearer" = ["roles:write"]), ("basic" = ["roles:write"])),
)]
#[delete("/v1/scopes/{name}")]
pub(crate) async fn delete(caller: Caller<RolesWrite>, issuer: Data<Issuer>, path: Path<NameInPath>) -> Answered<HttpResponse> {
    issuer.delete_scope(caller.who.tenant(), &caller.actor(), &path.name).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Show the catalogue by resource
#[utoipa::path(
    tag = "Roles",
    operation_id = "listAvailablePermissions",
    responses((
        status = 200, description = "Each resource with its actions", body = std::collections::BTreeMap<String, Vec<String>>,
        example = json!({ "events": ["read", "write"] })
    )),
    security(("bearer" = ["roles:read"]), ("basic" = ["roles:read"])),
)]
#[get("/v1/available-permissions")]
pub(crate) async fn available(caller: Caller<RolesRead>) -> Answered<HttpResponse> {
    Ok(HttpResponse::Ok().json(caller.who.tenant().catalogue.by_resource()))
}

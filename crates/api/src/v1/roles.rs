//! Roles of a tenant.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, patch, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::rights::TENANT_ADMIN;
use claviger_issuer::role::RoleChange;
use claviger_store::role::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::Body;
use crate::caller::{Caller, RolesRead, RolesWrite};
use crate::page::Page;
use crate::problem::Answered;

/// A role to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleIn {
    /// At most 64 letters, digits, `_`, `.`, `:` and `-`. Never changes.
    #[schema(example = "editor")]
    name: String,
    /// For people.
    #[serde(default)]
    #[schema(example = "Writes events")]
    description: String,
    /// Scopes, and patterns of them: `memory:*`, `*:read`, `*:*`. A pattern never reaches the management of the tenant.
    #[schema(example = json!(["events:*", "memory:read"]))]
    scopes: Vec<String>,
}

/// What to change of a role; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleChangeIn {
    /// For people.
    description: Option<String>,
    /// All of its scopes and patterns.
    scopes: Option<Vec<String>>,
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RoleView {
    #[schema(example = "editor")]
    pub(crate) name: String,
    /// For people.
    #[schema(example = "Writes events")]
    description: String,
    /// Scopes, and patterns of them.
    #[schema(example = json!(["events:*", "memory:read"]))]
    pub(crate) scopes: Vec<String>,
    /// Whether every tenant has it, and nobody can change it.
    #[schema(example = false)]
    built_in: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Role> for RoleView {
    fn from(role: Role) -> Self {
        let Role { name, description, scopes, created_at, updated_at } = role;
        Self { built_in: name == TENANT_ADMIN, name, description, scopes, created_at, updated_at }
    }
}

/// Make a role
///
/// Nobody puts into a role what they do not hold; who may write roles may put in whatever the tenant's own services
/// understand. Whoever has the name already holds what it says from now on.
#[utoipa::path(
    tag = "Roles",
    operation_id = "createRole",
    request_body = RoleIn,
    responses(
        (status = 201, description = "The role", body = RoleView),
        (status = 409, description = "There is one of that name", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["roles:write"]), ("basic" = ["roles:write"])),
)]
#[post("/v1/roles")]
pub(crate) async fn create(caller: Caller<RolesWrite>, issuer: Data<Issuer>, body: Body<RoleIn>) -> Answered<HttpResponse> {
    let RoleIn { name, description, scopes } = body.take()?;
    let role = issuer.create_role(caller.who.tenant(), &caller.actor(), &name, &description, scopes).await?;
    Ok(HttpResponse::Created().json(RoleView::from(role)))
}

/// List roles
#[utoipa::path(
    tag = "Roles",
    operation_id = "listRoles",
    responses((status = 200, description = "All roles, in order of name, the built-in one first", body = Page<RoleView>)),
    security(("bearer" = ["roles:read"]), ("basic" = ["roles:read"])),
)]
#[get("/v1/roles")]
pub(crate) async fn list(caller: Caller<RolesRead>, issuer: Data<Issuer>) -> Answered<Json<Page<RoleView>>> {
    Ok(Json(Page::whole(issuer.roles(caller.who.tenant()).await?)))
}

/// Show a role
#[utoipa::path(
    tag = "Roles",
    operation_id = "showRole",
    params(("name" = String, Path, description = "The role's name")),
    responses(
        (status = 200, description = "The role", body = RoleView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["roles:read"]), ("basic" = ["roles:read"])),
)]
#[get("/v1/roles/{name}")]
pub(crate) async fn show(caller: Caller<RolesRead>, issuer: Data<Issuer>, path: Path<NameInPath>) -> Answered<Json<RoleView>> {
    Ok(Json(issuer.find_role(caller.who.tenant(), &path.name).await?.into()))
}

/// Change a role
///
/// It bites at once: whoever has the role holds what it says now, at every exchange, refresh, verification and call.
#[utoipa::path(
    tag = "Roles",
    operation_id = "changeRole",
    params(("name" = String, Path, description = "The role's name")),
    request_body(content = RoleChangeIn, example = json!({ "scopes": ["events:read"] })),
    responses(
        (status = 200, description = "The role as it is now", body = RoleView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "It is built in", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["roles:write"]), ("basic" = ["roles:write"])),
)]
#[patch("/v1/roles/{name}")]
pub(crate) async fn change(
    caller: Caller<RolesWrite>,
    issuer: Data<Issuer>,
    path: Path<NameInPath>,
    body: Body<RoleChangeIn>,
) -> Answered<Json<RoleView>> {
    let RoleChangeIn { description, scopes } = body.take()?;
    let change = RoleChange { description, scopes };
    Ok(Json(issuer.change_role(caller.who.tenant(), &caller.actor(), &path.name, change).await?.into()))
}

/// Remove a role that nobody has
#[utoipa::path(
    tag = "Roles",
    operation_id = "deleteRole",
    params(("name" = String, Path, description = "The role's name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "Somebody has it, or it is built in", body = crate::problem::Problem),
    ),
    security(("bearer" = ["roles:write"]), ("basic" = ["roles:write"])),
)]
#[delete("/v1/roles/{name}")]
pub(crate) async fn delete(caller: Caller<RolesWrite>, issuer: Data<Issuer>, path: Path<NameInPath>) -> Answered<HttpResponse> {
    issuer.delete_role(caller.who.tenant(), &caller.actor(), &path.name).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct NameInPath {
    pub(crate) name: String,
}

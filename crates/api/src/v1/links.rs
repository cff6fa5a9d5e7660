//! Links: who somebody is at a connection.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, post};
use chrono::{DateTime, Utc};
use claviger_issuer::{Failure, Issuer};
use claviger_store::connection::Link;
use claviger_store::id::ConnectionId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::Body;
use crate::caller::{APerson, Caller, UsersRead, UsersWrite};
use crate::page::Page;
use crate::problem::{Answer, Answered};
use crate::v1::users::UserInPath;

/// Who somebody is at a connection.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkView {
    /// The connection's id.
    connection: Uuid,
    /// The connection's name.
    #[schema(example = "staff")]
    connection_name: String,
    /// What they are called there, for ever: the provider's `sub`, or an entry's id.
    #[schema(example = "248289761001")]
    subject: String,
    /// What the other side said of them last: `name`, `username`, `email`, `groups`, `attributes`.
    #[schema(example = json!({ "name": "Alice A.", "groups": ["staff"], "attributes": { "clearance": "L3" } }))]
    profile: Value,
    created_at: DateTime<Utc>,
    /// When they last came from there.
    used_at: Option<DateTime<Utc>>,
}

impl From<Link> for LinkView {
    fn from(link: Link) -> Self {
        let Link { connection, connection_name, connection_title: _, subject, user: _, profile, created_at, used_at } = link;
        Self { connection: connection.0, connection_name, subject, profile, created_at, used_at }
    }
}

/// List one's own links
///
/// They are made and removed at the account page, with the password.
#[utoipa::path(
    tag = "Account",
    operation_id = "listMyLinks",
    responses((status = 200, description = "Links, in order of the connection's name", body = Page<LinkView>)),
    security(("bearer" = []), ("session" = [])),
)]
#[get("/v1/me/links")]
pub(crate) async fn mine(caller: Caller<APerson>, issuer: Data<Issuer>) -> Answered<Json<Page<LinkView>>> {
    let user = caller.who.person()?.user().map_err(Failure::from)?.id;
    Ok(Json(Page::whole(issuer.links_of(caller.tenant(), user).await?)))
}

/// List somebody's links
#[utoipa::path(
    tag = "Users",
    operation_id = "listLinksOfUser",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 200, description = "Links, in order of the connection's name", body = Page<LinkView>),
        (status = 404, description = "There is no such user in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:read"]), ("basic" = ["users:read"])),
)]
#[get("/v1/users/{id}/links")]
pub(crate) async fn list(
    caller: Caller<UsersRead>,
    issuer: Data<Issuer>,
    path: Path<UserInPath>,
) -> Answered<Json<Page<LinkView>>> {
    Ok(Json(Page::whole(issuer.links_of(caller.tenant(), path.id()?).await?)))
}

/// Who somebody is at a connection.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkIn {
    /// The connection's id.
    connection: Uuid,
    /// What they are called there, for ever.
    #[schema(example = "248289761001")]
    subject: String,
}

/// Link somebody
///
/// Whoever is called so there comes in as this person: not for people who hold more than the caller.
#[utoipa::path(
    tag = "Users",
    operation_id = "linkUser",
    params(("id" = Uuid, Path, description = "The user's id")),
    request_body = LinkIn,
    responses(
        (status = 204, description = "Linked"),
        (status = 403, description = "The person holds more than the caller (`insufficient_scope`)", body = crate::problem::Problem),
        (status = 404, description = "There is no such user in this tenant", body = crate::problem::Problem),
        (status = 409, description = "Linked otherwise already (`linked_otherwise`)", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[post("/v1/users/{id}/links")]
pub(crate) async fn create(
    caller: Caller<UsersWrite>,
    issuer: Data<Issuer>,
    path: Path<UserInPath>,
    body: Body<LinkIn>,
) -> Answered<HttpResponse> {
    let LinkIn { connection, subject } = body.take()?;
    let (tenant, actor) = (caller.who.tenant(), caller.actor());
    issuer.link_user(tenant, &actor, path.id()?, ConnectionId(connection), &subject).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Unlink somebody
#[utoipa::path(
    tag = "Users",
    operation_id = "unlinkUser",
    params(
        ("id" = Uuid, Path, description = "The user's id"),
        ("connection" = Uuid, Path, description = "The connection's id"),
    ),
    responses(
        (status = 204, description = "Unlinked; this person's logins from there have ended"),
        (status = 404, description = "There is no such link", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[delete("/v1/users/{id}/links/{connection}")]
pub(crate) async fn delete(caller: Caller<UsersWrite>, issuer: Data<Issuer>, path: Path<LinkInPath>) -> Answered<HttpResponse> {
    let user = path.id.parse().map_err(|_| Answer::not_found())?;
    let connection = path.connection.parse().map_err(|_| Answer::not_found())?;
    issuer.unlink(caller.tenant(), &caller.actor(), user, connection).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct LinkInPath {
    id: String,
    connection: String,
}

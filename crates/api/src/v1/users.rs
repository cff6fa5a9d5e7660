//! People of a tenant.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, patch, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::user::{NewPassword, NewUser, UserChange};
use claviger_store::id::UserId;
use claviger_store::user::User;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::{Asked, Body, present};
use crate::caller::{Caller, UsersRead, UsersWrite};
use crate::page::{Page, PageQuery};
use crate::problem::{Answer, Answered};

/// A user to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserIn {
    /// At most 128 letters, digits and `. _ @ + -`. Unique in the tenant whatever its case or look; never changes.
    #[schema(example = "alice")]
    username: String,
    /// Kept in lower case.
    #[schema(example = "alice@example.com")]
    email: Option<String>,
    /// Names of roles. One that the tenant has not made is a word in tokens, and grants nothing here.
    #[serde(default)]
    #[schema(example = json!(["editor"]))]
    roles: Vec<String>,
    /// Scopes held beside those of the roles.
    #[serde(default)]
    #[schema(example = json!(["events:read"]))]
    scopes: Vec<String>,
    /// What services want to know besides, by name: at most 50 in 4096 bytes. An audience's profile says which of them its
    /// tokens carry.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({ "name": "Alice Liddell", "projects": ["wonderland"] }))]
    attributes: Map<String, Value>,
    /// The password; the tenant's policy judges it. Absent makes somebody who cannot log in with one.
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
}

/// What to change of a user; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserChangeIn {
    /// The address; `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    email: Option<Option<String>>,
    /// All of the roles.
    roles: Option<Vec<String>>,
    /// All of the scopes held beside those of the roles.
    scopes: Option<Vec<String>>,
    /// Attributes to be set; `null` removes one, and those that are not named stay.
    #[schema(value_type = Option<Object>, example = json!({ "projects": ["wonderland"], "avatar": null }))]
    attributes: Option<Map<String, Value>>,
    /// Whether the person may act.
    disabled: Option<bool>,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserView {
    /// The `sub` of this person's tokens.
    pub(crate) id: Uuid,
    /// The login name.
    #[schema(example = "alice")]
    pub(crate) username: String,
    /// In lower case.
    #[schema(example = "alice@example.com")]
    email: Option<String>,
    /// Names of roles, in order.
    #[schema(example = json!(["editor"]))]
    roles: Vec<String>,
    /// Scopes held beside those of the roles, in order.
    #[schema(example = json!(["events:read"]))]
    scopes: Vec<String>,
    /// What services want to know besides, by name.
    #[schema(value_type = Object, example = json!({ "name": "Alice Liddell", "projects": ["wonderland"] }))]
    attributes: Map<String, Value>,
    /// `active` or `disabled`.
    #[schema(example = "active")]
    pub(crate) status: &'static str,
    created_at: DateTime<Utc>,
}

impl From<User> for UserView {
    fn from(user: User) -> Self {
        let User { id, username, email, roles, scopes, attributes, created_at, status } = user;
        Self { id: id.0, username, email, roles, scopes, attributes, status: status.word(), created_at }
    }
}

/// Make a user
#[utoipa::path(
    tag = "Users",
    operation_id = "createUser",
    request_body = UserIn,
    responses(
        (status = 201, description = "The user", body = UserView),
        (status = 409, description = "The username or address is taken", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[post("/v1/users")]
pub(crate) async fn create(caller: Caller<UsersWrite>, issuer: Data<Issuer>, body: Body<UserIn>) -> Answered<HttpResponse> {
    let UserIn { username, email, roles, scopes, attributes, password } = body.take()?;
    let password = password.map(NewPassword::Text);
    let new = NewUser { username, email, roles, scopes, attributes, password, ..NewUser::default() };
    let user = issuer.create_user(caller.who.tenant(), &caller.actor(), new).await?;
    Ok(HttpResponse::Created().json(UserView::from(user)))
}

/// List users
#[utoipa::path(
    tag = "Users",
    operation_id = "listUsers",
    params(PageQuery),
    responses((status = 200, description = "Users in order of id", body = Page<UserView>)),
    security(("bearer" = ["users:read"]), ("basic" = ["users:read"])),
)]
#[get("/v1/users")]
pub(crate) async fn list(
    caller: Caller<UsersRead>,
    issuer: Data<Issuer>,
    page: Asked<PageQuery>,
) -> Answered<Json<Page<UserView>>> {
    let page = page.take()?;
    let limit = page.limit()?;
    let after = page.after.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| Answer::unprocessable("after", "Send `next` of the page before, as it was."))?;
    let users = issuer.list_users(caller.tenant(), after, limit).await?;
    Ok(Json(Page::of(users, limit, |user| user.id.to_string())))
}

/// Show a user
#[utoipa::path(
    tag = "Users",
    operation_id = "showUser",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 200, description = "The user", body = UserView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:read"]), ("basic" = ["users:read"])),
)]
#[get("/v1/users/{id}")]
pub(crate) async fn show(caller: Caller<UsersRead>, issuer: Data<Issuer>, path: Path<UserInPath>) -> Answered<Json<UserView>> {
    Ok(Json(issuer.find_user(caller.tenant(), path.id()?).await?.into()))
}

/// Change a user
#[utoipa::path(
    tag = "Users",
    operation_id = "changeUser",
    params(("id" = Uuid, Path, description = "The user's id")),
    request_body(content = UserChangeIn, example = json!({ "disabled": true })),
    responses(
        (status = 200, description = "The user as it is now", body = UserView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "The address is taken", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[patch("/v1/users/{id}")]
pub(crate) async fn change(
    caller: Caller<UsersWrite>,
    issuer: Data<Issuer>,
    path: Path<UserInPath>,
    body: Body<UserChangeIn>,
) -> Answered<Json<UserView>> {
    let UserChangeIn { email, roles, scopes, attributes, disabled } = body.take()?;
    let change = UserChange { email, roles, scopes, attributes, disabled, password: None };
    Ok(Json(issuer.change_user(caller.tenant(), &caller.actor(), path.id()?, change).await?.into()))
}

/// End a user for good
#[utoipa::path(
    tag = "Users",
    operation_id = "deleteUser",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 204, description = "The person's keys and tokens count no more; the address is forgotten"),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[delete("/v1/users/{id}")]
pub(crate) async fn delete(caller: Caller<UsersWrite>, issuer: Data<Issuer>, path: Path<UserInPath>) -> Answered<HttpResponse> {
    issuer.delete_user(caller.tenant(), &caller.actor(), path.id()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct UserInPath {
    id: String,
}

impl UserInPath {
    /// What is no id is the id of nobody.
    pub(crate) fn id(&self) -> Result<UserId, Answer> {
        self.id.parse().map_err(|_| Answer::not_found())
    }
}

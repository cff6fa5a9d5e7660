//! Logins that have not ended: one's own, and for admins those of anybody.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse, delete, get, post, put};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::account::{LoginKind, OpenLogin};
use claviger_issuer::caller::Login;
use claviger_store::id::UserId;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::Body;
use crate::caller::{APerson, Caller, UsersRead, UsersWrite};
use crate::cookies::Cookies;
use crate::problem::{Answer, Answered};
use crate::v1::users::UserInPath;

/// A login that has not ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoginView {
    /// The `sid` of its access tokens.
    id: Uuid,
    /// `session` for a browser, `tokens` for a program.
    #[schema(example = "tokens")]
    kind: &'static str,
    /// How its client called itself.
    #[schema(example = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0")]
    user_agent: Option<String>,
    created_at: DateTime<Utc>,
    /// A session's to the minute, otherwise the last refresh.
    last_used_at: DateTime<Utc>,
    /// When it ends, whatever happens.
    ends_at: DateTime<Utc>,
    /// Whether it is the one of this call.
    current: bool,
}

/// Logins that have not ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LoginsView {
    /// Those last used first.
    items: Vec<LoginView>,
}

impl LoginsView {
    fn of(logins: Vec<OpenLogin>, current: Option<Uuid>) -> Self {
        let view = |login| {
            let OpenLogin { id, kind, user_agent, created_at, last_used_at, ends_at } = login;
            let kind = match kind {
                LoginKind::Session => "session",
                LoginKind::Tokens => "tokens",
            };
            LoginView { id, kind, user_agent, created_at, last_used_at, ends_at, current: current == Some(id) }
        };
        Self { items: logins.into_iter().map(view).collect() }
    }
}

/// The login behind a person's call.
pub(crate) fn current(caller: &claviger_issuer::caller::Caller) -> Option<Uuid> {
    match caller.person().ok()?.login? {
        Login::Family(id) => Some(id.0),
        Login::Session(id) => Some(id.0),
    }
}

/// List one's own logins
#[utoipa::path(
    tag = "Account",
    operation_id = "listMyLogins",
    responses((status = 200, description = "Logins that have not ended", body = LoginsView)),
    security(("bearer" = []), ("session" = [])),
)]
#[get("/v1/me/sessions")]
pub(crate) async fn mine(caller: Caller<APerson>, issuer: Data<Issuer>) -> Answered<Json<LoginsView>> {
    let id = own_id(&caller)?;
    Ok(Json(LoginsView::of(issuer.logins(caller.tenant(), id).await?, current(&caller.who))))
}

/// Log out everywhere
///
/// Ends all logins of the caller, this one too.
#[utoipa::path(
    tag = "Account",
    operation_id = "endMyLogins",
    responses((status = 204, description = "All logins have ended")),
    security(("bearer" = []), ("session" = [])),
)]
#[delete("/v1/me/sessions")]
pub(crate) async fn end_mine(caller: Caller<APerson>, issuer: Data<Issuer>) -> Answered<HttpResponse> {
    let id = own_id(&caller)?;
    issuer.end_all_logins(caller.tenant(), &caller.actor(), id).await?;
    let cookies = Cookies::of(&caller.who.tenant().tenant.slug);
    Ok(HttpResponse::NoContent().cookie(cookies.clear_session()).finish())
}

/// End one of one's own logins
#[utoipa::path(
    tag = "Account",
    operation_id = "endMyLogin",
    params(("id" = Uuid, Path, description = "The login's id")),
    responses(
        (status = 204, description = "The login has ended"),
        (status = 404, description = "The caller has no such login", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[delete("/v1/me/sessions/{id}")]
pub(crate) async fn end_one_of_mine(
    caller: Caller<APerson>,
    issuer: Data<Issuer>,
    path: Path<LoginInPath>,
) -> Answered<HttpResponse> {
    let id = own_id(&caller)?;
    issuer.end_login(caller.tenant(), &caller.actor(), id, path.login()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A new password for oneself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChangeIn {
    /// The one that is valid now.
    #[schema(value_type = String, format = Password)]
    current_password: SecretString,
    /// The new one; the tenant's policy judges it.
    #[schema(value_type = String, format = Password)]
    new_password: SecretString,
}

/// Change one's own password
///
/// All logins of the caller end, this one too: log in again.
#[utoipa::path(
    tag = "Account",
    operation_id = "changeMyPassword",
    request_body = PasswordChangeIn,
    responses(
        (status = 204, description = "The password is changed, and all logins have ended"),
        (status = 422, description = "The current password is wrong, or the new one does not suit the policy", body = crate::problem::Problem),
        (status = 429, description = "Too many failures; see `Retry-After`", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[post("/v1/me/password")]
pub(crate) async fn change_my_password(
    caller: Caller<APerson>,
    req: HttpRequest,
    issuer: Data<Issuer>,
    body: Body<PasswordChangeIn>,
) -> Answered<HttpResponse> {
    let PasswordChangeIn { current_password, new_password } = body.take()?;
    let cookies = Cookies::of(&caller.who.tenant().tenant.slug);
    let device = cookies.device(&req);
    issuer.change_own_password(&caller.who, current_password, new_password, device.as_deref()).await?;
    Ok(HttpResponse::NoContent().cookie(cookies.clear_session()).finish())
}

/// List somebody's logins
#[utoipa::path(
    tag = "Users",
    operation_id = "listLoginsOfUser",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 200, description = "Logins that have not ended", body = LoginsView),
        (status = 404, description = "There is no such user in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:read"]), ("basic" = ["users:read"])),
)]
#[get("/v1/users/{id}/sessions")]
pub(crate) async fn list(caller: Caller<UsersRead>, issuer: Data<Issuer>, path: Path<UserInPath>) -> Answered<Json<LoginsView>> {
    Ok(Json(LoginsView::of(issuer.logins(caller.tenant(), path.id()?).await?, None)))
}

/// End all of somebody's logins
#[utoipa::path(
    tag = "Users",
    operation_id = "endLoginsOfUser",
    params(("id" = Uuid, Path, description = "The user's id")),
    responses(
        (status = 204, description = "All logins have ended"),
        (status = 404, description = "There is no such user in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[delete("/v1/users/{id}/sessions")]
pub(crate) async fn end_all(caller: Caller<UsersWrite>, issuer: Data<Issuer>, path: Path<UserInPath>) -> Answered<HttpResponse> {
    issuer.end_all_logins(caller.tenant(), &caller.actor(), path.id()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// End one of somebody's logins
#[utoipa::path(
    tag = "Users",
    operation_id = "endLoginOfUser",
    params(
        ("id" = Uuid, Path, description = "The user's id"),
        ("login" = Uuid, Path, description = "The login's id"),
    ),
    responses(
        (status = 204, description = "The login has ended"),
        (status = 404, description = "There is no such login of this user", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[delete("/v1/users/{id}/sessions/{login}")]
pub(crate) async fn end_one(
    caller: Caller<UsersWrite>,
    issuer: Data<Issuer>,
    path: Path<LoginOfUserInPath>,
) -> Answered<HttpResponse> {
    let user = path.id.parse().map_err(|_| Answer::not_found())?;
    let login = path.login.parse().map_err(|_| Answer::not_found())?;
    issuer.end_login(caller.tenant(), &caller.actor(), user, login).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A password for somebody else.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordIn {
    /// The tenant's policy judges it.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// Give somebody a password
///
/// All logins of that person end.
#[utoipa::path(
    tag = "Users",
    operation_id = "setPasswordOfUser",
    params(("id" = Uuid, Path, description = "The user's id")),
    request_body = PasswordIn,
    responses(
        (status = 204, description = "The password is set, and all logins have ended"),
        (status = 404, description = "There is no such user in this tenant", body = crate::problem::Problem),
        (status = 422, description = "The password does not suit the policy", body = crate::problem::Problem),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[put("/v1/users/{id}/password")]
pub(crate) async fn set_password(
    caller: Caller<UsersWrite>,
    issuer: Data<Issuer>,
    path: Path<UserInPath>,
    body: Body<PasswordIn>,
) -> Answered<HttpResponse> {
    let PasswordIn { password } = body.take()?;
    issuer.set_password(caller.who.tenant(), &caller.actor(), path.id()?, password).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn own_id(caller: &Caller<APerson>) -> Answered<UserId> {
    let person = caller.who.person()?;
    Ok(person.user().map_err(claviger_issuer::Failure::from)?.id)
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct LoginInPath {
    id: String,
}

impl LoginInPath {
    /// What is no id is the id of no login.
    fn login(&self) -> Result<Uuid, Answer> {
        self.id.parse().map_err(|_| Answer::not_found())
    }
}

/// See [`LoginInPath`].
#[derive(Deserialize)]
pub(crate) struct LoginOfUserInPath {
    id: String,
    login: String,
}

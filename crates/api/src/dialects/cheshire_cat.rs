//! Cheshire Cat's dialect: its tokens, its login page, and its routes for people. Whatever it refuses is 403, and says as little
//! as it does.

use std::sync::Arc;

use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse, delete, get, post, put};
use claviger_issuer::caller::Caller;
use claviger_issuer::cheshire_cat::{Asked as Permissions, PersonChange, available, held_by, with_a_pause};
use claviger_issuer::dialect::Dialects;
use claviger_issuer::login::Login;
use claviger_issuer::verify::Denied;
use claviger_issuer::{Failure, Issuer, Refusal, TenantEntry};
use claviger_store::id::UserId;
use claviger_store::user::User;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::form_urlencoded;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;
use uuid::Uuid;

use super::{Dialect, Speaks, cookie_path, is_mapped};
use crate::body::{Asked, Body, FormBody};
use crate::caller::{request_info, require};
use crate::cookies::from_here;
use crate::credentials;
use crate::login_page::{Place, safe_target};
use crate::pages::{LoginPage, respond};
use crate::problem::{Answer, Answered, Dialect as Written};

/// All that is told of a credential that is not good, or not good enough.
const INVALID: &str = "Invalid Credentials";
/// The cookie that its admin panel reads.
const PANEL_COOKIE: &str = "ccat_user_token";
/// Where its admin panel is.
const PANEL: &str = "/admin/";
/// People on a page when nothing is said, and at most.
const LISTED: (u16, u16) = (100, 1000);

/// Cheshire Cat's.
pub(crate) struct CheshireCat;

impl Dialect for CheshireCat {
    fn is_spoken(dialects: &Dialects) -> bool {
        dialects.cheshire_cat.is_some()
    }
}

/// For routes that it shares with us.
pub(crate) fn is_spoken_by(tenant: &TenantEntry) -> bool {
    CheshireCat::is_spoken(&tenant.settings.dialects)
}

pub(super) fn routes(routes: &mut ServiceConfig<'_>) {
    routes
        .service(issue_token)
        .service(show_login)
        .service(sign_in)
        .service(available_permissions)
        .service(add_person)
        .service(list_people)
        .service(show_person)
        .service(change_person)
        .service(remove_person);
}

/// `{"detail": {"error": "…"}}`.
fn detailed(text: &str) -> (&'static str, String) {
    ("application/json", json!({ "detail": { "error": text } }).to_string())
}

fn invalid_credentials(_: &Answer) -> (&'static str, String) {
    detailed(INVALID)
}

fn not_found(_: &Answer) -> (&'static str, String) {
    detailed("User not found")
}

fn duplicate(_: &Answer) -> (&'static str, String) {
    detailed("Cannot duplicate user")
}

fn in_words(answer: &Answer) -> (&'static str, String) {
    detailed(answer.detail())
}

/// `{"error": […]}`, for what is wrong with a body or query.
fn listed(answer: &Answer) -> (&'static str, String) {
    let at: Vec<&str> = answer.field().into_iter().collect();
    let error = json!({ "type": "value_error", "loc": at, "msg": answer.detail() });
    ("application/json", json!({ "error": [error] }).to_string())
}

/// What it answers where we answer otherwise. What is too much, or broke, is no answer of its own.
fn said(answer: Answer) -> Answer {
    let (status, written): (_, Written) = match answer.status() {
        StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => (StatusCode::FORBIDDEN, invalid_credentials),
        StatusCode::NOT_FOUND => (StatusCode::NOT_FOUND, not_found),
        StatusCode::CONFLICT => (StatusCode::FORBIDDEN, duplicate),
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::UNPROCESSABLE_ENTITY => {
            (StatusCode::BAD_REQUEST, listed)
        }
        StatusCode::FORBIDDEN => (StatusCode::FORBIDDEN, in_words),
        _ => return answer,
    };
    answer.in_dialect(status, written)
}

/// What it answers to somebody who is not let in: also that they hold too little.
fn refused(answer: Answer) -> Answer {
    match answer.status() {
        StatusCode::FORBIDDEN => answer.in_dialect(StatusCode::FORBIDDEN, invalid_credentials),
        _ => said(answer),
    }
}

/// What it answers to somebody who is not logged in, whyever that is.
fn not_logged_in(answer: Answer) -> Answer {
    match answer.status() {
        StatusCode::FORBIDDEN | StatusCode::CONFLICT => answer.in_dialect(StatusCode::FORBIDDEN, invalid_credentials),
        _ => said(answer),
    }
}

/// The status and the words that its core is told to answer with. A policy's status is the tenant's own.
pub(crate) fn told(denied: &Denied) -> (u16, String) {
    let status = match denied {
        Denied::Policy { status, .. } => *status,
        _ => StatusCode::FORBIDDEN.as_u16(),
    };
    (status, INVALID.to_owned())
}

/// Who calls: with a token or a key behind `Bearer`, or with Basic. Where the tenant is lenient, also without any scheme, and in
/// the header `access_token`.
async fn caller(req: &HttpRequest, issuer: &Issuer, tenant: &Arc<TenantEntry>, scope: &str) -> Answered<Caller> {
    let lenient = tenant.settings.lenient_bearer;
    let presented = credentials::bearer_or_pair(req, &issuer.settings().brand, lenient).ok_or(Refusal::Unauthenticated)?;
    let caller = issuer.authenticate_as_usual(Some(tenant), presented, request_info(req)).await?;
    require(req, issuer, &caller, scope).await?;
    match caller.acting {
        Some(_) => Err(Refusal::ActingForAnother.into()),
        None => Ok(caller),
    }
}

/// Whoever may do that with people.
async fn let_in(req: &HttpRequest, issuer: &Issuer, speaks: &Speaks<CheshireCat>, scope: &str) -> Answered<Caller> {
    caller(req, issuer, &speaks.tenant, scope).await.map_err(refused)
}

/// Somebody's name and password.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CredentialsIn {
    #[schema(example = "alice")]
    username: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenOut {
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl")]
    access_token: String,
    #[schema(example = "bearer")]
    token_type: &'static str,
}

/// Log in with a password, for a token in the tenant's usual shape
///
/// A wrong name or password is heard after about a second.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatToken",
    request_body = CredentialsIn,
    responses(
        (status = 200, description = "The token", body = TokenOut),
        (status = 400, description = "There is no body, or it does not fit: `{\"error\": […]}`", content_type = "application/json", body = Value),
        (
            status = 403,
            description = "Name or password is wrong, or too many failed: then `Retry-After` says when to try again",
            content_type = "application/json", body = Value, example = json!({ "detail": { "error": "Invalid Credentials" } })
        ),
    ),
    security(()),
)]
#[post("/auth/token")]
pub(crate) async fn issue_token(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<CheshireCat>,
    body: Body<CredentialsIn>,
) -> Answered<Json<TokenOut>> {
    let CredentialsIn { username, password } = body.take().map_err(said)?;
    let login = Login {
        tenant: &speaks.tenant,
        username: &username,
        password,
        scope: None,
        client: None,
        device: None,
        request: request_info(&req),
    };
    let logged_in = with_a_pause(issuer.log_in_as_usual(login)).await.map_err(|failure| not_logged_in(failure.into()))?;
    Ok(Json(TokenOut { access_token: logged_in.tokens.access_token, token_type: "bearer" }))
}

/// Where to go after signing in, and whether it was tried before.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LoginQuery {
    /// A path on this host; anything else is ignored.
    #[param(example = "/admin/")]
    referer: Option<String>,
    /// `1` after an attempt that was refused.
    #[param(example = "1")]
    retry: Option<String>,
}

/// Where its login page is, as the browser sees it.
fn login_path(req: &HttpRequest, place: &Place) -> String {
    match is_mapped(req) {
        true => "/auth/login".to_owned(),
        false => format!("{}/auth/login", place.base),
    }
}

/// Its login page
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatLoginPage",
    params(LoginQuery),
    responses((status = 200, description = "The page", content_type = "text/html", body = String)),
    security(()),
)]
#[get("/auth/login")]
pub(crate) async fn show_login(
    req: HttpRequest,
    _speaks: Speaks<CheshireCat>,
    query: Asked<LoginQuery>,
) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    let LoginQuery { referer, retry } = query.take().unwrap_or_default();
    let again = retry.is_some_and(|retry| !matches!(retry.as_str(), "" | "0"));
    let page = LoginPage {
        tenant_name: place.name(),
        action: &login_path(&req, &place),
        username: "",
        token: "",
        target: referer.as_deref().and_then(safe_target).map(|target| ("referer", target)),
        problem: again.then_some("The username or password is wrong, or there were too many attempts: try again in a while."),
        connections: Vec::new(),
    };
    respond(StatusCode::OK, &page)
}

/// Its login form.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CatLoginForm {
    #[serde(default)]
    #[schema(example = "alice")]
    username: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// A path on this host; anything else is ignored.
    #[schema(example = "/admin/")]
    referer: Option<String>,
}

/// Sign in with its form
///
/// Begins a browser session, or, with the option `panel_cookie`, leaves a token in a cookie that its admin panel reads.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatSignIn",
    request_body(content = CatLoginForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "On to the target with a cookie, or back to the page with `retry=1`"),
        (status = 400, description = "The form does not fit: `{\"error\": […]}`", content_type = "application/json", body = Value),
        (status = 403, description = "The form was sent from another site", content_type = "text/html", body = String),
    ),
    security(()),
)]
#[post("/auth/login")]
pub(crate) async fn sign_in(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<CheshireCat>,
    form: FormBody<CatLoginForm>,
) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    let path = login_path(&req, &place);
    // It carries no token of ours: that it comes from elsewhere, a browser says by itself.
    if !from_here(&req, &issuer.settings().origin()) {
        return place.stale(&path);
    }
    let CatLoginForm { username, password, referer } = form.take().map_err(said)?;
    let target = referer.as_deref().and_then(safe_target);
    let wants_token = speaks.tenant.settings.dialects.cheshire_cat.as_ref().is_some_and(|cat| cat.panel_cookie);
    match with_a_pause(begin(&req, &issuer, &place, &username, password, wants_token)).await {
        Ok([first, device]) => {
            let usual = if wants_token { PANEL.to_owned() } else { format!("{}/account", place.base) };
            Ok(place.go(target.unwrap_or(&usual)).cookie(first).cookie(device).finish())
        }
        Err(Failure::Refusal(refusal)) => {
            let mut again = form_urlencoded::Serializer::new(String::new());
            again.extend_pairs(target.map(|target| ("referer", target))).append_pair("retry", "1");
            let mut response = place.go(&format!("{path}?{}", again.finish()));
            if let Refusal::Throttled { retry_after } = refusal {
                response.insert_header((header::RETRY_AFTER, retry_after));
            }
            Ok(response.finish())
        }
        Err(failure) => Err(said(failure.into())),
    }
}

/// Signs in; the cookies that say so.
async fn begin(
    req: &HttpRequest,
    issuer: &Issuer,
    place: &Place,
    username: &str,
    password: SecretString,
    wants_token: bool,
) -> Result<[Cookie<'static>; 2], Failure> {
    let cookies = place.cookies();
    let device = cookies.device(req);
    let login = Login {
        tenant: &place.tenant,
        username,
        password,
        scope: None,
        client: None,
        device: device.as_deref(),
        request: request_info(req),
    };
    if !wants_token {
        let begun = issuer.begin_session(login, cookies.session(req).as_ref()).await?;
        return Ok([cookies.set_session(&begun.cookie, begun.lasts), cookies.set_device(&begun.device)]);
    }
    let logged_in = issuer.log_in_as_usual(login).await?;
    let panel = Cookie::build(PANEL_COOKIE, logged_in.tokens.access_token)
        .path(cookie_path(req, place))
        .secure(request_info(req).https)
        .http_only(false)
        .same_site(SameSite::Lax)
        .max_age(Duration::seconds(logged_in.tokens.expires_in))
        .finish();
    Ok([panel, cookies.set_device(&logged_in.device)])
}

/// List the permissions that there are
///
/// The tenant's catalogue, and those for managing people. Takes `users:list`.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatAvailablePermissions",
    responses(
        (
            status = 200, description = "Actions by resource", body = Value,
            example = json!({ "MEMORY": ["DELETE", "EDIT", "LIST", "READ", "WRITE"] })
        ),
        (status = 403, description = "No caller, or one who may not", content_type = "application/json", body = Value),
    ),
    security(("bearer" = ["users:list"]), ("basic" = ["users:list"])),
)]
#[get("/auth/available-permissions")]
pub(crate) async fn available_permissions(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<CheshireCat>,
) -> Answered<Json<Value>> {
    let_in(&req, &issuer, &speaks, "users:list").await?;
    Ok(Json(available(&speaks.tenant)))
}

/// A person as its routes show them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CatUser {
    /// The `sub` of this person's tokens.
    id: Uuid,
    /// The login name.
    #[schema(example = "Alice")]
    username: String,
    /// What the person may do now: actions by resource.
    #[schema(value_type = Object, example = json!({ "STATUS": ["READ"] }))]
    permissions: Value,
}

impl CatUser {
    fn of(tenant: &TenantEntry, user: User) -> Json<Self> {
        let permissions = held_by(tenant, &user);
        Json(Self { id: user.id.0, username: user.username, permissions })
    }
}

/// A person to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CatUserIn {
    /// The login name, from 2 characters; never changes.
    #[schema(example = "Alice")]
    username: String,
    /// From 5 characters; the tenant's policy judges it too.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// Actions by resource; absent gives the role `user`.
    #[schema(value_type = Option<Object>, example = json!({ "STATUS": ["READ"] }))]
    permissions: Option<Permissions>,
}

/// Add a person
///
/// Takes `users:write`. Nobody gives what they do not hold.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatAddPerson",
    request_body = CatUserIn,
    responses(
        (status = 200, description = "The person", body = CatUser),
        (status = 400, description = "A field is wrong or unknown: `{\"error\": […]}`", content_type = "application/json", body = Value),
        (
            status = 403,
            description = "No caller, one who may not or gives too much, or the name is taken",
            content_type = "application/json", body = Value, example = json!({ "detail": { "error": "Cannot duplicate user" } })
        ),
    ),
    security(("bearer" = ["users:write"]), ("basic" = ["users:write"])),
)]
#[post("/users")]
pub(crate) async fn add_person(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<CheshireCat>,
    body: Body<CatUserIn>,
) -> Answered<Json<CatUser>> {
    let caller = let_in(&req, &issuer, &speaks, "users:write").await?;
    let CatUserIn { username, password, permissions } = body.take().map_err(said)?;
    let added = issuer.create_person(&speaks.tenant, &caller.actor(), username, password, permissions.as_ref()).await;
    Ok(CatUser::of(&speaks.tenant, added.map_err(|failure| said(failure.into()))?))
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PeopleQuery {
    /// How many to leave out at the beginning.
    #[param(default = 0)]
    skip: Option<u32>,
    /// How many, 0 to 1000.
    #[param(minimum = 0, maximum = 1000, default = 100)]
    limit: Option<u16>,
}

/// List people, oldest first
///
/// Takes `users:list`.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatPeople",
    params(PeopleQuery),
    responses(
        (status = 200, description = "People", body = Vec<CatUser>),
        (status = 400, description = "A parameter is wrong: `{\"error\": […]}`", content_type = "application/json", body = Value),
        (status = 403, description = "No caller, or one who may not", content_type = "application/json", body = Value),
    ),
    security(("bearer" = ["users:list"]), ("basic" = ["users:list"])),
)]
#[get("/users")]
pub(crate) async fn list_people(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<CheshireCat>,
    query: Asked<PeopleQuery>,
) -> Answered<Json<Vec<CatUser>>> {
    let_in(&req, &issuer, &speaks, "users:list").await?;
    let PeopleQuery { skip, limit } = query.take().map_err(said)?;
    let (usual, most) = LISTED;
    let limit = limit.unwrap_or(usual);
    if limit > most {
        return Err(said(Answer::unprocessable("limit", format!("A page holds at most {most}."))));
    }
    let people = issuer.list_people(&speaks.tenant, skip.unwrap_or_default(), limit).await;
    let people = people.map_err(|failure| said(failure.into()))?;
    Ok(Json(people.into_iter().map(|user| CatUser::of(&speaks.tenant, user).0).collect()))
}

/// Taken by name, because the path also holds the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct IdInPath {
    id: String,
}

impl IdInPath {
    /// What is no id is nobody's.
    fn user(&self) -> Answered<UserId> {
        self.id.parse().map_err(|_| said(Answer::not_found()))
    }
}

/// Show a person
///
/// Takes `users:read`.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatPerson",
    params(("id" = String, Path, description = "The person's id")),
    responses(
        (status = 200, description = "The person", body = CatUser),
        (status = 403, description = "No caller, or one who may not", content_type = "application/json", body = Value),
        (status = 404, description = "There is no such person, or this tenant does not speak so", content((Value = "application/json"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(("bearer" = ["users:read"]), ("basic" = ["users:read"])),
)]
#[get("/users/{id}")]
pub(crate) async fn show_person(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<CheshireCat>,
    path: Path<IdInPath>,
) -> Answered<Json<CatUser>> {
    let_in(&req, &issuer, &speaks, "users:read").await?;
    let user = issuer.find_user(speaks.tenant.tenant.id, path.user()?).await;
    Ok(CatUser::of(&speaks.tenant, user.map_err(|failure| said(failure.into()))?))
}

/// What to change of a person; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CatUserChangeIn {
    /// The name that the person has: it never changes.
    #[schema(example = "Alice")]
    username: Option<String>,
    /// A new password, from 5 characters. All of the person's logins end.
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
    /// All permissions: actions by resource.
    #[schema(value_type = Option<Object>, example = json!({ "STATUS": ["READ"], "USERS": ["LIST"] }))]
    permissions: Option<Permissions>,
}

/// Change a person
///
/// Takes `users:edit`. Nobody gives what they do not hold, nor a password to somebody who holds more.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatChangePerson",
    params(("id" = String, Path, description = "The person's id")),
    request_body = CatUserChangeIn,
    responses(
        (status = 200, description = "The person", body = CatUser),
        (status = 400, description = "A field is wrong or unknown: `{\"error\": […]}`", content_type = "application/json", body = Value),
        (status = 403, description = "No caller, or one who may not or gives too much", content_type = "application/json", body = Value),
        (status = 404, description = "There is no such person, or this tenant does not speak so", content((Value = "application/json"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(("bearer" = ["users:edit"]), ("basic" = ["users:edit"])),
)]
#[put("/users/{id}")]
pub(crate) async fn change_person(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<CheshireCat>,
    path: Path<IdInPath>,
    body: Body<CatUserChangeIn>,
) -> Answered<Json<CatUser>> {
    let caller = let_in(&req, &issuer, &speaks, "users:edit").await?;
    let CatUserChangeIn { username, password, permissions } = body.take().map_err(said)?;
    let change = PersonChange { username, password, permissions };
    let changed = issuer.change_person(&speaks.tenant, &caller.actor(), path.user()?, change).await;
    Ok(CatUser::of(&speaks.tenant, changed.map_err(|failure| said(failure.into()))?))
}

/// Remove a person
///
/// Takes `users:delete`. Answers with who it was.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "cheshireCatRemovePerson",
    params(("id" = String, Path, description = "The person's id")),
    responses(
        (status = 200, description = "Who it was", body = CatUser),
        (status = 403, description = "No caller, or one who may not", content_type = "application/json", body = Value),
        (status = 404, description = "There is no such person, or this tenant does not speak so", content((Value = "application/json"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(("bearer" = ["users:delete"]), ("basic" = ["users:delete"])),
)]
#[delete("/users/{id}")]
pub(crate) async fn remove_person(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<CheshireCat>,
    path: Path<IdInPath>,
) -> Answered<Json<CatUser>> {
    let caller = let_in(&req, &issuer, &speaks, "users:delete").await?;
    let removed = issuer.remove_person(&speaks.tenant, &caller.actor(), path.user()?).await;
    Ok(CatUser::of(&speaks.tenant, removed.map_err(|failure| said(failure.into()))?))
}

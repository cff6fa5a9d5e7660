//! ClusterCockpit's dialect: its session cookie, its tokens, its page of people, and the login into its other parts.

use std::sync::Arc;

use actix_web::cookie::time::Duration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse, delete, get, post, put};
use claviger_issuer::audit::Actor;
use claviger_issuer::caller::Caller;
use claviger_issuer::clustercockpit::{ADMINISTERS, Edit, PROJECTS, check_new, check_role, projects};
use claviger_issuer::dialect::Dialects;
use claviger_issuer::login::Login;
use claviger_issuer::user::{NewPassword, NewUser};
use claviger_issuer::{Failure, Issuer, Refusal, TenantEntry};
use claviger_store::user::User;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use super::{Dialect, Speaks, caller_as_usual, cookie_path};
use crate::body::{AnyForm, Asked};
use crate::caller::{request_info, require};
use crate::cookies::{Cookies, from_here};
use crate::login_page::{LoginForm, Place, Shown, safe_target};
use crate::pages::{MessagePage, respond};
use crate::problem::{Answer, Answered};

/// The cookie of its browser sessions.
const SESSION: &str = "session";
/// Most people that its page lists.
const MOST_LISTED: usize = 10_000;

/// ClusterCockpit's.
pub(crate) struct ClusterCockpit;

impl Dialect for ClusterCockpit {
    fn is_spoken(dialects: &Dialects) -> bool {
        dialects.clustercockpit.is_some()
    }
}

/// For routes that it shares with us.
pub(crate) fn is_spoken_by(tenant: &TenantEntry) -> bool {
    ClusterCockpit::is_spoken(&tenant.settings.dialects)
}

pub(super) fn routes(routes: &mut ServiceConfig<'_>) {
    routes
        .service(issue_token)
        .service(cross_login)
        .service(list_roles)
        .service(list_people)
        .service(add_person)
        .service(put_person)
        .service(remove_person)
        .service(edit_person)
        .service(edit_person_of_page);
}

/// `{"status":"Forbidden","error":"…"}`.
fn written(answer: &Answer) -> (&'static str, String) {
    let status = answer.status().canonical_reason().unwrap_or_default();
    ("application/json", json!({ "status": status, "error": answer.detail() }).to_string())
}

/// What ClusterCockpit answers where we answer otherwise.
fn said(answer: Answer) -> Answer {
    let status = match answer.status() {
        StatusCode::CONFLICT => StatusCode::UNPROCESSABLE_ENTITY,
        status => status,
    };
    answer.in_dialect(status, written)
}

/// A sentence of its own, for what only admins may.
fn admins_only(answer: Answer, text: &str) -> Answer {
    match answer.error() {
        "insufficient_scope" => Answer::new(StatusCode::FORBIDDEN, "insufficient_scope", text),
        _ => answer,
    }
}

/// The session cookie that a request carries.
pub(crate) fn session_cookie(req: &HttpRequest) -> Option<SecretString> {
    req.cookie(SESSION).map(|cookie| SecretString::from(cookie.value().to_owned()))
}

fn new_session_cookie(req: &HttpRequest, place: &Place, value: &str, lasts: i64) -> Cookie<'static> {
    Cookie::build(SESSION, value.to_owned())
        .path(cookie_path(req, place))
        .secure(request_info(req).https)
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(Duration::seconds(lasts))
        .finish()
}

/// Sign in with its own form, which carries no token of ours: that it comes from elsewhere, a browser says by itself.
pub(crate) async fn sign_in(req: &HttpRequest, issuer: &Issuer, place: &Place, form: LoginForm) -> Answered<HttpResponse> {
    if !from_here(req, &issuer.settings().origin()) {
        return place.stale(&format!("{}/login", place.base));
    }
    let target = form.redirect.as_deref().and_then(safe_target);
    let device = place.cookies().device(req);
    let login = Login {
        tenant: &place.tenant,
        username: &form.username,
        password: form.password,
        scope: None,
        client: None,
        device: device.as_deref(),
        request: request_info(req),
    };
    let problem = match issuer.begin_session(login, session_cookie(req).as_ref()).await {
        Ok(begun) => {
            let cookie = new_session_cookie(req, place, begun.cookie.expose_secret(), i64::from(begun.lasts));
            let device = place.cookies().set_device(&begun.device);
            let to = target.unwrap_or("/").to_owned();
            return Ok(HttpResponse::Found().insert_header((header::LOCATION, to)).cookie(cookie).cookie(device).finish());
        }
        Err(Failure::Refusal(refusal)) => Answer::from(refusal),
        Err(failure) => return Err(failure.into()),
    };
    let text = match problem.error() {
        "too_many_requests" => "Too many login attempts. Try again later.",
        _ => problem.detail(),
    };
    let shown = Shown { status: StatusCode::UNAUTHORIZED, username: &form.username, return_to: target, problem: Some(text) };
    let mut page = place.login_page(issuer, req, &shown).await?;
    if let Some(seconds) = problem.retry_after() {
        page.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    Ok(page)
}

/// Sign out of its session. Whoever asks was found to come from here.
pub(crate) async fn sign_out(req: &HttpRequest, issuer: &Issuer, place: &Place, cookie: &SecretString) -> Answered<HttpResponse> {
    match issuer.signed_in(&place.tenant, cookie, request_info(req)).await {
        Ok(caller) => issuer.log_out(&caller).await?,
        Err(Failure::Refusal(_)) => {}
        Err(failure) => return Err(failure.into()),
    }
    let login = format!("{}/login", place.base);
    let page = MessagePage {
        tenant_name: Some(place.name()),
        title: "Logout successful",
        text: "You are signed out in this browser.",
        link: Some((&login, "Sign in")),
    };
    let mut response = respond(StatusCode::OK, &page)?;
    response.add_cookie(&new_session_cookie(req, place, "", 0)).map_err(|_| Answer::internal())?;
    Ok(response)
}

/// A token in `X-Auth-Token`, which its adapters send.
pub(crate) fn own_token(req: &HttpRequest) -> Option<String> {
    let mut lines = req.headers().get_all("x-auth-token");
    let token = lines.next().filter(|_| lines.next().is_none())?.to_str().ok()?.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// Who sits at the browser, with all that the person holds: by its own cookie, or by ours.
async fn signed_in(req: &HttpRequest, issuer: &Issuer, tenant: &Arc<TenantEntry>) -> Answered<Caller> {
    let ours = Cookies::of(&tenant.tenant.slug).session(req);
    let cookie = session_cookie(req).or(ours).ok_or(Refusal::NoSession)?;
    if !req.method().is_safe() && !from_here(req, &issuer.settings().origin()) {
        return Err(Answer::cross_site());
    }
    Ok(issuer.signed_in_as_usual(tenant, &cookie, request_info(req)).await?)
}

/// Who calls: by `X-Auth-Token`, `Authorization`, or the browser's session.
async fn caller(req: &HttpRequest, issuer: &Issuer, tenant: &Arc<TenantEntry>) -> Answered<Caller> {
    match caller_as_usual(req, tenant, own_token(req)).await? {
        Some(caller) => Ok(caller),
        None => signed_in(req, issuer, tenant).await,
    }
}

/// An admin, who manages people.
async fn admin(req: &HttpRequest, issuer: &Issuer, tenant: &Arc<TenantEntry>, refused: &str) -> Answered<Caller> {
    let caller = caller(req, issuer, tenant).await?;
    require(req, issuer, &caller, ADMINISTERS).await.map_err(|answer| admins_only(answer, refused))?;
    Ok(caller)
}

/// Whom a token is for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TokenQuery {
    /// The login name.
    #[param(example = "demo")]
    username: String,
}

/// Make an API token for oneself, or as an admin for somebody else
///
/// For whoever is signed in: a token makes no further ones, which would outlive its being called back.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitToken",
    params(TokenQuery),
    responses(
        (status = 200, description = "The token alone", content_type = "text/plain", body = String),
        (status = 401, description = "Nobody is signed in", content_type = "application/json", body = String),
        (status = 403, description = "For others, only admins make tokens", content_type = "application/json", body = String),
        (status = 404, description = "There is no such person, or this tenant does not speak so", content((String = "application/json"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(("session" = [])),
)]
#[get("/frontend/jwt/")]
pub(crate) async fn issue_token(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    query: Asked<TokenQuery>,
) -> Answered<HttpResponse> {
    let issued = async {
        let caller = signed_in(&req, &issuer, &speaks.tenant).await?;
        let TokenQuery { username } = query.take()?;
        let issued = issuer.issue_api_token(&caller, &username).await;
        issued.map_err(|failure| admins_only(failure.into(), "only admins are allowed to sign JWTs not for themselves"))
    };
    let jwt = issued.await.map_err(said)?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(jwt))
}

/// Which application.
#[derive(Deserialize)]
pub(crate) struct ClientInPath {
    client: String,
}

/// Log the browser in to another application
///
/// Hands it a short token in a cookie and leads the browser there. Whoever is not signed in signs in first.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitCrossLogin",
    params(("client" = String, Path, description = "A name under `dialects.clustercockpit.cross_login` of the settings", example = "cc")),
    responses(
        (status = 302, description = "On to the application, or to the login page"),
        (status = 404, description = "There is no such application, or this tenant does not speak so", content((String = "application/json"), (crate::problem::Problem = "application/problem+json"))),
        (status = 422, description = "The application's audience has no short lifetime", content_type = "application/json", body = String),
    ),
    security(("session" = [])),
)]
#[get("/cross-login/{client}")]
pub(crate) async fn cross_login(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    path: Path<ClientInPath>,
) -> Answered<HttpResponse> {
    let found = |to: String| HttpResponse::Found().insert_header((header::LOCATION, to)).finish();
    let caller = match signed_in(&req, &issuer, &speaks.tenant).await {
        Ok(caller) => caller,
        Err(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
            let base = format!("/t/{}", speaks.tenant.tenant.slug);
            let back: String =
                url::form_urlencoded::byte_serialize(format!("{base}/cross-login/{}", path.client).as_bytes()).collect();
            return Ok(found(format!("{base}/login?return_to={back}")));
        }
        Err(answer) => return Err(said(answer)),
    };
    let (client, jwt, lifetime) = issuer.cross_login(&caller, &path.client).await.map_err(|failure| said(failure.into()))?;
    let cookie = Cookie::build(client.cookie, jwt)
        .path("/")
        .secure(client.url.starts_with("https://"))
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(Duration::seconds(i64::from(lifetime)));
    let cookie = match client.domain {
        Some(domain) => cookie.domain(domain).finish(),
        None => cookie.finish(),
    };
    let mut response = found(client.url);
    response.add_cookie(&cookie).map_err(|_| said(Answer::internal()))?;
    Ok(response)
}

/// A person as its page lists them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PersonOut {
    #[schema(example = "demo")]
    username: String,
    #[schema(example = "Demo User")]
    name: String,
    #[schema(example = "demo@example.org")]
    email: String,
    #[schema(example = json!(["user"]))]
    roles: Vec<String>,
    #[schema(example = json!([]))]
    projects: Vec<String>,
}

impl From<User> for PersonOut {
    fn from(user: User) -> Self {
        let projects = projects(&user);
        let name = user.attributes.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { username: user.username, name, email: user.email.unwrap_or_default(), roles: user.roles, projects }
    }
}

/// Whom to list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PeopleQuery {
    /// `true` leaves out those whose one role is `user`.
    #[serde(rename = "not-just-user")]
    #[param(rename = "not-just-user")]
    not_just_user: Option<bool>,
}

/// List people
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitPeople",
    params(PeopleQuery),
    responses(
        (status = 200, description = "The first 10,000", body = Vec<PersonOut>),
        (status = 403, description = "Only admins list people", content_type = "application/json", body = String),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[get("/config/users/")]
pub(crate) async fn list_people(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    query: Asked<PeopleQuery>,
) -> Answered<Json<Vec<PersonOut>>> {
    let listed = async {
        let caller = admin(&req, &issuer, &speaks.tenant, "Only admins are allowed to fetch a list of users").await?;
        let special = query.take()?.not_just_user.unwrap_or(false);
        let mut all = Vec::new();
        let mut after = None;
        while all.len() < MOST_LISTED {
            let page = issuer.list_users(caller.tenant().tenant.id, after, 200).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            all.extend(page.into_iter().filter(|user| !special || user.roles != ["user"]).map(PersonOut::from));
        }
        all.truncate(MOST_LISTED);
        Ok(Json(all))
    };
    listed.await.map_err(said)
}

/// List roles
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitRoles",
    responses(
        (status = 200, description = "The tenant's, by name", body = Vec<String>, example = json!(["admin", "api", "user"])),
        (status = 403, description = "Only admins list roles", content_type = "application/json", body = String),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[get("/config/roles/")]
pub(crate) async fn list_roles(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
) -> Answered<Json<Vec<String>>> {
    let caller = admin(&req, &issuer, &speaks.tenant, "only admins are allowed to fetch a list of roles").await.map_err(said)?;
    Ok(Json(caller.tenant().catalogue.role_names().into_iter().map(str::to_owned).collect()))
}

/// A person to be added.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PersonForm {
    #[schema(example = "demo")]
    username: String,
    /// Blank for scripts (role `api`) alone.
    #[serde(default = "blank")]
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    #[schema(example = "user")]
    role: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    email: String,
    /// For the role `manager`.
    #[serde(default)]
    project: String,
}

fn blank() -> SecretString {
    SecretString::from("")
}

/// Add a person
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitAddPerson",
    request_body(content((PersonForm = "application/x-www-form-urlencoded"), (PersonForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Done", content_type = "text/plain", body = String),
        (status = 400, description = "A password or project is missing, or does not go with the role", content_type = "application/json", body = String),
        (status = 403, description = "Only admins add people", content_type = "application/json", body = String),
        (status = 422, description = "There is no such role, or the name is taken", content_type = "application/json", body = String),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[post("/config/users/")]
pub(crate) async fn add_person(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    form: AnyForm<PersonForm>,
) -> Answered<HttpResponse> {
    added(&req, &issuer, &speaks, form).await
}

/// Add a person, in another way
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitPutPerson",
    request_body(content((PersonForm = "application/x-www-form-urlencoded"), (PersonForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Done", content_type = "text/plain", body = String),
        (status = 400, description = "As for POST", content_type = "application/json", body = String),
        (status = 403, description = "Only admins add people", content_type = "application/json", body = String),
        (status = 422, description = "As for POST", content_type = "application/json", body = String),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[put("/config/users/")]
pub(crate) async fn put_person(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    form: AnyForm<PersonForm>,
) -> Answered<HttpResponse> {
    added(&req, &issuer, &speaks, form).await
}

async fn added(
    req: &HttpRequest,
    issuer: &Issuer,
    speaks: &Speaks<ClusterCockpit>,
    form: AnyForm<PersonForm>,
) -> Answered<HttpResponse> {
    let added = async {
        let caller = admin(req, issuer, &speaks.tenant, "Only admins are allowed to create new users").await?;
        add(issuer, &speaks.tenant, &caller.actor(), form.take()?).await
    };
    let username = added.await.map_err(said)?;
    Ok(text(format!("User {username} successfully created!\n")))
}

async fn add(issuer: &Issuer, tenant: &TenantEntry, actor: &Actor, form: PersonForm) -> Answered<String> {
    let PersonForm { username, password, role, name, email, project } = form;
    check_role(tenant, &role)?;
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let projects: Vec<String> = some(project).into_iter().collect();
    let has_password = !password.expose_secret().is_empty();
    let roles = vec![role];
    check_new(&roles, &projects, has_password).map_err(|refusal| {
        let answer = Answer::from(refusal);
        Answer::bad_request(answer.detail())
    })?;
    let mut attributes = Map::new();
    attributes.extend(some(name).map(|name| ("name".to_owned(), json!(name))));
    attributes.extend((!projects.is_empty()).then(|| (PROJECTS.to_owned(), json!(projects))));
    let password = has_password.then_some(NewPassword::Text(password));
    let new = NewUser { username, email: some(email), roles, attributes, password, ..NewUser::default() };
    Ok(issuer.create_user(tenant, actor, new).await?.username)
}

fn text(text: String) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(text)
}

/// Whom to remove.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct WhomForm {
    #[schema(example = "demo")]
    username: String,
}

/// Remove a person
///
/// One who is not there is removed already.
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitRemovePerson",
    request_body(content((WhomForm = "application/x-www-form-urlencoded"), (WhomForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Done", content_type = "text/plain", body = String),
        (status = 403, description = "Only admins remove people", content_type = "application/json", body = String),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[delete("/config/users/")]
pub(crate) async fn remove_person(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    form: AnyForm<WhomForm>,
) -> Answered<HttpResponse> {
    let removed = async {
        let caller = admin(&req, &issuer, &speaks.tenant, "Only admins are allowed to delete a user").await?;
        let WhomForm { username } = form.take()?;
        let tenant = speaks.tenant.tenant.id;
        match issuer.find_user_by_name(tenant, &username).await {
            Ok(user) => issuer.delete_user(tenant, &caller.actor(), user.id).await?,
            Err(Failure::Refusal(Refusal::NotFound)) => {}
            Err(failure) => return Err(failure.into()),
        }
        Ok(username)
    };
    let username = removed.await.map_err(said)?;
    Ok(text(format!("User {username} successfully deleted!\n")))
}

/// One change.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct EditForm {
    #[schema(example = "api")]
    add_role: Option<String>,
    remove_role: Option<String>,
    add_project: Option<String>,
    remove_project: Option<String>,
}

impl EditForm {
    fn edit(self) -> Answered<Edit> {
        let Self { add_role, remove_role, add_project, remove_project } = self;
        let mut edits = [
            add_role.map(Edit::AddRole),
            remove_role.map(Edit::RemoveRole),
            add_project.map(Edit::AddProject),
            remove_project.map(Edit::RemoveProject),
        ]
        .into_iter()
        .flatten();
        match (edits.next(), edits.next()) {
            (Some(edit), None) => Ok(edit),
            _ => Err(Answer::unprocessable("", "Send one of add-role, remove-role, add-project and remove-project.")),
        }
    }
}

/// Taken by name, because the path also holds the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct NameInPath {
    name: String,
}

/// Give somebody a role or project, or take one away
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitEditPerson",
    params(("name" = String, Path, description = "The login name", example = "demo")),
    request_body(content((EditForm = "application/x-www-form-urlencoded"), (EditForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Done", content_type = "text/plain", body = String),
        (status = 403, description = "Only admins change people", content_type = "application/json", body = String),
        (status = 404, description = "There is no such person, or this tenant does not speak so", content((String = "application/json"), (crate::problem::Problem = "application/problem+json"))),
        (
            status = 422,
            description = "There is no such role, it is held or lacking already, or roles and projects do not go together",
            content_type = "application/json", body = String
        ),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[post("/api/user/{name}")]
pub(crate) async fn edit_person(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    path: Path<NameInPath>,
    form: AnyForm<EditForm>,
) -> Answered<HttpResponse> {
    edited(&req, &issuer, &speaks, &path.name, form).await
}

/// Give somebody a role or project, or take one away, as its settings page does
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitEditPersonOfPage",
    params(("name" = String, Path, description = "The login name", example = "demo")),
    request_body(content((EditForm = "application/x-www-form-urlencoded"), (EditForm = "multipart/form-data"))),
    responses(
        (status = 200, description = "Done", content_type = "text/plain", body = String),
        (status = 403, description = "Only admins change people", content_type = "application/json", body = String),
        (status = 404, description = "There is no such person, or this tenant does not speak so", content((String = "application/json"), (crate::problem::Problem = "application/problem+json"))),
        (status = 422, description = "As for `/api/user/{name}`", content_type = "application/json", body = String),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[post("/config/user/{name}")]
pub(crate) async fn edit_person_of_page(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    path: Path<NameInPath>,
    form: AnyForm<EditForm>,
) -> Answered<HttpResponse> {
    edited(&req, &issuer, &speaks, &path.name, form).await
}

async fn edited(
    req: &HttpRequest,
    issuer: &Issuer,
    speaks: &Speaks<ClusterCockpit>,
    name: &str,
    form: AnyForm<EditForm>,
) -> Answered<HttpResponse> {
    let edited = async {
        let caller = admin(req, issuer, &speaks.tenant, "Only admins are allowed to update a user").await?;
        let edit = form.take()?.edit()?;
        Ok(issuer.edit_person(&speaks.tenant, &caller.actor(), name, &edit).await?)
    };
    let user = edited.await.map_err(said)?;
    let projects = projects(&user).join(", ");
    Ok(text(format!("User {}: roles {}; projects {projects}\n", user.username, user.roles.join(", "))))
}

//! Howler's dialect: its logins into app tokens and through providers, its keys, and who somebody is. Every answer stands in its
//! envelope, with its words.

use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, delete, get, post};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use claviger_issuer::app_token::{AppLogin, AppProof};
use claviger_issuer::attribute::{Attributes, strings};
use claviger_issuer::caller::Presented;
use claviger_issuer::dialect::{self, Dialects};
use claviger_issuer::howler::{KeyWish, Known, LENT_LETTER};
use claviger_issuer::refresh::{Refresh, Tokens};
use claviger_issuer::requirement::Requirement;
use claviger_issuer::scope::ScopeSet;
use claviger_issuer::upstream::{Beginning, Purpose, Returned};
use claviger_issuer::verify::{Allowed, Denied, Question, Shown};
use claviger_issuer::{Declined, Failure, Issuer, Refusal, TenantEntry};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_actix_web::service_config::ServiceConfig;

use super::{Dialect, Speaks};
use crate::body::{Asked, Body};
use crate::caller::request_info;
use crate::credentials::with_scheme;
use crate::login_page::Place;
use crate::problem::{Answer, Answered};
use crate::v1::verify::{basic, shown, told};

/// The role of Howler's admins.
const ADMIN: &str = "admin";

/// Howler's.
pub(crate) struct Howler;

impl Dialect for Howler {
    fn is_spoken(dialects: &Dialects) -> bool {
        dialects.howler.is_some()
    }
}

pub(super) fn routes(routes: &mut ServiceConfig<'_>) {
    routes.service(log_in).service(go_or_come_back).service(log_out).service(who_am_i).service(make_key).service(remove_key);
}

/// What every answer stands in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Envelope<T> {
    /// Empty where all is well.
    #[schema(example = "")]
    api_error_message: String,
    api_response: T,
    #[schema(example = "0.1.0")]
    api_server_version: &'static str,
    #[schema(example = 200)]
    api_status_code: u16,
}

/// What stands in the envelope of what is not done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Nothing;

impl<T> Envelope<T> {
    fn new(status: StatusCode, message: &str, response: T) -> Self {
        Self {
            api_error_message: message.to_owned(),
            api_response: response,
            api_server_version: env!("CARGO_PKG_VERSION"),
            api_status_code: status.as_u16(),
        }
    }
}

fn answered<T: Serialize>(response: T) -> HttpResponse {
    HttpResponse::Ok().json(Envelope::new(StatusCode::OK, "", response))
}

fn written(answer: &Answer) -> (&'static str, String) {
    let envelope = Envelope::new(answer.status(), answer.detail(), Nothing);
    ("application/json", serde_json::to_string(&envelope).unwrap_or_default())
}

/// What Howler answers where we answer otherwise.
fn said(answer: Answer) -> Answer {
    let status = match answer.status() {
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT | StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::BAD_REQUEST,
        status => status,
    };
    let answer = match answer.error() {
        "insufficient_scope" | "acting_for_another" | "not_a_person" => answer.saying("You do not have access to this API."),
        _ => answer,
    };
    answer.in_dialect(status, written)
}

/// What a tenant says of this dialect.
fn dialect_of(tenant: &TenantEntry) -> dialect::Howler {
    tenant.settings.dialects.howler.clone().unwrap_or_default()
}

fn locked(tenant: &TenantEntry, retry_after: u64) -> Answer {
    let rule = tenant.settings.login_throttle();
    let window = u64::try_from(rule.window).unwrap_or_default();
    // A key's failures may count for longer than a password's.
    let seconds = if retry_after > window + 1 { retry_after } else { window };
    let text = format!(
        "Maximum password retry of {} was reached. This account is locked for the next {seconds} seconds...",
        rule.failures
    );
    let answer = Answer::from(Refusal::Throttled { retry_after }).saying(text);
    answer.in_dialect(StatusCode::UNAUTHORIZED, written)
}

/// Howler's words for a "no". `invalid` is what it says of a credential that is not good.
fn refused(tenant: &TenantEntry, denied: &Denied, invalid: &str) -> Answer {
    match denied {
        Denied::Throttled { retry_after } => locked(tenant, *retry_after),
        Denied::UsedUp { reason, retry_after } => Refusal::UsedUp { reason, retry_after: *retry_after }.into(),
        Denied::NoCredential => Answer::unauthorized(denied.word(), "No Authorization header present"),
        Denied::Invalid => Answer::unauthorized(denied.word(), invalid),
        Denied::Malformed(_) => Answer::bad_request("Not a valid authentication type for impersonation."),
        Denied::Token(_) => Answer::unauthorized(denied.word(), "Invalid token"),
        Denied::KeyLimit(_) | Denied::Missing(_) => {
            Answer::new(StatusCode::FORBIDDEN, denied.word(), "You do not have access to this API.")
        }
        _ => {
            let (status, text) = told(denied);
            match StatusCode::from_u16(status) {
                Ok(StatusCode::UNAUTHORIZED) => Answer::unauthorized(denied.word(), text),
                status => Answer::new(status.unwrap_or(StatusCode::FORBIDDEN), denied.word(), text),
            }
        }
    }
}

/// Who calls, by the two headers, if they have one of these privileges.
async fn caller(req: &HttpRequest, issuer: &Issuer, tenant: &Arc<TenantEntry>, privilege: &str) -> Answered<Allowed> {
    let text = |name: &str| req.headers().get(name).map(|value| value.to_str().map(SecretString::from));
    let authorization = match text("authorization") {
        None => None,
        Some(Ok(header)) if with_scheme(header.expose_secret(), "bearer").is_some() || basic(&header).is_some() => {
            Some(shown(&header, &issuer.settings().brand, false))
        }
        Some(_) => return Err(Answer::bad_request("The Authorization header is neither Basic nor Bearer.")),
    };
    let invalid = match &authorization {
        Some(Shown::Basic(_)) => "Invalid login information",
        _ => "Invalid token",
    };
    let impersonating = text("x-impersonating").map(|header| header.ok().as_ref().and_then(basic));
    let question = Question {
        authorization,
        impersonating,
        token: None,
        user_id: None,
        origin: None,
        audiences: Vec::new(),
        require: Requirement::default(),
        privileges: vec![privilege.to_owned()],
        policies: Vec::new(),
        request: request_info(req),
    };
    match issuer.verify_for_dialect(tenant, question).await? {
        Ok(allowed) => Ok(allowed),
        Err(denied) => Err(refused(tenant, &denied, invalid)),
    }
}

/// How somebody logs in: by a password, a key, or a provider's refresh token.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({ "user": "user", "apikey": "devkey:cs_8sZyqk0sPn1tFJ9m5xQmT3vWcR7bL2dH6gK4jN0pX8aYuE1i9oVf" }))]
pub(crate) struct HowlerLoginIn {
    /// The login name.
    user: Option<String>,
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
    /// `NAME:SECRET`.
    #[schema(value_type = Option<String>)]
    apikey: Option<SecretString>,
    /// The connection that the refresh token's login came through.
    oauth_provider: Option<String>,
    /// The same.
    provider: Option<String>,
    #[schema(value_type = Option<String>)]
    refresh_token: Option<SecretString>,
}

/// Tokens of a login.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HowlerLoginOut {
    /// `USER:HEX`; through a provider, a JWT.
    #[schema(example = "user:5791a142067745c3af51d6596da7da8f86357a9fa92ad78d1ce118ea7d89d34e")]
    app_token: String,
    /// The connection, where the login came through one.
    provider: Option<String>,
    /// Gives the next pair, where the login came through a provider.
    refresh_token: Option<String>,
    /// What the login may.
    #[schema(example = json!(["R", "W", "E"]))]
    privileges: Vec<String>,
}

impl HowlerLoginOut {
    fn of(tenant: &TenantEntry, login: &AppLogin) -> Self {
        let AppLogin { token, scopes } = login;
        let privileges = tenant.privileges(scopes).unwrap_or_default();
        Self { app_token: token.expose_secret().to_owned(), provider: None, refresh_token: None, privileges }
    }

    fn through(tenant: &TenantEntry, provider: &str, tokens: Tokens) -> Self {
        let Tokens { access_token, expires_in: _, scope, refresh_token } = tokens;
        let scopes: Vec<String> = scope.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        Self {
            app_token: access_token,
            provider: Some(provider.to_owned()),
            refresh_token: Some(refresh_token.expose_secret().to_owned()),
            privileges: tenant.privileges(&ScopeSet::kept(&scopes)).unwrap_or_default(),
        }
    }
}

/// Log in
///
/// `user` and `password`, or `user` and `apikey`, give an app token, to be sent as `Authorization: Bearer`. `oauth_provider` and
/// `refresh_token` give the next pair of a login through a provider, which is asked first.
#[utoipa::path(
    tag = "Dialects",
    path = "/api/v1/auth/login",
    operation_id = "howlerLogin",
    request_body = HowlerLoginIn,
    responses(
        (status = 200, description = "The token", body = Envelope<HowlerLoginOut>),
        (status = 400, description = "Two ways at once, or no such provider", body = Envelope<Nothing>),
        (status = 401, description = "Not enough, not good, or locked after too many failures; see `Retry-After`", body = Envelope<Nothing>),
        (status = 403, description = "The key is one for impersonation", body = Envelope<Nothing>),
        (status = 404, description = "This tenant does not speak so", body = crate::problem::Problem),
    ),
    security(()),
)]
#[post("/api/v1/auth/login{slash:/?}")]
pub(crate) async fn log_in(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<Howler>,
    body: Body<HowlerLoginIn>,
) -> Answered<HttpResponse> {
    let tenant = &speaks.tenant;
    let login = async {
        let HowlerLoginIn { user, password, apikey, oauth_provider, provider, refresh_token } = body.take()?;
        let not_enough = || Answer::unauthorized("invalid_request", "Not enough information to proceed with authentication");
        let invalid = "Invalid login information";
        let proof = match (password, apikey, refresh_token) {
            (Some(_), Some(_), _) => return Err(Answer::bad_request("Cannot specify password and API key.")),
            (Some(password), None, _) => AppProof::Password(password),
            (None, Some(apikey), _) => match apikey.expose_secret().split_once(':') {
                Some((name, secret)) => AppProof::Key { name: name.to_owned(), secret: SecretString::from(secret) },
                None => return Err(Answer::unauthorized("invalid_credentials", invalid)),
            },
            (None, None, Some(token)) => {
                let provider = oauth_provider.or(provider).ok_or_else(not_enough)?;
                return refreshed(&req, &issuer, tenant, &provider, &token).await;
            }
            (None, None, None) => return Err(not_enough()),
        };
        let user = user.ok_or_else(not_enough)?;
        match issuer.log_in_to_app(tenant, &user, proof, &request_info(&req)).await? {
            Ok(login) => Ok(HowlerLoginOut::of(tenant, &login)),
            Err(denied) => Err(refused(tenant, &denied, invalid)),
        }
    };
    login.await.map(answered).map_err(said)
}

async fn refreshed(
    req: &HttpRequest,
    issuer: &Issuer,
    tenant: &TenantEntry,
    provider: &str,
    token: &SecretString,
) -> Answered<HowlerLoginOut> {
    check_provider(issuer, tenant, provider).await?;
    let refresh = Refresh {
        tenant: Some(tenant),
        token,
        client: None,
        scope: None,
        resource: None,
        as_usual: true,
        request: request_info(req),
    };
    match issuer.refresh_upstream(provider, refresh).await {
        Ok(tokens) => Ok(HowlerLoginOut::through(tenant, provider, tokens)),
        Err(Failure::Refusal(Refusal::NotFound)) => Err(no_provider()),
        Err(failure) => Err(failure.into()),
    }
}

fn no_provider() -> Answer {
    Answer::bad_request("There is no OAuth provider of this name.")
}

/// Refuses a provider that people cannot log in through.
async fn check_provider(issuer: &Issuer, tenant: &TenantEntry, provider: &str) -> Answered<()> {
    let offered = issuer.offered_connections(tenant.tenant.id).await?;
    match offered.iter().any(|(name, _)| name == provider) {
        true => Ok(()),
        false if offered.is_empty() => Err(Answer::bad_request("OAuth is disabled.")),
        false => Err(no_provider()),
    }
}

/// Through which provider, or what it sent back (RFC 6749 §4.1.2). Other parameters are ignored.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HowlerLoginQuery {
    /// The connection's name.
    #[param(example = "keycloak")]
    provider: Option<String>,
    /// To be exchanged.
    code: Option<String>,
    /// As it was sent there.
    state: Option<String>,
    /// Why there is no code.
    error: Option<String>,
    /// Who answers.
    iss: Option<String>,
    /// Refused here: send it with POST.
    #[param(value_type = Option<String>)]
    user: Option<SecretString>,
    /// Refused here: send it with POST.
    #[param(value_type = Option<String>)]
    password: Option<SecretString>,
    /// Refused here: send it with POST.
    #[param(value_type = Option<String>)]
    apikey: Option<SecretString>,
    /// Refused here: send it with POST.
    #[param(value_type = Option<String>)]
    refresh_token: Option<SecretString>,
}

/// Log in through a provider
///
/// Leads the browser to the provider, and takes what it brings back from there.
#[utoipa::path(
    tag = "Dialects",
    path = "/api/v1/auth/login",
    operation_id = "howlerLoginThroughProvider",
    params(HowlerLoginQuery),
    responses(
        (status = 200, description = "Back from the provider: the tokens", body = Envelope<HowlerLoginOut>),
        (status = 302, description = "On to the provider"),
        (status = 400, description = "OAuth is disabled, there is no such provider, or credentials stand in the address", body = Envelope<Nothing>),
        (status = 401, description = "The provider refused, or its answer belongs to no login that this browser began", body = Envelope<Nothing>),
        (status = 403, description = "A group is missing, or there is no account and none is made", body = Envelope<Nothing>),
        (status = 404, description = "This tenant does not speak so", body = crate::problem::Problem),
        (status = 429, description = "Too many logins were begun; see `Retry-After`", body = Envelope<Nothing>),
    ),
    security(()),
)]
#[get("/api/v1/auth/login{slash:/?}")]
pub(crate) async fn go_or_come_back(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<Howler>,
    query: Asked<HowlerLoginQuery>,
) -> Answered<HttpResponse> {
    let tenant = &speaks.tenant;
    let done = async {
        let query = query.take()?;
        if [&query.user, &query.password, &query.apikey, &query.refresh_token].iter().any(|one| one.is_some()) {
            return Err(Answer::bad_request(
                "Credentials do not belong into an address, where they are logged: send them with POST.",
            ));
        }
        let Some(provider) = &query.provider else {
            return Err(Answer::bad_request("Name a provider to log in through, or send credentials with POST."));
        };
        check_provider(&issuer, tenant, provider).await?;
        match query.state.is_some() || query.code.is_some() || query.error.is_some() {
            true => come_back(&req, &issuer, tenant, provider, &query).await.map(answered),
            false => go(&req, &issuer, tenant, provider).await,
        }
    };
    done.await.map_err(said)
}

fn place(tenant: &Arc<TenantEntry>) -> Place {
    Place { base: format!("/t/{}", tenant.tenant.slug), tenant: tenant.clone() }
}

async fn go(req: &HttpRequest, issuer: &Issuer, tenant: &Arc<TenantEntry>, provider: &str) -> Answered<HttpResponse> {
    let place = place(tenant);
    let (browser, fresh) = place.binding(issuer, req);
    let beginning = Beginning {
        tenant,
        connection: provider,
        redirect_uri: dialect_of(tenant).redirect_uri(&tenant.issuer, provider),
        browser: &browser,
        purpose: Purpose::Tokens,
        return_to: None,
        request: &request_info(req),
    };
    let url = issuer.begin_upstream(beginning).await?;
    let mut response = HttpResponse::Found();
    response.insert_header((header::LOCATION, url.as_str()));
    if fresh {
        response.cookie(place.cookies().set_form(&browser));
    }
    Ok(response.finish())
}

async fn come_back(
    req: &HttpRequest,
    issuer: &Issuer,
    tenant: &Arc<TenantEntry>,
    provider: &str,
    query: &HowlerLoginQuery,
) -> Answered<HowlerLoginOut> {
    let browser = place(tenant).cookies().form(req);
    let request = request_info(req);
    let returned = Returned {
        tenant,
        connection: provider,
        redirect_uri: dialect_of(tenant).redirect_uri(&tenant.issuer, provider),
        browser: browser.as_deref(),
        state: query.state.as_deref(),
        code: query.code.as_deref(),
        error: query.error.as_deref(),
        iss: query.iss.as_deref(),
        signed_in: None,
        request: &request,
    };
    let arrived = match issuer.finish_upstream(returned).await {
        Ok(arrived) => arrived,
        Err(Failure::Refusal(Refusal::Upstream(declined))) => {
            let answer = Answer::from(declined);
            return Err(match declined {
                Declined::State => Answer::unauthorized(answer.error(), answer.detail()),
                Declined::NoAccount => answer.saying("User auto-creation is disabled."),
                _ => answer,
            });
        }
        Err(failure) => return Err(failure.into()),
    };
    let tokens = issuer.open_arrived_as_usual(tenant, arrived, &request).await?;
    Ok(HowlerLoginOut::through(tenant, provider, tokens))
}

/// Log out
///
/// Ends the login that an app token, or the JWT of a login, came from.
#[utoipa::path(
    tag = "Dialects",
    path = "/api/v1/auth/logout",
    operation_id = "howlerLogout",
    responses(
        (status = 200, description = "It has ended", body = Envelope<Nothing>),
        (status = 400, description = "What was sent is not a token of a login", body = Envelope<Nothing>),
        (status = 401, description = "No token, or none that holds", body = Envelope<Nothing>),
        (status = 404, description = "This tenant does not speak so", body = crate::problem::Problem),
    ),
    security(("bearer" = [])),
)]
#[post("/api/v1/auth/logout{slash:/?}")]
pub(crate) async fn log_out(req: HttpRequest, issuer: Data<Issuer>, speaks: Speaks<Howler>) -> Answered<HttpResponse> {
    let tenant = &speaks.tenant;
    let ended = async {
        let header = req.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(SecretString::from);
        let header = header.ok_or_else(|| refused(tenant, &Denied::NoCredential, ""))?;
        let request = request_info(&req);
        match shown(&header, &issuer.settings().brand, false) {
            Shown::AppToken(token, _) => issuer.end_app_token(tenant, &token, &request).await?,
            Shown::Token(token) => {
                let caller = issuer.authenticate_as_usual(Some(tenant), Presented::Token(token), request).await?;
                if caller.acting.is_some() {
                    return Err(Refusal::ActingForAnother.into());
                }
                issuer.log_out(&caller).await?;
            }
            Shown::Basic(_) | Shown::Pair(_) | Shown::Unreadable => {
                return Err(Answer::bad_request("Only an app token or the token of a login can be logged out."));
            }
        }
        Ok(answered(Nothing))
    };
    ended.await.map_err(|answer: Answer| match answer.error() {
        "invalid_token" => said(answer.saying("Invalid token")),
        _ => said(answer),
    })
}

/// Somebody, as Howler knows them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WhoAmI {
    avatar: Option<String>,
    #[schema(example = "TLP:W")]
    classification: Option<String>,
    #[schema(example = "user@howler.cyber.gc.ca")]
    email: Option<String>,
    #[schema(example = json!(["USERS"]))]
    groups: Vec<String>,
    is_active: bool,
    is_admin: bool,
    /// The name for people; the login name where there is none.
    #[schema(example = "User")]
    name: String,
    #[schema(example = json!(["user"]))]
    roles: Vec<String>,
    #[schema(example = "user")]
    username: String,
    /// Name, privileges and end of each key.
    #[schema(example = json!([["devkey", ["R", "W"], "2027-01-31T00:00:00Z"]]))]
    apikeys: Vec<(String, Vec<String>, Option<DateTime<Utc>>)>,
}

impl WhoAmI {
    fn of(tenant: &TenantEntry, known: Known) -> Self {
        let Known { user, attributes, keys } = known;
        let text = |name: &str| attributes.get(name).and_then(Value::as_str).map(str::to_owned);
        let apikeys = keys.into_iter().map(|key| {
            let mut letters = tenant.privileges(&ScopeSet::kept(&key.scopes)).unwrap_or_default();
            letters.extend(key.agents.is_some().then(|| LENT_LETTER.to_owned()));
            (key.name, letters, key.expires_at)
        });
        Self {
            avatar: text("avatar"),
            classification: text("classification"),
            groups: groups(&attributes),
            is_active: user.status.is_active(),
            is_admin: user.roles.iter().any(|role| role == ADMIN),
            name: text("name").unwrap_or_else(|| user.username.clone()),
            apikeys: apikeys.collect(),
            email: user.email,
            roles: user.roles,
            username: user.username,
        }
    }
}

/// A list, or the one there is.
fn groups(attributes: &Attributes) -> Vec<String> {
    match attributes.get("groups").and_then(Value::as_str) {
        Some(one) => vec![one.to_owned()],
        None => strings(attributes, "groups"),
    }
}

/// Who calls
///
/// With `X-Impersonating: Basic USER:KEY:SECRET`, for whom the caller acts. Needs R.
#[utoipa::path(
    tag = "Dialects",
    path = "/api/v1/user/whoami",
    operation_id = "howlerWhoAmI",
    responses(
        (status = 200, description = "The person", body = Envelope<WhoAmI>),
        (status = 400, description = "A header is malformed", body = Envelope<Nothing>),
        (status = 401, description = "No credential, or none that holds", body = Envelope<Nothing>),
        (status = 403, description = "The privilege R is missing, or this is no key to act with", body = Envelope<Nothing>),
        (status = 404, description = "This tenant does not speak so", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("basic" = [])),
)]
#[get("/api/v1/user/whoami{slash:/?}")]
pub(crate) async fn who_am_i(req: HttpRequest, issuer: Data<Issuer>, speaks: Speaks<Howler>) -> Answered<HttpResponse> {
    let tenant = &speaks.tenant;
    let shown = async {
        let allowed = caller(&req, &issuer, tenant, "R").await?;
        Ok(answered(WhoAmI::of(tenant, issuer.known(tenant.tenant.id, &allowed).await?)))
    };
    shown.await.map_err(said)
}

/// Privileges: `"RW"` or `["R", "W"]`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Letters {
    Text(String),
    List(Vec<String>),
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "name": "ci", "priv": "RW", "expiry_date": "2027-01-31T00:00:00Z" }))]
pub(crate) struct HowlerKeyIn {
    /// 1 to 64 letters, digits, `_` and `-`.
    name: String,
    /// Some of R, W and E, or R and W with I, which makes a key that others act for its owner with.
    #[serde(rename = "priv")]
    letters: Letters,
    /// ISO 8601; without a zone it is UTC. Absent is as the tenant's settings say.
    expiry_date: Option<String>,
    /// Who may use it, by login name; with I.
    agents: Option<Vec<String>>,
}

/// A key and its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HowlerKeyOut {
    /// `NAME:SECRET`; the secret is shown this once.
    #[schema(example = "ci:cs_8sZyqk0sPn1tFJ9m5xQmT3vWcR7bL2dH6gK4jN0pX8aYuE1i9oVf")]
    apikey: String,
}

/// Whether the caller came with a JWT, and not with an app token.
fn bearer_is_jwt(req: &HttpRequest) -> bool {
    let header = req.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    header.and_then(|value| with_scheme(value, "bearer")).is_some_and(|token| !token.contains(':'))
}

/// A time in ISO 8601 as Howler's clients write it.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let naive = || text.parse::<NaiveDateTime>().map(|time| time.and_utc());
    let day = || text.parse::<NaiveDate>().map(|day| day.and_time(NaiveTime::MIN).and_utc());
    zoned.or_else(|_| naive()).or_else(|_| day()).ok()
}

/// Make a key of one's own
///
/// It can do no more than the caller. One with the privilege I is called `impersonate_NAME`. Needs E.
#[utoipa::path(
    tag = "Dialects",
    path = "/api/v1/auth/apikey",
    operation_id = "howlerMakeKey",
    request_body = HowlerKeyIn,
    responses(
        (status = 200, description = "The key and its secret", body = Envelope<HowlerKeyOut>),
        (status = 400, description = "Its name, privileges, agents or end cannot be so", body = Envelope<Nothing>),
        (status = 401, description = "No credential, or none that holds", body = Envelope<Nothing>),
        (status = 403, description = "The privilege E is missing, or the caller does not hold what the key would", body = Envelope<Nothing>),
        (status = 404, description = "This tenant does not speak so", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("basic" = [])),
)]
#[post("/api/v1/auth/apikey{slash:/?}")]
pub(crate) async fn make_key(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<Howler>,
    body: Body<HowlerKeyIn>,
) -> Answered<HttpResponse> {
    let tenant = &speaks.tenant;
    let made = async {
        let allowed = caller(&req, &issuer, tenant, "E").await?;
        let HowlerKeyIn { name, letters, expiry_date, agents } = body.take()?;
        let letters = match letters {
            Letters::Text(text) => text.chars().map(String::from).collect(),
            Letters::List(list) => list,
        };
        let expires_at = match expiry_date {
            Some(text) => Some(time(&text).ok_or_else(|| {
                Answer::bad_request("Invalid expiry date format: it is no time in ISO 8601, as 2030-01-31T12:00:00Z is.")
            })?),
            None => None,
        };
        // One that a token of a provider's login made may not outlive it, where the tenant says so.
        let strict = dialect_of(tenant).strict_apikeys && bearer_is_jwt(&req);
        let no_later_than = allowed.ends.filter(|_| strict).and_then(|end| DateTime::from_timestamp(end, 0));
        let wish = KeyWish { name, letters, agents, expires_at, no_later_than };
        match issuer.make_named_key(tenant, &allowed, wish, &request_info(&req)).await? {
            Ok((name, secret)) => Ok(answered(HowlerKeyOut { apikey: format!("{name}:{}", secret.expose_secret()) })),
            Err(why) => Err(Answer::bad_request(why)),
        }
    };
    made.await.map_err(said)
}

/// Taken by name, because the path also holds the tenant.
#[derive(Deserialize)]
pub(crate) struct KeyNameInPath {
    name: String,
}

/// Remove a key of one's own
///
/// It can be used no more, nor what was got with it. Needs E.
#[utoipa::path(
    tag = "Dialects",
    path = "/api/v1/auth/apikey/{name}",
    operation_id = "howlerRemoveKey",
    params(("name" = String, Path, description = "The key's name", example = "ci")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 401, description = "No credential, or none that holds", body = Envelope<Nothing>),
        (status = 403, description = "The privilege E is missing", body = Envelope<Nothing>),
        (status = 404, description = "There is no such key, or this tenant does not speak so", content((Envelope<Nothing> = "application/json"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(("bearer" = []), ("basic" = [])),
)]
#[delete("/api/v1/auth/apikey/{name}{slash:/?}")]
pub(crate) async fn remove_key(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<Howler>,
    path: Path<KeyNameInPath>,
) -> Answered<HttpResponse> {
    let tenant = &speaks.tenant;
    let removed = async {
        let allowed = caller(&req, &issuer, tenant, "E").await?;
        match issuer.revoke_named_key(tenant, &allowed, &path.name, &request_info(&req)).await {
            Ok(()) => Ok(HttpResponse::NoContent().finish()),
            Err(Failure::Refusal(Refusal::NotFound)) => Err(Answer::not_found().saying("Api key does not exist")),
            Err(failure) => Err(failure.into()),
        }
    };
    removed.await.map_err(said)
}

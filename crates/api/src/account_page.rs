//! What somebody who is signed in sees and does about their own account, in a browser.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, get, post};
use claviger_issuer::account::LoginKind;
use claviger_issuer::caller::Caller;
use claviger_issuer::{Failure, Issuer};
use claviger_store::id::UserId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::body::FormBody;
use crate::caller::request_info;
use crate::cookies::from_here;
use crate::login_page::{Place, PlainForm};
use crate::pages::{AccountPage, MessagePage, Moment, SessionLine, respond};
use crate::problem::{Answer, Answered};
use crate::v1::logins::current;

/// Which login to end.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct EndForm {
    id: String,
    /// Binds the form to the browser that it was shown in.
    #[serde(default)]
    csrf: String,
}

/// The old and the new password.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PasswordForm {
    #[schema(value_type = String, format = Password)]
    current_password: SecretString,
    #[schema(value_type = String, format = Password)]
    new_password: SecretString,
    /// Binds the form to the browser that it was shown in.
    #[serde(default)]
    csrf: String,
}

/// Somebody who is signed in, and where.
struct Visit {
    place: Place,
    cookie: SecretString,
    caller: Caller,
    user: UserId,
}

impl Visit {
    /// `Err` holds the way to the login page, or the refusal of what another site sent.
    async fn of(req: &HttpRequest, issuer: &Issuer) -> Answered<Result<Self, HttpResponse>> {
        let place = Place::of(req).await?;
        if !req.method().is_safe() && !from_here(req, &issuer.settings().origin()) {
            let account = format!("{}/account", place.base);
            return Ok(Err(place.stale(&account)?));
        }
        let login = place.go(&format!("{0}/login?return_to={0}/account", place.base)).finish();
        let Some(cookie) = place.cookies().session(req) else { return Ok(Err(login)) };
        let caller = match issuer.signed_in(&place.tenant, &cookie, request_info(req)).await {
            Ok(caller) => caller,
            Err(Failure::Refusal(_)) => return Ok(Err(login)),
            Err(failure) => return Err(failure.into()),
        };
        let user = caller.person()?.user().map_err(Failure::from)?.id;
        Ok(Ok(Self { place, cookie, caller, user }))
    }

    fn admits(&self, req: &HttpRequest, issuer: &Issuer, token: &str) -> bool {
        self.place.admits(req, issuer, Some(self.cookie.expose_secret()), token)
    }

    fn tenant(&self) -> claviger_store::id::TenantId {
        self.place.tenant.tenant.id
    }

    fn account(&self) -> String {
        format!("{}/account", self.place.base)
    }

    async fn page(&self, issuer: &Issuer, status: StatusCode, problem: Option<&str>) -> Answered<HttpResponse> {
        let user = issuer.own_user(&self.caller).await?;
        let logins = issuer.logins(self.tenant(), self.user).await?;
        let own = current(&self.caller);
        let line = |login: claviger_issuer::account::OpenLogin| SessionLine {
            id: login.id.to_string(),
            what: match login.kind {
                LoginKind::Session => "Browser",
                LoginKind::Tokens => "App",
            },
            agent: login.user_agent.unwrap_or_else(|| "unknown".to_owned()),
            begun: Moment::from(login.created_at),
            last_used: Moment::from(login.last_used_at),
            current: own == Some(login.id),
        };
        let policy = self.place.tenant.settings.password();
        let rule = format!(
            "{} to {} characters. A few words in a row make a good password. You are signed out everywhere when it changes.",
            policy.min_length, policy.max_length
        );
        let page = AccountPage {
            tenant_name: self.place.name(),
            base: &self.place.base,
            username: &user.username,
            email: user.email.as_deref(),
            token: &issuer.form_token(self.tenant(), self.cookie.expose_secret()),
            sessions: logins.into_iter().map(line).collect(),
            password_rule: &rule,
            notice: None,
            problem,
        };
        respond(status, &page)
    }

    /// After all logins were ended, this one too.
    fn gone(&self, title: &str, text: &str) -> Answered<HttpResponse> {
        let login = format!("{}/login", self.place.base);
        let page = MessagePage { tenant_name: Some(self.place.name()), title, text, link: Some((&login, "Sign in")) };
        let mut response = respond(StatusCode::OK, &page)?;
        response.add_cookie(&self.place.cookies().clear_session()).map_err(|_| Answer::internal())?;
        Ok(response)
    }
}

/// The account page
#[utoipa::path(
    tag = "Pages",
    operation_id = "showAccountPage",
    responses(
        (status = 200, description = "The page", content_type = "text/html", body = String),
        (status = 303, description = "Nobody is signed in: to the login page"),
    ),
    security(("session" = [])),
)]
#[get("/account")]
pub(crate) async fn show(req: HttpRequest, issuer: Data<Issuer>) -> Answered<HttpResponse> {
    match Visit::of(&req, &issuer).await? {
        Ok(visit) => visit.page(&issuer, StatusCode::OK, None).await,
        Err(login) => Ok(login),
    }
}

/// End one login, from the page
#[utoipa::path(
    tag = "Pages",
    operation_id = "endLoginFromPage",
    request_body(content = EndForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Ended: back to the page"),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
    ),
    security(("session" = [])),
)]
#[post("/account/end")]
pub(crate) async fn end(req: HttpRequest, issuer: Data<Issuer>, form: FormBody<EndForm>) -> Answered<HttpResponse> {
    let visit = match Visit::of(&req, &issuer).await? {
        Ok(visit) => visit,
        Err(login) => return Ok(login),
    };
    let EndForm { id, csrf } = form.take()?;
    if !visit.admits(&req, &issuer, &csrf) {
        return visit.place.stale(&visit.account());
    }
    if let Ok(id) = id.parse() {
        match issuer.end_login(visit.tenant(), &visit.caller.actor(), visit.user, id).await {
            // It has ended by itself meanwhile, which is what was wanted.
            Ok(()) | Err(Failure::Refusal(_)) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(visit.place.go(&visit.account()).finish())
}

/// Sign out everywhere, from the page
#[utoipa::path(
    tag = "Pages",
    operation_id = "endAllLoginsFromPage",
    request_body(content = PlainForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Nobody is signed in: to the login page"),
        (status = 200, description = "Signed out everywhere", content_type = "text/html", body = String),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
    ),
    security(("session" = [])),
)]
#[post("/account/end-all")]
pub(crate) async fn end_all(req: HttpRequest, issuer: Data<Issuer>, form: FormBody<PlainForm>) -> Answered<HttpResponse> {
    let visit = match Visit::of(&req, &issuer).await? {
        Ok(visit) => visit,
        Err(login) => return Ok(login),
    };
    if !visit.admits(&req, &issuer, &form.take()?.csrf) {
        return visit.place.stale(&visit.account());
    }
    issuer.end_all_logins(visit.tenant(), &visit.caller.actor(), visit.user).await?;
    visit.gone("You are signed out everywhere", "All browsers and apps that were signed in as you have to sign in again.")
}

/// Change one's password, from the page
#[utoipa::path(
    tag = "Pages",
    operation_id = "changePasswordFromPage",
    request_body(content = PasswordForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Nobody is signed in: to the login page"),
        (status = 200, description = "Changed, and signed out everywhere", content_type = "text/html", body = String),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
        (status = 422, description = "The page again, with what is wrong", content_type = "text/html", body = String),
    ),
    security(("session" = [])),
)]
#[post("/account/password")]
pub(crate) async fn change_password(
    req: HttpRequest,
    issuer: Data<Issuer>,
    form: FormBody<PasswordForm>,
) -> Answered<HttpResponse> {
    let visit = match Visit::of(&req, &issuer).await? {
        Ok(visit) => visit,
        Err(login) => return Ok(login),
    };
    let PasswordForm { current_password, new_password, csrf } = form.take()?;
    if !visit.admits(&req, &issuer, &csrf) {
        return visit.place.stale(&visit.account());
    }
    let device = visit.place.cookies().device(&req);
    match issuer.change_own_password(&visit.caller, current_password, new_password, device.as_deref()).await {
        Ok(()) => visit.gone(
            "Your password is changed",
            "All browsers and apps that were signed in as you have to sign in again, with the new password.",
        ),
        Err(failure @ Failure::Refusal(_)) => {
            let answer = Answer::from(failure);
            visit.page(&issuer, answer.status(), Some(&for_people(answer.detail()))).await
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Field names as the page names them.
fn for_people(detail: &str) -> String {
    detail.replace("`current_password`", "The current password").replace("`new_password`", "The new password")
}

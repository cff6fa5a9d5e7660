//! What somebody who is signed in sees and does about their own account, in a browser.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, get, post};
use claviger_issuer::account::LoginKind;
use claviger_issuer::caller::{Caller, Login};
use claviger_issuer::upstream::{Beginning, Purpose};
use claviger_issuer::{Failure, Issuer};
use claviger_store::connection::Link;
use claviger_store::id::UserId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::body::FormBody;
use crate::caller::request_info;
use crate::cookies::from_here;
use crate::login_page::{Place, PlainForm};
use crate::pages::{AccountPage, MessagePage, Moment, SessionLine, WayLine, respond};
use crate::problem::{Answer, Answered};
use crate::upstream_pages::refused;
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

/// What was wrong, and at which form.
enum Wrong<'a> {
    Password(&'a str),
    Link(&'a str),
}

/// Which connection to link or unlink, with a fresh proof of who asks.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct LinkForm {
    /// The connection's name.
    #[serde(default)]
    connection: String,
    #[schema(value_type = String, format = Password)]
    current_password: SecretString,
    /// Binds the form to the browser that it was shown in.
    #[serde(default)]
    csrf: String,
}

fn way_of(link: Link) -> WayLine {
    let known_as = link.profile.get("username").and_then(serde_json::Value::as_str).map_or(link.subject, str::to_owned);
    WayLine { name: link.connection_name, title: link.connection_title, known_as: Some(known_as) }
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

    /// Somebody who is signed in and proved it once more, and the connection that they name. `Err` holds what else to show.
    async fn with_proof(
        req: &HttpRequest,
        issuer: &Issuer,
        form: FormBody<LinkForm>,
    ) -> Answered<Result<(Self, String), HttpResponse>> {
        let visit = match Self::of(req, issuer).await? {
            Ok(visit) => visit,
            Err(login) => return Ok(Err(login)),
        };
        let LinkForm { connection, current_password, csrf } = form.take()?;
        if !visit.admits(req, issuer, &csrf) {
            return Ok(Err(visit.place.stale(&visit.account())?));
        }
        let device = visit.place.cookies().device(req);
        match issuer.prove_own_password(&visit.caller, current_password, device.as_deref()).await {
            Ok(()) => Ok(Ok((visit, connection))),
            Err(failure @ Failure::Refusal(_)) => {
                let answer = Answer::from(failure);
                let problem = for_people(answer.detail());
                Ok(Err(visit.page(issuer, answer.status(), Some(Wrong::Link(&problem))).await?))
            }
            Err(failure) => Err(failure.into()),
        }
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

    async fn page(&self, issuer: &Issuer, status: StatusCode, problem: Option<Wrong<'_>>) -> Answered<HttpResponse> {
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
        let links = issuer.links_of(self.tenant(), self.user).await?;
        let mut ways: Vec<_> = links.into_iter().map(way_of).collect();
        for (name, title) in issuer.offered_connections(self.tenant()).await? {
            if ways.iter().all(|way| way.name != name) {
                ways.push(WayLine { name, title, known_as: None });
            }
        }
        ways.sort_by(|one, other| one.name.cmp(&other.name));
        let (problem, link_problem) = match problem {
            Some(Wrong::Password(problem)) => (Some(problem), None),
            Some(Wrong::Link(problem)) => (None, Some(problem)),
            None => (None, None),
        };
        let page = AccountPage {
            tenant_name: self.place.name(),
            base: &self.place.base,
            username: &user.username,
            email: user.email.as_deref(),
            token: &issuer.form_token(self.tenant(), self.cookie.expose_secret()),
            sessions: logins.into_iter().map(line).collect(),
            password_rule: &rule,
            ways,
            notice: None,
            problem,
            link_problem,
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
            visit.page(&issuer, answer.status(), Some(Wrong::Password(&for_people(answer.detail())))).await
        }
        Err(failure) => Err(failure.into()),
    }
}

/// Link one's account, from the page
///
/// With the password. Whoever comes back from the provider must be signed in here as whoever began.
#[utoipa::path(
    tag = "Pages",
    operation_id = "linkFromPage",
    request_body(content = LinkForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The way on to the provider", content_type = "text/html", body = String),
        (status = 303, description = "Nobody is signed in: to the login page"),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
        (status = 404, description = "There is no such connection to a provider", body = crate::problem::Problem),
        (status = 422, description = "The page again, with what is wrong", content_type = "text/html", body = String),
        (status = 429, description = "The page again: too many failures", content_type = "text/html", body = String),
        (status = 503, description = "The provider gives no answer of use", content_type = "text/html", body = String),
    ),
    security(("session" = [])),
)]
#[post("/account/link")]
pub(crate) async fn link_account(req: HttpRequest, issuer: Data<Issuer>, form: FormBody<LinkForm>) -> Answered<HttpResponse> {
    let (visit, connection) = match Visit::with_proof(&req, &issuer, form).await? {
        Ok(proven) => proven,
        Err(response) => return Ok(response),
    };
    let Some(Login::Session(session)) = visit.caller.person()?.login else { return Err(Answer::internal()) };
    let (browser, fresh) = visit.place.binding(&issuer, &req);
    let beginning = Beginning {
        tenant: &visit.place.tenant,
        connection: &connection,
        redirect_uri: Issuer::redirect_uri(&visit.place.tenant, &connection),
        browser: &browser,
        purpose: Purpose::Link(visit.user, session),
        return_to: None,
        request: &request_info(&req),
    };
    let url = match issuer.begin_upstream(beginning).await {
        Ok(url) => url,
        Err(Failure::Refusal(claviger_issuer::Refusal::NotFound)) => return Err(Answer::not_found()),
        Err(failure) => return refused(&visit.place, &req, failure.into()),
    };
    // Not a redirect: a browser would not follow one from a form to another site, which our policy forbids.
    let page = MessagePage {
        tenant_name: Some(visit.place.name()),
        title: "Go on to link your account",
        text: "Sign in there as who you are to be here. You come back to your account page.",
        link: Some((url.as_str(), "Continue")),
    };
    let mut response = respond(StatusCode::OK, &page)?;
    if fresh {
        response.add_cookie(&visit.place.cookies().set_form(&browser)).map_err(|_| Answer::internal())?;
    }
    Ok(response)
}

/// Unlink one's account, from the page
///
/// With the password. One's logins that came from there end.
#[utoipa::path(
    tag = "Pages",
    operation_id = "unlinkFromPage",
    request_body(content = LinkForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Unlinked: back to the page; or nobody is signed in: to the login page"),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
        (status = 404, description = "There is no such link", body = crate::problem::Problem),
        (status = 422, description = "The page again, with what is wrong", content_type = "text/html", body = String),
        (status = 429, description = "The page again: too many failures", content_type = "text/html", body = String),
    ),
    security(("session" = [])),
)]
#[post("/account/unlink")]
pub(crate) async fn unlink_account(req: HttpRequest, issuer: Data<Issuer>, form: FormBody<LinkForm>) -> Answered<HttpResponse> {
    let (visit, connection) = match Visit::with_proof(&req, &issuer, form).await? {
        Ok(proven) => proven,
        Err(response) => return Ok(response),
    };
    let connection = issuer.find_connection_by_name(visit.tenant(), &connection).await?.row.id;
    issuer.unlink(visit.tenant(), &visit.caller.actor(), visit.user, connection).await?;
    Ok(visit.place.go(&visit.account()).finish())
}

/// Field names as the page names them.
fn for_people(detail: &str) -> String {
    detail.replace("`current_password`", "The current password").replace("`new_password`", "The new password")
}

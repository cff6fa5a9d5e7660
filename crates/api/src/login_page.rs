//! Signing in and out in a browser. Works without a script.

use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, get, post};
use claviger_issuer::login::Login;
use claviger_issuer::{Issuer, TenantEntry};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use std::sync::Arc;
use url::form_urlencoded;
use utoipa::{IntoParams, ToSchema};

use crate::body::{Asked, FormBody};
use crate::caller::{path_tenant, request_info};
use crate::cookies::{Cookies, from_here};
use crate::dialects::clustercockpit;
use crate::pages::{LoginPage, LogoutPage, MessagePage, respond};
use crate::problem::{Answer, Answered};
use crate::v1::logout::CLEAR_SITE_DATA;

/// Longest return target, in bytes.
const LONGEST_TARGET: usize = 2048;

/// Where to go after signing in.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LoginQuery {
    /// A path on this server, to be shown after signing in; anything else is ignored.
    #[param(example = "/t/acme/account")]
    return_to: Option<String>,
}

/// The form of the login page.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct LoginForm {
    #[serde(default)]
    pub(crate) username: String,
    #[schema(value_type = String, format = Password)]
    pub(crate) password: SecretString,
    return_to: Option<String>,
    /// As ClusterCockpit's own form calls `return_to`, where the tenant speaks its dialect.
    pub(crate) redirect: Option<String>,
    /// Binds the form to the browser that it was shown in.
    #[serde(default)]
    csrf: String,
}

/// A form that only says that it comes from our page.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PlainForm {
    /// Binds the form to the browser that it was shown in.
    #[serde(default)]
    pub(crate) csrf: String,
}

/// What every page needs to know.
pub(crate) struct Place {
    pub(crate) tenant: Arc<TenantEntry>,
    /// `/t/{slug}`.
    pub(crate) base: String,
}

impl Place {
    pub(crate) async fn of(req: &HttpRequest) -> Answered<Self> {
        let tenant = path_tenant(req).await?.ok_or_else(Answer::not_found)?;
        let base = format!("/t/{}", tenant.tenant.slug);
        Ok(Self { tenant, base })
    }

    pub(crate) fn cookies(&self) -> Cookies<'_> {
        Cookies::of(&self.tenant.tenant.slug)
    }

    pub(crate) fn name(&self) -> &str {
        &self.tenant.tenant.name
    }

    /// A form counts when it comes from our own page and was shown to whoever holds `cookie`.
    pub(crate) fn admits(&self, req: &HttpRequest, issuer: &Issuer, cookie: Option<&str>, token: &str) -> bool {
        from_here(req, &issuer.settings().origin())
            && cookie.is_some_and(|cookie| issuer.is_form_token(self.tenant.tenant.id, cookie, token))
    }

    /// Says that a form is too old, or not ours.
    pub(crate) fn stale(&self, to: &str) -> Answered<HttpResponse> {
        let page = MessagePage {
            tenant_name: Some(self.name()),
            title: "That did not come from this page",
            text: "The form was sent from elsewhere, or it was open for too long. Nothing was done.",
            link: Some((to, "Try it again here")),
        };
        respond(StatusCode::FORBIDDEN, &page)
    }

    /// To another of our pages (303: whatever was sent is not sent again).
    pub(crate) fn go(&self, to: &str) -> actix_web::HttpResponseBuilder {
        let mut response = HttpResponse::SeeOther();
        response.insert_header((header::LOCATION, to));
        response
    }

    /// What forms and logins of this browser are bound to, before anybody is signed in; and whether it must be told so.
    pub(crate) fn binding(&self, issuer: &Issuer, req: &HttpRequest) -> (String, bool) {
        let before = self.cookies().form(req).filter(|cookie| (16..=64).contains(&cookie.len()));
        let fresh = before.is_none();
        (before.unwrap_or_else(|| issuer.new_form_binding()), fresh)
    }

    /// A page with a form that is bound to this browser, for whoever is not signed in.
    pub(crate) fn with_form(
        &self,
        issuer: &Issuer,
        req: &HttpRequest,
        page: impl FnOnce(&str) -> Answered<HttpResponse>,
    ) -> Answered<HttpResponse> {
        let cookies = self.cookies();
        let (cookie, fresh) = self.binding(issuer, req);
        let mut response = page(&issuer.form_token(self.tenant.tenant.id, &cookie))?;
        if fresh {
            response.add_cookie(&cookies.set_form(&cookie)).map_err(|_| Answer::internal())?;
        }
        Ok(response)
    }
}

impl Place {
    pub(crate) async fn login_page(&self, issuer: &Issuer, req: &HttpRequest, shown: &Shown<'_>) -> Answered<HttpResponse> {
        let connections = issuer.offered_connections(self.tenant.tenant.id).await?;
        let more = shown
            .return_to
            .map(|to| form_urlencoded::Serializer::for_suffix("?".to_owned(), 1).append_pair("return_to", to).finish());
        let more = more.unwrap_or_default();
        let connections =
            connections.into_iter().map(|(name, title)| (format!("{}/login/{name}{more}", self.base), title)).collect();
        self.with_form(issuer, req, |token| {
            let page = LoginPage {
                tenant_name: self.name(),
                action: &format!("{}/login", self.base),
                username: shown.username,
                token,
                target: shown.return_to.map(|target| ("return_to", target)),
                problem: shown.problem,
                connections,
            };
            respond(shown.status, &page)
        })
    }
}

/// What the login page shows.
pub(crate) struct Shown<'a> {
    pub(crate) status: StatusCode,
    pub(crate) username: &'a str,
    pub(crate) return_to: Option<&'a str>,
    pub(crate) problem: Option<&'a str>,
}

/// A target that cannot lead away: a path of ours.
pub(crate) fn safe_target(target: &str) -> Option<&str> {
    let plain = target.len() <= LONGEST_TARGET && target.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    let relative = target.starts_with('/') && !target.starts_with("//");
    // Once more as a browser will read it.
    let here = url::Url::parse("https://here.invalid/").ok()?;
    let stays = here.join(target).is_ok_and(|url| url.origin() == here.origin());
    (plain && relative && stays).then_some(target)
}

/// The login page
#[utoipa::path(
    tag = "Pages",
    operation_id = "showLoginPage",
    params(LoginQuery),
    responses(
        (status = 200, description = "The page", content_type = "text/html", body = String),
        (status = 303, description = "Somebody is signed in already: on to the target"),
    ),
    security(()),
)]
#[get("/login")]
pub(crate) async fn show(req: HttpRequest, issuer: Data<Issuer>, query: Asked<LoginQuery>) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    let return_to = query.take().ok().and_then(|query| query.return_to);
    let target = return_to.as_deref().and_then(safe_target);
    if let Some(cookie) = place.cookies().session(&req)
        && issuer.signed_in(&place.tenant, &cookie, request_info(&req)).await.is_ok()
    {
        let to = target.map_or_else(|| format!("{}/account", place.base), str::to_owned);
        return Ok(place.go(&to).finish());
    }
    place.login_page(&issuer, &req, &Shown { status: StatusCode::OK, username: "", return_to: target, problem: None }).await
}

/// Sign in with a password
#[utoipa::path(
    tag = "Pages",
    operation_id = "signIn",
    request_body(content = LoginForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 303, description = "Signed in, with a new session cookie: on to the target"),
        (status = 302, description = "The same to a form in ClusterCockpit's dialect"),
        (status = 401, description = "The page again: username or password is wrong", content_type = "text/html", body = String),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
        (status = 429, description = "The page again: too many failures; see `Retry-After`", content_type = "text/html", body = String),
    ),
    security(()),
)]
#[post("/login")]
pub(crate) async fn sign_in(req: HttpRequest, issuer: Data<Issuer>, form: FormBody<LoginForm>) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    let form = form.take()?;
    if form.csrf.is_empty() && clustercockpit::is_spoken_by(&place.tenant) {
        return clustercockpit::sign_in(&req, &issuer, &place, form).await;
    }
    let LoginForm { username, password, return_to, redirect: _, csrf } = form;
    let cookies = place.cookies();
    if !place.admits(&req, &issuer, cookies.form(&req).as_deref(), &csrf) {
        return place.stale(&format!("{}/login", place.base));
    }
    let target = return_to.as_deref().and_then(safe_target);
    let device = cookies.device(&req);
    let login = Login {
        tenant: &place.tenant,
        username: &username,
        password,
        scope: None,
        client: None,
        device: device.as_deref(),
        request: request_info(&req),
    };
    let begun = match issuer.begin_session(login, cookies.session(&req).as_ref()).await {
        Ok(begun) => begun,
        Err(failure) => {
            let answer = Answer::from(failure);
            if let Some(fault) = answer.fault() {
                if answer.retry_after().is_none() {
                    return Err(answer);
                }
                // The border logs what it sees; of a page it does not see why.
                tracing::error!(request.id = %request_info(&req).id, error = %fault, "nobody could be signed in");
            }
            let shown = Shown { status: answer.status(), username: &username, return_to: target, problem: Some(answer.detail()) };
            let mut page = place.login_page(&issuer, &req, &shown).await?;
            if let Some(seconds) = answer.retry_after() {
                page.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
            }
            return Ok(page);
        }
    };
    let to = target.map_or_else(|| format!("{}/account", place.base), str::to_owned);
    Ok(place.go(&to).cookie(cookies.set_session(&begun.cookie, begun.lasts)).cookie(cookies.set_device(&begun.device)).finish())
}

/// Ask whether to sign out
#[utoipa::path(
    tag = "Pages",
    operation_id = "askToSignOut",
    responses((status = 200, description = "The question", content_type = "text/html", body = String)),
    security(()),
)]
#[get("/logout")]
pub(crate) async fn ask_to_sign_out(req: HttpRequest, issuer: Data<Issuer>) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    ask(&place, &req, &issuer).await
}

/// The question, to whoever is signed in; otherwise that nobody is.
async fn ask(place: &Place, req: &HttpRequest, issuer: &Issuer) -> Answered<HttpResponse> {
    let Some(cookie) = place.cookies().session(req) else { return nobody(place) };
    let Ok(caller) = issuer.signed_in(&place.tenant, &cookie, request_info(req)).await else { return signed_out(place) };
    let token = issuer.form_token(place.tenant.tenant.id, cookie.expose_secret());
    let page = LogoutPage { tenant_name: place.name(), base: &place.base, username: caller.principal.username(), token: &token };
    respond(StatusCode::OK, &page)
}

/// Says that nobody is signed in, and touches no cookie: a request from another site comes without ours, and must not be
/// answered in a way that removes it.
fn nobody(place: &Place) -> Answered<HttpResponse> {
    let login = format!("{}/login", place.base);
    let page = MessagePage {
        tenant_name: Some(place.name()),
        title: "You are signed out",
        text: "Nobody is signed in here in this browser.",
        link: Some((&login, "Sign in")),
    };
    respond(StatusCode::OK, &page)
}

/// The same to a browser whose cookie is worth nothing any more.
fn signed_out(place: &Place) -> Answered<HttpResponse> {
    let mut response = nobody(place)?;
    response.add_cookie(&place.cookies().clear_session()).map_err(|_| Answer::internal())?;
    Ok(response)
}

/// Sign out
///
/// Sent without the token of our own page, it asks first; sent from another site, it leads to the question.
#[utoipa::path(
    tag = "Pages",
    operation_id = "signOut",
    request_body(content = PlainForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "Signed out, or the question whether to", content_type = "text/html", body = String),
        (status = 403, description = "The request came from another site", content_type = "text/html", body = String),
    ),
    security(()),
)]
#[post("/logout")]
pub(crate) async fn sign_out(req: HttpRequest, issuer: Data<Issuer>, form: FormBody<PlainForm>) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    if !from_here(&req, &issuer.settings().origin()) {
        return place.stale(&format!("{}/logout", place.base));
    }
    if clustercockpit::is_spoken_by(&place.tenant)
        && let Some(cookie) = clustercockpit::session_cookie(&req)
    {
        return clustercockpit::sign_out(&req, &issuer, &place, &cookie).await;
    }
    let Some(cookie) = place.cookies().session(&req) else { return nobody(&place) };
    let token = form.take().map(|form| form.csrf).unwrap_or_default();
    if !place.admits(&req, &issuer, Some(cookie.expose_secret()), &token) {
        return ask(&place, &req, &issuer).await;
    }
    match issuer.signed_in(&place.tenant, &cookie, request_info(&req)).await {
        Ok(caller) => issuer.log_out(&caller).await?,
        Err(claviger_issuer::Failure::Refusal(_)) => {}
        Err(failure) => return Err(failure.into()),
    }
    let mut response = signed_out(&place)?;
    let (name, value) = CLEAR_SITE_DATA;
    response.headers_mut().insert(header::HeaderName::from_static(name), header::HeaderValue::from_static(value));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p06_only_a_path_of_ours_is_a_target() {
        for good in ["/", "/jobs", "/t/acme/account?x=1#y", "/a/../b", "/%2f%2fevil.test"] {
            assert_eq!(safe_target(good), Some(good));
        }
        for bad in [
            "",
            "jobs",
            "//evil.test",
            "///evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "/\tevil.test",
            "/\t/evil.test",
            " /jobs",
            "https://evil.test",
            "javascript:alert(1)",
            "/j\u{f6}bs",
            "/a\nSet-Cookie: b",
            "http:/evil.test",
        ] {
            assert_eq!(safe_target(bad), None, "{bad}");
        }
        assert!(safe_target(&format!("/{}", "a".repeat(LONGEST_TARGET))).is_none());
    }
}

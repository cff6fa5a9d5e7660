//! Asking for a key, confirming the address, and taking the key, in a browser. Works without a script.
//!
//! Programs that look into mail open its links: opening changes nothing, a button does.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, get, post};
use claviger_issuer::key::MadeKey;
use claviger_issuer::key_request::{Confirmed, NewKeyRequest};
use claviger_issuer::{Failure, Issuer, Refusal};
use claviger_store::key_request::LinkKind;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::body::FormBody;
use crate::caller::request_info;
use crate::login_page::{Place, PlainForm};
use crate::pages::{ButtonPage, ClaimedPage, MessagePage, RequestKeyPage, respond};
use crate::problem::{Answer, Answered};

/// The form of the request page.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct RequestKeyForm {
    #[serde(default)]
    app_name: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    reason: String,
    /// Binds the form to the browser that it was shown in.
    #[serde(default)]
    csrf: String,
}

/// A link's secret part.
#[derive(Deserialize)]
pub(crate) struct LinkInPath {
    link: String,
}

fn request_page(
    place: &Place,
    issuer: &Issuer,
    req: &HttpRequest,
    form: &RequestKeyForm,
    problem: Option<(StatusCode, &str)>,
) -> Answered<HttpResponse> {
    let (status, problem) = problem.map_or((StatusCode::OK, None), |(status, text)| (status, Some(text)));
    place.with_form(issuer, req, |token| {
        let RequestKeyForm { app_name, email, reason, csrf: _ } = form;
        let page = RequestKeyPage { tenant_name: place.name(), base: &place.base, app_name, email, reason, token, problem };
        respond(status, &page)
    })
}

/// The page to ask for a key
#[utoipa::path(
    tag = "Pages",
    operation_id = "showRequestKeyPage",
    responses(
        (status = 200, description = "The page", content_type = "text/html", body = String),
        (status = 404, description = "The tenant takes no requests, or there is no such tenant", content((String = "text/html"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(()),
)]
#[get("/request-key")]
pub(crate) async fn show_request(req: HttpRequest, issuer: Data<Issuer>) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    match place.tenant.settings.key_requests().enabled {
        true => request_page(&place, &issuer, &req, &RequestKeyForm::default(), None),
        false => none_taken(&place),
    }
}

fn none_taken(place: &Place) -> Answered<HttpResponse> {
    let page = MessagePage {
        tenant_name: Some(place.name()),
        title: "No keys can be asked for here",
        text: "Ask the people who run this service.",
        link: None,
    };
    respond(StatusCode::NOT_FOUND, &page)
}

/// Ask for a key with the page's form
#[utoipa::path(
    tag = "Pages",
    operation_id = "requestKeyFromPage",
    request_body(content = RequestKeyForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 202, description = "What happens next", content_type = "text/html", body = String),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
        (status = 404, description = "The tenant takes no requests, or there is no such tenant", content((String = "text/html"), (crate::problem::Problem = "application/problem+json"))),
        (status = 422, description = "The page again: a field is wrong", content_type = "text/html", body = String),
        (status = 429, description = "The page again: too many requests", content_type = "text/html", body = String),
    ),
    security(()),
)]
#[post("/request-key")]
pub(crate) async fn request(req: HttpRequest, issuer: Data<Issuer>, form: FormBody<RequestKeyForm>) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    let form = form.take()?;
    if !place.admits(&req, &issuer, place.cookies().form(&req).as_deref(), &form.csrf) {
        return place.stale(&format!("{}/request-key", place.base));
    }
    let new = NewKeyRequest {
        app_name: &form.app_name,
        email: &form.email,
        reason: &form.reason.replace("\r\n", "\n"),
        request: request_info(&req),
    };
    match issuer.request_key(&place.tenant, new).await {
        Ok(_) => {
            let text = match issuer.settings().confirm_addresses {
                true => "We sent a message to the address. Open its link to confirm the request; then an admin decides.",
                false => "An admin decides, and tells you how you get the key.",
            };
            let page = MessagePage { tenant_name: Some(place.name()), title: "Your request is in", text, link: None };
            respond(StatusCode::ACCEPTED, &page)
        }
        Err(Failure::Refusal(Refusal::NotFound)) => none_taken(&place),
        Err(Failure::Refusal(refusal)) => {
            let answer = Answer::from(refusal);
            request_page(&place, &issuer, &req, &form, Some((answer.status(), answer.detail())))
        }
        Err(failure) => Err(failure.into()),
    }
}

/// A page with one button, or that the link is not good.
async fn ask(place: &Place, issuer: &Issuer, req: &HttpRequest, kind: LinkKind, link: &str) -> Answered<HttpResponse> {
    let Some(asked) = issuer.request_of_link(&place.tenant, kind, link).await? else { return not_good(place) };
    let (title, text, button, page) = match kind {
        LinkKind::Confirm => {
            ("Confirm your request", "Somebody asked for a developer key with your address.", "It was me", "confirm")
        }
        LinkKind::Claim => (
            "Take your key",
            "The key and its secret are shown once, on the next page. Have a place ready to keep them.",
            "Show the key",
            "claim",
        ),
    };
    let action = format!("{}/{page}/{link}", place.base);
    place.with_form(issuer, req, |token| {
        let page = ButtonPage { tenant_name: place.name(), title, text, about: &asked.app_name, action: &action, button, token };
        respond(StatusCode::OK, &page)
    })
}

/// One page for every link that is not good: used, over, or never there.
fn not_good(place: &Place) -> Answered<HttpResponse> {
    let page = MessagePage {
        tenant_name: Some(place.name()),
        title: "This link is not good",
        text: "It was used already, it is too old, or it is not complete. A link works once. Ask again if you need another.",
        link: None,
    };
    respond(StatusCode::NOT_FOUND, &page)
}

/// The page of a link that confirms a request
#[utoipa::path(
    tag = "Pages",
    operation_id = "showConfirmPage",
    params(("link" = String, Path, description = "The link's secret part")),
    responses(
        (status = 200, description = "A button; opening the page changes nothing", content_type = "text/html", body = String),
        (status = 404, description = "The link is not good, or there is no such tenant", content((String = "text/html"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(()),
)]
#[get("/confirm/{link}")]
pub(crate) async fn show_confirm(req: HttpRequest, issuer: Data<Issuer>, path: Path<LinkInPath>) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    ask(&place, &issuer, &req, LinkKind::Confirm, &path.link).await
}

/// Confirm a request
#[utoipa::path(
    tag = "Pages",
    operation_id = "confirmFromPage",
    params(("link" = String, Path, description = "The link's secret part")),
    request_body(content = PlainForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "What happens next", content_type = "text/html", body = String),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
        (status = 404, description = "The link is not good, or there is no such tenant", content((String = "text/html"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(()),
)]
#[post("/confirm/{link}")]
pub(crate) async fn confirm(
    req: HttpRequest,
    issuer: Data<Issuer>,
    path: Path<LinkInPath>,
    form: FormBody<PlainForm>,
) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    let csrf = form.take()?.csrf;
    if !place.admits(&req, &issuer, place.cookies().form(&req).as_deref(), &csrf) {
        return place.stale(&format!("{}/confirm/{}", place.base, path.link));
    }
    match issuer.confirm_key_request(&place.tenant, &path.link, &request_info(&req)).await {
        Ok(Confirmed::Waits) => {
            let page = MessagePage {
                tenant_name: Some(place.name()),
                title: "Confirmed",
                text: "An admin decides. You hear of it at this address.",
                link: None,
            };
            respond(StatusCode::OK, &page)
        }
        Ok(Confirmed::Approved(link)) => {
            // Whoever confirmed reads the mailbox that the link was sent to.
            let page = MessagePage {
                tenant_name: Some(place.name()),
                title: "Approved",
                text: "Your request was approved. The key is shown once, on the next page; the link was sent to you as well.",
                link: Some((link.expose_secret(), "Take the key")),
            };
            respond(StatusCode::OK, &page)
        }
        Err(Failure::Refusal(Refusal::NotFound)) => not_good(&place),
        Err(failure) => Err(failure.into()),
    }
}

/// The page of a link that shows a key
#[utoipa::path(
    tag = "Pages",
    operation_id = "showClaimPage",
    params(("link" = String, Path, description = "The link's secret part")),
    responses(
        (status = 200, description = "A button; opening the page changes nothing", content_type = "text/html", body = String),
        (status = 404, description = "The link is not good, or there is no such tenant", content((String = "text/html"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(()),
)]
#[get("/claim/{link}")]
pub(crate) async fn show_claim(req: HttpRequest, issuer: Data<Issuer>, path: Path<LinkInPath>) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    ask(&place, &issuer, &req, LinkKind::Claim, &path.link).await
}

/// Take a key
#[utoipa::path(
    tag = "Pages",
    operation_id = "claimFromPage",
    params(("link" = String, Path, description = "The link's secret part")),
    request_body(content = PlainForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The key and its secret, this once", content_type = "text/html", body = String),
        (status = 403, description = "The form did not come from our page", content_type = "text/html", body = String),
        (status = 404, description = "The link is not good, or there is no such tenant", content((String = "text/html"), (crate::problem::Problem = "application/problem+json"))),
    ),
    security(()),
)]
#[post("/claim/{link}")]
pub(crate) async fn claim(
    req: HttpRequest,
    issuer: Data<Issuer>,
    path: Path<LinkInPath>,
    form: FormBody<PlainForm>,
) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    let csrf = form.take()?.csrf;
    if !place.admits(&req, &issuer, place.cookies().form(&req).as_deref(), &csrf) {
        return place.stale(&format!("{}/claim/{}", place.base, path.link));
    }
    match issuer.claim_key(&place.tenant, &path.link, &request_info(&req)).await {
        Ok(MadeKey { key, secret }) => {
            let ends = key.expires_at.map(|end| end.format("%Y-%m-%d").to_string());
            let page = ClaimedPage {
                tenant_name: place.name(),
                api_key: key.id.as_str(),
                api_secret: secret.expose_secret(),
                scopes: &key.scopes.join(" "),
                ends: ends.as_deref(),
                endpoint: &format!("{}/v1/authentications", place.tenant.issuer),
            };
            respond(StatusCode::OK, &page)
        }
        // Taken by somebody else a moment ago, or not good any more: one page for all.
        Err(Failure::Refusal(_)) => not_good(&place),
        Err(failure) => Err(failure.into()),
    }
}

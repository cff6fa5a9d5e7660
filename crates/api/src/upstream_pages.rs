//! Signing in through a connection, in a browser: to the provider and back.

use actix_web::http::header;
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _, get};
use claviger_issuer::upstream::{Beginning, Purpose, Returned};
use claviger_issuer::{Failure, Issuer};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::body::Asked;
use crate::caller::request_info;
use crate::login_page::{Place, safe_target};
use crate::pages::{MessagePage, respond};
use crate::problem::{Answer, Answered};
use crate::v1::login::TokensOut;

/// What is begun.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct BeginQuery {
    /// A path on this server, to be shown after signing in; anything else is ignored.
    #[param(example = "/t/acme/account")]
    return_to: Option<String>,
    /// `tokens` ends with tokens as JSON, as the login with a password gives them; anything else with a session.
    #[param(example = "tokens")]
    into: Option<String>,
}

/// What the provider sends back (RFC 6749 §4.1.2, RFC 9207). Other parameters are ignored.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CallbackQuery {
    /// As it was sent there.
    state: Option<String>,
    /// To be exchanged.
    code: Option<String>,
    /// Why there is no code.
    error: Option<String>,
    /// Who answers.
    iss: Option<String>,
}

/// Taken by name, because the path also holds the tenant.
#[derive(Deserialize)]
pub(crate) struct ConnectionNameInPath {
    connection: String,
}

/// What went wrong: a page for people, a problem document for programs, which say that they want JSON.
pub(crate) fn refused(place: &Place, req: &HttpRequest, answer: Answer) -> Answered<HttpResponse> {
    let wanted = req.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if wanted.contains("json") {
        return Err(answer);
    }
    if let Some(fault) = answer.fault() {
        // The border logs what it sees; of a page it does not see why.
        tracing::error!(request.id = %request_info(req).id, error = %fault, "nobody could be signed in through a connection");
    }
    let login = format!("{}/login", place.base);
    let page = MessagePage {
        tenant_name: Some(place.name()),
        title: "You could not be signed in",
        text: answer.detail(),
        link: Some((&login, "Back to the login page")),
    };
    let mut response = respond(answer.status(), &page)?;
    let dressed = answer.error_response();
    for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
        if let Some(value) = dressed.headers().get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    Ok(response)
}

/// Sign in through a connection
///
/// Leads to the connection's provider, and from there back to `…/callback`.
#[utoipa::path(
    tag = "Pages",
    operation_id = "signInThroughConnection",
    params(("connection" = String, Path, description = "The connection's name"), BeginQuery),
    responses(
        (status = 303, description = "On to the provider"),
        (status = 404, description = "There is no such connection to a provider", body = crate::problem::Problem),
        (status = 429, description = "Too many were begun; see `Retry-After`", content_type = "text/html", body = String),
        (status = 503, description = "The provider gives no answer of use", content_type = "text/html", body = String),
    ),
    security(()),
)]
#[get("/login/{connection}")]
pub(crate) async fn begin(
    req: HttpRequest,
    issuer: Data<Issuer>,
    path: Path<ConnectionNameInPath>,
    query: Asked<BeginQuery>,
) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    let BeginQuery { return_to, into } = query.take().unwrap_or_default();
    let (browser, fresh) = place.binding(&issuer, &req);
    let purpose = if into.as_deref() == Some("tokens") { Purpose::Tokens } else { Purpose::Session };
    let beginning = Beginning {
        tenant: &place.tenant,
        connection: &path.connection,
        redirect_uri: Issuer::redirect_uri(&place.tenant, &path.connection),
        browser: &browser,
        purpose,
        return_to: return_to.as_deref().and_then(safe_target),
        request: &request_info(&req),
    };
    let url = match issuer.begin_upstream(beginning).await {
        Ok(url) => url,
        Err(Failure::Refusal(claviger_issuer::Refusal::NotFound)) => return Err(Answer::not_found()),
        Err(failure) => return refused(&place, &req, failure.into()),
    };
    let mut response = place.go(url.as_str());
    if fresh {
        response.cookie(place.cookies().set_form(&browser));
    }
    Ok(response.finish())
}

/// Come back from a connection's provider
#[utoipa::path(
    tag = "Pages",
    operation_id = "comeBackFromConnection",
    params(("connection" = String, Path, description = "The connection's name"), CallbackQuery),
    responses(
        (status = 200, description = "Tokens, where the login was begun with `into=tokens`", body = TokensOut),
        (status = 303, description = "Signed in, with a new session cookie: on to the target; or linked: back to the account page"),
        (status = 400, description = "No login that this browser began, or one that was finished (`invalid_state`)", content_type = "text/html", body = String),
        (status = 401, description = "The provider refused, or its answer does not hold (`upstream_refused`)", content_type = "text/html", body = String),
        (status = 403, description = "A group is missing (`missing_group`), or there is no account (`account_creation_disabled`) or none that may be used", content_type = "text/html", body = String),
        (status = 404, description = "There is no such connection to a provider", body = crate::problem::Problem),
        (status = 409, description = "The account's name is taken (`username_taken`), or linked otherwise (`linked_otherwise`)", content_type = "text/html", body = String),
        (status = 503, description = "The provider gives no answer of use", content_type = "text/html", body = String),
    ),
    security(()),
)]
#[get("/login/{connection}/callback")]
pub(crate) async fn callback(
    req: HttpRequest,
    issuer: Data<Issuer>,
    path: Path<ConnectionNameInPath>,
    query: Asked<CallbackQuery>,
) -> Answered<HttpResponse> {
    let place = Place::of(&req).await?;
    // What is sent twice is as good as nothing.
    let CallbackQuery { state, code, error, iss } = query.take().unwrap_or_default();
    let cookies = place.cookies();
    let request = request_info(&req);
    let (browser, session) = (cookies.form(&req), cookies.session(&req));
    let signed_in = match &session {
        Some(cookie) => match issuer.signed_in(&place.tenant, cookie, request.clone()).await {
            Ok(caller) => Some(caller),
            Err(Failure::Refusal(_)) => None,
            Err(failure) => return refused(&place, &req, failure.into()),
        },
        None => None,
    };
    let returned = Returned {
        tenant: &place.tenant,
        connection: &path.connection,
        redirect_uri: Issuer::redirect_uri(&place.tenant, &path.connection),
        browser: browser.as_deref(),
        state: state.as_deref(),
        code: code.as_deref(),
        error: error.as_deref(),
        iss: iss.as_deref(),
        signed_in: signed_in.as_ref(),
        request: &request,
    };
    let arrived = match issuer.finish_upstream(returned).await {
        Ok(arrived) => arrived,
        Err(Failure::Refusal(claviger_issuer::Refusal::NotFound)) => return Err(Answer::not_found()),
        Err(failure) => return refused(&place, &req, failure.into()),
    };
    let account = format!("{}/account", place.base);
    let to = arrived.return_to.clone().unwrap_or_else(|| account.clone());
    match arrived.purpose {
        Purpose::Link(..) => Ok(place.go(&account).finish()),
        Purpose::Tokens => match issuer.open_arrived_tokens(&place.tenant, arrived, None, &request).await {
            Ok(tokens) => Ok(HttpResponse::Ok().json(TokensOut::from(tokens))),
            Err(failure) => refused(&place, &req, failure.into()),
        },
        Purpose::Session => match issuer.open_arrived_session(&place.tenant, arrived, session.as_ref(), &request).await {
            Ok((cookie, lasts)) => Ok(place.go(&to).cookie(cookies.set_session(&cookie, lasts)).finish()),
            Err(failure) => refused(&place, &req, failure.into()),
        },
    }
}

//! A person logs out.

use actix_web::web::Data;
use actix_web::{HttpResponse, post};
use claviger_issuer::Issuer;
use claviger_issuer::caller::Login;

use crate::caller::{APerson, Caller};
use crate::cookies::Cookies;
use crate::problem::Answered;

/// What a browser forgets. Not its cookies: those of other tenants on this host would go too.
pub(crate) const CLEAR_SITE_DATA: (&str, &str) = ("clear-site-data", "\"cache\", \"storage\"");

/// Log out
///
/// Ends the browser session of the cookie, or the login of the bearer token.
#[utoipa::path(
    tag = "Login",
    operation_id = "logOut",
    responses(
        (status = 204, description = "The session or login has ended"),
        (status = 403, description = "The request came from another site (`cross_site`), or the caller is a key", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[post("/v1/logout")]
pub(crate) async fn create(caller: Caller<APerson>, issuer: Data<Issuer>) -> Answered<HttpResponse> {
    issuer.log_out(&caller.who).await?;
    let mut response = HttpResponse::NoContent();
    // A token's login is not the browser's.
    if matches!(caller.who.person()?.login, Some(Login::Session(_))) {
        let cookies = Cookies::of(&caller.who.tenant().tenant.slug);
        response.cookie(cookies.clear_session()).insert_header(CLEAR_SITE_DATA);
    }
    Ok(response.finish())
}

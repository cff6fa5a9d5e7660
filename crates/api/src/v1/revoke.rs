//! A token is called back (RFC 7009).

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, post};
use claviger_issuer::Issuer;
use claviger_issuer::caller::{Caller, Principal};
use claviger_issuer::scope::ScopeSet;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::body::FormBody;
use crate::caller::{path_tenant, request_info};
use crate::problem::Answered;
use crate::v1::login::client;

/// RFC 7009 §2.1, as a form.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct RevocationIn {
    /// The refresh token or access token.
    #[schema(value_type = String)]
    token: SecretString,
    /// Accepted and not needed: the token says what it is.
    #[serde(rename = "token_type_hint")]
    _token_type_hint: Option<String>,
}

/// Call a token back
///
/// A refresh token takes its whole login along, and so does an access token of a login; an access token of a key ends alone.
/// Whoever holds a token may end it; tokens that were given to a client need that client's key as `Authorization: Basic`.
/// A token that is not good, or not the caller's, is answered alike (RFC 7009 §2.2).
#[utoipa::path(
    tag = "Login",
    operation_id = "revokeToken",
    request_body(content = RevocationIn, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token counts no more, if it ever did"),
        (status = 401, description = "The token was given to a client, which did not prove itself", body = crate::problem::Problem),
    ),
    security((), ("basic" = [])),
)]
#[post("/v1/token/revoke")]
pub(crate) async fn create(req: HttpRequest, issuer: Data<Issuer>, form: FormBody<RevocationIn>) -> Answered<HttpResponse> {
    let tenant = path_tenant(&req).await?;
    let request = request_info(&req);
    let caller = client(&req, &issuer, tenant.as_deref()).await?.map(|key| Caller {
        principal: Principal::Key(key),
        scopes: ScopeSet::default(),
        acting: None,
        token_ends: None,
        request: request.clone(),
    });
    issuer.revoke(tenant.as_deref(), caller.as_ref(), &form.take()?.token, &request).await?;
    Ok(HttpResponse::Ok().finish())
}

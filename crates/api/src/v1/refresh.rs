//! A refresh token becomes the next one, and an access token with it.

use actix_web::web::{Data, Json};
use actix_web::{HttpRequest, post};
use claviger_issuer::Issuer;
use claviger_issuer::refresh::Refresh;
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::body::Body;
use crate::caller::{path_tenant, request_info};
use crate::problem::Answered;
use crate::v1::login::{TokensOut, client};

/// The token to be used.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshIn {
    /// The newest refresh token of a login.
    #[schema(value_type = String, example = "cr_AaL-Xy0bcmVmcmVzaCB0b2tlbnMgYXJlIG9wYXF1ZQ")]
    refresh_token: SecretString,
    /// Scopes, space-separated, of those that were granted. Absent asks for all of them.
    #[schema(example = "events:read")]
    scope: Option<String>,
}

/// Refresh
///
/// Each token is used once. An answer that got lost is given again, byte for byte, to whoever asks again with the same token
/// within the tenant's window (30 seconds if not set otherwise), so retries and parallel tabs are safe. Later, or once the
/// next token was used, a used token is a sign of theft: the login ends, and its newest token is answered with the reason
/// `refresh_token_reused`. After a 503, ask again with the same token.
#[utoipa::path(
    tag = "Login",
    operation_id = "refreshToken",
    request_body = RefreshIn,
    responses(
        (status = 200, description = "The next tokens", body = TokensOut),
        (status = 400, description = "More was asked for than was granted (`invalid_scope`); the token was not used", body = crate::problem::Problem),
        (status = 401, description = "The token cannot be used (`invalid_grant`)", body = crate::problem::Problem),
        (status = 422, description = "A field is missing or unknown", body = crate::problem::Problem),
    ),
    security((), ("basic" = [])),
)]
#[post("/v1/token/refresh")]
pub(crate) async fn create(req: HttpRequest, issuer: Data<Issuer>, body: Body<RefreshIn>) -> Answered<Json<TokensOut>> {
    let tenant = path_tenant(&req).await?;
    let RefreshIn { refresh_token, scope } = body.take()?;
    let client = client(&req, &issuer, tenant.as_deref()).await?;
    let refresh = Refresh {
        tenant: tenant.as_deref(),
        token: &refresh_token,
        client: client.as_ref(),
        scope: scope.as_deref(),
        resource: None,
        as_usual: false,
        request: request_info(&req),
    };
    Ok(Json(issuer.refresh(refresh).await?.into()))
}

//! A key and secret become a token.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, post};
use claviger_issuer::exchange::{Exchange, Granted};
use claviger_issuer::{Issuer, Refusal};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{self, RawBody};
use crate::caller::{path_tenant, request_info};
use crate::credentials;
use crate::problem::{Answer, Answered};

/// What an exchange may ask for. The whole body is optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuthenticationIn {
    /// Scopes, space-separated (RFC 6749 §3.3), of those that the key holds. Absent asks for all of them.
    #[schema(example = "events:read")]
    scope: Option<String>,
    /// The audience that the token is for, by name or `aud`; it has that audience's shape, and opens nothing of our
    /// management. Absent asks for the tenant's usual audience, and for a token for this issuer if it has none; the issuer's
    /// identifier asks for the latter.
    #[schema(example = "metric-store")]
    audience: Option<String>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuthenticationOut {
    /// A JWT (RFC 9068), to be sent as `Authorization: Bearer`.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl")]
    jwt: String,
    /// Seconds that the token lives. Told where the key gives refresh tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<i64>,
    /// To be used once, at `POST /v1/token/refresh`. For keys that were made with `refresh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

/// Exchange a key and secret for a token
///
/// Send `Authorization: KEY:SECRET` without a scheme, or `Authorization: Basic` with the same pair. Whatever is wrong
/// with the pair, the answer is one and the same 404.
#[utoipa::path(
    tag = "Tokens",
    operation_id = "createAuthentication",
    request_body(content = Option<AuthenticationIn>, example = json!({ "scope": "events:read" })),
    responses(
        (status = 201, description = "A token", body = AuthenticationOut),
        (status = 400, description = "More was asked for than the key holds (`invalid_scope`), or the body is not JSON", body = crate::problem::Problem),
        (status = 403, description = "Sent over plain http where https is required (`https-required`)", body = crate::problem::Problem),
        (status = 404, description = "Not a valid pair of key and secret", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong, repeated or unknown", body = crate::problem::Problem),
        (status = 429, description = "Too many failures of this key from this address; see `Retry-After`", body = crate::problem::Problem),
    ),
    security(("appKey" = []), ("basic" = [])),
)]
#[post("/v1/authentications")]
pub(crate) async fn create(req: HttpRequest, issuer: Data<Issuer>, body: RawBody) -> Answered<HttpResponse> {
    let request = request_info(&req);
    let credential = credentials::pair(&req, &issuer.settings().brand);
    let tenant = match path_tenant(&req).await {
        Ok(tenant) => tenant,
        // A tenant that is not there answers as a pair that is not valid.
        Err(answer) if answer.error() == "not_found" => {
            issuer.verify_pair(None, None, &request, issuer.clock().now()).await?;
            return Err(Refusal::InvalidPair.into());
        }
        Err(answer) => return Err(answer),
    };
    let tenant = tenant.as_deref();
    let asked = match body.0.is_empty() {
        true => Ok(AuthenticationIn::default()),
        false => body::parse::<AuthenticationIn>(&body.0),
    };
    let AuthenticationIn { scope, audience } = match asked {
        Ok(asked) => asked,
        Err(malformed) => {
            // What is wrong with the body is told only to who holds a valid pair.
            issuer.verify_pair(tenant, credential, &request, issuer.clock().now()).await?;
            return Err(malformed);
        }
    };
    let (scope, audience) = (scope.as_deref(), audience.as_deref());
    let granted = issuer.exchange(Exchange { tenant, credential, scope, resource: None, audience, request }).await?;
    let Granted { jwt, expires_in, scope: _, refresh_token } = granted;
    let refresh_token = refresh_token.map(|token| token.expose_secret().to_owned());
    let out = AuthenticationOut { jwt, expires_in: expires_in.filter(|_| refresh_token.is_some()), refresh_token };
    let body = serde_json::to_vec(&out).map_err(|_| Answer::internal())?;
    Ok(HttpResponse::Created().insert_header((header::CONTENT_TYPE, "application/json")).body(body))
}

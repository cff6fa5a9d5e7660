//! The public key in the forms that verifiers without JWKS take.

use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, get};
use claviger_issuer::key_pair::PublicKey;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::body::Asked;
use crate::caller::issuer;
use crate::problem::{Answer, Answered};
use crate::well_known;

/// How the key is written.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// Base64 of the 32 raw bytes.
    #[default]
    Raw,
    /// `-----BEGIN PUBLIC KEY-----` (RFC 8410).
    Pem,
    /// RFC 8037.
    Jwk,
}

/// In which form.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PublicKeyQuery {
    /// `raw` (default), `pem` or `jwk`.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// A key in one of its forms, and the form's media type.
pub(super) fn written(key: &PublicKey, format: Format) -> (&'static str, String) {
    match format {
        Format::Raw => ("text/plain; charset=utf-8", key.raw()),
        Format::Pem => ("application/x-pem-file", key.pem()),
        Format::Jwk => ("application/jwk+json", key.jwk().to_string()),
    }
}

/// Show the key that signs now
///
/// At the root, that of the default tenant. A verifier that can should use the JWK set instead: it follows rotations.
#[utoipa::path(
    tag = "Publication",
    operation_id = "showPublicKey",
    params(PublicKeyQuery),
    responses(
        (status = 200, description = "The public key", content(
            (String = "text/plain", example = "OFsM3Q1rIyM8R1KsQ1hJX5tMZxwU1E4vQy2uZ0m3l5o="),
            (String = "application/x-pem-file"),
            (serde_json::Value = "application/jwk+json"),
        )),
        (status = 404, description = "There is no such tenant", body = crate::problem::Problem),
    ),
    security(()),
)]
#[get("/v1/public-key")]
pub(crate) async fn show(req: HttpRequest, query: Asked<PublicKeyQuery>) -> Answered<HttpResponse> {
    let tenant = well_known::tenant(&req).await?;
    let key = tenant.published.active.as_ref().ok_or_else(Answer::not_found)?;
    let (kind, text) = written(key, query.take()?.format);
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, HeaderValue::from_static(kind)));
    well_known::publish(&mut response, &tenant, issuer(&req)?.clock().now());
    Ok(response.body(text))
}
